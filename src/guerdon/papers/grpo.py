"""Group Relative Policy Optimization: PPO without a critic.

Problem: PPO's critic is a second model as large as the policy, and hard to fit on one reward at the end of a long answer.
Idea: sample a group of answers to each prompt and use the group as the baseline: `A = (R - mean) / std`, the same for all tokens of an
answer; clip as PPO does; keep a KL leash to the starting policy as a term of the loss.
Left out: process supervision (a reward per step) and the iterated reward model of the paper's section 4.1.3.
Deliberate difference: the KL term shows k3 and, by default, follows the gradient of k2, the unbiased one of the reverse KL;
`--kl-grad k3` is the paper's. With `--scale none --aggregate constant` this is Dr. GRPO.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from guerdon.config import Checked, LoraConfig, Optim, Sampling, knob
from guerdon.core import credit, kl, surrogate
from guerdon.core.reduce import Reduce, seq_mean_token_mean, seq_sum_over, token_mean
from guerdon.core.rng import Key
from guerdon.learn.learner import learner_for
from guerdon.learn.online import online
from guerdon.learn.verbs import by_outcome
from guerdon.policies.refs import Frozen
from guerdon.types import Batch, Outputs, Paper, Policy, Prompt, Recipe, Reward, Term, decisions

PAPER = Paper(
    title="DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models",
    arxiv="2402.03300",
    year=2024,
    family="policy gradient",
    idea="The other answers to the same prompt are the baseline, so no critic is needed",
    uses=("prompts", "reward", "core.credit.grpo", "core.surrogate.ppo_clip", "core.kl.kl"),
    claim="Against a fixed reward, the policy's mean reward on held-out samples rises well above its start's",
    full_size="guerdon run grpo --model deepseek-ai/deepseek-math-7b-instruct --data reasoning-gym:gsm_symbolic --reward reasoning_gym "
    "--lr 1e-6 --n 64 --beta 0.04 --max-new 1024 --batch 16",
)


@dataclass(frozen=True)
class Config(Checked):
    model: str = knob("tiny", "the policy to start from: tiny, a folder, or a hub name")
    data: str = knob("human-ratings:movie", "prompts: a file, a folder, a hub name, or a named source")
    reward: tuple[str, ...] = knob(("vader",), "rewards: names, file.py:function, or reward-model folders, each with an optional =weight")
    beta: float = knob(0.04, "weight of the KL to the starting policy; 0: no leash and no reference", at_least=0)
    show_kl: bool = knob(False, "with beta 0: keep a reference all the same, to log how far the policy moves")
    kl_grad: Literal["k2", "k3"] = knob("k2", "gradient of the KL term: k2 unbiased, k3 the paper's")
    eps_low: float = knob(0.2, "clip range below 1", above=0, at_most=1)
    eps_high: float = knob(0.2, "clip range above 1", above=0)
    scale: Literal["std", "none"] = knob("std", "divide advantages by the group's standard deviation, or not (Dr. GRPO)")
    aggregate: Literal["sequence", "token", "constant"] = knob("sequence", "mean of sequence means, of tokens, or over max_new (Dr. GRPO)")
    batch: int = knob(16, "prompts a step, each answered `sampling.n` times", unit="prompts", at_least=1)
    epochs: int = knob(1, "passes over a step's answers", at_least=1)
    minibatches: int = knob(1, "updates in each pass", at_least=1)
    steps: int = knob(40, "steps of sampling and learning", unit="steps", at_least=1)
    sampling: Sampling = Sampling(n=8, max_new=28)
    optim: Optim = Optim(lr=2e-4)
    lora: LoraConfig = LoraConfig()


def reduction(cfg: Config) -> Reduce:
    """How token losses become one number."""
    return {"sequence": seq_mean_token_mean, "token": token_mean, "constant": seq_sum_over(cfg.sampling.max_new)}[cfg.aggregate]


def clip_term(eps_low: float, eps_high: float, reduce: Reduce) -> Term:
    """PPO's clipped surrogate; watches how often it clips and how far the ratio has moved."""

    def loss(o: Outputs, b: Batch) -> torch.Tensor:
        return surrogate.ppo_clip(o.logp, b.old_logp, b.adv, eps_low=eps_low, eps_high=eps_high)

    def watch(o: Outputs, b: Batch) -> dict[str, torch.Tensor]:
        low, high = surrogate.clip_fraction(o.logp, b.old_logp, b.adv, eps_low=eps_low, eps_high=eps_high)
        return {"clip_ratio/low": low, "clip_ratio/high": high, "ratio": surrogate.ratio(o.logp, b.old_logp), "entropy": o.entropy}

    return Term("pg", loss, over=decisions, reduce=reduce, needs=frozenset({"logp", "entropy"}), watch=watch)


def kl_term(beta: float, grad: Literal["k2", "k3"], reduce: Reduce) -> Term:
    """The leash: value k3, gradient of the estimator asked for."""

    def loss(o: Outputs, b: Batch) -> torch.Tensor:
        return kl.kl(o.logp, b.ref_logp, show="k3", grad=grad)

    return Term("kl", loss, over=decisions, reduce=reduce, coef=beta)


def build(cfg: Config, policy: Policy, prompts: Sequence[Prompt], reward: Reward, key: Key) -> Recipe:
    reduce = reduction(cfg)
    terms = [clip_term(cfg.eps_low, cfg.eps_high, reduce)] + ([kl_term(cfg.beta, cfg.kl_grad, reduce)] if cfg.beta else [])
    ref = Frozen(policy) if cfg.beta or cfg.show_kl else None
    return online(
        learner=learner_for(policy, terms, cfg.optim, cfg.steps * cfg.epochs * cfg.minibatches),
        prompts=prompts,
        reward=reward,
        credit=by_outcome(credit.grpo if cfg.scale == "std" else credit.dr_grpo),
        n=cfg.sampling.n,
        batch=cfg.batch,
        steps=cfg.steps,
        key=key,
        ref=ref,
        epochs=cfg.epochs,
        minibatches=cfg.minibatches,
    )
