"""Control policies: exact log-probabilities, determinism, padding, saving."""

from __future__ import annotations

import json
import math

import pytest
import torch

from guerdon.core.rng import Key
from guerdon.envs.gym import env_return
from guerdon.errors import UserError
from guerdon.policies.control import ControlPolicy, load_policy, load_prompts
from guerdon.types import Prompt, Rollout

CART, PENDULUM = "env:CartPole-v1", "env:Pendulum-v1"
ALL = frozenset({"logp", "entropy", "value"})


def shaken(data: str, **settings) -> ControlPolicy:
    """A policy whose last layer is not almost 0, so that log-probabilities differ."""
    policy = load_policy("mlp", data, Key(3), **settings)
    with torch.no_grad():
        policy.actor[-1].weight.mul_(100)
        if policy.log_std is not None:
            policy.log_std.fill_(-0.3)
    return policy


@pytest.mark.parametrize("data", [CART, PENDULUM])
def test_forward_gives_the_log_probabilities_of_a_naive_loop_and_of_the_sampler(data):
    policy = shaken(data)
    rollouts = policy.sample(load_prompts(data, n=3), 2, Key(0))
    batch = policy.collate(rollouts)
    out = policy.forward(batch, frozenset({"logp", "entropy"}))
    for i, rollout in enumerate(rollouts):
        for t in range(len(rollout)):
            output = policy.actor(rollout.content.observations[t])
            if policy.discrete:
                naive = torch.distributions.Categorical(logits=output)
                logp, entropy = naive.log_prob(rollout.actions[t]), naive.entropy()
            else:
                naive = torch.distributions.Normal(output, policy.log_std.exp())
                logp, entropy = naive.log_prob(rollout.actions[t]).sum(), naive.entropy().sum()
            torch.testing.assert_close(out.logp[i, t], logp)
            torch.testing.assert_close(out.entropy[i, t], entropy)
    torch.testing.assert_close(out.logp.detach(), batch.old_logp)
    assert not out.logp[~batch.mask].any()


def test_actions_follow_the_distribution():
    policy = shaken(CART)
    output = torch.tensor([[0.0, math.log(3.0)]]).expand(10_000, 2)
    noise = torch.rand(10_000, generator=Key(1).generator())
    assert policy._choose(output, noise).float().mean().item() == pytest.approx(0.75, abs=0.02)
    assert policy._choose(output, None).float().mean() == 1


@pytest.mark.parametrize("data", [CART, PENDULUM])
def test_an_episode_depends_on_its_prompt_and_key_only(data):
    policy = shaken(data)
    a, b, c = load_prompts(data, n=3)
    together = policy.sample([a, b, c], 2, Key(5))
    alone = policy.sample([b], 2, Key(5))
    for x, y in zip(together[2:4], alone, strict=True):
        assert len(x) == len(y)
        # A forward pass over other row counts rounds differently; the pendulum swings such differences up, so only its first second counts.
        torch.testing.assert_close(x.actions[:20], y.actions[:20])
        torch.testing.assert_close(x.logp[:20], y.logp[:20])
    again = policy.sample([a, b, c], 2, Key(5))
    assert all(torch.equal(x.actions, y.actions) and torch.equal(x.logp, y.logp) for x, y in zip(together, again, strict=True))
    assert [r.group for r in together] == [0, 0, 1, 1, 2, 2]
    assert torch.equal(alone[0].content.observations[0], alone[1].content.observations[0])  # one initial state
    other = policy.sample([b], 2, Key(6))
    assert any(len(x) != len(y) or not torch.equal(x.actions, y.actions) for x, y in zip(alone, other, strict=True))
    state = torch.get_rng_state()
    policy.sample([b], 1, Key(5))
    assert torch.equal(state, torch.get_rng_state())


def test_greedy_episodes_are_all_alike_and_ends_are_told_apart():
    policy = shaken(CART)
    first, second = policy.sample(load_prompts(CART, n=1), 2, Key(0), greedy=True)
    assert torch.equal(first.actions, second.actions)
    assert first.end == "stop"
    assert first.content.terminated
    assert first.content.last.shape == (4,)
    assert str(first.content) == f"{len(first)} ticks, return {len(first)}, terminated"
    swung = shaken(PENDULUM).sample(load_prompts(PENDULUM, n=1), 1, Key(0))[0]
    assert (swung.end, swung.content.terminated, len(swung)) == ("length", False, 200)


def test_rows_do_not_depend_on_the_padding_beside_them():
    policy = shaken(CART, critic=True)
    rollouts = policy.sample(load_prompts(CART, n=4), 1, Key(2))
    batch = policy.collate(rollouts)
    whole = policy.forward(batch, ALL)
    for i, rollout in enumerate(rollouts):
        one = policy.forward(policy.collate([rollout]), ALL)
        for name in ("logp", "entropy", "value"):
            torch.testing.assert_close(getattr(one, name)[0], getattr(whole, name)[i, : len(rollout)])
        poisoned = {k: v.clone() for k, v in batch.inputs.items()}
        poisoned["observations"][~batch.mask] = float("nan")
        torch.testing.assert_close(policy.forward(batch.with_(inputs=poisoned), ALL).logp, whole.logp)


def test_the_reward_is_the_environments_own():
    rollouts = shaken(CART).sample(load_prompts(CART, n=2), 1, Key(0))
    scores = env_return(rollouts)
    assert [s.value for s in scores] == [len(r) for r in rollouts]
    assert len(scores[0].spans) == len(rollouts[0])
    assert env_return([Rollout(Prompt("x", 0), "text")])[0].abstained


@pytest.mark.parametrize(("data", "critic"), [(CART, True), (PENDULUM, False)])
def test_what_is_saved_acts_the_same(tmp_path, data, critic):
    policy = shaken(data, critic=critic, hidden=(8,))
    policy.save(tmp_path / "policy")
    loaded = load_policy(str(tmp_path / "policy"), data, Key(9))
    prompts = load_prompts(data, n=2, first=7)
    for a, b in zip(policy.sample(prompts, 1, Key(1)), loaded.sample(prompts, 1, Key(1)), strict=True):
        assert torch.equal(a.actions, b.actions)
        assert torch.equal(a.logp, b.logp)
    assert json.loads((tmp_path / "policy" / "config.json").read_text())["hidden"] == [8]


def test_initial_weights_come_from_the_key():
    same, again, other = (load_policy("mlp", CART, key).actor[0].weight for key in (Key(0), Key(0), Key(1)))
    assert torch.equal(same, again)
    assert not torch.equal(same, other)


def test_wrong_input_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"did you mean 'CartPole-v1'"):
        load_policy("mlp", "env:Cartpole-v1", Key(0))
    with pytest.raises(UserError, match="hint: for instance --data env:CartPole-v1"):
        load_prompts("CartPole-v1")
    policy = load_policy("mlp", CART, Key(0))
    with pytest.raises(UserError, match="expected an integer"):
        policy.sample([Prompt("p", "hello")], 1, Key(0))
    with pytest.raises(UserError, match="hint: load both with the same --data"):
        policy.sample(load_prompts(PENDULUM, n=1), 1, Key(0))
    with pytest.raises(UserError, match="critic=True"):
        policy.forward(policy.collate(policy.sample(load_prompts(CART, n=1), 1, Key(0))), frozenset({"value"}))
    with pytest.raises(UserError, match="expected a Trajectory"):
        policy.collate([Rollout(Prompt("x", 0), "text")])
    with pytest.raises(UserError, match="holds no control policy"):
        load_policy(str(tmp_path), CART, Key(0))
    policy.save(tmp_path)
    with pytest.raises(UserError, match="hint: --data env:CartPole-v1"):
        load_policy(str(tmp_path), PENDULUM, Key(0))
