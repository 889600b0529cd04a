"""The delta rule: golden numbers, three forms of the same thing, and the state at any token."""

import pytest
import torch

from guerdon.core.delta_rule import chunkwise, recurrent, states_at, step, unit

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def inputs(length, *, rows=(2, 3), keys=4, values=5, seed=0, dtype=torch.float64, most=1.0):
    """Queries, keys of length one, values, betas in [0, most], and a state to begin with."""
    q, k = (unit(draw(*rows, length, keys, seed=seed + i)) for i in (0, 1))
    v, beta = draw(*rows, length, values, seed=seed + 2), most * torch.sigmoid(draw(*rows, length, seed=seed + 3))
    return [x.to(dtype) for x in (q, k, v, beta, draw(*rows, keys, values, seed=seed + 4))]


def test_golden():
    x = torch.tensor([[1, 0], [0, 1], [1, 1]], dtype=torch.float64)
    v, beta = torch.tensor([[2.0], [4.0], [1.0]], dtype=torch.float64), torch.tensor([1, 0.5, 1], dtype=torch.float64)
    q, k = unit(x) * 2**-0.5, unit(x)
    # By hand: k_1 finds nothing and writes 2 along the first axis; k_2 writes 4 / 2 along the second; k_3 finds 4 / sqrt(2), and takes
    # away what is more than 1; all up to the 1e-6 under the root.
    reads = torch.tensor([[1.41421215], [1.41421215], [0.70710743]], dtype=torch.float64)
    last = torch.tensor([[0.7071076], [0.7071076]], dtype=torch.float64)
    for out, state in (recurrent(q, k, v, beta), *(chunkwise(q, k, v, beta, chunk=c)[:2] for c in (1, 2, 3, 64))):
        torch.testing.assert_close(out, reads, atol=6e-9, rtol=0)
        torch.testing.assert_close(state, last, atol=6e-8, rtol=0)
    exact = (2 * 0.5**0.5) * (1 + 1e-6) ** -0.5 * (1 + 1e-6) ** -0.5
    torch.testing.assert_close(float(recurrent(q, k, v, beta)[0][0]), exact, atol=1e-15, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("most", [1.0, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_three_forms(seed, most, dtype):
    length = int(torch.randint(1, 60, (1,), generator=torch.Generator().manual_seed(seed)))
    *parts, begin = inputs(length, seed=10 * seed, dtype=dtype, most=most)
    close = {"atol": TOLERANCE[dtype], "rtol": 0}
    for state in (None, begin):
        leaves = [x.clone().requires_grad_() for x in (*parts, *([] if state is None else [state]))]
        weight, last_weight = draw(2, 3, length, 5, seed=7, dtype=dtype), draw(2, 3, 4, 5, seed=8, dtype=dtype)
        out, last = recurrent(*leaves)
        expected = torch.autograd.grad((weight * out).sum() + (last_weight * last).sum(), leaves)
        for chunk in (1, 2, 7, 16, length, 64):
            found = chunkwise(*leaves, chunk=chunk)
            torch.testing.assert_close(found.out, out, **close)
            torch.testing.assert_close(found.state, last, **close)
            gradient = torch.autograd.grad((weight * found.out).sum() + (last_weight * found.state).sum(), leaves)
            for a, b in zip(gradient, expected, strict=True):
                torch.testing.assert_close(a, b, atol=20 * TOLERANCE[dtype], rtol=1e-4 if dtype == torch.float32 else 0)


def test_gradients_against_finite_differences():
    *parts, begin = (x.requires_grad_() for x in inputs(5, rows=(1,), keys=2, values=2))
    cuts = torch.tensor([[0, 2, 5]])

    def all_of_it(*leaves):
        found = chunkwise(*leaves, chunk=2)
        return found.out, found.state, states_at(found, cuts)

    assert torch.autograd.gradcheck(all_of_it, (*parts, begin))


@pytest.mark.parametrize("chunk", [1, 3, 8, 64])
def test_states_at_cuts_are_those_of_the_prefixes(chunk):
    q, k, v, beta, begin = (x.requires_grad_() for x in inputs(11))
    cuts = torch.tensor([[[0, 1, 3, 8, 10, 11]], [[5, 5, 2, 9, 0, 6]]]).expand(2, 3, 6)  # rows differ, heads do not
    at = states_at(chunkwise(q, k, v, beta, begin, chunk=chunk), cuts)
    weight = draw(4, 5, seed=9)
    for row in range(2):
        for i, cut in enumerate(cuts[row, 0].tolist()):
            prefix = [x[row, :, :cut] for x in (q, k, v, beta)]
            state = begin[row] if cut == 0 else recurrent(*prefix, begin[row])[1]
            torch.testing.assert_close(at[row, :, i], state, atol=1e-12, rtol=0)
            for a, b in zip(*(torch.autograd.grad((weight * s).sum(), [begin, k, v], retain_graph=True, allow_unused=True)
                              for s in (at[row, :, i], state)), strict=True):  # fmt: skip
                torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, atol=1e-11, rtol=0)


def test_a_token_is_a_step_down_the_squared_error():
    q, k, v, beta, state = (x[..., 0, :] if x.dim() == 4 and x.shape[2] == 1 else x for x in inputs(1))
    beta = beta[..., 0]
    weights = state.clone().requires_grad_()
    loss = 0.5 * (v - torch.einsum("bhkv,bhk->bhv", weights, k)).square().sum(-1)
    (slope,) = torch.autograd.grad(loss.sum(), weights)
    out, after = step(q, k, v, beta, state)
    torch.testing.assert_close(after, state - beta[..., None, None] * slope, atol=1e-12, rtol=0)
    torch.testing.assert_close(out, torch.einsum("bhkv,bhk->bhv", after, q), atol=1e-12, rtol=0)  # written first, then read


def test_beta_0_leaves_no_trace_and_beta_2_turns_round():
    q, k, v, beta, begin = inputs(9)
    silent = torch.tensor([2, 5, 8])
    beta[..., silent] = 0
    rest = [t for t in range(9) if t not in silent]
    out, last = recurrent(*(x[:, :, rest] for x in (q, k, v, beta)), begin)
    for chunk in (1, 4, 9):
        found = chunkwise(q, k, v, beta, begin, chunk=chunk)
        torch.testing.assert_close(found.state, last, atol=1e-12, rtol=0)
        torch.testing.assert_close(found.out[:, :, rest], out, atol=1e-12, rtol=0)
    key = torch.tensor([1.0, 0.0], dtype=torch.float64)
    full, nothing = torch.ones(2, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    assert step(key, key, nothing, torch.tensor(1.0), full)[1].flatten().tolist() == [0, 1]  # forgotten
    assert step(key, key, nothing, torch.tensor(2.0), full)[1].flatten().tolist() == [-1, 1]  # the eigenvalue -1


def test_unit_and_refusals():
    x = draw(3, 4, 6)
    torch.testing.assert_close(unit(x).norm(dim=-1), x.norm(dim=-1) / (x.square().sum(-1) + 1e-6).sqrt(), atol=1e-12, rtol=0)
    assert not unit(torch.zeros(2, 3)).any()
    with pytest.raises(ValueError, match="chunk 0"):
        chunkwise(*inputs(3)[:4], chunk=0)
