"""Policies that are what their sampler draws from: the truncated distribution, exact in values and gradients."""

import pytest
import torch

from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.learn.little import new_policy
from guerdon.policies.generate import Sampler
from guerdon.types import Prompt

WORDS = [f"w{i}" for i in range(14)]
ASKED = [Prompt(str(i), " ".join(f"w{(i * k) % 14}" for k in range(1, 4 + i))) for i in range(5)]
NEED = frozenset({"logp", "entropy"})


@pytest.mark.parametrize(("top_p", "top_k"), [(0.7, 0), (1.0, 4), (0.8, 5)])
def test_forward_gives_the_distribution_that_was_drawn_from(top_p, top_k):
    policy = new_policy(WORDS, 1, max_new=6, top_p=top_p, top_k=top_k, temperature=0.8)
    batch = policy.collate(policy.sample(ASKED, 6, Key(0)))
    assert (policy.forward(batch).logp - batch.old_logp)[batch.mask].abs().max() > 0.01
    narrow = policy.truncated(batch)
    out = policy.forward(narrow, NEED)
    torch.testing.assert_close(out.logp, batch.old_logp, rtol=0, atol=1e-5)
    logits = policy.forward(batch, frozenset({"logits"})).extra["logits"]
    kept = Sampler(1.0, top_p, top_k).truncate(logits.flatten(0, 1)).view_as(logits).double().softmax(-1)
    entropy = -(kept * kept.clamp(min=1e-300).log()).sum(-1)
    torch.testing.assert_close(out.entropy[batch.mask].double(), entropy[batch.mask], rtol=0, atol=1e-5)
    assert torch.equal(policy.forward(narrow.rows(torch.tensor([3, 1])), NEED).logp, out.logp[[3, 1]]) or torch.allclose(
        policy.forward(narrow.rows(torch.tensor([3, 1])), NEED).logp, out.logp[[3, 1]], atol=1e-5
    )


def test_its_gradient_is_that_of_the_truncated_distribution():
    """Mean zero over draws, as of any score; that of the open distribution is not."""
    policy = new_policy(WORDS, 1, max_new=1, width=16, layers=1, top_p=0.6)
    batch = policy.collate(policy.sample(ASKED[:1], 4000, Key(0)))

    def size(batch):
        policy.model.zero_grad()
        policy.forward(batch).logp[batch.mask].mean().backward()
        return float(policy.model.lm_head.weight.grad.norm())

    assert size(policy.truncated(batch)) < 0.2 * size(batch)


def test_what_is_kept_stays_when_weights_move():
    policy = new_policy(WORDS, 1, max_new=6, top_p=0.5)
    batch = policy.truncated(policy.collate(policy.sample(ASKED, 4, Key(0))))
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=Key(1).fold(p.numel()).generator()))
    logp = policy.forward(batch).logp
    assert torch.isfinite(logp).all() and (logp <= 1e-6).all()


def test_raw_log_probabilities():
    policy, plain = (new_policy(WORDS, 1, max_new=6, temperature=t, top_p=p) for t, p in ((0.5, 0.7), (1.0, 1.0)))
    batch = policy.collate(policy.sample(ASKED, 4, Key(0)))
    torch.testing.assert_close(policy.raw_logp(batch), plain.forward(batch).logp.detach(), rtol=0, atol=1e-5)
    assert torch.equal(policy.raw_logp(policy.truncated(batch)), policy.raw_logp(batch))


def test_other_statistics_are_refused():
    policy = new_policy(WORDS, 1, max_new=6, top_p=0.5)
    batch = policy.truncated(policy.collate(policy.sample(ASKED, 2, Key(0))))
    with pytest.raises(UserError, match="does not give 'sum_p2'"):
        policy.forward(batch, frozenset({"sum_p2"}))
