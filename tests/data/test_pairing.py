"""Sampled answers to pairs."""

from guerdon.data.pairing import best_and_worst, by_group, win_rates
from guerdon.types import Prompt, Rollout, Score


def answers(*scores, group=0, texts=None):
    prompt = Prompt(f"p{group}", "A")
    rollouts = [Rollout(prompt, t, group=group) for t in texts or [f"answer {i}" for i in range(len(scores))]]
    return rollouts, [Score.abstain("no") if x is None else Score.whole(r, x) for r, x in zip(rollouts, scores, strict=True)]


def test_best_against_worst_of_each_prompt():
    first, second = answers(0.2, None, 0.9, 0.1), answers(1.0, 1.0, group=1)
    pairs = best_and_worst(first[0] + second[0], first[1] + second[1])
    assert len(pairs) == 1  # the second prompt's answers are equal
    assert [r.content for r in pairs[0].ranked] == ["answer 2", "answer 3"]
    assert pairs[0].margin == 0.8


def test_the_same_answer_twice_is_no_pair():
    assert best_and_worst(*answers(1.0, 0.0, texts=["same", "same"])) == []
    assert best_and_worst(*answers(None, None)) == []
    assert best_and_worst(*answers(1.0)) == []


def test_win_rates():
    rollouts, scores = answers(3.0, 1.0, None, 1.0)
    [group] = by_group(rollouts, scores)
    assert win_rates(group) == [1.0, 0.25, 0.25]
    assert win_rates(group[:1]) == [0.5]
