"""Target scores in prompts: the spec's worked example, and what goes wrong in the authors' code."""

import copy

import pytest

from guerdon.core.preference import goal_reward
from guerdon.core.rng import Key
from guerdon.data.goals import Goals, against_random, plain, scale
from guerdon.errors import UserError
from guerdon.testing import toy_pairs, toy_pools
from guerdon.types import Preference, Prompt, Rollout


def pair(high=8.5, low=7.0, content="Why?", id="p", **more):
    prompt = Prompt(id, content, {"score_chosen": high, "score_rejected": low, "topic": "t"})
    return Preference(prompt, (Rollout(prompt, "w"), Rollout(prompt, "l")), high - low, source="s", **more)


def said(item):
    return [r.content for r in item.ranked]


def test_worked_example():
    goals = Goals()
    first, second = goals.pairs([pair()])
    assert (first.prompt.meta["goal"], said(first)) == (8.5, ["w", "l"])
    assert (second.prompt.meta["goal"], said(second)) == (7.0, ["l", "w"])
    assert [goal_reward(s, 7.0) for s in (7.0, 8.5)] == [0.0, -2.25]
    assert first.margin == second.margin == 2.25
    assert "score: 8.5" in first.prompt.content
    assert second.prompt.content.endswith("score: 7\n\nWhy?")
    assert [r.prompt.meta["rating"] for r in second.ranked] == [7.0, 8.5]
    assert [p.prompt.meta["base_id"] for p in (first, second)] == ["p", "p"]
    assert len({first.prompt.id, second.prompt.id, "p"}) == 3
    assert all(r.prompt.content == second.prompt.content for r in second.ranked)


@pytest.mark.parametrize("system", [True, False])
def test_the_second_copy_is_reversed_with_and_without_a_system_role(system):
    """The authors' code exchanges the user turns, which are equal, when there is no system role: the label stays as it was."""
    asked = [{"role": "user", "content": "Why?"}]
    first, second = Goals(system=system).pairs([pair(content=asked)])
    assert said(first) == ["w", "l"]
    assert said(second) == ["l", "w"]
    assert first.prompt.content != second.prompt.content
    for item, goal in ((first, "8.5"), (second, "7")):
        roles = [m["role"] for m in item.prompt.content]
        assert roles == (["system", "user"] if system else ["user"])
        assert item.prompt.content[0]["content"].count(f"score: {goal}") == 1
    assert asked == [{"role": "user", "content": "Why?"}], "the messages that were given stay as they were"


def test_the_goal_is_there_once_however_often_a_prompt_is_used():
    chat = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "?"}]
    prompt = Prompt("p", chat)
    before = copy.deepcopy(chat)
    goals = Goals(system=True, template="goal {goal}")
    for _ in range(2):
        asked = goals.ask(prompt, 3.0)
        assert asked.content == [{"role": "system", "content": "goal 3\n\nBe kind."}, *chat[1:]]
    assert chat == before
    assert Goals(template="g{goal}").ask(prompt, 3.0).content[1] == {"role": "user", "content": "g3\n\nWhy?"}
    assert Goals(template="g{goal}", system=True).ask(Prompt("q", "Why?"), 3.0).content[0] == {"role": "system", "content": "g3"}
    [best] = Goals(high=9.0, template="g{goal} of {low} to {high}").best([Prompt("q", "Why?")])
    assert best.content == "g9 of 1 to 9\n\nWhy?"


def test_numbers_as_people_write_them():
    assert [plain(x) for x in (8.5, 7.0, 10.0, 6.666, 0.0, -0.001, -1.25, 100.0)] == ["8.5", "7", "10", "6.67", "0", "0", "-1.25", "100"]


def test_ties_missing_scores_and_scores_beyond_the_scale():
    goals, tie = Goals(), pair(4.0, 4.0)
    bare = Preference(Prompt("b", "x"), (Rollout(Prompt("b", "x"), "w"), Rollout(Prompt("b", "x"), "l")))
    assert goals.pairs([tie, bare]) == []
    [kept] = goals.pairs([tie], ties="keep")
    assert (kept.label, kept.margin, kept.prompt.meta["goal"]) == (0.5, 0.0, 4.0)
    assert goals.pairs([bare], unrated="keep") == [bare]
    first, second = goals.pairs([pair(12.0, -3.0)])
    assert [first.prompt.meta["goal"], second.prompt.meta["goal"]] == [10.0, 1.0]
    assert goals.pairs([pair(12.0, 11.0)]) == []  # cut to the scale they are equal
    with pytest.raises(UserError, match="no pair with two scores"):
        goals.toward(bare, 3.0)


def test_half_of_the_copies():
    pairs = [pair(id=str(i)) for i in range(200)]
    half = Goals().pairs(pairs, copies="half", key=Key(3))
    assert [p.prompt.meta["base_id"] for p in half] == [str(i) for i in range(200)]
    best = [p.prompt.meta["goal"] == 8.5 for p in half]
    assert 70 < sum(best) < 130
    assert all(said(p) == (["w", "l"] if top else ["l", "w"]) for p, top in zip(half, best, strict=True))
    assert half == Goals().pairs(pairs, copies="half", key=Key(3))
    assert half[50:] == Goals().pairs(pairs[50:], copies="half", key=Key(3))


def test_lists_give_the_best_against_a_random_other():
    pools = toy_pools(60, size=4)
    pairs = against_random(pools, Key(0))
    assert [said(p)[0] for p in pairs] == [said(p)[0] for p in pools]
    others = [said(pool).index(said(p)[1]) for p, pool in zip(pairs, pools, strict=True)]
    assert set(others) == {1, 2, 3}
    for p, pool, i in zip(pairs, pools, others, strict=True):
        scores = pool.prompt.meta["scores"]
        assert [r.prompt.meta["rating"] for r in p.ranked] == [scores[0], scores[i]]
        assert p.margin == scores[0] - scores[i]
        assert "scores" not in p.prompt.meta
    assert against_random(toy_pairs(3), Key(0)) == toy_pairs(3)


def test_the_scale_of_the_data():
    assert scale([pair(3.9, -1.2), pair(2.0, 1.0)]) == (-2.0, 4.0)
    assert scale([pair(3.0, 3.0)]) == (3.0, 4.0)
    with pytest.raises(UserError, match="none of 2 preferences has scores"):
        scale(toy_pairs(2))


def test_wrong_settings():
    with pytest.raises(UserError, match="no place for the goal"):
        Goals(template="best")
    with pytest.raises(UserError, match="a scale from 5 to 1"):
        Goals(5, 1)
    with pytest.raises(UserError, match="no user message"):
        Goals().ask(Prompt("p", [{"role": "system", "content": "x"}]), 1.0)
