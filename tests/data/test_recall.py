"""Recall tasks: what is asked for is in the text once, at the length asked for, and files come back as they went."""

import json

import pytest

from guerdon.core.rng import Key
from guerdon.data import load
from guerdon.data.recall import TASKS, make, prose, sentences_of, task_of, words
from guerdon.data.recall_files import read_longbench, read_ruler, write_ruler
from guerdon.errors import UserError
from guerdon.rewards.long_texts import ruler
from guerdon.types import Rollout

EACH = pytest.mark.parametrize("name", TASKS)


@EACH
def test_questions_fill_their_length_and_hold_their_answers(name):
    items = make(name, 4, Key(0), length=400)
    for item in items:
        assert item.length == words(item.input + item.answer_prefix)
        assert 320 < item.length <= 400  # a sentence of prose may be long
        assert all(item.input.count(f"is {value}.") == 1 for value in item.outputs) or name == "vt"
        [score] = ruler([Rollout(item.prompt("x"), ", ".join(item.outputs))])
        assert score.value == 1
        assert ruler.fn("", list(item.outputs)) == 0
    assert len({item.input for item in items}) == 4
    assert items == make(name, 4, Key(0), length=400)
    assert items[2] == make(name, 3, Key(0), length=400)[2]
    assert items != make(name, 4, Key(1), length=400)


@pytest.mark.parametrize(
    ("name", "outputs", "needles"),
    [("niah_single_1", 1, 1), ("niah_multikey_1", 1, 4), ("niah_multivalue", 4, 4), ("niah_multiquery", 4, 4)],
)
def test_so_many_needles_and_answers(name, outputs, needles):
    for item in make(name, 3, Key(0), length=300):
        assert len(set(item.outputs)) == outputs
        assert item.input.count("Note: the secret number of ") == needles


def test_a_haystack_of_needles_gives_no_key_a_second_value():
    for item in make("niah_multikey_2", 3, Key(0), length=4000):
        key = item.answer_prefix.removeprefix("\nThe secret number of ").removesuffix(":")
        assert item.input.count(f"Note: the secret number of {key} is ") == 1
        assert item.input.count("Note: ") > 300


def test_chains_of_variables_can_be_followed():
    for item in make("vt", 3, Key(0), length=500, chains=3, hops=5):
        value = {}
        for sentence in item.input.split(". "):
            if "VAR " in sentence:
                left, right = sentence[sentence.index("VAR ") + 4 :].rstrip(".").split("\n")[0].rstrip(".").split(" = ")
                value[left] = value.get(right.removeprefix("VAR "), right)
        asked = item.answer_prefix.split()[-1].rstrip(":")
        assert len(value) == 18
        assert {name for name, x in value.items() if x == asked} == set(item.outputs)
        assert len(item.outputs) == 6


def test_needles_stand_anywhere():
    depths = [item.input.index("Note: ") / len(item.input) for item in make("niah_single_1", 60, Key(0), length=400)]
    assert min(depths) < 0.2
    assert max(depths) > 0.8


def test_a_tokenizer_counts():
    [item] = make("niah_single_2", 1, Key(0), length=900, count=len)
    assert 800 < item.length == len(item.input + item.answer_prefix) <= 900


def test_the_prose_is_prose_and_a_file_may_stand_in(tmp_path):
    assert 4000 < sum(map(words, prose())) < 10_000
    assert "Gutenberg" not in " ".join(prose())
    (tmp_path / "hay.txt").write_text("One fish. Two\nfish.\n\nRed fish")
    assert sentences_of((tmp_path / "hay.txt").read_text()) == ["One fish.", "Two fish.", "Red fish"]
    [item] = make("niah_single", 1, Key(0), length=100, haystack=str(tmp_path / "hay.txt"))
    assert item.task == "niah_single_1"
    assert "Two fish." in item.input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: task_of("niah_singel"), "niah_single"),
        (lambda: task_of("vt", hop=2), "hops"),
        (lambda: task_of("vt", hops=0), "at least 1"),
        (lambda: task_of("niah_single", haystack="nowhere.txt"), "no text file"),
        (lambda: task_of("niah_single", keys="letters"), "letters"),
        (lambda: task_of("niah_single", n_queries=2), "hidden"),
        (lambda: make("niah_single", 1, Key(0), length=10), "length above"),
        (lambda: make("niah_multikey", 1, Key(0), hidden=9000), "too many"),
        (lambda: load("ruler:niah_single?length=0", "prompts"), "length=0"),
        (lambda: load("ruler:niah_single", "pairs"), "not preference pairs"),
        (lambda: load("longbench:", "prompts"), "reads a file"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_ruler_files_come_back(tmp_path):
    items = make("vt", 3, Key(0), length=200)
    path = tmp_path / "vt" / "validation.jsonl"
    assert write_ruler(path, items) == 3
    first = json.loads(path.read_text().splitlines()[0])
    assert {"index", "input", "outputs", "length"} <= set(first)
    prompts = read_ruler(path)
    for prompt, item in zip(prompts, items, strict=True):
        assert prompt.content == item.input + item.answer_prefix
        assert dict(prompt.meta) == {"answer": list(item.outputs), "task": "vt", "length": item.length}
    assert [p.content for p in load(f"ruler:{path}", "prompts").items] == [p.content for p in prompts]


def test_ruler_files_of_the_benchmark_itself(tmp_path):
    path = tmp_path / "niah_single_1" / "validation.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps({"index": 4, "input": "Where? ", "outputs": [1234], "length": 9, "others": {"id": 1}}) + "\n")
    [prompt] = read_ruler(path)
    assert (prompt.id, prompt.meta["task"], prompt.meta["answer"]) == ("niah_single_1/4", "niah_single_1", ["1234"])
    path.write_text('{"input": "Where?"}\n')
    with pytest.raises(UserError, match=r"validation.jsonl line 1: no row of RULER"):
        read_ruler(path)


def test_named_sources():
    prompts = load("ruler:niah_multiquery?n=3&length=300&seed=1", "prompts").items
    assert len(prompts) == 3
    assert len(prompts[0].meta["answer"]) == 4
    assert prompts[0].content != load("ruler:niah_multiquery?n=3&length=300", "prompts").items[0].content
    [demo] = load("ruler:vt?n=1&length=150", "demos").items
    assert ruler([demo])[0].value == 1


def test_longbench_files(tmp_path):
    row = {"input": "Who?", "context": "A {fox} ran.", "answers": ["a fox"], "length": 4, "dataset": "hotpotqa_e", "language": "en"}
    path = tmp_path / "hotpotqa.jsonl"
    path.write_text(json.dumps({**row, "all_classes": None, "_id": "q1"}) + "\n")
    [prompt] = load(f"longbench:{path}", "prompts").items
    assert "A {fox} ran." in prompt.content
    assert (prompt.id, prompt.meta["dataset"], prompt.meta["answer"]) == ("q1", "hotpotqa", ["a fox"])
    for change, message in (({"dataset": "dureader"}, "not served"), ({"answers": None}, "lacks answers")):
        path.write_text(json.dumps({**row, **change}) + "\n")
        with pytest.raises(UserError, match=message):
            read_longbench(path)
