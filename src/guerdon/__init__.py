"""Guerdon: reward-driven post-training.

    import guerdon
    summary = guerdon.train("grpo", model="tiny", data="human-ratings:movie", reward=my_reward)

Names are imported when they are first used, so that `import guerdon` itself is quick and does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from guerdon.assemble import train as train
    from guerdon.core.rng import Key as Key
    from guerdon.data import load as load
    from guerdon.errors import RunStopped as RunStopped
    from guerdon.errors import UserError as UserError
    from guerdon.learn.learner import Adam as Adam
    from guerdon.learn.learner import Learner as Learner
    from guerdon.learn.offline import offline as offline
    from guerdon.learn.online import online as online
    from guerdon.learn.rounds import rounds as rounds
    from guerdon.learn.run import Summary as Summary
    from guerdon.learn.run import run as run
    from guerdon.policies.text import TextPolicy as TextPolicy
    from guerdon.rewards.adapt import adapt as adapt
    from guerdon.rewards.combine import weighted as weighted
    from guerdon.rewards.lift import groupwise as groupwise
    from guerdon.rewards.lift import pointwise as pointwise
    from guerdon.types import Batch as Batch
    from guerdon.types import Claim as Claim
    from guerdon.types import Metrics as Metrics
    from guerdon.types import Outputs as Outputs
    from guerdon.types import Paper as Paper
    from guerdon.types import Policy as Policy
    from guerdon.types import Preference as Preference
    from guerdon.types import Probe as Probe
    from guerdon.types import Prompt as Prompt
    from guerdon.types import Recipe as Recipe
    from guerdon.types import Reward as Reward
    from guerdon.types import Rollout as Rollout
    from guerdon.types import Score as Score
    from guerdon.types import Span as Span
    from guerdon.types import Term as Term
    from guerdon.types import Trial as Trial

_HOME = {
    "assemble": "train",
    "core.rng": "Key",
    "data": "load",
    "errors": "RunStopped UserError",
    "learn.learner": "Adam Learner",
    "learn.offline": "offline",
    "learn.online": "online",
    "learn.rounds": "rounds",
    "learn.run": "Summary run",
    "policies.text": "TextPolicy",
    "rewards.adapt": "adapt",
    "rewards.combine": "weighted",
    "rewards.lift": "groupwise pointwise",
    "types": "Batch Claim Metrics Outputs Paper Policy Preference Probe Prompt Recipe Reward Rollout Score Span Term Trial",
}
_MODULE = {name: module for module, names in _HOME.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name in _MODULE:
        return getattr(importlib.import_module(f"guerdon.{_MODULE[name]}"), name)
    raise AttributeError(f"module 'guerdon' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE])
