"""Bradley-Terry reward model: a scalar head that orders responses as people do.

Problem: people can say which of two responses is better, not how good one is.
Idea: give every response one number; the chance that a beats b is `sigmoid(r_a - r_b)`; fit the numbers by maximum likelihood.
Options from its successors: a margin from the ratings (Llama 2, arXiv 2307.09288), a soft label from the raters' votes, and a
penalty that centres the rewards on zero (arXiv 2312.09244), whose offset the pairs leave free.
A ranked list of K answers gives all its K(K-1)/2 pairs from K forward passes, as in InstructGPT; so do ratings (`?list=32`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from guerdon.config import Checked, LoraConfig, Optim, knob
from guerdon.core import reward_loss
from guerdon.core.reduce import mean
from guerdon.core.rng import Key
from guerdon.data.checks import check_pairs
from guerdon.learn.learner import learner_for
from guerdon.learn.offline import offline, steps_of
from guerdon.learn.verbs import chosen, pair_batch, rejected
from guerdon.types import Batch, Outputs, Paper, Policy, Preference, Recipe, Term, pairs

PAPER = Paper(
    title="Rank Analysis of Incomplete Block Designs (Bradley-Terry); as reward models: Training Language Models to Follow Instructions",
    arxiv="2203.02155",
    year=1952,
    family="reward model",
    idea="One number per response; the chance that one beats another is the sigmoid of the difference",
    uses=("pairs", "core.reward_loss.bradley_terry"),
    claim="Fitted on human ratings of one domain, it orders held-out pairs of people's ratings far above chance",
    full_size="guerdon run bradley_terry --model meta-llama/Llama-3.1-8B --data HuggingFaceH4/ultrafeedback_binarized --lr 9e-6 --batch 64",
)


@dataclass(frozen=True)
class Config(Checked):
    model: str = knob("tiny", "the backbone: tiny, a folder, or a hub name")
    data: str = knob("human-ratings:movie", "preference pairs: a file, a folder, a hub name, or a named source")
    freeze: bool = knob(False, "train the head alone, on features computed once and kept; then also --model minilm, and --lr .001 to .01")
    gap: float = knob(1.0, "pairs of a ranked list whose ratings differ by no more are left out", at_least=0)
    margin: float = knob(0.0, "how much of each pair's rating difference the rewards must exceed", at_least=0)
    votes: bool = knob(False, "use each pair's share of agreeing raters as its label probability")
    centering: float = knob(0.0, "weight of (r_chosen + r_rejected)^2, which centres the rewards on 0; 0.01 in the paper", at_least=0)
    batch: int = knob(32, "pairs a step", unit="pairs", at_least=1)
    epochs: float = knob(2.0, "passes over the pairs", unit="passes", above=0)
    steps: int | None = knob(None, "updates to make; none: as many as `epochs` gives", unit="updates", at_least=1)
    optim: Optim = Optim(lr=5e-4, warmup=10, decay="linear")
    lora: LoraConfig = LoraConfig()


def term(margin: float = 0.0, votes: bool = False) -> Term:
    """The pair loss on scores, with the usual things to watch."""

    def loss(o: Outputs, b: Batch) -> torch.Tensor:
        label = chosen(b, b.label) if votes else 1.0
        offset = margin * (chosen(b, b.extra["rating"]) - rejected(b, b.extra["rating"]))
        return reward_loss.bradley_terry(chosen(b, o.score), rejected(b, o.score), margin=offset, label=label)

    def watch(o: Outputs, b: Batch) -> dict[str, torch.Tensor]:
        difference = chosen(b, o.score) - rejected(b, o.score)
        return {
            "rewards/chosen": chosen(b, o.score),
            "rewards/rejected": rejected(b, o.score),
            "rewards/margins": difference,
            "rewards/accuracies": (difference > 0).float() + 0.5 * (difference == 0).float(),
        }

    return Term("bradley_terry", loss, over=pairs, reduce=mean, needs=frozenset({"score"}), watch=watch)


def centering_term(coef: float) -> Term:
    """The squared sum of each pair's rewards."""

    def loss(o: Outputs, b: Batch) -> torch.Tensor:
        return reward_loss.centering(chosen(b, o.score), rejected(b, o.score))

    return Term("centering", loss, over=pairs, reduce=mean, coef=coef, needs=frozenset({"score"}))


def build(cfg: Config, scorer: Policy, pairs: Sequence[Preference], key: Key) -> Recipe:
    check_pairs(pairs, "bradley_terry", ties=cfg.votes)
    steps = cfg.steps or steps_of(len(pairs), cfg.batch, None, cfg.epochs)
    terms = [term(cfg.margin, cfg.votes)] + ([centering_term(cfg.centering)] if cfg.centering else [])
    return offline(
        learner=learner_for(scorer, terms, cfg.optim, steps),
        items=pairs,
        collate=lambda items: pair_batch(scorer, items, gap=cfg.gap),
        batch=cfg.batch,
        steps=steps,
        key=key,
    )
