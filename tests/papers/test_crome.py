"""Crome: the loss of its parts, who filters, and that it survives a kill."""

import pytest
import torch

from guerdon.config import Optim
from guerdon.core.rng import Key
from guerdon.data.augment import Rewritten, kind_of
from guerdon.errors import UserError
from guerdon.learn.augmented import kind_batch, kind_terms
from guerdon.learn.learner import Adam, Learner
from guerdon.papers import crome
from guerdon.testing import ToyPolicy, check_recipe, toy_pairs
from guerdon.testing.models import small_model
from guerdon.types import Outputs, Preference, Prompt, Rollout


def batch(kinds):
    items = []
    for i, kind in enumerate(kinds):
        prompt = Prompt(f"p{i}", "A", {"kind": kind})
        items.append(Preference(prompt, (Rollout(prompt, "a"), Rollout(prompt, "b")), label=0.5 if kind == "neutral" else 1.0))
    return kind_batch(ToyPolicy(), items)


def value(terms, margins, kinds):
    made = batch(kinds)
    score = torch.tensor([x for m in margins for x in (m, 0.0)], dtype=torch.float64)
    return float(sum(t.coef * t.reduce(t.loss(Outputs(score=score), made), t.over(made)) for t in terms))


@pytest.mark.parametrize(("tie", "expected"), [(1.0, 1.1265233750), (0.0, 1.0064088681)])
def test_the_worked_numbers(tie, expected):
    assert value(kind_terms(1.0), [1.0, tie], ["pref", "neutral"]) == pytest.approx(expected, abs=1e-9)


def test_the_three_ways_to_divide():
    margins, kinds = [1.0, 1.0, 1.0, 1.0], ["pref", "causal", "pref", "neutral"]
    one, tie = 0.3132616875, 0.8132616875
    assert value(kind_terms(2.0, "means"), margins, kinds) == pytest.approx(one + 2 * tie, abs=1e-9)
    assert value(kind_terms(2.0, "sum"), margins, kinds) == pytest.approx(3 * one + 2 * tie, abs=1e-9)
    assert value(kind_terms(2.0, "union"), margins, kinds) == pytest.approx((3 * one + 2 * tie) / 4, abs=1e-9)
    with pytest.raises(UserError, match="total 'mean'"):
        kind_terms(1.0, "mean")  # type: ignore[arg-type]


@pytest.mark.parametrize("total", ["means", "sum", "union"])
def test_without_neutral_pairs_it_is_bradley_terry(total):
    kinds = ["pref", "causal"]
    want = 0.3132616875 * (2 if total == "sum" else 1)
    assert value(kind_terms(5.0, total), [1.0, 1.0], kinds) == pytest.approx(want, abs=1e-9)
    policy = ToyPolicy(spread=0.1)
    assert Learner(policy, kind_terms(1.0, total), Adam(0.1)).update(batch(kinds))["loss"] > 0


def augmenter(answers, key):
    return [Rewritten(str(r.content)[::-1], True, "order") if str(r.content)[0] == "a" else None for r in answers]


def config(**changes):
    return crome.Config(**{"steps": 4, "filter_steps": 4, "batch": 4, "optim": Optim(lr=0.1), **changes})


def test_the_filter_is_a_baseline_on_the_originals_and_training_starts_afresh():
    pairs = toy_pairs(12)
    scorer = ToyPolicy(spread=0.2)
    recipe = crome.build(config(), scorer, pairs, Key(0), augmenter)
    assert recipe.steps == 8
    for t in range(4):
        recipe.step(t)
    made = crome.augmented(config(), pairs, augmenter, Key(0))
    want = crome.informative(made, crome.margins(scorer, made, lambda some: kind_batch(scorer, some)))
    metrics = recipe.step(4)
    assert metrics["augmented"] == len(made) and 0 < metrics["kept"] <= 1
    buffer = recipe.state["train_buffer"].items
    assert buffer == [*pairs, *want]
    assert recipe.state["train_learner"].updates == 1


def test_without_a_filter_all_are_learnt_from():
    recipe = crome.build(config(filter_steps=0), ToyPolicy(spread=0.2), toy_pairs(12), Key(0), augmenter)
    assert recipe.steps == 4
    assert recipe.step(0)["kept"] == 1.0
    kinds = [kind_of(item) for item in recipe.state["buffer"].items]
    assert kinds.count("neutral") == round(0.5 * (12 + kinds.count("causal")))


@pytest.mark.parametrize("steps", [4, 8])
def test_a_killed_run_ends_the_same(steps):
    check_recipe(lambda: crome.build(config(), ToyPolicy(spread=0.2), toy_pairs(12), Key(0), augmenter), steps=steps)


def test_an_oracle_is_a_model_that_is_asked(tmp_path):
    model = small_model(tmp_path / "oracle", max_position_embeddings=512)
    recipe = crome.build(config(oracle=model, max_new=6, filter_steps=0), ToyPolicy(spread=0.2), toy_pairs(4), Key(0))
    kinds = [kind_of(item) for item in (recipe.step(0), recipe.state["buffer"].items)[1]]
    assert kinds.count("pref") == 4 and "causal" not in kinds, "a random model names no quality that it then confirms"
