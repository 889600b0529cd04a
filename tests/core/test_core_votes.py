"""Votes: the worked example of Co-Reward, ties and blanks, and the teacher's schedule at its ends."""

import pytest

from guerdon.core import votes

ORIGINAL, PARAPHRASE = ["12", "12", "8", ""], ["8", "8", "12", "8"]


def test_each_view_is_judged_by_the_other():
    assert votes.majority(ORIGINAL) == "12"
    assert votes.majority(PARAPHRASE) == "8"
    assert votes.agreement(ORIGINAL, votes.majority(PARAPHRASE)) == [0, 0, 1, 0]
    assert votes.agreement(PARAPHRASE, votes.majority(ORIGINAL)) == [0, 0, 1, 0]
    assert votes.agreement(ORIGINAL, votes.majority(ORIGINAL)) == [1, 1, 0, 0]  # the trap: a view scored by its own label


def test_two_views_sure_of_different_answers_teach_nothing():
    one, other = ["3", "3"], ["4", "4"]
    assert votes.agreement(one, votes.majority(other)) == votes.agreement(other, votes.majority(one)) == [0, 0]


def test_blanks_have_no_vote_and_are_never_right():
    assert votes.majority(["", "", "", "7"]) == "7"
    assert votes.majority(["", ""]) == votes.majority([]) == ""
    assert votes.agreement(["", "7"], "") == [0, 0]
    assert votes.agreement(["", "7"], "7") == [0, 1]
    assert votes.agreement([], "7") == []


def test_of_equally_many_the_first_seen():
    assert votes.majority(["b", "a", "a", "b", "c"]) == "b"
    assert votes.majority(["", "c", "a", "b"]) == "c"


def test_answers_are_compared_as_they_are():
    assert votes.majority(["1/2", "0.5", "0.5", "1/2 "]) == "0.5"
    assert votes.agreement(["0.50", "0.5"], "0.5") == [0, 1]


def test_the_teacher_slows_down_along_half_a_cosine():
    assert [votes.annealed(k, 100) for k in (0, 50, 100)] == pytest.approx([0.99, 0.99495, 0.9999], abs=1e-12)
    assert votes.annealed(25, 100) == pytest.approx(0.9999 - 0.00495 * (1 + 0.5**0.5), abs=1e-12)
    assert votes.annealed(300, 100) == pytest.approx(0.9999, abs=1e-12)  # past the end
    rises = [votes.annealed(k, 20) for k in range(21)]
    assert rises == sorted(rises)
    assert votes.annealed(0, 1, start=0.5, end=0.5) == 0.5


@pytest.mark.parametrize("wrong", [dict(k=-1, total=3), dict(k=0, total=0), dict(k=0, total=3, start=-0.1), dict(k=0, total=3, end=1.5)])
def test_impossible_schedules_are_refused(wrong):
    with pytest.raises(ValueError, match="hint: 0"):
        votes.annealed(**wrong)
