"""Fast weights: the written-out gradients are those of autograd, the worked examples come out."""

import pytest
import torch

from guerdon.core import fast_mlp
from guerdon.core.fast_mlp import FastMLP

F = torch.float64


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=F, generator=torch.Generator().manual_seed(seed))


def eye(n=2):
    return FastMLP(*(torch.eye(n, dtype=F) for _ in range(3)))


def token_by_token(muon):
    """The worked example: chunks of one token, learning rates 0.5, no momentum."""
    k = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], dtype=F)
    v = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], dtype=F)
    fast, norms, out = eye(), fast_mlp.row_norms(eye()), []
    for t in range(3):
        out.append(fast_mlp.read(fast, k[t : t + 1]))
        delta, _ = fast_mlp.step(fast_mlp.ascent(fast, k[t : t + 1], v[t : t + 1], torch.full((1, 3), 0.5, dtype=F)), None, None, muon=muon)
        fast = fast_mlp.renormalise(FastMLP(*(w + d for w, d in zip(fast, delta, strict=True))), norms)
    return torch.cat(out)


def test_worked_example():
    expected = [[0.73105858, 0], [0, 0.68660363], [0.68660465, 0.25097358]]
    torch.testing.assert_close(token_by_token(False), torch.tensor(expected, dtype=F), atol=1e-8, rtol=0)


def test_worked_example_with_muon():
    expected = [[0.73105858, 0], [0, 0.52254774], [0.52254519, 0.51123099]]
    torch.testing.assert_close(token_by_token(True), torch.tensor(expected, dtype=F), atol=1e-8, rtol=0)


def test_ascent_is_the_gradient_of_the_dot_product():
    fast = FastMLP(draw(2, 5, 3, seed=1), draw(2, 3, 5, seed=2), draw(2, 5, 3, seed=3))
    k, v, eta = draw(2, 7, 3, seed=4), draw(2, 7, 3, seed=5), draw(2, 7, 3, seed=6).abs()
    got = fast_mlp.ascent(fast, k, v, eta)
    for i in range(3):
        leaves = FastMLP(*(w.clone().requires_grad_() for w in fast))
        (eta[..., i] * (fast_mlp.read(leaves, k) * v).sum(-1)).sum().backward()
        torch.testing.assert_close(got[i], leaves[i].grad, atol=1e-12, rtol=0)


def test_ascent_leaves_out_tokens_without_a_rate():
    fast, k, v, eta = eye(3), draw(4, 3, seed=1), draw(4, 3, seed=2), draw(4, 3, seed=3).abs()
    eta[2:] = 0
    for a, b in zip(fast_mlp.ascent(fast, k, v, eta), fast_mlp.ascent(fast, k[:2], v[:2], eta[:2]), strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


@pytest.mark.parametrize("muon", [False, True])
def test_momentum_is_kept_before_it_is_orthogonal(muon):
    gradient, momentum = FastMLP(draw(3, 2), draw(2, 3), draw(3, 2, seed=1)), FastMLP(draw(3, 2, seed=2), draw(2, 3, seed=3), draw(3, 2))
    delta, kept = fast_mlp.step(gradient, momentum, torch.tensor(0.25, dtype=F), muon=muon)
    for d, g, m, now in zip(delta, gradient, momentum, kept, strict=True):
        torch.testing.assert_close(now, g + 0.25 * m, atol=1e-12, rtol=0)
        assert torch.equal(d, now) is not muon


def test_rows_get_the_norms_that_are_asked_for():
    fast, norms = FastMLP(draw(3, 2), draw(2, 3), draw(3, 2, seed=1)), fast_mlp.row_norms(FastMLP(*(2 * w for w in eye(3))))
    norms = FastMLP(norms.w0, norms.w1[:2], norms.w2)
    for w, norm in zip(fast_mlp.renormalise(fast, norms), norms, strict=True):
        torch.testing.assert_close(w.norm(dim=-1, keepdim=True), norm, atol=1e-4, rtol=0)
    assert not fast_mlp.renormalise(FastMLP(*(0 * w for w in fast)), norms).w0.any(), "a row of zeros stays one"
