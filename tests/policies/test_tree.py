"""A tree holds every row once, and attention over it is attention over the rows."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.policies import flex, tree_attention
from guerdon.policies.flex import blocks, flex_tree, sees
from guerdon.policies.tree import grow
from guerdon.policies.tree_attention import attend, like_lengths

WORD = st.integers(0, 2)


@st.composite
def families(draw):
    """Rows of few different ids, many of which begin as an earlier one does: prefixes, twins, branches of branches."""
    rows = []
    for _ in range(draw(st.integers(1, 8))):
        stem = draw(st.sampled_from(rows))[: draw(st.integers(0, 12))] if rows and draw(st.booleans()) else []
        rows.append([*stem, *draw(st.lists(WORD, max_size=8))] or [0])
    return rows


def padded(rows):
    ids = torch.full((len(rows), max(map(len, rows))), 9)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return ids, torch.tensor([len(row) for row in rows])


@given(families(), st.sampled_from([None, 0, 1, 3, 16]), st.sampled_from([None, 3]))
def test_each_token_sees_its_row_and_nothing_else(rows, least, window):
    tree, slots = grow(*padded(rows), least=least)
    seen = tree.visible(window)
    for row, where in zip(rows, slots, strict=True):
        where = where[: len(row)]
        assert tree.ids[where].tolist() == row
        assert tree.position[where].tolist() == list(range(len(row)))
        for t in range(len(row)):
            first = 0 if window is None else max(0, t + 1 - window)
            assert sorted(seen[where[t]].nonzero()[:, 0].tolist()) == sorted(where[first : t + 1].tolist())


@given(families())
def test_size(rows):
    """Sharing all, a tree has one slot for each different prefix; sharing nothing, one for each token."""
    prefixes = {tuple(row[: t + 1]) for row in rows for t in range(len(row))}
    assert len(grow(*padded(rows), least=0)[0]) == len(prefixes)
    assert len(grow(*padded(rows), least=None)[0]) == sum(map(len, rows))


@given(families(), st.randoms())
def test_the_order_of_the_rows_does_not_matter(rows, random):
    shuffled = random.sample(range(len(rows)), len(rows))
    tree, slots = grow(*padded(rows), least=2)
    other, moved = grow(*padded([rows[i] for i in shuffled]), least=2)
    assert tree.ids.tolist() == other.ids.tolist()
    assert tree.segments == other.segments
    for i, j in enumerate(shuffled):
        assert tree.ids[slots[j]][: len(rows[j])].tolist() == other.ids[moved[i]][: len(rows[j])].tolist()


def test_by_hand():
    """A prompt of 20 (saves 40), two answers that share 3 more (saves 3: not worth it), one that is the prompt alone."""
    prompt = list(range(20))
    rows = [[*prompt, 5, 5, 5, 1], prompt, [*prompt, 5, 5, 5, 2, 2]]
    tree, slots = grow(*padded(rows), least=16)
    assert [tuple(s) for s in tree.segments] == [(0, 20, 29, 0), (20, 24, 24, 20), (24, 29, 29, 20)]
    assert slots[1, :20].tolist() == list(range(20))
    assert slots[2, 20:25].tolist() == [24, 25, 26, 27, 28]
    tree, _ = grow(*padded(rows), least=3)
    assert [tuple(s) for s in tree.segments] == [(0, 20, 26, 0), (20, 23, 26, 20), (23, 24, 24, 23), (24, 26, 26, 23)]


def test_rows_without_tokens_have_no_slot():
    tree, slots = grow(torch.tensor([[4, 5], [7, 7]]), torch.tensor([2, 0]))
    assert (tree.ids.tolist(), slots.tolist()) == ([4, 5], [[0, 1], [0, 0]])


# ---------------------------------------------------------------- attention


def dense(query, key, value, tree, window, scale):
    """The definition: scores of all pairs, the unseen ones at minus infinity."""
    scores = torch.einsum("ikrd,jkd->krij", query, key[:, :, 0]) * scale
    weights = scores.masked_fill(~tree.visible(window), -torch.inf).softmax(-1)
    return torch.einsum("krij,jkd->ikrd", weights, value[:, :, 0])


def heads(size, kv, repeat, dtype, seed):
    g = torch.Generator().manual_seed(seed)
    shapes = ((size, kv, repeat, 8), (size, kv, 1, 8), (size, kv, 1, 8))
    return [torch.randn(shape, generator=g, dtype=dtype).requires_grad_() for shape in shapes]


@settings(max_examples=40)
@given(
    families(),
    st.sampled_from([None, 0, 4]),
    st.sampled_from([None, 1, 3]),
    st.sampled_from([(2, 3), (4, 1), (1, 4)]),
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from([(2**20, 2**15), (500, 2**15), (2**20, 100), (0, 0)]),
)
def test_attention_and_its_gradient_are_the_dense_ones(rows, least, window, shape, dtype, prices):
    """However the segments are grouped into calls: all together, by length, the long ones alone, each alone."""
    tree, _ = grow(*padded(rows), least=least)
    qkv = heads(len(tree), *shape, dtype, seed=len(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree_attention, "CALL", prices[0])
        patch.setattr(tree_attention, "MOVE", prices[1])
        out, expected = attend(*qkv, tree, 0.3, window), dense(*qkv, tree, window, 0.3)
        grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
        found = torch.autograd.grad(out, qkv, grad)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    torch.testing.assert_close(out, expected, rtol=0, atol=tolerance)
    for a, b in zip(found, torch.autograd.grad(expected, qkv, grad), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=4 * tolerance)


@settings(max_examples=20)
@given(families(), st.sampled_from([None, 0]), st.sampled_from([None, 3]))
def test_the_accelerators_mask_is_the_tree(rows, least, window):
    tree, _ = grow(*padded(rows), least=least)
    slot = torch.arange(len(tree))
    entries = sees(tree, window)(None, None, slot[:, None].expand(-1, len(tree)), slot.expand(len(tree), -1))
    assert torch.equal(entries, tree.visible(window))


@settings(max_examples=20)
@given(families(), st.sampled_from([None, 0]), st.sampled_from([None, 3, 9]))
def test_blocks_that_are_left_out_see_nothing_and_full_ones_all(rows, least, window):
    tree, _ = grow(*padded(rows), least=least)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flex, "BLOCK", 4)
        some, full = blocks(tree, window)
    seen = torch.zeros(len(some) * 4, len(some) * 4, dtype=torch.bool)
    seen[: len(tree), : len(tree)] = tree.visible(window)
    tiles = seen.view(len(some), 4, -1, 4)
    real = torch.arange(len(some) * 4).view(-1, 4) < len(tree)
    for i, j in (~some).nonzero().tolist():
        assert not tiles[i, :, j].any()
    for i, j in full.nonzero().tolist():
        assert tiles[i, real[i], j].all()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("window", [None, 3])
def test_flex_attention_over_a_tree(window):
    """What an accelerator runs, in its plain form: the block mask covers all that is seen."""
    rows = [[1] * 150 + [i] * n for i, n in enumerate((2, 70, 33, 64))]
    tree, _ = grow(*padded(rows), least=8)
    query, key, value = (x.detach() for x in heads(len(tree), 2, 2, torch.float32, seed=0))
    expected = dense(query, key, value, tree, window, 0.3)
    q, k, v = (x.flatten(1, 2).transpose(0, 1)[None] for x in (query, key, value))
    out = flex_tree(q, k, v, tree, window, 0.3)
    torch.testing.assert_close(out[0].transpose(0, 1), expected.flatten(1, 2), rtol=0, atol=1e-5)


@given(st.lists(st.integers(1, 200), min_size=1, max_size=7))
def test_the_cheapest_grouping(sizes):
    """No other grouping of neighbours in length costs less."""

    def cost(groups):
        return sum(2000 + len(g) * max(g) ** 2 for g in groups)

    ordered = sorted(sizes, reverse=True)
    best = min(
        cost([ordered[a:b] for a, b in pairwise(cuts)])
        for bits in range(2 ** (len(ordered) - 1))
        for cuts in [[0, *(i + 1 for i in range(len(ordered) - 1) if bits >> i & 1), len(ordered)]]
    )
    groups = like_lengths(torch.tensor(sizes).numpy(), 2000)
    assert sorted(i for g in groups for i in g) == list(range(len(sizes)))
    assert cost([[sizes[i] for i in g] for g in groups]) == best
