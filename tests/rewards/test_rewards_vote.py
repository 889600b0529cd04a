"""What most of a group say: ties, missing answers, and that no group sees another."""

import math

import pytest

from guerdon.rewards.vote import answer_share, majority
from guerdon.types import Prompt, Rollout


def said(reward, *texts, group=0, prompt="p"):
    return [s.value for s in reward([Rollout(Prompt(prompt, "?"), t, group=group) for t in texts])]


def test_majority():
    assert said(majority, "<answer>7</answer>", "so it is <answer> 7 </answer>", "<think>7</think> 8") == [1.0, 1.0, 0.0]
    assert said(majority, "Paris", "PARIS ", "Lyon") == [1.0, 1.0, 0.0]
    assert said(majority, "b", "a", "c", "a", "b") == [1.0, 1.0, 0.0, 1.0, 1.0]  # a tie


def test_share():
    assert said(answer_share, "a", "a", "b", "a") == pytest.approx([0.75, 0.75, 0.25, 0.75])


@pytest.mark.parametrize("reward", [majority, answer_share])
def test_no_answer_is_no_vote(reward):
    values = said(reward, "x", "", "<answer></answer>", "x")
    assert values[0] == values[3] == 1.0
    assert math.isnan(values[1]) and math.isnan(values[2])


def test_groups_vote_apart():
    prompt = Prompt("p", "?")
    rows = [Rollout(prompt, t, group=g) for t, g in (("a", 0), ("b", 1), ("a", 0), ("b", 1), ("a", 1))]
    assert [s.value for s in majority(rows)] == [1.0, 1.0, 1.0, 1.0, 0.0]
