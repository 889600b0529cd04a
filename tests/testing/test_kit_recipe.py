"""check_recipe accepts recipes that keep everything in their state and refuses those that forget something."""

import pytest
import torch

from guerdon.core import credit, surrogate
from guerdon.core.reduce import token_mean
from guerdon.core.rng import Key
from guerdon.learn.learner import Adam, Learner
from guerdon.learn.online import online
from guerdon.learn.verbs import by_outcome
from guerdon.policies.refs import Ema, Frozen
from guerdon.testing import ToyPolicy, ToyReward, check_reachable, check_recipe, toy_prompts
from guerdon.types import Metrics, Recipe, Score, Term, decisions

PG = Term("pg", lambda o, b: surrogate.reinforce(o.logp, b.adv), over=decisions, reduce=token_mean)


def make(reward=None, steps=6, ref=None, **changes):
    policy = ToyPolicy()
    learner = Learner(policy, [PG], Adam(0.1))
    kept = ref(policy) if ref else None
    return online(
        learner=learner,
        prompts=toy_prompts(5),
        reward=reward or ToyReward(),
        credit=by_outcome(credit.rloo),
        n=4,
        batch=2,
        steps=steps,
        key=Key(0),
        ref=kept,
        **changes,
    )


@pytest.mark.parametrize("ref", [None, Frozen, lambda policy: Ema(policy, 0.9)])
def test_a_recipe_of_the_library_passes(ref):
    check_recipe(lambda: make(ref=ref), steps=6)


def test_a_counter_of_its_own_is_found():
    def with_counter():
        seen = []

        def reward(rollouts):
            seen.append(1)
            scores = ToyReward()(rollouts)
            return [Score.whole(r, s.value * len(seen) ** (i % 2)) for i, (r, s) in enumerate(zip(rollouts, scores, strict=True))]

        return make(reward)

    with pytest.raises(AssertionError, match="after a kill at step 2 of 4"):
        check_recipe(with_counter)


def test_a_metric_that_counts_is_found():
    def counting():
        recipe, seen = make(), []

        def step(t):
            seen.append(t)
            return recipe.step(t) | Metrics({"seen": float(len(seen))})

        return Recipe(recipe.state, step, recipe.steps)

    with pytest.raises(AssertionError, match=r"seen 3\.0 / 1\.0"):
        check_recipe(counting)


class Judge(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(1, 1)

    def forward(self, x):
        return self.head(x)


JUDGE = Judge()


class Holder:
    def __init__(self, judge):
        self.models = {"judges": [judge]}

    def __call__(self, rollouts):
        return ToyReward()(rollouts)


def in_a_closure():
    judge = Judge()
    return make(lambda rs: [Score.whole(r, float(judge(torch.ones(1)))) for r in rs])


def in_an_attribute():
    return make(Holder(Judge()))


def in_a_global():
    return make(lambda rs: [Score.whole(r, float(JUDGE(torch.ones(1)))) for r in rs])


def in_a_default():
    def reward(rollouts, judge=Judge()):
        return ToyReward()(rollouts)

    return make(reward)


def out_of_state():
    recipe = make()
    return Recipe({}, recipe.step, recipe.steps)


def second_learner():
    recipe, other = make(), Learner(ToyPolicy(), [PG], Adam(0.1))

    def step(t):
        assert other.updates >= 0
        return recipe.step(t)

    return Recipe(recipe.state, step, recipe.steps)


def moving_reference():
    recipe, ref = make(), Ema(ToyPolicy(), 0.5)

    def step(t):
        ref.tick(t)
        return recipe.step(t)

    return Recipe(recipe.state, step, recipe.steps)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (in_a_closure, "judge.head."),
        (in_an_attribute, "models['judges'][0].head"),
        (in_a_global, "JUDGE.head"),
        (in_a_default, "default"),
        (out_of_state, "it is empty"),
        (second_learner, "other"),
        (moving_reference, "ref is a Ema"),
    ],
)
def test_what_learns_outside_the_state_is_named(build, told):
    with pytest.raises(AssertionError, match="hint:") as failure:
        check_reachable(build())
    assert told in str(failure.value)


def test_frozen_models_may_stay_outside():
    kept = Frozen(ToyPolicy())
    check_reachable(make(lambda rs: [Score.whole(r, float(len(vars(kept)))) for r in rs]))
    judge = Judge().requires_grad_(False)
    check_reachable(make(Holder(judge)))


def test_odd_steps_are_refused():
    with pytest.raises(AssertionError, match="even number"):
        check_recipe(make, steps=3)
