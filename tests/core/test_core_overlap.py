"""BLEU smoothed at every order, by hand and against the formula written out."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core.overlap import grams, harmonic, smoothed_bleu


def bleu(text: str, *references: str) -> float:
    return smoothed_bleu(text.split(), [r.split() for r in references])


def test_golden_numbers():
    """Spec: 6/7, 4/6, 2/5, 1/4 and no brevity penalty; all precisions 1 and the penalty alone."""
    assert bleu("the cat sat on the mat", "the cat is on the mat") == pytest.approx(0.488923022, abs=1e-9)
    assert bleu("the cat sat on the mat", "the cat is on the mat") == pytest.approx((6 / 7 * 4 / 6 * 2 / 5 * 1 / 4) ** 0.25, abs=1e-12)
    assert bleu("the cat", "the cat is on the mat") == pytest.approx(0.1353352832, abs=1e-9)


def test_several_references():
    assert bleu("a b c d e", "a b c d e", "x") == 1
    # "a a" is in one reference twice: it counts twice. The shortest reference is as long as the text.
    assert bleu("a a", "a a b b", "a x") == pytest.approx(1.0)
    assert bleu("a a", "a b", "a x") == pytest.approx((2 / 3 * 1 / 2) ** 0.25)
    # a short reference among long ones lifts the penalty
    assert bleu("a b", "a b c d") == pytest.approx(math.exp(-1))
    assert bleu("a b", "a b c d", "z") == pytest.approx(1)


def test_edges():
    assert smoothed_bleu([], [["a"]]) == 0
    assert 0 < bleu("x", "a b c") < bleu("x y z", "a b c") < 1  # smoothing leaves something, brevity takes it
    assert smoothed_bleu(["a"], [["a"]], max_order=1) == 1
    for bad in ({"references": []}, {"references": [["a"]], "max_order": 0}):
        with pytest.raises(ValueError, match="expected at least 1"):
            smoothed_bleu(["a"], **bad)
    assert harmonic(0.5, 0.25) == pytest.approx(1 / 3)
    assert harmonic(0.0, 0.0) == 0


WORDS = st.lists(st.sampled_from("abc"), min_size=1, max_size=8)


@given(text=WORDS, references=st.lists(WORDS, min_size=1, max_size=3))
def test_it_is_a_share_and_1_for_a_reference(text, references):
    value = smoothed_bleu(text, references)
    assert 0 < value <= 1 + 1e-12
    assert smoothed_bleu(text, references[::-1]) == pytest.approx(value)
    assert smoothed_bleu(text, [*references, text]) == pytest.approx(1)


def test_grams():
    assert grams(["a", "b", "a", "b"], 2) == {("a", "b"): 2, ("b", "a"): 1}
    assert not grams(["a"], 2)
