"""PPO-C: PPO whose reward moves with the confidence that an answer states.

Problem: reward models prefer answers that say they are sure, so PPO makes policies overconfident; to calibrate the model (`ppo_m`)
takes data.
Idea: strip the stated confidence before scoring, compare the score with its running mean, and pay for confidence in answers above the
mean, and for doubt in those below: `r' = r + w (r - mean) (confidence - 1/2)`. The reward model stays as it is.
Left out: the authors' stopping rule after the confidence in part of the samples, and dividing by a running deviation, an option of theirs.
Deliberate difference: the running mean is of this process's answers (theirs is averaged over workers first).
Options: `--form threshold` is the paper's first form; `--form none` is plain PPO on the whole text, with whatever reward is given.
Confidence is asked for by `--ask` (`--ask ''`: the prompts do so already).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from guerdon.config import Checked, LoraConfig, Optim, Sampling, knob
from guerdon.core.reduce import token_mean
from guerdon.core.rng import Key
from guerdon.data.confidence import ASK, asked
from guerdon.learn.critic import by_critic, value_term
from guerdon.learn.learner import learner_for
from guerdon.learn.online import online
from guerdon.learn.terms import clip_term
from guerdon.policies.refs import Frozen
from guerdon.rewards.confidence import StatedConfidence
from guerdon.types import Paper, Policy, Prompt, Recipe, Reward

PAPER = Paper(
    title="Taming Overconfidence in LLMs: Reward Calibration in RLHF (PPO-C)",
    arxiv="2410.09724",
    year=2024,
    family="policy gradient",
    idea="Pay for confidence in answers that score above the running mean, and for doubt in those below",
    uses=("prompts", "reward", "core.confidence.adjusted", "rewards.confidence.StatedConfidence", "core.credit.gae"),
    claim="Stated confidence fits accuracy far better than after plain PPO on a reward that likes confidence, at the same accuracy",
    full_size="guerdon run ppo_c --model my-sft-model --data my-prompts --reward my-reward-model --lr 5e-7 --kl 0.01 --batch 512 "
    "--minibatches 8 --max-new 1024",
)


@dataclass(frozen=True)
class Config(Checked):
    critic: ClassVar[bool] = True  # the policy is loaded with one

    model: str = knob("tiny", "the policy to start from: tiny, a folder, or a hub name")
    data: str = knob("human-ratings:movie", "prompts: a file, a folder, a hub name, or a named source")
    reward: tuple[str, ...] = knob(("vader",), "rewards: names, file.py:function, or reward-model folders, each with an optional =weight")
    ask: str = knob(ASK, "words that every prompt ends with, to ask for confidence")
    form: Literal["difference", "threshold", "none"] = knob("difference", "how confidence moves the reward; none: plain PPO")
    weight: float | None = knob(None, "by how much; none: the authors' (2 for difference, 0.5 for threshold)", at_least=0)
    decay: float = knob(0.9, "of the running mean reward", above=0, at_most=0.999)
    start: float = knob(0.0, "the running mean before the first step: the reward model's mean, if it is not normalised")
    kl: float = knob(0.01, "KL penalty to the start in each token's reward, per nat", at_least=0)
    gamma: float = knob(1.0, "discount of later rewards", above=0, at_most=1)
    lam: float = knob(0.95, "decay of the advantage estimator (GAE); 1: returns less values", at_least=0, at_most=1)
    eps: float = knob(0.2, "clip range of the ratio, and of the critic around its values at sampling", above=0, at_most=1)
    value_coef: float = knob(0.1, "weight of the critic's loss", at_least=0)
    batch: int = knob(16, "prompts a step, each answered `sampling.n` times", unit="prompts", at_least=1)
    minibatches: int = knob(1, "updates on a step's answers", at_least=1)
    steps: int = knob(40, "steps of sampling and learning", unit="steps", at_least=1)
    sampling: Sampling = Sampling(n=1, max_new=40)
    optim: Optim = Optim(lr=1e-4)
    lora: LoraConfig = LoraConfig()


def build(cfg: Config, policy: Policy, prompts: Sequence[Prompt], reward: Reward, key: Key) -> Recipe:
    judge = StatedConfidence(reward, form=cfg.form, weight=cfg.weight, decay=cfg.decay, start=cfg.start)
    terms = [clip_term(cfg.eps, cfg.eps, token_mean), value_term(cfg.eps, cfg.value_coef)]
    return online(
        learner=learner_for(policy, terms, cfg.optim, cfg.steps * cfg.minibatches),
        prompts=[asked(p, cfg.ask) for p in prompts],
        reward=judge,
        credit=by_critic(policy, kl_coef=cfg.kl, gamma=cfg.gamma, lam=cfg.lam),
        n=cfg.sampling.n,
        batch=cfg.batch,
        steps=cfg.steps,
        key=key,
        ref=Frozen(policy),
        minibatches=cfg.minibatches,
        state={"confidence": judge},
    )
