"""SSR-X-Zero: SSR-Zero's own score and a trained metric's, added up.

Problem: a policy that judges itself does not see its own blind spots, and a trained metric alone has others.
Idea: the reward is the policy's own score (a share) plus that of a metric that needs no reference, such as COMETKIWI; the rest is
SSR-Zero. Judge the result with another metric than the one trained with.
Left out: nothing. Options: `judging.weight` and the weights of the metrics; the paper adds both on the same scale from 0 to 1, with equal
weights as far as is known. Any reward may be the metric; it sees the translation alone, and the columns of the data. The default is chrF
against the references of the default data, since COMET is a package of its own (`--reward comet`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from guerdon.config import knob
from guerdon.core.rng import Key
from guerdon.papers import ssr_zero
from guerdon.rewards.combine import Part
from guerdon.types import Paper, Policy, Prompt, Recipe, Reward

PAPER = Paper(
    title="SSR-Zero: Simple Self-Rewarding Reinforcement Learning for Machine Translation",
    arxiv="2505.16637",
    year=2025,
    family="self-rewarding",
    idea="The policy's own score of its translation and a trained metric's, added up",
    uses=("prompts", "reward", "rewards.policy_judge.PolicyJudge", "rewards.comet.Comet", "core.credit.grpo"),
    claim="With a metric beside its own score, the policy's translations come nearer to the references than by its own score alone",
    full_size="guerdon run ssr_x_zero --model Qwen/Qwen2.5-7B-Instruct --data my-texts.jsonl --reward 'comet(gpus=1)' "
    "--source-lang English --target-lang Chinese --lr 1e-6 --n 8 --batch 128 --max-new 1024",
)


@dataclass(frozen=True)
class Config(ssr_zero.Config):
    reward: tuple[str, ...] = knob(("chrf",), "metrics added to the policy's own score: names, file.py:function ..., each with a =weight")


def build(cfg: Config, policy: Policy, prompts: Sequence[Prompt], reward: Reward, key: Key) -> Recipe:
    return cfg.recipe(policy, prompts, key, [Part("metrics", reward)])
