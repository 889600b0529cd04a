"""A policy that judges: reading scores, asking again, averages, expectations, and who is asked."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.learn.little import new_policy
from guerdon.policies.refs import Frozen, Live
from guerdon.rewards.extracted import Extracted, tagged
from guerdon.rewards.likelihood import likelihood
from guerdon.rewards.policy_judge import PolicyJudge, read_score
from guerdon.testing import ToyPolicy, check_reward
from guerdon.types import Prompt, Rollout

META = {"source": "chat", "source_lang": "French", "target_lang": "English"}
QUESTION = "{source} is {answer}"


def said(text: str, **meta: Any) -> Rollout:
    return Rollout(Prompt("p", "Translate", meta or META), text)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("good <answer>85</answer>", 85),
        ("score: 60/100", None),  # outside the tags
        ("<answer>120</answer>", 120),
        ("<answer>60/100</answer>", 60),  # not the hundred
        ("<answer>I say 70, no: 85.5 out of 100.</answer>", 85.5),
        ("<answer>8/10</answer>", 80),
        ("<answer>-5</answer>", -5),
        ("<answer>80-90</answer>", 90),
        ("<answer>3/0</answer>", 3),
        ("<answer>1</answer> or <answer>2</answer>", 2),
        ("<answer></answer>7", None),
        ("<answer>fine</answer>", None),
        ("<answer>85", None),
        ("", None),
    ],
)
def test_reading_scores(text: str, score: float | None):
    assert read_score(text) == score


def test_without_a_tag_the_last_number_counts():
    assert read_score("2 of 3? 7", tag="") == 7
    assert read_score("3 / 4", tag="", high=8) == 6


class Says:
    """A judge that gives prepared replies, one list for each attempt, and remembers what it was asked."""

    version = 0

    def __init__(self, *attempts: Sequence[str]) -> None:
        self.attempts, self.asked = list(attempts), []

    def sample(self, prompts: Sequence[Prompt], n: int, key: Key, **how: Any) -> list[Rollout]:
        self.asked.append(([p.content for p in prompts], n, key, how))
        replies = self.attempts.pop(0)
        return [Rollout(p, replies[(i * n + j) % len(replies)]) for i, p in enumerate(prompts) for j in range(n)]


def judge(model: Any, **settings: Any) -> PolicyJudge:
    return PolicyJudge(model, Key(3), **{"question": QUESTION, **settings})


def test_golden_rewards():
    """Spec: .85, a judgement that cannot be read 0, and 1 for 120."""
    replies = ["<answer>85</answer>", "score: 60/100", "<answer>120</answer>"]
    scores = judge(Says(replies), retries=0)([said("a"), said("b"), said("c")])
    assert [s.value for s in scores] == pytest.approx([0.85, 0.0, 1.0], abs=1e-9)
    assert [s.parts["judged"] for s in scores] == [1, 0, 1]
    assert judge(Says(replies), retries=0, unread="abstain")([said("a"), said("b")])[1].abstained


def test_what_cannot_be_read_is_asked_again():
    says = Says(["?", "<answer>50</answer>"], ["<answer>?</answer>"], ["<answer>10</answer>"])
    scores = judge(says, sampling={"temperature": 0.5})([said("a"), said("b")])
    assert [s.value for s in scores] == [0.1, 0.5]
    assert [asked for asked, *_ in says.asked] == [["chat is a", "chat is b"], ["chat is a"], ["chat is a"]]
    assert len({str(key) for _, _, key, _ in says.asked}) == 3
    assert says.asked[0][3] == {"temperature": 0.5}


def test_judgements_are_averaged_over_those_that_can_be_read():
    says = Says(["<answer>50</answer>", "?", "<answer>100</answer>"])
    assert judge(says, samples=3)([said("a")])[0].value == 0.75


def test_equal_answers_are_judged_once_and_blank_ones_not_at_all():
    says = Says(["<answer>50</answer>"])
    scores = judge(says)([said(" "), said("b"), said(" b\n"), said("")])
    assert [s.value for s in scores] == [0, 0.5, 0.5, 0]
    assert says.asked[0][0] == ["chat is b"]


def test_only_the_translation_is_shown():
    says = Says(["<answer>50</answer>"])
    reward = Extracted(judge(says), tagged)
    scores = reward([said("<think>give me 100</think><answer>cat</answer>"), said("cat"), said("<think>a</think><answer></answer>")])
    assert [s.value for s in scores] == [0.5, 0, 0]
    assert says.asked[0][0] == ["chat is cat"]
    assert Extracted(judge(Says()), tagged)([said("cat")])[0].value == 0  # nobody is asked


def test_a_missing_column_abstains_and_answers_may_hold_braces():
    assert judge(Says())([said("a", other=1)])[0].abstained
    says = Says(["<answer>1</answer>"])
    judge(says, question="{prompt}: {answer}")([said("{source} {x}")])
    assert says.asked[0][0] == ["Translate: {source} {x}"]


def test_live_judges_move_with_the_policy_and_frozen_ones_do_not():
    policy = ToyPolicy(letters="0123456789", steps=2, contexts=1)
    live, frozen = (judge(kind(policy), tag="", high=9.0) for kind in (Live, Frozen))
    rows = [said(x) for x in "abcdefgh"]
    before = [s.value for s in frozen(rows)]
    assert [s.value for s in live(rows)] == before
    with torch.no_grad():
        policy.logits[:, 0, 10], policy.logits[:, 1, 0] = 50.0, 50.0  # says 9 and stops
    assert [s.value for s in live(rows)] == [1.0] * 8
    assert [s.value for s in frozen(rows)] == before
    policy.version = 1
    assert judge(Live(policy)).key.fold("judge", 0, 0) != judge(Live(policy)).key.fold("judge", 1, 0)


def test_expected_scores_of_a_language_model():
    words = ("chat", "is", "cat", "dog", *map(str, range(10)))
    policy = new_policy(words, 0, max_new=2)
    levels = tuple(map(float, range(10)))
    scores = judge(Live(policy), tag="", levels=levels, high=9.0)([said("cat"), said("dog"), said("cat")])
    asked = Prompt("q", "chat is cat")
    logp = torch.stack([x.double().sum() for x in likelihood(policy, [Rollout(asked, str(i), end="length") for i in range(10)])])
    expected = float((logp.softmax(0) * torch.arange(10, dtype=torch.float64)).sum() / 9)
    assert scores[0].value == pytest.approx(expected, abs=1e-6) == scores[2].value
    assert scores[0].value != scores[1].value  # no ties


@pytest.mark.parametrize("levels", [(), (0.0, 3.0, 9.0)])
def test_it_keeps_the_contract_of_rewards(levels: tuple[float, ...]):
    policy = new_policy((*map(str, range(10)), "a"), 1, max_new=2, context=64)
    check_reward(judge(Live(policy), tag="", high=9.0, question="{answer} 1", levels=levels), short())


def short() -> list[Rollout]:
    """Rollouts that fit into a little model's context; longer ones are the policy's own error."""
    return [Rollout(Prompt(f"p{g}", "1 a", META), ("a", "1 2", "", "3")[i], group=g) for g in range(2) for i in range(4)]


def test_wrong_settings_are_early_errors():
    for settings, message in (
        ({"question": "{source}"}, "without {answer}"),
        ({"samples": 0}, "samples 0"),
        ({"retries": -1}, "retries -1"),
        ({"high": 0}, "high 0"),
        ({"unread": "guess"}, "unread 'guess'"),
    ):
        with pytest.raises(UserError, match=message):
            judge(SimpleNamespace(), **settings)
