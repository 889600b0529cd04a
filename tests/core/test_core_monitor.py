"""The signs of over-optimisation: the spec's numbers, and every way in which a series may and may not give a run away."""

import math

import pytest
import torch

from guerdon.core.logprob import linear_logp
from guerdon.core.monitor import (
    StopRule,
    fall_from_peak,
    overoptimised,
    raw_entropy,
    smoothed,
    token_mean,
    top_k_entropy,
    top_k_mass,
)

LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
ALL = torch.ones(2, dtype=torch.bool)
PLAIN = StopRule(momentum=0.0, patience=3, min_delta=0.0, delta_mass=0.02)


def test_golden_numbers():
    top = LOGITS.topk(2, 1).values
    mass, entropy = top_k_mass(top, LOGITS.logsumexp(1)), top_k_entropy(top)
    found = [token_mean(x, ALL) for x in (mass, entropy, raw_entropy(mass, entropy))]
    assert found == pytest.approx([0.690398539, 0.637675145, 0.658873899], abs=1e-9)


def test_the_head_gives_the_same_numbers():
    """From hidden states, over tiles: the logits are the states themselves."""
    out = linear_logp(LOGITS, torch.eye(4, dtype=torch.float64), torch.tensor([3, 0]), top_k=2, tile=(1, 3))
    assert float(out.top_k_mass.mean()) == pytest.approx(0.690398539, abs=1e-9)
    assert float(out.top_k_entropy.mean()) == pytest.approx(0.637675145, abs=1e-9)


def test_one_token_and_all_tokens():
    assert top_k_entropy(LOGITS.topk(1, 1).values).tolist() == [0.0, 0.0]
    everything = top_k_mass(LOGITS, LOGITS.logsumexp(1))
    assert everything.tolist() == pytest.approx([1.0, 1.0], abs=1e-15)
    assert float(top_k_entropy(LOGITS)[1]) == pytest.approx(math.log(4), abs=1e-12)


def test_impossible_tokens_count_nothing():
    top = torch.tensor([[0.0, 0.0, -math.inf]], dtype=torch.float64)
    assert float(top_k_entropy(top)) == pytest.approx(math.log(2), abs=1e-12)
    assert float(top_k_mass(top, torch.tensor([math.log(4)], dtype=torch.float64))) == pytest.approx(0.5, abs=1e-12)
    assert raw_entropy(torch.zeros(1), torch.zeros(1)).tolist() == [0.0]


def test_tokens_that_do_not_count():
    x = torch.tensor([[1.0, math.nan], [3.0, 8.0]])
    assert token_mean(x, torch.tensor([[True, False], [True, True]])) == pytest.approx(4.0)  # over tokens, not over rows
    assert token_mean(x, torch.zeros(2, 2, dtype=torch.bool)) is None


# ---------------------------------------------------------------- series


def test_smoothing():
    assert smoothed([1.0, 2.0, 0.0], 0.8) == pytest.approx([1.0, 1.2, 0.96], abs=1e-12)
    assert smoothed([0.1] * 50, 0.8) == [0.1] * 50
    assert smoothed([], 0.8) == []


def fired(entropy, mass=None, rule=PLAIN):
    return overoptimised(entropy, [0.5] * len(entropy) if mass is None else mass, rule)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 2.7])
def test_a_constant_series_never_fires(value):
    for rule in (PLAIN, StopRule(), StopRule(min_delta=0.0, delta_mass=0.0)):
        assert fired([value] * 200, [value / 3] * 200, rule) == ()


def test_nothing_fires_without_a_baseline():
    assert fired([]) == ()
    assert fired([1.0], [0.2]) == ()
    assert fired([None, 1.0], [None, 0.1]) == ()


def test_entropy_that_turns_down_fires_after_so_many_falls():
    series = [1.0, 1.2, 1.4, 1.3, 1.2, 1.1, 1.0]
    assert fired(series[:5]) == ()
    (sign,) = fired(series)
    assert (sign.indicator, sign.at, sign.since) == ("entropy", 5, 2)
    assert sign.fall == pytest.approx(0.3)


def test_a_rise_in_between_starts_the_count_anew():
    assert fired([1.0, 0.9, 0.8, 0.85, 0.8, 0.7]) == ()
    assert fired([1.0, 0.9, 0.8, 0.85, 0.8, 0.7, 0.6])[0].at == 6


def test_falls_in_a_row_count_together():
    """However often it is looked at: the same fall in twice as many evaluations."""
    few, many = [1.0, 1.1, 1.0, 0.9, 0.8, 0.7], [1.0, 1.1, 1.05, 1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7]
    rule = StopRule(0.0, 3, 0.26, 0.02)
    assert (fired(few, rule=rule)[0].at, few[4]) == (4, 0.8)
    assert (fired(many, rule=rule)[0].at, many[7]) == (7, 0.8)
    assert fired(few, rule=StopRule(0.0, 3, 0.5, 0.02)) == ()
    assert fired(few, rule=StopRule(0.0, 5, 0.0, 0.02)) == ()


def test_mass_below_its_highest_fires():
    (sign,) = fired([1.0] * 5, [0.70, 0.75, 0.74, 0.729, 0.8])
    assert (sign.indicator, sign.at, sign.since) == ("mass", 3, 1)
    assert sign.fall == pytest.approx(0.021)
    assert fired([1.0] * 4, [0.70, 0.75, 0.74, 0.731]) == ()


def test_smoothing_delays():
    fast, slow = (fired([1.0, 1.5, 1.4, 1.3, 1.2, 1.1, 1.0, 0.9, 0.8, 0.7], rule=StopRule(m, 3, 0.0, 0.02))[0].at for m in (0.0, 0.8))
    assert (fast, slow) == (4, 7)  # worked by hand: the running mean is 1, 1.1, 1.16, 1.188, 1.1904, 1.1723, 1.1379, 1.0903, ...


def test_the_first_evaluation_with_a_sign_counts_and_both_signs_of_it():
    falling = [1.0, 0.9, 0.8, 0.7, 0.6]
    assert {s.indicator for s in fired(falling, [0.9, 0.9, 0.9, 0.8, 0.7])} == {"entropy", "mass"}
    assert [s.indicator for s in fired(falling, [0.9, 0.8, 0.7, 0.6, 0.5])] == ["mass"]
    (sign,) = fired(falling, [0.9, 0.9, 0.9, 0.9, 0.1])
    assert (sign.indicator, sign.at, sign.since, sign.fall) == ("entropy", 3, 0, pytest.approx(0.3))


def test_evaluations_without_a_value_are_passed_over():
    (sign,) = fired([1.0, None, 0.9, math.nan, 0.8, 0.7], [None] * 6)
    assert (sign.at, sign.since) == (5, 0)


def test_what_fired_stays_the_first_when_more_comes():
    series = [1.0, 1.2, 1.1, 1.0, 0.9]
    early = fired(series)
    assert early and fired([*series, 2.0, 3.0, 2.0, 1.0, 0.0]) == early


def test_fall_from_the_highest():
    fall = fall_from_peak(torch.tensor([[0.0, 0.0], [2.0, 4.0], [1.0, -1.0]], dtype=torch.float64))
    assert (fall.since, fall.drop) == (1, pytest.approx(3.0))
    assert fall.error == pytest.approx(math.sqrt(8) / math.sqrt(2))  # differences 1 and 5
    last = fall_from_peak(torch.tensor([[0.0], [1.0]]))
    assert (last.since, last.drop, last.error) == (1, 0.0, 0.0)
