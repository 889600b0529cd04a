"""Rows of like lengths go through a model together: every row once, little padding, the numbers of the rows one by one."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guerdon.policies.heads import Scorer
from guerdon.policies.packing import buckets
from guerdon.policies.text import TextPolicy
from guerdon.testing.models import small_encoder, small_model
from guerdon.types import Prompt, Rollout

lengths = st.lists(st.integers(1, 300), min_size=1, max_size=60)
SENTENCE = "the food was great and the staff were very kind to all of us but the end comes too late"
WORDS = SENTENCE.split(" ")
ROWS = [
    Rollout(Prompt(f"p{i}", " ".join(WORDS[: 1 + (7 * i) % 11])), " ".join(WORDS[i % 5 : i % 5 + 1 + (5 * i) % 13]), group=i)
    for i in range(24)
]


# ---------------------------------------------------------------- the grouping


@given(lengths, st.sampled_from([1.0, 1.25, 2.0]), st.integers(1, 9))
def test_a_partition_with_little_padding(sizes, waste, least):
    length = torch.tensor(sizes)
    groups = buckets(length, waste=waste, least=least)
    assert sorted(i for g in groups for i in g.tolist()) == list(range(len(sizes)))
    for g in groups:
        mine = [sizes[i] for i in g.tolist()]
        assert mine == sorted(mine, reverse=True)
        if len(mine) > least:
            assert mine[0] * len(mine) <= waste * sum(mine)
    for g, after in pairwise(groups):
        assert len(g) >= least
        together = [sizes[i] for i in g.tolist()] + [sizes[int(after[0])]]
        assert together[0] * len(together) > waste * sum(together)  # it closed because it had to
    assert torch.equal(length, torch.tensor(sizes))
    again = buckets(length.clone(), waste=waste, least=least)
    assert [g.tolist() for g in groups] == [g.tolist() for g in again]


def test_by_hand():
    """With two rows at least: 10 + 9 (padded 20 of 19), 8 too (30 <= 1.25 * 27); then 40 > 1.25 * 29, so the 2s stand alone."""
    groups = buckets(torch.tensor([2, 10, 8, 2, 9]), least=2)
    assert [g.tolist() for g in groups] == [[1, 4, 2], [0, 3]]


def test_equal_rows_and_a_single_row_are_one_group():
    assert [g.tolist() for g in buckets(torch.full((40,), 7))] == [list(range(40))]
    assert [g.tolist() for g in buckets(torch.tensor([3]))] == [[0]]


def test_few_rows_are_one_group_whatever_their_lengths():
    assert len(buckets(torch.tensor([500, 1, 1, 1, 1, 1, 1, 1]))) == 1


# ---------------------------------------------------------------- the same numbers


def equal(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * max(1.0, float(b.detach().abs().max())))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {kind: small_model(tmp_path_factory.mktemp(kind), kind) for kind in ("llama", "gpt2", "gemma3_text")}
    return {**made, "encoder": small_encoder(tmp_path_factory.mktemp("encoder"))}


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3_text"])
def test_a_policy_gives_the_numbers_of_rows_one_by_one(kind, folders):
    need = frozenset({"logp", "entropy", "hidden"})
    together, apart = (TextPolicy.load(folders[kind], layout="padded") for _ in range(2))
    batch = together.collate(ROWS)
    assert len(together._groups(batch.inputs)) > 1
    weight = torch.linspace(-1, 1, batch.mask.numel()).view(batch.mask.shape)
    out = together.forward(batch, need)
    (weight * (out.logp + 0.3 * out.entropy)).sum().backward()
    for i, row in enumerate(ROWS):
        alone = apart.forward(apart.collate([row]), need)
        n = alone.logp.shape[1]
        (weight[i, :n] * (alone.logp[0] + 0.3 * alone.entropy[0])).sum().backward()
        for a, b in ((out.logp, alone.logp), (out.entropy, alone.entropy), (out.extra["hidden"], alone.extra["hidden"])):
            equal(a[i, :n], b[0])
            assert not a[i, n:].any()
    for p, q in zip(together.parameters(), apart.parameters(), strict=True):
        assert q.grad is not None
        equal(p.grad, q.grad)


@pytest.mark.parametrize(("kind", "layout"), [("llama", "padded"), ("llama", "left"), ("gpt2", "padded"), ("encoder", "padded")])
def test_a_scorer_gives_the_numbers_of_rows_one_by_one(kind, layout, folders):
    together, apart = (Scorer.load(folders[kind], layout=layout) for _ in range(2))
    batch = together.collate(ROWS)
    assert len(buckets(batch.inputs["length"])) > 1
    weight = torch.linspace(-1, 1, len(ROWS))
    score = together.forward(batch).score
    (weight * score).sum().backward()
    alone = [apart.forward(apart.collate([row])).score for row in ROWS]
    (weight * torch.cat(alone)).sum().backward()
    assert len({round(x, 4) for x in score.tolist()}) > 20
    equal(score, torch.cat(alone))
    for p, q in zip(together.parameters(), apart.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            equal(p.grad, q.grad)
