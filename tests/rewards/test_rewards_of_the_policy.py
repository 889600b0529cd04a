"""Rewards that the policy itself gives: its greedy answer beside, its certainty, its chance of a reference answer."""

import pytest
import torch

from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.rewards.certainty import Certainty
from guerdon.rewards.given import ANSWER, ReferenceProbability, Swap
from guerdon.rewards.greedy import GREEDY, BesideGreedy
from guerdon.testing import ToyPolicy, ToyReward, check_reward, toy_prompts
from guerdon.types import Rollout, Score

POLICY = ToyPolicy(spread=1.0)


def drawn(n=5, policy=POLICY):
    return policy.sample(toy_prompts(4), n, Key(1))


# ---------------------------------------------------------------- beside the greedy answer


def test_the_greedy_answer_stands_beside_every_score():
    rollouts = drawn()
    plain, beside = ToyReward()(rollouts), BesideGreedy(POLICY, ToyReward())(rollouts)
    likeliest = POLICY.sample(toy_prompts(4), 1, Key(9), temperature=0.0)
    assert [r.content for r in likeliest] == [r.content for r in POLICY.sample(toy_prompts(4), 1, Key(3), temperature=0.0)]
    best = [s.value for s in ToyReward()(likeliest)]
    for i, (a, b) in enumerate(zip(plain, beside, strict=True)):
        assert (b.spans, b.note) == (a.spans, a.note)
        assert b.parts == {**a.parts, GREEDY: best[i // 5]}


def test_where_the_greedy_answer_is_not_judged_it_is_not_there():
    def picky(rollouts):
        return [Score.abstain("greedy") if len(rollouts) == 4 else Score.whole(r, 1.0) for r in rollouts]

    assert all(s.parts == {} and s.value == 1 for s in BesideGreedy(POLICY, picky)(drawn()))


# ---------------------------------------------------------------- certainty


def test_certainty_is_the_mean_over_decisions():
    rollouts = drawn()
    table = POLICY.logits.detach().log_softmax(-1)
    for measure in ("self_certainty", "entropy"):
        for r, score in zip(rollouts, Certainty(POLICY, measure, batch_size=3)(rollouts), strict=True):
            rows = table[POLICY.context(r.prompt), : len(r)]
            each = -rows.mean(-1) if measure == "self_certainty" else (rows.exp() * rows).sum(-1)
            assert score.value == pytest.approx(float(each.mean()), abs=1e-6)


def test_certainty_golden():
    """Logits 2, 0, 0, 0: self-certainty log(e^2 + 3) - 1/2, entropy log(e^2 + 3) - 2 e^2 / (e^2 + 3)."""
    policy = ToyPolicy("abc", steps=2).double()
    with torch.no_grad():
        policy.logits[..., 1] = 2.0
    row = [policy.encode(Rollout(toy_prompts(1)[0], "a"))]
    for measure, wanted in (("self_certainty", 1.8407529539), ("entropy", -0.9182837655)):
        assert Certainty(policy, measure)(row)[0].value == pytest.approx(wanted, abs=1e-9)


def test_a_response_without_decisions_has_no_certainty():
    empty = Rollout(toy_prompts(1)[0], "", torch.zeros(0, dtype=torch.long), mask=torch.zeros(0, dtype=torch.bool))
    some = [empty, drawn()[0]]
    assert [s.abstained for s in Certainty(POLICY)(some)] == [True, False]
    with pytest.raises(UserError, match="measure 'doubt'"):
        Certainty(POLICY, "doubt")  # type: ignore[arg-type]


def test_certainty_is_a_reward():
    check_reward(Certainty(POLICY, "entropy"), [r.with_(content=(r.content,)) for r in drawn(3)])  # it reads decisions, no text


# ---------------------------------------------------------------- reference answers


def said(content, end="stop"):
    return POLICY.encode(Rollout(toy_prompts(2)[1], content, end=end)).with_(group=1)  # its answer is "b"


def test_the_reference_takes_the_answers_place():
    swapped = Swap(POLICY, tag="")(said("dac"))
    assert swapped is not None
    assert swapped.actions.tolist() == [4, 1, 3, 2, 0]  # d a c, then b and the stop
    assert swapped.segments == {ANSWER: ((3, 5),)}
    assert swapped.mask.all() and swapped.group == 1 and swapped.end == "stop"


def test_what_cannot_be_swapped():
    swap = Swap(POLICY, tag="")
    assert swap(said("dacd", end="length")) is None  # it never ended
    assert swap(said("dacda")) is None  # no room for two more
    bare = toy_prompts(1)[0]
    assert swap(POLICY.encode(Rollout(type(bare)("x", "A", {}), "a"))) is None  # no reference


def test_the_answer_is_behind_its_tag():
    class Words(ToyPolicy):
        """Writes tokens that are words."""

        words = ("", "so", "<answer>", "7", "9</answer>")

        def pieces(self, rollout):
            return [self.words[a] for a in rollout.actions.tolist()]

        def encode(self, rollout):
            if rollout.actions is not None:
                return rollout
            ids = torch.tensor([self.words.index(rollout.content), 0])
            return rollout.with_(actions=ids, mask=torch.ones(2, dtype=torch.bool))

    prompt = type(toy_prompts(1)[0])("p", "A", {"answer": 9})
    row = Rollout(prompt, "so<answer>7", torch.tensor([1, 2, 3, 0]), mask=torch.tensor([False, True, True, True]))
    swapped = Swap(Words(), "answer")(row)
    assert swapped is not None
    assert swapped.actions.tolist() == [1, 2, 4, 0] and swapped.segments == {ANSWER: ((2, 4),)}
    assert swapped.mask.tolist() == [False, True, True, True]
    assert Swap(Words(), "answer")(row.with_(actions=torch.tensor([1, 1, 3, 0]))) is None


def test_reference_probability_by_hand():
    row = said("da")
    table = POLICY.logits.detach()[POLICY.context(row.prompt)].softmax(-1)
    behind = (float(table[2, 2]) + float(table[3, 0])) / 2
    before = (float(table[0, 2]) + float(table[1, 0])) / 2
    for debias in (True, False):
        (score,) = ReferenceProbability(POLICY, "", debias)([row])
        assert score.value == pytest.approx(max(0.0, behind - before * debias), abs=1e-6)
        assert score.parts == {"probability": pytest.approx(behind, abs=1e-6)}
    no_end, no_reference = said("dacd", end="length"), POLICY.encode(Rollout(type(row.prompt)("x", "A", {}), "a"))
    scores = ReferenceProbability(POLICY, "")([no_end, no_reference])
    assert scores[0].value == 0.0 and scores[1].abstained
