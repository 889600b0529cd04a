"""Ranked lists as rows and pairs."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guerdon.learn.verbs import chosen, pair_batch, rejected
from guerdon.testing import ToyPolicy, toy_pairs
from guerdon.types import Preference, Prompt, Rollout

POLICY = ToyPolicy(spread=0.3)


def ranked(*ratings, name="p"):
    """A list of different responses with these ratings (None: not rated)."""
    metas = [{} if x is None else {"rating": x} for x in ratings]
    rows = [Rollout(Prompt(f"{name}/{i}", "A", m), "abcd"[: 1 + i % 4] + "a" * (i // 4)) for i, m in enumerate(metas)]
    return Preference(Prompt(name, "A"), tuple(rows))


def test_pairs_closer_than_the_gap_are_left_out():
    batch = pair_batch(POLICY, [ranked(3.0, 1.5, 1.0, -2.0)], gap=1.0)
    assert sorted(batch.pairs.tolist()) == [[0, 1], [0, 2], [0, 3], [1, 3], [2, 3]]
    margin = chosen(batch, batch.extra["rating"]) - rejected(batch, batch.extra["rating"])
    found = {tuple(p): m for p, m in zip(batch.pairs.tolist(), margin.tolist(), strict=True)}
    assert found == {(0, 1): 1.5, (0, 2): 2.0, (0, 3): 5.0, (1, 3): 3.5, (2, 3): 3.0}
    assert sorted(pair_batch(POLICY, [ranked(3.0, 2.0, 1.0)], gap=1.0).pairs.tolist()) == [[0, 2]]  # not more than the gap


def test_equal_ratings_are_no_pair_even_without_a_gap():
    assert pair_batch(POLICY, [ranked(2.0, 2.0, 1.0)]).pairs.tolist() == [[0, 2], [1, 2]]
    batch = pair_batch(POLICY, [ranked(2.0, 2.0, 2.0)])
    assert batch.pairs.shape == (0, 2)
    assert len(batch) == 3


def test_lists_of_any_length_stand_side_by_side():
    batch = pair_batch(POLICY, [ranked(2.0, 0.0, -2.0), ranked(3.0, 1.0, name="q"), ranked(None, None, None, name="r")], gap=1.0)
    assert batch.unit.tolist() == batch.group.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert sorted(batch.pairs.tolist()) == [[0, 1], [0, 2], [1, 2], [3, 4], [5, 6], [5, 7], [6, 7]]
    assert batch.extra["rating"].tolist() == [2.0, 0.0, -2.0, 3.0, 1.0, 0.0, 0.0, 0.0]
    assert chosen(batch, batch.label).tolist() == [1.0] * 7


def test_one_unknown_rating_makes_the_list_an_unrated_one():
    batch = pair_batch(POLICY, [ranked(2.0, None, 1.9)], gap=1.0)
    assert sorted(batch.pairs.tolist()) == [[0, 1], [0, 2], [1, 2]]
    assert batch.extra["rating"].tolist() == [0.0] * 3


def test_a_list_of_two_is_a_pair():
    """Whatever says how far apart they are; and a pair is never left out, however close."""
    pairs = toy_pairs(5)
    lists = [
        Preference(p.prompt, tuple(dataclasses.replace(r, prompt=Prompt(r.prompt.id, r.prompt.content, {"rating": x})) for r, x in rated))
        for p in pairs
        for rated in [list(zip(p.ranked, (0.5 + p.margin, 0.5), strict=True))]
    ]
    one, other = pair_batch(POLICY, pairs, gap=100.0), pair_batch(POLICY, lists, gap=100.0)
    assert one.pairs.tolist() == other.pairs.tolist() == [[2 * i, 2 * i + 1] for i in range(5)]
    assert torch.equal(one.unit, other.unit)
    assert torch.equal(one.mask, other.mask)
    assert torch.equal(one.label, other.label)
    for name in one.inputs:
        assert torch.equal(one.inputs[name], other.inputs[name])
    margins = [chosen(b, b.extra["rating"]) - rejected(b, b.extra["rating"]) for b in (one, other)]
    torch.testing.assert_close(*margins)
    assert margins[0].tolist() == [p.margin for p in pairs]


def test_the_label_of_a_pair_is_its_vote_share_and_of_a_list_one():
    pair = dataclasses.replace(toy_pairs(1)[0], label=0.7)
    batch = pair_batch(POLICY, [pair, dataclasses.replace(ranked(2.0, 1.0, 0.0), label=0.7)])
    assert batch.label[:2].tolist() == pytest.approx([0.7, 0.3])
    assert chosen(batch, batch.label)[1:].tolist() == [1.0] * 3


@given(st.lists(st.lists(st.integers(-4, 4), min_size=2, max_size=6), min_size=1, max_size=4), st.sampled_from([0.0, 1.0]))
def test_it_equals_plain_loops(lists, gap):
    lists = [sorted(x, reverse=True) for x in lists]
    batch = pair_batch(POLICY, [ranked(*map(float, x), name=str(k)) for k, x in enumerate(lists)], gap=gap)
    wanted, first = set(), 0
    for rated in lists:
        for i in range(len(rated)):
            for j in range(i + 1, len(rated)):
                if len(rated) == 2 or rated[i] - rated[j] > gap:
                    wanted.add((first + i, first + j))
        first += len(rated)
    assert {tuple(p) for p in batch.pairs.tolist()} == wanted
    assert len(batch.pairs) == len(wanted)
    assert batch.unit.tolist() == [k for k, x in enumerate(lists) for _ in x]
    assert not wanted or torch.equal(batch.unit[batch.pairs[:, 0]], batch.unit[batch.pairs[:, 1]])
