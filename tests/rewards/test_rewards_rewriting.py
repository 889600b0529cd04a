"""The rewriting reward: one pass equals the greedy rewrite, other tokenisations, and what cannot be judged."""

import pytest
import torch

from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.learn.little import new_policy
from guerdon.rewards.rewriting import RewriteReward, other_tokens, rewriting, text_ends
from guerdon.testing import ToyPolicy, check_reward, toy_prompts
from guerdon.types import Prompt, Rollout

WORDS = ("a", "b", "c", "d", "->")
TEMPLATE = "{prompt} {answer} ->"


def model(seed=0, **sizes):
    return new_policy(WORDS, seed, max_new=5, context=20, **sizes)


def test_one_pass_finds_where_the_greedy_rewrite_leaves_the_response():
    rm = model()
    answers = rm.sample([Prompt(str(i), w) for i, w in enumerate("abcd")], 12, Key(0))
    reward, seen = RewriteReward(rm, instruction=TEMPLATE, batch_size=5), set()
    for answer, score in zip(answers, reward(answers), strict=True):
        asked = rewriting(answer, TEMPLATE)
        (rewrite,) = rm.sample([asked], 1, Key(0), temperature=0.0)
        written, better = answer.actions.tolist(), rewrite.actions.tolist()
        same = next((t for t, x in enumerate(written) if t >= len(better) or better[t] != x), len(written))
        values = [s.value for s in score.spans]
        assert values[:same] == [1.0] * same
        assert same == len(values) or values[same] == -1.0
        assert 1.0 not in values[same:]
        assert score.parts == {"prefix": same / len(written), "edits": float(values.count(-1.0))}
        seen.add(same)
    assert len(seen) > 1


def test_what_the_model_is_asked():
    text = rewriting(Rollout(Prompt("p", "Say it."), "it"), "Improve it.").content
    assert text == "Say it.\n\nit\n\nImprove it.\n\n"
    chat = rewriting(Rollout(Prompt("p", [{"role": "user", "content": "Say it."}]), "it"), "Improve it.").content
    assert [m["role"] for m in chat] == ["user", "assistant", "user"]


class Codec:
    """Tokens of fixed pieces of text."""

    def __init__(self, pieces):
        self.pieces, self.stop_ids = pieces, (0,)

    def text(self, ids):
        return "".join(self.pieces[i] for i in ids)


class Knows:
    """A rewriting model with its own tokens ("ab", "cd", the end), that would not write the second one."""

    codec = Codec(["", "ab", "cd"])

    def encode(self, rollout):
        ids = torch.tensor([1, 2, 0])
        return rollout.with_(actions=ids, mask=torch.ones(3).bool())

    def collate(self, rollouts):
        from guerdon.types import Batch

        none = torch.zeros(len(rollouts), dtype=torch.long)
        return Batch({}, torch.ones(len(rollouts), 3).bool(), none, none)

    def forward(self, batch, need):
        from guerdon.types import Outputs

        logits = torch.nn.functional.one_hot(torch.tensor([1, 1, 0]), 3).double()
        return Outputs(extra={"logits": logits.expand(len(batch), 3, 3)})


def test_values_are_carried_to_the_policys_tokens():
    class Writer:
        codec = Codec(["", "a", "bcd"])

    written = Rollout(Prompt("p", "q"), "abcd", torch.tensor([1, 2, 0]), mask=torch.ones(3).bool())
    (score,) = RewriteReward(Knows(), writer=Writer())([written])
    assert [s.value for s in score.spans] == pytest.approx([0.5, 0.5 - 1.0, 0.0])  # + for ab, - for cd, the end agrees too late
    assert text_ends(Writer(), written) == [1, 4, 4]
    (same,) = RewriteReward(Knows())([written])
    assert [s.value for s in same.spans] == [1.0, -1.0, 0.0]
    (text,) = RewriteReward(Knows())([Rollout(Prompt("p", "q"), "abcd")])
    assert len(text.spans) == 1 and text.value == 0.0


def test_other_tokens():
    assert not other_tokens(model(), model(1)) and not other_tokens(ToyPolicy(), model())
    assert other_tokens(model(), new_policy(("a", "z"), 0, max_new=5))


def test_contract():
    check_reward(RewriteReward(model(), instruction=TEMPLATE), model().sample([Prompt(x, x) for x in "abc"], 3, Key(1)))
    rows = ToyPolicy().sample(toy_prompts(), 2, Key(0))
    assert all(len(s.spans) == len(r) for s, r in zip(RewriteReward(ToyPolicy(spread=1.0))(rows), rows, strict=True))
    full = Rollout(Prompt("p", "a"), " ".join("b" * 30))
    assert RewriteReward(model(), instruction=TEMPLATE)([full])[0].abstained  # no room beside itself


def test_wrong_settings():
    for wrong in ({"positive": -1.0}, {"normalise": "words"}, {"batch_size": 0}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            RewriteReward(ToyPolicy(), **wrong)
