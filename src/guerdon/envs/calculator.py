"""A tool for language models: a calculator that answers when it is called."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

from guerdon.envs.text import Turn
from guerdon.types import Prompt

OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
LONGEST = 200  # characters of an expression


@final
@dataclass(frozen=True)
class Calculator:
    """Evaluates what a turn calls for: `<calc>12 * (3 + 4)</calc>` is answered with `84`; a turn without a call ends the episode.

    call: a regular expression whose first group is the expression; of several calls in a turn the last counts. answer: how the result is
    said, with `{result}`. role, turns: of the world. Expressions have numbers, `+ - * / // %` and brackets; whatever else is answered with
    "error: " and why, so that the policy can mend it.
    """

    call: str = r"<calc>(.*?)</calc>"
    answer: str = "{result}"
    role: str = "user"
    turns: int = 4

    def reply(self, prompt: Prompt, said: Sequence[Turn], /) -> str | None:
        found = re.findall(self.call, said[-1]["content"], re.DOTALL)
        return self.answer.format(result=evaluated(found[-1])) if found else None


def evaluated(text: str) -> str:
    """The value of an arithmetic expression as text: whole numbers without a point, others with up to 12 digits; or "error: " and why."""
    if len(text) > LONGEST:
        return f"error: more than {LONGEST} characters"
    try:
        value = _value(ast.parse(text.strip(), mode="eval").body)
        return str(int(value)) if value == int(value) else f"{value:.12g}"
    except ZeroDivisionError:
        return "error: division by zero"
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        return "error: no arithmetic expression"


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value  # type: ignore[return-value]
    if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_value(node.operand))
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError(ast.dump(node))
