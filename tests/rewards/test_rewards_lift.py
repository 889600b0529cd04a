import asyncio
import pickle
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from guerdon.errors import UserError
from guerdon.rewards import dry_run, groupwise, pointwise
from guerdon.rewards.lift import is_reward
from guerdon.rewards.rules import exact_match
from guerdon.types import Prompt, Rollout, Score, Span


def row(text="hello", group=0, name="p0", content="say hello", actions=None, **meta):
    actions = None if actions is None else torch.arange(actions)
    return Rollout(
        Prompt(name, content, meta), text, actions, mask=None if actions is None else torch.ones(len(actions)).bool(), group=group
    )


def test_parameters_are_filled_by_name_from_prompt_text_and_columns():
    """First line."""

    @pointwise
    def f(prompt, text, difficulty, rollout, bonus=0.5, *, scale=2.0):
        """Doc of f."""
        assert rollout.prompt.id == "p0"
        return scale * (len(prompt) + len(text) + difficulty + bonus)

    assert f.name == "f"
    assert f.__doc__ == "Doc of f."
    (score,) = f([row(difficulty=3, scale=100)])  # a setting is never taken from the data
    assert score.value == 2.0 * (9 + 5 + 3 + 0.5)
    assert f.bind(scale=1.0)([row(difficulty=3)])[0].value == 17.5
    assert f([row(difficulty=3, bonus=0)])[0].value == 34.0
    assert f.fn("ab", "c", 1, row(), 0) == 8.0
    with pytest.raises(UserError, match=r"(?s)no setting 'scael'.*did you mean 'scale'"):
        f.bind(scael=1)


def test_text_is_the_last_assistant_message_of_a_conversation():
    chat = [
        {"role": "assistant", "content": "one"},
        {"role": "tool", "content": "x"},
        {"role": "assistant", "content": [{"type": "text", "text": "two"}]},
    ]
    seen = []
    pointwise(lambda text: seen.append(text) or 1.0)([row(chat)])
    assert seen == ["two"]
    with pytest.raises(UserError, match="reads text"):
        pointwise(lambda text: 1.0)([row(torch.zeros(3))])


def test_a_row_without_the_column_abstains_and_the_dry_run_names_the_nearest():
    @pointwise
    def f(text, solution):
        return 1.0

    told = "reward 'f' asks for 'solution', which is no column of the data; columns: soluton (did you mean 'soluton'?)"
    bad, good = f([row(soluton="4"), row(solution="4")])
    assert bad.abstained
    assert bad.note == told
    assert good.value == 1.0
    with pytest.raises(UserError, match=re.escape(told)):
        dry_run(f, [row(soluton="4")])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0),
        (True, 1.0),
        (np.float32(0.5), 0.5),
        (torch.tensor([0.25]), 0.25),
        (np.array(2), 2.0),
        ({"score": 0.5, "acc": True, "why": "text"}, 0.5),
        ({"reward": 2}, 2.0),
        (SimpleNamespace(score=0.75, reason="good"), 0.75),
        (Score((Span(0, 2, 1.0), Span(2, 3, 0.5))), 1.5),
    ],
)
def test_what_a_function_may_return(value, expected):
    assert pointwise(lambda text: value)([row()])[0].value == expected


def test_parts_and_notes_of_returned_dicts_and_objects_are_kept():
    (score,) = pointwise(lambda text: {"score": 0.5, "acc": True, "bad": float("nan"), "why": "text"})([row()])
    assert dict(score.parts) == {"acc": 1.0}
    assert pointwise(lambda text: SimpleNamespace(score=1.0, reason="good"))([row()])[0].note == "good"


@pytest.mark.parametrize(
    "value", [None, float("nan"), torch.tensor(float("nan")), {"score": None}, SimpleNamespace(score=1, is_score_valid=False)]
)
def test_none_and_nan_abstain(value):
    (score,) = pointwise(lambda text: value)([row()])
    assert score.abstained
    assert score.note


def named_f(value):
    def my_reward(text):
        return value

    return my_reward


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), "good", [1.0], (1.0, 2.0), torch.ones(3), object(), {"foo": 1}, 1j])
def test_anything_else_is_an_error_with_name_value_and_expectation(value):
    with pytest.raises(UserError, match=r"(?s)'my_reward' returned .* for rollout 'p0', expected a finite number.*\nhint: "):
        pointwise(named_f(value))([row()])


def test_an_exception_abstains_and_says_where():
    @pointwise
    def f(text):
        return 1 / len(text)

    bad, good = f([row(""), row("ab")])
    assert bad.abstained
    assert bad.note.startswith("raised ZeroDivisionError: division by zero (test_rewards_lift.py:")
    assert good.value == 0.5


def test_coroutines_run_side_by_side_also_inside_a_running_loop():
    inside = 0
    most = 0

    @pointwise
    async def f(text):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.01)
        inside -= 1
        if text == "x":
            raise ValueError("no")
        return len(text)

    rows = [row("a"), row("x"), row("abc")]
    assert [s.value for s in f(rows)][::2] == [1.0, 3.0]
    assert most == 3

    async def main():
        return f(rows)

    assert [s.abstained for s in asyncio.run(main())] == [False, True, False]


def test_groupwise_sees_one_prompt_at_a_time_and_keeps_the_order():
    @groupwise
    def majority(texts, topic):
        assert topic in ("x", "y")
        return [float(texts.count(t) * 2 > len(texts)) for t in texts]

    rows = [
        row("a", 0, "p", topic="x"),
        row("b", 1, "q", topic="y"),
        row("a", 0, "p", topic="x"),
        row("c", 0, "p", topic="x"),
        row("b", 1, "q", topic="y"),
    ]
    assert [s.value for s in majority(rows)] == [1, 1, 1, 0, 1]
    same_number = [row("a", 0, "p", topic="x"), row("b", 0, "q", topic="y")]  # offline rows all carry group 0
    assert [s.value for s in majority(same_number)] == [1, 1]


def test_groupwise_wrong_length_is_an_error_and_an_exception_abstains_the_group():
    @groupwise
    def g(texts):
        return [1.0]

    with pytest.raises(UserError, match=r"'g' returned 1 values for 2 rollouts, expected a list of 2"):
        g([row(), row()])

    @groupwise
    def h(texts):
        return [1.0 / (len(texts) - 1)] * len(texts)

    assert [s.abstained for s in h([row(), row(), row(group=1)])] == [False, False, True]


def test_lifted_rewards_pickle_by_name_also_with_settings():
    assert pickle.loads(pickle.dumps(exact_match)) is exact_match
    copy = pickle.loads(pickle.dumps(exact_match.bind(tag="")))
    assert copy.settings == {"tag": ""}
    assert copy([row("4", answer="4")])[0].value == 1.0


def test_is_reward():
    assert is_reward(exact_match)
    assert not is_reward(lambda prompt, text: 1.0)
    assert not is_reward(3)
