"""What a step learns from is a function of its number, and groups that say nothing are left out."""

from guerdon.core.rng import Key
from guerdon.data.cursor import Cursor
from guerdon.learn.draws import Draws, telling
from guerdon.testing import ToyPolicy, toy_prompts
from guerdon.types import Score


def rare(rollouts):
    return [Score.whole(r, float(r.content.startswith("aa"))) for r in rollouts]


def test_groups_that_differ_fill_the_batch_in_order():
    prompts, key = toy_prompts(12), Key(3)
    draws = Draws(ToyPolicy(), Cursor(prompts, 3, key), rare, 4, key, refills=20)
    rollouts, scores, said = draws.at(0)
    assert said["groups/kept"] == 3 and len(rollouts) == 12
    assert [r.group for r in rollouts] == [i // 4 for i in range(12)]
    assert telling(scores, 4) == [0, 1, 2]
    assert all(len({r.prompt.id for r in rollouts[a : a + 4]}) == 1 for a in (0, 4, 8))
    again = Draws(ToyPolicy(), Cursor(prompts, 3, key), rare, 4, key, refills=20).at(0)
    assert [r.content for r in again[0]] == [r.content for r in rollouts]
    assert said["reward"] < sum(s.value for s in scores) / len(scores)  # of everything sampled


def test_a_missing_reward_is_no_difference():
    scores = [Score.whole(r, v) for r, v in zip(ToyPolicy().sample(toy_prompts(2), 2, Key(0)), (1.0, float("nan"), 0.0, 1.0), strict=True)]
    assert telling(scores, 2) == [1]
