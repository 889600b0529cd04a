"""A policy whose answers are swapped for the reference's: the same numbers as by hand."""

import math

import pytest
import torch

from guerdon.core.rng import Key
from guerdon.learn.swapped import Swapping
from guerdon.rewards.given import ANSWER
from guerdon.testing import ToyPolicy, toy_prompts

POLICY = ToyPolicy(spread=1.0)


def test_the_swapping_policy_says_the_chance_of_the_whole_reference():
    swapping = Swapping(POLICY, "")
    rollouts = swapping.sample(toy_prompts(4), 5, Key(1))
    batch = swapping.collate(rollouts)
    logp = POLICY.forward(batch).logp.detach()
    torch.testing.assert_close(torch.where(batch.mask, batch.old_logp, 0.0), torch.where(batch.mask, logp, 0.0), rtol=0, atol=1e-6)
    swapped = batch.extra["answer"].any(1).tolist()
    assert any(swapped) and not all(swapped)
    for r, score, row, answer, hit in zip(rollouts, swapping.chance(rollouts), logp, batch.extra["answer"], swapped, strict=True):
        assert score.value == pytest.approx(math.exp(float(row[answer].sum())) if hit else 0.0, abs=1e-6)
        assert (ANSWER in r.segments) == hit


def test_a_policy_around_another_has_its_version():
    swapping = Swapping(policy := ToyPolicy(), "")
    swapping.version += 1
    assert policy.version == 1 == swapping.version
    assert swapping.letters == policy.letters
