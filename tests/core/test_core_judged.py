"""Scores in words as shares: the spec's numbers, and the mean over what a judge may say."""

import pytest
import torch

from guerdon.core.judged import expected_score, graded


def tensor(*x: float) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64)


def test_grades_are_cut_to_the_scale():
    torch.testing.assert_close(graded(tensor(85, 120, -3, 0, 100)), tensor(0.85, 1, 0, 0, 1), atol=1e-9, rtol=0)
    torch.testing.assert_close(graded(tensor(1, 4), low=1, high=5), tensor(0, 0.75), atol=1e-12, rtol=0)
    assert graded(tensor(float("nan"))).isnan().all()
    with pytest.raises(ValueError, match="expected low < high"):
        graded(tensor(1), low=2, high=2)


def test_expected_scores_break_ties():
    logp = torch.tensor([[0.2, 0.3, 0.5], [0.1, 0.4, 0.5]], dtype=torch.float64).log()
    levels = tensor(0, 5, 9)
    torch.testing.assert_close(expected_score(logp, levels), tensor(6.0, 6.5), atol=1e-9, rtol=0)
    torch.testing.assert_close(expected_score(logp - 3.0, levels), tensor(6.0, 6.5), atol=1e-9, rtol=0)  # mass elsewhere does not count
    sure = torch.tensor([[-torch.inf, 0.0, -torch.inf]], dtype=torch.float64)
    torch.testing.assert_close(expected_score(sure, levels), tensor(5.0))
    assert expected_score(torch.full((1, 3), -torch.inf), torch.ones(3)).isnan().all()


def test_expected_scores_have_a_gradient():
    logp = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: expected_score(x, tensor(0, 5, 9)), (logp,))
