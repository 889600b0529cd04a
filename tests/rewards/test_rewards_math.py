import asyncio
import threading
import time

import pytest

from guerdon.rewards.bounded import Hung
from guerdon.rewards.math import MathAnswer, math_answer
from guerdon.rewards.sandbox import Failed, Pool
from guerdon.types import Prompt, Rollout


def row(text, answer):
    return Rollout(Prompt("p", "q", {"answer": answer}), text)


@pytest.mark.parametrize(
    ("text", "answer", "value"),
    [
        ("so it is \\boxed{\\frac{1}{2}}", "0.5", 1.0),
        ("<think>maybe 3</think><answer>72</answer>", 72, 1.0),
        ("<think>72</think> I say 71", "72", 0.0),
        ("no idea", "72", 0.0),
        ("", "72", 0.0),
        ("$x = 3$", "3", 1.0),
        ("It costs $1,000", "1000", 1.0),
        ("\\boxed{(1,2)}", "(1, 2)", 1.0),
        ("\\boxed{2x+1}", "1+2x", 1.0),
        ("\\boxed{12}", "12 apples", 1.0),
        ("\\boxed{15}", "So the answer is 15.", 1.0),
        ("The answer is 15.", "5 * 3 = 15\n#### 15", 1.0),
    ],
)
def test_answers_are_compared_as_mathematics(text, answer, value):
    assert math_answer([row(text, answer)])[0].value == value


def test_an_empty_reference_abstains():
    none, empty = math_answer([row("3", None), row("3", "")])
    assert none.abstained
    assert empty.abstained
    assert "reference" in empty.note


HARD = "\\boxed{9^{9^{9^{9}}}}"


def bounded_scores(timeout_s):
    began = time.monotonic()
    scores = MathAnswer(timeout_s=timeout_s)([row(HARD, "9^{9^{9^{8}}}"), row("4", "4")])
    return scores, time.monotonic() - began


def test_a_pathological_expression_abstains_in_bounded_time_and_the_next_row_is_scored():
    (hard, easy), seconds = bounded_scores(1.0)
    assert hard.abstained
    assert "1 s" in hard.note
    assert easy.value == 1.0
    assert seconds < 20
    _, again = bounded_scores(1.0)  # kept by digest
    assert again < 0.5


def test_it_works_off_the_main_thread_and_inside_asyncio():
    out = []
    thread = threading.Thread(target=lambda: out.append(bounded_scores(0.9)))
    thread.start()
    thread.join(60)

    async def main():
        return bounded_scores(0.8)

    out.append(asyncio.run(main()))
    assert [[s.abstained for s in scores] for scores, _ in out] == [[True, False], [True, False]]


def test_a_pool_replaces_killed_and_dead_workers():
    pool = Pool(1)
    try:
        first = pool.call("os:getpid", timeout_s=30)
        assert pool.call("os:getpid", timeout_s=30) == first  # persistent
        began = time.monotonic()
        with pytest.raises(Hung):  # holds the interpreter, so that no signal handler could run
            pool.call("guerdon.rewards._math_worker:spin", timeout_s=0.5)
        assert time.monotonic() - began < 5
        assert pool.call("os:getpid", timeout_s=30) != first
        with pytest.raises(Failed, match="raised ValueError: math domain error"):
            pool.call("math:sqrt", -1, timeout_s=30)
        with pytest.raises(Failed, match="died"):
            pool.call("os:abort", timeout_s=30)
        results = pool.map("math:sqrt", [(4,), (-1,), (9,)], timeout_s=30)
        assert results[0::2] == [2.0, 3.0]
        assert isinstance(results[1], Failed)
    finally:
        pool.close()


def test_a_worker_has_a_memory_limit_and_no_torch():
    pool = Pool(1, memory_mb=512)
    try:
        with pytest.raises(Failed, match="MemoryError"):
            pool.call("builtins:bytearray", 1 << 30, timeout_s=30)
        assert pool.call("builtins:eval", "'torch' in __import__('sys').modules", timeout_s=30) is False
    finally:
        pool.close()
