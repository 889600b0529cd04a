"""Follow-up likelihoods by hand."""

import pytest
import torch

from guerdon.core.contrast import follow_up

CATEGORY, POSITIVE = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([True, True, False, True, False, False])


def test_follow_up_by_hand():
    token_logp = [[-1.0, -2], [-0.5, -0.5], [-3.0, -1], [-2.0], [-2.5], [-3.5]]
    mean = torch.tensor([[sum(x) / len(x) for x in token_logp]], dtype=torch.float64)
    value, parts = follow_up(mean, CATEGORY, POSITIVE)
    torch.testing.assert_close(parts, torch.tensor([[1.0, 1.0]], dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(value, torch.tensor([1.0], dtype=torch.float64), atol=1e-9, rtol=0)


def test_order_and_rows_do_not_matter():
    x = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([5, 2, 0, 3, 1, 4])
    value, parts = follow_up(x, CATEGORY, POSITIVE)
    moved, _ = follow_up(x[:, order], CATEGORY[order], POSITIVE[order])
    torch.testing.assert_close(value, moved)
    torch.testing.assert_close(follow_up(x[2:3], CATEGORY, POSITIVE)[0], value[2:3])
    torch.testing.assert_close(parts[:, 0], x[:, :2].mean(1) - x[:, 2])


def test_both_kinds_are_needed():
    with pytest.raises(ValueError, match="negative follow-ups"):
        follow_up(torch.zeros(1, 2), torch.tensor([0, 0]), torch.tensor([True, True]))
    with pytest.raises(ValueError, match="follow-ups"):
        follow_up(torch.zeros(1, 0), torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.bool))
