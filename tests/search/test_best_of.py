"""Best of n chooses by the reward alone, and never what was not judged."""

import math

from hypothesis import given
from hypothesis import strategies as st

from guerdon.core.rng import Key
from guerdon.search.best_of import best_of
from guerdon.testing import ToyPolicy, ToyReward, toy_prompts
from guerdon.types import Score

POLICY = ToyPolicy(spread=0.5)
ABSTAINED = None


def told(*values):
    """A reward that gives these values in order; None abstains."""

    def reward(rollouts):
        return [Score.abstain("no") if v is None else Score.whole(r, v) for r, v in zip(rollouts, values, strict=True)]

    return reward


def chosen(values, prompts=1):
    found = best_of(POLICY, toy_prompts(prompts), told(*values), n=len(values) // prompts, key=Key(0))
    assert len(found.rollouts) == len(found.scores) == len(values)
    return [next(i for i, r in enumerate(found.rollouts) if r is best) for best in found.best]


def test_the_highest_wins():
    assert chosen([1.0, 3.0, 2.0]) == [1]
    assert chosen([-3.0, -1.0, -math.inf]) == [1]
    assert chosen([5.0]) == [0]


def test_ties_go_to_the_first():
    assert chosen([1.0, 2.0, 2.0, 2.0]) == [1]
    assert chosen([0.0, 0.0]) == [0]


def test_abstained_is_never_chosen():
    assert chosen([ABSTAINED, -5.0, ABSTAINED]) == [1]
    assert chosen([-5.0, ABSTAINED, -4.0]) == [2]
    assert chosen([math.nan, -5.0]) == [1]


def test_a_prompt_without_a_judgement_is_left_out():
    assert chosen([1.0, 2.0, ABSTAINED, ABSTAINED, 4.0, 3.0], prompts=3) == [1, 4]
    assert chosen([ABSTAINED, ABSTAINED]) == []


@given(st.integers(1, 4), st.integers(1, 4), st.data())
def test_it_equals_a_plain_search(prompts, n, data):
    values = data.draw(st.lists(st.one_of(st.none(), st.integers(-2, 2)), min_size=prompts * n, max_size=prompts * n))
    wanted = []
    for p in range(prompts):
        judged = [i for i in range(p * n, (p + 1) * n) if values[i] is not None]
        if judged:
            top = max(values[i] for i in judged)
            wanted.append(min(i for i in judged if values[i] == top))
    assert chosen(values, prompts) == wanted


def test_the_samples_are_those_of_the_key():
    prompts = toy_prompts(3)
    found = best_of(POLICY, prompts, ToyReward(), n=5, key=Key(4))
    assert [r.content for r in found.rollouts] == [r.content for r in POLICY.sample(prompts, 5, Key(4))]
    assert [r.prompt for r in found.best] == prompts
    for prompt, best in zip(prompts, found.best, strict=True):
        mine = [s.value for r, s in zip(found.rollouts, found.scores, strict=True) if r.prompt is prompt]
        assert ToyReward()([best])[0].value == max(mine)
