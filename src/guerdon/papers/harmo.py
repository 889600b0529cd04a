"""HARMO: hybrid and multi-aspect rewards: a verifier where there is one, a model elsewhere, and terms for format and length.

Problem: a learned reward is gamed, often by short answers; a verifier is not, but most tasks have none; and neither sees the form.
Idea: whether a task can be verified is known before anybody answers, so it routes: 1 or 0 from the verifier, or a learned score between 0
and 1. Add 1 for the right format, and a penalty for answers much shorter than the right ones of their group, which stops the
collapse to brevity. Then GRPO with the mean alone as the baseline: dividing by the deviation would weigh easy and hard prompts
alike, and hide that the terms differ in scale. So each term's mean and deviation within groups are logged (`rewards/NAME/group_std`).
Left out: images. Deliberate differences: the length term's exact formula is not known from the paper; this one has its P_max, tau and
dependence on correct answers (`core.brevity`). On open tasks a score of `length.at_least` counts as correct. Options: closeness to
a reference in place of a reward model (`--reward similarity --squash false`), weights of all terms, `length.two_sided`. Rows without
the task column are open. The default length term was too weak in the claim's setting: watch the lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from guerdon.config import Checked, LoraConfig, Optim, Sampling, knob
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.papers import grpo
from guerdon.rewards.brevity import Brevity
from guerdon.rewards.combine import Part, Weighted
from guerdon.rewards.math import math_answer
from guerdon.rewards.read import reference_or_none
from guerdon.rewards.route import ByTask, Squash
from guerdon.rewards.rules import exact_match, format_tags, normalised_match
from guerdon.types import Paper, Policy, Prompt, Recipe, Reward, Rollout

PAPER = Paper(
    title="Beyond Monolithic Rewards: A Hybrid and Multi-Aspect Reward Optimization for MLLM Alignment",
    arxiv="2510.05283",
    year=2025,
    family="reward model",
    idea="The task's kind picks verifier or model; format is rewarded, answers far shorter than the right ones of their group are not",
    uses=("prompts", "reward", "rewards.route.ByTask", "rewards.brevity.Brevity", "core.brevity.brevity_penalty", "core.credit.dr_grpo"),
    claim="Against a learned reward that likes short answers, answers keep far more of their length with the length term than without",
    full_size="guerdon run harmo --model Qwen/Qwen2.5-3B-Instruct --data my-tasks.jsonl --reward runs/rm/final --lr 1e-6 --batch 64 "
    "--n 8 --max-new 1024",
)
VERIFIERS = {"math": math_answer, "exact_match": exact_match, "normalised_match": normalised_match}


@dataclass(frozen=True)
class Length(Checked):
    """The term against brevity."""

    weight: float = knob(1.0, "weight of the term; 0: none", at_least=0)
    p_max: float = knob(0.5, "largest penalty", at_least=0)
    tau: float = knob(0.25, "share by which an answer may be shorter at no cost", at_least=0, at_most=0.99)
    two_sided: bool = knob(False, "punish answers that are too long alike")
    at_least: float = knob(0.5, "accuracy from which on an answer counts as right")


@dataclass(frozen=True)
class Config(Checked):
    model: str = knob("tiny", "the policy to start from: tiny, a folder, or a hub name")
    data: str = knob("human-ratings:movie", "prompts with a column for the task, and references for those that are verifiable")
    reward: tuple[str, ...] = knob(("vader",), "rewards of open tasks: names, file.py:function, or reward-model folders")
    squash: bool = knob(True, "bring the reward of open tasks to [0, 1] by a sigmoid; no: it is in [0, 1] already")
    task: str = knob("task", "the column that holds the kind of task")
    verifiable: tuple[str, ...] = knob(("verifiable",), "kinds of task that the verifier judges (separated by commas); others are open")
    verifier: Literal["math", "exact_match", "normalised_match"] = knob("math", "how the answers to verifiable tasks are compared")
    tags: tuple[str, ...] = knob(("think", "answer"), "blocks that an answer should have, in order")
    accuracy_weight: float = knob(1.0, "weight of accuracy, by verifier or model", at_least=0)
    format_weight: float = knob(1.0, "weight of the format", at_least=0)
    length: Length = Length()
    beta: float = knob(0.04, "weight of the KL to the starting policy", at_least=0)
    eps: float = knob(0.2, "clip range of the ratio around 1", above=0, at_most=1)
    batch: int = knob(16, "prompts a step, each answered `sampling.n` times", unit="prompts", at_least=1)
    steps: int = knob(40, "steps of sampling and learning", unit="steps", at_least=1)
    sampling: Sampling = Sampling(n=8, max_new=28)
    optim: Optim = Optim(lr=2e-4)
    lora: LoraConfig = LoraConfig()

    def check(self, items: Sequence[Prompt]) -> None:
        """Raise UserError for verifiable tasks without a reference."""
        for prompt in items:
            if str(prompt.meta.get(self.task)) in self.verifiable and reference_or_none(Rollout(prompt, "")) is None:
                raise UserError(
                    f"prompt {prompt.id!r} is of the verifiable task {prompt.meta[self.task]!r} and has no reference answer",
                    hint="give it a column such as `reference`, or leave the task out of --verifiable",
                )


def composite(cfg: Config, open_reward: Reward) -> Reward:
    """`w_a accuracy + w_f format + w_l brevity`, each of them a named part."""
    verified: dict[str, Any] = dict.fromkeys(cfg.verifiable, VERIFIERS[cfg.verifier])
    accuracy = ByTask({**verified, "open": Squash(open_reward) if cfg.squash else open_reward}, cfg.task, default="open")
    parts = (Part("accuracy", accuracy, cfg.accuracy_weight), Part("format", format_tags.bind(tags=cfg.tags), cfg.format_weight))
    length = cfg.length
    return Brevity(Weighted(parts), "accuracy", length.at_least, length.p_max, length.tau, length.two_sided, length.weight)


def build(cfg: Config, policy: Policy, prompts: Sequence[Prompt], reward: Reward, key: Key) -> Recipe:
    cfg.check(prompts)
    loop = grpo.Config(
        scale="none",
        beta=cfg.beta,
        eps_low=cfg.eps,
        eps_high=cfg.eps,
        batch=cfg.batch,
        steps=cfg.steps,
        sampling=cfg.sampling,
        optim=cfg.optim,
    )
    return grpo.build(loop, policy, prompts, composite(cfg, reward), key)
