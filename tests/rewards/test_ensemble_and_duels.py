"""Rewards from several models, and from duels."""

import pytest
import torch

from guerdon.errors import UserError
from guerdon.rewards.duels import Duels, together
from guerdon.rewards.ensemble import Ensemble, Joined
from guerdon.types import Prompt, Rollout

PROMPT = Prompt("p", "Why?")


class Table:
    """A judge that knows its scores by heart."""

    def __init__(self, scores):
        self.scores = scores

    def score(self, rollouts):
        return torch.tensor([self.scores[r.content] for r in rollouts])


def rows(*texts, group=0):
    return [Rollout(PROMPT, text, group=group) for text in texts]


def test_an_ensemble_is_joined_as_it_says():
    members = [Table({"x": 1.0}), Table({"x": 3.0}), Table({"x": 2.0})]
    expected = {"mean": 2.0, "worst": 1.0, "uwo": 2 - 0.5 * 2 / 3, "lcb": 2 - 0.5 * (2 / 3) ** 0.5}
    for how, value in expected.items():
        assert Ensemble(members, Joined(how)).score(rows("x")).item() == pytest.approx(value, abs=1e-6)
    assert Ensemble(members, Joined("uwo", ddof=1)).score(rows("x")).item() == pytest.approx(1.5)
    assert Ensemble(members).doubt(rows("x")).item() == pytest.approx((2 / 3) ** 0.5)
    with pytest.raises(UserError, match="without members"):
        Ensemble([])
    with pytest.raises(UserError, match="joined by"):
        Joined("median")  # type: ignore[arg-type]


def test_a_duel_shows_both_in_order_braces_and_all():
    a, b = rows("a {second}", "b")
    assert together(a, b).content == "First answer: a {second}\nSecond answer: b"
    assert together(a, b, "{first}|{second}!").content == "a {second}|b!"
    for wrong in ("{first} only", "{second} before {first}"):
        with pytest.raises(UserError, match="a duel shown as"):
            together(a, b, wrong)


MARGINS = {"a|b": 2.0, "a|c": -1.0, "b|a": -1.5, "b|c": 0.5, "c|a": 1.2, "c|b": -0.3}


def test_places_among_the_others_of_a_group():
    three = rows("a", "b", "c")
    expected = {"max_logits": [1.3, -2.7, 1.4], "max_wins": [2, 2, 2], "average": [0.5, -0.5, 0.45], "bubble": [0, 0, 1]}
    for how, points in expected.items():
        found = Duels(Table(MARGINS), how, shown="{first}|{second}")([*three, *rows("a", group=1)])
        assert [s.value for s in found[:3]] == pytest.approx(points, abs=1e-6)
        assert found[3].abstained
    with pytest.raises(UserError, match="counted by 'median'"):
        Duels(Table(MARGINS), "median")  # type: ignore[arg-type]
