"""The report, from run folders as the runner writes them."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from guerdon.errors import UserError
from guerdon.report import page, plots, write
from guerdon.report.read import RunData, read_all, titles
from guerdon.report.shade import early_late, sample


def run_folder(folder: Path, *, steps: int = 30, gain: float = 1.0, **config) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"paper": "grpo", "config": {"model": "tiny", "optim": {"lr": 1e-4}, **config}}))
    (folder / "manifest.json").write_text(json.dumps({"guerdon": "0.1.0", "facts": {"first": "<|user|>\nHi & bye\n"}}))
    metrics, samples = [], []
    for t in range(steps):
        reward = gain * t / steps
        metrics.append(
            {
                "step": t,
                "reward": reward,
                "rewards/rm/mean": reward,
                "kl": 1e-13 if t == 0 else 0.001 * 1.3**t,
                "grad_norm": None,
                "seconds": 0.1,
            }
        )
        metrics[-1] |= {"entropy": 2.0, "reward/abstained": 0.0, "judge/vader": 0.1}
        for k in range(2):
            spans = [{"start": 0, "stop": 1, "value": 0.5}, {"start": 1, "stop": 3, "value": -1.0}] if k else []
            samples.append({"step": t, "prompt": f"p{k} <b>", "text": "one two three", "tokens": ["one", " two", " three"], "spans": spans})
            samples[-1] |= {"reward": reward + k, "parts": {"rm": reward}, "end": "length" if k else "stop", "note": ""}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))
    (folder / "summary.json").write_text(json.dumps({"steps": steps, "seconds": 75.0, "peak_memory": 2**30}))
    return folder


class Strict(HTMLParser):
    """Collects text and ids, and checks that tags close in order."""

    VOID = {"meta", "br", "img", "link", "hr", "input"}

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.ids += [v for k, v in attrs if k == "id" and v]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.ids += [v for k, v in attrs if k == "id" and v]

    def handle_data(self, data):
        self.text.append(data)


def parse(page: Path) -> tuple[str, Strict]:
    strict = Strict()
    strict.feed(page.read_text(encoding="utf-8"))
    assert strict.open == []
    return " ".join(" ".join(strict.text).split()), strict


def test_one_self_contained_file_with_everything(tmp_path: Path):
    a, b = run_folder(tmp_path / "a", beta=0.1), run_folder(tmp_path / "b", beta=0.0, gain=2.0)
    (b / "verdict.json").write_text(json.dumps([{"run": "b", "verdict": "gamed", "why": "distinct-2 fell"}]))
    page = write([a, b], tmp_path / "out" / "r.html", tables=[("Judges", ["judge", "a"], [["VADER", 0.07123]], "a note")])
    text, _ = parse(page)
    source = page.read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)=["'](?!#)""", source)  # nothing is fetched (SVG refers to itself only)
    assert "<script" not in source
    assert "@import" not in source
    assert "url(http" not in source
    for words in ("distinct-2 fell", "gamed", "Judges", "0.0712", "a note", "Reward part: rm", "KL to the start model", "judge/vader"):
        assert words in text
    assert "Hi & bye" in text  # the first rendered row, from the manifest
    assert "1 min 15 s" in text
    assert "1.0 GiB" in text
    assert "p1 <b>" in text  # escaped, not interpreted
    assert "#0a0b" not in source
    assert "#010203" not in source
    assert source.index("<th>beta</th>") < source.index("<th>model</th>")  # what differs comes first
    assert re.search(r'<tr class="differs"><th>beta</th>', source)
    assert "Missing rewards" not in text  # 0 all the time


def test_profiled_runs_show_where_the_time_went(tmp_path: Path):
    timed, plain = run_folder(tmp_path / "timed"), run_folder(tmp_path / "plain")
    spans = {"forward": {"seconds": 3.0, "share": 0.75, "calls": 30}, "other": {"seconds": 1.0, "share": 0.25, "calls": 0}}
    (timed / "profile.json").write_text(json.dumps({"steps": 30, "seconds": 4.0, "spans": spans}))
    text = write([timed], tmp_path / "one.html").read_text()
    assert "Where the time went" in text and "100.0 ms (75%)" in text
    [(_, header, rows, _)] = page.profiles(read_all([plain, timed]))
    assert header == ["", "timed"] and rows == [["forward", "100.0 ms (75%)"], ["other", "33.3 ms (25%)"]]
    assert page.profiles(read_all([plain])) == []


def test_log_scale_leaves_out_the_rounding_noise_of_step_0(tmp_path: Path):
    runs = read_all([run_folder(tmp_path / "a")])
    panel = next(p for _, ps in plots.SECTIONS for p in ps if p.metrics == ("kl",))
    svg = plots.curve(panel, runs)
    assert "log scale" in svg
    values = runs[0].series["kl"][1]
    assert plots.log_floor(values) > 1e-13
    assert sum(v > plots.log_floor(values) for v in values) == len(values) - 1


def test_a_narrow_range_stays_linear():
    assert not plots.spans_decades([1.0, 2.0, 3.0, 4.0])
    assert not plots.spans_decades([0.0, 0.0, 0.0, 1.0])
    assert plots.spans_decades([0.001 * 2**i for i in range(12)])


def test_samples_of_first_and_last_step_and_shading(tmp_path: Path):
    run = read_all([run_folder(tmp_path / "a", steps=5)])[0]
    early, late = early_late(run)
    assert {s.step for s in early} == {0}
    assert {s.step for s in late} == {4}
    shaded = next(s for s in late if len(s.pieces) > 1)
    assert [(p.text, p.value, p.level) for p in shaded.pieces] == [("one", 0.5, 0.5), (" two three", -1.0, -1.0)]
    assert shaded.end == "length"


def test_spans_without_tokens_become_a_strip_and_missing_rewards_stay_missing():
    spans = [{"start": 0, "stop": 2, "value": 2.0}, {"start": 2, "stop": 3, "value": -1.0}]
    made = sample({"step": 0, "text": "abc", "reward": None, "spans": spans})
    assert [p.level for p in made.strip] == [1.0, -0.5]
    assert [p.text for p in made.pieces] == ["abc"]
    assert made.reward is None


def test_overlapping_spans_add_up_and_gaps_stay_plain():
    row = {"step": 0, "text": "abcd", "tokens": list("abcd"), "reward": 1.0}
    made = sample({**row, "spans": [{"start": 0, "stop": 2, "value": 1.0}, {"start": 1, "stop": 2, "value": 0.5}]})
    assert [(p.text, p.value) for p in made.pieces] == [("a", 1.0), ("b", 1.5), ("cd", None)]


def test_a_run_still_going_on_is_readable(tmp_path: Path):
    folder = run_folder(tmp_path / "a", steps=3)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "rew')
    (folder / "summary.json").unlink()
    assert read_all([folder])[0].steps == 3
    write([folder], tmp_path / "r.html")


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path):
    folder = run_folder(tmp_path / "a", steps=3)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "metrics.jsonl").write_text("\n".join([lines[0], "oops", lines[1]]) + "\n")
    with pytest.raises(UserError, match=r"metrics.jsonl, line 2"):
        read_all([folder])


def test_folders_of_runs_are_opened_and_others_refused(tmp_path: Path):
    run_folder(tmp_path / "all" / "one", steps=2)
    run_folder(tmp_path / "all" / "two", steps=2)
    assert [r.name for r in read_all([tmp_path / "all", tmp_path / "all" / "one"])] == ["one", "two"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no run"):
        read_all([tmp_path / "empty"])
    with pytest.raises(UserError, match="no folder"):
        read_all([tmp_path / "nowhere"])


def test_names_tell_runs_apart():
    assert titles([Path("/x/a/run"), Path("/x/b/run")]) == ["a/run", "b/run"]
    assert titles([Path("/x/a/run"), Path("/x/b/other")]) == ["run", "other"]


def test_the_same_runs_give_the_same_file(tmp_path: Path):
    folder = run_folder(tmp_path / "a", steps=4)
    assert write([folder], tmp_path / "1.html").read_bytes() == write([folder], tmp_path / "2.html").read_bytes()


def test_preference_runs_show_both_sides_in_one_figure(tmp_path: Path):
    folder = tmp_path / "dpo"
    folder.mkdir()
    names = ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "logps/chosen")
    rows = [{"step": t, **{name: (0.1 + i) * t for i, name in enumerate(names)}} for t in range(4)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    text, _ = parse(write([folder], tmp_path / "r.html"))
    assert "Chosen and rejected" in text
    assert "Accuracy" in text
    assert "rewards/rejected" not in text  # it has a place, so it is not repeated under More


def test_early_and_late_thirds():
    samples = [{"step": t, "reward": float(t), "text": ""} for t in range(9)] + [{"step": 8, "reward": math.nan, "text": ""}]
    run = RunData("r", Path("r"), "", {}, {}, {}, {}, samples, [])
    assert plots.split_early_late(run) == ([0.0, 1.0, 2.0], [6.0, 7.0, 8.0])
    assert len(plots.shared_bins([run])) == 25
    short = RunData("r", Path("r"), "", {}, {}, {}, {}, samples[:2], [])
    assert plots.split_early_late(short) == ([0.0], [1.0])


def test_a_curve_under_two_names_is_drawn_once():
    series = {"reward": ([0, 1], [1.0, 2.0]), "rewards/rm/mean": ([0, 1], [1.0, 3.0]), "rewards/rm/raw/mean": ([0, 1], [1.0, 3.0])}
    other = {**series, "rewards/rm/raw/mean": ([0, 1], [0.0, 0.0])}
    runs = [RunData(name, Path(name), "", {}, {}, {}, which, [], []) for name, which in (("a", series), ("b", other))]

    def titles(*some):
        return [panel.title for panel, _ in plots.sections(some)[0][1]]

    assert titles(runs[0]) == ["Reward", "Reward part: rm"]
    assert titles(*runs) == ["Reward", "Reward part: rm", "Reward part: rm/raw"]
