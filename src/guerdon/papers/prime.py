"""PRIME: a process reward model that learns online from outcome labels alone.

Problem: a reward at the end of an answer says little about its steps, and labels for the steps are expensive; a fixed process reward
model is soon gamed.
Idea: a language model whose log-ratio to a reference is trained (cross-entropy on the verifier's verdict) to be the outcome reward is,
token by token, a process reward: `r_t = beta log(prm / ref)`. So update it on the policy's own answers at every step, *then* read its
token rewards, and add leave-one-out advantages of outcome and process.
The defaults are those of the authors' code: groups outside an accuracy band are left out (a reward model fitted to nearly all-wrong
answers only learns that everything is bad), token rewards are divided by the largest return-to-go of the batch, the last token gets
none, advantages are whitened. The paper's equation but for a factor n / (n - 1): `--norm none --skip-last false --whiten false`.
Left out: other losses (detached DPO, best-of-n weights), and sampling anew for groups left out: the batch is smaller instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from guerdon.config import Checked, LoraConfig, Optim, Sampling, knob
from guerdon.core import credit, reward_loss
from guerdon.core.masked import group_mean
from guerdon.core.reduce import mean, token_mean
from guerdon.core.rng import Key
from guerdon.data.cursor import Cursor
from guerdon.learn.learner import learner_for
from guerdon.learn.terms import clip_term
from guerdon.learn.verbs import average, collate, judge, pieces_of, rollout_metrics, sample, shown, values, with_adv, with_ref
from guerdon.policies.refs import Frozen
from guerdon.types import Batch, Metrics, Outputs, Paper, Policy, Prompt, Recipe, Reward, Term

PAPER = Paper(
    title="Process Reinforcement through Implicit Rewards",
    arxiv="2502.01456",
    year=2025,
    family="process reward",
    idea="An implicit process reward model, updated on the policy's own answers with outcome labels only, then read token by token",
    uses=("prompts", "reward", "prm", "core.reward_loss.implicit_outcome_ce", "core.credit.prime"),
    claim="Fitted to right or wrong of whole answers only, implicit rewards find the first wrong step better than the policy's confidence",
    full_size="guerdon run prime --model PRIME-RL/Eurus-2-7B-SFT --data reasoning-gym:gsm_symbolic --reward reasoning_gym "
    "--n 4 --batch 256 --lr 5e-7 --prm-optim.lr 1e-6 --max-new 3072",
)


@dataclass(frozen=True)
class Config(Checked):
    model: str = knob("tiny", "the policy to start from (and the process reward model): tiny, a folder, or a hub name")
    data: str = knob("human-ratings:movie", "prompts: a file, a folder, a hub name, or a named source")
    reward: tuple[str, ...] = knob(("vader",), "the verifier: a name, file.py:function ...; above `threshold` counts as right")
    threshold: float = knob(0.5, "outcomes above it are labelled 1, others 0")
    beta: float = knob(0.05, "scale of the implicit token rewards", above=0)
    outcome_coef: float = knob(5.0, "weight of the outcome advantage", at_least=0)
    process_coef: float = knob(5.0, "weight of the process advantage; 0: outcome rewards alone", at_least=0)
    accuracy_low: float = knob(0.2, "groups with a smaller share of right answers are left out; 0: none", at_least=0, at_most=1)
    accuracy_high: float = knob(0.8, "groups with a larger share of right answers are left out; 1: none", at_least=0, at_most=1)
    norm: Literal["batch", "none"] = knob("batch", "divide token rewards by the batch's largest return-to-go, or not")
    skip_last: bool = knob(True, "no token reward for the last token (the end of the answer)")
    whiten: bool = knob(True, "whiten the summed advantages over the batch")
    prm_updates: int = knob(1, "updates of the process reward model on each batch", unit="updates", at_least=1)
    eps: float = knob(0.2, "clip range around 1", above=0, at_most=1)
    batch: int = knob(16, "prompts a step, each answered `sampling.n` times", unit="prompts", at_least=1)
    steps: int = knob(40, "steps of sampling and learning", unit="steps", at_least=1)
    sampling: Sampling = Sampling(n=4, max_new=28)
    optim: Optim = Optim(lr=1e-4)
    prm_optim: Optim = Optim(lr=1e-4)
    lora: LoraConfig = LoraConfig()


def outcome_term(beta: float) -> Term:
    """Cross-entropy of the implicit outcome reward with the verifier's verdict; unjudged rows are left out."""

    def loss(o: Outputs, b: Batch) -> Tensor:
        return reward_loss.implicit_outcome_ce(o.logp, b.ref_logp, b.mask, b.label.nan_to_num(0.5), beta=beta)

    return Term("prm", loss, over=lambda b: b.mask.any(1) & ~b.label.isnan(), reduce=mean)


def token_rewards(cfg: Config, logp: Tensor, batch: Batch) -> Tensor:
    """Implicit token rewards `(N, T)`, normalised as the configuration says."""
    process = reward_loss.implicit_rewards(logp, batch.ref_logp, batch.mask, beta=cfg.beta)
    if cfg.skip_last:
        to_come = batch.mask.flip(1).cumsum(1).flip(1)
        process = torch.where(to_come > 1, process, 0.0)
    largest = credit.returns(process, batch.mask).abs().max() + 1e-6
    return process / largest if cfg.norm == "batch" else process


def build(cfg: Config, policy: Policy, prm: Policy, prompts: Sequence[Prompt], reward: Reward, key: Key) -> Recipe:
    ref = Frozen(policy)
    actor = learner_for(policy, [clip_term(cfg.eps, cfg.eps, token_mean)], cfg.optim, cfg.steps)
    critic = learner_for(prm, [outcome_term(cfg.beta)], cfg.prm_optim, cfg.steps * cfg.prm_updates)
    cursor = Cursor(prompts, cfg.batch, key.fold("prompts"))

    def step(t: int) -> Metrics:
        rollouts = sample(policy, cursor.at(t), cfg.sampling.n, key.fold("rollout", t))
        scores, said = judge(reward, rollouts)
        batch = with_ref(collate(policy, rollouts), ref)
        outcome = values(scores).to(batch.mask.device)
        label = torch.where(outcome.isnan(), outcome, (outcome > cfg.threshold).float())
        right = group_mean(label, batch.group)
        kept = ((right >= cfg.accuracy_low) & (right <= cfg.accuracy_high)).nonzero()[:, 0]
        metrics = rollout_metrics(rollouts, scores, batch) | said | {"frac_kept": len(kept) / len(rollouts)}
        if len(kept) == 0:
            return metrics | {"skipped": 1.0}
        batch, outcome = batch.with_(label=label).rows(kept), outcome[kept]
        process = torch.zeros_like(batch.ref_logp)
        if cfg.process_coef:
            learnt = average([critic.update(batch) for _ in range(cfg.prm_updates)])  # update first ...
            metrics = metrics | {f"prm/{name}": value for name, value in learnt.items()}
            with torch.no_grad():  # ... then score
                process = token_rewards(cfg, prm.forward(batch).logp, batch)
            metrics = Metrics(metrics, shown([rollouts[i] for i in kept], [scores[i] for i in kept], pieces_of(policy), each=process))
        how = {"outcome_coef": cfg.outcome_coef, "process_coef": cfg.process_coef, "whiten": cfg.whiten}
        adv = credit.prime(outcome, process, batch.mask, batch.group, scaled=True, **how)
        return metrics | actor.update(with_adv(batch, adv))

    return Recipe({"actor": actor, "prm": critic}, step, cfg.steps, final=policy.save)
