"""Rewards from demonstrations: the worked numbers, and what shaping may not change."""

import math

import pytest
import torch

from guerdon.core import imitation
from guerdon.core.reward_loss import implicit_rewards
from guerdon.core.score_table import lcb


def t(*x):
    return torch.tensor(x, dtype=torch.float64)


def near(got, want, atol=1e-9):
    torch.testing.assert_close(got, torch.as_tensor(want, dtype=torch.float64), atol=atol, rtol=0)


@pytest.mark.parametrize(("divergence", "want"), [("reverse_kl", 1.3862943611), ("js", 1.6094379124), ("forward_kl", -5.5451774445)])
def test_what_a_discriminator_pays_golden(divergence, want):
    near(imitation.imitation_reward(t(math.log(0.8 / 0.2)), divergence), [want])
    assert imitation.imitation_reward(t(1e6, -1e6), divergence).isfinite().all()


def test_nothing_is_paid_for_what_cannot_be_told_apart():
    near(imitation.imitation_reward(t(0.0)), [0.0])
    near(imitation.imitation_reward(t(0.0), "forward_kl"), [0.0])
    near(imitation.imitation_reward(t(30.0), clamp=5.0), [5.0])


def test_discriminator_golden():
    z = t(2.0, 2.0)
    sure, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    near(imitation.discriminator(z, torch.tensor([True, False])), [sure, wrong])
    near(imitation.discriminator(z, torch.tensor([1, 0]), smoothing=0.1), [0.9 * sure + 0.1 * wrong, 0.1 * sure + 0.9 * wrong])
    x = t(math.log(9)).requires_grad_()  # the least loss is where sigmoid(z) = .9
    imitation.discriminator(x, t(1.0), smoothing=0.1).sum().backward()
    near(x.grad, [0.0])


def test_attention_credit_golden():
    mask = torch.tensor([[True, True, True]])
    near(imitation.attention_credit(t(1.0), t(1.0, 1.0, 2.0)[None], mask), [[0.125, 0.125, 0.75]])
    near(imitation.attention_credit(t(2.0), t(0.0, 0.0, 0.0)[None], mask, blend=1.0), [[2 / 3] * 3])  # it looked at the prompt alone
    near(imitation.attention_credit(t(2.0), t(3.0, 1.0, 1.0)[None], mask, blend=0.0), [[0.0, 0.0, 2.0]])


def test_attention_outside_the_answer_does_not_count():
    mask = torch.tensor([[False, True, True, False], [False] * 4])
    got = imitation.attention_credit(t(1.0, 5.0), t(9.0, 1.0, 3.0, math.nan).expand(2, 4), mask)
    near(got, [[0.0, 0.125, 0.875, 0.0], [0.0] * 4])


def test_dense_path_golden():
    sft, base = t(0.5, 0.2, 0.9).log()[None], t(0.25, 0.4, 0.9).log()[None]
    near(implicit_rewards(sft, base, torch.ones(1, 3, dtype=torch.bool), beta=1.0), [[0.6931471806, -0.6931471806, 0.0]])


def test_lower_confidence_bound_golden():
    near(lcb(t(1.0, 3.0, 2.0)[:, None], k=1.0), [1.1835034191])


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_shaping_telescopes(gamma):
    potential = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True, True, True, True, True], [False, True, False, True, False]])
    end = t(0.7, -0.3)
    got = imitation.shaping(potential, mask, gamma=gamma, end=end)
    assert (got[~mask] == 0).all()
    near((got[0] * gamma ** torch.arange(5.0).double()).sum(), gamma**5 * 0.7 - float(potential[0, 0]))
    near(got[1, 1] + gamma * got[1, 3], gamma**2 * -0.3 - float(potential[1, 1]))
    near(imitation.shaping(potential, mask)[0].sum(), -float(potential[0, 0]))


def q_values(reward, gamma=0.9):
    """Optimal action values of a chain of six states: action 0 goes left, 1 right; state 5 ends it."""
    q = torch.zeros(6, 2, dtype=torch.float64)
    to = torch.tensor([[max(s - 1, 0), min(s + 1, 5)] for s in range(6)])
    for _ in range(300):
        q = reward + gamma * torch.where(to == 5, 0.0, q.max(1).values[to])
    return q, to


def test_shaping_leaves_the_best_policy_of_a_chain_and_finds_it_sooner():
    gamma, goal = 0.9, torch.zeros(6, 2, dtype=torch.float64)
    goal[4, 1] = 1.0
    plain, to = q_values(goal)
    phi = torch.arange(6, dtype=torch.float64) / 5
    after, one = torch.where(to == 5, 0.0, phi[to]), torch.ones(6, 1, dtype=torch.bool)  # the end has no potential
    added = torch.cat([imitation.shaping(phi[:, None], one, gamma=gamma, end=after[:, a]) for a in (0, 1)], 1)
    shaped, _ = q_values(goal + added)
    near(shaped[:5] - plain[:5], (-phi[:5, None]).expand(5, 2), atol=1e-8)  # the same gap for both actions: the same best ones
    assert torch.equal(shaped[:5].argmax(1), plain[:5].argmax(1))
    assert episodes(goal + added, to) < episodes(goal, to)


def episodes(reward, to, gamma=0.9):
    """Episodes of one-step learning (ties and one step in five at random, at most 60 steps) until the greedy policy goes right."""
    q, draw = torch.zeros(6, 2, dtype=torch.float64), torch.Generator().manual_seed(3)
    for episode in range(1000):
        s = 0
        for _ in range(60):
            explore = float(torch.rand((), generator=draw)) < 0.2 or q[s, 0] == q[s, 1]
            a = int(torch.randint(2, (), generator=draw)) if explore else int(q[s].argmax())
            n = int(to[s, a])
            q[s, a] += 0.5 * (reward[s, a] + gamma * (0.0 if n == 5 else q[n].max()) - q[s, a])
            s = n
            if s == 5:
                break
        if bool((q[:5, 1] > q[:5, 0]).all()):
            return episode
    return 1000


@pytest.mark.parametrize(
    "call",
    [
        lambda: imitation.imitation_reward(t(0.0), clamp=0.0),
        lambda: imitation.discriminator(t(0.0), t(1.0), smoothing=0.6),
        lambda: imitation.attention_credit(t(1.0), t(1.0)[None], torch.ones(1, 1, dtype=torch.bool), blend=1.5),
    ],
)
def test_refused(call):
    with pytest.raises(ValueError, match="hint:"):
        call()
