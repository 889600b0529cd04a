"""Rewards by task, brought to one scale, close in meaning; and the brake on brevity."""

import math

import pytest
import torch

from guerdon.errors import UserError
from guerdon.rewards import pointwise, weighted
from guerdon.rewards.brevity import Brevity
from guerdon.rewards.route import ByTask, Similarity, Squash
from guerdon.rewards.rules import exact_match
from guerdon.testing import check_reward
from guerdon.types import Prompt, Rollout, Score


@pointwise
def words(text):
    return float(len(text.split()))


@pointwise
def unsure(text):
    return None


def row(text, task=None, group=0, **meta):
    return Rollout(Prompt(f"p{group}", "q", meta | ({} if task is None else {"task": task})), text, group=group)


def test_the_task_decides_who_judges():
    reward = ByTask({"math": exact_match, "chat": words}, default="chat")
    scores = reward([row("4 4", "chat"), row("4", "math", answer="4"), row("5", "math", answer="4"), row("a b c"), row("x", "code")])
    assert [s.value for s in scores] == [2, 1, 0, 3, 1]
    assert scores[1].parts == {"math": 1.0} and scores[3].parts == {"chat": 3.0}
    check_reward(reward)
    check_reward(ByTask({"math": exact_match}))


def test_unknown_tasks():
    strict = ByTask({"math": exact_match, "chat": unsure})
    assert [s.abstained for s in strict([row("4"), row("4", "chat")])] == [True, True]
    with pytest.raises(UserError, match="task 'maths'"):
        strict([row("4", "maths")])
    with pytest.raises(UserError, match="default 'code'"):
        ByTask({"math": exact_match}, default="code")
    with pytest.raises(UserError, match="no routes"):
        ByTask({})


def test_squash():
    scores = Squash(words, mean=2.0, scale=0.5)([row("a b"), row("a b c"), row("a " * 5000)])
    assert [s.value for s in scores] == pytest.approx([0.5, 1 / (1 + math.exp(-2)), 1.0])
    assert scores[1].parts == {"words": 3.0}
    assert Squash(words, mean=1e6)([row("")])[0].value == 0.0
    assert Squash(unsure)([row("")])[0].abstained
    check_reward(Squash(words))
    with pytest.raises(UserError, match="scale 0"):
        Squash(words, scale=0)


def letters(texts):
    return torch.tensor([[t.count("a"), t.count("b"), -t.count("c")] for t in texts], dtype=torch.float32)


def test_similarity():
    rows = [row(t, answer="aab") for t in ("aab", "<think>c</think><answer>ab</answer>", "c", "")]
    got = [s.value for s in Similarity(letters)(rows)]
    assert got == pytest.approx([1.0, 3 / math.sqrt(10), 0.0, 0.0])
    assert [s.value for s in Similarity(letters, threshold=0.96)(rows)] == [1, 0, 0, 0]
    assert Similarity(letters)([row("a", answer=["c", "a"])])[0].value == pytest.approx(1.0)
    assert Similarity(letters)([row("ca", answer="cc")])[0].value == pytest.approx(1 / math.sqrt(2))
    assert all(s.abstained for s in Similarity(letters)([row("a"), row("a", answer="")]))
    check_reward(Similarity(letters))


def sized(length, group=0, **meta):
    return row("x " * length, group=group, **meta)


@pointwise
def judged(right):
    return right


def test_brevity_is_measured_against_the_right_answers_of_the_group():
    rows = [sized(n, right=r) for n, r in zip([10, 40, 60, 50], [0, 1, 1, 0], strict=True)] + [sized(1, 1, right=0)]
    reward = Brevity(weighted({"accuracy": judged, "format": words}, {"format": 0.0}), "accuracy", weight=2.0)
    scores = reward(rows)
    assert [s.parts["brevity"] for s in scores] == pytest.approx([-0.3666666667, 0, 0, 0, 0])
    assert [s.value for s in scores] == pytest.approx([-0.7333333333, 1, 1, 0, 0])
    assert scores[0].parts["accuracy"] == 0 and scores[0].parts["format"] == 10
    total = Brevity(judged)(rows)  # without a part the total decides
    assert [s.parts["brevity"] for s in total] == pytest.approx([-0.3666666667, 0, 0, 0, 0])
    tokens = [r.with_(actions=torch.zeros(n), mask=torch.ones(n).bool()) for r, n in zip(rows[:4], [50, 50, 50, 5], strict=True)]
    assert [s.parts["brevity"] for s in Brevity(judged)(tokens)] == pytest.approx([0, 0, 0, -0.5 * 0.65 / 0.75])


def test_brevity_of_the_unjudged():
    class Some:
        name = "some"

        def __call__(self, rollouts):
            return [Score.abstain("?") if len(r.content) > 50 else Score.whole(r, 1.0) for r in rollouts]

    scores = Brevity(Some())([sized(40), sized(20), sized(10)])
    assert scores[0].abstained
    assert [s.parts["brevity"] for s in scores[1:]] == pytest.approx([0, -0.5 * (1 / 3 - 0.25) / 0.75])  # 15 on average
    check_reward(Brevity(words))
    with pytest.raises(UserError, match="tau 1"):
        Brevity(words, tau=1.0)
