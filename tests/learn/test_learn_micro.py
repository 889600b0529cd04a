"""Pieces of a batch: whole units, within the budget, the same for the same batch."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core.credit import rloo
from guerdon.core.reduce import token_mean
from guerdon.core.rng import Key
from guerdon.core.surrogate import ppo_clip
from guerdon.learn.learner import Adam, Learner
from guerdon.learn.micro import by_tokens, by_units
from guerdon.learn.online import online
from guerdon.learn.verbs import by_outcome
from guerdon.policies.refs import Frozen
from guerdon.testing import ToyPolicy, ToyReward, toy_prompts
from guerdon.types import Batch, Term, decisions


def batch_of(units: list[int]) -> Batch:
    rows = torch.arange(len(units))
    return Batch({"row": rows}, torch.ones(len(units), 1, dtype=torch.bool), rows, torch.tensor(units))


ROWS = st.lists(st.tuples(st.integers(-3, 6), st.integers(0, 30)), min_size=1, max_size=20)


@given(rows=ROWS, tokens=st.integers(1, 80))
def test_every_row_once_whole_units_and_no_piece_over_the_budget(rows, tokens):
    units, sizes = map(list, zip(*rows, strict=True))
    pieces = list(by_tokens(batch_of(units), torch.tensor(sizes), tokens))
    assert sorted(i for piece in pieces for i in piece.inputs["row"].tolist()) == list(range(len(rows)))
    for piece in pieces:
        found = piece.inputs["row"].tolist()
        assert found == sorted(found)
        assert {i for i in range(len(units)) if units[i] in set(piece.unit.tolist())} == set(found)
        assert sum(sizes[i] for i in found) <= tokens or len(set(piece.unit.tolist())) == 1
    again = list(by_tokens(batch_of(units), torch.tensor(sizes), tokens))
    assert [p.inputs["row"].tolist() for p in pieces] == [p.inputs["row"].tolist() for p in again]


def test_like_lengths_go_together_and_a_large_unit_goes_alone():
    sizes = torch.tensor([3, 50, 4, 20, 3, 22, 5])
    pieces = list(by_tokens(batch_of([0, 1, 2, 3, 4, 5, 6]), sizes, 42))
    assert [sizes[p.inputs["row"]].tolist() for p in pieces] == [[50], [20, 22], [3, 4, 3, 5]]


def test_units_are_counted_in_the_order_of_their_first_rows():
    pieces = list(by_units(batch_of([7, 2, 7, 5, 2]), 2))
    assert [p.inputs["row"].tolist() for p in pieces] == [[0, 1, 2, 4], [3]]


def test_no_pass_with_gradients_is_larger_than_a_piece_not_even_the_first_check():
    seen: list[int] = []

    class Watched(ToyPolicy):
        def forward(self, batch, need=frozenset({"logp"})):
            if torch.is_grad_enabled():
                seen.append(len(batch))
            return super().forward(batch, need)

    policy = Watched(spread=0.5)
    term = Term("pg", lambda o, b: ppo_clip(o.logp, b.old_logp, b.adv), over=decisions, reduce=token_mean)
    recipe = online(
        learner=Learner(policy, [term], Adam(0.1), micro_units=2),
        prompts=toy_prompts(6),
        reward=ToyReward("a"),
        credit=by_outcome(rloo),
        n=3,
        batch=6,
        steps=1,
        key=Key(0),
        ref=Frozen(policy),
    )
    recipe.step(0)
    assert seen == [6, 6, 6, 6]  # the check of the reference, and three pieces of two groups
