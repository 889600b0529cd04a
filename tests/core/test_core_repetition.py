"""Self-referential decay and the analysis of copies, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from guerdon.core import repetition

P = torch.tensor([[0.2, 0.3, 0.4, 0.3, 0.1, 0.9]], dtype=torch.float64)
ALL, START, LAG = torch.ones(1, 6, dtype=torch.bool), torch.tensor([2]), torch.tensor([2])


def close(a, b, atol=1e-9):
    torch.testing.assert_close(a, torch.as_tensor(b, dtype=torch.float64).view(a.shape), atol=atol, rtol=0)


def test_self_decay_by_hand():
    loss = repetition.self_decay(P.log(), ALL, START, LAG, lam=0.5)
    close(loss, [0, 0, 0.356674944, 0.162518929, 0.105360516, 1.386294361])
    assert float(loss.sum()) == pytest.approx(2.010848750, abs=1e-9)
    assert int(repetition.repeats(ALL, START, LAG).sum()) == 4


def test_other_kinds_by_hand():
    # gaps p - q from t = 2 on: .3, .15, -.1, .75
    close(repetition.self_decay(P.log(), ALL, START, LAG, kind="nl_clip"), [0, 0, -math.log(0.7), -math.log(0.85), 0, -math.log(0.25)])
    close(repetition.self_decay(P.log(), ALL, START, LAG, kind="mse"), [0, 0, 0.27, 0.0675, 0.03, 1.6875])
    with pytest.raises(ValueError, match="kind='l1'"):
        repetition.self_decay(P.log(), ALL, START, LAG, kind="l1")


def test_the_target_is_a_constant():
    """d loss / d logp_t = sign(p_t - q_t) p_t / (1 - |p_t - q_t|), and nothing from the copy after."""
    logp = P.log().requires_grad_()
    repetition.self_decay(logp, ALL, START, LAG).sum().backward()
    gap = torch.tensor([0.3, 0.15, -0.1, 0.75], dtype=torch.float64)
    assert logp.grad is not None
    close(logp.grad[0, 2:], gap.sign() * P[0, 2:] / (1 - gap.abs()))
    close(logp.grad[0, :2], [0, 0])


def test_certainty_is_finite():
    sure = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    loss = repetition.self_decay(sure, ALL[:, :4], torch.tensor([1]), torch.tensor([1]), lam=0.0)
    close(loss[0, 1:], [-math.log(1e-20)] * 3)
    loss.sum().backward()
    assert sure.grad is not None
    assert bool(torch.isfinite(sure.grad).all())


@pytest.mark.parametrize(
    ("start", "lag", "mask", "expected"),
    [
        (3, 2, [1, 1, 1, 1, 1, 0], [3, 4]),  # padding does not count
        (1, 1, [1, 1, 1, 1, 1, 1], [1, 2, 3, 4, 5]),  # copies of one token
        (9, 4, [1, 1, 1, 1, 1, 1], []),  # no second copy
        (0, 0, [1, 1, 1, 1, 1, 1], []),  # nothing repeats
        (0, 2, [1, 1, 1, 1, 1, 1], [2, 3, 4, 5]),  # no copy before the first
    ],
)
def test_where_something_repeats(start, lag, mask, expected):
    found = repetition.repeats(torch.tensor([mask]).bool(), torch.tensor([start]), torch.tensor([lag]))
    assert found[0].nonzero()[:, 0].tolist() == expected


def test_copies_by_hand():
    """A prefix of one token, then three copies of two and half a fourth; another row has no copies."""
    p = torch.tensor([[0.9, 0.1, 0.2, 0.3, 0.2, 0.05, 0.4, 0.5], [0.5] * 8], dtype=torch.float64)
    first = torch.tensor([[1, 0, 0, 1, 0, 0, 1, 1], [1] * 8]).bool()
    found = repetition.copies(p.log(), first, torch.ones(2, 8).bool(), torch.tensor([3, 0]), torch.tensor([2, 0]), most=5)
    close(found.probability[:4], [0.15, 0.25, 0.225, 0.5])
    close(found.increased[:4], [0, 0.5, 0.5, 1])
    close(found.winners[:4], [0, 0.5, 0.5, 1])
    assert all(bool(x[4].isnan()) for x in found)
