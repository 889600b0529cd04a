"""Copies as a model sees them, and loops as a rule sees them."""

from __future__ import annotations

import pytest
import torch

from guerdon.core.repetition import copies
from guerdon.core.rng import Key
from guerdon.data.repeat import Repeated, repeated
from guerdon.errors import UserError
from guerdon.evaluate.repetition import copy_curve
from guerdon.policies.text import TextPolicy
from guerdon.rewards.text_metrics import sentence_loops
from guerdon.testing.models import small_model
from guerdon.types import Prompt, Rollout

TEXT = "The food was great. The road is long. It is worth it. No end."


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return TextPolicy.load(small_model(tmp_path_factory.mktemp("model"), max_position_embeddings=256))


def test_copy_curve_is_of_all_texts_together(policy):
    texts = []
    for i in range(3):
        row = policy.encode(Rollout(Prompt(str(i), "Say"), TEXT * (i + 1), end="length"))
        texts.append(repeated(row, policy.pieces(row), Key(i)))
    one, several = (copy_curve(policy, texts, most=3, batch_size=n) for n in (1, 3))
    for a, b in zip(one, several, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    assert bool((several.probability > 0).all())
    assert float(several.increased[0]) == 0


def test_copy_curve_reads_the_models_own_numbers(policy):
    rollout = Rollout(Prompt("a", "Say"), "", torch.tensor([9, 20, 21, 20, 21, 20]), mask=torch.ones(6).bool())
    found = copy_curve(policy, [Repeated(rollout, 3, 2)], most=3)
    prompt = policy.codec.prompt_ids(rollout.prompt)
    with torch.no_grad():
        logits = policy.model(input_ids=torch.tensor([prompt + rollout.actions.tolist()])).logits[0, len(prompt) - 1 : -1]
    logp = logits.log_softmax(-1).gather(1, rollout.actions[:, None])[:, 0]
    first = logits.argmax(-1) == rollout.actions
    expected = copies(logp[None], first[None], rollout.mask[None], torch.tensor([3]), torch.tensor([2]), most=3)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_copy_curve_needs_texts(policy):
    with pytest.raises(UserError, match="no texts that repeat"):
        copy_curve(policy, [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0.0),
        ("One. Two. Three.", 0.0),
        ("One two. one  TWO! Three", -1 / 3),
        ("A b.\nA b.\nA b.\nA b.", -0.75),
        ("A. B. A. B.", 0.0),  # not on end
        ("word " * 50, 0.0),
    ],
)
def test_sentence_loops(text, expected):
    assert sentence_loops([Rollout(Prompt("p", "q"), text)])[0].value == pytest.approx(expected)
