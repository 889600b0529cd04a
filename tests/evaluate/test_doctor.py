"""The doctor: what it reads, what it says, and how."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from guerdon import cli
from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.errors import RunStopped, UserError
from guerdon.evaluate.doctor import CHECKS, Limits, examine
from guerdon.evaluate.doctor.live import Live
from guerdon.evaluate.doctor.show import line, text
from guerdon.evaluate.journal import Journal, read_lines, runs_in
from guerdon.learn.run import run
from guerdon.papers import grpo
from guerdon.report import write
from guerdon.rewards import Guarded
from guerdon.rewards.gold import Watched
from guerdon.testing import ToyPolicy, ToyReward, toy_prompts
from guerdon.types import Metrics, Recipe, Score


def rows(steps: int = 30, **series) -> list[dict]:
    """Rows of a journal: numbers, or functions of the step."""
    return [{"step": t, **{n.replace("__", "/"): x(t) if callable(x) else x for n, x in series.items()}} for t in range(steps)]


def found(steps: int = 30, **series) -> list[str]:
    return [x.illness for x in examine(Journal(rows(steps, **series))).findings]


def small(reward, steps=12, lr=0.05) -> Recipe:
    cfg = replace(grpo.Config(), steps=steps, batch=4, beta=0.2, sampling=Sampling(n=4, max_new=6), optim=Optim(lr=lr))
    return grpo.build(cfg, ToyPolicy(), toy_prompts(), reward, Key(0))


def test_a_healthy_journal():
    wave = lambda t: 0.1 * t + 0.05 * math.sin(7 * t)
    seen = examine(Journal(rows(reward=wave, entropy=1.0, grad_norm=1.0, frac_reward_zero_std=0.1)))
    assert seen.healthy
    assert set(seen.looked) >= {"entropy collapse", "gradient spikes", "no learning"}
    assert "proxy and gold diverge" in seen.unseen
    assert "healthy, as far as 30 steps show" in text("here", seen)
    assert "not looked at, its journal lacks the numbers" in text("here", seen)


def test_illnesses_by_their_numbers():
    rising = lambda t: float(t)
    assert found(reward=rising, entropy=lambda t: 2.0 * 0.8**t) == ["entropy collapse"]
    assert found(reward=rising, completions__clipped_ratio=1.0, completions__mean_length=9.0) == ["all truncated"]
    assert found(reward=rising, grad_norm=lambda t: 50.0 if t == 20 else 1.0) == ["gradient spikes"]
    assert found(reward=rising, loss=lambda t: math.nan if t == 7 else 1.0) == ["not finite"]
    assert found(reward=rising, kl=1.0, kl__sequence=20.0) == ["KL off budget"]
    assert found(reward=lambda t: t % 2) == ["no learning"]
    assert found(reward=lambda t: t % 2, steps=12) == []  # too few steps to say so
    assert found(reward=rising, gold__judge=lambda t: -abs(t - 10)) == ["proxy and gold diverge"]
    assert found(reward=rising, gold__judge=rising) == []
    assert found(reward=rising, gold__judge=lambda t: -0.01 * t, gold_std__judge=9.0) == []  # too small to matter
    assert found(reward=rising, gold__judge=lambda t: -0.1 * t, gold_std__judge=1.0) == ["proxy and gold diverge"]
    assert found(reward=lambda t: 5.0 - 0.1 * t, gold__judge=lambda t: -t) == ["no learning"]  # nothing was gamed: nothing rose


def test_consequences_are_told_only_without_a_cause():
    assert found(reward=0.5, frac_reward_zero_std=1.0, reward__min=0.5, reward__max=0.5) == ["zero-variance groups"]


def test_a_budget_can_be_set():
    journal = Journal(rows(reward=lambda t: float(t), kl=0.01, kl__sequence=8.0))
    assert examine(journal).healthy
    [seen] = examine(journal, Limits(budget=5.0)).findings
    assert (seen.illness, seen.since) == ("KL off budget", 0)


def test_what_the_monitor_said():
    said = [{"run": "x", "verdict": "displaced", "why": "the chosen answers became less likely: try dpop"}, {"verdict": "fine", "why": ""}]
    [seen] = examine(Journal(rows(loss=lambda t: 1 - 0.01 * t, monitor__logratios__chosen=0.0), verdicts=said)).findings
    assert (seen.illness, seen.why, seen.change) == ("likelihood displacement", "the chosen answers became less likely", "try dpop")


def test_a_finding_shows_rows(tmp_path, capsys):
    run(small(lambda rollouts: [Score.whole(r, 0.5) for r in rollouts]), tmp_path / "flat")
    [seen] = examine(tmp_path / "flat").findings
    assert seen.illness == "zero-variance groups"
    assert seen.rows
    assert seen.numbers["frac_reward_zero_std"] == 1
    assert "e.g. step 11, reward 0.5" in text("flat", examine(tmp_path / "flat"))
    assert line(seen).startswith("zero-variance groups since step 0: in 100% of the groups")


def test_the_command(tmp_path, capsys):
    run(small(ToyReward()), tmp_path / "runs" / "well")
    assert cli.main(["doctor", str(tmp_path / "runs" / "well")]) == 0
    run(small(lambda rollouts: [Score.whole(r, 0.5) for r in rollouts]), tmp_path / "runs" / "ill")
    capsys.readouterr()
    assert cli.main(["doctor", str(tmp_path / "runs"), "--json"]) == 1
    ill, well = json.loads(capsys.readouterr().out)
    assert well["healthy"]
    assert well["findings"] == []
    assert ill["findings"][0]["illness"] == "zero-variance groups"
    assert ill["findings"][0]["rows"][0]["reward"] == 0.5
    assert cli.main(["doctor", str(tmp_path / "nowhere")]) == 2
    assert cli.main(["doctor", str(tmp_path)]) == 2
    assert "hint:" in capsys.readouterr().err


def test_a_stopped_run_says_why(tmp_path):
    silent = Guarded(lambda rollouts: [Score.abstain("no boxed answer")] * len(rollouts), "math")
    with pytest.raises(RunStopped):
        run(small(silent), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "stopped.json").read_text())["step"] == 0
    [seen] = examine(tmp_path / "run").findings
    assert seen.illness == "abstention"
    assert "no boxed answer" in seen.why
    run(small(ToyReward()), tmp_path / "run")  # mended
    assert not (tmp_path / "run" / "stopped.json").exists()
    assert examine(tmp_path / "run").healthy


def test_two_steps_say_nothing():
    numbers = {"ratio": 1.0, "clip_ratio__low": 0.4, "clip_ratio__high": 0.0, "completions__clipped_ratio": 1.0, "kl": 9.0}
    for steps in (1, 2):
        assert found(steps, reward=0.5, frac_reward_zero_std=1.0, entropy=0.0, grad_norm=1.0, **numbers, kl__sequence=90.0) == []


def test_live_it_tells_each_illness_once():
    told: list[str] = []
    doctor = Live(told.append)
    doctor.begin(40)
    for t in range(40):
        doctor.log(t, Metrics({"reward": float(t), "entropy": 2.0 * 0.7**t, "grad_norm": 90.0 if t == 30 else 1.0}))
    doctor.close()
    assert [x.partition(" since")[0] for x in told] == ["entropy collapse", "gradient spikes"]
    assert "since step 6" in told[0]


def test_live_it_waits_before_it_says_that_nothing_is_learnt():
    told: list[str] = []
    doctor = Live(told.append)
    doctor.begin(100)
    for t in range(60):
        doctor.log(t, Metrics({"reward": float(t % 2 if t < 40 else t)}))
    assert told == []


def test_live_in_a_run(tmp_path):
    told: list[str] = []
    doctor = Live(told.append)
    recipe = small(lambda rollouts: [Score.whole(r, 0.5) for r in rollouts])
    doctor.begin(recipe.steps)
    run(recipe, tmp_path / "run", sinks=[doctor])
    assert len(told) == 1
    assert told[0].startswith("zero-variance groups")


def test_judges_that_look_on_change_nothing(tmp_path):
    plain, watched = run(small(ToyReward()), tmp_path / "a"), run(small(Watched(ToyReward(), {"b": ToyReward("b")})), tmp_path / "b")
    assert watched.metrics["reward"] == plain.metrics["reward"]
    assert 0 <= watched.metrics["gold/b"] <= 1
    assert 0 <= watched.metrics["gold_std/b"] <= 0.5
    assert "gold/b" not in plain.metrics


def test_a_judge_that_says_nothing_stops_no_run():
    silent = Guarded(lambda rollouts: [Score.abstain("?")] * len(rollouts), "silent")
    reward = Watched(ToyReward(), {"silent": silent})
    rollouts = ToyPolicy().sample(toy_prompts(2), 2, Key(0))
    assert [s.value for s in reward(rollouts)] == [s.value for s in ToyReward()(rollouts)]
    assert reward.metrics() == {}


def test_the_report_shows_what_ails(tmp_path):
    run(small(lambda rollouts: [Score.whole(r, 0.5) for r in rollouts]), tmp_path / "flat", config={"paper": "grpo", "config": {}})
    page = write([tmp_path / "flat"], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "zero-variance groups" in page


def test_journals_are_read_leniently(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        Journal.read(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no run"):
        Journal.read(tmp_path)
    path = tmp_path / "metrics.jsonl"
    path.write_text("")
    with pytest.raises(UserError, match="no metrics yet"):
        Journal.read(tmp_path)
    path.write_text('{"step": 0, "reward": 1.0, "text": "a\u2028b"}\n{"step": 1, "reward": null}\n{"step": 2, "rew', encoding="utf-8")
    journal = Journal.read(tmp_path)
    assert (journal.steps, journal.over, journal.names) == (2, False, ["reward", "text"])
    assert journal.series("reward").values == [1.0]
    assert journal.not_finite("reward") == [1]
    path.write_text('{"step": 0}\nbroken\n{"step": 2}\n')
    with pytest.raises(UserError, match="line 2"):
        read_lines(path)
    assert runs_in([tmp_path, Path(f"{tmp_path}/.")]) == [tmp_path]


def test_every_check_has_a_name_of_its_own():
    assert len({check.name for check in CHECKS}) == len(CHECKS)
