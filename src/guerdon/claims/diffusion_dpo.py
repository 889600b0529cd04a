"""Diffusion-DPO on scikit-learn's digits: a model learns from pairs of its own images to use more ink."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from guerdon.core.rng import Key
from guerdon.papers import diffusion_dpo
from guerdon.policies.diffusion import DiffusionPolicy, digits, load_demos, load_policy, load_prompts
from guerdon.types import Claim, Preference, Rollout, Trial

CLAIM = Claim(
    method="diffusion_dpo: 60 updates on pairs of the model's own images, more ink preferred",
    baseline="the pre-trained model that it starts from and is leashed to",
    metric="mean ink of an image of a given class (0 blank, 1 black), same class and same noise in both",
    direction="up",
    margin=0.02,
    setting="160,000-weight UNet on 8 x 8 digits, pre-trained for 400 updates; 320 pairs of one class each; 300 images, 20 denoising steps",
)


def ink(rollouts: Sequence[Rollout]) -> list[float]:
    """The preference that pairs are made with, and the metric: mean ink."""
    return [float((r.content.mean() + 1) / 2) for r in rollouts]


def own_pairs(policy: DiffusionPolicy, each: int, key: Key) -> list[Preference]:
    """Two images of one class drawn by the policy, the one with more ink first."""
    drawn = [r.with_(actions=None, logp=None, mask=None) for r in policy.sample(load_prompts(), 2 * each, key)]
    amount, pairs = ink(drawn), []
    for i in range(0, len(drawn), 2):
        best, other = (i, i + 1) if amount[i] >= amount[i + 1] else (i + 1, i)
        pairs.append(Preference(drawn[i].prompt, (drawn[best], drawn[other]), margin=amount[best] - amount[other]))
    return pairs


def accuracy(rollouts: Sequence[Rollout]) -> float:
    """How often a classifier of real digits (logistic regression) sees the digit that was asked for."""
    from sklearn.linear_model import LogisticRegression

    images, classes = digits()
    judge = LogisticRegression(max_iter=2000).fit(images.flatten(1).numpy(), classes.numpy())
    seen = judge.predict(torch.stack([r.content for r in rollouts]).flatten(1).numpy())
    return float((seen == [r.prompt.content for r in rollouts]).mean())


def trial(seed: int) -> Trial:
    key = Key(seed)
    cfg = diffusion_dpo.Config(pretrain=diffusion_dpo.Pretrain(steps=0))
    policy = load_policy(cfg.model, cfg.data, key)
    warm = diffusion_dpo.pretraining(diffusion_dpo.Pretrain(), policy, load_demos(), key)
    for t in range(warm.steps):
        warm.step(t)
    before = policy.sample(load_prompts(), 30, key.fold("test"))
    recipe = diffusion_dpo.build(cfg, policy, own_pairs(policy, 32, key.fold("pairs")), [], key)
    log = [recipe.step(t) for t in range(recipe.steps)]
    after = policy.sample(load_prompts(), 30, key.fold("test"))
    notes = {
        "accuracy_before": accuracy(before),
        "accuracy_after": accuracy(after),
        "implicit_accuracy": sum(m["rewards/accuracies"] for m in log[-10:]) / 10,
    }
    return Trial(ink(before), ink(after), notes)
