"""Which advantage estimators give the true policy gradient on average, and by how much the others are off, where it is known.

One decision: a softmax over four actions with fixed rewards, `dJ/dtheta_a = p_a (R_a - J)`, in groups of four. Two decisions: four paths,
all counted.
"""

import itertools

import pytest
import torch

from guerdon.core import credit, credit_group, mismatch, surrogate
from guerdon.core.rng import Key

F = torch.float64
THETA = torch.tensor([0.5, 0.0, -0.5, 0.2], dtype=F)
REWARD = torch.tensor([1.0, 0.0, 0.3, -0.5], dtype=F)
P = THETA.softmax(0)
TRUE = P * (REWARD - P @ REWARD)
GROUPS, N = 20_000, 4
GROUP = torch.arange(GROUPS).repeat_interleave(N)


def draws(p=P, seed=0):
    return torch.multinomial(p, GROUPS * N, replacement=True, generator=Key(seed).generator())


def estimate(adv, action):
    """Mean of `A grad log p` over rows, and its standard error over groups."""
    rows = adv[:, None] * (torch.nn.functional.one_hot(action, 4).to(F) - P)
    groups = rows.view(GROUPS, N, 4).mean(1)
    return groups.mean(0), groups.std(0) / GROUPS**0.5


def within(found, error, true, errors=3.5):
    # Four entries of each of some twenty estimates: one in 2,000 lies outside 3.5 standard errors.
    assert ((found - true).abs() < errors * error).all(), (found, true, error)


def test_unbiased():
    action = draws()
    reward = REWARD[action]
    within(*estimate(credit.reinforce(reward), action), TRUE)
    within(*estimate(credit.reinforce(reward, 0.4), action), TRUE)
    within(*estimate(credit.rloo(reward, GROUP), action), TRUE)


def test_a_baseline_that_holds_the_row_itself_shortens_the_gradient():
    action = draws()
    found, error = estimate(credit.dr_grpo(REWARD[action], GROUP), action)
    within(found, error, TRUE * (N - 1) / N)
    assert ((found - TRUE).abs() > 4 * error).any()


def test_a_length_that_says_nothing_of_the_reward_leaves_opo_shortened_like_the_mean():
    """Equal lengths make it Dr. GRPO; lengths that go with the reward bend it, as its baseline is then no constant."""
    action = draws()
    reward = REWARD[action]
    same = credit_group.opo(reward, torch.full_like(action, 7), GROUP)
    torch.testing.assert_close(same, credit.dr_grpo(reward, GROUP), rtol=0, atol=1e-12)
    lengths = 1 + torch.randint(5, (GROUPS * N,), generator=Key(3).generator())
    found, error = estimate(credit_group.opo(reward, lengths, GROUP), action)
    share = (lengths.view(GROUPS, N).double() / lengths.view(GROUPS, N).sum(1, keepdim=True)).mean()
    within(found, error, TRUE * (1 - share))


def test_grpo_weighs_groups_by_what_they_agree_on():
    """Dividing by the group's deviation makes groups with little spread count more: the direction changes, not only the length."""
    action = draws()
    found, error = estimate(credit.grpo(REWARD[action], GROUP), action)
    best = (found @ TRUE) / (TRUE @ TRUE)
    assert ((found - best * TRUE).abs() > 4 * error).any()


def test_pass_at_k_climbs_the_chance_that_one_of_k_is_right():
    """The gradient of `1 - (1 - p)^k` is `k (1 - p)^(k - 1) dp`; the deviation that it is divided by depends on the group alone."""
    action, k = draws(), 2
    right = (action == 0).double()
    found, error = estimate(credit_group.pass_at_k(right, GROUP, k=k), action)
    direction = P * ((torch.arange(4) == 0).double() - P[0])  # of the chance of action 0
    best = (found @ direction) / (direction @ direction)
    assert best > 0
    within(found, error, best * direction)


@pytest.mark.parametrize("cap", [1.5, 100.0])
def test_weights_undo_another_sampler_unless_the_cap_bites(cap):
    other = (THETA / 2).softmax(0)
    action = draws(other, seed=1)
    everywhere = torch.ones(GROUPS * N, 1, dtype=torch.bool)
    weight = mismatch.truncated(P.log()[action][:, None], other.log()[action][:, None], everywhere, cap=cap)
    found, error = estimate(weight[:, 0] * credit.reinforce(REWARD[action], float(P @ REWARD)), action)
    weighed = torch.minimum(P / other, torch.tensor(cap, dtype=F)) * other
    gain = weighed * (REWARD - P @ REWARD)
    within(found, error, gain - P * gain.sum())
    if cap == 100:
        within(found, error, TRUE)


# ---------------------------------------------------------------- two decisions

FIRST, SECOND = torch.tensor([0.3, -0.2], dtype=F), torch.tensor([[0.1, 0.4], [-0.6, 0.0]], dtype=F)
PAID = torch.tensor([[[0.2, 1.0], [0.2, -1.0]], [[-0.5, 0.3], [-0.5, 2.0]]], dtype=F)  # by path: what each of its two decisions is paid
PATHS = torch.tensor(list(itertools.product(range(2), range(2))))
BOTH = torch.ones(4, 2, dtype=torch.bool)


def path_gradient(adv):
    """The expected gradient of the surrogate over all paths, for advantages `(4 paths, 2)`."""
    first, second = FIRST.clone().requires_grad_(), SECOND.clone().requires_grad_()
    logp = torch.stack([first.log_softmax(0)[PATHS[:, 0]], second.log_softmax(1)[PATHS[:, 0], PATHS[:, 1]]], 1)
    weight = logp.sum(1).exp().detach()
    loss = (weight[:, None] * surrogate.reinforce(logp, adv)).sum()
    return torch.cat([g.flatten() for g in torch.autograd.grad(-loss, (first, second))])


def value_gradient():
    first, second = FIRST.clone().requires_grad_(), SECOND.clone().requires_grad_()
    p = first.softmax(0)[:, None] * second.softmax(1)
    return torch.cat([g.flatten() for g in torch.autograd.grad((p * PAID.sum(2)).sum(), (first, second))])


def test_returns_and_generalised_advantages_with_lam_1_are_exact_whatever_the_critic_says():
    paid = PAID.flatten(0, 1)
    torch.testing.assert_close(path_gradient(credit.returns(paid, BOTH)), value_gradient(), rtol=0, atol=1e-12)
    # A critic knows what has been done before a decision, not the decision itself: one value at the start, one for each first choice.
    critic = torch.stack([torch.full((4,), 0.7, dtype=F), torch.tensor([-0.3, 1.1], dtype=F)[PATHS[:, 0]]], 1)
    adv, _ = credit.gae(paid, critic, BOTH, gamma=1.0, lam=1.0)
    torch.testing.assert_close(path_gradient(adv), value_gradient(), rtol=0, atol=1e-12)


def test_generalised_advantages_with_lam_0_need_a_right_critic():
    paid = PAID.flatten(0, 1)
    p = SECOND.softmax(1)
    ahead = (p * PAID[:, :, 1]).sum(1)  # what is still to come after each first choice
    right = torch.stack([torch.zeros(4, dtype=F), ahead[PATHS[:, 0]]], 1)
    adv, _ = credit.gae(paid, right, BOTH, gamma=1.0, lam=0.0)
    torch.testing.assert_close(path_gradient(adv), value_gradient(), rtol=0, atol=1e-12)
    wrong, _ = credit.gae(paid, torch.zeros(4, 2, dtype=F), BOTH, gamma=1.0, lam=0.0)
    assert (path_gradient(wrong) - value_gradient()).abs().max() > 0.05
