"""Requests, styles and who sees what."""

import json
from typing import Any

import pytest

from guerdon.core.rng import Key
from guerdon.data import load
from guerdon.data.attacks import (
    answered,
    as_asked,
    attack,
    by_style_and_topic,
    check_requests,
    evenly,
    read_styles,
    retrofit,
    split,
    toy_requests,
)
from guerdon.errors import UserError
from guerdon.types import Prompt, Rollout

STYLES = {"story": "Tell a story: {request}", "order": "Obey! {request}"}


def requests(topics=("a", "b", "c"), n=10, benign=0):
    made = [Prompt(f"{t}{i}", f"ask {t}{i}", {"topic": t}) for t in topics for i in range(n)]
    return made + [Prompt(f"ok{i}", f"kind {i}", {"topic": "ok", "benign": True}) for i in range(benign)]


def rows(path, *found):
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


def test_what_was_asked_stays_beside_the_attack():
    chat = Prompt("r", [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}], {"topic": "t", "x": 1})
    asked = attack(chat, "story", "Story: {request}!")
    assert asked.content == [{"role": "system", "content": "s"}, {"role": "user", "content": "Story: q!"}]
    assert asked.meta == {"topic": "t", "x": 1, "style": "story", "base_id": "r", "request": chat.content}
    assert (asked.id, attack(chat, "none").id) == ("r@story", "r")
    assert as_asked(Rollout(asked, "no")).prompt.content == chat.content
    assert attack(Prompt("r", "{request}?"), "s", "<{request}>").content == "<{request}?>"
    with pytest.raises(UserError, match="no user message"):
        attack(Prompt("r", [{"role": "system", "content": "s"}]), "story", "{request}")


def test_nothing_leaks_into_the_test():
    found = split(requests(benign=3), STYLES, hold_styles=["order"], hold_topics=["c"], test_share=0.2, key=Key(0))
    seen, tested = {p.meta["base_id"] for p in found.train}, [p for p in found.test if p.meta["seen"] == "seen"]
    assert {p.meta["style"] for p in found.train} == {"none", "story"}
    assert {p.meta["topic"] for p in found.train} == {"a", "b"}
    assert not seen & {p.meta["base_id"] for p in tested}, "a request is on one side, in whatever style"
    assert len(seen) == 16  # 8 of 10 of each topic
    assert len(found.train) == 32
    assert len(tested) == 4 * 2
    sets = {
        name: {(p.meta["style"] == "order", p.meta["topic"] == "c") for p in found.test if p.meta["seen"] == name}
        for name in ("seen", "style", "topic", "both")
    }
    assert sets == {"seen": {(False, False)}, "style": {(True, False)}, "topic": {(False, True)}, "both": {(True, True)}}
    assert len(found.train) + len(found.test) == 30 * 3
    assert len(found.benign) == 3 * 3
    again = split(list(reversed(requests(benign=3))), STYLES, hold_styles=["order"], hold_topics=["c"], test_share=0.2, key=Key(0))
    assert {p.id for p in again.train} == {p.id for p in found.train}, "the order of the file does not matter"


def test_harmless_requests_for_training_are_no_test():
    how: Any = dict(hold_styles=["order"], hold_topics=["c"], key=Key(0))
    more = [Prompt(f"c/ok{i}", f"kind c {i}", {"topic": "c", "benign": True}) for i in range(5)]
    found, plain = (split([*requests(benign=10), *more], STYLES, harmless=harmless, **how) for harmless in (True, False))
    assert (found.train, found.test) == (plain.train, plain.test)
    assert plain.harmless == () and len(plain.benign) == 15 * 3
    assert {p.meta["style"] for p in found.harmless} == {"none", "story"}
    assert len(found.harmless) == 8 * 2 and {p.meta["topic"] for p in found.harmless} == {"ok"}
    assert len(found.benign) == (2 + 5) * 3
    assert not {p.meta["base_id"] for p in found.harmless} & {p.meta["base_id"] for p in found.benign}
    with pytest.raises(UserError, match="no harmless request is left"):
        split(requests(), STYLES, harmless=True, key=Key(0))


def test_a_refusal_is_rejected_where_none_is_due():
    kind = [
        Rollout(attack(r, "story", STYLES["story"]), text)
        for r, text in zip(requests(benign=3)[-3:], ("fine", "", "I won't."), strict=True)
    ]
    [pair] = answered(kind, refusal="I won't.")
    assert [r.content for r in pair.ranked] == ["fine", "I won't."]
    assert pair.prompt == kind[0].prompt and pair.source == "harmless"


def test_wrong_requests():
    with pytest.raises(UserError, match=r"request 'x' .number 31 of 31. has no topic, and 30 others have"):
        check_requests([*requests(), Prompt("x", "q")])
    with pytest.raises(UserError, match=r"request 'a0' .number 31 of 31. has the id of number 1"):
        check_requests([*requests(), requests()[0]])
    check_requests([Prompt("x", "q"), Prompt("y", "r")])
    assert {p.meta["topic"] for p in split([Prompt("x", "q"), Prompt("y", "r")], STYLES, key=Key(0)).train} == {"all"}
    with pytest.raises(UserError, match="held out style 'oder' does not occur\nhint: did you mean 'order'"):
        split(requests(), STYLES, hold_styles=["oder"], key=Key(0))
    with pytest.raises(UserError, match="held out topic 'z' does not occur"):
        split(requests(), STYLES, hold_topics=["z"], key=Key(0))
    with pytest.raises(UserError, match="no request is left to train on"):
        split(requests(), STYLES, hold_topics=["a", "b", "c"], key=Key(0))


def test_styles_from_a_file(tmp_path):
    good = rows(tmp_path / "s.jsonl", {"style": "story", "template": "Story: {request}"}, {"style": "x", "template": "{request}"})
    assert read_styles(good) == {"story": "Story: {request}", "x": "{request}"}
    assert all(t.count("{request}") == 1 for t in read_styles("toy").values())
    wrong = [
        ({"name": "story", "template": "{request}"}, "line 1: no style .columns: name, template."),
        ({"style": "story", "template": ""}, "no template"),
        ({"style": "story", "template": "Story"}, "has 0 places {request}"),
        ({"style": "story", "template": "{request} {request}"}, "has 2 places"),
        ({"style": "none", "template": "{request}"}, "style 'none' is the plain request itself"),
    ]
    for row, match in wrong:
        with pytest.raises(UserError, match=match):
            read_styles(rows(tmp_path / "w.jsonl", row))
    twice = {"style": "x", "template": "{request}"}
    with pytest.raises(UserError, match="style 'x' is given before"):
        read_styles(rows(tmp_path / "w.jsonl", twice, twice))
    with pytest.raises(UserError, match="no file"):
        read_styles(tmp_path / "nothing.jsonl")


def answer(request, style, text):
    return Rollout(attack(request, style, STYLES.get(style, "{request}")), text)


def test_where_the_safe_answer_comes_from():
    given = Prompt("g", "q", {"topic": "a", "safe": "No, and here is why."})
    own, styled, bare = (Prompt(id, id, {"topic": "a"}) for id in ("own", "styled", "bare"))
    said = [
        (answer(given, "story", "bad"), 1),
        (answer(given, "none", "fine"), 0),
        (answer(own, "story", "bad"), 1),
        (answer(own, "order", "safe in a style"), 0),
        (answer(own, "none", "safe and plain"), 0),
        (answer(styled, "story", "bad"), 1),
        (answer(styled, "order", "safe in a style"), 0),
        (answer(bare, "story", "bad"), 1),
        (answer(bare, "none", ""), 0),
        (answer(bare, "order", ""), 1),
        (answer(bare, "order", "?"), float("nan")),
        (answer(bare, "order", "I won't."), 1),
    ]
    pairs = retrofit([r for r, _ in said], [v for _, v in said], refusal="I won't.")
    assert [p.prompt.id for p in pairs] == ["g@story", "own@story", "styled@story", "bare@story"]
    assert [p.ranked[0].content for p in pairs] == ["No, and here is why.", "safe and plain", "safe in a style", "I won't."]
    assert all(r.prompt == p.prompt for p in pairs for r in p.ranked)
    assert [p.ranked[1].content for p in pairs] == ["bad"] * 4


def test_evenly_over_cells():
    prompts = [attack(r, s, STYLES[s]) for r in requests(n=20) for s in STYLES] + [attack(requests()[0], "none")]
    taken = evenly(prompts, 13, cell=by_style_and_topic, key=Key(1))
    cells = [by_style_and_topic(p) for p in taken]
    assert sorted(cells.count(c) for c in set(cells)) == [1, 2, 2, 2, 2, 2, 2]
    assert taken == evenly(prompts, 13, cell=by_style_and_topic, key=Key(1))
    assert len(evenly(prompts, 999, cell=by_style_and_topic, key=Key(1))) == len(prompts)
    assert evenly([], 3, cell=by_style_and_topic, key=Key(1)) == []


def test_the_toy_by_name():
    found = load("toy-requests", "prompts").items
    assert found == toy_requests()
    check_requests(found)
    assert sum(bool(p.meta["benign"]) for p in found) * 2 == len(found) == 48
    for wrong in ("toy-requests:x", "toy-requests?n=3"):
        with pytest.raises(UserError):
            load(wrong, "prompts")
    with pytest.raises(UserError):
        load("toy-requests", "pairs")
