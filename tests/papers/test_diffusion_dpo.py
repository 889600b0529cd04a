"""Diffusion-DPO: pre-training, the switch to pairs, and what a few updates do."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDPMScheduler

from guerdon.config import Optim
from guerdon.core.rng import Key
from guerdon.learn.verbs import pair_batch
from guerdon.papers.diffusion_dpo import Config, Pretrain, build, pretraining
from guerdon.policies.diffusion import DiffusionPolicy, load_demos, load_pairs, small_unet
from guerdon.policies.refs import Frozen
from guerdon.testing import check_recipe


def policy() -> DiffusionPolicy:
    return DiffusionPolicy(small_unet(Key(1), widths=(8, 8)), DDPMScheduler(num_train_timesteps=100), steps=4, key=Key(2))


def settings(pretrain: int, steps: int, **changes) -> Config:
    return Config(steps=steps, batch=8, pretrain=Pretrain(steps=pretrain, batch=16), **changes)


def test_pretraining_learns_to_denoise():
    recipe = pretraining(Pretrain(steps=60, batch=32, optim=Optim(lr=1e-2)), policy(), load_demos(), Key(0))
    loss = [recipe.step(t)["loss"] for t in range(recipe.steps)]
    assert loss[0] == pytest.approx(1, abs=0.3)  # a fresh network says about 0 where the noise has variance 1
    assert sum(loss[-5:]) < 0.75 * sum(loss[:5])


def test_updates_on_pairs_prefer_what_was_preferred():
    learner, pairs = policy(), load_pairs(key=Key(0))[:8]
    before = Frozen(learner)
    recipe = build(settings(0, 25, optim=Optim(lr=1e-3)), learner, pairs, [], Key(0))
    first = recipe.step(0)
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    for t in range(1, recipe.steps):
        recipe.step(t)
    batch = pair_batch(learner, pairs * 8)
    with torch.no_grad():
        ratio = (learner.forward(batch).logp - before.logp(batch)).sum(1)
    assert (ratio[0::2] - ratio[1::2]).mean() > 0


def test_the_leash_is_to_the_pretrained_policy():
    learner = policy()
    fresh = {k: v.clone() for k, v in learner.state_dict().items()}
    recipe = build(settings(3, 8), learner, load_pairs(key=Key(0)), load_demos(), Key(0))
    assert recipe.steps == 11
    log = [recipe.step(t) for t in range(3)]
    assert all("loss/denoising" in m for m in log)
    pretrained = {k: v.clone() for k, v in learner.state_dict().items()}
    assert not torch.equal(fresh["unet.conv_in.weight"], pretrained["unet.conv_in.weight"])
    assert recipe.step(3)["loss/dpo"] == pytest.approx(math.log(2), abs=1e-6)
    for t in range(4, 11):  # more updates than pre-training had: the leash must not be renewed
        recipe.step(t)
    kept = recipe.state["ref"].policy.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(kept[k], v) for k, v in pretrained.items())
    assert not torch.equal(learner.state_dict()["unet.conv_in.weight"], pretrained["unet.conv_in.weight"])


@pytest.mark.parametrize("pretrain", [0, 2, 3])
def test_a_killed_run_ends_with_the_same_bytes(pretrain):
    pairs, demos = load_pairs(key=Key(0)), load_demos()
    check_recipe(lambda: build(settings(pretrain, 4), policy(), pairs, demos, Key(0)))
