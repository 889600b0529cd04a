"""CREAM: rewards of three policies by hand, labels by mode, the loss on the fixture, and a run over two rounds."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from guerdon.config import Optim, Sampling
from guerdon.core import preference
from guerdon.core.rng import Key
from guerdon.papers import cream
from guerdon.policies.refs import Snapshot
from guerdon.testing import ToyPolicy, check_recipe, toy_demos, toy_prompts
from guerdon.types import Prompt, Rollout, Score

KEY = Key(0)


def config(**changes: Any) -> cream.Config:
    usual = dict(sft_steps=2, rounds=3, prompts_per_round=4, steps_per_round=2, batch=4, sampling=Sampling(n=5))
    return cream.Config(**{**usual, "optim": Optim(lr=0.05), "sft_optim": Optim(lr=0.2), **changes})


def build(cfg: cream.Config, policy: ToyPolicy | None = None) -> Any:
    return cream.build(cfg, policy or ToyPolicy(spread=0.3), toy_demos(), toy_prompts(), KEY)


def test_the_loss_of_a_half_sure_label():
    win, lose = torch.tensor([[1.0, 0.5, -1.0], [-0.5, 0.5, -3.0]], dtype=torch.float64)
    label = torch.full((3,), 0.8, dtype=torch.float64)
    want = [0.8 * math.log1p(math.exp(-0.1 * d)) + 0.2 * math.log1p(math.exp(0.1 * d)) for d in (1.5, 0.0, 2.0)]
    assert want == pytest.approx([0.650957, 0.693147, 0.638139], abs=1e-6)
    found = preference.dpo(win, lose, beta=0.1, label=label)
    torch.testing.assert_close(found, torch.tensor(want, dtype=torch.float64), rtol=0, atol=1e-9)
    win.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: preference.dpo(x, lose, beta=0.1, label=label), (win,))


def judged(*scores: float) -> list[Score]:
    return [Score.whole(r, x) for r, x in zip(answers(len(scores)), scores, strict=True)]


def answers(n: int, group: int = 0) -> list[Rollout]:
    return [Rollout(Prompt(f"p{group}", "A"), f"answer {i}", group=group) for i in range(n)]


@pytest.mark.parametrize(("mode", "label"), [("dyn", [2 / 3, 0.0]), ("avg", [1 / 3, 1 / 3]), ("off", [1.0, 1.0])])
def test_labels_by_mode(mode: Any, label: list[float]):
    rollouts = answers(4) + answers(3, group=1) + answers(2, group=2)
    now = judged(0.1, 0.4, 0.3, 0.2) + judged(1, 2, 3) + judged(1, 1)  # the last prompt's rewards are equal: no pair
    before = judged(0.2, 0.3, 0.4, 0.1) + judged(3, 2, 1) + judged(1, 2)
    pairs, metrics = cream.labelled(config(mode=mode), rollouts, now, before)
    assert [pair.label for pair in pairs] == pytest.approx(label)
    assert [[r.content for r in pair.ranked] for pair in pairs] == [["answer 1", "answer 0"], ["answer 2", "answer 0"]]
    assert metrics == pytest.approx({"pairs": 2.0, "consistency": 1 / 3, "consistency/below_half": 0.5})


def test_rewards_of_consecutive_policies():
    policy = ToyPolicy(spread=0.3)
    last, older = Snapshot(policy), Snapshot(policy)
    with torch.no_grad():
        policy.logits[:, 0, 1] += 1.0
    last.take()
    with torch.no_grad():
        policy.logits[:, 0, 1] += 1.0
    rollouts = policy.sample(toy_prompts(2), 4, KEY)
    batch = policy.collate(rollouts)
    a, b, c = (model.forward(batch).logp.detach() for model in (policy, last.policy, older.policy))
    now, before = cream.rewards(policy, last, older, rollouts)
    torch.testing.assert_close(torch.tensor([s.value for s in now]), (a - b).sum(1))
    torch.testing.assert_close(torch.tensor([s.value for s in before]), (b - c).sum(1))
    _, before = cream.rewards(policy, last, None, rollouts)  # M_0 has no reference: its averaged log-likelihood
    torch.testing.assert_close(torch.tensor([s.value for s in before]), b.sum(1) / batch.mask.sum(1))


def test_three_policies_are_remembered_across_rounds():
    """At the start of round 2 `last` is the policy as it was at the start of round 1, and `older` as it was at that of round 0."""
    policy = ToyPolicy(spread=0.3)
    recipe = build(config(), policy)
    seen = []
    for t in range(recipe.steps):
        if (t - 2) % 2 == 0 and t >= 2:
            seen.append([p.detach().clone() for p in policy.parameters()])
        recipe.step(t)
        last, older = recipe.state["rounds_ref"], recipe.state["rounds_older"]
        if t >= 2:
            assert same(last.state_dict()["weights"], seen[-1])
        if t >= 4:
            assert same(older.state_dict()["weights"], seen[-2])
    assert len(seen) == 3


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_first_the_demonstrations_are_learnt_then_rounds():
    recipe = build(config())
    metrics = [recipe.step(t) for t in range(recipe.steps)]
    assert len(metrics) == 2 + 3 * 2
    assert all("loss/nll" in m for m in metrics[:2]) and all("loss/dpo" in m for m in metrics[2:])
    assert metrics[1]["loss"] < metrics[0]["loss"]
    assert metrics[2]["loss"] == pytest.approx(math.log(2), abs=1e-6)  # the round refers to its own start
    assert all(0 <= metrics[t]["consistency"] <= 1 for t in (2, 4, 6))


def test_a_killed_run_ends_the_same():
    for mode in ("dyn", "avg"):
        check_recipe(lambda mode=mode: build(config(mode=mode, steps_per_round=3)), steps=8)  # killed within round 0, goes on into round 1
