"""RULER's and LongBench's scores against numbers worked out by hand."""

import pytest

from guerdon.data.recall_files import TEMPLATES
from guerdon.rewards.long_texts import SCORES, edit_similarity, longbench, named_class, right_numbers, ruler
from guerdon.types import Prompt, Rollout


def test_ruler_wants_all_references():
    assert ruler.fn("They are 12, then BRAVE-fox.", ["12", "brave-fox", "77", "9"]) == 0.5
    assert ruler.fn("They are 12, then BRAVE-fox.", ["12", "brave-fox", "77", "9"], part=True) == 1
    assert ruler.fn("", "12") == 0
    assert ruler.fn("a", []).abstained


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Type: Animal", 1.0),
        ("an Animal or a Plant", 0.5),
        ("Plant", 0.0),
        ("", 0.0),
    ],
)
def test_named_class(text, expected):
    assert named_class.fn(text, "Animal", ["Animal", "Plant", "Ani"]) == expected  # "Ani" is a part of the right name


def test_a_class_that_holds_the_right_one_counts_against_it():
    assert named_class.fn("Other animal", "animal", ["animal", "Other animal"]) == 0.5
    assert named_class.fn("x", "x", []).abstained


def test_right_numbers():
    assert right_numbers.fn("There are 7, no: 9, or 7 again.", "7") == pytest.approx(2 / 3)
    assert right_numbers.fn("Paragraph 3", "Paragraph 3") == 1
    assert right_numbers.fn("Paragraph 13", "Paragraph 3") == 0
    assert right_numbers.fn("none", "3") == 0
    assert right_numbers.fn("3", "none").abstained


def test_edit_similarity():
    assert edit_similarity.fn("kitten", "sitting") == pytest.approx(2 * 4 / 13)  # i, t, t, n
    assert edit_similarity.fn("abc", "abc") == 1
    assert edit_similarity.fn("", "abc") == 0
    assert edit_similarity.fn("\n```python\n# first\nx = 1\ny = 2", "x = 1", code=True) == 1
    assert edit_similarity.fn("// all\n# remarks", "x", code=True) == 0
    assert edit_similarity.fn("x", "").abstained


@pytest.mark.parametrize(
    ("dataset", "text", "answers", "expected"),
    [
        ("hotpotqa", "It was the red Fox.", ["red fox", "a wolf"], 2 * 2 / (4 + 2)),
        ("narrativeqa", "", ["red fox"], 0.0),
        ("gov_report", "the cat sat down", ["The cat lay down"], 2 * 3 / 8),
        ("triviaqa", "\nParis\nQuestion: and London", ["Paris"], 1.0),
        ("samsum", "Ann is late\nBob too", ["Ann is very late"], 2 * 3 / 7),
        ("trec", "Entity\nPlant", ["Entity"], 1.0),
        ("passage_count", "12 of 15", ["15"], 0.5),
        ("passage_retrieval_en", "Paragraph 8", ["Paragraph 8"], 1.0),
        ("lcc", "return x\nmore", ["return y"], 2 * 7 / 16),
    ],
)
def test_longbench(dataset, text, answers, expected):
    prompt = Prompt("p", "", {"answer": answers, "dataset": dataset, "all_classes": ["Entity", "Plant"]})
    [score] = longbench([Rollout(prompt, text)])
    assert score.value == pytest.approx(expected, abs=1e-12)


def test_every_task_that_is_read_is_scored_and_others_abstain():
    assert set(SCORES) == set(TEMPLATES)
    [score] = longbench([Rollout(Prompt("p", "", {"answer": ["x"], "dataset": "dureader"}), "x")])
    assert score.abstained
