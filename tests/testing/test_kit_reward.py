"""check_reward accepts rewards that keep the contract and refuses each way of breaking it."""

import pytest
import torch

from guerdon.testing import ToyReward, check_reward, sample_rollouts
from guerdon.types import Score, Span


def length(rollouts):
    return [Score.whole(r, float(len(r.content))) for r in rollouts]


def group_best(rollouts):
    best = {}
    for r in rollouts:
        best[r.group] = max(best.get(r.group, 0), len(r.content))
    return [Score.whole(r, float(len(r.content) == best[r.group])) for r in rollouts]


def column(rollouts):
    return [Score.whole(r, float(r.prompt.meta["answer"])) if "answer" in r.prompt.meta else Score.abstain("no answer") for r in rollouts]


@pytest.mark.parametrize("reward", [length, group_best, column, ToyReward(), ToyReward(dense=True)])
def test_good_rewards_pass(reward):
    check_reward(reward)


def test_a_reward_of_other_content_is_checked_on_the_rollouts_given():
    rollouts = [r.with_(content=torch.full((3,), float(i))) for i, r in enumerate(sample_rollouts())]
    check_reward(lambda rs: [Score.whole(r, float(r.content.sum())) for r in rs], rollouts)


class Counting:
    def __init__(self):
        self.calls = 0

    def __call__(self, rollouts):
        self.calls += 1
        return [Score.whole(r, float(self.calls)) for r in rollouts]


def by_place(rollouts):
    return [Score.whole(r, float(i)) for i, r in enumerate(rollouts)]


def touches(rollouts):
    for r in rollouts:
        r.logp[0] = 0.0
    return length(rollouts)


def forgets_abstaining(rollouts):
    return [s for r, s in zip(rollouts, length(rollouts), strict=True) if r.content]


BROKEN = [
    (lambda rs: tuple(length(rs)), "a list of Score"),
    (lambda rs: [len(r.content) for r in rs], "a Score"),
    (lambda rs: length(rs)[:-1], "one score per rollout"),
    (lambda rs: length(rs) or [Score.abstain("nothing")], "one score per rollout"),
    (lambda rs: [Score((Span(0, len(r) + 1, 1.0),)) for r in rs], "0 <= start < stop"),
    (lambda rs: [Score((Span(0, 0, 1.0),)) for r in rs], "0 <= start < stop"),
    (lambda rs: [Score.whole(r, float("nan")) for r in rs], "finite"),
    (lambda rs: [Score.whole(r, 1.0, {"x": float("inf")}) for r in rs], "the part 'x'"),
    (Counting(), "the same score for the same rollouts"),
    (by_place, "not with its place"),
    (touches, "changed its input"),
    (lambda rs: [Score.whole(r, float(r.prompt.meta["answer"])) for r in rs], "without columns"),
    (lambda rs: [Score.whole(r, 1.0 / len(r.content)) for r in rs], "odd texts"),
    (lambda rs: [Score.whole(r, float(r.actions[0])) for r in rs], "not encoded yet"),
    (forgets_abstaining, "one score per rollout"),
]


@pytest.mark.parametrize(("reward", "told"), BROKEN)
def test_broken_rewards_fail_and_say_why(reward, told):
    with pytest.raises(AssertionError, match="hint:") as failure:
        check_reward(reward)
    assert told in str(failure.value)
