"""Contrast between two views: worked numbers, and the codes of SwAV against its own code's order of divisions."""

import math

import pytest
import torch

from guerdon.core import contrastive_loss

DRAW = torch.Generator().manual_seed(3)


def tensor(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def close(a, b):
    torch.testing.assert_close(a, torch.as_tensor(b, dtype=torch.float64), atol=1e-9, rtol=0)


def test_simcse():
    close(contrastive_loss.simcse(tensor([1, 0], [0, 1]), tensor([1, 0.1], [0.2, 1]), tau=1).mean(), 0.3590478857)
    same = tensor([1.0, 0], [0, 2.0])
    close(contrastive_loss.simcse(same, 5 * same, tau=0.5), [math.log1p(math.exp(-2))] * 2)


def test_a_vector_without_a_direction_is_like_no_other():
    found = contrastive_loss.simcse(tensor([0, 0], [0, 1]), tensor([0, 0], [0, 1]), tau=1)
    close(found, [math.log(2), math.log1p(math.exp(-1))])


def test_sinkhorn():
    codes = contrastive_loss.sinkhorn(tensor([1, 0], [0.9, 0.1], [0.2, 0.8]), eps=0.5)
    close(codes, [[0.7444991508, 0.2555008492], [0.6613880515, 0.3386119485], [0.1061662037, 0.8938337963]])
    large = contrastive_loss.sinkhorn(100 * torch.randn(6, 3, generator=DRAW), eps=0.05)
    assert bool(large.isfinite().all())
    torch.testing.assert_close(large.sum(1), torch.ones(6))


def test_swav_is_the_exchange_of_codes():
    one, two, prototypes = (torch.randn(n, 3, dtype=torch.float64, generator=DRAW) for n in (4, 4, 2))
    unit = lambda x: x / x.norm(dim=1, keepdim=True)
    scores = [unit(x) @ unit(prototypes).T for x in (one, two)]

    def codes(score):  # with the constants of the published code
        q = (score / 0.5).exp().T
        q = q / q.sum()
        for _ in range(3):
            q = q / q.sum(1, keepdim=True) / 2
            q = q / q.sum(0, keepdim=True) / 4
        return (q * 4).T

    by_hand = sum(-(codes(scores[a]) * (scores[b] / 0.2).softmax(1).log()).sum(1) for a, b in ((0, 1), (1, 0)))
    found = contrastive_loss.swav(one, two, prototypes, tau=0.2, eps=0.5)
    torch.testing.assert_close(found, by_hand, atol=1e-9, rtol=0)


def test_codes_carry_no_gradient():
    one, two, prototypes = (torch.randn(n, 3, generator=DRAW, requires_grad=True) for n in (4, 4, 2))
    assert not contrastive_loss.sinkhorn(one @ prototypes.T).requires_grad
    contrastive_loss.swav(one, two, prototypes).sum().backward()
    assert all(x.grad is not None and bool(x.grad.any()) for x in (one, two, prototypes))


def test_wrong_settings_are_refused():
    for wrong in (lambda x: contrastive_loss.simcse(x, x, tau=0), lambda x: contrastive_loss.sinkhorn(x, rounds=0)):
        with pytest.raises(ValueError, match="expected"):
            wrong(tensor([1.0, 0.0], [0.0, 1.0]))
