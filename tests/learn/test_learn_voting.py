"""Voting: who learns from what, who votes on what, and that the policy comes back as it was."""

from functools import partial

import pytest
import torch

from guerdon.config import Optim
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.learn.kept import Kept
from guerdon.learn.learner import learner_for
from guerdon.learn.little import finish
from guerdon.learn.verbs import pair_batch
from guerdon.learn.voting import VOTES, margins, parts, voting
from guerdon.papers import bradley_terry
from guerdon.testing import ToyPolicy, check_recipe, toy_pairs, toy_pools
from guerdon.testing.toys import parameters_of


def recipe(policy, items, kept=None, seen=None, **changes):
    settings = {"votes": 2, "folds": 3, "steps": 2, "batch": 4, "key": Key(0), **changes}
    learner = learner_for(policy, [bradley_terry.term()], Optim(lr=0.1), 2)
    collate = partial(pair_batch, policy)

    def watched(some):
        if seen is not None:
            seen.append([items.index(p) for p in some])
        return collate(some)

    return voting(learner=learner, items=items, collate=watched, kept=Kept() if kept is None else kept, **settings)


def test_nobody_votes_on_what_it_learnt_from():
    items, seen, kept = toy_pairs(11), [], Kept()
    made = recipe(ToyPolicy(spread=0.2), items, kept, seen)
    assert made.steps == 12
    finish(made)
    learnt, voted = [], []
    for i in range(0, len(seen), 3):  # two updates, then the vote
        learnt.append({*seen[i], *seen[i + 1]})
        voted.append(seen[i + 2])
    assert all(not a & set(b) for a, b in zip(learnt, voted, strict=True))
    for vote in (voted[:3], voted[3:]):
        assert sorted(i for part in vote for i in part) == list(range(11))
    assert voted[:3] != voted[3:], "every vote splits anew"
    assert kept[VOTES].shape == (2, 11) and not kept[VOTES].isnan().any()


def test_a_vote_is_the_margin_of_a_model_trained_from_the_start():
    items, kept, policy = toy_pairs(12), Kept(), ToyPolicy(spread=0.2)
    before = parameters_of(policy)
    finish(recipe(policy, items, kept, votes=1, folds=2))
    assert all(torch.equal(a, b) for a, b in zip(before, parameters_of(policy), strict=True)), "the policy is as it was"
    by_hand = ToyPolicy(spread=0.2)
    learner = learner_for(by_hand, [bradley_terry.term()], Optim(lr=0.1), 2)
    second = parts(12, 2, Key(0).fold("vote", 0))
    seen = []
    finish(recipe(ToyPolicy(spread=0.2), items, seen=seen, votes=1, folds=2))
    for chosen in seen[3:5]:
        learner.update(pair_batch(by_hand, [items[i] for i in chosen]))
    got = margins(by_hand, [items[i] for i in second[1]], partial(pair_batch, by_hand), rows=5)
    assert torch.equal(kept[VOTES][0, second[1]], got)


def test_one_fold_learns_from_all_and_votes_on_all():
    seen = []
    finish(recipe(ToyPolicy(spread=0.2), toy_pairs(8), seen=seen, votes=2, folds=1, batch=8))
    assert [sorted(rows) for rows in seen] == [list(range(8))] * 6
    assert seen[0] != seen[3], "the next voter reads them in another order"


@pytest.mark.parametrize("steps", [4, 12])
def test_a_kill_changes_nothing(steps):
    check_recipe(lambda: recipe(ToyPolicy(spread=0.2), toy_pairs(11)), steps=steps)


def test_lists_and_too_few_pairs_are_refused():
    with pytest.raises(UserError, match="votes are on pairs"):
        recipe(ToyPolicy(), toy_pools(4))
    with pytest.raises(UserError, match="2 pairs in 3 folds"):
        recipe(ToyPolicy(), toy_pairs(2))
