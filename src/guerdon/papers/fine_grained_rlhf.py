"""Fine-grained RLHF: several rewards, each of one kind of error and paid where it is.

Problem: one preference for a whole answer does not say what is wrong with it, or where.
Idea: people mark the spans of an answer that are wrong, by kind of error. Each kind has its own reward model, a tagger that judges
every segment at a density of its own (sub-sentences for relevance, sentences for facts; the whole for completeness, learnt from pairs).
A good segment pays `+v` at its last token, a bad one `-v`; the models' token rewards are added up by weights, which trade one
behaviour for another without training anything but the policy anew. PPO with the KL in the rewards follows.
Rewards are scaled about their mean: taking the mean off would give every empty token a reward of its own. Ends of segments come from
the text tokenised up to there. Taggers are trained by `fit` (or any token classifier is loaded as `policies.tagger.Tagger`); a preference
model's score enters in units of its own deviation (`Scorer.normalise`), its weight is the published `scale`.
Left out: supervised fine-tuning before (start from such a model), stopping at a KL of 10. Deliberate differences: the critic shares
the policy's network, one temperature for sampling and learning, no top-k; rates and numbers are for the embedded model. Published weights:
relevance .3, facts .5, completeness .3. `rewards.segments.SegmentChange` makes a segment reward of any other (detoxification).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from guerdon.config import Checked, LoraConfig, Optim, Sampling, knob
from guerdon.core import segments
from guerdon.core.reduce import token_mean
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.learn.critic import by_critic, value_term
from guerdon.learn.learner import learner_for
from guerdon.learn.offline import offline
from guerdon.learn.online import online
from guerdon.learn.terms import clip_term
from guerdon.policies.refs import Frozen
from guerdon.policies.tagger import Tagger
from guerdon.rewards.segments import InSegments
from guerdon.types import Batch, Outputs, Paper, Policy, Prompt, Recipe, Reward, Rollout, Term

PAPER = Paper(
    title="Fine-Grained Human Feedback Gives Better Rewards for Language Model Training",
    arxiv="2306.01693",
    year=2023,
    family="reward model",
    idea="One reward model for each kind of error, each paid at the ends of its own segments, added up by weights",
    uses=(
        "prompts",
        "reward",
        "policies.tagger.Tagger",
        "rewards.segments.SegmentReward",
        "core.segments.spans_at_ends",
        "core.credit.gae",
    ),
    claim="From the same rewards, answers have more right sentences after equal numbers of samples when each is paid where it ends",
    full_size="guerdon run fine_grained_rlhf --model my-sft-model --data questions.jsonl --reward relevance=0.3,facts=0.5,completeness=0.3 "
    "--lr 1e-5 --batch 16 --n 4 --max-new 200",
)


@dataclass(frozen=True)
class Config(Checked):
    critic: ClassVar[bool] = True  # the policy is loaded with one

    model: str = knob("tiny", "the policy to start from: tiny, a folder, or a hub name")
    data: str = knob("human-ratings:movie", "prompts: a file, a folder, a hub name, or a named source")
    reward: tuple[str, ...] = knob(("vader",), "folders of taggers and reward models, names, file.py:function ..., each with its =weight")
    kl: float = knob(0.3, "KL penalty to the starting policy in each token's reward, per nat", at_least=0)
    whiten: bool = knob(True, "scale the batch's token rewards about their mean to a variance of 1")
    gamma: float = knob(1.0, "discount of later rewards", above=0, at_most=1)
    lam: float = knob(0.95, "decay of the advantage estimator (GAE); 1: returns less values", at_least=0, at_most=1)
    eps: float = knob(0.2, "clip range of the ratio around 1", above=0, at_most=1)
    value_clip: float = knob(0.2, "clip range of the critic around its values at sampling", above=0)
    value_coef: float = knob(1.0, "weight of the critic's loss", at_least=0)
    batch: int = knob(16, "prompts a step, each answered `sampling.n` times", unit="prompts", at_least=1)
    epochs: int = knob(4, "passes over a step's answers", at_least=1)
    steps: int = knob(40, "steps of sampling and learning", unit="steps", at_least=1)
    sampling: Sampling = Sampling(n=4, max_new=28)
    optim: Optim = Optim(lr=1e-4, warmup=5)
    lora: LoraConfig = LoraConfig()


def tag_loss(outputs: Outputs, batch: Batch) -> torch.Tensor:
    """Cross-entropy of each segment's class, `(N, J)`."""
    return segments.tag_loss(outputs.extra["tags"], batch.extra["tag"])


def fit(tagger: Tagger, items: Sequence[Rollout], key: Key, *, batch: int = 32, steps: int = 200, optim: Optim = Optim(lr=5e-4)) -> Recipe:
    """Trains a tagger on answers with marked spans (the column `errors`, see `Tagger`). Raises UserError where no answer has it."""
    judged = [r for r in items if any(label >= 0 for label in tagger.labels(r))]
    if not judged:
        raise UserError(f"none of {len(items)} answers says where it is wrong", hint="give a column `errors`; an empty list: nothing is")

    def watch(o: Outputs, b: Batch) -> dict[str, torch.Tensor]:
        tags, bad, good = o.extra["tags"], tagger.bad, tagger.good
        said = torch.where(tags[..., good] > tags[..., bad], good, bad)
        return {"accuracy": (said == b.extra["tag"]).float()}

    known = lambda b: b.mask & (b.extra["tag"] >= 0)
    term = Term("tag", tag_loss, over=known, reduce=token_mean, needs=frozenset({"tags"}), watch=watch)
    learner = learner_for(tagger, [term], optim, steps)
    return offline(learner=learner, items=judged, collate=tagger.collate, batch=batch, steps=steps, key=key)


def build(cfg: Config, policy: Policy, prompts: Sequence[Prompt], reward: Reward, key: Key) -> Recipe:
    terms = [clip_term(cfg.eps, cfg.eps, token_mean), value_term(cfg.value_clip, cfg.value_coef)]
    return online(
        learner=learner_for(policy, terms, cfg.optim, cfg.steps * cfg.epochs),
        prompts=prompts,
        reward=InSegments(reward, policy),
        credit=by_critic(policy, kl_coef=cfg.kl, gamma=cfg.gamma, lam=cfg.lam, whiten=cfg.whiten, about_mean=True),
        n=cfg.sampling.n,
        batch=cfg.batch,
        steps=cfg.steps,
        key=key,
        ref=Frozen(policy),
        epochs=cfg.epochs,
    )
