"""PRIME: a process reward model that learns online from outcome labels alone.

Problem: a reward at the end of an answer says little about its steps, and labels for the steps are expensive; a fixed process reward
model is soon gamed.
Idea: a language model whose log-ratio to a reference is trained (cross-entropy on the verifier's verdict) to be the outcome reward is,
token by token, a process reward: `r_t = beta log(prm / ref)`. So update it on the policy's own answers at every step, *then* read its
token rewards, and add leave-one-out advantages of outcome and process.
Left out: the variants of the loss (detached DPO, best-of-n weights) and filtering prompts by accuracy band beyond all-equal groups,
which earn no advantage here anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from guerdon.config import Checked, LoraConfig, Optim, Sampling, knob
from guerdon.core import credit, reward_loss
from guerdon.core.reduce import mean, token_mean
from guerdon.core.rng import Key
from guerdon.data.cursor import Cursor
from guerdon.learn.learner import learner_for
from guerdon.learn.verbs import judge, rollout_metrics, values, with_adv, with_ref
from guerdon.papers.grpo import clip_term
from guerdon.policies.refs import Frozen
from guerdon.types import Batch, Metrics, Outputs, Paper, Policy, Prompt, Recipe, Reward, Term

PAPER = Paper(
    title="Process Reinforcement through Implicit Rewards",
    arxiv="2502.01456",
    year=2025,
    family="process reward",
    idea="An implicit process reward model, updated on the policy's own answers with outcome labels only, then read token by token",
    uses=("prompts", "reward", "prm", "core.reward_loss.implicit_outcome_ce", "core.credit.prime"),
    claim="With the same samples and steps, implicit process rewards end above outcome rewards alone on a verifiable task",
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
    eps_low: float = knob(0.2, "clip range below 1", above=0, at_most=1)
    eps_high: float = knob(0.2, "clip range above 1", above=0)
    batch: int = knob(16, "prompts a step, each answered `sampling.n` times", unit="prompts", at_least=1)
    steps: int = knob(40, "steps of sampling and learning", unit="steps", at_least=1)
    sampling: Sampling = Sampling(n=4, max_new=28)
    optim: Optim = Optim(lr=1e-4)
    prm_optim: Optim = Optim(lr=1e-4)
    lora: LoraConfig = LoraConfig()


def outcome_term(beta: float) -> Term:
    """Cross-entropy of the implicit outcome reward with the verifier's verdict; unjudged rows are left out."""

    def loss(o: Outputs, b: Batch) -> torch.Tensor:
        return reward_loss.implicit_outcome_ce(o.logp, b.ref_logp, b.mask, b.label.nan_to_num(0.5), beta=beta)

    def judged(b: Batch) -> torch.Tensor:
        return b.mask.any(1) & ~b.label.isnan()

    return Term("prm", loss, over=judged, reduce=mean)


def build(cfg: Config, policy: Policy, prm: Policy, prompts: Sequence[Prompt], reward: Reward, key: Key) -> Recipe:
    ref = Frozen(policy)
    actor = learner_for(policy, [clip_term(cfg.eps_low, cfg.eps_high, token_mean)], cfg.optim, cfg.steps)
    critic = learner_for(prm, [outcome_term(cfg.beta)], cfg.prm_optim, cfg.steps)
    cursor = Cursor(prompts, cfg.batch, key.fold("prompts"))

    def step(t: int) -> Metrics:
        rollouts = policy.sample(cursor.at(t), cfg.sampling.n, key.fold("rollout", t))
        scores, said = judge(reward, rollouts)

        batch = with_ref(policy.collate(rollouts), ref)
        outcome = values(scores)
        label = torch.where(outcome.isnan(), outcome, (outcome > cfg.threshold).float())
        metrics = rollout_metrics(rollouts, scores, batch) | said
        if cfg.process_coef:
            learnt = critic.update(batch.with_(label=label))  # update first ...
            metrics = metrics | {f"prm/{name}": value for name, value in learnt.items()}
        with torch.no_grad():  # ... then score
            logp = prm.forward(batch).logp
        process = reward_loss.implicit_rewards(logp, batch.ref_logp, batch.mask, beta=cfg.beta)
        adv = credit.prime(outcome, process, batch.mask, batch.group, outcome_coef=cfg.outcome_coef, process_coef=cfg.process_coef)
        return metrics | actor.update(with_adv(batch, adv))

    return Recipe({"actor": actor, "prm": critic}, step, cfg.steps, final=policy.save)
