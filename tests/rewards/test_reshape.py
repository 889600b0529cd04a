"""Rewards taken out of their length, or content with enough."""

import math

import pytest

from guerdon.errors import UserError
from guerdon.rewards.reshape import Enough, LengthFree
from guerdon.types import Prompt, Rollout, Score

PROMPT = Prompt("p", "Why?")


def said(words):
    return Rollout(PROMPT, " ".join(["word"] * words))


def scored(values):
    """A reward that knows what each length is worth; None abstains."""

    def reward(rollouts):
        found = [values[len(r.content.split())] for r in rollouts]
        return [Score.abstain("unknown") if v is None else Score.whole(r, v) for r, v in zip(rollouts, found, strict=True)]

    return reward


def test_a_line_is_taken_out_golden():
    reward = scored({10: 1.0, 20: 2.0, 30: 4.0, 40: 7.0, 5: None})
    free = LengthFree.fit(reward, [said(10), said(20), said(30), said(5)])
    assert [s.value for s in free([said(10), said(20), said(30)])] == pytest.approx([2.5, 2.0, 2.5], abs=1e-9)
    assert free([said(40)])[0].value == pytest.approx(7 - 0.15 * 20, abs=1e-9)  # the line goes on
    assert free([said(5)])[0].abstained
    assert free([said(30)])[0].parts == {"reward": 4.0}


def test_a_bent_dependence_is_taken_out_where_a_line_is_not_enough():
    values = {n: math.sin(n / 8) for n in range(1, 41)}
    rows = [said(n) for n in values]
    bent = [s.value for s in LengthFree.fit(scored(values), rows, how="lowess", share=0.2)(rows)]
    straight = [s.value for s in LengthFree.fit(scored(values), rows)(rows)]

    def spread(x):
        return max(x) - min(x)

    assert spread(bent) < 0.3 * spread(straight)


def test_lengths_that_are_all_equal_change_nothing():
    values = iter([1.0, 2.0, 6.0, 4.0])

    def reward(rollouts):
        return [Score.whole(r, next(values)) for r in rollouts]

    free = LengthFree.fit(reward, [said(3)] * 3)
    assert free([said(3)])[0].value == pytest.approx(4.0)


def test_too_few_or_an_unknown_curve_is_refused():
    reward = scored({3: 1.0, 4: 2.0})
    with pytest.raises(UserError, match="2 judged"):
        LengthFree.fit(reward, [said(3), said(4)])
    with pytest.raises(UserError, match="how='spline'"):
        LengthFree.fit(reward, [said(3), said(4), said(3)], how="spline")  # type: ignore[arg-type]


def test_enough_is_near_0_and_never_above():
    reward = scored({1: 0.0, 2: 9.0, 3: None})
    low, high, none = Enough(reward)([said(1), said(2), said(3)])
    assert low.value == pytest.approx(-math.log(2))
    assert -1e-3 < high.value < 0
    assert none.abstained
    assert Enough(reward, reference=9.0)([said(2)])[0].value == pytest.approx(-math.log(2))
