"""Token hidden rewards in training: where the weights are 1 it is GRPO, and each option weighs what it says."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from guerdon.config import Optim, Sampling
from guerdon.core import credit
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.learn.influence import influences
from guerdon.papers import grpo, thr
from guerdon.papers.thr import Weighing
from guerdon.testing import ToyPolicy, check_recipe, toy_prompts
from guerdon.types import Batch, Score


def begins(rollouts: Any) -> list[Score]:
    """1 for answers that begin with "a", else 0; those that begin with "d" are not judged."""
    return [Score.abstain("d") if r.content[:1] == "d" else Score.whole(r, float(r.content[:1] == "a")) for r in rollouts]


def built(policy: ToyPolicy, method: Any = thr.Config, **changes: Any) -> Any:
    usual: dict[str, Any] = dict(batch=4, steps=4, sampling=Sampling(n=6), optim=Optim(lr=0.05))
    return method(**{**usual, **changes}).build(policy, toy_prompts(), begins, Key(0))


def weighing(**changes: Any) -> dict[str, Any]:
    return {"hidden": Weighing(**changes)}


def weights(policy: ToyPolicy) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in policy.parameters()])


def test_with_weights_of_one_it_is_grpo():
    ours, theirs, every = (ToyPolicy(spread=0.3) for _ in range(3))
    for recipe in (
        built(ours, **weighing(threshold="none", p=0.0)),
        built(theirs, grpo.Config, beta=0.0),
        built(every, **weighing(threshold="share", tau=1.0, p=0.0)),
    ):
        for t in range(4):
            metrics = recipe.step(t)
        assert metrics["reward"] > 0
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=0, atol=0)
    torch.testing.assert_close(weights(every), weights(theirs), rtol=0, atol=0)


def credited(**changes: Any) -> tuple[Batch, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A credited batch, its plain advantages, its influences, and which rows are right."""
    policy = ToyPolicy(spread=0.6)
    rollouts = policy.sample(toy_prompts(4), 6, Key(1))
    scores, batch = begins(rollouts), policy.collate(rollouts)
    reward = torch.tensor([s.value for s in scores])
    plain = credit.broadcast(credit.grpo(reward, batch.group), batch.mask)
    s = influences(policy, batch, reward > 0.5, ~reward.isnan())
    made: Any = thr.Config(**weighing(**changes)).credited(policy)(scores, batch)
    return made, plain, s, reward > 0.5


@pytest.mark.parametrize("p", [0.2, -0.2])
def test_weights_follow_the_sign(p):
    batch, plain, s, right = credited(p=p, threshold="none")
    sign = torch.where(right[:, None], s, -s).sign()
    torch.testing.assert_close(batch.adv, plain * (1 + p * sign))
    torch.testing.assert_close(batch.extra["thr"], torch.where(right[:, None], s, -s))
    moved = plain != 0
    assert (batch.adv[moved].abs() > plain[moved].abs()).any() and (batch.adv[moved].abs() < plain[moved].abs()).any()


@pytest.mark.parametrize("p", [0.2, 0.0, -0.2])
def test_a_word_that_right_and_wrong_answers_share(p):
    """Its advantages cancel in GRPO; p > 0 lets it grow all the same, p < 0 holds it back."""
    policy = ToyPolicy(spread=0.6)
    rollouts = [r for r in policy.sample(toy_prompts(1), 200, Key(1)) if r.content[:1] == "a" and len(r) > 1]
    scores = [Score.whole(r, float(r.content[1:2] == "b")) for r in rollouts]
    made: Any = thr.Config(**weighing(p=p, threshold="none")).credited(policy)(scores, policy.collate(rollouts))
    right, shared = torch.tensor([s.value for s in scores]) > 0, made.adv[:, 0]
    assert right.any() and not right.all()
    torch.testing.assert_close(shared.sum(), 2 * p * shared[right].sum() / (1 + p), atol=1e-4, rtol=1e-5)


def test_passes_in_pieces_change_nothing():
    whole, pieces = ToyPolicy(spread=0.3), ToyPolicy(spread=0.3)
    for policy, micro in ((whole, None), (pieces, 5)):
        recipe = built(policy, optim=Optim(lr=0.05, micro_units=micro))
        for t in range(3):
            recipe.step(t)
    torch.testing.assert_close(weights(whole), weights(pieces))


def test_a_threshold_silences_the_rest():
    batch, plain, s, _ = credited(p=0.0, threshold="share", tau=0.25)
    learnt = (batch.adv != 0).sum() / (plain != 0).sum()
    assert 0.1 < learnt < 0.5
    kept, dropped = s.abs()[(batch.adv != 0)], s.abs()[(batch.adv == 0) & (plain != 0)]
    assert kept.max() > dropped.max() and batch.extra["weight"].unique().tolist() == [0.0, 1.0]


def test_what_was_not_judged_is_not_learnt():
    batch, _, s, _ = credited(p=0.2)
    policy = ToyPolicy(spread=0.6)
    silent = torch.tensor([r.content[:1] == "d" for r in policy.sample(toy_prompts(4), 6, Key(1))])
    assert silent.any() and not batch.adv[silent].any() and not s[silent].any()
    assert (batch.extra["weight"][silent] == 1).all()


def test_nthr_only_spares_wrong_answers():
    batch, plain, s, right = credited(variant="nthr", tau=0.0)
    assert torch.equal(batch.adv[right], plain[right])
    spared = batch.extra["weight"] < 1
    assert spared.any() and (s[spared] > 0).all()
    assert (batch.adv[spared].abs() < plain[spared].abs()).all()


def test_what_it_logs_and_the_ratio_of_sequences():
    policy = ToyPolicy(spread=0.3)
    recipe = built(policy, ratio="sequence", epochs=2, minibatches=2)
    metrics = recipe.step(0)
    assert 0 < metrics["thr/kept"] <= 1 and 0 <= metrics["thr/positive"] <= 1 and metrics["thr/weight"] > 0
    other = ToyPolicy(spread=0.3)
    built(other, epochs=2, minibatches=2).step(0)
    assert not torch.equal(weights(policy), weights(other))


@pytest.mark.parametrize("changes", [weighing(p=-0.2), weighing(variant="nthr")])
def test_it_survives_a_kill(changes):
    check_recipe(lambda: built(ToyPolicy(spread=0.3), **changes), steps=4)


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(UserError, match="variant nthr with threshold 'share'"):
        Weighing(variant="nthr", threshold="share")
    with pytest.raises(UserError, match="expected a share in"):
        Weighing(threshold="share", tau=2)
    with pytest.raises(UserError, match="p"):
        Weighing(p=1.5)
