"""The learner: its gradient does not depend on how a batch is split, and nothing bad reaches the weights."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.config import Optim
from guerdon.core import preference, reduce, surrogate
from guerdon.core.rng import Key
from guerdon.errors import RunStopped, UserError
from guerdon.learn.learner import DRIFT, Adam, Learner
from guerdon.learn.verbs import chosen, pair_batch, rejected, row_sum
from guerdon.policies.refs import Frozen
from guerdon.testing import ToyPolicy, toy_pairs, toy_prompts
from guerdon.types import Batch, Term, decisions, pairs, rows

DENSE = [reduce.token_mean, reduce.seq_mean_token_mean, reduce.seq_mean_token_sum, reduce.seq_sum_over(6.0), reduce.total_sum]


def dense_term(r: reduce.Reduce, **changes) -> Term:
    return Term("pg", lambda o, b: surrogate.ppo_clip(o.logp, b.old_logp, b.adv), over=decisions, reduce=r, **changes)


def online_batch(policy: ToyPolicy, seed: int = 0, n: int = 3, groups: int = 4) -> Batch:
    """Rows of unequal lengths, one of them with nothing to learn from, in shuffled order."""
    batch = policy.collate(policy.sample(toy_prompts(groups), n, Key(seed)))
    adv = torch.randn(batch.mask.shape, generator=Key(seed).fold("adv").generator())
    mask = batch.mask.clone()
    mask[1] = False
    shuffled = torch.tensor(Key(seed).fold("order").permutation(len(batch)))
    return batch.with_(adv=adv, mask=mask).rows(shuffled)


class Sized(ToyPolicy):
    """A toy policy that says how large its rows are."""

    def sizes(self, batch: Batch) -> torch.Tensor:
        return batch.inputs["length"]


def gradient(
    policy: ToyPolicy, terms: list[Term], batch: Batch, micro_units: int | None, micro_tokens: int | None = None
) -> tuple[torch.Tensor, dict[str, float]]:
    learner = Learner(policy, terms, Adam(0.0), micro_units=micro_units, micro_tokens=micro_tokens, max_grad_norm=None)
    kept: list[torch.Tensor] = []
    learner.optimizer.register_step_pre_hook(
        lambda *_: kept.extend(torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in learner.parameters)
    )
    metrics = learner.update(batch)
    return torch.cat([g.flatten() for g in kept]), metrics


@pytest.mark.parametrize("how", DENSE, ids=lambda r: r.name)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 50), micro=st.integers(1, 5), splits=st.lists(st.integers(0, 4), min_size=12, max_size=12))
def test_the_gradient_is_the_same_for_any_split(how, seed, micro, splits):
    policy = ToyPolicy(spread=0.7, seed=seed)
    batch = online_batch(policy, seed).with_(unit=torch.tensor(splits) * 17 - 3)
    moved = Sized(spread=0.7, seed=seed + 1)  # ratios other than 1
    term = dense_term(how, watch=lambda o, b: {"ratio": (o.logp - b.old_logp).exp()})
    whole, told = gradient(moved, [term], batch, None)
    for parts, told_too in (gradient(moved, [term], batch, micro), gradient(moved, [term], batch, None, 3 * micro)):
        torch.testing.assert_close(parts, whole, atol=1e-6, rtol=1e-6)
        assert told_too["loss"] == pytest.approx(told["loss"], rel=1e-5, abs=1e-6)
        assert told_too["ratio"] == pytest.approx(told["ratio"], rel=1e-5)
        assert told_too[DRIFT] == pytest.approx(told[DRIFT], rel=1e-5)
    assert whole.abs().max() > 1e-4


@settings(max_examples=10, deadline=None)
@given(micro=st.integers(1, 8))
def test_pairs_stay_together_for_any_split(micro):
    policy = ToyPolicy(spread=0.5)
    batch = pair_batch(policy, toy_pairs(7))
    batch = batch.with_(ref_logp=Frozen(ToyPolicy(spread=0.2, seed=3)).logp(batch))

    def loss(o, b):
        ratio = row_sum(o.logp - b.ref_logp, b)
        return preference.dpo(chosen(b, ratio), rejected(b, ratio), beta=0.5)

    term = Term("dpo", loss, over=pairs, reduce=reduce.mean)
    whole, _ = gradient(policy, [term], batch, None)
    for parts, _ in (gradient(policy, [term], batch, micro), gradient(policy, [term], batch, None, micro)):
        torch.testing.assert_close(parts, whole, atol=1e-6, rtol=1e-6)


def test_the_gap_to_the_sampler_is_the_mean_over_what_is_learnt():
    policy = ToyPolicy(spread=0.5)
    batch = online_batch(policy)
    shift = torch.linspace(-0.2, 0.1, batch.mask.numel()).view_as(batch.mask)
    far = batch.with_(old_logp=torch.where(batch.mask, batch.old_logp + shift, 99.0))
    learner = Learner(policy, [dense_term(reduce.token_mean)], Adam(0.0))
    assert learner.update(batch)[DRIFT] == pytest.approx(0, abs=1e-6)
    assert learner.update(far)[DRIFT] == pytest.approx(float(shift.abs()[batch.mask].mean()), rel=1e-4)
    value = Term("value", lambda o, b: o.value.square(), over=decisions, reduce=reduce.token_mean, needs=frozenset({"value"}))
    assert DRIFT not in Learner(policy, [value], Adam(0.0)).update(batch)
    nll = Term("nll", lambda o, b: -o.logp, over=decisions, reduce=reduce.token_mean)
    assert DRIFT not in Learner(policy, [nll], Adam(0.0)).update(pair_batch(policy, toy_pairs(3)))


def test_two_terms_with_their_own_masks_add_up():
    policy = ToyPolicy(spread=0.5)
    batch = online_batch(policy)
    pg = dense_term(reduce.token_mean)
    score = Term("score", lambda o, b: o.score.square(), over=rows, reduce=reduce.mean, coef=0.3, needs=frozenset({"score"}))
    both, told = gradient(policy, [pg, score], batch, 2)
    one, a = gradient(policy, [pg], batch, None)
    other, b = gradient(policy, [score], batch, None)
    torch.testing.assert_close(both, one + other, atol=1e-6, rtol=1e-6)
    assert told["loss"] == pytest.approx(a["loss/pg"] + 0.3 * b["loss/score"], abs=1e-6)


def test_a_batch_in_which_nothing_counts_changes_nothing():
    policy = ToyPolicy(spread=0.5)
    learner = Learner(policy, [dense_term(reduce.token_mean)], Adam(0.1, weight_decay=0.1))
    before = policy.logits.detach().clone()
    batch = online_batch(policy)
    assert learner.update(batch.with_(mask=torch.zeros_like(batch.mask))) == {"skipped": 1.0}
    assert torch.equal(policy.logits, before)
    assert learner.updates == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_the_weights_unchanged(bad):
    policy = ToyPolicy(spread=0.5)
    learner = Learner(policy, [dense_term(reduce.token_mean)], Adam(0.1))
    batch = online_batch(policy)
    learner.update(batch)
    before, moments = policy.logits.detach().clone(), learner.optimizer.state_dict()["state"][0]["exp_avg"].clone()
    adv = batch.adv.clone()
    adv[batch.mask.nonzero()[0, 0], 0] = bad
    with pytest.raises(RunStopped, match=r"not finite at update 1\nhint:"):
        learner.update(batch.with_(adv=adv))
    assert torch.equal(policy.logits, before)
    assert torch.equal(learner.optimizer.state_dict()["state"][0]["exp_avg"], moments)
    assert learner.updates == 1
    learner.update(batch)
    assert bool(torch.isfinite(policy.logits).all())


def test_clipping_bounds_the_step_but_shows_the_whole_norm():
    policy = ToyPolicy(spread=0.5)
    batch = online_batch(policy)
    free = Learner(policy, [dense_term(reduce.total_sum)], Adam(0.0), max_grad_norm=None).update(batch)
    tight = Learner(policy, [dense_term(reduce.total_sum)], Adam(0.0), max_grad_norm=1e-3)
    norms: list[float] = []
    tight.optimizer.register_step_pre_hook(
        lambda *_: norms.append(float(torch.cat([p.grad.flatten() for p in tight.parameters if p.grad is not None]).norm()))
    )
    assert tight.update(batch)["grad_norm"] == pytest.approx(free["grad_norm"])
    assert norms[0] == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(
    ("adam", "expected"),
    [
        (Adam(1.0), [1, 1, 1, 1, 1]),
        (Adam(1.0, warmup=4), [0.25, 0.5, 0.75, 1, 1]),
        (Adam(1.0, decay="linear", steps=4), [1, 0.75, 0.5, 0.25, 0]),
        (Adam(1.0, decay="cosine", steps=4), [1, 0.8535533905932737, 0.5, 0.14644660940672624, 0]),
        (Adam(1.0, warmup=2, decay="linear", steps=4), [0.5, 1, 1, 0.5, 0]),
    ],
)
def test_learning_rates(adam, expected):
    assert [adam.lr_at(u) for u in range(5)] == pytest.approx(expected, abs=1e-12)


def test_the_rate_of_an_update_is_the_one_reported():
    policy = ToyPolicy(spread=0.5)
    learner = Learner(policy, [dense_term(reduce.token_mean)], Adam(0.1, decay="linear", steps=2))
    batch = online_batch(policy)
    assert [learner.update(batch)["lr"] for _ in range(3)] == pytest.approx([0.1, 0.05, 0.0])


def test_the_fused_step_is_adamw():
    """Against the formula of Loshchilov and Hutter (arXiv 1711.05101, algorithm 2), in float64."""
    x = torch.nn.Parameter(torch.tensor([0.5, -2.0, 3.0], dtype=torch.float64))
    optimizer = Adam(0.1, weight_decay=0.3, betas=(0.8, 0.9), eps=1e-4).build([x])
    weight, first, second = x.detach().clone(), torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for t, g in enumerate(torch.tensor([[1.0, -2.0, 0.0], [0.5, 4.0, 1e-3]], dtype=torch.float64), 1):
        x.grad = g.clone()
        optimizer.step()
        first, second = 0.8 * first + 0.2 * g, 0.9 * second + 0.1 * g.square()
        step = first / (1 - 0.8**t) / ((second / (1 - 0.9**t)).sqrt() + 1e-4)
        weight = weight - 0.1 * (step + 0.3 * weight)
    torch.testing.assert_close(x.detach(), weight, atol=1e-12, rtol=0)


def test_a_checkpoint_of_the_plain_loop_goes_on():
    """Runs that were started before the fused step: same keys, same numbers up to rounding."""
    policy, old = ToyPolicy(spread=0.5), ToyPolicy(spread=0.5)
    fused, loop = (Learner(p, [dense_term(reduce.token_mean)], Adam(0.1)) for p in (policy, old))
    loop.optimizer = torch.optim.AdamW(loop.parameters, 0.1, weight_decay=0.0)
    batch = online_batch(policy)
    loop.update(batch)
    state = copy.deepcopy(loop.state_dict())
    fused.load_state_dict(state)
    assert fused.state_dict()["optimizer"]["state"].keys() == state["optimizer"]["state"].keys()
    fused.update(batch)
    loop.update(batch)
    torch.testing.assert_close(policy.logits, old.logits, atol=1e-6, rtol=0)


def test_state_round_trip_continues_bitwise():
    def fresh():
        policy = ToyPolicy(spread=0.5)
        return policy, Learner(policy, [dense_term(reduce.token_mean)], Adam(0.1, warmup=3))

    policy, learner = fresh()
    batch = online_batch(policy)
    for _ in range(2):
        learner.update(batch)
    other, restored = fresh()
    restored.load_state_dict(copy.deepcopy(learner.state_dict()))  # as through a file
    assert (restored.updates, other.version) == (2, 2)
    assert learner.update(batch) == restored.update(batch)
    assert torch.equal(policy.logits, other.logits)


def test_wrong_use_is_refused_with_a_way_out():
    policy = ToyPolicy()
    term = dense_term(reduce.token_mean)
    with pytest.raises(UserError, match="distinct names"):
        Learner(policy, [term, term], Adam(0.1))
    with pytest.raises(UserError, match="distinct names"):
        Learner(policy, [], Adam(0.1))
    with pytest.raises(UserError, match="positive number"):
        Learner(policy, [term], Adam(0.1), micro_units=0)
    with pytest.raises(UserError, match=r"couples the rows.*\nhint: leave micro_units out"):
        Learner(policy, [dense_term(reduce.token_mean, whole_batch=True)], Adam(0.1), micro_units=1)
    with pytest.raises(UserError, match=r"couples the rows.*\nhint: leave micro_tokens out"):
        Learner(policy, [dense_term(reduce.token_mean, whole_batch=True)], Adam(0.1), micro_tokens=64)
    with pytest.raises(UserError, match="micro_tokens 0, expected a positive number"):
        Learner(policy, [term], Adam(0.1), micro_tokens=0)
    with pytest.raises(UserError, match=r"micro_units 2 and micro_tokens 64, expected one of them\nhint"):
        Learner(policy, [term], Adam(0.1), micro_units=2, micro_tokens=64)
    with pytest.raises(UserError, match=r"micro_units 2 and micro_tokens 64"):
        Optim(micro_units=2, micro_tokens=64)
    with pytest.raises(UserError, match="no trainable parameters"):
        Learner(Frozen(policy).policy, [term], Adam(0.1))
    with pytest.raises(UserError, match="without `steps`"):
        Adam(0.1, decay="linear")
    with pytest.raises(UserError, match="lr"):
        Adam(float("nan"))
    with pytest.raises(UserError, match="lacks"):
        Learner(policy, [term], Adam(0.1)).load_state_dict({"policy": {}})
