"""Episodes of several turns: the world's words are in the sequence, in no mask, and nothing is rendered again."""

import dataclasses

import pytest
import torch

from guerdon.config import Optim, Sampling
from guerdon.core import credit, surrogate
from guerdon.core.reduce import token_mean
from guerdon.core.rng import Key
from guerdon.envs.calculator import Calculator, evaluated
from guerdon.errors import UserError
from guerdon.learn.learner import Adam, Learner
from guerdon.learn.little import new_policy, taught
from guerdon.learn.verbs import values, with_adv
from guerdon.papers import policy_gradient_baselines as baselines
from guerdon.policies.text import TextPolicy
from guerdon.policies.turns import Playing, after_turn
from guerdon.testing.models import small_model
from guerdon.types import Prompt, Rollout, Score, Term, decisions


@dataclasses.dataclass(frozen=True)
class Echo:
    """Says the policy's turn length back, twice."""

    role: str = "user"
    turns: int = 3
    times: int = 2

    def reply(self, prompt, said, /):
        done = sum(turn["role"] == self.role for turn in said)
        return f"You said {len(said[-1]['content'])}." if done < self.times else None


@pytest.fixture
def folder(tmp_path):
    return small_model(tmp_path / "model")


def steered(folder, world, **options):
    """A policy whose stop token is likely, so that turns end."""
    policy = Playing.load(folder, world=world, **{"max_new": 6, **options})
    draw = policy._draw

    def early(*args, **how):
        found = draw(*args, **how)
        stop = policy.codec.stop_ids[0]
        return [dataclasses.replace(d, ids=torch.cat([d.ids[:-1], torch.tensor([stop])]), stopped=True) for d in found]

    policy._draw = early
    return policy


def test_the_episode_is_what_the_template_renders(folder):
    policy = steered(folder, Echo())
    [rollout] = policy.sample([Prompt("a", "Hello")], 1, Key(0))
    roles = [m["role"] for m in rollout.content]
    assert roles == ["assistant", "user", "assistant", "user", "assistant"]
    assert rollout.end == "stop"
    turns, replies = rollout.segments["turn"], rollout.segments["world"]
    assert [a for span in zip(turns, (*replies, None), strict=True) for a in span if a] == sorted([*turns, *replies])
    assert turns[0][0] == 0 and turns[-1][1] == len(rollout) == len(rollout.mask) == len(rollout.logp)
    inside = torch.zeros(len(rollout), dtype=torch.bool)
    for start, stop in turns:
        inside[start:stop] = True
    assert torch.equal(rollout.mask, inside)
    assert not rollout.logp[~rollout.mask].any()
    for (start, stop), said in zip(replies, rollout.content[1::2], strict=True):
        text = policy.tokenizer.decode(rollout.actions[start:stop].tolist())
        assert said["content"] in text
        assert "<|user|>" in text and text.rstrip().endswith("<|assistant|>")
        assert rollout.actions[start - 1] == policy.codec.stop_ids[0]  # what the policy sampled, once
        assert policy.codec.stop_ids[0] not in rollout.actions[start : start + 1].tolist()


def test_sampled_log_probabilities_are_those_of_the_whole_sequence(folder):
    policy = Playing.load(folder, world=Calculator(call="(.*)", turns=2), max_new=5)
    rollouts = policy.sample([Prompt("a", "What is 12 plus 30?"), Prompt("b", "Hello")], 3, Key(1))
    assert [r.group for r in rollouts] == [0, 0, 0, 1, 1, 1]
    batch = policy.collate(rollouts)
    logp = policy.forward(batch).logp
    assert torch.allclose(logp[batch.mask], batch.old_logp[batch.mask], atol=1e-4)


def test_what_the_world_wrote_teaches_nothing(folder):
    policy = steered(folder, Echo())
    rollouts = policy.sample([Prompt("a", "Hello"), Prompt("b", "Well")], 2, Key(0))
    term = Term("pg", lambda o, b: surrogate.ppo_clip(o.logp, b.old_logp, b.adv), over=decisions, reduce=token_mean)
    adv = credit.rloo(values([Score.whole(r, float(i)) for i, r in enumerate(rollouts)]), torch.tensor([0, 0, 1, 1]))

    def gradient(change):
        batch = change(with_adv(policy.collate(rollouts), adv))
        loss = (term.loss(policy.forward(batch), batch) * batch.mask).sum() / batch.mask.sum()
        return torch.autograd.grad(loss, list(policy.parameters())[:1])[0]

    plain = gradient(lambda b: b)
    spoilt = gradient(lambda b: b.with_(old_logp=torch.where(b.mask, b.old_logp, -3.0), adv=torch.where(b.mask, b.adv, 7.0)))
    assert torch.equal(plain, spoilt)
    learner = Learner(policy, [term], Adam(1e-3))
    assert learner.update(with_adv(policy.collate(rollouts), adv))["loss"] == pytest.approx(0.0, abs=0.2)


def test_ends_of_an_episode(folder):
    used_up = steered(folder, Echo(times=9, turns=1))
    [rollout] = used_up.sample([Prompt("a", "Hello")], 1, Key(0))
    assert (len(rollout.segments["turn"]), rollout.end) == (2, "length")
    silent = steered(folder, Echo(times=0))
    [rollout] = silent.sample([Prompt("a", "Hello")], 1, Key(0))
    assert isinstance(rollout.content, str)
    assert rollout.segments == {"turn": ((0, len(rollout)),)}
    assert rollout.end == "stop"
    cut = Playing.load(folder, world=Echo(), max_new=1)
    assert all(len(r.segments["turn"]) == 1 for r in cut.sample([Prompt("a", "Hello")], 4, Key(0)) if r.end == "length")
    narrow = steered(folder, Echo(), max_length=24)
    [rollout] = narrow.sample([Prompt("a", "Hello")], 1, Key(0))
    assert rollout.end == "length"
    assert sum(narrow.lengths(rollout)) <= 24


def test_a_world_without_a_template_speaks_in_its_own_words():
    policy = new_policy(["calc", "1", "2", "3"], 0, max_new=3)
    ids = after_turn(policy.codec, "tool", "3 2")
    assert policy.tokenizer.decode(ids) == "3 2"


def test_a_role_that_the_template_does_not_know():
    policy = TextPolicy.load("tiny")
    with pytest.raises(UserError, match="roles"):
        after_turn(policy.codec, "tool", "3")
    assert policy.tokenizer.decode(after_turn(policy.codec, "user", "3")) == "<|user|>3<|end|><|assistant|>"


# ---------------------------------------------------------------- learning to use a tool

DIGITS = tuple(map(str, range(10)))


def product(key: Key) -> Prompt:
    a, b, c = torch.randint(2, 10, (3,), generator=key.generator()).tolist()
    return Prompt(str(key), f"{a} * {b} + {c} ", {"answer": " ".join(str(a * b + c))})


@dataclasses.dataclass(frozen=True)
class SpelledCalculator:
    """The calculator for a model that reads and writes one digit a word."""

    role: str = "tool"
    turns: int = 1

    def reply(self, prompt, said, /):
        call = said[-1]["content"].split()
        return " ".join(evaluated("".join(call[1:]))) if call[:1] == ["calc"] else None


def right(rollouts):
    last = [r.content if isinstance(r.content, str) else r.content[-1]["content"] for r in rollouts]
    return [Score.whole(r, float(text == r.prompt.meta["answer"])) for r, text in zip(rollouts, last, strict=True)]


def test_reinforcement_learning_finds_the_tool():
    """A model that guesses or asks the calculator, as often, learns to ask: guessing is seldom right."""
    key = Key(0)
    base = new_policy(["calc", "*", "+", *DIGITS], 0, max_new=8, context=40)
    policy = Playing(base.model, base.tokenizer, world=SpelledCalculator(), name="claim", max_new=8, sample_rows=512)
    lessons = []
    for i in range(1500):
        asked = product(key.fold("lesson", i))
        guess = " ".join(str(k) for k in torch.randint(10, (2,), generator=key.fold("guess", i).generator()).tolist())
        lessons.append(Rollout(asked, guess if i % 2 else f"calc {asked.content.strip()}"))
        # What to do with a reply: the conversation up to it is the prompt here.
        called = policy.encode(Rollout(asked, f"calc {asked.content.strip()}")).actions.tolist()
        context = (*policy.codec.prompt_ids(asked), *called, *after_turn(policy.codec, "tool", asked.meta["answer"]))
        lessons.append(Rollout(Prompt(f"{asked.id}/2", context), asked.meta["answer"]))
    policy = taught(policy, lessons, key, updates=150)
    tests = [product(key.fold("test", i)) for i in range(100)]
    before = sum(s.value for s in right(policy.sample(tests, 1, key.fold("before")))) / 100
    cfg = baselines.RLOO(batch=16, steps=15, sampling=Sampling(n=4, max_new=8), optim=Optim(lr=1e-3))
    recipe = cfg.build(policy, [product(key.fold("train", i)) for i in range(240)], right, key)
    for t in range(recipe.steps):
        recipe.step(t)
    after = policy.sample(tests, 1, key.fold("after"))
    assert before < 0.75
    assert sum(s.value for s in right(after)) / 100 > before + 0.15
    assert sum("world" in r.segments for r in after) > 80
