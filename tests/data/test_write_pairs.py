"""Every layout of preferences that is read can be written, and is then read as what it was."""

import pytest

from guerdon.data import LAYOUTS, load, write_jsonl
from guerdon.data.write_pairs import LISTS, PAIRS, rows_of
from guerdon.errors import UserError
from guerdon.types import Preference, Prompt, Rollout


def preference(*texts, content="Why is the sky blue?", meta=None, **more):
    prompt = Prompt("p-1", content, {"topic": "sky", **(meta or {})})
    return Preference(prompt, tuple(Rollout(prompt, text) for text in texts), **more)


CHAT = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Why?"}]
PAIR = preference("Because of air.", "No idea.", margin=2.5, label=0.8, source="people")
LIST = preference("Air.", "Light.", "God knows.", meta={"scores": [9.0, 7.0, 2.5]})


def text(content):
    return content if isinstance(content, str) else content[-1]["content"]


def test_nothing_that_is_read_cannot_be_written():
    read = {x.name for x in LAYOUTS if x.kind in ("pairs", "pools")}
    assert {*PAIRS, *LISTS} - {"unpaired"} == read


@pytest.mark.parametrize("layout", [x for x in PAIRS if x != "unpaired"])
@pytest.mark.parametrize("content", ["Why is the sky blue?", CHAT], ids=["text", "chat"])
def test_pairs_there_and_back(tmp_path, layout, content):
    item = preference("Because of air.", "No idea.", content=content, margin=2.5, label=0.8, source="people")
    path = tmp_path / "x.jsonl"
    if content is CHAT and layout in ("swift-query-preference", "alpaca-preference", "rewardbench"):
        with pytest.raises(UserError, match="this layout holds plain text"):
            write_jsonl(path, [item], layout=layout)
        assert list(tmp_path.iterdir()) == []
        return
    assert write_jsonl(path, [item], layout=layout) == 1
    found = load(path, "pairs")
    assert found.detected.layout == layout
    [back] = found.items
    assert text(back.prompt.content) == text(content)
    assert [text(r.content) for r in back.ranked] == ["Because of air.", "No idea."]
    assert (back.margin, back.label, back.source) == (2.5, 0.8, "people")
    assert back.prompt.meta["topic"] == "sky"
    assert back.prompt.id == "p-1"
    if content is CHAT:
        assert back.prompt.content == CHAT


@pytest.mark.parametrize("layout", LISTS)
def test_lists_there_and_back(tmp_path, layout):
    path = tmp_path / "x.jsonl"
    assert write_jsonl(path, [LIST], layout=layout) == 1
    found = load(path, "pools")
    assert found.detected.layout == layout
    [back] = found.items
    assert [r.content for r in back.ranked] == ["Air.", "Light.", "God knows."]
    want = {"nectar": [-1.0, -2.0, -3.0], "rewardbench-2": [1.0, 0.0, 0.0]}.get(layout, [9.0, 7.0, 2.5])
    assert back.prompt.meta["scores"] == want
    assert back.prompt.meta["topic"] == "sky"


def test_a_pair_as_two_verdicts(tmp_path):
    path = tmp_path / "x.jsonl"
    assert write_jsonl(path, [PAIR], layout="unpaired") == 2
    found = load(path, "unpaired")
    assert [(r.content, r.prompt.meta["label"], r.prompt.id) for r in found.items] == [
        ("Because of air.", 1.0, "p-1/chosen"),
        ("No idea.", 0.0, "p-1/rejected"),
    ]


def test_scores_of_responses_are_kept(tmp_path):
    prompt = Prompt("p", "q")
    rated = [Rollout(Prompt("p", "q", {"rating": x}), text) for text, x in (("a", 3.5), ("b", 1.0))]
    [row] = rows_of(Preference(prompt, tuple(rated)), "preference")
    assert (row["score_chosen"], row["score_rejected"]) == (3.5, 1.0)
    write_jsonl(tmp_path / "x.jsonl", [Preference(prompt, (*rated, Rollout(Prompt("p", "q", {"rating": -2.0}), "c")))])
    assert load(tmp_path / "x.jsonl", "pools").items[0].prompt.meta["scores"] == [3.5, 1.0, -2.0]


def test_what_does_not_fit():
    with pytest.raises(UserError, match="unknown layout of preferences 'hh'\nhint: "):
        rows_of(PAIR, "hh")
    with pytest.raises(UserError, match="has 3 responses, and hh-rlhf holds pairs\nhint: take pool"):
        rows_of(LIST, "hh-rlhf")
    with pytest.raises(UserError, match="a system turn, unknown to transcripts"):
        rows_of(preference("a", "b", content=[{"role": "system", "content": "s"}, *CHAT]), "hh-rlhf")
    two = [{"role": "assistant", "content": ""}, {"role": "tool", "content": "2"}]
    with pytest.raises(UserError, match="has 2 messages"):
        rows_of(preference(two, "b", content=CHAT), "messages-preference")


def test_only_preferences_have_such_layouts(tmp_path):
    with pytest.raises(UserError, match="is for preferences, and was given a Prompt"):
        write_jsonl(tmp_path / "x.jsonl", [Prompt("p", "q")], layout="pool")
