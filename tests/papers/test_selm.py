"""SELM: which of three answers make the pair, the loss of a batch by hand, and iterative DPO at alpha 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.data.cursor import Cursor
from guerdon.errors import UserError
from guerdon.learn.alignment import pair_term
from guerdon.learn.learner import learner_for
from guerdon.learn.rounds import rounds
from guerdon.learn.verbs import pair_batch, sample
from guerdon.papers import selm
from guerdon.papers.alignment_online import IterativeDPO
from guerdon.policies.refs import Lagged
from guerdon.testing import ToyPolicy, ToyReward, check_recipe, toy_pairs
from guerdon.testing.say import same
from guerdon.types import Metrics, Preference, Rollout, Score

KEY = Key(0)


def config(**changes: Any) -> selm.Config:
    usual = dict(rounds=2, pairs_per_round=6, steps_per_round=3, batch=4, alpha=0.5, sampling=Sampling(n=1), optim=Optim(lr=0.05))
    return selm.Config(**{**usual, **changes})


def build(cfg: selm.Config, policy: ToyPolicy | None = None) -> Any:
    return selm.build(cfg, policy or ToyPolicy(spread=0.3), toy_pairs(12), ToyReward(), KEY)


def by_text(**scores: float) -> Any:
    def reward(rollouts: Sequence[Rollout]) -> list[Score]:
        return [Score.whole(r, scores[r.content]) for r in rollouts]

    return reward


def texts(item: Preference) -> list[str]:
    return [r.content for r in item.ranked]


@pytest.mark.parametrize(
    ("scores", "pair"),
    [
        (dict(good=3, bad=1, own=2), ["good", "bad"]),
        (dict(good=3, bad=2, own=1), ["good", "own"]),
        (dict(good=1, bad=2, own=3), ["own", "good"]),  # the ranker has the last word, not the data
        (dict(good=2, bad=1, own=2), ["own", "bad"]),  # ties: y' first
    ],
)
def test_best_and_worst_of_three(scores: dict[str, float], pair: list[str]):
    prompt = toy_pairs(1)[0].prompt
    item = Preference(prompt, (Rollout(prompt, "good"), Rollout(prompt, "bad")))
    [made], metrics = selm.ranked([item], [Rollout(prompt, "own")], by_text(**scores))
    assert texts(made) == [*pair, "own"]
    assert (metrics["chosen/explored"], metrics["rejected/explored"]) == (float(pair[0] == "own"), float(pair[1] == "own"))


def test_all_alike_is_no_pair():
    prompt = toy_pairs(1)[0].prompt
    item = Preference(prompt, (Rollout(prompt, "good"), Rollout(prompt, "bad")))
    assert selm.ranked([item], [Rollout(prompt, "own")], by_text(good=1, bad=1, own=1))[0] == []
    made, _ = selm.ranked([item], [Rollout(prompt, "bad")], by_text(good=1, bad=0))
    assert [texts(x) for x in made] == [["good", "bad", "bad"]]


@pytest.mark.parametrize("own", [1, 2])
@pytest.mark.parametrize("micro", [None, 1])
def test_loss_by_hand(own: int, micro: int | None):
    """The first update after a round begins sees log-ratios of 0; the second is compared with the formula, row by row."""
    policy = ToyPolicy(spread=0.3)
    cfg = config(steps_per_round=2, batch=12, pairs_per_round=12, sampling=Sampling(n=own), optim=Optim(lr=0.3, micro_units=micro))
    recipe, start = build(cfg, policy), ToyPolicy(spread=0.3)
    recipe.step(0)
    items = recipe.state["buffer"].items
    with torch.no_grad():
        batches = [policy.collate(item.ranked) for item in items]
        ratio = [(policy.forward(batch).logp - start.forward(batch).logp).sum(1) for batch in batches]
    a, b = (torch.stack([x[side] for x in ratio]) for side in (0, 1))
    explored = torch.stack([x[2:].mean() for x in ratio])
    want = torch.nn.functional.softplus(-0.1 * (a - b)) + 0.5 * 0.1 * explored
    metrics = recipe.step(1)
    assert float(explored.abs().max()) > 0.01
    assert metrics["loss"] == pytest.approx(want.mean().item(), abs=1e-6)
    assert metrics["explored/logratio"] == pytest.approx(explored.mean().item(), abs=1e-6)


def test_the_floor_stops_optimism():
    class View:
        batch = type("B", (), {"unit": torch.tensor([0, 0, 0, 1, 1, 1]), "pairs": torch.tensor([[0, 1], [3, 4]])})()
        logratio = torch.tensor([0.0, 0.0, -3.0, 0.0, 0.0, -1.0], requires_grad=True)
        column = staticmethod(lambda name: torch.tensor([0.0, 0, 1, 0, 0, 1]))

    view: Any = type("P", (), {"rows": View()})()
    assert selm.optimism(view, None).tolist() == [-3.0, -1.0]
    floored = selm.optimism(view, 2.0)
    assert floored.tolist() == [-2.0, -1.0]
    [grad] = torch.autograd.grad(floored.sum(), View.logratio)
    assert grad.tolist() == [0, 0, 0, 0, 0, 1]


def test_alpha_0_is_iterative_dpo_bit_for_bit():
    """The same rounds written with the loss, the batch and the reference of `iterative_dpo`: equal weights and losses after every step."""
    ours, theirs, cfg = ToyPolicy(spread=0.3), ToyPolicy(spread=0.3), config(alpha=0.0)
    recipe, items = build(cfg, ours), Cursor(toy_pairs(12), cfg.pairs_per_round, KEY.fold("pairs"))

    def prepare(number: int) -> tuple[list[Preference], Metrics]:
        some = items.at(number)
        own = sample(theirs, [p.prompt for p in some], 1, KEY.fold("rollout", number))
        return [replace(p, ranked=p.ranked[:2]) for p in selm.ranked(some, own, ToyReward())[0]], Metrics()

    plain = rounds(
        learner=learner_for(theirs, [pair_term("dpo", IterativeDPO(beta=cfg.beta).loss)], cfg.optim, 6),
        prepare=prepare,
        collate=lambda part: pair_batch(theirs, part),
        batch=cfg.batch,
        rounds=2,
        steps_per_round=3,
        key=KEY,
        ref=Lagged(theirs, every=3),
    )
    for t in range(6):
        assert recipe.step(t)["loss"] == plain.step(t)["loss"]
        assert same(ours.state_dict(), theirs.state_dict())
    other = ToyPolicy(spread=0.3)
    optimistic = build(config(), other)
    for t in range(6):
        optimistic.step(t)
    assert not same(ours.state_dict(), other.state_dict())


def test_optimism_lowers_what_the_reference_says():
    """Where the ranker sees no use in it, y' falls faster with alpha than without."""
    found = {}
    for alpha in (0.0, 20.0):
        policy, start = ToyPolicy(spread=0.3), ToyPolicy(spread=0.3)
        recipe = build(config(alpha=alpha, rounds=1, steps_per_round=6, pairs_per_round=12, batch=12), policy)
        for t in range(6):
            recipe.step(t)
        own = sample(start, [p.prompt for p in Cursor(toy_pairs(12), 12, KEY.fold("pairs")).at(0)], 1, KEY.fold("rollout", 0))
        batch = policy.collate(own)
        with torch.no_grad():
            found[alpha] = float((policy.forward(batch).logp - start.forward(batch).logp).sum(1).mean())
    assert found[20.0] < found[0.0] - 0.1


def test_a_killed_run_ends_the_same():
    check_recipe(lambda: build(config()), steps=6)


def test_a_pair_of_equals_is_refused():
    prompt = toy_pairs(1)[0].prompt
    with pytest.raises(UserError, match="chosen and rejected are equal"):
        selm.build(config(), ToyPolicy(), [Preference(prompt, (Rollout(prompt, "a"), Rollout(prompt, "a")))], ToyReward(), KEY)
