"""Counterfactual pairs: what is changed, what is left alone, what is dropped."""

import pytest
import torch

from guerdon.core.rng import Key
from guerdon.data.augment import OPPOSITES, Rewritten, WordSwap, causal, informative, kind_of, neutral
from guerdon.data.oracle import Oracle, asking, qualities, rewriting, winner
from guerdon.errors import UserError
from guerdon.types import Preference, Prompt, Rollout


def pair(good: str, bad: str, prompt: str = "A film?", id: str = "p", **meta) -> Preference:
    asked = Prompt(id, prompt, meta)
    return Preference(asked, (Rollout(asked, good), Rollout(asked, bad)))


# ---------------------------------------------------------------- the rule


@pytest.mark.parametrize(
    ("text", "expected", "better"),
    [
        ("A great, funny film.", "A terrible, unfunny film.", False),
        ("Dull and badly acted, but funny", "Exciting and well acted, but funny", True),
        ("GOOD. Well made", "Bad. Badly made", False),
    ],
)
def test_words_of_praise_and_blame_are_exchanged(text, expected, better):
    assert WordSwap().one(text) == Rewritten(expected, better, "sentiment of words")


@pytest.mark.parametrize("text", ["", "A film.", "good and bad", "not good", "It isn't funny", "goodness, a dullard"])
def test_what_the_rule_does_not_understand_it_leaves_alone(text):
    assert WordSwap().one(text) is None


def test_the_list_is_sound():
    assert len(OPPOSITES) >= 80
    assert not set(OPPOSITES) & set(OPPOSITES.values())
    with pytest.raises(UserError, match="'b' praises and blames"):
        WordSwap({"a": "b", "b": "c"})


# ---------------------------------------------------------------- causal and neutral pairs


def test_causal_pairs_stand_the_right_way_round():
    items = [pair("A great film.", "Dull.", domain="movie"), pair("A film.", "A great film.", id="q")]
    made = causal(items, WordSwap(), Key(0))
    assert [[r.content for r in p.ranked] for p in made] == [["A great film.", "A terrible film."], ["Exciting.", "Dull."]], "each once"
    first = made[0]
    assert first.prompt.meta == {"domain": "movie", "kind": "causal", "attribute": "sentiment of words"}
    assert (first.prompt.content, first.label, kind_of(first)) == ("A film?", 1.0, "causal")
    assert all(r.prompt == p.prompt for p in made for r in p.ranked)
    assert len({p.prompt.id for p in made}) == 2


def test_any_function_is_an_augmenter_and_equal_texts_are_dropped():
    def shout(answers, key):
        return [Rewritten(str(r.content).upper(), True, "volume") for r in answers]

    made = causal([pair("a", "B")], shout, Key(0))
    assert [[r.content for r in p.ranked] for p in made] == [["A", "a"]]
    with pytest.raises(UserError, match="0 rewritings of 2 answers"):
        causal([pair("a", "b")], lambda answers, key: [], Key(0))


def test_neutral_pairs_have_one_other_prompt():
    items = [pair(f"good {i}", f"bad {i}", id=f"p{i}") for i in range(10)]
    prompts = [Prompt("same", "A film?"), Prompt("u", "A tyre?", {"x": 1}), Prompt("v", "A sum?")]
    made = neutral(items, prompts, 6, Key(0))
    assert len(made) == 6 == len({p.prompt.meta["of"] for p in made})
    assert {p.prompt.content for p in made} == {"A tyre?", "A sum?"}, "never its own"
    assert all(r.prompt == p.prompt and p.label == 0.5 and kind_of(p) == "neutral" for p in made for r in p.ranked)
    assert made == neutral(items, prompts, 6, Key(0)) != neutral(items, prompts, 6, Key(1))
    assert len(neutral(items, prompts, 99, Key(0))) == 10
    assert neutral(items, prompts[:1], 6, Key(0)) == []


def test_the_filter_keeps_what_is_wrong_or_unsure():
    items = [item for i in range(3) for item in causal([pair("great", "dull", id=f"{i}")], WordSwap(), Key(0))]
    items += neutral([pair("a", "b")] * 3, [Prompt("u", "?")], 3, Key(0))
    prob = torch.tensor([0.79, 0.81, 0.1, 0.55, 0.59, 0.2, 0.5, 0.61, 0.39])
    kept = informative(items, torch.logit(prob))
    assert len(items) == 9
    assert [any(k is item for k in kept) for item in items] == [True, False, True, True, True, True, False, True, True]
    with pytest.raises(UserError, match="1 margins for 9 pairs"):
        informative(items, torch.zeros(1))


# ---------------------------------------------------------------- the oracle


def test_replies_are_read():
    reply = "1. Clear\n- **being correct**\n\nIn my opinion there are many other qualities to think of\nClear."
    assert qualities(reply) == ["Clear", "being correct"]
    assert rewriting("**WEAK**\nA better\nanswer.\n", "clear") == Rewritten("A better\nanswer.", True, "clear")
    assert rewriting("strong.\nworse", "clear") == Rewritten("worse", False, "clear")
    assert [rewriting(x, "q") for x in ("WEAK", "weakly\nx", "A rewriting without a verdict\nx", "")] == [None] * 4
    assert [winner(x) for x in ("A", " (b)", "B.\n", "A or B", "")] == ["A", None, "B", None, None]


class Scripted:
    """Answers as an honest model would: weak answers hold an x, and rewriting turns x into o and back."""

    def __init__(self, lie: bool = False):
        self.seen, self.lie = [], lie

    def sample(self, prompts, n, key):
        return [Rollout(p, self.reply(p.content[0]["content"])) for p in prompts]

    def reply(self, text):
        self.seen.append(text)
        if text.startswith("Name the 2"):
            return "" if "mute" in text else "1. clear\n2. short"
        if "Write WEAK" in text:
            answer = text.rsplit("Answer:\n", 1)[1]
            if answer == "?":
                return "I cannot"
            return f"WEAK\n{answer.replace('x', 'o')}" if "x" in answer else f"STRONG\n{answer.replace('o', 'x')}"
        first, second = text.rsplit("\n\nA:\n", 1)[1].split("\n\nB:\n")
        better = "A" if first.count("o") > second.count("o") else "B"
        return {"A": "B", "B": "A"}[better] if self.lie else better


def test_the_oracle_names_rewrites_and_verifies():
    items = [pair("o {braces} o", "x x"), pair("?", "o", id="q"), pair("o", "x", prompt="mute", id="r")]
    speaker = Scripted()
    made = Oracle(asking(speaker), count=2)([r for p in items for r in p.ranked], Key(0))
    assert [m and (m.text, m.better) for m in made] == [("x {braces} x", False), ("o o", True), None, ("x", False), None, None]
    assert {m.attribute for m in made if m} <= {"clear", "short"}
    assert sum(text.startswith("Name the") for text in speaker.seen) == 2, "once for each prompt"
    shown = [text.rsplit("\n\nA:\n", 1)[1].split("\n\nB:\n")[0] for text in speaker.seen if "\n\nB:\n" in text]
    assert len(shown) == 3
    assert causal(items, Oracle(asking(Scripted(lie=True)), count=2), Key(0)) == [], "what it does not confirm is dropped"


def test_the_order_of_the_last_question_is_drawn():
    speaker = Scripted()
    Oracle(asking(speaker), count=2)([r for i in range(20) for r in pair("o" * (i + 1), "x").ranked[:1]], Key(0))
    first = [text.rsplit("\n\nA:\n", 1)[1].startswith("o") for text in speaker.seen if "\n\nB:\n" in text]
    assert 3 < sum(first) < 17
