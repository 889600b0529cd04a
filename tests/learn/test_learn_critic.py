"""Token rewards, advantages and targets by hand, from a policy that says its values."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from guerdon.core import credit
from guerdon.core.masked import masked_whiten
from guerdon.errors import UserError
from guerdon.learn.critic import by_critic, token_rewards, value_term
from guerdon.types import Batch, Outputs, Score, Span

MASK = torch.ones(1, 2, dtype=torch.bool)
ZERO = torch.zeros(1, dtype=torch.long)
BATCH = Batch(
    {},
    MASK,
    ZERO,
    ZERO,
    old_logp=torch.tensor([[-0.4, -1.2]], dtype=torch.float64),
    ref_logp=torch.tensor([[-0.5, -1.0]], dtype=torch.float64),
)  # the policy and the fine-tuned model
SCORE = [Score((Span(0, 2, 0.8),))]  # fine-tuned -.5 - 1 less base -1.5 - .8
VALUES = torch.tensor([[0.2, 0.4]], dtype=torch.float64)


class Says:
    """A policy that knows its values."""

    critic = "here"

    def forward(self, batch, need):
        assert need == {"value"}
        return Outputs(value=VALUES[:, : batch.mask.shape[1]].expand(len(batch), -1))


def close(a, b, atol=1e-7):
    torch.testing.assert_close(a.double(), torch.tensor([b], dtype=torch.float64), atol=atol, rtol=0)


def test_token_rewards_by_hand():
    close(token_rewards(SCORE, BATCH, kl_coef=0.1), [-0.01, 0.82])
    close(token_rewards(SCORE, BATCH), [0.0, 0.8])


def test_advantages_by_hand():
    """In float64 the core's numbers; by the batch, whitened."""
    adv, target = credit.gae(torch.tensor([[-0.01, 0.82]], dtype=torch.float64), VALUES, MASK, gamma=1.0, lam=0.95)
    close(adv, [0.589, 0.42], 1e-9)
    close(target, [0.789, 0.82], 1e-9)
    found = by_critic(Says(), kl_coef=0.1, lam=0.95)(SCORE, BATCH)  # type: ignore[arg-type]
    assert isinstance(found, Batch)
    close(found.extra["target"], [0.789, 0.82])
    close(found.extra["value"], [0.2, 0.4])
    close(found.adv, masked_whiten(adv, MASK)[0].tolist(), 1e-5)


def test_whitening_divides_and_does_not_shift():
    paid = token_rewards(SCORE, BATCH, kl_coef=0.1, whiten=True)
    assert float(paid[0, 0] / paid[0, 1]) == pytest.approx(-0.01 / 0.82)
    assert float(paid.std()) == pytest.approx(1.0, abs=1e-4)


def test_an_answer_without_a_score_moves_nothing():
    batch = Batch({}, MASK.expand(2, 2), ZERO.expand(2), torch.arange(2), old_logp=torch.zeros(2, 2), ref_logp=torch.zeros(2, 2))
    found = by_critic(Says(), whiten=True)([Score.abstain("?"), *SCORE], batch)  # type: ignore[arg-type]
    assert isinstance(found, Batch)
    close(found.adv[:1], [0.0, 0.0])
    close(found.extra["target"][:1], [0.2, 0.4])
    assert bool(torch.isfinite(found.adv).all())


def test_the_critics_loss_is_clipped_around_its_old_values():
    batch = BATCH.with_(extra={"target": torch.tensor([[1.0, 1.0]]), "value": torch.tensor([[0.0, 0.0]])})
    out = Outputs(value=torch.tensor([[0.9, 0.1]]))
    close(value_term(0.2, 1.0).loss(out, batch), [0.5 * 0.8**2, 0.5 * 0.9**2])
    close(value_term(None, 1.0).loss(out, batch), [0.5 * 0.1**2, 0.5 * 0.9**2])


def test_a_policy_without_a_critic_is_refused():
    with pytest.raises(UserError, match="no critic"):
        by_critic(SimpleNamespace(critic=None))  # type: ignore[arg-type]
