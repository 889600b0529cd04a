"""Stated confidence in text, and pairs that state it four ways."""

import pytest

from guerdon.core.rng import Key
from guerdon.data.confidence import ASK, FourWays, asked, stated, unstated
from guerdon.errors import UserError
from guerdon.types import Preference, Prompt, Rollout


@pytest.mark.parametrize(
    ("text", "value", "rest"),
    [
        ("4\nConfidence: 8.", 8, "4"),
        ("4\nconfidence:8/10", 8, "4"),
        ("4 CONFIDENCE: 8 / 10.", 8, "4"),
        ("4\n**Confidence:** 7.5", 7.5, "4"),
        ("4\n**Confidence**: 7", 7, "4"),
        ("4\nConfidence: 11", 10, "4"),
        ("4\nConfidence: -3", 0, "4"),
        ("4\nConfidence: 2\nConfidence: 9", 2, "4"),
        ("Confidence: 6. The answer is 4", 6, "The answer is 4"),
        ("4", None, "4"),
        ("  4 \n", None, "  4 \n"),
        ("My confidence is 8", None, "My confidence is 8"),
        ("Overconfidence: 8", None, "Overconfidence: 8"),
        ("Confidence: high", None, "Confidence: high"),
        ("", None, ""),
    ],
)
def test_parsed_and_stripped(text, value, rest):
    assert stated(text) == value
    assert unstated(text) == rest


def pair(chosen="4", rejected="5", prompt="2 + 2?"):
    asked_ = Prompt("p", prompt)
    return Preference(asked_, (Rollout(asked_, chosen), Rollout(asked_, rejected)), margin=1.0, source="test")


def test_four_ways():
    four = FourWays(confident=("9",), unsure=("1",))(pair("4\nConfidence: 3"))
    texts = [r.content for r in four.ranked]
    assert texts == ["4\nConfidence: 9.", "4\nConfidence: 1.", "5\nConfidence: 1.", "5\nConfidence: 9."]
    assert all(r.prompt == four.prompt for r in four.ranked)
    assert four.prompt.content == f"2 + 2?\n\n{ASK}"
    assert four.margin is None


def test_which_confidences_depends_on_the_pair_and_the_key_alone():
    ways, pairs = FourWays(), [pair(str(i), str(i + 1)) for i in range(40)]
    levels = [[stated(r.content) for r in ways(p).ranked] for p in pairs]
    assert {x[0] for x in levels} == {7, 8, 9, 10}
    assert {x[1] for x in levels} == {0, 1, 2, 3}
    assert all((x[0], x[1]) == (x[3], x[2]) for x in levels)  # the same for both answers
    assert [[stated(r.content) for r in ways(p).ranked] for p in reversed(pairs)] == levels[::-1]
    assert [[stated(r.content) for r in ways(p, Key(1)).ranked] for p in pairs] != levels


def test_asking_in_a_conversation():
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    found = asked(Prompt("p", turns), "sure?").content
    assert [m["content"] for m in found] == ["a", "b", "c\n\nsure?"]
    assert turns[2]["content"] == "c"
    assert asked(Prompt("p", turns), "").content == turns
    with pytest.raises(UserError, match="no user message"):
        asked(Prompt("p", turns[1:2]))


def test_what_is_refused():
    with pytest.raises(UserError, match="confidence"):
        FourWays(statement="{answer}")
    with pytest.raises(UserError, match="no confidences"):
        FourWays(unsure=())
    three = Preference(Prompt("p", "?"), (Rollout(Prompt("p", "?"), "a"),) * 3)
    with pytest.raises(UserError, match="3 responses"):
        FourWays()(three)
    with pytest.raises(UserError, match="plain text"):
        FourWays()(Preference(Prompt("p", "?"), (Rollout(Prompt("p", "?"), ["a"]),) * 2))
