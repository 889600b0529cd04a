"""`linear_logp` against the plain definition, in float64, and by finite differences."""

import math

import pytest
import torch

from guerdon.core.logprob import linear_logits, linear_logp


def data(m=7, d=5, v=11, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    hidden, weight = (torch.randn(k, d, generator=g, dtype=dtype).requires_grad_() for k in (m, v))
    bias = torch.randn(v, generator=g, dtype=dtype).requires_grad_()
    return hidden, weight, bias, torch.randint(0, v, (m,), generator=g)


def naive(hidden, weight, bias, targets, temperature=1.0, scale=1.0, softcap=None):
    z = scale * (hidden @ weight.t() + (0 if bias is None else bias))
    if softcap is not None:
        z = softcap * torch.tanh(z / softcap)
    logq = torch.log_softmax(z / temperature, -1)
    return logq[torch.arange(len(targets)), targets], -(logq.exp() * logq).sum(-1)


CASES = [
    {},
    {"temperature": 0.7},
    {"scale": 0.25},
    {"softcap": 3.0},
    {"temperature": 1.7, "scale": 2.0, "softcap": 5.0},
]


@pytest.mark.parametrize("rows", [1, 3, 100])
@pytest.mark.parametrize("options", CASES)
def test_values_and_gradients_equal_the_definition(options, rows):
    hidden, weight, bias, targets = data()
    weights = torch.linspace(-1, 1, 14, dtype=torch.float64)
    results = []
    for logp, ent in (
        linear_logp(hidden, weight, targets, bias=bias, entropy=True, rows=rows, **options),
        naive(hidden, weight, bias, targets, **options),
    ):
        (weights * torch.cat([logp, ent])).sum().backward()
        results.append([logp, ent, hidden.grad, weight.grad, bias.grad])
        hidden.grad = weight.grad = bias.grad = None
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


def test_golden_numbers():
    out = linear_logp(torch.tensor([[1.0, 2.0]]).double(), torch.eye(2).double(), torch.tensor([0]), entropy=True)
    q = 1 / (1 + math.e)
    assert out.logp.item() == pytest.approx(math.log(q), abs=1e-12)
    assert out.entropy.item() == pytest.approx(-(q * math.log(q) + (1 - q) * math.log(1 - q)), abs=1e-12)


@pytest.mark.parametrize("options", CASES)
def test_gradcheck(options):
    hidden, weight, bias, targets = data(4, 3, 6)

    def f(h, w, b):
        out = linear_logp(h, w, targets, bias=b, entropy=True, rows=2, **options)
        return out.logp, out.entropy

    assert torch.autograd.gradcheck(f, (hidden, weight, bias))


def test_entropy_is_left_out_unless_asked_for_and_frozen_weights_get_no_gradient():
    hidden, weight, _, targets = data()
    frozen = weight.detach()
    out = linear_logp(hidden, frozen, targets)
    assert out.entropy is None
    out.logp.sum().backward()
    torch.testing.assert_close(hidden.grad, torch.autograd.grad(naive(hidden, frozen, None, targets)[0].sum(), hidden)[0])


def test_finite_at_large_logits_and_empty():
    hidden, weight = torch.eye(2) * 50, torch.eye(2).requires_grad_()
    out = linear_logp(hidden, weight, torch.tensor([1, 0]), entropy=True)
    (out.logp.sum() + out.entropy.sum()).backward()
    assert out.logp.tolist() == [-50.0, -50.0]
    assert torch.isfinite(weight.grad).all()
    assert linear_logp(hidden[:0], weight, torch.zeros(0, dtype=torch.long)).logp.shape == (0,)


def test_bfloat16_products_give_float32_results():
    hidden, weight, _, targets = data(dtype=torch.bfloat16)
    out = linear_logp(hidden, weight, targets)
    assert out.logp.dtype == torch.float32
    torch.testing.assert_close(out.logp, naive(hidden.float(), weight.float(), None, targets)[0], atol=0.03, rtol=0.02)
    out.logp.sum().backward()
    assert weight.grad.dtype == torch.bfloat16


def test_logits_are_the_same_distribution():
    hidden, weight, bias, targets = data()
    z = linear_logits(hidden, weight, bias=bias, temperature=0.5, softcap=2.0)
    logp = linear_logp(hidden, weight, targets, bias=bias, temperature=0.5, softcap=2.0).logp
    torch.testing.assert_close(torch.log_softmax(z, -1)[torch.arange(7), targets], logp)


@pytest.mark.parametrize("bad", [{"temperature": 0.0}, {"softcap": -1.0}, {"rows": 0}])
def test_options_out_of_range(bad):
    hidden, weight, _, targets = data()
    with pytest.raises(ValueError, match="expected a positive number"):
        linear_logp(hidden, weight, targets, **bad)


def test_target_outside_the_vocabulary():
    hidden, weight, _, targets = data()
    with pytest.raises(ValueError, match=r"expected ids in \[0, 11\)"):
        linear_logp(hidden, weight, targets + 11)
