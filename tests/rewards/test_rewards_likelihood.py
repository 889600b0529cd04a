"""Likelihoods of given tokens under another context than the one they were made for."""

from __future__ import annotations

import pytest
import torch

from guerdon.errors import UserError
from guerdon.policies.text import TextPolicy
from guerdon.rewards.likelihood import likelihood
from guerdon.testing.models import small_model
from guerdon.testing.toys import ToyPolicy
from guerdon.types import Prompt, Rollout


def test_likelihood_of_a_toy_is_its_table():
    policy = ToyPolicy(spread=1.0)
    table = policy.logits.log_softmax(-1).detach()
    asked = [Prompt("a", "A"), Prompt("b", "B")]
    rows = [Rollout(asked[0], "ab"), Rollout(asked[1], "ab"), Rollout(asked[0], "", end="length")]
    for size in (1, 2, 64):
        found = likelihood(policy, rows, batch_size=size)
        for i, ids in enumerate([[1, 2, 0], [1, 2, 0], []]):
            here = table[policy.context(rows[i].prompt)]
            torch.testing.assert_close(found[i], torch.stack([here[t, a] for t, a in enumerate(ids)]) if ids else torch.empty(0))
    assert not torch.equal(found[0], found[1])  # the context matters
    assert not found[0].requires_grad


def test_only_decisions_of_the_mask_count():
    row = Rollout(Prompt("a", "A"), "ab", torch.tensor([1, 2, 0]), mask=torch.tensor([True, False, True]))
    assert len(likelihood(ToyPolicy(), [row])[0]) == 2


def test_a_prompt_of_ids_is_taken_as_it_is(tmp_path):
    policy = TextPolicy.load(small_model(tmp_path))
    ids, said = policy.codec.prompt_ids(Prompt("x", "Hi")), torch.tensor([7, 9, 11])
    mask = torch.ones(3, dtype=torch.bool)
    rows = [Rollout(Prompt("x", content), "", said, mask=mask) for content in ("Hi", tuple(ids))]
    found = likelihood(policy, rows)
    torch.testing.assert_close(found[0], found[1])
    logits = policy.model(input_ids=torch.tensor([[*ids, *said.tolist()]])).logits[0, len(ids) - 1 : -1]
    torch.testing.assert_close(found[0], logits.log_softmax(-1).gather(1, said[:, None])[:, 0], atol=1e-5, rtol=0)


def test_batch_size_is_checked():
    with pytest.raises(UserError, match="batch_size 0"):
        likelihood(ToyPolicy(), [], batch_size=0)
