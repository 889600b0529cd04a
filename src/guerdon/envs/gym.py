"""Rewards that gymnasium environments give themselves."""

from __future__ import annotations

from collections.abc import Sequence

from guerdon.types import Rollout, Score


def env_return(rollouts: Sequence[Rollout]) -> list[Score]:
    """The environment's own rewards: `r_t` at decision t, so that credit can be given by return-to-go; their sum is the episode's
    return. A rollout without rewards (anything but a trajectory) abstains."""
    scores = []
    for rollout in rollouts:
        rewards = getattr(rollout.content, "rewards", None)
        if rewards is None:
            scores.append(Score.abstain(f"{type(rollout.content).__name__} has no rewards of an environment"))
        else:
            scores.append(Score.tokens(rollout, rewards, {"steps": float(len(rollout))}))
    return scores
