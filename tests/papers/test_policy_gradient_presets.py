"""Presets with a critic, a greedy baseline, votes, certainty or reference answers: each climbs its reward, by the gradient it states."""

import pytest
import torch

from guerdon import assemble, catalog
from guerdon.config import Optim, Sampling
from guerdon.core import certainty, credit, credit_group
from guerdon.core.masked import row_mean, row_sum
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.papers._policy_gradient_critic import Gae
from guerdon.rewards.given import ReferenceProbability
from guerdon.testing import ToyPolicy, ToyReward, check_recipe, toy_prompts
from guerdon.types import Score


def made(name, steps=60, policy=None, reward=None, batch=4, **settings):
    """The recipe on toys, and the policy that it trains."""
    method, policy = catalog.load(name), policy or ToyPolicy()
    settings = {"sampling": Sampling(n=8, max_new=6), "optim": Optim(lr=0.05), **settings}
    config = method.Config(steps=steps, batch=batch, **settings)
    outside = () if name in ("intuitor", "rent", "one_shot_em", "rlpr", "verifree") else (reward or ToyReward(),)
    return method.build(config, policy, toy_prompts(6), *outside, Key(0)), policy


def learnt(name, steps=60, **settings):
    recipe, policy = made(name, steps, **settings)
    return [recipe.step(t) for t in range(recipe.steps)], policy


def mean(rows, name="reward"):
    return sum(m[name] for m in rows) / len(rows)


@pytest.mark.parametrize("name", ["ppo", "vapo", "remax", "loop", "bnpo", "gspo_token"])
def test_it_climbs(name):
    seen, _ = learnt(name, **({"gae": Gae(lam=None, critic_lam=1.0, alpha=1.0, warmup=4)} if name == "vapo" else {}))
    assert mean(seen[-5:]) > seen[0]["reward"] + 0.4


@pytest.mark.parametrize("name", ["intuitor", "rent", "one_shot_em", "rlpr", "verifree"])
def test_it_climbs_its_own_reward(name):
    # Equal logits are no certainty to go by, and prompts of one context would want different answers of it.
    policy = ToyPolicy(contexts=6, spread=0.5)
    seen, _ = learnt(name, batch=6, policy=policy, **({"shots": 6} if name == "one_shot_em" else {}))
    gain = {"rlpr": 0.04, "verifree": 0.15}.get(name, 0.5)
    assert mean(seen[-5:]) > mean(seen[:5]) + gain


@pytest.mark.parametrize("name", ["intuitor", "rent", "one_shot_em", "rlpr", "verifree"])
def test_what_rewards_itself_has_no_setting_for_rewards(name):
    assert assemble.configure(name, {"steps": 3})[1].steps == 3
    with pytest.raises(UserError, match="reward"):
        assemble.configure(name, {"reward": ("vader",)})


def first_letter(rollouts):
    """How many of the group begin alike, in place of answers of many tokens."""
    begins = [(r.group, r.content[:1]) for r in rollouts]
    size = {g: sum(g == h for h, _ in begins) for g, _ in begins}
    return [Score.whole(r, begins.count(b) / size[b[0]]) for r, b in zip(rollouts, begins, strict=True)]


def test_votes_make_groups_agree():
    seen, _ = learnt("empo", reward=first_letter, high=9.0)
    assert mean(seen[-5:]) > seen[0]["reward"] + 0.15
    _, policy = learnt("empo", 3, reward=first_letter, low=8.0, high=9.0)  # no group is as undecided as that
    torch.testing.assert_close(weights(policy), weights(ToyPolicy()), rtol=0, atol=0)


def test_empo_follows_the_share_where_a_group_is_neither_settled_nor_hopeless():
    found, batch, policy = moved("empo", reward=first_letter, low=0.9, high=1.3)
    begins = batch.inputs["actions"][:, 0].view(4, 8)
    alike = (begins[:, :, None] == begins[:, None]).double().mean(2)
    entropy = -alike.log().mean(1)  # of the shares of distinct answers: each stands there as often as it was given
    kept = (entropy >= 0.9) & (entropy <= 1.3)
    assert 0 < kept.sum() < 4, entropy
    adv = (alike - alike.mean(1, keepdim=True)) / (alike.std(1, keepdim=True) + 1e-6)
    same(found, by_hand(policy, batch, answerwise((adv * kept[:, None]).flatten(), batch)))


def weights(policy):
    return torch.cat([p.detach().flatten() for p in policy.parameters()])


def moved(name, policy=None, **settings):
    """The direction of the first update: Adam's first step is the gradient's sign, so the raw gradient is taken from a spy on it."""
    recipe, policy = made(name, 1, policy=policy or ToyPolicy(spread=0.3), **{"optim": Optim(lr=1e-9, max_grad_norm=None), **settings})
    learner = recipe.state["learner"]
    grads = []
    keep = learner.optimizer.step
    learner.optimizer.step = lambda: (
        grads.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in learner.parameters]) or keep()
    )
    batches = []
    update = learner.update
    learner.update = lambda batch: batches.append(batch) or update(batch)
    recipe.step(0)
    return grads[0], batches[0], policy


def by_hand(policy, batch, objective):
    """The gradient of what is written out: `objective(logp)`, to be climbed."""
    outputs = policy.forward(batch, frozenset({"logp", "entropy", "value"}))
    wanted = torch.autograd.grad(-objective(outputs), list(policy.parameters()), allow_unused=True, materialize_grads=True)
    return [g.detach() for g in wanted]


def share(batch):
    """ToyReward of each row, from its tokens."""
    real = batch.mask & (batch.inputs["actions"] > 0)
    return (batch.inputs["actions"].eq(1) & real).sum(1) / real.sum(1).clamp(min=1)


def same(found, wanted):
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def tokens(adv, batch):
    """`sum A logp / tokens`, climbed: the gradient of PPO's surrogate at the start."""
    return lambda o: (torch.where(batch.mask, adv * o.logp, 0.0)).sum() / batch.mask.sum()


def test_loop_follows_the_rewards_above_the_others():
    found, batch, policy = moved("loop", epochs=1)
    same(found, by_hand(policy, batch, tokens(credit.rloo(share(batch), batch.group)[:, None], batch)))


def test_bnpo_follows_its_advantage():
    found, batch, policy = moved("bnpo")
    same(found, by_hand(policy, batch, tokens(credit_group.bnpo(share(batch), batch.group)[:, None], batch)))


def test_bnpo_scales_other_rewards():
    found, _, _ = moved("bnpo")
    scaled, _, _ = moved(
        "bnpo", reward=lambda rs: [Score.whole(r, 4 * s.value - 2) for r, s in zip(rs, ToyReward()(rs), strict=True)], low=-2.0, high=2.0
    )
    same(found, scaled)
    with pytest.raises(UserError, match="low < high"):
        made("bnpo", low=1.0)


def test_remax_follows_the_reward_above_the_greedy_answers():
    policy = ToyPolicy(spread=0.3)
    found, batch, _ = moved("remax", policy, sampling=Sampling(n=3, max_new=6))
    likeliest = policy.logits.detach().argmax(-1)
    greedy = []
    for context in batch.inputs["context"].tolist():
        ids = likeliest[context].tolist()
        letters = ids[: ids.index(0)] if 0 in ids else ids
        greedy.append(letters.count(1) / max(1, len(letters)))
    above = share(batch) - torch.tensor(greedy)

    def objective(o):
        return (above * row_sum(o.logp, batch.mask)).mean()

    same(found, by_hand(policy, batch, objective))


def test_ppo_follows_whitened_advantages_and_its_critic():
    found, batch, policy = moved("ppo", beta=0.0)
    value = policy.value.detach()[batch.inputs["context"], : batch.mask.shape[1]]
    last = batch.mask & (batch.mask.flip(1).cumsum(1).flip(1) == 1)
    adv, target = credit.gae(last * share(batch)[:, None], value, batch.mask, lam=0.95)
    spread = adv[batch.mask]
    white = (adv - spread.mean()) / (spread.var() + 1e-8).sqrt()

    def objective(o):
        return tokens(white, batch)(o) - 0.1 * (0.5 * torch.where(batch.mask, o.value - target, 0.0) ** 2).sum() / batch.mask.sum()

    same(found, by_hand(policy, batch, objective))


def test_one_shot_em_follows_the_entropy():
    found, batch, policy = moved("one_shot_em", batch=1)
    assert batch.inputs["context"].unique().numel() == 1  # one prompt
    same(found, by_hand(policy, batch, lambda o: -torch.where(batch.mask, o.entropy, 0.0).sum() / batch.mask.sum()))


@pytest.mark.parametrize("name", ["intuitor", "rent"])
def test_certainty_is_the_reward(name):
    found, batch, policy = moved(name)
    with torch.no_grad():
        o = policy.forward(batch, frozenset({"logits", "entropy"}))
    reward = row_mean(certainty.self_certainty(o.extra["logits"]) if name == "intuitor" else -o.entropy, batch.mask)
    adv = credit.grpo(reward, batch.group)
    same(found, by_hand(policy, batch, lambda o: (adv * row_mean(o.logp, batch.mask)).mean()))


def test_verifree_follows_the_chance_of_the_reference():
    found, batch, policy = moved("verifree")
    answer = batch.extra["answer"]
    assert answer.any() and (batch.mask | ~answer).all()
    with torch.no_grad():
        logp = policy.forward(batch).logp
    chance = torch.where(answer.any(1), row_sum(logp, answer).exp(), 0.0)
    thought = credit.rloo(chance, batch.group)

    def objective(o):
        parts = thought * row_sum(o.logp, batch.mask & ~answer) + chance * row_sum(o.logp, answer)
        return parts.mean()

    same(found, by_hand(policy, batch, objective))


def answerwise(adv, batch):
    """`mean_i A_i mean_t logp`, climbed: the gradient of GRPO's surrogate at the start."""
    return lambda o: (adv * row_mean(o.logp, batch.mask)).mean()


def test_ttrl_learns_from_a_part_of_those_who_vote():
    found, batch, policy = moved("ttrl", learn=3, sampling=Sampling(n=8, max_new=6))
    assert len(batch) == 4 * 3
    same(found, by_hand(policy, batch, answerwise(credit.grpo(share(batch), batch.group), batch)))
    with pytest.raises(UserError, match="learn 9 of n 8"):
        made("ttrl", learn=9)


def test_rlpr_follows_what_the_reasoning_adds_to_the_reference(monkeypatch):
    judged, judge = [], ReferenceProbability.__call__

    def seen(self, rollouts, /):
        judged.extend(found := judge(self, rollouts))
        return found

    monkeypatch.setattr(ReferenceProbability, "__call__", seen)
    found, batch, policy = moved("rlpr", least=0.0)
    reward = torch.tensor([score.value for score in judged])
    assert reward.unique().numel() > 4
    same(found, by_hand(policy, batch, answerwise(credit.grpo(reward, batch.group), batch)))


def test_rlpr_leaves_out_prompts_that_say_little():
    _, batch, _ = moved("rlpr", batch=6, least=0.0)
    _, cut, _ = moved("rlpr", batch=6, least=1.0)
    some, fewer = ((b.adv != 0).any(1).sum() for b in (batch, cut))
    assert 0 < fewer < some


def test_gspo_token_is_gspo():
    for settings in ({}, {"epochs": 3}):
        torch.testing.assert_close(
            weights(learnt("gspo_token", 2, **settings)[1]), weights(learnt("gspo", 2, **settings)[1]), rtol=0, atol=1e-5
        )


def test_a_kl_in_the_reward_is_a_leash():
    for name in ("remax", "loop"):
        free, held = (weights(learnt(name, 25, beta=beta, kl_grad="reward")[1]) for beta in (0.0, 0.5))
        start = weights(ToyPolicy())
        assert float((held - start).norm()) < float((free - start).norm()), name


def test_the_weight_of_ppos_kl_finds_its_target():
    seen, _ = learnt("ppo", 40, beta=0.01, gae=Gae(kl_target=1e-4))
    rising = [m["kl/weight"] for m in seen]
    assert rising[0] == pytest.approx(0.01) and rising[-1] > rising[0]  # the policy is further away than that
    with pytest.raises(UserError, match="kl_target"):
        made("ppo", beta=0.0, gae=Gae(kl_target=1.0))


def test_the_dual_clip_bounds_what_bad_answers_cost():
    wide = {"epochs": 8, "optim": Optim(lr=0.5)}
    free, bound = (weights(learnt("ppo", 4, **wide, **more)[1]) for more in ({}, {"dual": 1.01}))
    assert not torch.equal(free, bound)


def test_vapos_critic_learns_alone_first():
    recipe, policy = made("vapo", 2, gae=Gae(lam=None, critic_lam=1.0, warmup=3))
    assert recipe.steps == 5
    logits, value = policy.logits.detach().clone(), policy.value.detach().clone()
    for t in range(3):
        recipe.step(t)
    assert torch.equal(policy.logits, logits) and not torch.equal(policy.value, value)
    recipe.step(3)
    assert not torch.equal(policy.logits, logits)
    check_recipe(lambda: made("vapo", 3, gae=Gae(lam=None, critic_lam=1.0, warmup=1))[0], steps=4)


def test_vapo_follows_a_decay_by_length_its_critic_and_what_was_right():
    found, batch, policy = moved("vapo", gae=Gae(lam=None, alpha=0.4, critic_lam=1.0), nll=0.3)
    value = policy.value.detach()[batch.inputs["context"], : batch.mask.shape[1]]
    last = batch.mask & (batch.mask.flip(1).cumsum(1).flip(1) == 1)
    length = batch.mask.sum(1)
    adv, _ = credit.gae(last * share(batch)[:, None], value, batch.mask, lam=(1 - 1 / (0.4 * length)).clamp(min=0))
    target = share(batch)[:, None].expand_as(value)  # the whole return
    spread = adv[batch.mask]
    white = (adv - spread.mean()) / (spread.var() + 1e-8).sqrt()
    right = batch.mask & (share(batch) > 0)[:, None]
    assert 0 < right.sum() < batch.mask.sum()

    def objective(o):
        critic = 0.5 * (torch.where(batch.mask, o.value - target, 0.0) ** 2).sum() / batch.mask.sum()
        return tokens(white, batch)(o) - 0.1 * critic + 0.3 * torch.where(right, o.logp, 0.0).sum() / right.sum()

    same(found, by_hand(policy, batch, objective))


def test_vapo_imitates_what_was_right():
    plain, _ = learnt("vapo", 12, nll=0.0)
    more, _ = learnt("vapo", 12, nll=1.0)
    assert "loss/nll" in more[-1]
    assert mean(more[-4:], "loss/nll") < mean(plain[-4:], "loss/nll")


@pytest.mark.parametrize("name", ["ppo", "rlpr"])
def test_what_follows_the_run_is_resumed(name):
    how = {"gae": Gae(kl_target=0.01)} if name == "ppo" else {}
    check_recipe(lambda: made(name, 4, **how)[0], steps=4)
