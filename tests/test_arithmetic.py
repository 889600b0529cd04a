"""What the numbers of a config come to."""

import pytest

from guerdon.arithmetic import arithmetic
from guerdon.assemble import configure


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "1, each over 32 units in 1 forward pass"),
        ({"micro_units": 5}, "1, each over 32 units in 7 forward passes"),
        ({"micro_tokens": 8192}, "1, each over 32 units in forward passes of at most 8,192 tokens"),
    ],
)
def test_how_many_forward_passes_an_update_takes(settings, said):
    _, cfg = configure("dpo", {"batch": 32, **settings})
    assert dict(arithmetic(cfg, "pairs", 640))["updates a step"] == said
