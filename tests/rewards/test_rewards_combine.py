import math

import pytest

from guerdon.errors import UserError
from guerdon.rewards import Clip, Gate, GroupNormalise, Minimum, Normalise, Product, pointwise, score_metrics, weighted
from guerdon.types import Prompt, Rollout, Score, Span


def rows(*values, group=0):
    return [Rollout(Prompt(f"p{group}", "q", {"a": v}), "text", group=group) for v in values]


@pointwise
def first(a):
    return a


@pointwise
def square(a):
    return None if a is None else a * a


@pointwise
def positive(a):
    return None if a is None else a > 0


def constant(value, name="c"):
    return pointwise(name=name)(lambda text: value)


def test_weighted_sum_with_raw_values_as_named_parts():
    reward = weighted({"a": first, "b": square}, {"b": 0.5})
    (score,) = reward(rows(3.0))
    assert score.value == pytest.approx(3 + 4.5, abs=1e-12)
    assert dict(score.parts) == {"a": 3.0, "b": 9.0}
    assert len(score.spans) == 1


def test_parts_of_parts_are_prefixed():
    inner = pointwise(name="verl")(lambda text: {"score": 0.5, "acc": 1})
    assert dict(weighted([inner])(rows(1))[0].parts) == {"verl": 0.5, "verl/acc": 1.0}


def test_spans_of_different_granularity_add_up():
    def tokens(rollouts):
        return [Score((Span(0, 1, 1.0), Span(1, 2, 2.0)), note="n")] * len(rollouts)

    def whole(rollouts):
        return [Score((Span(0, 2, 10.0),))] * len(rollouts)

    (score,) = weighted({"t": tokens, "w": whole, "u": tokens}, {"t": 2.0, "w": 0.1})(rows(1))
    assert set(score.spans) == {Span(0, 1, 3.0), Span(1, 2, 6.0), Span(0, 2, 1.0)}
    assert score.value == pytest.approx(10.0)


def test_any_missing_part_abstains_unless_told_to_skip():
    parts = {"a": constant(1.0), "b": constant(None), "c": constant(4.0)}
    (score,) = weighted(parts)(rows(0))
    assert score.abstained
    assert dict(score.parts) == {"a": 1.0, "c": 4.0}
    assert "b: " in score.note
    weights = {"a": 1.0, "b": 2.0, "c": -1.0}
    (score,) = weighted(parts, weights, missing="skip")(rows(0))
    assert score.value == pytest.approx((1.0 - 4.0) * 4 / 2)  # rescaled by sum |w| over what judged
    assert weighted({"b": constant(None)}, missing="skip")(rows(0))[0].abstained


def test_bad_weights_are_errors():
    with pytest.raises(UserError, match="unknown rewards"):
        weighted({"a": first}, {"b": 1.0})
    with pytest.raises(UserError, match="2 weights for 1"):
        weighted([first], [1, 2])
    with pytest.raises(UserError, match="same name"):
        weighted([first, first])
    with pytest.raises(UserError, match="finite"):
        weighted([first], [math.inf])


def test_clip_and_normalise_keep_the_raw_value_as_a_part():
    (score,) = Clip(square, -1, 1)(rows(3.0))
    assert (score.value, dict(score.parts)) == (1.0, {"square": 9.0})
    (score,) = Normalise(first, mean=1.0, std=4.0)(rows(3.0))
    assert (score.value, dict(score.parts)) == (0.5, {"first": 3.0})
    assert Clip(square)(rows(None))[0].abstained
    with pytest.raises(UserError, match="low < high"):
        Clip(first, 1, 0)
    with pytest.raises(UserError, match="positive"):
        Normalise(first, std=0)


def test_group_normalise_golden_and_degenerate_groups():
    reward = GroupNormalise(square, eps=0.0)
    scores = reward([*rows(1.0, 2.0, None), *rows(5.0, group=1)])
    assert [s.value for s in scores[:2]] == pytest.approx([-1.0, 1.0], abs=1e-12)  # 1, 4: mean 2.5, std 1.5
    assert scores[2].abstained
    assert scores[3].value == 0.0
    assert [s.value for s in GroupNormalise(first, std=False)(rows(1.0, 2.0, 6.0))] == pytest.approx([-2, -1, 3])
    assert [s.value for s in reward(rows(2.0, 2.0))] == [0.0, 0.0]
    assert dict(scores[0].parts) == {"square": 1.0}


def test_gate_product_minimum():
    gate = Gate(square, positive, otherwise=-1.0)
    scores = gate(rows(2.0, -2.0))
    assert [s.value for s in scores] == [4.0, -1.0]
    assert dict(scores[1].parts) == {"square": 4.0, "positive": 0.0}
    assert gate(rows(None))[0].abstained
    assert Gate(constant(None), constant(0.0, "g"))(rows(1))[0].value == 0.0  # shut: whatever the reward says
    assert Product((first, square))(rows(2.0))[0].value == 8.0
    assert Minimum((first, square))(rows(0.5))[0].value == 0.25
    (score,) = Product((constant(2.0), square))(rows(None))
    assert score.abstained
    assert dict(score.parts) == {"c": 2.0}


def test_score_metrics_leave_abstentions_out():
    scores = weighted({"a": first, "b": square})(rows(1.0, 3.0, None))
    metrics = score_metrics(scores)
    assert metrics["reward"] == pytest.approx(7.0)
    assert metrics["reward_std"] == pytest.approx(5.0)
    assert metrics["reward/abstained"] == pytest.approx(1 / 3)
    assert metrics["rewards/b/mean"] == pytest.approx(5.0)
    assert metrics["rewards/a/std"] == pytest.approx(1.0)
    assert score_metrics([Score.abstain("x")]) == {"reward/abstained": 1.0}
