"""Inference distance: circuits that anybody can work out, Gaussian conditioning by other means, and leaf pairs counted one by one."""

import itertools
import math

import pytest
import torch

from guerdon.core.inference_distance import pairs_by_depth, posterior_variance, resistance


def edges(*pairs):
    return torch.tensor(pairs, dtype=torch.long).view(-1, 2)


def t(*x):
    return torch.tensor(x, dtype=torch.float64)


def near(got, want):
    torch.testing.assert_close(got, torch.as_tensor(want, dtype=torch.float64), atol=1e-9, rtol=0)


def test_resistance_golden():
    near(resistance(edges((0, 1), (1, 2)), t(1.0, 2.0), 3, edges((0, 2), (0, 1), (2, 2))), [1.5, 1.0, 0.0])
    near(resistance(edges((0, 1), (1, 0)), t(1.0, 1.0), 2, edges((0, 1))), [0.5])
    ring = edges((0, 1), (1, 2), (2, 3), (3, 0))
    near(resistance(ring, torch.ones(4, dtype=torch.float64), 4, edges((0, 1), (0, 2))), [0.75, 1.0])


def test_what_nothing_connects_is_infinitely_far():
    found = resistance(edges((0, 1), (2, 3), (3, 4)), t(1.0, 1.0, 0.0), 5, edges((0, 1), (0, 2), (2, 3), (3, 4), (4, 4)))
    near(found, [1.0, math.inf, 1.0, math.inf, 0.0])
    long = edges(*[(i, i + 1) for i in reversed(range(7))])
    near(resistance(long, torch.ones(7, dtype=torch.float64), 8, edges((0, 7))), [7.0])
    near(resistance(edges(), t(), 2, edges((0, 1))), [math.inf])


def test_an_edge_more_never_lengthens_a_way():
    draw = torch.Generator().manual_seed(0)
    some = torch.randint(6, (12, 2), generator=draw)
    weight = torch.rand(12, dtype=torch.float64, generator=draw)
    asked = edges(*itertools.combinations(range(6), 2))
    fewer, all_ = (resistance(some[:n], weight[:n], 6, asked) for n in (8, 12))
    assert (all_ <= fewer + 1e-9).all()


def test_posterior_variance_is_that_of_conditioning():
    draw = torch.Generator().manual_seed(1)
    root = torch.randn(5, 5, dtype=torch.float64, generator=draw)
    prior, compared, asked = root @ root.T, edges((0, 1), (1, 2), (0, 1)), edges((0, 1), (0, 3), (3, 4), (2, 2))
    c = torch.zeros(3, 5, dtype=torch.float64)
    for row, (i, j) in zip(c, compared.tolist(), strict=True):
        row[i], row[j] = 1.0, -1.0
    after = torch.linalg.inv(torch.linalg.inv(prior) + c.T @ c / 0.25)  # in the precision form
    u = torch.eye(5, dtype=torch.float64)[asked[:, 0]] - torch.eye(5, dtype=torch.float64)[asked[:, 1]]
    near(posterior_variance(prior, compared, asked, noise=0.25), (u @ after * u).sum(1).tolist())
    near(posterior_variance(prior, edges(), asked), (u @ prior * u).sum(1).tolist())


def test_resistance_is_the_variance_without_a_prior():
    flat = 1e6 * torch.eye(3, dtype=torch.float64)
    got = posterior_variance(flat, edges((0, 1), (1, 2), (1, 2)), edges((0, 2)), noise=1.0)
    torch.testing.assert_close(got, t(1.5), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("branching", "depth", "want"), [(2, 3, [16, 8, 4]), (3, 2, [27, 9]), (1, 3, [0, 0, 0])])
def test_pairs_by_depth(branching, depth, want):
    assert pairs_by_depth(branching, depth) == want
    leaves = list(itertools.product(range(branching), repeat=depth))
    part = [next(i for i in range(depth) if a[i] != b[i]) for a, b in itertools.combinations(leaves, 2)]
    assert [part.count(d) for d in range(depth)] == want


def test_refused():
    with pytest.raises(ValueError, match="number the responses"):
        resistance(edges((0, 2)), t(1.0), 2, edges((0, 1)))
    with pytest.raises(ValueError, match="weights"):
        resistance(edges((0, 1)), t(-1.0), 2, edges((0, 1)))
    with pytest.raises(ValueError, match="noise"):
        posterior_variance(torch.eye(2, dtype=torch.float64), edges(), edges((0, 1)), noise=0.0)
    with pytest.raises(ValueError, match="hint"):
        pairs_by_depth(2, 0)
