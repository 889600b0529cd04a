"""The benchmark: lengths and floors by hand, its arithmetic on made-up samples, a toy workload through both sides and the page."""

import dataclasses
import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import floors, measure, models, ours, plot, run, sides, summary, workloads, write  # noqa: E402
from benchmarks.settings import Settings  # noqa: E402

NEEDS_TRL = pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="TRL is not installed: pip install -e '.[bench]'")
RATES = {"float32": 100.0, "bfloat16": 400.0, "copy": 10.0, "read": 20.0}


def toy(tmp_path) -> Settings:
    return Settings(threads=1, repeats=1, budget=1.0, trl=False, toy=True, results=str(tmp_path))


# ---------------------------------------------------------------- what is measured


def test_texts_have_exactly_the_lengths_they_claim(tmp_path):
    workload = toy(tmp_path).workload("dpo-ragged")
    read = models.tokenizer(workload.shape.vocab)
    for prompt, lengths, row in zip(workload.prompts, workload.completions, workloads.rows(workload), strict=True):
        alone, ends = read(row.prompt).input_ids, [read(row.prompt + c + models.STOP).input_ids for c in row.completions]
        assert len(alone) == prompt
        assert [len(e) - prompt for e in ends] == list(lengths)  # the stop token is counted
        assert all(e[:prompt] == alone and e[-1] == 0 and max(e) < workload.shape.vocab for e in ends)


def test_lengths_are_quantiles():
    assert workloads.even(48, 80, 4) == (52, 60, 68, 76)
    assert workloads.log_even(8, 512, 3) == (16, 64, 256)
    drawn = workloads.geometric(64, 10_000, 1000)
    assert abs(sum(drawn) / 1000 - 64) < 1
    assert max(workloads.geometric(64, 256, 1000)) == 256
    assert sorted(n for pair in workloads.pairs_of((1, 2, 3, 4, 5, 6)) for n in pair) == [1, 2, 3, 4, 5, 6]


def test_the_table_is_the_one_that_was_asked_for():
    long = workloads.BY_NAME["dpo-long"]
    assert (long.prompts, long.completions, long.tokens, long.decisions) == ((1024,), ((128, 128),), 2304, 256)
    assert len(workloads.BY_NAME) == len(workloads.WORKLOADS) + sum(map(len, workloads.GROWTH.values()))  # names are distinct
    assert all(len(w.prompts) == len(w.completions) for w in workloads.BY_NAME.values())
    assert workloads.BY_NAME["sample-many"].rows == 512
    assert 21e6 < long.shape.weights < 23e6


def test_advantages_have_mean_0_and_deviation_1():
    for n in (2, 8):
        x = torch.tensor(workloads.advantages(n), dtype=torch.float64)
        assert float(x.mean()) == pytest.approx(0, abs=1e-12) and float(x.std()) == pytest.approx(1)
    assert workloads.advantages(1) == [1.0]


def test_a_model_stops_as_often_as_it_is_told(tmp_path):
    shape = models.SHAPES["toy"]
    often, never = (ours.load_policy(workload, folder, toy(tmp_path)) for workload, folder in stopping(tmp_path, shape))
    prompts = [r.prompt for r in [g[1][0] for g in ours.groups(toy(tmp_path).workload("dpo-short"))]]
    lengths = [len(r) for r in often.sample(prompts, 64, ours.KEY, max_new=64)]
    assert sum(lengths) / len(lengths) == pytest.approx(5, rel=0.3)
    assert {len(r) for r in never.sample(prompts, 4, ours.KEY, max_new=12)} == {12}


def stopping(tmp_path, shape):
    workload = toy(tmp_path).workload("sample-short")
    for every in (5.0, math.inf):
        yield workload, models.model_folder(tmp_path / "models", shape, stop_every=every)


# ---------------------------------------------------------------- floors and numbers


def test_the_floor_counts_a_shared_prompt_once():
    shape = models.Shape(hidden=4, layers=2, heads=2, kv_heads=1, mlp=8, vocab=16)
    assert shape.body == 2 * (4 * 2 * (2 * 2 + 2 * 1) + 3 * 4 * 8)
    models.SHAPES["by hand"] = shape
    try:
        w = workloads.Workload("w", "w", "dpo", (10,), ((3, 5),), model="by hand")
        seen = 55 + (10 * 3 + 6) + (10 * 5 + 15)
        assert floors.forward_flops(w) == 2 * shape.body * (10 + 8) + 4 * 4 * 2 * seen + 2 * 4 * 16 * 8
        assert floors.forward_flops(w, head=False, shared=False) == 2 * shape.body * (20 + 8) + 4 * 4 * 2 * (seen + 55)
        learning = 3 * floors.forward_flops(w) / 400e9 + 28 * shape.weights / 10e9
        assert floors.floor_seconds(w, RATES) == pytest.approx(learning)
        sampled = workloads.Workload("w", "w", "sample", (10,), ((4,) * 2,), model="by hand")
        assert floors.floor_seconds(sampled, RATES) > 4 * 2 * shape.weights / 20e9  # the weights are read once a token step
    finally:
        del models.SHAPES["by hand"]


def test_sides_take_turns_within_the_budget(monkeypatch):
    """Fast sides get more samples; long ones few, but never none; a step that set something up does not count."""
    taken: list[str] = []
    cost = {"slow": 4.0, "fast": 0.1}

    def clock(step, settings):
        taken.append(step)
        return {"seconds": cost[step]}

    monkeypatch.setattr(measure, "clock", clock)

    def counts(budget, **more):
        taken.clear()
        found = measure.alternate({"slow": "slow", "fast": "fast"}, Settings(budget=budget, repeats=5), **more)
        return {name: len(x) for name, x in found.items()}

    assert counts(13) == {"slow": 3, "fast": 9}
    assert taken == ["slow", "fast", *["slow", *["fast"] * 3], *[*["fast"] * 3, "slow"], *["slow", *["fast"] * 3]]
    assert counts(1000) == {"slow": 5, "fast": 15}
    assert counts(3) == {"slow": 2, "fast": 4}  # over the budget: the warm-up counts
    assert counts(1) == {"slow": 1, "fast": 1}  # far over it: nothing else does
    first = {"slow": {"seconds": 4.0}}
    assert counts(1, known=first) == {"slow": 1, "fast": 1} and taken == ["fast"]
    assert counts(1, known=first, counts=False) == {"slow": 1, "fast": 4}


def results(fast: float) -> dict:
    def side(*seconds):
        return [{"seconds": s, "cpu": s} for s in seconds]

    checks = [{"what": "loss", "guerdon": 1.0, "trl": 1.5, "difference": 0.33, "allowed": 0.01, "ok": False}]
    samples = {"guerdon": side(fast, fast, 3.0), "trl": side(4.0, 4.0, 9.0), sides.SAME: side(2.0), sides.FIRST: side(0.7)}
    settings = Settings()
    options = run.parse(["--only", "dpo-short"])
    points = [{"name": f"n{n}", "decisions": n, "rows": n, "vocab": 9, "samples": side(0.1 + 0.01 * n)} for n in (1, 2, 4)]
    memory = {"guerdon": 1.0, "trl": 1.5}
    return {
        "floors": RATES,
        "facts": run.facts(options, settings, 3.0, {"learning": "bfloat16", "sampling": "float32"}),
        "time/dpo-short": {"workload": "dpo-short", "load": 0.1, "samples": samples, "checks": checks},
        **{f"memory/dpo-long/{s}": {"workload": "dpo-long", "side": s, "loaded": 0.5, "peak": x} for s, x in memory.items()},
        "growth": dict.fromkeys(("tokens", "shared", "apart"), points),
        "vocabulary/vocabulary-32k": {"workload": "vocabulary-32k", "side": "guerdon", "loaded": 0.5, "peak": 1.0},
        "embedded": {"a step": side(0.1, 0.2, 0.3)},
    }


def test_ratios_are_of_medians_and_goals_are_told():
    found = summary.summary(results(0.5), Settings())
    row = found["workloads"]["dpo-short"]
    assert row["faster"] == {"trl": pytest.approx(8.0), sides.SAME: pytest.approx(4.0)}
    assert row["sides"]["guerdon"]["rate"] == pytest.approx(1024 / 0.5)
    assert found["growth"]["line"] == {"start": pytest.approx(0.1), "slope": pytest.approx(0.01), "r2": pytest.approx(1.0)}
    assert [line.split(":")[0] for line in summary.missed(found)] == ["dpo-short", "dpo-long"]  # a check, and memory
    slow = summary.missed(summary.summary(results(2.0), Settings()))
    assert sum("the goal is" in line and "dpo-short" in line for line in slow) == 2


def test_the_page_says_what_a_reader_must_know(tmp_path):
    found = run.write_all(results(0.5), Settings(), tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    known = ("0.500 (first epoch 0.700) | 4.00 (**8.0x**)", "1.00 GB | 1.50 GB | 0.67", "a step | 0.200", "R squared")
    for said in (*known, "busy", "too much", "A part of the table"):
        assert said in page
    assert str(ROOT) not in page and "{" not in page
    assert json.loads((tmp_path / "benchmarks.json").read_text())["workloads"].keys() == found["workloads"].keys()
    before = (tmp_path / "benchmarks-speed.svg").read_bytes()
    plot.speed(found, tmp_path / "benchmarks-speed.svg")
    assert (tmp_path / "benchmarks-speed.svg").read_bytes() == before  # the same numbers, the same bytes
    assert "benchmarks-growth.svg" in page and (tmp_path / "benchmarks-growth.svg").exists()
    assert write.page(found) == page


# ---------------------------------------------------------------- as a whole


@pytest.mark.slow
@pytest.mark.timeout(300)
@NEEDS_TRL
def test_a_toy_workload_goes_through_both_sides_and_onto_the_page(tmp_path):
    sizes = ["--toy", "--threads", "1", "--repeats", "1", "--budget", "1", "--only", "dpo-short"]
    command = [sys.executable, "-m", "benchmarks.run", *sizes, "--results", str(tmp_path / "kept"), "--out", str(tmp_path / "page")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    row = json.loads((tmp_path / "page" / "benchmarks.json").read_text())["workloads"]["dpo-short"]
    assert row["checks"] and all(c["ok"] for c in row["checks"])
    assert {"guerdon", sides.FIRST, sides.PLAIN, "trl", sides.SAME, sides.EARLY} == set(row["sides"])
    assert "TRL, also with the reference precomputed" in (tmp_path / "page" / "benchmarks.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(300)
@NEEDS_TRL
def test_both_sides_do_the_same_work(tmp_path):
    """Losses, gradient norms, log-probabilities and entropies of the first step, for every kind of workload."""
    names = ["dpo-ragged", "kto-short", "sft-short", "reward-short", "learn-ragged", "sample-short", "sample-many", "grpo-long", "dpo-152k"]
    assert {workloads.BY_NAME[n].kind for n in names} == set(ours.BUILDERS)
    code = "import json, sys; from benchmarks import measure, settings as s; "
    code += "print(json.dumps(measure.same_work(sys.argv[2:], s.Settings.from_json(sys.argv[1]))))"
    settings = toy(tmp_path)
    command = [sys.executable, "-c", code, settings.to_json(), *names]
    done = subprocess.run(command, cwd=ROOT, env=settings.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    checks = json.loads(done.stdout.splitlines()[-1])
    assert set(checks) == set(names) and all(checks.values())
    assert [(name, c) for name, found in checks.items() for c in found if not c["ok"]] == []


def test_a_result_is_kept_until_the_code_or_the_settings_change(tmp_path):
    job = run.Job("floors", "floors", toy(tmp_path))
    assert job.kept("this code") is None
    found = job.run("this code")
    assert found["float32"] > 0 and job.kept("this code") == found
    assert job.kept("other code") is None
    assert dataclasses.replace(job, settings=dataclasses.replace(job.settings, threads=2)).kept("this code") is None
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run.Job("broken", "memory", toy(tmp_path), ("no such workload", "guerdon")).run("this code")
    assert "no such workload" in failed.value.stderr


def test_wrong_names_get_a_hint(capsys):
    assert run.main(["--only", "dpo"]) == 2
    assert "hint: --list" in capsys.readouterr().out
    assert run.main(["--list"]) == 0
    assert "DPO, long shared prompt" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_its_script_says_so():
    done = subprocess.run([str(ROOT / "benchmarks" / "gpu.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no NVIDIA GPU" in done.stderr and "hint:" in done.stderr
