"""The continuation task: gold tokens and states at the right places, rewards, advantages, batches, and policies it cannot work with."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from guerdon.core import credit
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.learn import continuing
from guerdon.learn.continuing import CONTINUATION, TEXT, Continuations
from guerdon.policies.text import TextPolicy
from guerdon.testing.models import CORPUS, small_model
from guerdon.testing.toys import ToyPolicy
from guerdon.types import Prompt, Rollout

HOW = Continuations(chunks=3, tokens=4, n=2, least=4, last=4, likeness="hybrid", scale="batch")


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> TextPolicy:
    return TextPolicy.load(small_model(tmp_path_factory.mktemp("model")), raw=True)


@pytest.fixture(scope="module")
def texts(policy) -> list[Rollout]:
    return [continuing.as_text(policy, Rollout(Prompt(str(i), ""), line)) for i, line in enumerate(CORPUS)]


def test_a_text_is_prompt_and_answer(policy):
    demo = Rollout(Prompt("a", "What is 12 plus 30?"), "42")
    text = continuing.as_text(policy, demo)
    ids = policy.codec.prompt_ids(demo.prompt) + policy.encode(demo).actions.tolist()
    assert continuing.ids_of(text) == ids
    assert ids[-1] in policy.codec.stop_ids
    alone = continuing.as_text(policy, demo, prompt_only=True)
    assert continuing.ids_of(alone) == policy.codec.prompt_ids(demo.prompt)


def test_texts_are_joined_without_losing_a_token(policy, texts):
    demos = [Rollout(Prompt(str(i), ""), line) for i, line in enumerate(CORPUS)]
    pieces = continuing.joined_texts(policy, demos, 16)
    flat = [i for t in pieces for i in continuing.ids_of(t)]
    assert flat == [i for t in texts for i in continuing.ids_of(t)][: len(flat)]
    assert all(continuing.tokens_in(t) == 16 for t in pieces)


def test_a_text_leaves_room_for_the_place_behind_it(policy):
    demos = [Rollout(Prompt(str(i), ""), line) for i, line in enumerate(CORPUS * 4)]
    assert policy.max_length == 128
    continuing.read(policy, continuing.joined_texts(policy, demos, 127))
    with pytest.raises(UserError, match="more than 127 tokens") as error:
        continuing.check(policy, continuing.joined_texts(policy, demos, 128), HOW)
    assert "--length 127" in str(error.value)


def test_gold_tokens_and_states_stand_at_the_cut(policy, texts):
    """The states that continuations are compared with are those *at* the gold tokens, in a pass over the whole text."""
    reading = continuing.read(policy, texts)
    tasks = continuing.cut_open(policy, texts, reading, HOW, Key(0))
    assert len(tasks) == len(texts) * HOW.chunks
    for task in tasks:
        text = texts[task.text]
        ids = continuing.ids_of(text)
        assert list(task.given.prompt.content) == ids[: task.cut]
        assert task.gold.tolist() == ids[task.cut : task.cut + HOW.tokens]
        with torch.no_grad():
            states = policy.states(torch.tensor([ids]), torch.arange(len(ids))[None])[0]
        torch.testing.assert_close(task.states, states[task.cut : task.cut + HOW.tokens], atol=1e-4, rtol=1e-4)
        out = policy.model(input_ids=torch.tensor([ids])).logits[0, task.cut - 1].log_softmax(-1)
        torch.testing.assert_close(reading.entropy[task.text, task.cut - 1], -(out.exp() * out).sum(), atol=1e-4, rtol=1e-4)


def test_a_continuation_equal_to_the_text_has_the_full_reward(policy, texts, monkeypatch):
    def parrot(tasks: Any, how: Any) -> list[Rollout]:
        return [
            task.given.with_(actions=task.gold, content="", mask=torch.ones(how.tokens, dtype=torch.bool)) for task in tasks for _ in "ab"
        ]

    monkeypatch.setattr(continuing, "go_on", lambda policy, tasks, how, key: parrot(tasks, how))
    _, metrics = continuing.continued(policy, texts, HOW, Key(0))
    assert metrics["rewards/binary/mean"] == 1
    assert metrics["rewards/cosine/mean"] == pytest.approx(1, abs=1e-5)
    assert metrics["reward"] == pytest.approx(2, abs=1e-5)


def test_the_batch(policy, texts):
    batch, metrics = continuing.continued(policy, texts, HOW, Key(1))
    part = batch.extra["part"]
    is_text = part == TEXT
    assert is_text.tolist() == [True] * 4 + [False] * 24
    assert (batch.adv[is_text] == 0).all()
    assert batch.mask[~is_text].sum(1).eq(HOW.tokens).all(), "exactly so many tokens count"
    assert batch.unit.tolist() == [0, 1, 2, 3] + [i for i in range(4) for _ in range(6)]
    with torch.no_grad():
        again = policy.forward(batch).logp
    torch.testing.assert_close(batch.old_logp, again)
    assert 0 <= metrics["rewards/binary/mean"] <= 1
    assert metrics["reward"] == pytest.approx(metrics["rewards/binary/mean"] + metrics["rewards/cosine/mean"], abs=1e-5)
    assert metrics["entropy/cuts"] > 0


@pytest.mark.parametrize(
    ("changes", "groups", "scale"),
    [({"n": 1}, 4, "std"), ({"n": 2}, 12, "std"), ({"n": 2, "baseline": "text"}, 4, "std"), ({"n": 1, "baseline": "prefix"}, 4, "none")],
)
def test_who_is_compared_with_whom(policy, texts, changes, groups, scale, monkeypatch):
    seen = {}
    name = {"std": "grpo", "none": "dr_grpo"}[scale]
    original = getattr(credit, name)
    monkeypatch.setattr(credit, name, lambda reward, group: (seen.setdefault("group", group), original(reward, group))[1])
    how = Continuations(**{"chunks": 3, "tokens": 4, "least": 4, "last": 4, "scale": scale, **changes})
    batch, _ = continuing.continued(policy, texts, how, Key(2))
    if how.baseline == "prefix" and how.n == 1:
        assert (batch.adv == 0).all(), "a group of one gives nothing, not the raw reward"
    else:
        assert len(seen["group"].unique()) == groups
        assert (batch.adv[batch.extra["part"] == CONTINUATION] != 0).any()


def test_a_toy_goes_on_inside_its_own_text():
    """A policy that reads no ids keeps its prefix among the decisions, masked out."""
    toy = ToyPolicy(spread=0.5, steps=8)
    texts = [toy.encode(Rollout(Prompt(str(i), "A"), "abcdabc", end="length")) for i in range(3)]
    how = Continuations(chunks=2, tokens=2, n=3, least=1, last=2, likeness="binary", scale="none")
    batch, metrics = continuing.continued(toy, texts, how, Key(0))
    assert batch.mask[3:].sum(1).eq(2).all()
    assert metrics["completions/clipped_ratio"] == 1, "no stop token ends a continuation"


def test_short_texts(policy, texts):
    how = Continuations(chunks=2, tokens=4, least=10, last=10)
    continuing.check(policy, texts, how)
    with pytest.warns(UserWarning, match="1 of 5 texts have fewer than 24 tokens"):
        continuing.check(policy, [*texts, continuing.text_of([5, 6, 7])], how)
    with pytest.raises(UserError, match="all 4 texts have fewer than 204 tokens"):
        continuing.check(policy, texts, Continuations(least=100, last=100, tokens=4, chunks=2))


@pytest.mark.parametrize(
    ("changes", "warned"),
    [({"n": 4}, True), ({"n": 4, "scale": "batch"}, False), ({"n": 1}, False), ({"n": 4, "likeness": "binary", "tokens": 1}, False)],
)
def test_a_z_score_in_each_prefix_is_warned_of(policy, texts, changes, warned, recwarn):
    continuing.check(policy, texts, Continuations(**{"chunks": 2, "tokens": 4, "least": 4, "last": 4, **changes}))
    assert bool([w for w in recwarn if "z-score" in str(w.message)]) is warned


def test_policies_that_will_not_do(policy, texts):
    class Mute:
        pass

    with pytest.raises(UserError, match="does not encode texts"):
        continuing.as_text(Mute(), Rollout(Prompt("a", "x"), "y"))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="not made of tokens"):
        continuing.as_text(ToyPolicy(), Rollout(Prompt("a", "A"), "ab"), prompt_only=True)
    with pytest.raises(UserError, match="is empty"):
        continuing.text_of([])
    warm = TextPolicy(policy.model, policy.tokenizer, temperature=0.7)
    with pytest.raises(UserError, match="temperature"):
        continuing.check(warm, texts, HOW)
