"""Advantages: published numbers, plain loops, and the rules every estimator keeps."""

import inspect
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core import credit
from guerdon.core.credit import RunningMean, broadcast, dr_grpo, gae, grpo, prime, reinforce, returns, rloo, running_baseline, token_rloo
from guerdon.core.masked import group_count, masked_mean, masked_var

F = torch.float64
NAN = math.nan
GROUPED = [grpo, dr_grpo, rloo]
number = st.floats(-50, 50, width=32)


def t(x, dtype=F):
    return torch.tensor(x, dtype=dtype)


def near(got, want, tol=1e-9):
    torch.testing.assert_close(got, t(want).to(got.dtype), rtol=0, atol=tol)


# ---------------------------------------------------------------- published numbers

R, ONE = t([1, 0, 0, 1, 0]), torch.zeros(5, dtype=torch.long)


@pytest.mark.parametrize(
    ("options", "up", "down"),
    [
        (dict(), 1.09544312, -0.73029541),
        (dict(ddof=0), 1.22474237, -0.81649491),
        (dict(eps=1e-4), 1.09524515, -0.73016343),
    ],
)
def test_grpo_golden(options, up, down):
    near(grpo(R, ONE, **options), [up, down, down, up, down], 5e-9)
    std = math.sqrt(1.2 / (5 - options.get("ddof", 1)))
    exact = [(r - 0.4) / (std + options.get("eps", 1e-6)) for r in R.tolist()]
    near(grpo(R, ONE, **options), exact, 1e-12)


def test_group_estimators_golden():
    near(dr_grpo(R, ONE), [0.6, -0.4, -0.4, 0.6, -0.4], 1e-12)
    near(rloo(R, ONE), [0.75, -0.5, -0.5, 0.75, -0.5], 1e-12)
    near(grpo(t([0.9, 0.5, 0.5, 0.3]), ONE[:4]), [1.39075345, -0.19867906, -0.19867906, -0.99339532], 5e-9)


TOKENS = t([[0, 0, 1], [0, 0.5, 0]])
MASK = torch.tensor([[True, True, True], [True, True, False]])


def test_reinforce_pp_golden():
    near(returns(TOKENS, MASK), [[1, 1, 1], [0.5, 0.5, 0]], 1e-12)
    adv = credit.reinforce_pp(TOKENS, MASK)
    near(adv, [[0.73029669] * 3, [-1.09544504, -1.09544504, 0]], 5e-9)
    scale = math.sqrt(0.3 / 4 + 1e-8)
    near(adv, [[0.2 / scale] * 3, [-0.3 / scale, -0.3 / scale, 0]], 1e-12)
    scale = math.sqrt(0.3 / 5)
    near(credit.reinforce_pp(TOKENS, MASK, ddof=0, eps_at="floor"), [[0.2 / scale] * 3, [-0.3 / scale, -0.3 / scale, 0]], 1e-12)


def test_gae_golden():
    ones = torch.ones(1, 3, dtype=torch.bool)
    adv, target = gae(t([[0, 0, 1]]), t([[0.5, 0.4, 0.6]]), ones, gamma=1, lam=0.95)
    near(adv, [[0.451, 0.58, 0.4]], 1e-12)
    near(target, [[0.951, 0.98, 1]], 1e-12)
    adv, target = gae(t([[-0.01, 0.82]]), t([[0.2, 0.4]]), ones[:, :2], gamma=1, lam=0.95)
    near(adv, [[0.589, 0.42]], 1e-12)
    near(target, [[0.789, 0.82]], 1e-12)


def test_gae_with_a_decay_of_its_own_for_each_row():
    reward, value, ones = t([[0, 0, 1], [0, 0, 1]]), t([[0.5, 0.4, 0.6]] * 2), torch.ones(2, 3, dtype=torch.bool)
    adv, _ = gae(reward, value, ones, lam=t([0.95, 0.0]))
    near(adv, [[0.451, 0.58, 0.4], [-0.1, 0.2, 0.4]], 1e-12)


def test_length_lambda_golden():
    lengths = torch.tensor([0, 3, 20, 40, 100])
    found = credit.length_lambda(torch.arange(100) < lengths[:, None], 0.05)
    near(found.double(), [0, 0, 0, 0.5, 0.8], 1e-7)
    with pytest.raises(ValueError, match="alpha=0"):
        credit.length_lambda(torch.ones(1, 1, dtype=torch.bool), 0)


def test_remax_golden():
    mask = torch.tensor([[True, True, True], [True, True, False], [True, True, True]])
    adv = credit.remax(t([[0, 0, 1], [0, 0.5, 9], [1, 1, 1]]), t([0.25, 1, NAN]), mask)
    near(adv, [[0.75] * 3, [-0.5, -0.5, 0], [0, 0, 0]], 1e-12)  # without a greedy reward there is nothing to compare with


def test_reinforce_pp_baseline_by_hand():
    mask = torch.tensor([[True, True], [True, False], [True, True], [True, True]])
    adv = credit.reinforce_pp_baseline(t([1, 0, 7, 7]), mask, torch.tensor([0, 0, 1, 1]))
    cells = [0.5, 0.5, -0.5, 0, 0, 0, 0]
    mean = sum(cells) / 7
    scale = math.sqrt(sum((c - mean) ** 2 for c in cells) / 6 + 1e-8)
    up, down = (0.5 - mean) / scale, (-0.5 - mean) / scale
    near(adv, [[up, up], [down, 0], [0, 0], [0, 0]], 1e-12)  # the all-equal group stays at exactly 0


def test_token_rloo_and_prime_by_hand():
    r = t([[1, 3, NAN], [2, 5, 5], [4, 4, 4]])
    mask = torch.tensor([[True, True, False], [True, True, True], [True, False, True]])
    group = torch.tensor([9, 9, 9])
    means = [2.0, 4.0, 4.0]
    want = [[1 - 4, 3 - 4, 0], [2 - 3, 5 - 3, 5 - 3], [4 - 3, 0, 4 - 3]]
    near(token_rloo(r, mask, group), want, 1e-12)
    base = sum(means) / 2
    scaled = [[1.5 - base, 4.5 - base, 0], [3 - base, 7.5 - base, 7.5 - base], [6 - base, 0, 6 - base]]
    near(token_rloo(r, mask, group, scaled=True), scaled, 1e-12)

    outcome = [1 - 0.5, 0 - 1, 1 - 0.5]
    want_prime = [[2 * outcome[0] + 5 * x for x in (-4, -1)] + [0], [2 * outcome[1] + 5 * x for x in (3, 4, 2)]]
    got = prime(torch.tensor([True, False, True]), r, mask, group, outcome_coef=2, process_coef=5)
    near(got[:2], want_prime, 1e-12)
    near(got[2], [2 * 0.5 + 5 * 2, 0, 2 * 0.5 + 5 * 1], 1e-12)
    white = prime(t([1, 0, NAN]), r, mask, group, whiten=True)
    assert float(masked_mean(white, mask)) == pytest.approx(0, abs=1e-12)
    assert float(masked_var(white, mask)) == pytest.approx(1, abs=1e-6)
    missing = prime(t([1, 0, NAN]), r, mask, group)
    near(missing[2], [1 + 1, 0, 1], 1e-12)  # no outcome: the process part alone
    near(missing[0], [1 - 4, 1 - 1, 0], 1e-12)


# ---------------------------------------------------------------- rules


@st.composite
def scored(draw):
    n = draw(st.integers(1, 10))
    group = draw(st.lists(st.integers(-2, 2).map(lambda g: 10**9 * g), min_size=n, max_size=n))
    reward = draw(st.lists(st.one_of(st.just(NAN), st.sampled_from([0.0, 0.1, 1.0]), number), min_size=n, max_size=n))
    return t(reward), torch.tensor(group)


@pytest.mark.parametrize("fn", GROUPED)
@given(case=scored())
def test_silent_rows_are_exactly_0_and_the_rest_is_a_plain_loop(fn, case):
    reward, group = case
    adv = fn(reward, group).tolist()
    for i, (r, g) in enumerate(zip(reward.tolist(), group.tolist(), strict=True)):
        own = [v for v, h in zip(reward.tolist(), group.tolist(), strict=True) if h == g and v == v]
        if r != r or len(set(own)) < 2:
            assert adv[i] == 0
            continue
        mean = sum(own) / len(own)
        std = math.sqrt(sum((v - mean) ** 2 for v in own) / (len(own) - 1))
        want = {"grpo": (r - mean) / (std + 1e-6), "dr_grpo": r - mean, "rloo": r - (sum(own) - r) / (len(own) - 1)}[fn.__name__]
        assert adv[i] == pytest.approx(want, rel=1e-9, abs=1e-9)


@given(scored())
def test_grpo_without_std_is_rloo_scaled(case):
    reward, group = case
    n = group_count(reward, group).clamp(min=1)
    torch.testing.assert_close(dr_grpo(reward, group), rloo(reward, group) * (n - 1) / n, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("fn", GROUPED)
@given(case=scored(), random=st.randoms())
def test_rows_may_come_in_any_order(fn, case, random):
    reward, group = case
    order = list(range(len(reward)))
    random.shuffle(order)
    torch.testing.assert_close(fn(reward, group)[order], fn(reward[order], group[order]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("fn", GROUPED)
def test_equal_rewards_and_lone_rows(fn):
    group = torch.tensor([3, 3, 3, 8])
    assert fn(torch.tensor([0.1, 0.1, 0.1, 5.0]), group).tolist() == [0, 0, 0, 0]
    assert fn(torch.tensor([0.1, NAN, NAN, 5.0]), group).tolist() == [0, 0, 0, 0]
    assert fn(t([0.1, NAN, NAN, 5.0]), group, single="reward").tolist() == [0.1, 0, 0, 5]
    with pytest.raises(ValueError, match="hint:"):
        inspect.unwrap(fn)(torch.zeros(4), group, single="mean")


@pytest.mark.parametrize("fn", GROUPED)
def test_reward_types_agree(fn):
    group, bits = torch.tensor([0, 0, 1, 1, 1]), [True, False, True, True, False]
    want = fn(t([float(b) for b in bits]), group)
    torch.testing.assert_close(fn(torch.tensor(bits), group).double(), want, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(fn(torch.tensor(bits).long(), group).double(), want, rtol=1e-6, atol=1e-6)
    assert fn(t(bits, torch.float32), group).dtype == torch.float32
    assert fn(torch.zeros(0), torch.zeros(0, dtype=torch.long)).shape == (0,)


def test_reinforce_and_broadcast():
    near(reinforce(t([1, NAN, 3]), 0.5), [0.5, 0, 2.5], 0)
    near(reinforce(t([1, NAN, 3]), t([1, 1, 1])), [0, 0, 2], 0)
    near(reinforce(torch.tensor([True, False])), [1, 0], 0)
    near(broadcast(t([2, 3]), MASK), [[2, 2, 2], [3, 3, 0]], 0)


def test_running_baseline_is_the_mean_of_the_past():
    first, state = running_baseline(t([1, 2, NAN]))
    assert (first, state) == (1.5, RunningMean(1.5, 2))
    second, state = running_baseline(t([6, 6]), state)
    assert (second, state) == (1.5, RunningMean(3.75, 4))
    assert running_baseline(t([NAN]), state) == (3.75, state)
    assert running_baseline(t([10.0]), state, decay=0.5)[1] == RunningMean(6.875, 5)
    with pytest.raises(ValueError, match="hint:"):
        running_baseline(t([1.0]), decay=1.0)


@st.composite
def rewarded(draw):
    n, size = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    mask = [[draw(st.booleans()) for _ in range(size)] for _ in range(n)]
    poison = st.sampled_from([NAN, math.inf, 5.0])
    cells = [[[draw(number if m else poison) for m in row] for row in mask] for _ in range(2)]
    return t(cells[0]), t(cells[1]), torch.tensor(mask)


@given(rewarded(), st.sampled_from([0.0, 0.5, 0.99, 1.0]), st.sampled_from([0.0, 0.95, 1.0]))
def test_returns_and_gae_skip_what_the_policy_did_not_choose(case, gamma, lam):
    reward, value, mask = case
    got, (adv, target) = returns(reward, mask, gamma), gae(reward, value, mask, gamma=gamma, lam=lam)
    for i in range(len(mask)):
        where = [j for j, m in enumerate(mask[i].tolist()) if m]  # the same row with the tool decisions cut out
        r, v = [float(reward[i, j]) for j in where], [float(value[i, j]) for j in where]
        ahead = a = next_v = 0.0
        for k in reversed(range(len(where))):
            ahead = r[k] + gamma * ahead
            a = r[k] + gamma * next_v - v[k] + gamma * lam * a
            next_v = v[k]
            assert float(got[i, where[k]]) == pytest.approx(ahead, rel=1e-9, abs=1e-9)
            assert float(adv[i, where[k]]) == pytest.approx(a, rel=1e-9, abs=1e-9)
            assert float(target[i, where[k]]) == pytest.approx(a + v[k], rel=1e-9, abs=1e-9)
    for x in (got, adv, target):
        assert (x[~mask] == 0).all()


@given(rewarded(), st.sampled_from([0.5, 1.0]))
def test_gae_with_lambda_1_is_return_minus_value(case, gamma):
    reward, value, mask = case
    adv, target = gae(reward, value, mask, gamma=gamma, lam=1.0)
    torch.testing.assert_close(target, returns(reward, mask, gamma), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(adv[mask], (target - value)[mask], rtol=1e-9, atol=1e-9)


def test_gae_goes_on_after_a_cut():
    mask = torch.ones(2, 2, dtype=torch.bool)
    r, v = t([[0, 0], [0, 0]]), t([[1, 2], [1, 2]])
    adv, _ = gae(r, v, mask, gamma=0.5, lam=0.0, last_value=t([0, 8]))
    near(adv, [[0, -2], [0, 2]], 1e-12)


def test_abstained_rows_move_nothing():
    reward, value, mask = t([[NAN, 1], [0, 1], [2, 0]]), t([[3, 4], [0, 0], [0, 0]]), torch.ones(3, 2, dtype=torch.bool)
    adv, target = gae(reward, value, mask, gamma=1, lam=1)
    assert adv[0].tolist() == [0, 0]
    assert target[0].tolist() == [3, 4]  # the critic's own values: no error, no gradient
    assert returns(reward, mask)[0].tolist() == [0, 0]
    assert credit.judged(reward, mask).tolist() == [[False, False], [True, True], [True, True]]
    alone, both = credit.reinforce_pp(reward[1:], mask[1:]), credit.reinforce_pp(reward, mask)
    assert both[0].tolist() == [0, 0]
    torch.testing.assert_close(both[1:], alone, rtol=0, atol=0)
    group = torch.zeros(3, dtype=torch.long)
    assert token_rloo(reward, mask, group)[0].tolist() == [0, 0]
    torch.testing.assert_close(token_rloo(reward, mask, group)[1:], token_rloo(reward[1:], mask[1:], group[1:]), rtol=0, atol=0)
    base = credit.reinforce_pp_baseline(t([NAN, 1, 0]), mask, group)
    assert base[0].tolist() == [0, 0]
    torch.testing.assert_close(base[1:], credit.reinforce_pp_baseline(t([1, 0]), mask[1:], group[1:]), rtol=0, atol=0)


def test_no_signal_gives_exactly_0_along_the_response():
    mask, group = torch.tensor([[True, True, False], [True, False, False], [False] * 3]), torch.tensor([1, 1, 1])
    same = torch.where(mask, t(0.1), NAN)
    for scaled in (False, True):
        assert (token_rloo(same, mask, group, scaled=scaled) == 0).all()
        assert (token_rloo(same, mask, torch.tensor([1, 2, 3]), scaled=scaled) == 0).all()
    assert (credit.reinforce_pp(torch.zeros(3, 3), mask) == 0).all()
    assert (credit.reinforce_pp_baseline(t([0.1, 0.1, 0.1]), mask, group) == 0).all()
    near(token_rloo(same, mask, torch.tensor([1, 2, 3]), single="reward"), [[0.1, 0.1, 0], [0.1, 0, 0], [0] * 3], 0)
    empty = torch.zeros(2, 0)
    assert token_rloo(empty, empty.bool(), group[:2]).shape == returns(empty, empty.bool(), 0.5).shape == (2, 0)
    assert gae(empty, empty, empty.bool())[0].shape == (2, 0)


@given(rewarded())
def test_equal_masks_make_token_rloo_average_to_rloo(case):
    reward, _, mask = case
    mask = torch.ones_like(mask)
    reward = torch.where(reward.isfinite(), reward, 0.0)
    group = torch.zeros(len(mask), dtype=torch.long)
    torch.testing.assert_close(token_rloo(reward, mask, group).mean(1), rloo(reward.mean(1), group), rtol=1e-9, atol=1e-9)


def test_inputs_are_left_alone():
    reward, group, mask = t([1, NAN, 0]), torch.tensor([0, 0, 0]), torch.ones(3, 2, dtype=torch.bool)
    tokens, value = t([[1, NAN], [0, 2], [3, 3]]), torch.zeros(3, 2, dtype=F)
    before = [x.clone() for x in (reward, group, mask, tokens, value)]
    for fn in GROUPED:
        fn(reward, group)
    credit.reinforce_pp(tokens, mask)
    credit.reinforce_pp_baseline(reward, mask, group)
    prime(reward, tokens, mask, group, whiten=True)
    gae(tokens, value, mask, gamma=0.9, lam=0.9)
    for old, new in zip(before, (reward, group, mask, tokens, value), strict=True):
        torch.testing.assert_close(old, new, rtol=0, atol=0, equal_nan=True)
