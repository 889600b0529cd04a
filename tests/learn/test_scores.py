"""What reward models learn from: rated responses, and the terms on scores."""

import math

import pytest
import torch

from guerdon.errors import UserError
from guerdon.learn.scores import check_rated, list_score_term, rated_batch, rated_term, rating_of
from guerdon.testing import ToyPolicy, toy_demos, toy_pairs
from guerdon.types import Outputs, Prompt, Rollout


def rated(**meta):
    return Rollout(Prompt("p", "A", meta), "ab")


def test_ratings_come_from_columns_and_words_are_counted():
    assert rating_of(rated(rating=3), "rating") == 3
    assert rating_of(rated(rating="2.5"), "rating") == 2.5
    assert math.isnan(rating_of(rated(), "rating"))
    assert rating_of(Rollout(Prompt("p", "A"), "one two  three"), "words") == 3
    assert rating_of(rated(words=7), "words") == 7


def test_what_nobody_rated_is_an_error_that_names_the_columns():
    with pytest.raises(UserError, match="none of 1 responses has a number in column 'helpful'") as error:
        check_rated([rated(rating=1, who="x")], ("helpful",), "steerlm_rm")
    assert "rating, words" in str(error.value)
    with pytest.raises(UserError, match="given a Preference"):
        check_rated(toy_pairs(1), ("rating",), "steerlm_rm")
    check_rated([rated(rating=1), rated()], ("rating", "words"), "steerlm_rm")


def test_missing_ratings_are_left_out_of_the_mean():
    policy = ToyPolicy()
    batch = rated_batch(policy, [rated(rating=1, other=5), rated(rating=2)], ("rating", "other"))
    torch.testing.assert_close(batch.extra["attributes"], torch.tensor([[1.0, 5.0], [2.0, math.nan]]), equal_nan=True)
    assert batch.unit.tolist() == [0, 1]
    term = rated_term("t", lambda o, b: torch.nan_to_num(b.extra["attributes"]))
    out = Outputs(score=torch.zeros(2))
    assert term.over(batch).tolist() == [[True, True], [True, False]]
    assert term.reduce(term.loss(out, batch), term.over(batch), term.reduce.count(term.over(batch))).item() == pytest.approx(8 / 3)


def test_lists_are_put_side_by_side_with_their_marks():
    seen = []

    def loss(score, mark, mask):
        seen.append((score, mark, mask))
        return score.sum(1)

    policy = ToyPolicy()
    batch = policy.collate([r.with_(group=g) for r, g in zip(toy_demos(5), (0, 0, 1, 1, 1), strict=True)])
    batch = batch.with_(extra={"score": torch.tensor([2.0, 1.0, 3.0, 2.0, 1.0])})
    out = Outputs(score=torch.tensor([0.5, 0.1, 0.3, 0.7, 0.2]))
    term = list_score_term("t", loss)
    assert term.loss(out, batch).tolist() == pytest.approx([0.6, 1.2])
    score, mark, mask = seen[0]
    assert mask.tolist() == [[True, True, False], [True, True, True]]
    assert mark[1].tolist() == [3, 2, 1]
    assert score.shape == (2, 3)
    assert term.watch(out, batch)["rewards/accuracies"].tolist() == pytest.approx([1, 2 / 3])
