"""Secrets of RLHF, part II: reward models from noisy preferences, cleaned by the votes of other reward models.

Problem: annotators agree on 63 to 73 % of the pairs; a reward model that fits them all learns their mistakes.
Idea: let several reward models vote on every pair. The mean of their margins is the pair's strength: below 0 the label is likely wrong,
near 0 it says little, far above it is learnt too fast. So flip the label, soften it, or make the strength the margin of the loss; and, as
an option, contrast two views of the same features, so that responses come to lie apart.
Left out: training on one stratum alone, a study of the paper (`final/strength.jsonl` names the strata); MetaRM is `metarm`.
Options: `folds` 1 with few `vote_steps` is the paper's way (all models learn from all pairs); with more, nobody votes on what it learnt.
Deliberate differences: the margin stands inside the sigmoid (printed outside, it has no gradient); voters share the start of the head and
differ in their data; the views differ by dropout on what the head reads. alpha, tau, SwAV's settings and the number of steps of a voter
are not published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from guerdon.config import Checked, LoraConfig, Optim, knob
from guerdon.core.rng import Key
from guerdon.core.strength import Treatment, doubted, strength
from guerdon.data.checks import check_pairs
from guerdon.data.strength import treated, write_strengths
from guerdon.learn.chain import chain
from guerdon.learn.contrastive import Contrast, with_contrast
from guerdon.learn.kept import Kept
from guerdon.learn.learner import learner_for
from guerdon.learn.offline import steps_of
from guerdon.learn.rounds import rounds
from guerdon.learn.verbs import pair_batch
from guerdon.learn.voting import VOTES, voting
from guerdon.papers import bradley_terry
from guerdon.policies.views import Readable, TwoViews
from guerdon.types import Metrics, Paper, Preference, Recipe, Term

PAPER = Paper(
    title="Secrets of RLHF in Large Language Models Part II: Reward Modeling",
    arxiv="2401.06080",
    year=2024,
    family="reward model",
    idea="Reward models vote on each pair; doubtful labels are flipped, softened, or given the strength of the vote as their margin",
    uses=("pairs", "core.strength.treated", "core.reward_loss.bradley_terry", "core.contrastive_loss.simcse", "learn.voting.voting"),
    claim="Trained on labels of one random rater each, it orders held-out pairs better with doubted labels softened and votes as margins",
    full_size="guerdon run secrets_rlhf_2 --model meta-llama/Llama-3.1-8B --data Anthropic/hh-rlhf --voters 10 --folds 1 "
    "--vote-steps 1000 --treatment soft+margin --lr 5e-6 --batch 32 --epochs 1",
)


@dataclass(frozen=True)
class Config(Checked):
    model: str = knob("tiny", "the backbone: tiny, a folder, or a hub name")
    data: str = knob("human-ratings:movie?raters=1&gap=0.5&n=2000", "preference pairs: a file, a folder, a hub name, or a named source")
    voters: int = knob(4, "votes on each pair; 10 in the paper", unit="votes", at_least=1)
    folds: int = knob(2, "parts of the data; who votes on a part learnt from the others; 1: all learn from all", at_least=1)
    vote_steps: int = knob(30, "updates of each voter: few, or it repeats the labels", unit="updates", at_least=1)
    treatment: Treatment = knob("flip", "what the votes do: none, flip, soft, margin, flip+margin, soft+margin")
    share: float | None = knob(None, "share of the pairs (the weakest) to doubt; none: where the vote is below 0", at_least=0, at_most=1)
    alpha: float = knob(0.1, "weight of the opposite label where a label is softened", at_least=0, at_most=1)
    clip: float | None = knob(None, "largest margin, in units of reward; none: no limit", above=0)
    contrastive: Literal["none", "simcse", "swav"] = knob("none", "auxiliary loss between two views of the features")
    contrast: Contrast = knob("pairs", "what is contrasted: features of responses, or their differences in pairs")
    coef: float = knob(1.0, "weight of the auxiliary loss; swav: .1 for pairs, .5 for difference", at_least=0)
    dropout: float = knob(0.05, "share of the features dropped in each view", at_least=0, at_most=0.9)
    prototypes: int = knob(50, "swav: prototypes; 20 for difference", at_least=2)
    batch: int = knob(32, "pairs a step", unit="pairs", at_least=1)
    epochs: float = knob(1.0, "passes over the treated pairs", unit="passes", above=0)
    steps: int | None = knob(None, "updates on them; none: as many as `epochs` gives", unit="updates", at_least=1)
    optim: Optim = Optim(lr=5e-4, warmup=10, decay="linear")
    lora: LoraConfig = LoraConfig()


def terms_of(cfg: Config, scorer: Readable, key: Key) -> tuple[Any, list[Term]]:
    """What learns from the treated pairs, and by what: the scorer, or two views of it with the auxiliary loss."""
    term = bradley_terry.term(margin=1.0, votes=True)
    if cfg.contrastive == "none":
        return scorer, [term]
    views = TwoViews(scorer, dropout=cfg.dropout, prototypes=cfg.prototypes if cfg.contrastive == "swav" else 0, key=key)
    return views, with_contrast(term, cfg.contrastive, cfg.contrast, cfg.coef)


def build(cfg: Config, scorer: Readable, pairs: Sequence[Preference], key: Key) -> Recipe:
    check_pairs(pairs, "secrets_rlhf_2")
    kept, early = Kept(), replace(cfg.optim, warmup=0, decay="constant")
    steps = cfg.steps or steps_of(len(pairs), cfg.batch, None, cfg.epochs)
    vote = voting(
        learner=learner_for(scorer, [bradley_terry.term()], early, cfg.vote_steps),
        items=pairs,
        collate=partial(pair_batch, scorer),
        kept=kept,
        votes=cfg.voters,
        folds=cfg.folds,
        steps=cfg.vote_steps,
        batch=cfg.batch,
        key=key.fold("votes"),
    )

    def prepare(_: int) -> tuple[list[Preference], Metrics]:
        made = treated(pairs, kept[VOTES], cfg.treatment, share=cfg.share, alpha=cfg.alpha, clip=cfg.clip)
        return made, Metrics({"votes/doubted": float(doubted(strength(kept[VOTES])[0], cfg.share).double().mean())})

    model, terms = terms_of(cfg, scorer, key)
    train = rounds(
        learner=learner_for(model, terms, cfg.optim, steps),
        prepare=prepare,
        collate=partial(pair_batch, scorer),
        batch=cfg.batch,
        rounds=1,
        steps_per_round=steps,
        key=key,
    )

    def final(folder: Path) -> None:
        scorer.save(folder)
        write_strengths(folder / "strength.jsonl", pairs, kept[VOTES])

    return replace(chain(vote=vote, train=train), final=final)
