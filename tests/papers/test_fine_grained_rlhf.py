"""Fine-grained RLHF: what PPO is paid with, and what it does with it."""

import pytest
import torch

from guerdon.config import Optim, Sampling
from guerdon.core import kl
from guerdon.core.rng import Key
from guerdon.core.segments import whiten_about_mean
from guerdon.errors import UserError
from guerdon.learn.critic import token_rewards
from guerdon.learn.little import new_policy
from guerdon.papers import fine_grained_rlhf as method
from guerdon.testing import ToyPolicy, ToyReward, toy_prompts
from guerdon.types import Prompt, Score, Span

WORDS = ("a", "b", ".")


def by_sentence(rollouts):
    """+1 for each sentence that begins with an a, -1 for the others, at their ends."""
    scores = []
    for r in rollouts:
        firsts = [text.split()[:1] for text in r.content.split(".")][: len(r.segments["sentence"])]
        spans = {b: Span(a, b, 1.0 if first == ["a"] else -1.0) for (a, b), first in zip(r.segments["sentence"], firsts, strict=False)}
        scores.append(Score(tuple(spans.values())) if spans else Score.whole(r, 0.0))
    return scores


def test_rewards_know_where_sentences_end_and_pay_there():
    policy = new_policy(WORDS, 0, max_new=8, critic=True)
    cfg = method.Config(steps=1, batch=8, sampling=Sampling(n=2, max_new=8), epochs=1)
    seen = []

    def reward(rollouts):
        seen.extend(rollouts)
        return by_sentence(rollouts)

    metrics = method.build(cfg, policy, [Prompt(str(i), w) for i, w in enumerate("ab")], reward, Key(0)).step(0)
    assert {"sentence", "sub_sentence", "whole"} <= set(seen[0].segments) and {"loss/pg", "loss/value", "kl"} <= set(metrics)
    scores = by_sentence(seen)
    batch = policy.collate(seen).with_(ref_logp=policy.forward(policy.collate(seen)).logp.detach() + 0.1)
    paid = token_rewards(scores, batch, kl_coef=0.3, whiten=True, about_mean=True)
    raw = kl.penalty(batch.old_logp, batch.ref_logp, batch.mask, coef=0.3)
    for row, score in zip(raw, scores, strict=True):
        for span in score.spans:
            row[span.stop - 1] += span.value
    torch.testing.assert_close(paid, whiten_about_mean(raw, batch.mask))
    torch.testing.assert_close(paid[batch.mask].mean(), raw[batch.mask].mean())


def test_it_learns():
    policy = ToyPolicy()
    cfg = method.Config(steps=20, batch=6, epochs=2, kl=0.0, sampling=Sampling(n=4), optim=Optim(lr=0.05))
    recipe = method.build(cfg, policy, toy_prompts(), ToyReward("a", dense=True), Key(0))
    found = [recipe.step(t)["reward"] for t in range(20)]
    assert sum(found[-4:]) > sum(found[:4]) + 0.5


def test_a_critic_is_needed():
    with pytest.raises(UserError, match="no critic"):
        method.build(method.Config(), new_policy(WORDS, 0, max_new=4), toy_prompts(), ToyReward(), Key(0))
