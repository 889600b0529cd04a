"""Detection, its report, wrong rows, conversions, named sources, and the way back to a file."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.core.rng import Key
from guerdon.data import load, write_jsonl
from guerdon.errors import UserError
from guerdon.types import Preference, Prompt, Rollout

U = lambda text: {"role": "user", "content": text}
A = lambda text: {"role": "assistant", "content": text}
PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}

# ---------------------------------------------------------------- what is told


def test_the_report():
    rows = [
        {"question": [U("Sky?")], "chosen": [A("Blue.")], "rejected": [A("Red.")], "score_chosen": 2, "score_rejected": 1, "lvl": 3}
    ] * 2
    d = load(rows, "pairs").detected
    assert (d.layout, d.kind, d.form, d.rows, d.items, d.skipped) == ("preference", "pairs", "chat", 2, 2, 0)
    assert d.columns == {
        "prompt": "question",
        "chosen": "chosen",
        "rejected": "rejected",
        "score_chosen": "score_chosen",
        "score_rejected": "score_rejected",
    }
    assert d.extra == ("score_chosen", "score_rejected", "lvl")
    assert d.first == "[prompt] <user> Sky?\n[chosen] Blue.\n[rejected] Red.\n[margin] 1"
    assert json.loads(json.dumps(d.as_dict()))["columns"]["prompt"] == "question"
    assert "prompt <- question" in str(d)
    assert "  [chosen] Blue." in str(d).splitlines()


def test_ids_are_stable_and_distinct():
    rows = [{"prompt": "a"}, {"prompt": "a"}, {"prompt": [U("a")]}, {"id": 5, "prompt": "b"}]
    ids = [p.id for p in load(rows, "prompts").items]
    assert ids == [p.id for p in load(rows, "prompts").items]
    assert len(set(ids)) == 4
    assert ids[0].endswith("-0")
    assert ids[0].partition("-")[0] == ids[1].partition("-")[0]
    assert ids[3] == "5"


def test_long_first_rows_are_cut():
    first = load([{"prompt": "x" * 5000}], "prompts").detected.first
    assert len(first) < 1400
    assert "3800 characters" in first


def test_columns_by_hand():
    rows = [{"q": "p", "good": "a", "worse": "b", "prompt": "another"}]
    loaded = load(rows, "pairs", columns={"prompt": "q", "chosen": "good", "rejected": "worse"})
    assert loaded.items[0].prompt.content == "p"
    assert dict(loaded.items[0].prompt.meta) == {"prompt": "another"}
    assert loaded.detected.columns == {"prompt": "q", "chosen": "good", "rejected": "worse"}
    # `completion` by hand wins over the layout that would have taken `response`
    demo = load([{"query": "p", "response": "a", "gold": "g"}], "demos", columns={"completion": "gold"}).items[0]
    assert (demo.content, dict(demo.prompt.meta)) == ("g", {"response": "a"})
    truth = load([{"prompt": "p", "answer": "1", "gold": "2"}], "prompts", columns={"ground_truth": "gold"}).items[0]
    assert truth.meta["ground_truth"] == "2"


def test_layout_by_hand():
    rows = [{"question": "p", "answer": "a", "label": 1}]
    assert load(rows, "prompts", layout="prompt").detected.layout == "prompt"
    with pytest.raises(UserError, match=r"unknown layout 'shargpt'\nhint: did you mean 'sharegpt'"):
        load(rows, "demos", layout="shargpt")
    with pytest.raises(
        UserError, match=r"layout 'prompt' holds prompts to respond to, not preference pairs .*\nhint: layouts that can serve: .*hh-rlhf"
    ):
        load(rows, "pairs", layout="prompt")
    with pytest.raises(UserError, match=r"does not fit layout 'sharegpt': column 'conversations' or 'conversation' is missing\nhint: "):
        load(rows, "demos", layout="sharegpt")
    with pytest.raises(UserError, match=r"does not fit layout 'nectar': column 'answers' is of type str: \"a\""):
        load([{"prompt": "p", "answers": "a"}], "pools", layout="nectar")


# ---------------------------------------------------------------- nothing fits

NO_LAYOUT = [
    (
        {"prompt": "p", "choosen": "a", "rejected": "b"},
        "pairs",
        r"'chosen' .*is missing; did you mean 'choosen'\? .*columns=\{'chosen': 'choosen'\}",
    ),
    ({"promt": "p", "completion": "a"}, "demos", r"'prompt' .*is missing; did you mean 'promt'\?"),
    ({"mesages": [U("p"), A("a")]}, "demos", r"did you mean 'mesages'\?"),
    ({"prompt": "p"}, "pairs", r"do not make preference pairs .*look like prompts to respond to .*\nhint: .*'preference': column 'chosen'"),
    ({"text": "words"}, "prompts", r"do not make prompts .*\nhint: .*column 'prompt'"),
    ({"prompt": "p", "completion": "c", "label": True}, "pairs", r"look like single answers judged good or bad"),
    ({"prompt": "p", "completion": "c"}, "unpaired", r"'unpaired': column 'label'"),
    ({"x": 1}, "prompts", r"has the columns x, which do not make prompts"),
]


@pytest.mark.parametrize(("row", "kind", "message"), NO_LAYOUT)
def test_no_layout_fits(row, kind, message):
    with pytest.raises(UserError, match=message):
        load([row], kind)


def test_wrong_columns_by_hand():
    with pytest.raises(UserError, match=r"unknown target 'promt'\nhint: did you mean 'prompt'"):
        load([PAIR], "pairs", columns={"promt": "prompt"})
    with pytest.raises(UserError, match=r"has no column 'chozen' \(wanted for 'chosen'\)\nhint: did you mean 'chosen'"):
        load([PAIR], "pairs", columns={"chosen": "chozen"})
    with pytest.raises(UserError, match=r"takes 'margin' from 'gap' \(\"wide\"\)"):
        load([{**PAIR, "gap": "wide"}], "pairs", columns={"margin": "gap"})


# ---------------------------------------------------------------- wrong rows

GOOD = {
    "prompts": {"prompt": "p"},
    "pairs": PAIR,
    "chat": {"chosen": [U("p"), A("a")], "rejected": [U("p"), A("b")]},
    "demos": {"prompt": "p", "completion": "c"},
    "messages": {"messages": [U("p"), A("c")]},
    "unpaired": {"prompt": "p", "completion": "c", "label": 1},
    "stepwise": {"prompt": "p", "completions": ["a", "b"], "labels": [1, 0]},
    "processbench": {"problem": "p", "steps": ["a"], "label": 0},
    "shepherd": {"input": "p Step 1: a ки", "label": "p Step 1: a +"},
    "pools": {"prompt": "p", "responses": ["a", "b"], "scores": [1, 0]},
    "nectar": {"prompt": "p", "answers": [{"answer": "a", "rank": 1}, {"answer": "b", "rank": 2}]},
    "hh": {"chosen": "Human: p\n\nAssistant: a", "rejected": "Human: p\n\nAssistant: b"},
}
WRONG = [
    ("prompts", {"prompt": "  "}, "prompts", r"empty prompt in column 'prompt'"),
    ("prompts", {"prompt": None}, "prompts", r"column 'prompt' is empty"),
    ("prompts", {"prompt": []}, "prompts", r"column 'prompt' is empty"),
    ("prompts", {"prompt": [U("")]}, "prompts", r"empty prompt"),
    ("prompts", {"prompt": [{"role": "system", "content": "s"}, U(" ")]}, "prompts", r"empty prompt: the last user message"),
    ("prompts", {"prompt": 7}, "prompts", r"column 'prompt' is of type int, expected a string or chat messages"),
    ("prompts", {"prompt": [{"role": "usr", "content": "p"}]}, "prompts", r"unknown role 'usr'\nhint: did you mean 'user'"),
    ("prompts", {"prompt": [{"role": "user", "content": 3}]}, "prompts", r"user message's content is of type int"),
    ("prompts", {"prompt": [{"role": "user", "content": None}]}, "prompts", r"user message's content is missing"),
    ("prompts", {"promt": "p"}, "prompts", r"column 'prompt' is missing\nhint: .*did you mean 'promt'"),
    ("pairs", {**PAIR, "rejected": "a"}, "pairs", r"chosen == rejected"),
    ("pairs", {**PAIR, "rejected": ""}, "pairs", r"empty completion in column 'rejected'"),
    ("pairs", {**PAIR, "rejected": None}, "pairs", r"chosen is of type str and rejected missing"),
    ("pairs", {**PAIR, "chosen": 3, "rejected": 4}, "pairs", r"column 'chosen' is of type int, expected a string"),
    ("pairs", {**PAIR, "rejected": [A("b")]}, "pairs", r"chosen is of type str and rejected an assistant's message"),
    (
        "pairs",
        {**PAIR, "chosen": [U("p"), A("a")], "rejected": [A("b")]},
        "pairs",
        r"chosen is a whole conversation and rejected an assistant",
    ),
    ("pairs", {"prompt": "p", "chosen": "a"}, "pairs", r"column 'rejected' is missing"),
    ("chat", {"chosen": [U("p"), A("a")], "rejected": [U("q"), A("b")]}, "pairs", r"share no common beginning"),
    ("chat", {"chosen": [U("p"), A("a")], "rejected": [U("p"), U("b")]}, "pairs", r"share no common beginning"),
    ("chat", {"chosen": [U("p"), A("a")], "rejected": [U("p"), A("a")]}, "pairs", r"chosen == rejected"),
    ("chat", {"chosen": "one two", "rejected": "six two"}, "pairs", r"share no common beginning"),
    ("chat", {"chosen": "one two", "rejected": "one two"}, "pairs", r"chosen == rejected"),
    ("chat", {"chosen": 1, "rejected": 2}, "pairs", r"expected two strings or two conversations"),
    ("hh", {"chosen": "p", "rejected": "q"}, "pairs", r"not a transcript"),
    ("hh", {"chosen": "Human: p\n\nAssistant: a", "rejected": "Human: p\n\nAssistant:"}, "pairs", r"share no common beginning"),
    ("demos", {"prompt": "p", "completion": ""}, "demos", r"empty completion in column 'completion'"),
    ("demos", {"prompt": "p", "completion": 3.5}, "demos", r"column 'completion' is of type float"),
    ("messages", {"messages": [U("p")]}, "demos", r"ends with the user, expected an answer"),
    ("messages", {"messages": [A("c")]}, "demos", r"there is no prompt"),
    ("messages", {"messages": "words"}, "demos", r"column 'messages' is a string, expected chat messages"),
    (
        "unpaired",
        {"prompt": "p", "completion": "c", "label": 2},
        "unpaired",
        r"label 2 in column 'label', expected true/false or a number in \[0, 1\]",
    ),
    ("unpaired", {"prompt": "p", "completion": "c", "label": -1}, "unpaired", r"label -1"),
    ("unpaired", {"prompt": "p", "completion": "c", "label": None}, "unpaired", r"label None"),
    ("unpaired", {"prompt": "p", "completion": "c", "label": math.nan}, "unpaired", r"label nan"),
    ("stepwise", {"prompt": "p", "completions": ["a"], "labels": [1, 0]}, "stepwise", r"1 steps, 2 labels"),
    (
        "stepwise",
        {"prompt": "p", "completions": ["a", 2], "labels": [1, 0]},
        "stepwise",
        r"column 'completions' is of type list: \[\"a\", 2\], unlike",
    ),
    ("stepwise", {"prompt": "p", "completions": ["a"], "labels": [3]}, "stepwise", r"label 3 in column 'labels'"),
    ("stepwise", {"prompt": "p", "completions": None, "labels": [3]}, "stepwise", r"column 'completions' is missing: null, unlike"),
    ("processbench", {"problem": "p", "steps": ["a"], "label": 4}, "stepwise", r"label 4 with 1 steps"),
    ("shepherd", {"input": "p Step 1: a ки", "label": "p Step 1: a ?"}, "stepwise", r"has '\?' where step 1 ends"),
    ("shepherd", {"input": "p one: a ки", "label": "p one: a +"}, "stepwise", r"no 'Step 1:'"),
    ("pools", {"prompt": "p", "responses": ["a"], "scores": [1, 0]}, "pools", r"1 responses, 2 scores"),
    ("pools", {"prompt": "p", "responses": ["a", "b"], "scores": [1, None]}, "pools", r"1 scored responses, expected at least 2"),
    ("pools", {"prompt": "p", "responses": ["a", "b"], "scores": [1, "high"]}, "pools", r"score 'high'"),
    ("nectar", {"prompt": "p", "answers": [{"answer": "a", "rank": None}, {"answer": "b", "rank": 2}]}, "pools", r"rank None"),
]


@pytest.mark.parametrize(("good", "row", "kind", "message"), WRONG)
def test_a_wrong_row_is_named_or_skipped(tmp_path, good, row, kind, message):
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(map(json.dumps, [GOOD[good], row, GOOD[good]])))
    with pytest.raises(UserError, match=r"x.jsonl line 2: .*" + message) as caught:
        load(path, kind)
    assert "\nhint: " in str(caught.value)
    loaded = load(path, kind, bad="skip")
    assert (len(loaded.items), loaded.detected.rows, loaded.detected.skipped) == (2, 3, 1)
    assert "1 of 3 rows skipped; the first: " in loaded.detected.notes[-1]


def test_all_rows_wrong():
    with pytest.raises(UserError, match=r"gives no preference pairs .*2 of 2 rows skipped"):
        load([{**PAIR, "rejected": "a"}] * 2, "pairs", bad="skip")


# ---------------------------------------------------------------- other kinds


def test_pairs_as_other_kinds():
    [demo] = load([PAIR], "demos").items
    assert (demo.prompt.content, demo.content) == ("p", "a")
    loaded = load([PAIR], "prompts")
    assert loaded.items[0].content == "p"
    assert dict(loaded.items[0].meta) == {"chosen": "a", "rejected": "b"}
    assert loaded.detected.kind == "prompts"
    assert "prompts of the pairs" in loaded.detected.notes[0]
    assert [(r.content, r.prompt.meta["label"]) for r in load([PAIR], "unpaired").items] == [("a", 1.0), ("b", 0.0)]
    assert len(load([PAIR], "pools").items[0].ranked) == 2


def test_judged_answers_as_demos_are_the_good_ones():
    rows = [{"prompt": "p", "completion": c, "label": x} for c, x in (("a", 1), ("b", 0), ("c", 0.5))]
    loaded = load(rows, "demos")
    assert [r.content for r in loaded.items] == ["a", "c"]
    assert "2 of 3" in loaded.detected.notes[0]
    with pytest.raises(UserError, match="gives no demonstrations"):
        load(rows[1:2], "demos")


def test_demos_and_pools_as_prompts():
    assert dict(load([GOOD["messages"]], "prompts").items[0].meta) == {"completion": "c"}
    assert dict(load([GOOD["pools"]], "prompts").items[0].meta) == {}
    assert load([GOOD["pools"]], "demos").items[0].content == "a"


# ---------------------------------------------------------------- named sources


def test_a_named_source():
    pytest.importorskip("reasoning_gym")
    loaded = load("reasoning-gym:chain_sum?size=5", "prompts", limit=3, key=Key(0))
    assert len(loaded.items) == 3
    assert (loaded.detected.layout, loaded.detected.form) == ("source", "chat")
    assert "answer" in loaded.detected.extra
    assert "[prompt] <user> " in loaded.detected.first
    with pytest.raises(UserError, match="has no solutions judged step by step"):
        load("reasoning-gym:chain_sum?size=5", "stepwise")
    with pytest.raises(UserError, match="no columns to map"):
        load("reasoning-gym:chain_sum?size=5", "prompts", columns={"prompt": "q"})


def test_an_unknown_name_tells_the_nearest_source_and_the_forms():
    with pytest.raises(UserError, match=r"no data set 'human-rating'\nhint: did you mean 'human-ratings'\? or give a .jsonl"):
        load("human-rating", "pairs")
    with pytest.raises(UserError, match=r"no data set 'reasoning_gym:chain_sum'\nhint: did you mean 'reasoning-gym'\?"):
        load("reasoning_gym:chain_sum", "prompts")


# ---------------------------------------------------------------- there and back

words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=20).filter(lambda s: s.strip())
contents = st.one_of(words, words.map(lambda w: [{"role": "system", "content": "s"}, U(w)]))
metas = st.dictionaries(st.sampled_from(["difficulty", "topic", "tags"]), st.one_of(st.integers(), words, st.lists(words, max_size=2)))
prompts = st.builds(Prompt, words, contents, metas)
margins = st.one_of(st.none(), st.floats(-5, 5))
PROMPT_LISTS = st.lists(prompts, min_size=1, max_size=4)


def back(tmp_path_factory, items, kind):
    path = tmp_path_factory.mktemp("rows") / "x.jsonl"
    assert write_jsonl(path, items) == len(items)
    assert [p.name for p in path.parent.iterdir()] == ["x.jsonl"]
    return load(path, kind).items


@given(PROMPT_LISTS)
@settings(max_examples=25, deadline=None)
def test_prompts_there_and_back(tmp_path_factory, items):
    assert back(tmp_path_factory, items, "prompts") == items


@given(PROMPT_LISTS, st.tuples(words, words).filter(lambda p: p[0] != p[1]), margins, st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_pairs_there_and_back(tmp_path_factory, asked, said, margin, label):
    items = [Preference(p, tuple(Rollout(p, s, group=i) for s in said), margin, label, "votes") for i, p in enumerate(asked)]
    assert back(tmp_path_factory, items, "pairs") == items


@given(PROMPT_LISTS, words)
@settings(max_examples=25, deadline=None)
def test_demos_there_and_back(tmp_path_factory, asked, said):
    items = [Rollout(p, said, group=i) for i, p in enumerate(asked)]
    assert back(tmp_path_factory, items, "demos") == items


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("unpaired", "unpaired"),
        ("stepwise", "stepwise"),
        ("pools", "pools"),
        ("nectar", "pools"),
        ("shepherd", "stepwise"),
        ("hh", "pairs"),
    ],
)
def test_the_other_kinds_there_and_back(tmp_path_factory, name, kind):
    items = load([GOOD[name]], kind).items
    assert back(tmp_path_factory, items, kind) == items


def test_text_and_tool_conversations_there_and_back(tmp_path_factory):
    items = load([{"text": "Once."}], "demos").items
    assert back(tmp_path_factory, items, "demos") == items
    calls = [{"role": "assistant", "content": "", "tool_calls": [{"type": "function"}]}, {"role": "tool", "content": "2"}, A("Two.")]
    items = load([{"prompt": [U("1+1?")], "completion": calls}], "demos").items
    assert back(tmp_path_factory, items, "demos") == items


def test_unjudged_steps_are_written_as_null(tmp_path):
    items = load([{"problem": "p", "steps": ["a", "b"], "label": 0}], "stepwise").items
    write_jsonl(tmp_path / "x.jsonl", items)
    assert json.loads((tmp_path / "x.jsonl").read_text())["labels"] == [0.0, None]
    assert math.isnan(load(tmp_path / "x.jsonl", "stepwise").items[0].prompt.meta["step_labels"][1])


def test_a_value_without_json_form(tmp_path):
    with pytest.raises(UserError, match=r"item 'x' cannot be written as JSON: .*set.*\nhint: "):
        write_jsonl(tmp_path / "x.jsonl", [Prompt("x", "p", {"bad": {1, 2}})])
    assert list(tmp_path.iterdir()) == []
