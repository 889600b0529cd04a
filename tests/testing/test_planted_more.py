"""The audit names at least nine of ten flaws of the second half."""

import pytest

from guerdon.testing.planted_more import SECOND
from guerdon.testing.specimens import LACKING, LIGHT, outcome


@pytest.mark.timeout(300)
@pytest.mark.skipif(bool(LACKING), reason="needs the extra `text`")
def test_planted_flaws_are_named():
    share, wrong = outcome([s for s in SECOND if s.limits is not LIGHT])
    assert share >= 0.9, wrong
