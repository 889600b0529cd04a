"""Rewards: rollouts in, scores out. One idea a file; every public function or object here is a reward or makes one.

Names are loaded when they are used, so that a worker process (`sandbox`) starts without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guerdon.rewards.adapt import to_trl as to_trl
    from guerdon.rewards.adapt import to_verl as to_verl
    from guerdon.rewards.combine import Clip as Clip
    from guerdon.rewards.combine import Gate as Gate
    from guerdon.rewards.combine import GroupNormalise as GroupNormalise
    from guerdon.rewards.combine import Minimum as Minimum
    from guerdon.rewards.combine import Normalise as Normalise
    from guerdon.rewards.combine import Product as Product
    from guerdon.rewards.combine import Weighted as Weighted
    from guerdon.rewards.combine import weighted as weighted
    from guerdon.rewards.guard import Guarded as Guarded
    from guerdon.rewards.guard import dry_run as dry_run
    from guerdon.rewards.guard import score_metrics as score_metrics
    from guerdon.rewards.implicit import ImplicitReward as ImplicitReward
    from guerdon.rewards.isolate import Isolated as Isolated
    from guerdon.rewards.lift import groupwise as groupwise
    from guerdon.rewards.lift import pointwise as pointwise
    from guerdon.rewards.model import ScalarModelReward as ScalarModelReward
    from guerdon.rewards.resolve import public_rewards as public_rewards
    from guerdon.rewards.resolve import resolve_rewards as resolve_rewards

_HOME = {
    "adapt": ("to_trl", "to_verl"),
    "combine": ("Clip", "Gate", "GroupNormalise", "Minimum", "Normalise", "Product", "Weighted", "weighted"),
    "guard": ("Guarded", "RewardWarning", "dry_run", "score_metrics"),
    "implicit": ("ImplicitReward",),
    "isolate": ("Isolated",),
    "lift": ("groupwise", "pointwise"),
    "model": ("ScalarModelReward",),
    "resolve": ("public_rewards", "resolve_rewards"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULE:
        return getattr(importlib.import_module(f"guerdon.rewards.{_MODULE[name]}"), name)
    raise AttributeError(f"module 'guerdon.rewards' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE])
