"""Experts of a mixture: read in one pass, repeated in another, by rows whatever the layout; gradients reach the router."""

import pytest
import torch

from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.learn.little import new_policy
from guerdon.policies import routing
from guerdon.policies.engines.rounded import Rounded, rounded
from guerdon.policies.text import TextPolicy
from guerdon.types import Prompt

WORDS = [f"w{i}" for i in range(14)]
ASKED = [Prompt(str(i), " ".join(f"w{(i * k) % 14}" for k in range(1, 10 + i))) for i in range(5)]


def mixture(layout="auto", **options) -> TextPolicy:
    return new_policy(WORDS, 3, max_new=6, experts=4, layout=layout, **options)


def batch_of(policy, n=3):
    return policy.collate(policy.sample(ASKED, n, Key(0)))


@pytest.mark.parametrize("layout", ["tree", "packed", "padded"])
def test_a_pass_that_repeats_its_own_routes_is_the_same(layout):
    policy = mixture(layout)
    batch = batch_of(policy)
    routed = policy.routed(batch)
    assert routed.inputs["routes"].shape[2:] == (2, 1)
    torch.testing.assert_close(policy.forward(routed).logp, policy.forward(batch).logp, rtol=0, atol=1e-5)
    part = routed.rows(torch.tensor([4, 1, 7]))
    torch.testing.assert_close(policy.forward(part).logp, policy.forward(batch).logp[[4, 1, 7]], rtol=0, atol=1e-5)


def test_routes_do_not_depend_on_the_layout():
    """Those of the first layer: of the last one, a tree computes only what is read."""
    batches = [mixture(layout).routed(batch_of(mixture(layout))) for layout in ("tree", "padded")]
    real = torch.arange(batches[0].inputs["routes"].shape[1]) < (batches[0].inputs["prompt_len"] + batches[0].inputs["length"] - 1)[:, None]
    assert routing.agreement(*(b.inputs["routes"][:, :, :1] for b in batches), real) > 0.99  # but for rounding at a tie


@pytest.mark.parametrize("layout", ["tree", "padded"])
def test_other_experts_give_other_numbers_and_the_router_still_learns(layout):
    policy = mixture(layout)
    batch = policy.routed(batch_of(policy))
    shifted = batch.with_(inputs={**batch.inputs, "routes": (batch.inputs["routes"] + 1) % 4})
    out = policy.forward(shifted)
    assert (out.logp - policy.forward(batch).logp).abs().max() > 0.01
    out.logp.sum().backward()
    assert all(float(router.weight.grad.abs().sum()) > 0 for router in routing.routers(policy.model))
    with routing.recorded(policy.model) as seen:
        policy.forward(shifted)
    assert len(seen) == 2 and seen[0].shape[1] == 1  # what is recorded under a replay is what was replayed


def test_weights_that_move_keep_their_experts():
    policy = mixture()
    batch = policy.routed(batch_of(policy))
    with torch.no_grad():
        for router in routing.routers(policy.model):
            router.weight.mul_(-1)  # now it would choose otherwise
    free = policy.routed(batch.with_(inputs={k: v for k, v in batch.inputs.items() if k != "routes"}))
    real = torch.arange(free.inputs["routes"].shape[1]) < (batch.inputs["prompt_len"] + batch.inputs["length"] - 1)[:, None]
    assert routing.agreement(free.inputs["routes"], batch.inputs["routes"], real) < 0.5
    assert (policy.forward(free).logp - policy.forward(batch).logp).abs().max() > 0.01


def test_the_sampler_s_experts_come_with_its_rollouts():
    policy = mixture()
    policy.engine = Rounded(2)
    before = {name: x.clone() for name, x in policy.model.state_dict().items()}
    drawn = policy.recorded(policy.sample(ASKED, 3, Key(0)))
    assert all(torch.equal(x, before[name]) for name, x in policy.model.state_dict().items())
    assert [len(r.record["routes"]) for r in drawn] == [sum(policy.lengths(r)) - 1 for r in drawn]
    batch = policy.collate(drawn)
    own = policy.routed(batch)
    real = torch.arange(own.inputs["routes"].shape[1]) < (batch.inputs["prompt_len"] + batch.inputs["length"] - 1)[:, None]
    assert routing.agreement(batch.inputs["routes"], own.inputs["routes"], real) < 0.99
    with policy.as_sampler():
        mine = policy.forward(batch).logp
    torch.testing.assert_close(mine, batch.old_logp, rtol=0, atol=1e-4)  # the very numbers that were drawn with
    near, far = ((policy.forward(b).logp - batch.old_logp)[batch.mask].abs().mean() for b in (batch, own))
    assert near < far


def test_rounding():
    x = torch.tensor([1.0, 1.1, -1.9, 0.0, 3.3e-5])
    torch.testing.assert_close(rounded(x, 3), torch.tensor([1.0, 1.125, -1.875, 0.0, 3.3e-5]), rtol=0.07, atol=0)
    assert torch.equal(rounded(x, 3)[:4], torch.tensor([1.0, 1.125, -1.875, 0.0]))
    assert torch.equal(rounded(x, 24), x)


def test_what_cannot_be_replayed_is_refused():
    plain = new_policy(WORDS, 3, max_new=6)
    with pytest.raises(UserError, match="no experts"):
        plain.routed(batch_of(plain))
    policy = mixture(checkpoint_activations=True)
    batch = policy.routed(batch_of(policy))
    with pytest.raises(UserError, match="checkpoint_activations"):
        policy.forward(batch)
    policy = mixture()
    batch = policy.routed(batch_of(policy))
    with pytest.raises(UserError, match="routes of 1 layers"):
        policy.forward(batch.with_(inputs={**batch.inputs, "routes": batch.inputs["routes"][:, :, :1]}))
    with pytest.raises(UserError, match="bits 0"):
        Rounded(0)
