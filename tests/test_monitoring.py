"""Which preferences a run holds out, and a watched run from the command line."""

import json
from types import SimpleNamespace

import pytest

from guerdon import monitoring
from guerdon.assemble import configure, prepare, reopen
from guerdon.cli import main
from guerdon.config import Monitor
from guerdon.core.rng import Key
from guerdon.data.hold_out import hold_out
from guerdon.data.sources import test_pairs as pairs_of_the_test_split
from guerdon.domains import Data
from guerdon.errors import UserError
from guerdon.testing import toy_unpaired
from guerdon.testing.models import small_model
from guerdon.types import Preference, Prompt, Rollout


def preferences(n, prompts=None):
    asked = [Prompt(str(i), f"question {i % (prompts or n)}") for i in range(n)]
    return [Preference(p, (Rollout(p, f"good {i}"), Rollout(p, f"bad {i}"))) for i, p in enumerate(asked)]


def asked(name="data.jsonl", **settings):
    return SimpleNamespace(data=name, monitor=Monitor(**settings))


def held(n, kind="pairs", **settings):
    items = preferences(n) if kind != "unpaired" else toy_unpaired(n)
    return monitoring.hold_out(asked(**settings), {kind: Data(items, {}, "", "")}, Key(3))


# ---------------------------------------------------------------- taking pairs out


def test_held_out_pairs_are_a_pure_function_and_share_no_prompt():
    items = preferences(100, prompts=40)
    left, taken = hold_out(items, 10, Key(0))
    assert 8 <= len(taken) <= 10 and len(left) + len(taken) == 100  # prompts of two or three pairs
    assert left == [x for x in items if x not in taken]
    assert not {p.prompt.content for p in left} & {p.prompt.content for p in taken}
    assert hold_out(items, 10, Key(0)) == (left, taken)
    assert hold_out(items, 10, Key(1))[1] != taken


def test_prompts_that_come_again_and_again_are_held_out_pair_by_pair():
    items = preferences(50, prompts=1)
    left, taken = hold_out(items, 8, Key(0))
    assert len(taken) == 8 and len(left) == 42
    assert not {p.ranked[0].content for p in left} & {p.ranked[0].content for p in taken}


@pytest.mark.parametrize("n", [0, 5, 9])
def test_something_is_left_to_learn_from(n):
    with pytest.raises(UserError, match=f"{n} of 5 items"):
        hold_out(preferences(5), n, Key(0))


@pytest.mark.parametrize(
    ("rows", "settings", "taken"),
    [
        (1279, {}, 0),  # few rows are left alone
        (1280, {}, 64),
        (5000, {}, 64),
        (100, {"pairs": 6}, 6),
        (100, {"pairs": 64}, 10),  # a tenth at most
        (100, {"stop_on_overoptimisation": True}, 10),
        (5000, {"pairs": 0}, 0),
    ],
)
def test_how_many_rows_a_data_set_gives(rows, settings, taken):
    for kind in ("pairs", "pools"):
        data, found = held(rows, kind, **settings)
        assert (len(found.items), len(data[kind].items)) == (taken, rows - taken)


def test_what_is_said_of_it():
    assert held(5000)[1].note == "monitor: 64 pairs are held out of the training data, 4936 are left"
    assert "no monitor: 100 rows are few; --monitor.data" in held(100)[1].note
    assert held(100, "unpaired")[1].note == "" == held(100, pairs=0)[1].note


@pytest.mark.parametrize(
    ("rows", "kind", "settings", "why"),
    [
        (9, "pairs", {"pairs": 4}, "9 rows, and at most one in 10"),
        (100, "unpaired", {"pairs": 4}, "the data are no preferences"),
        (100, "unpaired", {"stop_on_overoptimisation": True}, "the data are no preferences"),
        (100, "pairs", {"data": "data.jsonl"}, "is the training data"),
    ],
)
def test_a_monitor_that_is_asked_for_and_cannot_be(rows, kind, settings, why):
    with pytest.raises(UserError, match=why) as error:
        held(rows, kind, **settings)
    assert "hint:" in str(error.value)


def test_methods_without_a_monitor_are_left_alone():
    data = {"pairs": Data(preferences(5000), {}, "", "")}
    assert monitoring.hold_out(SimpleNamespace(data="x"), data, Key(0)) == (data, monitoring.Held())


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("human-ratings:movie", "human-ratings:movie?split=test&n=8"),
        ("human-ratings", "human-ratings?split=test&n=8"),
        ("human-ratings:movie?gap=2.0&n=50", "human-ratings:movie?split=test&n=8&gap=2.0"),
        ("human-ratings:movie?list=4", "human-ratings:movie?split=test&n=8"),
        ("human-ratings:movie?split=test", None),
        ("reasoning-gym:chain_sum", None),
    ],
)
def test_the_test_split_of_a_source(name, want):
    assert pairs_of_the_test_split(name, 8) == want


def test_measuring_stays_a_small_part_of_the_work():
    assert monitoring.steps_between(1000, 64, 32, often=False) == 100
    assert monitoring.steps_between(1000, 64, 32, often=True) == 20
    assert monitoring.steps_between(20, 64, 32, often=False) == 4
    assert monitoring.steps_between(20, 64, 32, often=True) == 1


# ---------------------------------------------------------------- whole runs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_model(tmp_path / "model")
    rows = [{"prompt": f"What is {i}?", "chosen": f"It is {i} plus {i % 7}.", "rejected": f"no {i}"} for i in range(40)]
    for name, part in (("pairs.jsonl", rows), ("other.jsonl", rows[:6])):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in part))
    return tmp_path


ARGV = ["--model", "model", "--data", "pairs.jsonl", "--steps", "6", "--batch", "4", "--lr", "1e-3"]


def rows_of(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", ["dpo", "simpo"])
def test_a_watched_run_says_what_happened(method, folder, capsys):
    """One with a reference, one without."""
    assert main(["run", method, *ARGV, "--monitor.pairs", "4", "--monitor.every", "2", "--answers", "1", "--out", "out"]) == 0
    out, err = capsys.readouterr()
    assert "note: monitor: 4 pairs are held out of the training data, 36 are left" in err
    rows = rows_of(folder / "out")
    assert [row["step"] for row in rows if "monitor/kl" in row] == [0, 2, 4, 5]
    assert rows[0]["monitor/accuracies"] == 0.5
    assert rows[5]["monitor/mean_length"] > 0
    [(first, *_)] = [json.loads((folder / "out" / "verdict.json").read_text())[:1]]
    assert f"{first['verdict']}: {first['why']}" in out
    facts = json.loads((folder / "out" / "manifest.json").read_text())["facts"]
    assert facts["monitor"] == {"pairs": 4, "from": "the training data", "every": 2}
    assert main(["report", "out"]) == 0
    page = (folder / "out" / "report.html").read_text()
    assert first["why"].split(";")[0].split(":")[0].replace("'", "&#39;") in page
    assert "Held-out preferences" in page


def test_the_stop_rule_from_the_command_line(folder, capsys):
    rule = ["--stop-on-overoptimisation", "--monitor.pairs", "4", "--every", "1", "--smoothing", "0", "--patience", "1"]
    argv = ["run", "dpo", *ARGV, *rule, "--min-delta", "0", "--delta-mass", "0", "--out", "out"]
    argv[argv.index("--steps") + 1] = "40"
    assert main(argv) == 0
    out, _ = capsys.readouterr()
    assert "ended before its last step: " in out
    assert "over-optimised: " in out
    summary = json.loads((folder / "out" / "summary.json").read_text())
    assert summary["steps"] == len(rows_of(folder / "out")) < 40
    assert main(["resume", "out"]) == 0
    assert f"done: {summary['steps']} steps, nothing left to do\nended before its last step" in capsys.readouterr().out


def test_held_out_data_of_their_own_leave_the_training_data_whole(folder, capsys):
    assert main(["run", "kto", *ARGV, "--monitor.data", "other.jsonl", "--out", "out"]) == 0
    assert rows_of(folder / "out")[-1]["monitor/accuracies"] >= 0
    again = reopen(folder / "out")
    assert again.cfg.monitor.data == str(folder / "other.jsonl")
    assert len(again.held.items) == 6 and len(again.data["unpaired"].items) == 80


def test_small_data_are_left_alone_unless_asked(folder, capsys):
    method, cfg = configure("dpo", {"model": "model", "data": "pairs.jsonl"})
    prepared = prepare(method, cfg)
    assert not prepared.held.items and len(prepared.data["pairs"].items) == 40
    assert main(["check", "dpo", *ARGV]) == 0
    assert "no monitor: 40 rows are few" in capsys.readouterr().out
    with pytest.raises(UserError, match="is the training data"):
        prepare(*configure("dpo", {"model": "model", "data": "pairs.jsonl", "monitor.data": "pairs.jsonl"}))


SELF_REWARDING: dict[str, list[str]] = {
    "cream": ["--rounds", "1", "--prompts-per-round", "2", "--steps-per-round", "1", "--sft-steps", "1", "--n", "3"],
    "scir": ["--rounds", "1", "--prompts-per-round", "2", "--steps-per-round", "1", "--seed-steps", "1"],
    "selm": ["--rounds", "1", "--pairs-per-round", "2", "--steps-per-round", "1"],
    "temporal_self_rewarding": ["--iterations", "1", "--prompts-per-iteration", "2", "--steps-per-phase", "1", "--n", "2"],
    "egida": ["--steps", "2", "--test", "2", "--pairs", "2"],
}


@pytest.mark.parametrize("method", SELF_REWARDING)
def test_methods_that_make_their_own_pairs_are_watched_too(method, folder, capsys):
    """On held-out preferences that are given, for what most of them learn from holds none."""
    (folder / "prompts.jsonl").write_text(
        "".join(json.dumps({"prompt": f"Do {i}", "topic": "ab"[i % 2], "benign": i > 5}) + "\n" for i in range(8))
    )
    (folder / "guard.py").write_text("def safe(text):\n    return len(text) % 2\n")
    data = {"egida": "prompts.jsonl"}.get(method, "pairs.jsonl")
    argv = ["run", method, "--model", "model", "--data", data, "--batch", "2", "--max-new", "4", *SELF_REWARDING[method]]
    reward = [] if method in ("cream", "scir") else ["--reward", "guard.py:safe"]
    assert main([*argv, *reward, "--monitor.data", "other.jsonl", "--monitor.every", "1", "--out", "out"]) == 0
    rows = rows_of(folder / "out")
    assert all(row["monitor/accuracies"] >= 0 for row in rows)
    assert json.loads((folder / "out" / "manifest.json").read_text())["facts"]["monitor"]["pairs"] == 6
