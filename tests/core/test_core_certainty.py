"""How sure a distribution is: worked numbers and limits."""

import math

import pytest
import torch

from guerdon.core.certainty import gained, mean_probability, self_certainty

F = torch.float64


def test_self_certainty_golden():
    assert float(self_certainty(torch.tensor([2.0, 0, 0, 0], dtype=F))) == pytest.approx(1.8407529539, abs=1e-9)


def test_self_certainty_is_the_divergence_from_the_uniform_distribution():
    logits = torch.tensor([[0.3, -1.0, 2.0], [5.0, 5.0, 5.0]], dtype=F)
    p = logits.softmax(-1)
    uniform = torch.full((3,), 1 / 3, dtype=F)
    divergence = (uniform * (uniform / p).log()).sum(-1)
    torch.testing.assert_close(self_certainty(logits), divergence + math.log(3), rtol=0, atol=1e-12)
    torch.testing.assert_close(self_certainty(logits + 7), self_certainty(logits), rtol=0, atol=1e-12)


def test_mean_probability_and_what_reasoning_adds():
    logp = torch.tensor([[0.5, 0.25, 0.9], [0.1, 0.2, 0.3]], dtype=F).log()
    mask = torch.tensor([[True, True, False], [False, False, False]])
    found = mean_probability(logp, mask)
    torch.testing.assert_close(found, torch.tensor([0.375, 0.0], dtype=F), rtol=0, atol=1e-12)
    got = gained(torch.tensor([0.6, 0.4], dtype=F), torch.tensor([0.5, 0.5], dtype=F))
    torch.testing.assert_close(got, torch.tensor([0.1, 0.0], dtype=F), rtol=0, atol=1e-12)
