"""What a math worker process runs. Nothing here imports torch: a worker starts in about a second."""

from __future__ import annotations

import logging
import math
import re


def preload() -> None:
    """Load the symbolic algebra, before the clock of the first answer runs."""
    logging.disable(logging.WARNING)  # math-verify warns that it has no time bound: this process is the bound
    same("$\\frac{1}{2}$", "\\boxed{0.5}")


def same(reference: str, text: str) -> float | None:
    """1.0 when the text's final answer equals the reference, 0.0 when it differs or there is none, None for an unreadable reference."""
    from math_verify import verify

    gold = _gold(reference)
    if not gold:
        return None
    answer = _parsed(text)
    return float(bool(answer) and bool(verify(gold, answer, timeout_seconds=None, raise_on_error=True)))


def _gold(reference: str) -> list:
    """Bare references ("1+2x", "(1, 2)") are read as a whole, not searched for a last number as a sentence is."""
    reference = reference.rpartition("####")[2].strip()  # GSM8K puts its answer there
    sentence = re.search(r"\$|\\boxed|\\\[|\\\(|[A-Za-z]{2,}\s+[A-Za-z]{2,}", reference)
    boxed = f"\\boxed{{{reference}}}"
    return (_parsed(reference) or _parsed(boxed)) if sentence else (_parsed(boxed) or _parsed(reference))


def _parsed(text: str) -> list:
    from math_verify import parse

    return parse(text, parsing_timeout=None)  # type: ignore[arg-type]


def spin() -> None:
    """Never return, and hold the interpreter while at it: what a test needs to see killed."""
    while True:
        math.factorial(200_000)
