"""Inverse reinforcement learning: a reward recovered from demonstrations, and reinforcement learning on it.

Problem: fine-tuning on demonstrations copies them; no preferences, verifier or judge is there to go beyond them.
Idea: the demonstrations say what is rewarded. After fine-tuning, recover a reward and follow it by policy gradient, by `--part`:
`contrast`: a reward model on pairs nobody judged: samples after over those before fine-tuning, or demonstrations over either (`--source`);
`adversarial`: a discriminator between demonstrations and the policy's present answers, which learns as the policy does;
`dense_path`: token by token, what the second half of fine-tuning made likelier, `log sft - log half-way`; `endogenous`: `log sft` itself.
Left out: the survey's hindsight relabelling, curricula and bonuses. Pieces for any recipe: `rewards.attention` (credit by attention),
`core.imitation.shaping`; prompts are chosen by `prompt_oirl`. The claim shows what pessimism is worth: several contrasts, each on samples
of its own, joined by `rewards.ensemble` (mean less deviation), for a single one is soon pressed into its errors.
Options: bounds on log-odds (10) and log-ratios (5), smoothing (.1), and a leash to the fine-tuned policy are house choices; so is the group
as the baseline of rewards for whole answers, and whitening (`--whiten`) of those for tokens. Half-way is the middle of `sft.steps`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from guerdon.config import Checked, LoraConfig, Optim, Sampling, knob
from guerdon.core import credit
from guerdon.core.imitation import Divergence
from guerdon.core.reduce import token_mean
from guerdon.core.rng import Key
from guerdon.learn.chain import chain
from guerdon.learn.imitation import Adversary, Scored, Source, by_returns, contrast_pairs, discriminator_term, fine_tuning
from guerdon.learn.learner import learner_for
from guerdon.learn.online import online
from guerdon.learn.rounds import rounds
from guerdon.learn.terms import clip_term, kl_term
from guerdon.learn.verbs import by_outcome, pair_batch, sft_term
from guerdon.papers.bradley_terry import term as bradley_terry
from guerdon.papers.self_rewarding_ppo import Sft
from guerdon.policies.refs import Frozen
from guerdon.rewards.implicit import ImplicitReward, Nothing
from guerdon.types import Metrics, Paper, Policy, Recipe, Rollout

PAPER = Paper(
    title="Inverse Reinforcement Learning Meets Large Language Model Post-Training: Basics, Advances, and Opportunities",
    arxiv="2507.13158",
    year=2025,
    family="imitation",
    idea="Recover a reward from demonstrations (by contrast, adversarially, or from fine-tuning's own path) and follow it",
    uses=("demos", "core.imitation.discriminator", "core.imitation.imitation_reward", "learn.imitation.contrast_pairs", "rewards.implicit"),
    claim="Rewards contrasted from the fine-tuned and the starting policy's own samples pick better answers than fine-tuning gives",
    full_size="guerdon run irl_post_training --model Qwen/Qwen3-1.7B-Base --data my-demonstrations --sft.steps 500 --sft.optim.lr 1e-5 "
    "--reward-steps 200 --reward-optim.lr 1e-5 --lr 5e-7 --batch 64 --max-new 512",
)


@dataclass(frozen=True)
class Config(Checked):
    model: str = knob("tiny", "the policy to start from, and the reward model's body: tiny, a folder, or a hub name")
    data: str = knob("human-ratings:movie", "demonstrations: a file, a folder, a hub name, or a named source")
    part: Literal["contrast", "adversarial", "dense_path", "endogenous"] = knob("contrast", "where the reward comes from")
    source: Source = knob("tuned/start", "contrast: good and bad responses")
    divergence: Divergence = knob("reverse_kl", "adversarial: what the discriminator's odds pay")
    smoothing: float = knob(0.1, "adversarial: of the discriminator's labels", at_least=0, at_most=0.4)
    clamp: float = knob(10.0, "adversarial: bound on the discriminator's log-odds", above=0)
    clip: float = knob(5.0, "dense_path: bound on the log-ratio of a token", unit="nats", above=0)
    whiten: bool = knob(True, "dense_path: returns with mean 0 and deviation 1 over the batch")
    reward_steps: int = knob(40, "contrast: updates of the reward model", unit="updates", at_least=1)
    reward_batch: int = knob(32, "contrast: pairs an update", unit="pairs", at_least=1)
    updates: int = knob(1, "adversarial: updates of the discriminator on each step's answers", unit="updates", at_least=1)
    beta: float = knob(0.04, "weight of the KL to the fine-tuned policy", at_least=0)
    batch: int = knob(16, "prompts a step, each answered `sampling.n` times", unit="prompts", at_least=1)
    steps: int = knob(40, "steps of sampling and learning", unit="steps", at_least=1)
    sampling: Sampling = Sampling(n=4, max_new=28)
    sft: Sft = Sft()
    reward_optim: Optim = Optim(lr=5e-4)
    optim: Optim = Optim(lr=1e-4)
    lora: LoraConfig = LoraConfig()


def build(cfg: Config, policy: Policy, scorer: Any, demos: Sequence[Rollout], key: Key) -> Recipe:
    start, first = Frozen(policy), learner_for(policy, [sft_term()], cfg.sft.optim, cfg.sft.steps)
    sft, half, tuned = fine_tuning(first, demos, cfg.sft.batch, cfg.sft.steps, key.fold("sft"))
    parts, learning, reward, to_credit = {"sft": sft}, {}, Scored(scorer), by_outcome(credit.grpo)
    if cfg.part == "contrast":
        parts["reward"] = rounds(
            learner=learner_for(scorer, [bradley_terry()], cfg.reward_optim, cfg.reward_steps),
            prepare=lambda r: (contrast_pairs(cfg.source, demos, start.policy, tuned.policy, key.fold("contrast")), Metrics()),
            collate=lambda items: pair_batch(scorer, items),
            batch=cfg.reward_batch,
            rounds=1,
            steps_per_round=cfg.reward_steps,
            key=key,
        )
    elif cfg.part == "adversarial":
        judge = learner_for(scorer, [discriminator_term(cfg.smoothing)], cfg.reward_optim, cfg.steps * cfg.updates)
        learning = {"discriminator": judge}
        reward = Adversary(judge, demos, divergence=cfg.divergence, clamp=cfg.clamp, updates=cfg.updates)
    else:
        before = half if cfg.part == "dense_path" else Nothing()
        reward = ImplicitReward(tuned.policy, before, beta=1.0, at="each", clamp=cfg.clip if cfg.part == "dense_path" else None)
        to_credit = by_returns(whiten=cfg.whiten)
    parts["policy"] = online(
        learner=learner_for(policy, [clip_term(0.2, 0.2, token_mean), kl_term(cfg.beta, "k2", token_mean)], cfg.optim, cfg.steps),
        prompts=[d.prompt for d in demos],
        reward=reward,
        credit=to_credit,
        n=cfg.sampling.n,
        batch=cfg.batch,
        steps=cfg.steps,
        key=key,
        ref=tuned,
        state=learning,
    )

    def final(folder: Path) -> None:
        policy.save(folder)
        if cfg.part in ("contrast", "adversarial"):
            scorer.save(folder / "reward")

    return dataclasses.replace(chain(**parts), final=final)
