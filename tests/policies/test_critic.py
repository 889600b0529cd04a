"""A value head on a text policy: values at every decision, learnt with the policy, kept with it, copied with it."""

from __future__ import annotations

import pytest
import torch

from guerdon.core.reduce import token_mean
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.learn.critic import value_term
from guerdon.learn.learner import Adam, Learner
from guerdon.policies.critic import FILE
from guerdon.policies.lora import Lora
from guerdon.policies.refs import Frozen, Snapshot
from guerdon.policies.text import TextPolicy
from guerdon.testing.models import small_model
from guerdon.types import Prompt, Rollout, Term, decisions

PROMPTS = [Prompt("a", "The food was"), Prompt("b", "What is 12 plus 30?")]
VALUE = frozenset({"value"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("model"))


def filled(policy):
    """A policy whose head is not zero."""
    with torch.no_grad():
        for i, p in enumerate(policy.critic.parameters()):
            p.copy_(torch.linspace(-1, 1, p.numel()).view_as(p) + i)
    return policy


@pytest.mark.parametrize("layout", ["padded", "packed", "tree"])
def test_values_are_of_the_state_before_each_decision(folder, layout):
    policy = filled(TextPolicy.load(folder, critic=True, max_new=6, layout=layout))
    batch = policy.collate(policy.sample(PROMPTS, 2, Key(0)))
    out = policy.forward(batch, frozenset({"value", "hidden"}))
    head = policy.critic.linear
    expected = torch.where(batch.mask, (out.extra["hidden"] * head.weight[0]).sum(-1) + head.bias, 0.0)
    torch.testing.assert_close(out.value, expected, atol=1e-5, rtol=0)
    assert out.value.dtype == torch.float32
    assert float(out.value[batch.mask].detach().std()) > 0


def test_values_start_at_zero_and_do_not_change_the_policy(folder):
    policy, plain = TextPolicy.load(folder, critic=True), TextPolicy.load(folder)
    batch = policy.collate([Rollout(p, "great") for p in PROMPTS])
    out = policy.forward(batch, frozenset({"value", "logp"}))
    assert float(out.value.detach().abs().max()) == 0
    assert torch.equal(out.logp, plain.forward(batch).logp)
    assert len(list(policy.parameters())) == len(list(plain.parameters())) + 2


def test_the_head_learns_with_the_policy(folder):
    """One learner, both losses: the values come to the targets, by the head's own weights and those of the network."""
    policy = TextPolicy.load(folder, critic=True)
    rollouts = [Rollout(p, text, group=i) for i, (p, text) in enumerate(zip(PROMPTS, ("great and kind", "the answer"), strict=True))]
    batch = policy.collate(rollouts)
    target = torch.where(batch.mask, torch.tensor([[1.0], [-1.0]]), 0.0)
    batch = batch.with_(extra={"target": target, "value": torch.zeros_like(target)})
    nll = Term("nll", lambda o, b: -o.logp, over=decisions, reduce=token_mean)
    learner = Learner(policy, [nll, value_term(None, 1.0)], Adam(3e-3))
    before = [p.detach().clone() for p in policy.parameters()]
    metrics = [learner.update(batch) for _ in range(60)]
    assert metrics[-1]["loss/value"] < 0.05 * metrics[0]["loss/value"]
    assert metrics[-1]["loss/nll"] < metrics[0]["loss/nll"]
    assert all(not torch.equal(a, b) for a, b in zip(before[-2:], list(policy.parameters())[-2:], strict=True))


@pytest.mark.parametrize("lora", [None, Lora(2, 4.0, "all-linear", 0)])
def test_saved_and_read_back(folder, tmp_path, lora):
    policy = filled(TextPolicy.load(folder, critic=True, lora=lora))
    policy.save(tmp_path)
    assert (tmp_path / FILE).is_file()
    again, without = TextPolicy.load(tmp_path, critic=True), TextPolicy.load(tmp_path)
    batch = policy.collate([Rollout(p, "great") for p in PROMPTS])
    torch.testing.assert_close(again.forward(batch, VALUE).value, policy.forward(batch, VALUE).value, atol=1e-5, rtol=0)
    assert without.critic is None


def test_state_and_references_hold_the_head(folder):
    policy, other = filled(TextPolicy.load(folder, critic=True)), TextPolicy.load(folder, critic=True)
    batch = policy.collate([Rollout(p, "great") for p in PROMPTS])
    value = policy.forward(batch, VALUE).value.detach()
    other.load_state_dict(policy.state_dict())
    assert torch.equal(other.forward(batch, VALUE).value, value)
    held, snapshot = Frozen(policy), Snapshot(policy)
    with torch.no_grad():
        policy.critic.linear.bias += 1
    assert torch.equal(held.forward(batch, VALUE).value, value)
    assert torch.equal(snapshot.forward(batch, VALUE).value, value)
    snapshot.restore()
    assert torch.equal(policy.forward(batch, VALUE).value, value)


def test_what_cannot_be_is_refused(folder, tmp_path):
    plain, critic = TextPolicy.load(folder), TextPolicy.load(folder, critic=True)
    batch = plain.collate([Rollout(p, "great") for p in PROMPTS])
    with pytest.raises(UserError, match="no critic"):
        plain.forward(batch, VALUE)
    with pytest.raises(UserError, match="the saved policy has none, this one a critic"):
        critic.load_state_dict(plain.state_dict())
    with pytest.raises(UserError, match="the saved policy has a critic, this one none"):
        plain.load_state_dict(critic.state_dict())
    wide = TextPolicy.load(small_model(tmp_path / "wide", hidden_size=64), critic=True)
    wide.critic.save(tmp_path)
    with pytest.raises(UserError, match="no value head of width 32"):
        critic.critic.read(tmp_path)
