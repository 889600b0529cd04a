"""Rewards of translations: sacrebleu's options, BLEUBERI's BLEU, COMET behind a stand-in, and parts of a response."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import sacrebleu

from guerdon.errors import UserError
from guerdon.rewards import comet as comet_module
from guerdon.rewards.comet import Comet, comet
from guerdon.rewards.extracted import Extracted, opened, tagged
from guerdon.rewards.overlap import bleu_rouge, smoothed_bleu
from guerdon.rewards.text_metrics import bleu, chrf, rouge_l
from guerdon.testing import ToyReward, check_reward
from guerdon.types import Prompt, Rollout

MAT, HAT = "The cat sat on the mat.", "A cat sat on a mat."


def said(text, **meta):
    return Rollout(Prompt("p", "Translate: Katze", meta), text)


def value(reward, text, reference):
    return reward([said(text, reference=reference)])[0].value


# ---------------------------------------------------------------- sacrebleu


def test_sentence_bleu_and_chrf_are_sacrebleus():
    assert value(bleu, MAT, HAT) == pytest.approx(sacrebleu.sentence_bleu(MAT, [HAT]).score / 100, abs=1e-12)
    assert value(chrf, MAT, [HAT, "x"]) == pytest.approx(sacrebleu.sentence_chrf(MAT, [HAT, "x"]).score / 100, abs=1e-12)


def test_options_reach_sacrebleu():
    plus = sacrebleu.sentence_chrf(MAT, [HAT], word_order=2).score / 100
    assert value(chrf.bind(word_order=2), MAT, HAT) == pytest.approx(plus, abs=1e-12) != value(chrf, MAT, HAT)
    lower = sacrebleu.sentence_bleu(MAT.upper(), [MAT], lowercase=True).score / 100
    assert value(bleu.bind(lowercase=True), MAT.upper(), MAT) == pytest.approx(lower) == pytest.approx(1)
    assert value(bleu.bind(tokenize="zh"), "猫在垫子上", "猫在垫子上") == pytest.approx(1)
    assert value(bleu.bind(effective_order=False, smooth="none"), "the cat", "the cat") == 0
    assert value(bleu, "the cat", "the cat") == pytest.approx(1)  # two words are enough with effective order


@pytest.mark.parametrize("settings", [{"tokenize": "klingon"}, {"smooth": "silk"}])
def test_what_sacrebleu_does_not_know_is_refused(settings):
    with pytest.raises(UserError, match="sacrebleu's BLEU refuses"):
        bleu.bind(**settings)([said("a", reference="a")])


def test_bleuberis_bleu_smooths_all_orders():
    assert value(smoothed_bleu, "the cat sat on the mat", "the cat is on the mat") == pytest.approx(0.488923022, abs=1e-9)
    assert value(smoothed_bleu, "the cat", "the cat is on the mat") == pytest.approx(0.1353352832, abs=1e-9)
    assert value(smoothed_bleu, "mat.", "mat .") == pytest.approx(1)  # 13a takes the stop off
    assert value(smoothed_bleu, "", "mat") == 0
    assert smoothed_bleu([said("x", reference=" ")])[0].abstained
    a, b = value(smoothed_bleu, MAT, HAT), value(rouge_l, MAT, HAT)
    assert value(bleu_rouge, MAT, HAT) == pytest.approx(2 * a * b / (a + b))


# ---------------------------------------------------------------- COMET


class Judge:
    """A stand-in for a COMET model: the share of the source's letters that the translation has."""

    def __init__(self, needs: bool):
        self.needs, self.asked = needs, []

    def requires_references(self):
        return self.needs

    def predict(self, rows, batch_size, gpus, progress_bar):
        self.asked += rows
        return SimpleNamespace(scores=[sum(c in row["mt"] for c in row["src"]) / max(1, len(row["src"])) for row in rows])


@pytest.fixture
def package(monkeypatch):
    judges = {"Unbabel/wmt22-cometkiwi-da": Judge(False), "Unbabel/wmt22-comet-da": Judge(True)}
    module = ModuleType("comet")
    module.download_model = lambda name: name  # type: ignore[attr-defined]
    module.load_from_checkpoint = judges.__getitem__  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "comet", module)
    comet_module._loaded.cache_clear()
    yield judges
    comet_module._loaded.cache_clear()


def test_comet_without_references(package):
    scores = comet([said("abx", source="ab"), said("a", source="ab")])
    assert [s.value for s in scores] == [1.0, 0.5]
    assert package["Unbabel/wmt22-cometkiwi-da"].asked == [{"src": "ab", "mt": "abx"}, {"src": "ab", "mt": "a"}]
    check_reward(comet)
    assert comet([]) == []


def test_comet_with_references_abstains_without(package):
    reward = Comet(model="Unbabel/wmt22-comet-da")
    scores = reward([said("ab", source="ab", reference=["ref", "other"]), said("ab", source="ab"), said("ab")])
    assert [s.abstained for s in scores] == [False, True, True]
    assert package["Unbabel/wmt22-comet-da"].asked == [{"src": "ab", "mt": "ab", "ref": "ref"}]
    check_reward(reward)


def test_without_the_package_comet_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "comet", None)
    comet_module._loaded.cache_clear()
    with pytest.raises(UserError, match=r"unbabel-comet.*not installed\nhint: pip install"):
        comet([said("a")])
    monkeypatch.setitem(sys.modules, "comet", ModuleType("comet"))
    with pytest.raises(UserError, match="is not COMET's"):
        comet([said("a")])


# ---------------------------------------------------------------- parts of a response


def test_tagged_wants_the_exact_form():
    assert tagged("<think>so</think>\n<answer> Katze </answer>") == "Katze"
    for text in ("Katze", "<answer>Katze</answer>", "<think>a</think><answer> </answer>", "x<think>a</think><answer>b</answer>"):
        assert tagged(text) is None
    assert tagged(" Katze ", ()) == "Katze"
    assert tagged("  ", ()) is None


def test_opened_reads_to_the_end():
    assert opened("<answer>a</answer> and <answer> b c") == "b c"
    assert opened("<answer>a</answer> tail") == "a"
    assert opened("a") is None
    assert opened(" a ", "") == "a"


def test_a_reward_of_a_part():
    reward = Extracted(ToyReward("a"), tagged)
    good, bad = said("<think>aaa</think><answer>ab</answer>"), said("aaaa")
    scores = reward([good, bad])
    assert scores[0].value == ToyReward("a")([said("ab")])[0].value
    assert (scores[0].parts["format"], scores[1].value, scores[1].parts["format"]) == (1.0, 0.0, 0.0)
    assert Extracted(ToyReward("a"), tagged, otherwise=None)([bad])[0].abstained
    check_reward(reward)
    check_reward(Extracted(bleu, opened, otherwise=None))
