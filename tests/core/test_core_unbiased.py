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


def within(found, error, true):
    assert ((found - true).abs() < 3 * error).all(), (found, true, error)


def test_unbiased():
    action = draws()
    reward = REWARD[action]
    within(*estimate(credit.reinforce(reward), action), TRUE)
    within(*estimate(credit.reinforce(reward, 0.4), action), TRUE)
    within(*estimate(credit.rloo(reward, GROUP), action), TRUE)
    greedy = REWARD[P.argmax()].expand(len(reward))
    each = torch.ones(len(reward), 1, dtype=torch.bool)
    within(*estimate(credit.remax(reward[:, None], greedy, each)[:, 0], action), TRUE)


def test_what_divides_or_multiplies_the_whole_batch_leaves_the_direction():
    """GPG's factor and a whitening over the batch are nearly constants: Dr. GRPO, scaled."""
    action = draws()
    reward = REWARD[action]
    scale = len(reward) / float((reward != 0).sum())
    within(*estimate(credit_group.gpg(reward, GROUP), action), TRUE * scale * (N - 1) / N)
    each = torch.ones(len(reward), 1, dtype=torch.bool)
    centred = credit.dr_grpo(reward, GROUP)
    within(*estimate(credit.reinforce_pp_baseline(reward, each, GROUP)[:, 0], action), TRUE * (N - 1) / N / float(centred.std()))
    within(*estimate(credit.reinforce_pp(reward[:, None], each)[:, 0], action), TRUE / float(reward.std()))


@pytest.mark.parametrize("fn", [credit.grpo, credit_group.bnpo])
def test_for_right_and_wrong_a_factor_of_the_group_keeps_the_direction(fn):
    """All wrong actions are alike to it, so what is left is the gradient of the chance of being right; GRPO's and BNPO's length differs."""
    action = draws()
    found, error = estimate(fn((action == 0).double(), GROUP), action)
    direction = P * ((torch.arange(4) == 0).double() - P[0])
    best = (found @ direction) / (direction @ direction)
    assert abs(best - 1) > 0.05
    within(found, error, best * direction)


def test_bnpo_of_graded_rewards_bends_the_gradient():
    action = draws()
    found, error = estimate(credit_group.bnpo((REWARD[action] + 0.5) / 1.5, GROUP), action)
    best = (found @ TRUE) / (TRUE @ TRUE)
    assert best > 0
    assert ((found - best * TRUE).abs() > 4 * error).any()


def test_votes_climb_what_is_said_most_and_not_what_is_right():
    """TTRL's and EMPO's rewards are made of the group: the likeliest action gains, be it the worst."""
    action = draws()
    same = (action.view(GROUPS, N, 1) == action.view(GROUPS, 1, N)).double().mean(2).flatten()
    most = same.view(GROUPS, N).amax(1).repeat_interleave(N)
    for adv in (credit.grpo((same == most).double(), GROUP), credit_group.empo(same, GROUP), credit_group.empo(same, GROUP, high=1.2)):
        found, error = estimate(adv, action)
        assert found.argmax() == P.argmax()
        assert found[P.argmax()] > 4 * error[P.argmax()]
        assert found[P.argmin()] < -4 * error[P.argmin()]


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


def test_advantages_that_are_compared_with_others_steps_are_exact_for_equal_lengths():
    """PRIME's process part: token rewards above the mean of the other responses', summed to go; verl's scaled form stretches it."""
    flat = (FIRST.softmax(0)[:, None] * SECOND.softmax(1)).flatten()
    path = draws(flat, seed=4)
    paid, each = PAID.flatten(0, 1)[path], torch.ones(len(path), 2, dtype=torch.bool)
    adv = credit.prime(torch.zeros(len(path), dtype=F), paid, each, GROUP)
    found, error = path_estimate(adv, path)
    within(found, error, value_gradient())
    stretched, error = path_estimate(credit.prime(torch.zeros(len(path), dtype=F), paid, each, GROUP, scaled=True), path)
    assert ((stretched - value_gradient()).abs() > 4 * error).any()


def path_estimate(adv, path):
    """Mean over sampled paths of `sum_t A_t grad log p_t`, and its standard error over groups."""
    scores = []  # of each path: the gradient of each decision's log-probability
    for row in range(4):
        first, second = FIRST.clone().requires_grad_(), SECOND.clone().requires_grad_()
        a, b = PATHS[row]
        for logp in (first.log_softmax(0)[a], second.log_softmax(1)[a, b]):
            grads = torch.autograd.grad(logp, (first, second), allow_unused=True, materialize_grads=True)
            scores.append(torch.cat([g.flatten() for g in grads]))
    rows = (adv[:, :, None] * torch.stack(scores).view(4, 2, -1)[path]).sum(1)
    groups = rows.view(GROUPS, N, -1).mean(1)
    return groups.mean(0), groups.std(0) / GROUPS**0.5


def test_verifree_is_exact():
    """The first decision reasons, the second answers; the reference answer is 1. `E_z[p(1 | z)]` by both parts of its gradient."""
    thought = draws(torch.cat([FIRST.softmax(0), torch.zeros(2, dtype=F)]), seed=5)
    chance = SECOND.softmax(1)[:, 1][thought]
    each = torch.ones(len(thought), 2, dtype=torch.bool)
    adv = credit_group.verifree(chance, GROUP, torch.tensor([False, True]).expand(len(thought), 2), each)
    first, second = FIRST.clone().requires_grad_(), SECOND.clone().requires_grad_()
    true = torch.autograd.grad((first.softmax(0) * second.softmax(1)[:, 1]).sum(), (first, second))
    found, error = path_estimate(adv, 2 * thought + 1)
    within(found, error, torch.cat([g.flatten() for g in true]))


def test_a_decay_that_grows_with_the_length_leans_on_the_critic_like_any_below_1():
    """VAPO's is 1 - 1 / (alpha l): exact with a right critic only, nearer to exact the longer the response."""
    paid, wrong = PAID.flatten(0, 1), torch.zeros(4, 2, dtype=F)
    off = []
    for alpha in (0.5, 5.0, 500.0):
        adv, _ = credit.gae(paid, wrong, BOTH, gamma=1.0, lam=credit.length_lambda(BOTH, alpha).to(F))
        off.append(float((path_gradient(adv) - value_gradient()).abs().max()))
    assert off[0] > 0.05
    assert off[0] > off[1] > off[2]
    assert off[2] < 1e-2
