"""`linear_logp` against the plain definition, in float64, and by finite differences; its rounding in bfloat16; its memory."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from guerdon.core.logprob import LinearLogp, Projection, linear_logits, linear_logp

ALL = {"entropy": True, "sum_p2": True, "top_k": 3}
DIFFERENTIABLE = ("logp", "entropy", "sum_p2", "kl_to_ref", "kl_from_ref")


def draw(seed):
    g = torch.Generator().manual_seed(seed)
    return lambda *size, dtype=torch.float64: torch.randn(*size, generator=g, dtype=dtype)


def data(m=7, d=5, v=11, seed=0, dtype=torch.float64):
    normal = draw(seed)
    hidden, weight, bias = (normal(*size, dtype=dtype).requires_grad_() for size in ((m, d), (v, d), (v,)))
    return hidden, weight, bias, torch.randint(0, v, (m,), generator=torch.Generator().manual_seed(seed))


def reference(m=7, d=4, v=11, seed=1, **head):
    """A reference with a head of its own, of another width."""
    normal = draw(seed)
    return Projection(normal(m, d), normal(v, d), normal(v), **head)


def naive_log(hidden, weight, bias, temperature=1.0, scale=1.0, softcap=None):
    z = scale * (hidden @ weight.t() + (0 if bias is None else bias))
    if softcap is not None:
        z = softcap * torch.tanh(z / softcap)
    return torch.log_softmax(z / temperature, -1)


def naive(hidden, weight, bias, targets, ref=None, top_k=None, temperature=1.0, **head):
    """All results from full `(M, V)` log-probabilities."""
    logp = naive_log(hidden, weight, bias, temperature, **head)
    p, rows = logp.exp(), torch.arange(len(targets))
    found = LinearLogp(logp[rows, targets], -(p * logp).sum(1), p.square().sum(1))
    if top_k is not None:
        best = p.topk(top_k, 1).values
        q = best / best.sum(1, keepdim=True)
        found = found._replace(top_k_mass=best.sum(1), top_k_entropy=-(q * q.log()).sum(1))
    if ref is None:
        return found
    logq = naive_log(*ref[:3], temperature, *ref[3:])
    to, back = (p * (logp - logq)).sum(1), (logq.exp() * (logq - logp)).sum(1)
    return found._replace(kl_to_ref=to, kl_from_ref=back, ref_logp=logq[rows, targets])


def assert_same(ours, theirs, leaves, atol):
    """Equal results, and equal gradients of a sum that weighs each result and row differently."""
    for name, x in ours._asdict().items():
        if x is not None:
            torch.testing.assert_close(x, getattr(theirs, name), rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")
    got, want = (
        torch.autograd.grad(
            sum((torch.linspace(i - 2, 1, len(x), dtype=x.dtype) * x).sum() for i, x in enumerate(found) if x is not None), leaves
        )
        for found in (
            [getattr(out, name) if getattr(ours, name) is not None else None for name in DIFFERENTIABLE] for out in (ours, theirs)
        )
    )
    for x, y in zip(got, want, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=atol)


HEADS = [
    {},
    {"temperature": 0.7},
    {"scale": 0.25},
    {"softcap": 3.0},
    {"temperature": 1.7, "scale": 2.0, "softcap": 5.0},
]
ASKED = [{}, {"entropy": True}, {"sum_p2": True}, {"top_k": 3}, ALL]


@pytest.mark.parametrize("tile", [(1, 1), (3, 4), (7, 11), (100, 100), None])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: "+".join(asked) or "logp")
def test_values_and_gradients_equal_the_definition(asked, head, tile):
    hidden, weight, bias, targets = data()
    ours = linear_logp(hidden, weight, targets, bias=bias, tile=tile, **asked, **head)
    assert {name for name, x in ours._asdict().items() if x is None} == {
        "kl_to_ref",
        "kl_from_ref",
        "ref_logp",
        *(name for name in ("entropy", "sum_p2") if name not in asked),
        *(["top_k_mass", "top_k_entropy"] if "top_k" not in asked else []),
    }
    assert_same(ours, naive(hidden, weight, bias, targets, top_k=asked.get("top_k"), **head), (hidden, weight, bias), 1e-11)


@pytest.mark.parametrize("tile", [(3, 4), None])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("asked", [{}, ALL], ids=["kl", "all"])
def test_divergences_equal_the_definition(asked, head, tile):
    hidden, weight, bias, targets = data()
    ref = reference(scale=0.5, softcap=2.0) if "softcap" in head else reference()
    ours = linear_logp(hidden, weight, targets, bias=bias, ref=ref, tile=tile, **asked, **head)
    assert_same(ours, naive(hidden, weight, bias, targets, ref, asked.get("top_k"), **head), (hidden, weight, bias), 1e-11)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_each_gradient_alone(name):
    hidden, weight, bias, targets = data()
    ref = reference()
    for given in (bias, None):
        leaves = (hidden, weight) if given is None else (hidden, weight, bias)
        ours, theirs = (
            torch.autograd.grad(getattr(out, name).square().sum(), leaves)
            for out in (linear_logp(hidden, weight, targets, bias=given, ref=ref, **ALL), naive(hidden, weight, given, targets, ref))
        )
        for x, y in zip(ours, theirs, strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=1e-11)


@pytest.mark.parametrize("keep", [0, 8 * 20, 8 * 50, 8 * 77])
@pytest.mark.parametrize("asked", [{}, {"entropy": True, "sum_p2": True}], ids=["logp", "more"])
def test_kept_and_recomputed_exponentials_give_the_same_gradients(asked, keep):
    """7 x 11 logits in tiles of 12, so that 0, 1 (of 12), 4 or all of the tiles are kept."""
    hidden, weight, _, targets = data()
    ours = linear_logp(hidden, weight, targets, tile=(3, 4), keep=keep, **asked)
    assert_same(ours, naive(hidden, weight, None, targets), (hidden, weight), 1e-11)


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("asked", [{}, {"entropy": True, "sum_p2": True}], ids=["logp", "more"])
def test_exponentials_in_the_place_of_the_weights_gradient(asked, compute):
    """6 rows of width 8: they fit there; the same numbers as with nothing kept, in a second pass through the graph too."""
    hidden, weight, _, targets = data(6, 8, 50, dtype=torch.float32)
    how = dict(tile=(3, 7), compute=compute, **asked)
    found = [linear_logp(hidden, weight, targets, keep=keep, **how) for keep in (1, 0)]
    for name in ("logp", "entropy", "sum_p2") if asked else ("logp", "logp"):
        got, want = (torch.autograd.grad(getattr(x, name).square().sum(), (hidden, weight), retain_graph=True) for x in found)
        for x, y in zip(got, want, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-5 if compute == torch.float32 else 2e-2, atol=1e-5)
    with Products() as seen:
        linear_logp(hidden, weight, targets, keep=1, **how).logp.sum().backward()
    with Products() as again:
        linear_logp(hidden, weight, targets, keep=0, **how).logp.sum().backward()
    assert len(seen.shapes) < len(again.shapes)


def test_a_graph_can_be_gone_through_again_in_any_order():
    hidden, weight, _, targets = data()
    ours, theirs = linear_logp(hidden, weight, targets, entropy=True), naive(hidden, weight, None, targets)
    for name in ("logp", "entropy", "logp"):
        got, want = (torch.autograd.grad(getattr(x, name).sum(), (hidden, weight), retain_graph=True) for x in (ours, theirs))
        for x, y in zip(got, want, strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=1e-11)


def test_with_and_without_gradient_to_the_last_bit():
    """A policy and its frozen copy must agree exactly before the first update."""
    hidden, weight, _, targets = data(60, 33, 700, dtype=torch.float32)
    for compute in (None, torch.bfloat16):
        learning = linear_logp(hidden, weight, targets, compute=compute).logp
        for asked in ({}, ALL, {"ref": Projection(hidden, weight)}):
            with torch.no_grad():
                frozen = linear_logp(hidden, weight, targets, compute=compute, **asked)
            assert torch.equal(frozen.logp, learning)


def test_golden_numbers():
    """Two words at logits 1 and 2; the reference has them at 0 and 0, so both divergences are log 2 less or more."""
    q = 1 / (1 + math.e)
    eye = torch.eye(2, dtype=torch.float64)
    ref = Projection(torch.zeros(1, 2, dtype=torch.float64), eye)
    out = linear_logp(torch.tensor([[1.0, 2.0]]).double(), eye, torch.tensor([0]), entropy=True, sum_p2=True, top_k=1, ref=ref)
    entropy = -(q * math.log(q) + (1 - q) * math.log(1 - q))
    want = {
        "logp": math.log(q),
        "entropy": entropy,
        "sum_p2": q * q + (1 - q) ** 2,
        "top_k_mass": 1 - q,
        "top_k_entropy": 0.0,
        "kl_to_ref": math.log(2) - entropy,
        "kl_from_ref": -math.log(2) - (math.log(q) + math.log(1 - q)) / 2,
        "ref_logp": -math.log(2),
    }
    for name, value in want.items():
        assert getattr(out, name).item() == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("head", HEADS)
def test_gradcheck(head):
    hidden, weight, bias, targets = data(4, 3, 6)
    ref = reference(4, 2, 6)

    def f(h, w, b):
        out = linear_logp(h, w, targets, bias=b, entropy=True, sum_p2=True, ref=ref, tile=(2, 4), **head)
        return tuple(getattr(out, name) for name in DIFFERENTIABLE)

    assert torch.autograd.gradcheck(f, (hidden, weight, bias))


# ---------------------------------------------------------------- what needs no gradient


def test_frozen_tensors_get_no_gradient_and_cost_no_product():
    hidden, weight, _, targets = data(40, 24, 50, dtype=torch.float32)
    frozen = weight.detach()
    want = naive(hidden, frozen, None, targets)
    with Products() as seen:
        linear_logp(hidden, frozen, targets).logp.sum().backward()
    torch.testing.assert_close(hidden.grad, torch.autograd.grad(want.logp.sum(), hidden)[0])
    assert seen.shapes == [(40, 50), (40, 24)]
    with Products() as seen:
        linear_logp(hidden.detach(), weight, targets).logp.sum().backward()
    assert seen.shapes == [(40, 50), (50, 24)]
    with torch.no_grad():
        assert not linear_logp(hidden, weight, targets).logp.requires_grad


def test_three_products_where_exponentials_are_kept_and_four_where_not():
    hidden, weight, _, targets = data(40, 24, 50, dtype=torch.float32)
    for keep, products in ((2**20, 3), (0, 4)):
        with Products() as seen:
            linear_logp(hidden, weight, targets, keep=keep).logp.sum().backward()
        assert len(seen.shapes) == products


def test_the_top_k_and_the_reference_have_no_gradient():
    hidden, weight, _, targets = data()
    ref = Projection(*(x.detach().requires_grad_() for x in reference()[:3]))
    out = linear_logp(hidden, weight, targets, top_k=2, ref=ref)
    assert not out.top_k_mass.requires_grad and not out.top_k_entropy.requires_grad and not out.ref_logp.requires_grad
    out.kl_to_ref.sum().backward()
    assert ref.hidden.grad is None and ref.weight.grad is None
    alone = linear_logp(hidden.detach(), weight.detach(), targets, ref=ref)
    assert not alone.kl_to_ref.requires_grad


# ---------------------------------------------------------------- edges


def test_no_rows():
    hidden, weight, bias, targets = data(0)
    out = linear_logp(hidden, weight, targets, bias=bias, ref=reference(0), **ALL)
    assert all(x.shape == (0,) for x in out)
    out.logp.sum().backward()
    assert hidden.grad.shape == (0, 5)
    assert weight.grad.abs().max() == 0 and bias.grad.abs().max() == 0


@pytest.mark.parametrize("m", [1, 2, 1023, 1024, 1025])
def test_edges_of_the_default_tiles(m):
    hidden, weight, _, targets = data(m, 3, 1100)
    assert_same(linear_logp(hidden, weight, targets, entropy=True), naive(hidden, weight, None, targets), (hidden, weight), 1e-9)


@pytest.mark.parametrize("v", [1, 63, 64, 65, 4096, 4097])
def test_edges_of_the_vocabulary(v):
    hidden, weight, _, targets = data(3, 4, v)
    top_k = min(v, 5)
    ours = linear_logp(hidden, weight, targets, entropy=True, top_k=top_k)
    assert_same(ours, naive(hidden, weight, None, targets, top_k=top_k), (hidden, weight), 1e-10)


@pytest.mark.parametrize(("m", "v"), [(40, 32_000), (9, 151_936)])
@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_real_vocabularies(m, v, compute):
    normal = draw(3)
    hidden, weight = normal(m, 32, dtype=torch.float32).requires_grad_(), (0.3 * normal(v, 32, dtype=torch.float32)).requires_grad_()
    targets = torch.randint(0, v, (m,), generator=torch.Generator().manual_seed(0))
    ref = Projection(normal(m, 32, dtype=torch.float32), weight)
    ours = linear_logp(hidden, weight, targets, entropy=True, ref=ref, compute=compute)
    theirs = naive(hidden.double(), weight.double(), None, targets, Projection(ref.hidden.double(), weight.detach().double()))
    near = {"rtol": 0, "atol": 2e-5 if compute == torch.float32 else 0.01}
    for name in ("logp", "entropy", "kl_to_ref", "kl_from_ref", "ref_logp"):
        torch.testing.assert_close(getattr(ours, name).double(), getattr(theirs, name), **near)
    got, want = (torch.autograd.grad((x.logp - 0.1 * x.entropy + x.kl_to_ref).sum(), (hidden, weight)) for x in (ours, theirs))
    for x, y in zip(got, want, strict=True):
        assert (x - y).norm() / y.norm() < (1e-5 if compute == torch.float32 else 5e-3)


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gap", [60.0, 200.0, 3000.0])
@pytest.mark.parametrize("asked", [{}, {"entropy": True, "sum_p2": True}], ids=["logp", "more"])
def test_targets_far_below_the_largest_logit(gap, asked, compute):
    """exp(gap) leaves float32: such rows are measured from their largest logit; their neighbour is not disturbed."""
    weight = torch.tensor([[gap, 0.0], [0.0, 1.0], [gap - 1, 0.5]], requires_grad=True)
    hidden = torch.eye(2).requires_grad_()
    targets = torch.tensor([1, 1])
    ours = linear_logp(hidden, weight, targets, compute=compute, **asked)
    theirs = naive(hidden.double(), weight.double(), None, targets)
    rtol = 1e-6 if compute == torch.float32 else 1e-2
    torch.testing.assert_close(ours.logp.double(), theirs.logp, rtol=rtol, atol=1e-6)
    names = ["logp", *(name for name in ("entropy", "sum_p2") if asked)]
    got, want = (torch.autograd.grad(sum(getattr(x, n).sum() for n in names), (hidden, weight)) for x in (ours, theirs))
    for x, y in zip(got, want, strict=True):
        torch.testing.assert_close(x, y, rtol=rtol, atol=gap * (1e-6 if compute == torch.float32 else 5e-3))


def test_a_certain_token_keeps_its_digits():
    """logp = -log(1 + e^-30) is -9.4e-14: nothing is left of it in float32 when a maximum is subtracted and added again."""
    hidden, weight = torch.tensor([[30.0]], requires_grad=True), torch.tensor([[1.0], [0.0]])
    for compute in (torch.float32, torch.bfloat16):
        out = linear_logp(hidden, weight, torch.tensor([0]), compute=compute)
        assert out.logp.item() == pytest.approx(-math.exp(-30), rel=1e-5)
        assert torch.autograd.grad(out.logp.sum(), hidden)[0].item() == pytest.approx(math.exp(-30), rel=1e-2)


def test_words_that_cannot_come():
    """A bias of -inf, as models use for padding ids."""
    hidden, weight, _, _ = data(3, dtype=torch.float32)
    bias = torch.zeros(11)
    bias[4] = -torch.inf
    for compute in (torch.float32, torch.bfloat16):
        out = linear_logp(hidden, weight, torch.tensor([0, 4, 5]), bias=bias, compute=compute)
        want = naive(hidden, weight, bias, torch.tensor([0, 4, 5]))
        torch.testing.assert_close(out.logp, want.logp, atol=1e-5 if compute == torch.float32 else 0.02, rtol=0)
        (grad,) = torch.autograd.grad(out.logp[[0, 2]].sum(), hidden)
        assert torch.isfinite(grad).all()


def test_nan_is_not_hidden():
    hidden, weight, _, targets = data(2, dtype=torch.float32)
    with torch.no_grad():
        hidden[1, 0] = torch.nan
        logp = linear_logp(hidden, weight, targets).logp
    assert torch.isfinite(logp[0]) and torch.isnan(logp[1])


def test_divergence_from_oneself_is_nothing():
    hidden, weight, _, targets = data(50, 16, 300, dtype=torch.float32)
    for compute in (torch.float32, torch.bfloat16):
        out = linear_logp(hidden, weight, targets, ref=Projection(hidden, weight), compute=compute)
        assert out.kl_to_ref.abs().max() <= 1e-6 and out.kl_from_ref.abs().max() <= 1e-6
        assert torch.equal(out.logp, out.ref_logp)
        (grad,) = torch.autograd.grad((out.kl_to_ref + out.kl_from_ref).sum(), hidden)
        assert grad.abs().max() <= 1e-5


@pytest.mark.parametrize("bad", [{"temperature": 0.0}, {"softcap": -1.0}, {"tile": (0, 4)}, {"tile": (4, 0)}])
def test_options_out_of_range(bad):
    hidden, weight, _, targets = data()
    with pytest.raises(ValueError, match="expected a positive number"):
        linear_logp(hidden, weight, targets, **bad)


def test_other_arguments_that_do_not_fit():
    hidden, weight, _, targets = data()
    with pytest.raises(ValueError, match=r"expected ids in \[0, 11\)"):
        linear_logp(hidden, weight, targets + 11)
    for k in (0, 12):
        with pytest.raises(ValueError, match="expected 1 to 11"):
            linear_logp(hidden, weight, targets, top_k=k)
    for ref in (reference(6), reference(v=10)):
        with pytest.raises(ValueError, match="expected 7 and 11"):
            linear_logp(hidden, weight, targets, ref=ref)


def test_logits_are_the_same_distribution():
    hidden, weight, bias, targets = data()
    z = linear_logits(hidden, weight, bias=bias, temperature=0.5, softcap=2.0)
    logp = linear_logp(hidden, weight, targets, bias=bias, temperature=0.5, softcap=2.0).logp
    torch.testing.assert_close(torch.log_softmax(z, -1)[torch.arange(7), targets], logp)


# ---------------------------------------------------------------- bfloat16


def language(m=512, d=128, v=8000):
    """Hidden states and a head whose distributions are as peaked as a language model's: logits of 10 to 30, half of the targets likely."""
    normal = draw(11)
    weight = normal(v, d, dtype=torch.float32) * d**-0.5
    targets = torch.randint(0, v, (m,), generator=torch.Generator().manual_seed(2))
    common = 12 * normal(d, dtype=torch.float32) / d**0.5  # all logits have a part that says nothing, as models' do
    sure = torch.linspace(0, 12, m)[:, None]
    hidden = 2.5 * normal(m, d, dtype=torch.float32) + sure * weight[targets] * 1.5 + common
    weight = weight + 0.7 * common / common.norm()
    return hidden.requires_grad_(), weight.requires_grad_(), targets


def autocast_logp(hidden, weight, targets):
    """The usual way: bfloat16 logits, log-softmax in float32."""
    with torch.autocast("cpu", torch.bfloat16):
        z = torch.nn.functional.linear(hidden, weight)
    return torch.log_softmax(z.float(), -1)[torch.arange(len(targets)), targets]


def test_bfloat16_is_several_times_closer_than_autocast():
    """What is left is the rounding of the inputs; full logits in bfloat16 (as autocast and TRL's head take them) add their own."""
    hidden, weight, targets = language()
    exact = naive(hidden.double(), weight.double(), None, targets).logp
    usual, ours = autocast_logp(hidden, weight, targets), linear_logp(hidden, weight, targets, compute=torch.bfloat16).logp
    assert ours.dtype == torch.float32
    error, theirs = ((x.double() - exact).detach() for x in (ours, usual))
    assert error.square().mean().sqrt() < 0.007 < 0.02 < theirs.square().mean().sqrt()
    assert error.abs().max() < 0.04 < 0.07 < theirs.abs().max()
    completions = [x.view(8, 64).sum(1).square().mean().sqrt() for x in (error, theirs)]
    assert completions[0] < 0.07 < 0.15 < completions[1]
    weigh = torch.linspace(-1, 2, len(targets))
    got, theirs, want = (torch.autograd.grad((weigh * x).sum(), (hidden, weight)) for x in (ours, usual, exact))
    for x, y, z in zip(got, theirs, want, strict=True):
        assert (x - z).norm() / z.norm() < 0.006 and (x - z).norm() < 0.5 * (y - z).norm()


def test_bfloat16_tensors_and_autocast():
    hidden, weight, targets = language(64, 32, 500)
    exact = naive(hidden.double(), weight.double(), None, targets).logp
    narrow = hidden.detach().bfloat16().requires_grad_(), weight.detach().bfloat16().requires_grad_()
    out = linear_logp(*narrow, targets)
    want = naive(*(x.detach().double() for x in narrow), None, targets).logp
    assert out.logp.dtype == torch.float32
    torch.testing.assert_close(out.logp.double(), want, atol=0.02, rtol=0)
    assert [x.dtype for x in torch.autograd.grad(out.logp.sum(), narrow)] == [torch.bfloat16] * 2
    with torch.autocast("cpu", torch.bfloat16):
        cast = linear_logp(hidden, weight, targets).logp
        wide = linear_logp(hidden.double(), weight.double(), targets).logp
    assert torch.equal(cast, linear_logp(hidden, weight, targets, compute=torch.bfloat16).logp)
    torch.testing.assert_close(wide, exact, atol=1e-9, rtol=0)
    assert [x.dtype for x in torch.autograd.grad(cast.sum(), (hidden, weight))] == [torch.float32] * 2
    half = linear_logp(hidden.half(), weight.half(), targets).logp
    torch.testing.assert_close(half.double(), exact, atol=0.02, rtol=0)


def test_the_weight_gradient_of_a_frequent_token_is_summed_in_float32():
    """1024 equal rows, each a block of its own: a bfloat16 sum would stand still once it is 256 times as large as what is added."""
    hidden = torch.ones(1024, 2, dtype=torch.bfloat16)
    weight = torch.zeros(4, 2, requires_grad=True)
    linear_logp(hidden, weight, torch.zeros(1024, dtype=torch.long), compute=torch.bfloat16, tile=(1, 4)).logp.sum().backward()
    torch.testing.assert_close(weight.grad, 1024 * torch.tensor([[0.75], [-0.25], [-0.25], [-0.25]]).expand(4, 2))


@pytest.mark.parametrize("with_ref", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_bfloat16_with_every_head(head, with_ref):
    """Two digits at least of everything, where targets are unlikely, so that the large logits are rounded most."""
    hidden, weight, bias, targets = data(30, 16, 90, dtype=torch.float32)
    hidden, weight = (x.detach().mul(0.5).requires_grad_() for x in (hidden, weight))
    ref = Projection(*(0.5 * x.float() for x in reference(30, 16, 90)[:3])) if with_ref else None
    wide = None if ref is None else Projection(*(x.double() for x in ref[:3]))
    how = {"compute": torch.bfloat16, "tile": (8, 32), "keep": 2000}
    ours = linear_logp(hidden, weight, targets, bias=bias, ref=ref, **how, **ALL, **head)
    theirs = naive(hidden.double(), weight.double(), bias.double(), targets, wide, 3, **head)
    for name, x in ours._asdict().items():
        if x is not None:
            assert (x - getattr(theirs, name)).norm() / getattr(theirs, name).norm() < 0.015, name
    for name in DIFFERENTIABLE:
        if getattr(ours, name) is not None:
            got, want = (torch.autograd.grad(getattr(x, name).sum(), (hidden, weight, bias), retain_graph=True) for x in (ours, theirs))
            for x, y in zip(got, want, strict=True):
                assert (x - y).norm() / y.norm() < 0.02, name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_on_a_gpu_as_on_the_cpu(compute):
    results = []
    for device in ("cpu", "cuda"):
        hidden, weight, targets = (x.detach().to(device) for x in language())
        hidden.requires_grad_(), weight.requires_grad_()
        out = linear_logp(hidden, weight, targets, compute=compute, ref=Projection(0.9 * hidden, weight), **ALL)
        grads = torch.autograd.grad((out.logp - 0.1 * out.entropy + out.kl_to_ref).sum(), (hidden, weight))
        results.append([x.cpu() for x in (*out, *grads)])
    near = 1e-4 if compute == torch.float32 else 1e-2
    for x, y in zip(*results, strict=True):
        assert (x - y).norm() / x.norm() < near


# ---------------------------------------------------------------- memory


class Products(TorchDispatchMode):
    """The shapes of all matrix products."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_):
            self.shapes.append(tuple(out.shape))
        return out


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation gives back."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [x.untyped_storage().nbytes() // x.itemsize for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return out


@pytest.mark.parametrize("asked", [{}, ALL], ids=["logp", "all"])
@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_nothing_grows_with_rows_times_vocabulary(compute, asked):
    """Beyond what is kept (`keep` bytes) there is no tensor larger than a tile, the weight or the hidden states."""
    m, d, v, keep = 3000, 8, 5000, 2**20
    normal = draw(0)
    hidden, weight = normal(m, d, dtype=torch.float32).requires_grad_(), normal(v, d, dtype=torch.float32).requires_grad_()
    targets = torch.randint(0, v, (m,), generator=torch.Generator().manual_seed(0))
    with Largest() as seen:
        out = linear_logp(hidden, weight, targets, keep=keep, compute=compute, ref=Projection(hidden, weight) if asked else None, **asked)
        out.logp.sum().backward()
    assert 1024 * 2048 <= seen.elements <= 1024 * 2080
    assert seen.elements < m * v / 7
    with Largest() as seen:
        linear_logits(hidden, weight)
    assert seen.elements == m * v  # the instrument works
