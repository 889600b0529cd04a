"""The presets of the policy gradient: each climbs its reward, and those that say the same learn the same."""

import pytest
import torch

from guerdon import catalog
from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.testing import ToyPolicy, ToyReward, toy_prompts
from guerdon.types import Score

CLIMB = ("rloo", "dr_grpo", "opo", "gpg", "reinforce_pp", "reinforce_pp_baseline", "gspo", "gmpo", "sapo", "cispo", "topr", "dapo")


def learnt(name, steps, reward=None, **settings):
    """Rewards step by step, and the policy at the end."""
    method, policy = catalog.load(name), ToyPolicy()
    config = method.Config(steps=steps, batch=4, sampling=Sampling(n=8, max_new=6), optim=Optim(lr=0.05), **settings)
    recipe = method.build(config, policy, toy_prompts(6), reward or ToyReward(), Key(0))
    return [recipe.step(t) for t in range(steps)], policy


def hard(rollouts):
    """1 for answers that begin with "aa", one in 25, so that most groups say nothing."""
    return [Score.whole(r, float(r.content.startswith("aa"))) for r in rollouts]


@pytest.mark.parametrize("name", CLIMB)
def test_it_climbs(name):
    seen, _ = learnt(name, 60)
    assert sum(m["reward"] for m in seen[-5:]) / 5 > seen[0]["reward"] + 0.4
    assert seen[0]["ratio"] == pytest.approx(1, abs=1e-5)  # the policy has not moved yet


def test_pass_at_k_cares_for_the_best_of_k():
    """Right answers become common enough for one in k, and no more is asked for: less than GRPO makes of the same reward."""
    one, _ = learnt("grpo", 80, hard)
    best, _ = learnt("pass_at_k", 80, hard, k=4)
    start, single, four = (sum(m["reward"] for m in x) / 5 for x in (one[:5], one[-5:], best[-5:]))
    assert start < four < single


def weights(policy):
    return torch.cat([p.detach().flatten() for p in policy.parameters()])


def test_at_the_first_update_gspo_gmpo_sapo_and_grpo_are_one():
    first = weights(learnt("grpo", 1, beta=0.0)[1])
    for name in ("gspo", "gmpo", "sapo"):
        torch.testing.assert_close(weights(learnt(name, 1)[1]), first, rtol=0, atol=1e-6)


def test_the_penalty_of_reinforce_pp_is_a_leash():
    free, held = (weights(learnt("reinforce_pp", 40, beta=p)[1]) for p in (0.0, 0.5))
    start = weights(ToyPolicy())
    assert float((held - start).norm()) < float((free - start).norm())


def test_reused_samples_are_clipped():
    seen, _ = learnt("gspo", 3, epochs=4)
    assert abs(seen[-1]["ratio"] - 1) < 0.01
    wide, _ = learnt("gspo", 3, epochs=4, eps_low=0.5, eps_high=5.0)
    assert abs(wide[-1]["ratio"] - 1) > abs(seen[-1]["ratio"] - 1)


def test_dapo_samples_on_until_enough_groups_differ():
    seen, _ = learnt("dapo", 6, hard, refills=5)
    for m in seen:
        assert m["groups/kept"] <= 4 <= m["groups/drawn"] <= 24
        assert m["groups/kept"] == 4 or m["groups/drawn"] == 24
        assert 0 <= m["reward"] <= 1
    assert any(m["groups/drawn"] > 4 for m in seen)
    plain, _ = learnt("dapo", 6, hard, refills=0)
    assert "groups/drawn" not in plain[0]


def test_dapo_where_nothing_tells_moves_nothing():
    def alike(rollouts):
        return [Score.whole(r, 0.1) for r in rollouts]

    seen, policy = learnt("dapo", 2, alike, refills=2)
    assert seen[0]["groups/kept"] == 0 and seen[0]["groups/drawn"] == 12
    torch.testing.assert_close(weights(policy), weights(ToyPolicy()), rtol=0, atol=0)


def test_dapo_keeps_answers_from_the_limit():
    free, held = (learnt("dapo", 60, overlong=n)[0] for n in (0, 5))
    assert held[-1]["completions/mean_length"] < free[-1]["completions/mean_length"]
    with pytest.raises(UserError, match="overlong 7 with max_new"):
        learnt("dapo", 1, overlong=7)
