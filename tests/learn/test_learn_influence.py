"""Influences read from a policy: against the definition on its whole vocabulary, group by group."""

import pytest
import torch

from guerdon.core import hidden_reward
from guerdon.core.rng import Key
from guerdon.learn.influence import influences
from guerdon.policies.text import TextPolicy
from guerdon.testing import ToyPolicy, toy_prompts
from guerdon.testing.models import small_model
from guerdon.types import Prompt


def text(folder):
    policy = TextPolicy.load(small_model(folder), max_new=6, temperature=0.8)
    return policy, [Prompt("a", "The food was"), Prompt("b", "What is 12 plus 30?"), Prompt("c", "Hello")]


def toy(folder):
    return ToyPolicy(spread=1.0), toy_prompts(3)


@pytest.mark.parametrize("make", [text, toy])
def test_influences(make, tmp_path):
    policy, prompts = make(tmp_path)
    batch = policy.collate(policy.sample(prompts, 4, Key(0)))
    right = torch.tensor([1, 0, 1, 0, 1, 1, 1, 1, 0, 0, 1, 0]).bool()
    heard = torch.tensor([1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0]).bool()
    found = influences(policy, batch, right, heard)
    with torch.no_grad():
        seen = policy.forward(batch, frozenset({"hidden", "logits"})).extra
    for group in range(3):
        rows, mask = batch.group == group, (batch.mask & heard[:, None])[batch.group == group]
        if group == 1:  # all right
            assert not found[rows].any()
            continue
        p, taken = seen["logits"][rows].softmax(-1), batch.inputs["actions"][rows]
        ids = taken[mask].unique()  # coordinates that the group does not hold are left out
        error = hidden_reward.prediction_error(p, taken)[..., ids]
        expected = hidden_reward.influence(error, seen["hidden"][rows], right[rows], mask)
        torch.testing.assert_close(found[rows], expected, rtol=1e-4, atol=1e-5)
        assert found[rows].abs().max() > 1e-3
    assert not found[~batch.mask].any() and not found[11].any()
    torch.testing.assert_close(influences(policy, batch, right, heard, apart=True), found, rtol=1e-5, atol=1e-6)


class Counted(ToyPolicy):
    """Counts its passes and their rows."""

    def forward(self, batch, need=frozenset({"logp"})):
        self.passes = [*getattr(self, "passes", []), len(batch)]
        return super().forward(batch, need)


def test_one_pass_reads_every_group_that_has_something_to_compare():
    policy = Counted(spread=1.0)
    batch, heard = policy.collate(policy.sample(toy_prompts(3), 4, Key(0))), torch.ones(12, dtype=torch.bool)
    right = torch.tensor([1, 0, 1, 0, 1, 1, 1, 1, 0, 0, 1, 0]).bool()
    policy.passes = []
    influences(policy, batch, right, heard)
    influences(policy, batch, right, heard, apart=True)
    influences(policy, batch, heard, heard)  # all right: nothing to read
    assert policy.passes == [8, 4, 4]


def test_the_policy_is_only_read(tmp_path):
    policy, prompts = text(tmp_path)
    batch = policy.collate(policy.sample(prompts, 2, Key(0)))
    influences(policy, batch, torch.tensor([True, False] * 3), torch.ones(6, dtype=torch.bool))
    assert all(p.grad is None for p in policy.parameters())
