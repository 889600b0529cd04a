"""Sampled answers to pairs."""

import math

import pytest

from guerdon.data.pairing import PairSelector, best_and_worst, by_group, couples, win_rates
from guerdon.errors import UserError
from guerdon.types import Prompt, Rollout, Score


def answers(*scores, group=0, texts=None):
    prompt = Prompt(f"p{group}", "A")
    rollouts = [Rollout(prompt, t, group=group) for t in texts or [f"answer {i}" for i in range(len(scores))]]
    return rollouts, [Score.abstain("no") if x is None else Score.whole(r, x) for r, x in zip(rollouts, scores, strict=True)]


def test_best_against_worst_of_each_prompt():
    first, second = answers(0.2, None, 0.9, 0.1), answers(1.0, 1.0, group=1)
    pairs = best_and_worst(first[0] + second[0], first[1] + second[1])
    assert len(pairs) == 1  # the second prompt's answers are equal
    assert [r.content for r in pairs[0].ranked] == ["answer 2", "answer 3"]
    assert pairs[0].margin == 0.8


def test_the_same_answer_twice_is_no_pair():
    assert best_and_worst(*answers(1.0, 0.0, texts=["same", "same"])) == []
    assert best_and_worst(*answers(None, None)) == []
    assert best_and_worst(*answers(1.0)) == []


def test_win_rates():
    rollouts, scores = answers(3.0, 1.0, None, 1.0)
    [group] = by_group(rollouts, scores)
    assert win_rates(group) == [1.0, 0.25, 0.25]
    assert win_rates(group[:1]) == [0.5]


# ---------------------------------------------------------------- pools

TEMPORAL = PairSelector(chosen_from=("present", "future"), rejected_from=("past", "present"))


def pools(**scores):
    return {name: answers(*of, texts=[f"{name} {i + 1}" for i in range(len(of))]) for name, of in scores.items()}


def texts(pairs):
    return [tuple(r.content for r in pair.ranked) for pair in pairs]


def test_temporal_self_rewarding_by_hand():
    """Present [4, 3, 5], past [2, 1, 3]; then a future [5, 4] that is not above 5, and one that is."""
    first = PairSelector(chosen_from=("present",), rejected_from=("past", "present"))
    [pair] = first(pools(present=[4, 3, 5], past=[2, 1, 3]))
    assert (texts([pair]), pair.margin, pair.source) == ([("present 3", "past 2")], 4.0, "present over past")
    [pair] = TEMPORAL(pools(present=[4, 3, 5], past=[2, 1, 3], future=[5, 4]))
    assert (texts([pair]), pair.source) == ([("present 3", "past 2")], "present over past")
    [pair] = TEMPORAL(pools(present=[4, 3, 5], past=[2, 1, 3], future=[5, 6]))
    assert (texts([pair]), pair.margin, pair.source) == ([("future 2", "past 2")], 5.0, "future over past")


def test_ties_stay_with_the_preferred_pool_on_both_sides():
    tied = pools(present=[1, 5, 5], past=[1, 2, 3], future=[5, 5])
    assert texts(TEMPORAL(tied)) == [("present 2", "present 1")]
    other = PairSelector(TEMPORAL.chosen_from, TEMPORAL.rejected_from, prefer="past")
    assert texts(other(tied)) == [("present 2", "past 1")]  # chosen: none is of the past, so the first pool named


def test_who_was_not_judged_is_no_candidate():
    assert texts(TEMPORAL(pools(present=[4, None], past=[None, 1], future=[None]))) == [("present 1", "past 2")]
    only_past = PairSelector(("present",), ("past",))
    assert only_past(pools(present=[4], past=[None])) == []  # a side without candidates
    assert texts(only_past(pools(present=[None, 2], past=[1]))) == [("present 2", "past 1")]


def test_no_pair_without_a_margin_unless_the_pools_decide():
    worse = pools(given=[1], present=[2, 3])
    assert PairSelector(("given",), ("present",))(worse) == []
    [pair] = PairSelector(("given",), ("present",), least=-math.inf)(worse)
    assert (texts([pair]), pair.margin) == ([("given 1", "present 1")], -1.0)
    assert PairSelector(least=1.0)(pools(present=[2, 3])) == []
    assert len(PairSelector(least=0.9)(pools(present=[2, 3]))) == 1


def test_groups_meet_across_pools_and_the_same_words_are_no_pair():
    present = answers(1, 2), answers(3, 4, group=1)
    joined = (present[0][0] + present[1][0], present[0][1] + present[1][1])
    past = answers(0, group=1, texts=["answer 1"])
    across = PairSelector(("present",), ("past",))
    assert across({"present": joined, "past": past}) == []  # group 0 has no past; in group 1 both say "answer 1"
    [pair] = across({"present": joined, "past": answers(0, group=1, texts=["old"])})
    assert (pair.prompt.id, pair.ranked[0].content, pair.margin) == ("p1", "answer 1", 4.0)


def test_pools_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="no pool 'future'"):
        TEMPORAL(pools(present=[1, 2], past=[0]))
    with pytest.raises(UserError, match="given, past, present"):
        PairSelector(chosen_from=("tomorrow",))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="tuple"):
        PairSelector(rejected_from="past")  # type: ignore[arg-type]
    rollouts, scores = answers(0.0)
    other = [rollouts[0].with_(prompt=Prompt("elsewhere", "B"))]
    with pytest.raises(UserError, match="'p0' in one place and 'elsewhere'"):
        PairSelector(("present",), ("past",))({"present": (rollouts, scores), "past": (other, scores)})


def test_couples_of_unjudged_answers():
    first, second = answers(1, 2, 3)[0], answers(1, 2, 3, group=1, texts=["same", "same", "other"])[0]
    found = couples([*first, *second], 3)
    assert texts(found) == [("answer 0", "answer 1")]
    assert (found[0].label, found[0].margin) == (0.5, None)
    with pytest.raises(UserError, match="1 answer to each prompt"):
        couples(first, 1)
