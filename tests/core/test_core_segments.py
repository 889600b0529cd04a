"""Rewards of parts of a response: the worked example of fine-grained RLHF, and its edge cases."""

import pytest
import torch

from guerdon.core import kl, segments
from guerdon.core.masked import masked_whiten
from guerdon.core.place import place
from guerdon.types import Span

F = torch.float64
MEAN, STD = -0.44677690555995353, 8.301160619054132


def spans(ends, values, length=6):
    return [Span(*x) for x in segments.spans_at_ends(ends, values, length)]


def test_worked_example():
    """Three densities added up, then the KL in the reward."""
    good = torch.tensor([[0.0, 0.1, 0.2]], dtype=F)
    bad = torch.tensor([[0.0, 0.2, 0.1]], dtype=F)
    relevance = segments.verdict(torch.cat([good, bad, good]), bad=1, good=2, value=0.3)
    factuality = segments.verdict(torch.tensor([[0.0, 9.0, 1.0], [1.0, 9.0, 0.0]], dtype=F), bad=0, good=2, value=0.5)
    completeness = 0.3 * (torch.tensor(4.0, dtype=F) - MEAN) / STD
    torch.testing.assert_close(relevance, torch.tensor([0.3, -0.3, 0.3], dtype=F))
    torch.testing.assert_close(factuality, torch.tensor([0.5, -0.5], dtype=F))
    torch.testing.assert_close(completeness, torch.tensor(0.1607044042, dtype=F), atol=1e-9, rtol=0)
    row = [*spans([1, 3, 5], relevance.tolist()), *spans([3, 5], factuality.tolist()), *spans([5], [completeness.item()])]
    mask = torch.ones(1, 6, dtype=torch.bool)
    paid = place([row], 6, at="end", mask=mask, dtype=F)
    torch.testing.assert_close(paid, torch.tensor([[0, 0.3, 0, 0.2, 0, -0.0392955958]], dtype=F), atol=1e-9, rtol=0)
    ratios = torch.tensor([[0.1, -0.2, 0, 0.05, 0.3, 0.1]], dtype=F)
    shaped = paid + kl.penalty(ratios, torch.zeros_like(ratios), mask, coef=0.3)
    torch.testing.assert_close(shaped, torch.tensor([[-0.03, 0.36, 0, 0.185, -0.09, -0.0692955958]], dtype=F), atol=1e-9, rtol=0)


def test_whitening_keeps_the_mean():
    x, mask = torch.tensor([[1.0, 2], [3, 9]], dtype=F), torch.tensor([[True, True], [True, False]])
    got = segments.whiten_about_mean(x, mask)
    torch.testing.assert_close(got, torch.tensor([[0.7752551378, 2], [3.2247448622, 0]], dtype=F), atol=1e-8, rtol=0)
    assert got[mask].mean() == pytest.approx(2)
    same = torch.full((1, 3), 0.1, dtype=F)
    torch.testing.assert_close(segments.whiten_about_mean(same, torch.ones(1, 3).bool()), same, atol=1e-12, rtol=0)
    assert not torch.allclose(got[mask], masked_whiten(x, mask, ddof=0, shift=False)[mask])  # which divides the mean too


def test_places_of_segments():
    assert segments.spans_at_ends([1, 7, 9], [1.0, 2.0, 3.0], 6) == [(0, 2, 1.0), (2, 6, 3.0)]  # cut: the last one counts
    assert segments.spans_at_ends([1, 3], [float("nan"), 2.0], 6) == [(0, 4, 2.0)]
    assert segments.spans_at_ends([0], [2.0], 0) == [] == segments.spans_at_ends([], [], 6)
    with pytest.raises(ValueError, match="decision -1"):
        segments.spans_at_ends([-1], [1.0], 6)
    with pytest.raises(ValueError):
        segments.spans_at_ends([1, 2], [1.0], 6)


def test_tags():
    logits = torch.tensor([[[2.0, 0, 1], [0, 0, 0]]], dtype=F, requires_grad=True)
    label = torch.tensor([[2, -100]])
    loss = segments.tag_loss(logits, label)
    want = torch.logsumexp(torch.tensor([2.0, 0, 1], dtype=F), 0) - 1
    torch.testing.assert_close(loss, torch.stack([want, torch.tensor(0.0, dtype=F)])[None])
    loss.sum().backward()
    assert logits.grad is not None and (logits.grad[0, 1] == 0).all()
    assert torch.autograd.gradcheck(lambda x: segments.tag_loss(x, label), logits.detach().clone().requires_grad_())
    assert segments.verdict(torch.zeros(1, 3, dtype=F), bad=0, good=2, value=0.5).item() == -0.5  # a tie is no proof
