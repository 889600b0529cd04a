"""Self-Rewarding PPO: what fine-tuning changed is the reward.

Problem: fine-tuning on a few demonstrations is off-policy and soon over-fits; preferences or a judge to go on with are not at hand.
Idea: fine-tune a base model on the demonstrations. The log-ratio of the fine-tuned to the base model, summed over an answer and paid at
its end, is a reward for which the fine-tuned model is the soft optimum; PPO with a critic follows it from there, on prompts that need no
answers, also of kinds that were never demonstrated.
Left out: nothing of what is known of the method. Its hyper-parameters are not published: all but the reward are house choices.
Options: an answer that does not end by itself gets no positive reward and `missing_end` less; a moving leash is none: `kl` is to the
fine-tuned model alone. `whiten` divides token rewards by their deviation in the batch; advantages are whitened in any case.
The reward has no upper bound and can be gamed (the claim has numbers): small rates, few steps, and an eye on the answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from guerdon.config import Checked, LoraConfig, Optim, Sampling, knob
from guerdon.core.reduce import token_mean
from guerdon.core.rng import Key
from guerdon.learn.chain import chain
from guerdon.learn.critic import by_critic, value_term
from guerdon.learn.learner import learner_for
from guerdon.learn.offline import offline
from guerdon.learn.online import online
from guerdon.learn.terms import clip_term
from guerdon.learn.verbs import sft_term
from guerdon.policies.refs import Frozen, Snapshot
from guerdon.rewards.combine import Ended
from guerdon.rewards.implicit import ImplicitReward
from guerdon.types import Metrics, Paper, Policy, Prompt, Recipe, Rollout

PAPER = Paper(
    title="Self-Rewarding PPO: Aligning Large Language Models with Demonstrations Only",
    arxiv="2510.21090",
    year=2025,
    family="self-rewarding",
    idea="PPO on the log-ratio of the fine-tuned to the base model, paid at the end of the answer",
    uses=("demos", "prompts", "rewards.implicit.ImplicitReward", "core.credit.gae", "core.surrogate.ppo_clip", "core.surrogate.value_loss"),
    claim="On a kind of prompt without demonstrations, answers are in the demonstrated style more often than after fine-tuning alone",
    full_size="guerdon run self_rewarding_ppo --model mistralai/Mistral-7B-v0.1 --data my-demonstrations --prompts my-prompts "
    "--sft.steps 500 --sft.optim.lr 1e-5 --lr 5e-7 --batch 128 --max-new 1024",
)
CLAMP = 20.0  # nats: bound on the log-ratio of a token


@dataclass(frozen=True)
class Sft(Checked):
    """Fine-tuning on the demonstrations, before any reward."""

    steps: int = knob(40, "updates", unit="updates", at_least=1)
    batch: int = knob(16, "demonstrations an update", unit="demonstrations", at_least=1)
    optim: Optim = Optim(lr=1e-4)


@dataclass(frozen=True)
class Config(Checked):
    critic: ClassVar[bool] = True  # the policy is loaded with one

    model: str = knob("tiny", "the base model: tiny, a folder, or a hub name")
    data: str = knob("human-ratings:movie", "demonstrations: a file, a folder, a hub name, or a named source")
    prompts: str | None = knob(None, "prompts for PPO, without answers; none: those of the demonstrations")
    kl: float = knob(0.05, "KL penalty to the fine-tuned model in each token's reward, per nat", at_least=0)
    missing_end: float = knob(1.0, "taken off the reward of an answer that was cut at its limit", unit="nats", at_least=0)
    whiten: bool = knob(True, "divide the batch's token rewards by their standard deviation")
    gamma: float = knob(1.0, "discount of later rewards", above=0, at_most=1)
    lam: float = knob(0.95, "decay of the advantage estimator (GAE); 1: returns less values", at_least=0, at_most=1)
    eps: float = knob(0.2, "clip range of the ratio around 1", above=0, at_most=1)
    value_clip: float = knob(0.2, "clip range of the critic around its values at sampling", above=0)
    value_coef: float = knob(0.1, "weight of the critic's loss", at_least=0)
    batch: int = knob(16, "prompts a step, each answered `sampling.n` times", unit="prompts", at_least=1)
    epochs: int = knob(1, "passes over a step's answers", at_least=1)
    steps: int = knob(40, "steps of sampling and learning", unit="steps", at_least=1)
    sampling: Sampling = Sampling(n=1, max_new=28)
    sft: Sft = Sft()
    optim: Optim = Optim(lr=1e-4)
    lora: LoraConfig = LoraConfig()


def build(cfg: Config, policy: Policy, demos: Sequence[Rollout], prompts: Sequence[Prompt], key: Key) -> Recipe:
    advantages = by_critic(policy, kl_coef=cfg.kl, gamma=cfg.gamma, lam=cfg.lam, whiten=cfg.whiten)
    base, tuned = Frozen(policy), Snapshot(policy)
    terms = [clip_term(cfg.eps, cfg.eps, token_mean), value_term(cfg.value_clip, cfg.value_coef)]
    first = learner_for(policy, [sft_term()], cfg.sft.optim, cfg.sft.steps)
    sft = offline(learner=first, items=demos, collate=policy.collate, batch=cfg.sft.batch, steps=cfg.sft.steps, key=key.fold("sft"))

    def tune(t: int) -> Metrics:
        metrics = sft.step(t)
        if t + 1 == sft.steps:
            tuned.take()
        return metrics

    ppo = online(
        learner=learner_for(policy, terms, cfg.optim, cfg.steps * cfg.epochs),
        prompts=prompts,
        reward=Ended(ImplicitReward(tuned.policy, base, beta=1.0, clamp=CLAMP), cfg.missing_end),
        credit=advantages,
        n=cfg.sampling.n,
        batch=cfg.batch,
        steps=cfg.steps,
        key=key,
        ref=tuned,
        epochs=cfg.epochs,
    )
    return chain(sft=dataclasses.replace(sft, step=tune), ppo=ppo)
