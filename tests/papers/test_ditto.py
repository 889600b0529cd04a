"""DITTO: which updates see repeated texts, that the loss lowers repetition, and policies it cannot work with."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from guerdon.config import Optim
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.papers import ditto
from guerdon.testing.toys import ToyPolicy
from guerdon.types import Metrics, Prompt, Rollout

TEXTS = [Rollout(Prompt(str(i), "A"), "bcbcb", end="length") for i in range(4)]  # "c" ends a sentence


def metrics(cfg: ditto.Config, policy: Any, texts: list[Rollout] = TEXTS) -> list[Metrics]:
    recipe = ditto.build(cfg, policy, texts, Key(0))
    return [recipe.step(t) for t in range(recipe.steps)]


def config(**changes: Any) -> ditto.Config:
    usual: dict[str, Any] = dict(ends="c", block=0, batch=4, steps=20, optim=Optim(lr=0.05))
    return ditto.Config(**{**usual, **changes})


def test_updates_are_of_either_kind():
    """A text of three sentences is in every batch; each update has one loss or the other, in about the proportion asked for."""
    found = metrics(config(steps=60), ToyPolicy(steps=7), [Rollout(Prompt("a", "A"), "acbcacb", end="length")])
    kinds = [(m["loss/nll"] > 0, m["loss/ditto"] > 0) for m in found]
    assert set(kinds) == {(True, False), (False, True)}
    assert 15 <= kinds.count((False, True)) <= 45


@pytest.mark.parametrize(("rate", "texts"), [(0.0, None), (1.0, TEXTS)])
def test_likelihood_alone(rate, texts):
    """At rate 0, and where no text has three sentences, every update is one of maximum likelihood."""
    found = metrics(config(rate=rate), ToyPolicy(), texts or [Rollout(Prompt("a", "A"), "acbcac", end="length")])
    assert all(m["loss/ditto"] == 0 and m["loss/nll"] > 0 for m in found)


def test_repeated_tokens_become_less_likely_than_before():
    """With one span (`. b`, as `c` is the end mark) the table can only fit the target: p at the second copy is half that of the first."""
    policy = ToyPolicy(steps=7)
    metrics(config(rate=1.0, steps=300), policy, [Rollout(Prompt("a", "A"), "acbcacb", end="length")])
    # The text becomes `b c a c a c a`, prefix `b`, span `c a`.
    table = policy.logits[policy.context(Prompt("a", "A"))].softmax(-1)
    said = torch.tensor([[3, 1], [3, 1], [3, 1]])
    p = table[torch.arange(1, 7).view(3, 2), said]
    torch.testing.assert_close(p[1:], 0.5 * p[:-1], atol=0.02, rtol=0)


def test_texts_are_joined_to_blocks():
    policy = ToyPolicy(steps=6)
    recipe = ditto.build(config(block=6, batch=1, steps=2), policy, TEXTS, Key(0))
    assert recipe.step(0)["loss"] > 0


def test_a_policy_that_does_not_write_is_refused():
    class Mute:
        pass

    with pytest.raises(UserError, match="Mute does not say"):
        ditto.build(config(), Mute(), TEXTS, Key(0))  # type: ignore[arg-type]
