"""Clusters of hidden states, worked out by hand."""

import math

import pytest
import torch

from guerdon.core.probing import centroids, confidence, cuts, guessed, kmeans, labels, nearest, probe_loss

F64 = torch.float64
DRAW = lambda: torch.Generator().manual_seed(0)


def test_the_worked_example():
    h = torch.tensor([[1.0, 2.0]], dtype=F64)
    dimensions = {"helpful": torch.tensor([[0.0, 0.0], [4.0, 2.0]], dtype=F64), "harmless": torch.tensor([[1.0, 5.0]], dtype=F64)}
    found = confidence(h, dimensions)
    assert float(found.distance) == pytest.approx(2.2360679775, abs=1e-9)
    assert float(nearest(h, dimensions["harmless"])) == pytest.approx(3.0, abs=1e-12)
    assert list(dimensions)[int(found.dimension)] == "helpful"
    assert found.keep(2.3).tolist() == [True]
    assert found.keep(2.2).tolist() == [False]
    with pytest.raises(ValueError, match="no dimensions"):
        confidence(h, {})


def test_one_cluster_is_the_mean():
    states = torch.tensor([[0.0, 0.0], [2.0, 4.0], [10.0, 10.0]], dtype=F64)
    label = torch.tensor([0, 0, 1])
    torch.testing.assert_close(centroids(states, label, generator=DRAW()), torch.tensor([[1.0, 2.0], [10.0, 10.0]], dtype=F64))


def test_kmeans_finds_separate_heaps():
    heaps = torch.tensor([[0.0], [0.1], [10.0], [10.1], [20.0], [20.1]], dtype=F64)
    for seed in range(5):
        found = kmeans(heaps, 3, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(found.sort(0).values, torch.tensor([[0.05], [10.05], [20.05]], dtype=F64))


def test_kmeans_with_too_little():
    same = torch.ones(3, 2, dtype=F64)
    torch.testing.assert_close(kmeans(same, 2, generator=DRAW()), torch.ones(2, 2, dtype=F64))
    two = torch.tensor([[0.0], [1.0]], dtype=F64)
    assert sorted(kmeans(two, 3, generator=DRAW()).flatten().unique().tolist()) == [0, 1]
    with pytest.raises(ValueError, match="0 states"):
        kmeans(torch.zeros(0, 2, dtype=F64), 1, generator=DRAW())


def classes(ratings, n):
    x = torch.tensor(ratings, dtype=F64)
    return labels(x, cuts(x, n)).tolist()


def test_ratings_are_merged_into_even_classes():
    assert classes([0, 1, 2, 3], 2) == [0, 0, 1, 1]
    assert classes([0, 4, 4, 4, 4, 4], 2) == [0, 1, 1, 1, 1, 1]  # ties stay together
    assert classes([0, 0, 1, 1, 3, 3], 3) == [0, 0, 1, 1, 2, 2]
    assert classes([2, 2, 2], 2) == [0, 0, 0]  # constant: one class
    assert labels(torch.tensor([0.0, float("nan"), 9.0]), torch.tensor([1.0, 2.0])).tolist() == [0, -1, 2]
    with pytest.raises(ValueError, match="1 classes"):
        cuts(torch.tensor([1.0]), 1)


def test_the_loss_of_a_probe_by_hand():
    binary = torch.tensor([[0.0], [2.0], [-1.0]], dtype=F64, requires_grad=True)
    loss = probe_loss(binary, torch.tensor([1, 0, -1]))
    expected = torch.tensor([math.log(2), math.log1p(math.exp(2)), 0.0], dtype=F64)
    torch.testing.assert_close(loss, expected, atol=1e-12, rtol=0)
    loss.sum().backward()
    slope = torch.tensor([[-0.5], [1 / (1 + math.exp(-2))], [0.0]], dtype=F64)
    torch.testing.assert_close(binary.grad, slope, atol=1e-12, rtol=0)
    three = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]], dtype=F64)
    second = math.log(math.exp(-2) + math.exp(-1) + 1)
    torch.testing.assert_close(probe_loss(three, torch.tensor([2, 2])), torch.tensor([math.log(3), second], dtype=F64), atol=1e-12, rtol=0)
    assert guessed(three).tolist() == [0, 2]
    assert guessed(binary.detach()).tolist() == [0, 1, 0]
