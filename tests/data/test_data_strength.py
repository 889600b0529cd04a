"""Votes as records: the loss of a treated pair is the loss that the votes ask for."""

import json

import pytest
import torch

from guerdon.core import strength
from guerdon.core.reward_loss import bradley_terry
from guerdon.data.strength import treated, write_strengths
from guerdon.learn.verbs import pair_batch
from guerdon.papers import bradley_terry as method
from guerdon.testing import ToyPolicy, toy_pairs

VOTES = torch.tensor([[1, -0.5, 0.2, -3], [2, -1.5, -0.2, -3], [3, -1, 0, -3]], dtype=torch.float64)
MU = [2.0, -1.0, 0.0, -3.0]


@pytest.mark.parametrize("how", ["none", "flip", "soft", "margin", "flip+margin", "soft+margin"])
def test_the_loss_of_records_is_the_loss_of_votes(how):
    items, policy = toy_pairs(4), ToyPolicy(spread=1.0)
    made = treated(items, VOTES, how, clip=2.5)
    batch = pair_batch(policy, made)
    got = method.term(1.0, votes=True).loss(policy.forward(batch, frozenset({"score"})), batch)
    plain = pair_batch(policy, items)
    score = policy.forward(plain, frozenset({"score"})).score
    label, margin = strength.treated(torch.tensor(MU), how, clip=2.5)
    want = bradley_terry(score[plain.pairs[:, 0]], score[plain.pairs[:, 1]], label=label, margin=margin)
    torch.testing.assert_close(got, want, atol=1e-6, rtol=0)


def test_a_flipped_record_says_so():
    items = toy_pairs(4)
    made = treated(items, VOTES, "flip+margin")
    assert [p.prompt.meta.get("flipped", False) for p in made] == [False, True, False, True]
    assert [p.ranked[0].content for p in made] == [p.ranked[int(i in (1, 3))].content for i, p in enumerate(items)]
    assert [p.prompt.meta["strength_mean"] for p in made] == [p.margin for p in made] == [2.0, 1.0, 0.0, 3.0]
    assert all(r.prompt == p.prompt for p in made for r in p.ranked)
    assert [p.margin for p in items] == [p.margin for p in toy_pairs(4)], "the input is as it was"
    again = treated(made, -VOTES.abs(), "flip")
    assert [p.prompt.meta["flipped"] for p in again[1::2]] == [False, False], "turned round twice is not turned round"


def test_strengths_are_written_in_order(tmp_path):
    items = toy_pairs(4)
    write_strengths(tmp_path / "s.jsonl", items, VOTES)
    rows = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [p.prompt.id for p in items]
    assert [row["strength_mean"] for row in rows] == pytest.approx(MU)
    assert rows[0]["strength_std"] == pytest.approx(0.8164965809)
    assert rows[3]["stratum"] == "incorrect"
    assert strength.strata(torch.tensor(MU)).tolist() == [2, 1, 2, 0]
