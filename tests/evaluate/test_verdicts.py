"""What the monitor says, in words: one made-up run for each."""

import pytest

from guerdon.core.monitor import Sign
from guerdon.evaluate.verdicts import Limits, Look, reason, verdicts

PAIRS = 20


def look(step, chosen, rejected, **values):
    """Pairs spread a little around these means, so that there is a standard error."""
    off = [0.1 * (i % 5 - 2) for i in range(PAIRS)]
    mean = {"logratios/chosen": chosen, "logratios/rejected": rejected, "accuracies": float(chosen > rejected)}
    more = {"logps/chosen": -40.0 + chosen, "logps_per_token/chosen": (-40.0 + chosen) / 20, "kl": 0.01}
    return Look(step, {**mean, **more, **values}, [chosen + x for x in off], [rejected - x for x in off])


def said(*looks, signs=(), stopped=False, **limits):
    return verdicts(looks, signs, Limits(**limits), stopped=stopped)


START = look(0, 0.0, 0.0, top_k_mass=0.8, top_k_entropy=1.1)


def words(found):
    return [v["verdict"] for v in found]


def test_a_good_run_is_fine_and_says_its_numbers():
    (v,) = said(START, look(40, 3.0, -2.0, top_k_mass=0.82, top_k_entropy=1.2))
    assert v["verdict"] == "fine"
    assert v["why"] == (
        "100% of 20 held-out pairs ordered right; chosen answers +3 nats, rejected -2; top-k mass 0.8 -> 0.82; top-k entropy 1.1 -> 1.2"
    )


def test_displacement_says_how_much_since_when_and_what_to_do():
    (v,) = said(START, look(40, 2.0, -1.0), look(80, -10.0, -30.0))
    assert v["verdict"] == "displaced"
    assert v["why"] == (
        "the chosen answers became less likely by 12 nats since step 40, the rejected ones by 29: try dpop, cal_dpo, or an NLL term (rpo)"
    )


def test_a_fall_within_the_limits_or_chance_or_above_the_start_is_none():
    assert words(said(START, look(40, -0.5, -3.0))) == ["fine"]
    assert words(said(START, look(40, 9.0, -3.0), look(80, 5.0, -9.0))) == ["fine"]
    noisy = [30.0 * (-1) ** i - 2 for i in range(PAIRS)]
    assert "displaced" not in words(said(START, Look(40, START.values, noisy, [-50.0] * PAIRS)))
    assert "displaced" in words(said(START, look(40, -0.5, -3.0), displaced=0.2))


def test_over_optimisation_names_what_fired():
    looks = [START, look(40, 1.0, -1.0), look(80, 1.0, -2.0)]
    entropy, mass = Sign("entropy", 2, 1, 0.25), Sign("mass", 2, 0, 0.034)
    (v,) = said(*looks, signs=[entropy])
    assert "entropy among the likeliest next tokens fell from step 40 on, by 0.25 nats up to step 80" in v["why"]
    assert "--stop-on-overoptimisation" in v["why"] and "raise beta" in v["why"]
    (v,) = said(*looks, signs=[entropy, mass], stopped=True)
    assert "lost 0.034 of their probability from step 0 to step 80" in v["why"]
    assert "the run was ended there" in v["why"]
    assert reason([], looks) == ""


def test_ordering_past_its_best_not_learnt_and_swapped():
    good, half = look(40, 1.0, -1.0), look(80, 1.0, -1.0)
    half = Look(80, half.values, half.chosen, [x if i % 3 else 9.0 for i, x in enumerate(half.rejected)])
    (v,) = said(START, good, half)
    assert v["verdict"] == "past its best"
    assert "100% of the held-out pairs were ordered right at step 40, 65% at the end" in v["why"]
    assert words(said(START, look(40, 1.0, 1.0))) == ["nothing learnt"]
    (v,) = said(START, look(40, 0.5, 2.5))
    assert v["verdict"] == "the wrong way" and "2 nats" in v["why"] and "swapped" in v["why"]


@pytest.mark.parametrize(
    ("now", "word", "advice"), [(15.0, "longer answers", "simpo"), (5.0, "shorter answers", "beta"), (11.0, "fine", "")]
)
def test_lengths(now, word, advice):
    (v,) = said(look(0, 0.0, 0.0, mean_length=10.0), look(40, 1.0, -1.0, mean_length=now))
    assert v["verdict"] == word
    assert advice in v["why"]


def test_far_away():
    (v,) = said(START, look(40, 1.0, -1.0, kl=0.8))
    assert v["verdict"] == "far from its start"
    assert "KL 16 nats" in v["why"]  # .8 a token, 20 tokens


def test_several_at_once_and_none_measured():
    found = said(START, look(40, -20.0, -50.0, kl=2.0), signs=[Sign("mass", 1, 0, 0.1)])
    assert words(found) == ["displaced", "over-optimised", "far from its start"]
    assert words(said(START)) == ["not measured"]
