"""Every layout of the table, from rows as they are published, to items."""

import math

import pytest

from guerdon.data import LAYOUTS, load
from guerdon.types import Preference, Prompt, Rollout

U = lambda text: {"role": "user", "content": text}
A = lambda text: {"role": "assistant", "content": text}
S = lambda text: {"role": "system", "content": text}
GPT = lambda who, text: {"from": who, "value": text}

HH_CHOSEN = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: A joke?\n\nAssistant: Knock knock."
HH_REJECTED = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: A joke?\n\nAssistant: No."
PRM = {
    "labeler": "x",
    "question": {"problem": "1+1?", "ground_truth_answer": "2"},
    "label": {
        "steps": [
            {
                "completions": [{"text": "One and one.", "rating": 1}, {"text": "Hm.", "rating": 0}],
                "human_completion": None,
                "chosen_completion": 0,
            },
            {
                "completions": [{"text": "Is 3.", "rating": -1}, {"text": "Is 2.", "rating": 1}],
                "human_completion": None,
                "chosen_completion": None,
            },
        ]
    },
}


def one(row, kind, layout, **options):
    """The single item of a single row, after checking that the layout was detected."""
    loaded = load([row], kind, **options)
    assert loaded.detected.layout == layout
    assert len(loaded.items) == loaded.detected.items
    return loaded.items[0]


# ---------------------------------------------------------------- prompts

PROMPTS = [
    ("prompt", {"prompt": "Hi", "lvl": 3}, "Hi", {"lvl": 3}),
    ("prompt", {"prompt": [U("Hi")], "lvl": 3}, [U("Hi")], {"lvl": 3}),
    ("prompt", {"problem": "1+1?", "target": "2"}, "1+1?", {"ground_truth": "2", "target": "2"}),
    ("alpaca-prompt", {"instruction": "Translate", "input": "Hund"}, "Translate\nHund", {}),
    ("messages-prompt", {"messages": [S("be kind"), U("Hi")]}, [S("be kind"), U("Hi")], {}),
    ("messages-prompt", {"conversations": [GPT("human", "Hi")]}, [U("Hi")], {}),
    (
        "verl",
        {
            "data_source": "gsm8k",
            "prompt": [U("1+1?")],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": "2"},
            "extra_info": {"index": 0},
        },
        [U("1+1?")],
        {
            "data_source": "gsm8k",
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": "2"},
            "extra_info": {"index": 0},
            "ground_truth": "2",
        },
    ),
    (
        "skyrl",
        {"prompt": [U("1+1?")], "env_class": "aime", "reward_spec": {"method": "rule", "ground_truth": "2"}},
        [U("1+1?")],
        {"env_class": "aime", "reward_spec": {"method": "rule", "ground_truth": "2"}, "ground_truth": "2"},
    ),
    ("skyrl-env", {"prompt": [U("go")], "env_class": "sql"}, [U("go")], {"env_class": "sql"}),
    ("openrlhf", {"input": "1+1?", "label": "2"}, "1+1?", {"label": "2", "ground_truth": "2"}),
    (
        "open-instruct",
        {"messages": [U("1+1?")], "ground_truth": "2", "dataset": "gsm8k"},
        [U("1+1?")],
        {"dataset": "gsm8k", "ground_truth": "2"},
    ),
    (
        "slime",
        {"prompt": "1+1?", "label": "2", "metadata": {"rm_type": "math"}},
        "1+1?",
        {"label": "2", "ground_truth": "2", "metadata": {"rm_type": "math"}},
    ),
    (
        "verifiers",
        {"question": "1+1?", "answer": "2", "info": {"hard": False}},
        "1+1?",
        {"answer": "2", "ground_truth": "2", "info": {"hard": False}},
    ),
    (
        "verifiers",
        {"question": "1+1?", "answer": "2", "metadata": {"source_dataset": "chain_sum"}},
        "1+1?",
        {"answer": "2", "ground_truth": "2", "metadata": {"source_dataset": "chain_sum"}},
    ),
]


@pytest.mark.parametrize(("layout", "row", "content", "meta"), PROMPTS)
def test_prompts(layout, row, content, meta):
    item = one(row, "prompts", layout)
    assert isinstance(item, Prompt)
    assert item.content == content
    assert dict(item.meta) == meta


def test_open_instruct_takes_an_answer_off():
    assert one({"messages": [U("1+1?"), A("2")], "ground_truth": "2", "dataset": "x"}, "prompts", "open-instruct").content == [U("1+1?")]


def test_tools_and_images_survive():
    tools = [{"type": "function", "function": {"name": "f"}}]
    item = one({"prompt": [U("Hi")], "tools": tools, "images": ["a.png"]}, "prompts", "prompt")
    assert dict(item.meta) == {"tools": tools, "images": ["a.png"]}


# ---------------------------------------------------------------- demonstrations

CALL = '{"name": "add", "arguments": {"a": 1}}'
DEMOS = [
    ("prompt-completion", {"prompt": "The sky is", "completion": " blue."}, "The sky is", " blue."),
    ("prompt-completion", {"prompt": [U("Sky?")], "completion": [A("Blue.")]}, [U("Sky?")], "Blue."),
    ("prompt-completion", {"prompt": "Sky?", "completion": [A("Blue.")]}, [U("Sky?")], "Blue."),
    ("question-answer", {"question": "1+1?", "answer": "2"}, "1+1?", "2"),
    ("messages", {"messages": [S("s"), U("Sky?"), A("Blue.")]}, [S("s"), U("Sky?")], "Blue."),
    ("sharegpt", {"conversations": [GPT("human", "Sky?"), GPT("gpt", "Blue.")]}, [U("Sky?")], "Blue."),
    (
        "sharegpt",
        {"conversations": [GPT("human", "Sky?"), GPT("gpt", "Blue.")], "system": "be kind"},
        [S("be kind"), U("Sky?")],
        "Blue.",
    ),
    (
        "sharegpt",
        {"conversations": [GPT("human", "1+1?"), GPT("function_call", CALL), GPT("observation", "2"), GPT("gpt", "Two.")]},
        [U("1+1?")],
        [
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}],
            },
            {"role": "tool", "content": "2"},
            A("Two."),
        ],
    ),
    ("alpaca", {"instruction": "Translate", "input": "Hund", "output": "dog"}, "Translate\nHund", "dog"),
    ("alpaca", {"instruction": "Say hi", "input": "", "output": "hi"}, "Say hi", "hi"),
    (
        "alpaca",
        {"instruction": "Again", "output": "hi", "system": "s", "history": [["Say hi", "hi"]]},
        [S("s"), U("Say hi"), A("hi"), U("Again")],
        "hi",
    ),
    ("swift", {"query": "Sky?", "response": "Blue.", "system": "s"}, [S("s"), U("Sky?")], "Blue."),
    ("swift", {"query": "And?", "response": "Red.", "history": [["Sky?", "Blue."]]}, [U("Sky?"), A("Blue."), U("And?")], "Red."),
    ("text", {"text": "Once upon a time."}, "", "Once upon a time."),
]


@pytest.mark.parametrize(("layout", "row", "prompt", "content"), DEMOS)
def test_demos(layout, row, prompt, content):
    item = one(row, "demos", layout)
    assert isinstance(item, Rollout)
    assert item.prompt.content == prompt
    assert item.content == content
    assert item.actions is None


def test_null_fields_of_messages_are_dropped_and_others_kept():
    answer = {"role": "assistant", "content": "4", "reasoning_content": "2+2", "tool_calls": None}
    item = one({"messages": [{"role": "user", "content": "2+2?", "name": None}, answer]}, "demos", "messages")
    assert item.prompt.content == [U("2+2?")]
    assert item.content == [{"role": "assistant", "content": "4", "reasoning_content": "2+2"}]


# ---------------------------------------------------------------- pairs

PAIRS = [
    ("preference", {"prompt": "Sky", "chosen": " is blue", "rejected": " is red"}, "Sky", " is blue", " is red"),
    ("preference", {"prompt": [U("Sky?")], "chosen": [A("Blue.")], "rejected": [A("Red.")]}, [U("Sky?")], "Blue.", "Red."),
    ("preference", {"prompt": "Sky?", "chosen": A("Blue."), "rejected": A("Red.")}, [U("Sky?")], "Blue.", "Red."),
    (
        "preference",
        {"prompt": "Sky?", "chosen": [U("Sky?"), A("Blue.")], "rejected": [U("Sky?"), A("Red.")], "messages": [U("Sky?"), A("Blue.")]},
        [U("Sky?")],
        "Blue.",
        "Red.",
    ),
    (
        "preference",
        {"system": "s", "question": "Sky?", "chosen": "Blue.", "rejected": "Red."},
        [S("s"), U("Sky?")],
        "Blue.",
        "Red.",
    ),
    (
        "alpaca-preference",
        {"instruction": "Sky", "input": "now", "chosen_response": "Blue.", "rejected_response": "Red."},
        "Sky\nnow",
        "Blue.",
        "Red.",
    ),
    (
        "implicit-preference",
        {"chosen": [S("s"), U("Sky?"), A("Blue.")], "rejected": [S("s"), U("Sky?"), A("Red.")]},
        [S("s"), U("Sky?")],
        "Blue.",
        "Red.",
    ),
    ("implicit-preference", {"chosen": "The sky is blue.", "rejected": "The sky is black."}, "The sky is", " blue.", " black."),
    ("implicit-preference", {"chosen": "2+2? A: 4", "rejected": "2+2? A: 5"}, "2+2? A:", " 4", " 5"),
    (
        "hh-rlhf",
        {"chosen": HH_CHOSEN, "rejected": HH_REJECTED},
        [U("Hi"), A("Hello."), U("A joke?")],
        "Knock knock.",
        "No.",
    ),
    (
        "rewardbench",
        {"prompt": "Sky?", "chosen": "Blue.", "rejected": "Red.", "subset": "chat", "id": 7, "chosen_model": "m"},
        "Sky?",
        "Blue.",
        "Red.",
    ),
    (
        "messages-preference",
        {"conversations": [GPT("human", "Sky?")], "chosen": GPT("gpt", "Blue."), "rejected": GPT("gpt", "Red.")},
        [U("Sky?")],
        "Blue.",
        "Red.",
    ),
    ("messages-preference", {"messages": [U("Sky?")], "chosen": A("Blue."), "rejected": A("Red.")}, [U("Sky?")], "Blue.", "Red."),
    ("swift-preference", {"messages": [U("Sky?"), A("Blue.")], "rejected_response": "Red."}, [U("Sky?")], "Blue.", "Red."),
    ("swift-query-preference", {"query": "Sky?", "response": "Blue.", "rejected_response": "Red."}, "Sky?", "Blue.", "Red."),
]


@pytest.mark.parametrize(("layout", "row", "prompt", "chosen", "rejected"), PAIRS)
def test_pairs(layout, row, prompt, chosen, rejected):
    item = one(row, "pairs", layout)
    assert isinstance(item, Preference)
    assert item.prompt.content == prompt
    assert [r.content for r in item.ranked] == [chosen, rejected]
    assert all(r.prompt is item.prompt for r in item.ranked)
    assert (item.margin, item.label) == (None, 1.0)


@pytest.mark.parametrize(
    ("more", "margin"),
    [
        ({"margin": 0.5}, 0.5),
        ({"score_chosen": 8.5, "score_rejected": 3.0}, 5.5),
        ({"chosen_score": 4, "rejected_score": 4}, 0.0),
        ({"chosen_rating": 2, "rejected_rating": 1}, 1.0),
        ({"score_chosen": 8.5}, None),
        ({"margin": 2, "score_chosen": 1, "score_rejected": 0}, 2.0),
        ({"margin": "wide"}, None),
    ],
)
def test_margins(more, margin):
    item = one({"prompt": "p", "chosen": "a", "rejected": "b", **more}, "pairs", "preference")
    assert item.margin == margin
    assert dict(item.prompt.meta) == {k: v for k, v in more.items() if k != "margin" or margin is None}


def test_label_source_and_id_of_a_pair():
    item = one({"id": 12, "prompt": "p", "chosen": "a", "rejected": "b", "label": 0.75, "source": "votes"}, "pairs", "preference")
    assert (item.label, item.source, item.prompt.id, dict(item.prompt.meta)) == (0.75, "votes", "12", {})


def test_a_label_that_is_a_word_stays_a_column():
    item = one({"prompt": "p", "chosen": "a", "rejected": "b", "label": "math"}, "pairs", "preference")
    assert (item.label, dict(item.prompt.meta)) == (1.0, {"label": "math"})


def test_conversations_that_part_early_keep_all_later_turns():
    row = {"chosen": [U("a"), A("b"), U("c"), A("d")], "rejected": [U("a"), A("x"), U("c"), A("d")]}
    item = one(row, "pairs", "implicit-preference")
    assert item.prompt.content == [U("a")]
    assert item.ranked[0].content == [A("b"), U("c"), A("d")]


# ---------------------------------------------------------------- pools

ULTRA = {
    "source": "evol",
    "instruction": "Sky?",
    "models": ["m1", "m2", "m3"],
    "completions": [
        {"model": "m1", "response": "Red.", "annotations": {"honesty": {"Rating": "1"}, "truth": {"Rating": "2"}}, "overall_score": 10},
        {"model": "m2", "response": "Blue.", "annotations": {"honesty": {"Rating": "5"}, "truth": {"Rating": "N/A"}}},
        {"model": "m3", "response": "Hm.", "annotations": {"honesty": {"Rating": "N/A"}}},
    ],
}
POOLS = [
    ("ultrafeedback", ULTRA, "Sky?", ["Blue.", "Red."], [5.0, 1.5]),
    (
        "ultrafeedback",
        {"prompt": "Sky?", "completions": [{"response": "Red.", "overall_score": 2}, {"response": "Blue.", "fine-grained_score": 4.5}]},
        "Sky?",
        ["Blue.", "Red."],
        [4.5, 2.0],
    ),
    (
        "nectar",
        {
            "prompt": "\n\nHuman: Sky?\n\nAssistant: ",
            "answers": [{"answer": "Red.", "rank": 3}, {"answer": "Blue.", "rank": 1}, {"answer": "Azure.", "rank": 2}],
        },
        [U("Sky?")],
        ["Blue.", "Azure.", "Red."],
        [-1.0, -2.0, -3.0],
    ),
    (
        "rewardbench-2",
        {"id": "3", "prompt": "Sky?", "chosen": ["Blue."], "rejected": ["Red.", "Pink.", "Tan."], "num_correct": 1, "subset": "Factuality"},
        "Sky?",
        ["Blue.", "Red.", "Pink.", "Tan."],
        [1.0, 0.0, 0.0, 0.0],
    ),
    ("pool", {"prompt": "Sky?", "responses": ["Red.", "Blue.", "?"], "scores": [0, 1, None]}, "Sky?", ["Blue.", "Red."], [1.0, 0.0]),
    ("pool", {"prompt": [U("Sky?")], "completions": ["Red.", "Blue."], "rewards": [-1.5, 2]}, [U("Sky?")], ["Blue.", "Red."], [2.0, -1.5]),
]


@pytest.mark.parametrize(("layout", "row", "prompt", "ranked", "scores"), POOLS)
def test_pools(layout, row, prompt, ranked, scores):
    item = one(row, "pools", layout)
    assert item.prompt.content == prompt
    assert [r.content for r in item.ranked] == ranked
    assert item.prompt.meta["scores"] == scores


def test_a_pool_as_pair_is_best_against_worst():
    loaded = load([POOLS[2][1], {"prompt": "tied", "answers": [{"answer": "a", "rank": 1}, {"answer": "b", "rank": 1}]}], "pairs")
    [pair] = loaded.items
    assert [r.content for r in pair.ranked] == ["Blue.", "Red."]
    assert pair.margin == 2.0
    assert "scores" not in pair.prompt.meta
    assert "1 tied pools left out" in " ".join(loaded.detected.notes)


def test_four_way_as_pairs_is_every_wrong_answer():
    pairs = load([POOLS[3][1]], "pairs").items
    assert [[r.content for r in p.ranked] for p in pairs] == [["Blue.", x] for x in ("Red.", "Pink.", "Tan.")]
    assert {p.prompt.id for p in pairs} == {"3"}


# ---------------------------------------------------------------- single judgements

UNPAIRED = [
    ("unpaired", {"prompt": "p", "completion": "c", "label": True}, "p", "c", 1.0),
    ("unpaired", {"prompt": [U("p")], "completion": [A("c")], "label": False}, [U("p")], "c", 0.0),
    ("unpaired", {"prompt": "p", "response": "c", "label": "0.25"}, "p", "c", 0.25),
    ("unpaired", {"instruction": "p", "input": "q", "output": "c", "kto_tag": "false"}, "p\nq", "c", 0.0),
    ("unpaired-messages", {"messages": [U("p"), A("c")], "label": True}, [U("p")], "c", 1.0),
    ("unpaired-messages", {"conversations": [GPT("human", "p"), GPT("gpt", "c")], "kto_tag": False}, [U("p")], "c", 0.0),
]


@pytest.mark.parametrize(("layout", "row", "prompt", "content", "label"), UNPAIRED)
def test_unpaired(layout, row, prompt, content, label):
    item = one(row, "unpaired", layout)
    assert (item.prompt.content, item.content, item.prompt.meta["label"]) == (prompt, content, label)


# ---------------------------------------------------------------- steps


def same(a, b):
    return len(a) == len(b) and all(x == y or (math.isnan(x) and math.isnan(y)) for x, y in zip(a, b, strict=True))


NAN = math.nan
STEPS = [
    ("stepwise", {"prompt": "1+1?", "completions": ["One.", "Two."], "labels": [True, False]}, ["One.", "Two."], [1, 0], "One.\nTwo."),
    ("stepwise", {"problem": "1+1?", "steps": ["One.", "Two."], "labels": [0.9, None]}, ["One.", "Two."], [0.9, NAN], "One.\nTwo."),
    (
        "processbench",
        {"id": "g-1", "problem": "1+1?", "steps": ["a", "b", "c"], "label": 1, "final_answer_correct": False},
        ["a", "b", "c"],
        [1, 0, NAN],
        "a\n\nb\n\nc",
    ),
    ("processbench", {"problem": "1+1?", "steps": ["a", "b"], "label": -1}, ["a", "b"], [1, 1], "a\n\nb"),
    (
        "math-shepherd",
        {
            "input": "What is 1+1? Step 1: It is 2. ки\nStep 2: The answer is: 3 ки",
            "label": "What is 1+1? Step 1: It is 2. +\nStep 2: The answer is: 3 -",
            "task": "GSM8K",
        },
        ["Step 1: It is 2.", "Step 2: The answer is: 3"],
        [1, 0],
        "Step 1: It is 2.\nStep 2: The answer is: 3",
    ),
    ("prm800k", PRM, ["One and one.", "Is 3."], [1, 0], "One and one.\nIs 3."),
]


@pytest.mark.parametrize(("layout", "row", "texts", "labels", "content"), STEPS)
def test_steps(layout, row, texts, labels, content):
    item = one(row, "stepwise", layout)
    assert item.prompt.meta["step_texts"] == texts
    assert same(item.prompt.meta["step_labels"], labels)
    assert item.content == content
    assert "1+1?" in item.prompt.content
    assert "Step" not in item.prompt.content


def test_prm800k_gives_every_judgement_once():
    items = load([PRM], "stepwise").items
    judged = [(r.prompt.meta["step_texts"][i], x) for r in items for i, x in enumerate(r.prompt.meta["step_labels"]) if not math.isnan(x)]
    assert sorted(judged) == [("Hm.", 1.0), ("Is 2.", 1.0), ("Is 3.", 0.0), ("One and one.", 1.0)]
    assert {r.prompt.meta["ground_truth"] for r in items} == {"2"}
    assert len(load([PRM], "prompts").items) == 1


# ---------------------------------------------------------------- the table itself


def test_every_layout_has_a_case():
    tested = {case[0] for table in (PROMPTS, DEMOS, PAIRS, POOLS, UNPAIRED, STEPS) for case in table} | {"tokens"}  # test_data_tokens.py
    assert tested == {x.name for x in LAYOUTS}
    assert len({x.name for x in LAYOUTS}) == len(LAYOUTS)
