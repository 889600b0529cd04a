"""References of text policies (whole, adapters, adapters on adapters) and of policies that know nothing of text."""

from pathlib import Path

import pytest
import torch
from torch import nn

from guerdon.core.rng import Key
from guerdon.errors import RunStopped, UserError
from guerdon.policies.lora import Lora
from guerdon.policies.refs import Ema, Frozen, Lagged, Live, Snapshot, check_step0
from guerdon.policies.text import TextPolicy
from guerdon.testing.models import small_model
from guerdon.types import Batch, Outputs, Prompt, Rollout

ROWS = [Rollout(Prompt("a", "The food"), " was great"), Rollout(Prompt("b", "A dull film"), " comes too late, but worth it.")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def adapter(folder, tmp_path_factory):
    """A folder with only an adapter that has learnt something."""
    policy = TextPolicy.load(folder, lora=Lora(r=2))
    shake(policy, 0.1)
    place = tmp_path_factory.mktemp("adapted")
    policy.save(place)
    return str(place / "adapter")


def shake(policy, size=0.05, seed=1):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(size * torch.randn(p.shape, generator=g, dtype=p.dtype))


class Bandit:
    """A policy without text and without nn.Module as a base."""

    def __init__(self):
        self.net = nn.Linear(3, 4)
        self.fixed = nn.Linear(3, 3).requires_grad_(False)

    def forward(self, batch, need=frozenset({"logp"})):
        logq = torch.log_softmax(self.net(self.fixed(batch.inputs["x"])), -1)
        return Outputs(logq.gather(1, batch.inputs["a"]))

    def parameters(self):
        return list(self.net.parameters())


def bandit_batch(n=5):
    g = torch.Generator().manual_seed(0)
    inputs = {"x": torch.randn(n, 3, generator=g), "a": torch.randint(0, 4, (n, 2), generator=g)}
    return Batch(inputs, torch.ones(n, 2, dtype=torch.bool), torch.arange(n), torch.arange(n))


class ModuleBandit(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 4)

    def forward(self, batch, need=frozenset({"logp"})):
        return Outputs(torch.log_softmax(self.net(batch.inputs["x"]), -1).gather(1, batch.inputs["a"]))


@pytest.mark.parametrize("make", [Bandit, ModuleBandit])
def test_frozen_stays_live_follows_for_any_policy(make):
    policy, batch = make(), bandit_batch()
    start = policy.forward(batch).logp.detach()
    frozen, live = Frozen(policy), Live(policy)
    check_step0(policy, frozen, batch)
    shake(policy)
    assert torch.equal(frozen.logp(batch), start)
    assert torch.equal(live.logp(batch), policy.forward(batch).logp)
    assert not torch.equal(live.logp(batch), start)
    assert not frozen.logp(batch).requires_grad
    assert all(p.requires_grad for p in policy.parameters())


def test_rows_limits_a_pass_not_the_result():
    policy, batch = Bandit(), bandit_batch()
    torch.testing.assert_close(Frozen(policy, rows=2).logp(batch), Frozen(policy).logp(batch))
    with pytest.raises(UserError, match="rows 0"):
        Frozen(policy, rows=0)


def test_what_does_not_learn_is_shared():
    policy = Bandit()
    frozen = Frozen(policy)
    assert frozen.policy.fixed.weight is policy.fixed.weight
    assert frozen.policy.net.weight is not policy.net.weight
    assert not any(p.requires_grad for p in frozen.policy.parameters())


def test_ema_formula_and_state():
    policy, batch = Bandit(), bandit_batch()
    ema = Ema(policy, 0.75)
    old = [p.detach().clone() for p in policy.parameters()]
    shake(policy)
    ema.tick(1)
    for slow, a, b in zip(ema.policy.parameters(), old, policy.parameters(), strict=True):
        torch.testing.assert_close(slow, 0.75 * a + 0.25 * b)
    other = Ema(policy, 0.75)
    other.load_state_dict(ema.state_dict())
    assert torch.equal(other.logp(batch), ema.logp(batch))
    assert not torch.equal(Ema(policy, 0.75).logp(batch), ema.logp(batch))


def test_the_decay_of_an_average_may_change_with_the_updates():
    policy = Bandit()
    ema, seen = Ema(policy, lambda update: {1: 0.0, 2: 1.0}[update]), []
    for update in (1, 2):
        shake(policy, seed=update)
        ema.tick(update)
        seen.append([p.clone() for p in ema.policy.parameters()])
        if update == 1:
            now = [p.detach().clone() for p in policy.parameters()]
    assert all(map(torch.equal, seen[0], now)) and all(map(torch.equal, seen[1], seen[0]))


def test_a_snapshot_is_renewed_when_told_to_and_gives_its_weights_back():
    policy, batch = Bandit(), bandit_batch()
    held, older = Snapshot(policy), Snapshot(policy)
    start = policy.forward(batch).logp.detach()
    shake(policy)
    held.tick(1)
    assert torch.equal(held.logp(batch), start)
    held.take()
    moved = policy.forward(batch).logp.detach()
    assert torch.equal(held.logp(batch), moved) and torch.equal(older.logp(batch), start)
    kept = held.state_dict()
    shake(policy, seed=2)
    held.restore()
    assert torch.equal(policy.forward(batch).logp, moved)
    held.take(older)
    assert torch.equal(held.logp(batch), start)
    held.load_state_dict(kept)
    assert torch.equal(held.logp(batch), moved)


@pytest.mark.parametrize("decay", [-0.1, 1.1])
def test_ema_decay_out_of_range(decay):
    with pytest.raises(UserError, match=r"expected a number in \[0, 1\]"):
        Ema(Bandit(), decay)


def test_lagged_renews_every_so_often():
    policy, batch = Bandit(), bandit_batch()
    lagged, start = Lagged(policy, every=2), policy.forward(batch).logp.detach()
    shake(policy)
    lagged.tick(1)
    assert torch.equal(lagged.logp(batch), start)
    lagged.tick(2)
    assert torch.equal(lagged.logp(batch), policy.forward(batch).logp)
    kept = lagged.state_dict()
    shake(policy, seed=2)
    lagged.tick(4)
    lagged.load_state_dict(kept)
    assert not torch.equal(lagged.logp(batch), policy.forward(batch).logp)


@pytest.mark.parametrize("layout", ["padded", "packed", "tree"])
@pytest.mark.parametrize("case", ["whole", "lora", "adapter goes on", "lora on a merged adapter"])
def test_step0_is_exact_whatever_the_adapters(case, layout, folder, adapter):
    model = {"whole": folder, "lora": folder}.get(case, adapter)
    lora = Lora(r=4) if case.startswith("lora") else None
    policy = TextPolicy.load(model, lora=lora, layout=layout)
    frozen, batch = Frozen(policy), policy.collate(ROWS)
    check_step0(policy, frozen, batch)
    base = TextPolicy.load(folder, layout=layout).forward(batch).logp
    pretrained = "adapter" in case
    assert torch.allclose(frozen.logp(batch), base, atol=1e-5) is not pretrained
    start = frozen.logp(batch)
    shake(policy)
    assert torch.equal(frozen.logp(batch), start)
    assert not torch.allclose(policy.forward(batch).logp, start, atol=1e-3)


def test_the_base_under_adapters_is_shared(folder):
    policy = TextPolicy.load(folder, lora=Lora())
    own = {id(p) for p in policy.model.parameters()}
    copied = [p for p in Frozen(policy).policy.model.parameters() if id(p) not in own]
    assert sum(p.numel() for p in copied) == sum(p.numel() for p in policy.parameters())
    assert Frozen(policy).policy.tokenizer is policy.tokenizer


def test_step0_says_why(folder):
    policy = TextPolicy.load(folder)
    frozen, batch = Frozen(policy), policy.collate(ROWS)
    shake(policy)
    with pytest.raises(RunStopped, match=r"weights differ \(first: model.embed_tokens.weight\)"):
        check_step0(policy, frozen, batch)
    cold = TextPolicy.load(folder, temperature=0.5)
    with pytest.raises(RunStopped, match=r"temperature: 0.5 in the policy, 1.0 in the reference"):
        check_step0(cold, Frozen(TextPolicy.load(folder)), batch)
    half = TextPolicy.load(folder, dtype="bfloat16")
    with pytest.raises(RunStopped, match=r"dtype: torch.bfloat16 in the policy"):
        check_step0(half, Frozen(TextPolicy.load(folder)), batch)


def test_step0_finds_dropout(tmp_path):
    policy = TextPolicy.load(small_model(tmp_path, attention_dropout=0.3), dropout=True)
    batch = policy.collate(ROWS)
    frozen = Frozen(policy)
    assert torch.equal(frozen.logp(batch), frozen.logp(batch))
    with pytest.raises(RunStopped, match="dropout is on"):
        check_step0(policy, frozen, batch)


def test_identity_is_of_the_weights(folder):
    policy = TextPolicy.load(folder)
    first = Frozen(policy).identity
    assert first == Frozen(TextPolicy.load(folder)).identity
    shake(policy)
    assert first != Frozen(policy).identity


def test_a_frozen_policy_samples_what_the_policy_sampled(folder):
    policy = TextPolicy.load(folder, max_new=6)
    frozen = Frozen(policy)
    ours, theirs = (p.sample([ROWS[0].prompt], 2, Key(0)) for p in (policy, frozen.policy))
    assert [r.actions.tolist() for r in ours] == [r.actions.tolist() for r in theirs]


def test_no_module_no_copy():
    class Empty:
        def parameters(self):
            return []

    with pytest.raises(UserError, match="holds no torch module"):
        Frozen(Empty())


def test_paths_are_strings(folder):
    assert TextPolicy.load(Path(folder)).name == folder
