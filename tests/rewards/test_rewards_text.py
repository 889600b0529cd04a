import importlib.util

import pytest
import sacrebleu
import torch
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from guerdon.errors import UserError
from guerdon.rewards import public_rewards
from guerdon.rewards.length import length_penalty, length_target, soft_overlong
from guerdon.rewards.rules import contains, exact_match, format_tags, json_valid, normalised_match, refusal, regex
from guerdon.rewards.text_metrics import bleu, chrf, lcs_length, repetition, rouge_l, token_f1, vader
from guerdon.testing.reward_kit import check_reward
from guerdon.types import Prompt, Rollout


def value(reward, text, reference="", tokens=None):
    actions = None if tokens is None else torch.zeros(tokens, dtype=torch.long)
    meta = {} if reference == "" else {"answer": reference}
    (score,) = reward([Rollout(Prompt("p", "q", meta), text, actions)])
    return score.value


@pytest.mark.parametrize(
    ("reward", "text", "reference", "expected"),
    [
        (exact_match, " 42 ", "42", 1),
        (exact_match, "<think>x</think>\n42", 42, 1),
        (exact_match, "so <answer> 41 </answer> no, <answer>42</answer>", "42", 1),
        (exact_match, "it is 42", "42", 0),
        (exact_match, "b", ["a", "b"], 1),
        (normalised_match, "The  Eiffel-Tower!", "eiffeltower", 1),
        (normalised_match, "a cat", {"text": ["dog", "The cat."], "answer_start": [0, 1]}, 1),
        (contains, "I think Paris, maybe.", "paris", 1),
        (contains, "comparison", "paris", 0),
        (token_f1, "the cat sat down", "a cat sat", 0.8),  # cat sat | cat sat down: 2*2/(3+2)
        (token_f1, "", "cat", 0),
    ],
)
def test_matching(reward, text, reference, expected):
    assert value(reward, text, reference) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("reward", [exact_match, normalised_match, contains, token_f1, bleu, chrf, rouge_l])
def test_an_empty_or_missing_reference_abstains(reward):
    (score,) = reward([Rollout(Prompt("p", "q", {"answer": None}), "x")])
    assert score.abstained
    (score,) = reward([Rollout(Prompt("p", "q", {"foo": 1}), "x")])
    assert score.abstained
    assert score.note.startswith("it asks for a reference answer, which is no column of the data; columns: foo (it would be named")


def test_the_reference_of_verl_records_is_found():
    meta = {"reward_model": {"style": "rule", "ground_truth": "4"}}
    assert exact_match([Rollout(Prompt("p", "q", meta), "4")])[0].value == 1.0


@pytest.mark.parametrize(
    ("text", "expected", "partial"),
    [
        ("<think>a</think><answer>b</answer>", 1, 1),
        (" <think>a\nb</think>\n<answer>b</answer>\n", 1, 1),
        ("<think>a</think><answer>b</answer> more", 0, 1),
        ("<think>a</think><answer> </answer>", 0, 1),
        ("<answer>b</answer><think>a</think>", 0, 1),
        ("<think>a</think><think>a</think><answer>b</answer>", 0, 0.5),
        ("<think><answer>b</answer></think>", 0, 1),
        ("b", 0, 0),
    ],
)
def test_format(text, expected, partial):
    assert value(format_tags, text) == expected
    assert value(format_tags.bind(partial=True), text) == partial


def test_format_with_other_tags():
    assert value(format_tags.bind(tags=("plan",)), "<plan>x</plan>") == 1


def test_regex_and_json():
    assert value(regex, " ") == 0
    assert value(regex, "\na") == 1
    assert value(regex.bind(pattern=r"\d+", full=True), "12a") == 0
    with pytest.raises(UserError, match="no regular expression"):
        value(regex.bind(pattern="("), "x")
    assert value(json_valid, '{"a": [1, 2]}') == 1
    assert value(json_valid, '```json\n{"a": 1}\n```') == 1
    assert value(json_valid.bind(fenced=False), '```json\n{"a": 1}\n```') == 0
    assert [value(json_valid, t) for t in ("", "3", "{'a': 1}", '{"a": NaN}', "[" * 100_000)] == [0] * 5
    assert value(json_valid.bind(keys=("a", "b")), '{"a": 1}') == 0


def test_length_counts_tokens_the_policy_chose_or_words():
    assert value(length_penalty.bind(limit=10), "a b c d", tokens=5) == -0.5
    assert value(length_penalty.bind(limit=10), "a b c d") == -0.4
    assert value(length_penalty.bind(limit=10, unit="chars"), "a b c d", tokens=5) == -0.7
    assert value(length_penalty.bind(limit=3), "a b c d") == -1.0
    masked = Rollout(Prompt("p", "q"), "x", torch.zeros(4), mask=torch.tensor([True, False, True, True]))
    assert length_target.bind(target=4)([masked])[0].value == 0.75
    with pytest.raises(UserError, match="unit 'lines'"):
        value(length_penalty.bind(unit="lines"), "a")
    with pytest.raises(UserError, match="positive"):
        value(length_penalty.bind(limit=0), "a")


def test_soft_overlong_golden():
    reward = soft_overlong.bind(max_length=20, cache=8)
    assert [value(reward, "", tokens=n) for n in (0, 12, 13, 16, 20, 21)] == [0, 0, -1 / 8, -0.5, -1, -1]
    with pytest.raises(UserError, match="longer than"):
        value(soft_overlong.bind(max_length=4, cache=8), "x")


def test_rouge_l_by_hand():
    assert lcs_length("ABCBDAB", "BDCABA") == 4
    assert lcs_length("", "abc") == 0
    # Lin 2004: police killed the gunman | police kill the gunman, LCS 3 of 4 and 4
    assert value(rouge_l, "police kill the gunman", "Police killed the gunman.") == pytest.approx(0.75)
    assert value(rouge_l, "the gunman kill police", "police killed the gunman") == pytest.approx(0.5)
    assert value(rouge_l, "a b", "a x b y z") == pytest.approx(2 * 2 / 7)
    assert value(rouge_l, "кот сидит", ["x", "Кот спит"]) == pytest.approx(0.5)
    assert value(rouge_l, "", "x") == 0.0


@pytest.mark.parametrize("text", ["the cat sat on the mat", "the cat", "a dog ran", "", "the cat sat on a mat today"])
def test_bleu_and_chrf_are_those_of_sacrebleu(text):
    refs = ["the cat sat on the mat", "there is a cat on the mat"]
    assert value(bleu, text, refs) == pytest.approx(sacrebleu.sentence_bleu(text, refs).score / 100, abs=1e-12)
    assert value(chrf, text, refs) == pytest.approx(sacrebleu.sentence_chrf(text, refs).score / 100, abs=1e-12)


def test_bleu_by_hand():
    # 4 of 5 words, 3 of 4, 2 of 3, 1 of 2 n-grams; as long as the reference: no brevity penalty
    expected = (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert value(bleu, "one two three four x", "one two three four five") == pytest.approx(expected, abs=1e-9)


def test_vader_and_repetition():
    text = "VADER is smart, handsome, and funny!"
    assert value(vader, text) == SentimentIntensityAnalyzer().polarity_scores(text)["compound"] == 0.8439
    assert value(vader, "") == 0.0
    assert value(repetition, "a b c a b c") == pytest.approx(3 / 4 - 1)  # abc bca cab abc
    assert value(repetition, "a b") == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I am sorry, but I will not help with that.",
        "I cannot assist with this request.",
        "Sorry, no.",
        "As an AI, I do not have opinions.",
        "I\u2019m not able to do that.",
        "That would be against my guidelines.",
        "We won't do this.",
    ],
)
def test_refusals(text):
    assert value(refusal, text) == 1.0


@pytest.mark.parametrize(
    "text",
    ["", "Sure, here is how.", "He was sorry for the mess.", "You can't miss it.", "The film is not able to hold you.", "A sorry tale."],
)
def test_no_refusals(text):
    assert value(refusal, text) == 0.0


def test_a_refusal_stands_at_the_beginning():
    assert value(refusal, "word " * 60 + "I cannot help.") == 0.0
    assert value(refusal, "word " * 3 + "I cannot help.") == 1.0


READY = {name: r for name, r in public_rewards().items() if name != "comet" or importlib.util.find_spec("comet")}  # no package of ours


def test_public_rewards_are_found_with_docs_and_are_aligned():
    found = READY
    assert {"math", "exact_match", "format", "length", "vader", "bleu", "rouge_l"} <= set(found)
    rollouts = [Rollout(Prompt("p", "q", {"answer": "cat"}), t) for t in ("cat", "", "dog dog dog dog")]
    for name, reward in found.items():
        assert len(reward(rollouts)) == 3, name
        assert (reward.__doc__ or "").strip(), name


@pytest.mark.parametrize("name", sorted(READY))
def test_public_rewards_conform(name):
    check_reward(READY[name])
