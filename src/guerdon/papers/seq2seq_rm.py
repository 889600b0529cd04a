"""Sequence-to-sequence reward model: feedback in tokens from a model that rewrites.

Problem: a scalar reward model says how good a response is and not where it goes wrong; policies find out that refusing or being long pays.
Idea: from the same pairs teach a language model to write the better response, given the worse one (correction) or the better one itself
(identity), both with equal weight. Told to improve a response of the policy, it copies it up to where it would do otherwise. Tokens before
that point earn `positive`; from there on, every token that it would not have written costs `negative`. PPO takes these as the rewards of
the tokens, with the usual KL to the start.
The greedy rewrite need not be written out: as long as it copies, its next token is the likeliest one after the response's own
beginning, so one teacher-forced pass finds the divergence and everything after it.
Left out: nothing of what is known of the method. The magnitudes (1 and 1), 0 for agreement after the divergence, the template and PPO's
settings are house choices. Options: `normalise length` divides by the number of tokens; the values of a reward model with another
tokeniser (`prm_model`) are carried over by characters. Identity cannot be left out: a model that corrects everything only blames.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from guerdon.config import Checked, LoraConfig, Optim, Sampling, knob
from guerdon.core.reduce import seq_mean_token_sum, token_mean
from guerdon.core.rng import Key
from guerdon.data.checks import check_pairs
from guerdon.learn.chain import chain
from guerdon.learn.critic import by_critic, value_term
from guerdon.learn.learner import learner_for
from guerdon.learn.offline import offline
from guerdon.learn.online import online
from guerdon.learn.terms import clip_term
from guerdon.learn.verbs import ordered
from guerdon.policies.refs import Frozen
from guerdon.rewards.rewriting import IMPROVE, RewriteReward, other_tokens, rewriting
from guerdon.types import Paper, Policy, Preference, Prompt, Recipe, Rollout, Term, decisions

PAPER = Paper(
    title="Sequence to Sequence Reward Modeling: Improving RLHF by Language Feedback",
    arxiv="2409.00162",
    year=2024,
    family="reward model",
    idea="A model that rewrites responses praises tokens up to where it would go on otherwise, and blames those it would not write",
    uses=("pairs", "prompts", "rewards.rewriting.RewriteReward", "core.rewriting.rewrite_rewards", "core.credit.gae"),
    claim="Its first negative token is where the response was corrupted, far more often than the largest drop of a scalar model's value",
    full_size="guerdon run seq2seq_rm --model google/gemma-2b-it --data my-pairs --rm.steps 2000 --rm.optim.lr 1e-5 --lr 1e-6 --batch 64",
)


@dataclass(frozen=True)
class Fit(Checked):
    """Training of the reward model, before the policy's."""

    steps: int = knob(60, "updates", unit="updates", at_least=1)
    batch: int = knob(8, "pairs an update, each read twice", unit="pairs", at_least=1)
    optim: Optim = Optim(lr=1e-4, warmup=5)


@dataclass(frozen=True)
class Config(Checked):
    critic: ClassVar[bool] = True  # the policy is loaded with one

    model: str = knob("tiny", "the policy to start from: tiny, a folder, or a hub name")
    prm_model: str | None = knob(None, "what the reward model starts from; none: the same as the policy")
    data: str = knob("human-ratings:movie", "preference pairs for the reward model")
    prompts: str | None = knob(None, "prompts for PPO; none: those of the pairs")
    instruction: str = knob(IMPROVE, "what the reward model is told; in text prompts with places {prompt} and {answer}, if wanted")
    positive: float = knob(1.0, "reward of a token before the divergence", at_least=0)
    negative: float = knob(1.0, "cost of a token that the reward model would not write", at_least=0)
    normalise: Literal["none", "length"] = knob("none", "length: divide by the response's number of tokens")
    kl: float = knob(0.05, "KL penalty to the starting policy in each token's reward, per nat", at_least=0)
    lam: float = knob(0.95, "decay of the advantage estimator (GAE); 1: returns less values", at_least=0, at_most=1)
    eps: float = knob(0.2, "clip range of the ratio around 1", above=0, at_most=1)
    value_coef: float = knob(0.1, "weight of the critic's loss", at_least=0)
    batch: int = knob(16, "prompts a step, each answered `sampling.n` times", unit="prompts", at_least=1)
    epochs: int = knob(1, "passes over a step's answers", at_least=1)
    steps: int = knob(40, "steps of sampling and learning", unit="steps", at_least=1)
    sampling: Sampling = Sampling(n=2, max_new=28)
    rm: Fit = Fit()
    optim: Optim = Optim(lr=1e-4)
    lora: LoraConfig = LoraConfig()


def lessons(pairs: Sequence[Preference], instruction: str = IMPROVE) -> list[Rollout]:
    """Correction and identity of every better-worse pair, one after the other: (x, worse) -> better, (x, better) -> better."""
    both = [(item.ranked[i], item.ranked[j]) for item in pairs for i, j in ordered(item)]
    return [Rollout(rewriting(given, instruction), good.content) for good, bad in both for given in (bad, good)]


term = Term("rewrite", lambda o, b: -o.logp, over=decisions, reduce=seq_mean_token_sum)
"""`-sum_t log pi(y_better,t | x, y, y_better,<t)`, averaged over both mappings."""


def fit(cfg: Config, model: Policy, pairs: Sequence[Preference], key: Key) -> Recipe:
    """Trains the reward model; every update has both mappings of its pairs."""
    learner = learner_for(model, [term], cfg.rm.optim, cfg.rm.steps)
    read = lambda items: model.collate(lessons(items, cfg.instruction))
    return offline(learner=learner, items=pairs, collate=read, batch=cfg.rm.batch, steps=cfg.rm.steps, key=key)


def build(cfg: Config, policy: Policy, prm: Policy, pairs: Sequence[Preference], prompts: Sequence[Prompt], key: Key) -> Recipe:
    check_pairs(pairs, "seq2seq_rm")
    writer = policy if other_tokens(policy, prm) else None
    terms = [clip_term(cfg.eps, cfg.eps, token_mean), value_term(None, cfg.value_coef)]
    amount: dict[str, Any] = {"n": cfg.sampling.n, "batch": cfg.batch, "steps": cfg.steps, "epochs": cfg.epochs}
    ppo = online(
        learner=learner_for(policy, terms, cfg.optim, cfg.steps * cfg.epochs),
        prompts=prompts,
        reward=RewriteReward(prm, cfg.positive, cfg.negative, cfg.normalise, cfg.instruction, writer),
        credit=by_critic(policy, kl_coef=cfg.kl, lam=cfg.lam),
        ref=Frozen(policy),
        key=key,
        **amount,
    )

    def final(folder: Path) -> None:
        policy.save(folder)
        prm.save(folder / "reward_model")

    return chain(rm=fit(cfg, prm, pairs, key.fold("rm")), ppo=dataclasses.replace(ppo, final=final))
