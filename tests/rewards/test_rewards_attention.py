"""Credit by attention: against transformers' own weights, and tokens that are not the policy's."""

import pytest
import torch

from guerdon.errors import UserError
from guerdon.learn.little import new_policy, new_scorer
from guerdon.rewards.attention import AttentionCredit, eager
from guerdon.types import Prompt, Rollout

PROMPTS = [Prompt("p", "a b "), Prompt("q", "c d e ")]


@pytest.fixture(scope="module")
def policy():
    return new_policy("abcdefgh", 0, max_new=6, width=32, layers=2)


def answers(policy, *texts):
    return [policy.encode(Rollout(p, text)) for p in PROMPTS for text in texts]


@pytest.fixture(scope="module")
def scorer(policy):
    return new_scorer(policy, 1)


def test_credit_adds_up_to_the_score(policy, scorer):
    rollouts = answers(policy, "c", "a b c d", "h h g")
    value = scorer.score(rollouts).tolist()
    for rollout, x, score in zip(rollouts, value, AttentionCredit(scorer)(rollouts), strict=True):
        assert [(s.start, s.stop) for s in score.spans] == [(t, t + 1) for t in range(len(rollout))]
        assert score.value == pytest.approx(x, abs=1e-6) and score.parts["score"] == pytest.approx(x)
    for score, x in zip(AttentionCredit(scorer, blend=0.0)(rollouts), value, strict=True):
        assert [s.value for s in score.spans] == pytest.approx([0.0] * (len(score.spans) - 1) + [x], abs=1e-6)


def test_weights_are_those_of_the_last_layer(policy, scorer):
    rollout = answers(policy, "a b f")[1]
    before = scorer.model.config._attn_implementation
    with eager(scorer.model), torch.no_grad():
        got = AttentionCredit(scorer).attention(rollout)
        ids = torch.tensor([scorer.ids(rollout)])
        want = scorer.model(input_ids=ids, output_attentions=True).attentions[-1][0, :, -1].mean(0)
    assert scorer.model.config._attn_implementation == before
    assert float(want.sum()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(got, want[3 : 3 + len(rollout)])


def test_other_tokens_are_refused(policy, scorer):
    rollout = answers(policy, "a b c")[0]
    with pytest.raises(UserError, match="tokens that the policy wrote"):
        AttentionCredit(scorer)([rollout.with_(actions=rollout.actions.flip(0) + 1)])
    [score] = AttentionCredit(scorer)([Rollout(PROMPTS[0], "a b")])
    assert score.abstained
    with pytest.raises(UserError, match="blend"):
        AttentionCredit(scorer, blend=2.0)
