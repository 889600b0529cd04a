"""The runner: killed anywhere, a run ends with the same bytes; and a folder is never misread."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from guerdon.core import credit, preference, surrogate
from guerdon.core.reduce import mean, token_mean
from guerdon.core.rng import Key
from guerdon.errors import RunStopped, UserError
from guerdon.learn.learner import Adam, Learner
from guerdon.learn.offline import offline
from guerdon.learn.online import online
from guerdon.learn.rounds import rounds
from guerdon.learn.run import run
from guerdon.learn.verbs import by_outcome, chosen, pair_batch, rejected, row_sum
from guerdon.policies.refs import Ema, Frozen, Lagged
from guerdon.search.best_of import best_of
from guerdon.testing import ToyPolicy, ToyReward, check_recipe, toy_pairs, toy_prompts
from guerdon.testing.say import same
from guerdon.types import Metrics, Probe, Recipe, Score, Term, decisions, pairs

PG = Term("pg", lambda o, b: surrogate.ppo_clip(o.logp, b.old_logp, b.adv), over=decisions, reduce=token_mean)
NLL = Term("nll", lambda o, b: -o.logp, over=decisions, reduce=token_mean)


def dpo_loss(o, b):
    ratio = row_sum(o.logp - b.ref_logp, b)
    return preference.dpo(chosen(b, ratio), rejected(b, ratio), beta=0.5)


def make_online(reward=None, steps=8, ref=Frozen, **changes):
    policy = ToyPolicy(spread=0.1)
    return online(
        learner=Learner(policy, [PG], Adam(0.05, warmup=2)),
        prompts=toy_prompts(5),
        reward=reward or ToyReward(),
        credit=by_outcome(credit.grpo),
        n=4,
        batch=2,
        steps=steps,
        key=Key(0),
        ref=ref(policy),
        epochs=2,
        minibatches=2,
        **changes,
    )


def make_offline(ref=Frozen):
    policy = ToyPolicy(spread=0.1)
    return offline(
        learner=Learner(policy, [Term("dpo", dpo_loss, over=pairs, reduce=mean)], Adam(0.05), micro_units=2),
        items=toy_pairs(10),
        collate=lambda items: pair_batch(policy, items),
        batch=4,
        epochs=3,
        key=Key(1),
        ref=ref(policy),
    )


def make_rounds():
    policy = ToyPolicy(spread=0.1)
    prompts = toy_prompts(6)

    def prepare(number):
        found = best_of(policy, prompts, ToyReward(), n=4, key=Key(2).fold("round", number))
        return found.best, Metrics({"best": sum(s.value for s in found.scores)})

    learner = Learner(policy, [NLL], Adam(0.05))
    return rounds(learner=learner, prepare=prepare, collate=policy.collate, batch=4, rounds=2, steps_per_round=4, key=Key(2))


MAKERS = {
    "online": make_online,
    "online, moving average": lambda: make_online(ref=lambda p: Ema(p, 0.8)),
    "online, lagged": lambda: make_online(ref=lambda p: Lagged(p, 3)),
    "offline": make_offline,
    "rounds": make_rounds,
}


def states(recipe):
    return {name: part.state_dict() for name, part in recipe.state.items()}


def journal(path):
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().split("\n") if line]
    return [{k: v for k, v in row.items() if k.rpartition("/")[2] != "seconds"} for row in rows]


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_resumed_at_any_step_the_state_is_the_same_to_the_last_bit(make, tmp_path):
    whole = make()
    run(whole, tmp_path / "whole", save_every=3, config={"a": 1})
    for stop in range(1, whole.steps):
        first, second = make(), make()
        out = tmp_path / f"cut-{stop}"
        run(first, out, save_every=3, stop_after=stop, config={"a": 1})
        summary = run(second, out, save_every=3, config={"a": 1})
        assert summary.resumed_from == ((stop // 3) * 3 or None)
        assert same(states(second), states(whole))
        assert journal(out) == journal(tmp_path / "whole")
        assert (out / "samples.jsonl").read_bytes() == (tmp_path / "whole" / "samples.jsonl").read_bytes()
        assert same(torch.load(out / "final" / "toy.pt"), torch.load(tmp_path / "whole" / "final" / "toy.pt"))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_the_loops_keep_the_recipe_contract(make):
    check_recipe(make, steps=6)


def test_the_toy_policy_learns(tmp_path):
    rows = None
    run(make_online(steps=40), tmp_path / "run", config={})
    rows = journal(tmp_path / "run")
    early, late = (sum(r["reward"] for r in part) / 8 for part in (rows[:8], rows[-8:]))
    assert late > early + 0.3


def test_killed_for_real_it_goes_on(tmp_path):
    """SIGKILL between sampling and updating, in another process; this one goes on."""
    script = tmp_path / "train.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import os, signal, sys
            sys.path.insert(0, {str(Path(__file__).parent)!r})
            from test_learn_run import make_online
            from guerdon.learn.run import run
            from guerdon.testing import ToyReward

            calls = []
            def deadly(rollouts):
                calls.append(1)
                if len(calls) == 4:
                    os.kill(os.getpid(), signal.SIGKILL)
                return ToyReward()(rollouts)

            run(make_online(deadly), sys.argv[1], save_every=2, config={{"a": 1}})
            """
        )
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(script), str(tmp_path / "out")], env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert run(make_online(), tmp_path / "out", save_every=2, config={"a": 1}).resumed_from == 2
    whole = make_online()
    run(whole, tmp_path / "whole", save_every=2, config={"a": 1})
    assert same(torch.load(tmp_path / "out/final/toy.pt"), torch.load(tmp_path / "whole/final/toy.pt"))
    assert journal(tmp_path / "out") == journal(tmp_path / "whole")


# ---------------------------------------------------------------- the folder


def test_the_files_of_a_run(tmp_path):
    out = tmp_path / "deep" / "run"
    summary = run(make_online(steps=2, facts={"source": tmp_path}), out, config={"lr": 0.1, "nested": {"x": (1, 2)}})
    names = {p.name for p in out.iterdir()}
    assert names == {"config.json", "manifest.json", "metrics.jsonl", "samples.jsonl", "checkpoints", "final", "summary.json"}
    assert json.loads((out / "config.json").read_text()) == {"lr": 0.1, "nested": {"x": [1, 2]}}
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["steps"] == 2
    assert manifest["facts"] == {"source": str(tmp_path)}
    assert (summary.steps, summary.final, summary.resumed_from) == (2, out / "final", None)
    assert summary.peak_memory > 1e7


def test_a_folder_of_another_configuration_is_refused_with_the_differences(tmp_path):
    run(make_online(steps=2), tmp_path / "run", config={"lr": 0.1, "optim": {"warmup": 3}})
    with pytest.raises(UserError, match="another configuration") as error:
        run(make_online(steps=2), tmp_path / "run", config={"lr": 0.2, "optim": {"warmup": 4}})
    assert "lr: there 0.1, now 0.2" in str(error.value)
    assert "optim.warmup: there 3, now 4" in str(error.value)
    assert "hint:" in str(error.value)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty and is no run folder"):
        run(make_online(steps=2), tmp_path, config={})
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("config", [None, {"a": 1}])
def test_resume_false_refuses_checkpoints(tmp_path, config):
    run(make_online(steps=2), tmp_path / "run", config=config)
    with pytest.raises(UserError, match="already holds checkpoints"):
        run(make_online(steps=2), tmp_path / "run", config=config, resume=False)


def test_killed_while_the_folder_was_made(tmp_path):
    (tmp_path / "config.json.tmp").write_text("{")
    run(make_online(steps=2), tmp_path, config={"a": 1})
    assert (tmp_path / "final").is_dir()


def test_a_finished_run_is_done_again_at_once_and_says_the_same(tmp_path):
    first = run(make_online(steps=4), tmp_path, config={})

    def never(rollouts):
        raise AssertionError("nothing is left to do")

    again = run(make_online(never, steps=4), tmp_path, config={})
    assert dict(again.metrics) == pytest.approx(dict(first.metrics))
    assert again.resumed_from == 4


def test_a_half_written_journal_is_cut_back(tmp_path):
    run(make_online(), tmp_path, save_every=3, stop_after=5, config={})
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write('{"step": 5, "reward": "ü'.encode()[:-1])
    run(make_online(), tmp_path, save_every=3, config={})
    assert [row["step"] for row in journal(tmp_path)] == list(range(8))


@pytest.mark.parametrize("text", ["a\u2028b", "a\x85b\x0c", "\ud83d half", "\x00"])
def test_samples_of_any_text_survive_a_resume(tmp_path, text):
    def odd(recipe):
        return Recipe(recipe.state, lambda t: Metrics({"x": float(t)}, [{"text": text}]), 4)

    run(odd(make_online()), tmp_path, save_every=2, stop_after=3, config={})
    run(odd(make_online()), tmp_path, save_every=2, config={})
    rows = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_bytes().split(b"\n") if line]
    assert [(row["step"], row["text"]) for row in rows] == [(t, text) for t in range(4)]


def test_a_full_disk_stops_with_a_way_out_and_the_last_checkpoint_whole(tmp_path, monkeypatch):
    """The third checkpoint is written to /dev/full, where the kernel itself says that there is no space."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    opened = Path.open

    def to_full(self, mode="r", *args, **kwargs):
        full = self.suffix == ".pt" and "step-6" in str(self) and "w" in mode
        return opened(Path("/dev/full") if full else self, mode, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", to_full)
        with pytest.raises(RunStopped, match=r"the disk is full.*\nhint: make room, then `guerdon resume"):
            run(make_online(), tmp_path / "run", save_every=2, config={})
    resumed, whole = make_online(), make_online()
    assert run(resumed, tmp_path / "run", save_every=2, config={}).resumed_from == 4
    run(whole, tmp_path / "whole", config={})
    assert same(states(resumed), states(whole))


def test_other_errors_of_the_system_pass_through(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as error:
        run(make_online(steps=2), tmp_path / "file" / "run", config={})
    assert error.value.errno == errno.ENOTDIR


# ---------------------------------------------------------------- what stops a run


def test_rewards_that_are_all_missing_stop_with_the_reason(tmp_path):
    def mute(rollouts):
        return [Score.abstain("the judge is offline") for _ in rollouts]

    with pytest.raises(RunStopped, match=r"all 8 rewards of this step are missing.*the judge is offline"):
        run(make_online(mute), tmp_path, config={})


def test_some_missing_rewards_are_counted_and_train_nothing_wrong(tmp_path):
    def half(rollouts):
        return [Score.abstain("odd") if i % 2 else s for i, s in enumerate(ToyReward()(rollouts))]

    run(make_online(half, steps=2), tmp_path, config={})
    assert [row["reward/abstained"] for row in journal(tmp_path)] == [0.5, 0.5]


def test_probes_add_metrics_at_their_steps_and_at_the_end(tmp_path):
    recipe = make_online(probes=(Probe("p", 3, lambda t: {"probe/x": float(t)}),))
    run(recipe, tmp_path, config={})
    assert [row["step"] for row in journal(tmp_path) if "probe/x" in row] == [0, 3, 6, 7]


def test_sinks_see_every_step_and_are_closed_even_after_a_failure(tmp_path):
    class Sink:
        def __init__(self):
            self.steps, self.closed = [], False

        def log(self, step, metrics):
            self.steps.append(step)

        def close(self):
            self.closed = True

    calls = []

    def breaks(rollouts):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("broken")
        return ToyReward()(rollouts)

    sink = Sink()
    with pytest.raises(RuntimeError, match="broken"):
        run(make_online(breaks), tmp_path, config={}, sinks=[sink])
    assert sink.steps == [0, 1]
    assert sink.closed


def test_metrics_json_holds_no_nan(tmp_path):
    recipe = make_online()
    run(Recipe(recipe.state, lambda t: Metrics({"x": float("nan"), "y": float("inf")}), 1), tmp_path, config={})
    assert journal(tmp_path) == [{"step": 0, "x": None, "y": None}]


def test_wrong_arguments_of_the_loops(tmp_path):
    policy = ToyPolicy()
    learner = Learner(policy, [PG], Adam(0.1))
    shared = dict(learner=learner, prompts=toy_prompts(3), reward=ToyReward(), credit=by_outcome(credit.rloo), key=Key(0))
    with pytest.raises(UserError, match="at least 1"):
        online(**shared, n=0, batch=2, steps=1)
    with pytest.raises(UserError, match="minibatches"):
        online(**shared, n=2, batch=2, steps=1, minibatches=3)
    with pytest.raises(UserError, match="exactly one"):
        offline(learner=learner, items=[1], collate=policy.collate, batch=1, key=Key(0))


def test_a_round_that_selects_nothing_stops(tmp_path):
    policy = ToyPolicy()
    learner = Learner(policy, [NLL], Adam(0.05))
    recipe = rounds(
        learner=learner, prepare=lambda r: ([], Metrics()), collate=policy.collate, batch=2, rounds=1, steps_per_round=2, key=Key(0)
    )
    with pytest.raises(RunStopped, match="round 0 made no rollouts"):
        run(recipe, tmp_path, config={})
