"""A calculator that answers what it is called for, and says why where it cannot."""

import pytest

from guerdon.envs.calculator import Calculator, evaluated
from guerdon.types import Prompt


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12 * (3 + 4)", "84"),
        (" -7 // 2", "-4"),
        ("1 / 4", "0.25"),
        ("7 % 4", "3"),
        ("1 / 0", "error: division by zero"),
        ("__import__('os')", "error: no arithmetic expression"),
        ("2 ** 99", "error: no arithmetic expression"),
        ("1 +", "error: no arithmetic expression"),
        ("9" * 201, "error: more than 200 characters"),
        ("1e308 * 10", "error: no arithmetic expression"),
    ],
)
def test_the_calculator(text, value):
    assert evaluated(text) == value
    assert Calculator().reply(Prompt("a", "?"), [{"role": "assistant", "content": f"<calc>0</calc> or <calc>{text}</calc>"}]) == value
    assert Calculator().reply(Prompt("a", "?"), [{"role": "assistant", "content": "84"}]) is None
