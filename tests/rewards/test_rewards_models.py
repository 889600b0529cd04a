import math
from dataclasses import dataclass

import pytest
import torch

from guerdon.errors import UserError
from guerdon.rewards import ImplicitReward, ScalarModelReward
from guerdon.types import Batch, Outputs, Prompt, Rollout, Span


def rollout(*ids, segments=None):
    n = len(ids)
    return Rollout(Prompt("p", "q"), "text", torch.tensor(ids), mask=torch.ones(n, dtype=torch.bool), segments=segments or {})


@dataclass
class Scorer:
    values: list[float]
    calls: int = 0

    def score(self, rollouts):
        assert not torch.is_grad_enabled()
        self.calls += 1
        return torch.tensor([self.values[int(r.actions[0])] for r in rollouts])


def test_scalar_model_normalises_chunks_and_keeps_the_raw_score():
    scorer = Scorer([1.0, 2.0, 4.0])
    reward = ScalarModelReward(scorer, mean=1.0, std=2.0, batch_size=2)
    scores = reward([rollout(0), rollout(1), rollout(2)])
    assert [s.value for s in scores] == [0.0, 0.5, 1.5]
    assert [s.parts["raw"] for s in scores] == [1.0, 2.0, 4.0]
    assert scorer.calls == 2


def test_scalar_model_nan_abstains_and_infinity_is_an_error():
    assert ScalarModelReward(Scorer([math.nan]))([rollout(0)])[0].abstained
    with pytest.raises(UserError, match="'model' returned inf"):
        ScalarModelReward(Scorer([math.inf]))([rollout(0)])
    with pytest.raises(UserError, match="std 0"):
        ScalarModelReward(Scorer([1.0]), std=0)


class Bigram:
    """A real policy as small as it gets: each token's log-probability is looked up."""

    def __init__(self, logp):
        self.table = torch.tensor(logp, dtype=torch.float64).log()

    def collate(self, rollouts):
        width = max(len(r) for r in rollouts)
        ids = torch.zeros(len(rollouts), width, dtype=torch.long)
        mask = torch.zeros(len(rollouts), width, dtype=torch.bool)
        for i, r in enumerate(rollouts):
            ids[i, : len(r)] = r.actions
            mask[i, : len(r)] = r.mask
        zeros = torch.zeros(len(rollouts), dtype=torch.long)
        return Batch({"actions": ids}, mask, zeros, zeros)

    def forward(self, batch, need=frozenset({"logp"})):
        return Outputs(logp=self.table[batch.inputs["actions"]])

    def logp(self, batch):
        return self.forward(batch).logp


POLICY, REF = Bigram([0.5, 0.25, 0.25]), Bigram([0.25, 0.5, 0.25])


def test_implicit_reward_golden():
    rows = [rollout(0, 0, 1), rollout(2), rollout(0)]
    scores = ImplicitReward(POLICY, REF, beta=0.1, batch_size=2)(rows)
    assert [s.value for s in scores] == pytest.approx([0.1 * math.log(2), 0.0, 0.1 * math.log(2)], abs=1e-12)
    each = ImplicitReward(POLICY, REF, beta=0.1, at="each")(rows)
    assert [s.value for s in each[0].spans] == pytest.approx([0.1 * math.log(2), 0.1 * math.log(2), -0.1 * math.log(2)], abs=1e-12)
    assert [(s.start, s.stop) for s in each[0].spans] == [(0, 1), (1, 2), (2, 3)]


def test_implicit_reward_over_segments_and_masks():
    steps = rollout(0, 0, 1, segments={"step": ((0, 2), (2, 3))})
    (score,) = ImplicitReward(POLICY, REF, beta=1.0, at="step")([steps])
    assert [s.value for s in score.spans] == pytest.approx([2 * math.log(2), -math.log(2)])
    tool = steps.with_(mask=torch.tensor([True, False, True]))
    (score,) = ImplicitReward(POLICY, REF, beta=1.0, at="each")([tool])
    assert [(s.start, s.stop) for s in score.spans] == [(0, 1), (2, 3)]
    assert ImplicitReward(POLICY, REF, beta=1.0)([tool])[0].spans == (Span(0, 3, 0.0),)
    with pytest.raises(UserError, match="beta 0"):
        ImplicitReward(POLICY, REF, beta=0)


def test_implicit_reward_averaged_over_decisions():
    rows = [rollout(0, 0, 1), rollout(0)]
    scores = ImplicitReward(POLICY, REF, beta=0.1, length_norm=True)(rows)
    assert [s.value for s in scores] == pytest.approx([0.1 * math.log(2) / 3, 0.1 * math.log(2)], abs=1e-12)
    tool = rollout(0, 0, 1).with_(mask=torch.tensor([True, False, True]))
    assert ImplicitReward(POLICY, REF, beta=1.0, length_norm=True)([tool])[0].value == pytest.approx(0.0)  # log 2 - log 2, over two


def test_implicit_reward_is_zero_against_itself():
    assert [s.value for s in ImplicitReward(POLICY, POLICY)([rollout(0, 1, 2)])] == [0.0]
