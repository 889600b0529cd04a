"""The monitor of a run: its numbers against full logits, its memory, and what it does to a run."""

import json
import math
import warnings
from dataclasses import replace

import pytest
import torch

from guerdon.core import preference
from guerdon.core.monitor import StopRule, overoptimised, raw_entropy
from guerdon.core.reduce import mean
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.evaluate.probes import RunMonitor
from guerdon.evaluate.verdicts import Look
from guerdon.learn.learner import Adam, Learner
from guerdon.learn.offline import offline
from guerdon.learn.run import run
from guerdon.learn.verbs import chosen, pair_batch, rejected, row_sum
from guerdon.policies.refs import Frozen
from guerdon.policies.text import TextPolicy
from guerdon.testing import ToyPolicy, check_recipe, toy_pairs, toy_pools
from guerdon.testing.models import small_model
from guerdon.testing.say import same
from guerdon.types import Preference, Prompt, Rollout, Term
from guerdon.types import pairs as all_pairs

TEXTS = [("Hi", "The food was great.", "no"), ("What is 12?", "The answer is 42", " 4 times 7"), ("So?", "kind", "dull film, no plot")]
PAIRS = [Preference(p := Prompt(a, a), (Rollout(p, b), Rollout(p, c))) for a, b, c in TEXTS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("model"))


def move(policy, by=0.2):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(by * torch.randn(p.shape, generator=generator))


@torch.no_grad()
def plain(policy, pair, k):
    """Everything of one pair, from full float64 logits: rows of chosen and rejected."""
    rows = []
    for rollout in pair.ranked:
        batch = policy.collate([rollout])
        logq = torch.log_softmax(policy.forward(batch, frozenset({"logits"})).extra["logits"][0].double(), -1)
        best = logq.exp().topk(k, -1).values
        q = best / best.sum(-1, keepdim=True)
        token = logq.gather(1, batch.inputs["actions"][0][:, None])[:, 0]
        rows.append(
            {"logq": logq, "token": token, "mass": best.sum(-1), "entropy": -(q * q.log()).sum(-1), "raw": -(best * best.log()).sum(-1)}
        )
    return rows


def test_every_number_is_that_of_the_full_logits(folder):
    policy, k = TextPolicy.load(folder), 3
    before = [plain(policy, pair, k) for pair in PAIRS]
    monitor, narrow = RunMonitor(policy, PAIRS, top_k=k), RunMonitor(policy, PAIRS, top_k=k, rows=2, raw=True)
    move(policy)
    now = [plain(policy, pair, k) for pair in PAIRS]
    win, lose = (torch.stack([pair[side]["token"].sum() for pair in now]) for side in (0, 1))
    a, b = (torch.stack([x[side]["token"].sum() - y[side]["token"].sum() for x, y in zip(now, before, strict=True)]) for side in (0, 1))

    def tokens(name, sides=(0,)):
        return torch.cat([pair[side][name] for pair in now for side in sides]).mean()

    kl = torch.cat([(x[s]["logq"].exp() * (x[s]["logq"] - y[s]["logq"])).sum(-1) for x, y in zip(now, before, strict=True) for s in (0, 1)])
    want = {
        "logps/chosen": win.mean(),
        "logps/rejected": lose.mean(),
        "logps/margins": (win - lose).mean(),
        "logps_per_token/chosen": tokens("token"),
        "logps_per_token/rejected": tokens("token", (1,)),
        "logratios/chosen": a.mean(),
        "logratios/rejected": b.mean(),
        "logratios/margins": (a - b).mean(),
        "accuracies": (a > b).double().mean(),
        "top_k_mass": tokens("mass"),
        "top_k_entropy": tokens("entropy"),
        "kl": kl.mean(),
    }
    for look, changed in ((monitor(7), {}), (narrow(7), {"top_k_entropy": tokens("raw")})):
        assert set(look) == {f"monitor/{name}" for name in want}
        for name, value in (want | changed).items():
            assert look[f"monitor/{name}"] == pytest.approx(float(value), abs=2e-5), name
    assert float(kl.mean()) > 0.01 and float(a.abs().min()) > 0.1


def test_the_first_evaluation_is_the_start_itself(folder):
    policy = TextPolicy.load(folder)
    monitor = RunMonitor(policy, PAIRS)
    move(policy)
    start = monitor(0)
    assert start["monitor/logratios/chosen"] == start["monitor/logratios/margins"] == 0.0
    assert start["monitor/accuracies"] == 0.5
    assert start["monitor/kl"] == pytest.approx(0.0, abs=1e-6)
    assert monitor(1)["monitor/kl"] > 1e-3
    assert [look.step for look in monitor.looks] == [0, 1]


def test_measuring_moves_neither_weights_nor_random_streams(folder):
    policy = TextPolicy.load(folder, max_new=4)
    before = {k: v.clone() for k, v in policy.model.state_dict().items()}
    torch.manual_seed(3)
    monitor = RunMonitor(policy, PAIRS, answers=2)
    monitor(5)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))
    assert same(before, dict(policy.model.state_dict()))
    assert all(p.grad is None for p in policy.parameters())


def test_answers_are_drawn_with_the_same_key_every_time(folder):
    policy = TextPolicy.load(folder, max_new=6)
    monitor = RunMonitor(policy, PAIRS, answers=3, key=Key(4))
    first, again = monitor(0), monitor(1)
    names = ["mean_length", "clipped_ratio", "distinct_2", "distinct_2_per_prompt"]
    assert [first[f"monitor/{n}"] for n in names] == [again[f"monitor/{n}"] for n in names]
    assert 1 <= first["monitor/mean_length"] <= 6
    assert first["monitor/distinct_2_per_prompt"] >= first["monitor/distinct_2"]  # more text, more repeats
    one = RunMonitor(policy, PAIRS, answers=1, key=Key(4))(0)
    assert "monitor/distinct_2_per_prompt" not in one


@torch.no_grad()
def test_diversity_at_the_policy_s_own_answers(folder):
    policy = TextPolicy.load(folder, max_new=6)
    own = RunMonitor(policy, PAIRS, top_k=3, answers=2, context="answers", rows=4, key=Key(1))
    drawn = policy.sample([p.prompt for p in PAIRS], 2, Key(1).fold("answers"))
    batch = policy.collate(drawn)
    p = torch.softmax(policy.forward(batch, frozenset({"logits"})).extra["logits"].double(), -1)
    want = float(p.topk(3, -1).values.sum(-1)[batch.mask].mean())
    assert own(0)["monitor/top_k_mass"] == pytest.approx(want, abs=1e-5)
    assert own(0)["monitor/top_k_mass"] != pytest.approx(RunMonitor(policy, PAIRS, top_k=3)(0)["monitor/top_k_mass"], abs=1e-5)


def test_a_k_of_the_whole_vocabulary_warns(folder):
    policy = TextPolicy.load(folder)
    with pytest.warns(UserWarning, match="the top-k mass is 1 whatever happens"):
        monitor = RunMonitor(policy, PAIRS, top_k=1000)
    assert monitor(0)["monitor/top_k_mass"] == pytest.approx(1.0, abs=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RunMonitor(policy, PAIRS, top_k=10)


def test_what_cannot_be_measured_is_left_out_or_refused(folder):
    policy = TextPolicy.load(folder, max_length=20)
    tie, long = replace(PAIRS[0], label=0.5), Preference(p := Prompt("x", "x"), (Rollout(p, "word " * 40), Rollout(p, "no")))
    assert len(RunMonitor(policy, [tie, PAIRS[2], long]).pairs) == 1
    for none in ([], [tie], [long]):
        with pytest.raises(UserError, match="held-out preferences"):
            RunMonitor(policy, none)
    with pytest.raises(UserError, match="none are drawn"):
        RunMonitor(policy, PAIRS, context="answers")


def test_lists_are_measured_by_their_ends():
    monitor = RunMonitor(ToyPolicy(), toy_pools(4))
    assert all(len(pair.ranked) == 2 for pair in monitor.pairs)
    assert monitor.pairs[0].ranked == (toy_pools(4)[0].ranked[0], toy_pools(4)[0].ranked[-1])


def test_no_token_that_counts_gives_no_number():
    """A chosen answer whose decisions are all somebody else's (a tool's)."""
    mute = torch.zeros(3, dtype=torch.bool)
    pairs = [Preference(p.prompt, (Rollout(p.prompt, "ab", torch.tensor([1, 2, 0]), mask=mute), p.ranked[1])) for p in toy_pairs(2)]
    seen = RunMonitor(ToyPolicy(), pairs)(0)
    assert "monitor/logps_per_token/chosen" not in seen and "monitor/logps_per_token/rejected" in seen
    assert all(math.isfinite(x) for x in seen.values())


# ---------------------------------------------------------------- in a run


def dpo(o, b):
    ratio = row_sum(o.logp - b.ref_logp, b)
    return preference.dpo(chosen(b, ratio), rejected(b, ratio), beta=0.5)


def watched(folder=None, stop=None, every=2, steps=8):
    policy = ToyPolicy(spread=0.1) if folder is None else TextPolicy.load(folder)
    items = toy_pairs(10) if folder is None else PAIRS
    recipe = offline(
        learner=Learner(policy, [Term("dpo", dpo, over=all_pairs, reduce=mean)], Adam(0.05 if folder is None else 3e-3)),
        items=items,
        collate=lambda part: pair_batch(policy, part),
        batch=3,
        steps=steps,
        key=Key(1),
        ref=Frozen(policy),
    )
    held = toy_pairs(6, seed=5) if folder is None else PAIRS[:2]
    return RunMonitor(policy, held, stop=stop, top_k=3).watching(recipe, every)


@pytest.mark.parametrize("text", [False, True], ids=["toy", "text"])
def test_a_watched_recipe_keeps_the_recipe_contract(text, folder):
    check_recipe(lambda: watched(folder if text else None), steps=6)


def test_watching_does_not_change_the_training(tmp_path):
    alone = replace(watched(), probes=(), watcher=None)
    run(alone, tmp_path / "alone")
    both = watched()
    run(both, tmp_path / "both")
    assert same(alone.state["learner"].state_dict(), both.state["learner"].state_dict())


# Entropy may not fall at all: the first fall of the smoothed series ends the run.
NERVOUS = StopRule(momentum=0.0, patience=1, min_delta=0.0, delta_mass=0.0)


def stopped_at(folder, out):
    recipe = watched(folder, NERVOUS, every=2, steps=60)
    return recipe, run(recipe, out, save_every=7, config={})


def test_a_run_that_goes_too_far_ends_in_order(folder, tmp_path):
    recipe, summary = stopped_at(folder, tmp_path / "run")
    assert summary.steps < 60
    assert summary.steps % 2 == 1  # right after an evaluation
    assert "from step" in summary.stopped and summary.stopped == recipe.watcher.stop
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir() if p.name == f"step-{summary.steps}"]
    assert (summary.final / "model.safetensors").exists()
    told = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert told["stopped"] == summary.stopped
    verdicts = json.loads((tmp_path / "run" / "verdict.json").read_text())
    assert verdicts == told["verdicts"] == list(summary.verdicts)
    assert verdicts[0].keys() == {"run", "verdict", "why"}
    assert any(v["verdict"] == "over-optimised" and "the run was ended there" in v["why"] for v in verdicts)


def test_a_run_that_was_ended_stays_ended(folder, tmp_path):
    first, summary = stopped_at(folder, tmp_path / "run")
    second, again = stopped_at(folder, tmp_path / "run")
    assert (again.steps, again.stopped) == (summary.steps, summary.stopped)
    assert dict(again.metrics) == pytest.approx(dict(summary.metrics))
    assert same(first.state["learner"].state_dict(), second.state["learner"].state_dict())


def test_killed_and_resumed_it_ends_at_the_same_step_with_the_same_bits(folder, tmp_path):
    whole, summary = stopped_at(folder, tmp_path / "whole")
    for cut in range(1, summary.steps):
        out = tmp_path / f"cut-{cut}"
        run(watched(folder, NERVOUS, steps=60), out, save_every=2, stop_after=cut, config={})
        recipe = watched(folder, NERVOUS, steps=60)
        assert run(recipe, out, save_every=2, config={}).stopped == summary.stopped
        for name in whole.state:
            assert same(whole.state[name].state_dict(), recipe.state[name].state_dict()), (cut, name)


def test_without_the_rule_the_same_run_goes_to_its_end(folder, tmp_path):
    recipe = watched(folder, None, steps=6)
    summary = run(recipe, tmp_path)
    assert (summary.steps, summary.stopped) == (6, "")
    assert recipe.watcher.stop == ""
    assert summary.verdicts


def test_the_rule_reads_the_remembered_evaluations():
    monitor = RunMonitor(ToyPolicy(), toy_pairs(4), stop=StopRule(0.0, 2, 0.0, 0.02))
    series = [1.0, 1.2, 1.1, 1.0]
    for i, x in enumerate(series[1:], 1):
        assert monitor.stop == ""
        monitor.looks.append(Look(10 * i, {"top_k_entropy": x, "top_k_mass": 0.5}, [0.0], [0.0]))
    monitor.looks[0] = Look(0, {"top_k_entropy": 1.0, "top_k_mass": 0.5}, [0.0], [0.0])
    assert monitor.signs == overoptimised(series, [0.5] * 4, monitor.rule)
    assert "from step 10 on" in monitor.stop and "up to step 30" in monitor.stop
    assert float(raw_entropy(torch.tensor(0.5), torch.tensor(1.0))) == pytest.approx(0.5 + 0.5 * math.log(2))
