import contextlib
import re
import signal
import threading
import time
import warnings

import pytest

from guerdon.errors import RunStopped, UserError
from guerdon.rewards import Guarded, dry_run, pointwise, weighted
from guerdon.rewards.adapt import adapt
from guerdon.rewards.bounded import Hung, bounded
from guerdon.rewards.guard import RewardWarning
from guerdon.types import Prompt, Rollout, Score


def rows(*texts):
    return [Rollout(Prompt(f"p{i}", "q", {"answer": t}), t) for i, t in enumerate(texts)]


def forever():
    while True:
        pass


def sleep():
    time.sleep(60)


def swallow():
    while True:
        with contextlib.suppress(Exception):
            time.sleep(0.01)


def backtrack():
    re.match(r"(a+)+$", "a" * 40 + "b")


@pytest.mark.parametrize("hang", [forever, sleep, swallow, backtrack])
def test_bounded_ends_hangs_on_the_main_thread(hang):
    began = time.monotonic()
    with pytest.raises(Hung, match=r"within 0\.3 s"):
        bounded(hang, 0.3)
    assert time.monotonic() - began < 5
    time.sleep(0.3)  # no late signal
    assert bounded(lambda: 7, 0.3) == 7


def test_a_bound_within_a_bound():
    def outer():
        with pytest.raises(Hung, match=r"within 0\.1 s"):
            bounded(sleep, 0.1)
        assert bounded(lambda: 7, 60) == 7
        time.sleep(60)

    with pytest.raises(Hung, match=r"within 0\.5 s"):
        bounded(outer, 0.5)
    assert bounded(lambda: 7, 0.1) == 7


def test_one_thread_watches_all_calls():
    for _ in range(50):
        bounded(lambda: None, 60)
    assert sum(t.name == "guerdon-watch" for t in threading.enumerate()) == 1


@pytest.mark.parametrize("hang", [forever, sleep])
def test_bounded_ends_hangs_on_another_thread(hang):
    seen = []

    def work():
        try:
            bounded(hang, 0.3)
        except Hung as error:
            seen.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert len(seen) == 1


def test_bounded_leaves_alarms_and_handlers_alone():
    before = signal.getsignal(signal.SIGVTALRM)
    hit = []
    old = signal.signal(signal.SIGALRM, lambda *_: hit.append(1))

    def uses_alarm():  # as rewards that bring math-verify's own time-out do
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        time.sleep(0.2)

    try:
        bounded(uses_alarm, 5)
    finally:
        signal.signal(signal.SIGALRM, old)
    assert hit == [1]
    assert signal.getsignal(signal.SIGVTALRM) == before
    with pytest.raises(KeyError):
        bounded(lambda: {}["x"], 1)


def test_a_row_that_hangs_abstains_and_the_others_are_scored():
    @pointwise
    def f(text):
        return forever() if text == "hang" else len(text)

    guard = Guarded(f, timeout_s=0.2)
    scores = guard(rows("a", "hang", "abc"))
    assert [s.abstained for s in scores] == [False, True, False]
    assert guard.last.reasons == {"did not return within 0.2 s": 1}
    metrics = guard.metrics()
    assert metrics["rewards/f/abstained"] == pytest.approx(1 / 3)
    assert metrics["rewards/f/seconds"] >= 0.2


def test_after_some_hangs_the_rest_of_the_call_is_not_tried():
    tried = []

    @pointwise
    def f(text):
        tried.append(text)
        return forever() if text == "hang" else 1.0

    guard = Guarded(f, timeout_s=0.1, max_hangs=2, max_abstained_share=1.0)
    scores = guard(rows("ok", "hang", "hang", "x", "y"))
    assert tried == ["ok", "hang", "hang"]
    assert [s.abstained for s in scores] == [False, True, True, True, True]


def test_a_batch_function_that_hangs_stops_the_run_with_the_reason():
    def f(completions, **columns):
        sleep()

    with pytest.raises(RunStopped, match=r"(?s)'f' gave no value at all \(2 of 2\): 2 x did not return within 0\.2 s.*\nhint: "):
        Guarded(adapt(f), timeout_s=0.2)(rows("a", "b"))


def test_a_reward_that_raises_is_counted_and_stops_past_the_share():
    @pointwise
    def f(text):
        if text == "bad":
            raise KeyError("column")
        return len(text)

    guard = Guarded(f, "mine")
    assert sum(s.abstained for s in guard(rows("bad", "a", "b"))) == 1
    with pytest.raises(RunStopped, match=r"'mine' abstained on 67% of the rows \(2 of 3\): 2 x raised KeyError: 'column'"):
        guard(rows("bad", "bad", "b"))


def test_all_nan_stops():
    with pytest.raises(RunStopped, match=r"gave no value at all \(2 of 2\).*NaN"):
        Guarded(pointwise(lambda text: float("nan")), max_abstained_share=1.0)(rows("a", "b"))


def test_a_bare_reward_object_that_raises_or_returns_floats():
    class Raw:
        def __call__(self, rollouts):
            return [float(len(r.content)) for r in rollouts]

    assert [s.value for s in Guarded(Raw())(rows("a", "bb"))] == [1.0, 2.0]

    def short(rollouts):
        return [Score.whole(rollouts[0], 1.0)]

    with pytest.raises(UserError, match="'short' returned 1 values for 2 rollouts"):
        Guarded(short)(rows("a", "b"))

    def infinite(rollouts):
        return [Score.whole(r, float("inf")) for r in rollouts]

    with pytest.raises(UserError, match="'infinite' returned inf"):
        Guarded(infinite)(rows("a", "b"))


def test_a_constant_reward_is_warned_of_by_name_once():
    reward = weighted({"varied": pointwise(lambda text: len(text)), "flat": pointwise(lambda text: 1.0)})
    guard = Guarded(reward, constant_after=6)
    guard(rows("a", "bb", "ccc"))
    with pytest.warns(RewardWarning, match=r"'flat' was 1 for the last 6 rollouts"):
        guard(rows("a", "bb", "ccc"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guard(rows("a", "bb", "ccc"))


def test_dry_run_reports_and_warns():
    reward = weighted({"len": pointwise(lambda text: len(text)), "flat": pointwise(lambda text: 2.0)})
    report = dry_run(reward, rows("a", "bb", "ccc", "dddd"))
    assert report.stats["len"] == (1.0, 2.5, 4.0)
    assert report.warnings == ("'flat' is the same (2) for every row",)
    assert "len: min 1" in str(report)
    some = dry_run(pointwise(lambda text: 1.0 if text == "a" else None), rows("a", "b"))
    assert "1 of 2 rows abstained" in some.warnings[0]


def test_dry_run_refuses_what_cannot_work():
    def broken(prompt, text):
        raise RuntimeError("no key")

    with pytest.raises(UserError, match=r"(?s)'broken' gave no value at all.*RuntimeError: no key \(test_rewards_guard.py:"):
        dry_run(adapt(broken), rows("a", "b"))
    with pytest.raises(UserError, match="did not return within"):
        dry_run(adapt(lambda text: forever()), rows("a"), timeout_s=0.2)
    with pytest.raises(UserError, match="needs rows"):
        dry_run(pointwise(lambda text: 1.0), [])
