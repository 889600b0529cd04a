"""Crome: a reward model that reacts to what makes an answer good, and to nothing else.

Problem: reward models latch on to length and format, which go along with quality in the data; what else they latch on to is not known.
Idea: name what matters instead. Pairs of an answer and its rewriting in one quality alone teach sensitivity (causal); pairs put under an
unrelated prompt, where neither answer is better, teach indifference to all the rest (neutral): `-(log sigmoid(D) + log sigmoid(-D)) / 2`.
Of both, learn from those that a reward model of the originals gets wrong or is unsure of.
Left out: the pairwise head; checking by embeddings that an unrelated prompt is unrelated (give prompts that are).
Options: without `oracle` a list of words of praise and blame rewrites (a rule, for opinions); any other augmenter: `data.augment.Augmenter`
in Python. `total` is how the two sums of the loss are divided, which the paper leaves open: a mean of each, not at all, or one mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from guerdon.config import Checked, LoraConfig, Optim, knob, run_of
from guerdon.core.rng import Key
from guerdon.data import load
from guerdon.data.augment import Augmenter, WordSwap, causal, informative, neutral
from guerdon.data.checks import check_pairs
from guerdon.data.oracle import Oracle, asking
from guerdon.learn.augmented import Total, kind_batch, kind_terms
from guerdon.learn.chain import chain
from guerdon.learn.learner import learner_for
from guerdon.learn.offline import offline, steps_of
from guerdon.learn.rounds import rounds
from guerdon.learn.voting import margins
from guerdon.papers import bradley_terry
from guerdon.policies.refs import Frozen, Snapshot
from guerdon.policies.text import TextPolicy
from guerdon.types import Metrics, Paper, Policy, Preference, Prompt, Recipe

PAPER = Paper(
    title="Robust Reward Modeling via Causal Rubrics",
    arxiv="2506.16507",
    year=2025,
    family="reward model",
    idea="Pairs that differ in one quality alone, and ties under unrelated prompts, filtered by a reward model of the originals",
    uses=("pairs", "data.augment.causal", "data.augment.neutral", "core.reward_loss.bradley_terry", "learn.augmented.kind_terms"),
    claim="Where length goes along with quality in training and against it in the test, it orders far more pairs right",
    full_size="guerdon run crome --model google/gemma-2-9b-it --oracle google/gemma-2-27b-it --data HuggingFaceH4/ultrafeedback_binarized "
    "--unrelated HuggingFaceH4/ultrafeedback_binarized --lr 3e-6 --batch 64",
)
UNRELATED = ("How do I change the tyre of a bicycle?", "What is the capital of Mongolia?", "Add 17 and 25.", "Write a haiku about rain.")


@dataclass(frozen=True)
class Config(Checked):
    model: str = knob("tiny", "the backbone: tiny, a folder, or a hub name")
    data: str = knob("human-ratings:movie", "preference pairs: a file, a folder, a hub name, or a named source")
    oracle: str | None = knob(None, "chat model that names qualities and rewrites: a folder or hub name; none: a list of words")
    qualities: int = knob(5, "qualities that the oracle names for a prompt", at_least=1)
    max_new: int = knob(1024, "longest reply of the oracle", unit="tokens", at_least=1)
    unrelated: str | None = knob(None, "prompts for neutral pairs, any data with prompts; none: four questions about other things")
    neutrals: float = knob(0.5, "neutral pairs for each original and causal pair", at_least=0, at_most=1)
    weight: float = knob(1.0, "lambda, the weight of the neutral part", at_least=0)
    total: Total = knob("means", "means: a mean of each part; sum: a sum over both; union: one mean over both")
    filter_steps: int = knob(100, "updates on the originals of the baseline that filters; 0: no filter", unit="updates", at_least=0)
    sure: float = knob(0.8, "pairs that the baseline orders right with this probability are left out", at_least=0, at_most=1)
    tied: float = knob(0.1, "neutral pairs as near as this to 1/2 are left out", at_least=0, at_most=0.5)
    batch: int = knob(32, "pairs a step", unit="pairs", at_least=1)
    epochs: float = knob(2.0, "passes over originals and augmented pairs, before the filter", unit="passes", above=0)
    steps: int | None = knob(None, "updates to make; none: as many as `epochs` gives", unit="updates", at_least=1)
    optim: Optim = Optim(lr=5e-4, warmup=10, decay="linear")
    lora: LoraConfig = LoraConfig()


def augmented(cfg: Config, pairs: Sequence[Preference], augmenter: Augmenter, key: Key) -> list[Preference]:
    """The causal and the neutral pairs."""
    made = causal(pairs, augmenter, key)
    plain = [Prompt(f"unrelated/{i}", text) for i, text in enumerate(UNRELATED)]
    if pairs and not isinstance(pairs[0].prompt.content, str):
        plain = [replace(p, content=[{"role": "user", "content": p.content}]) for p in plain]
    prompts = load(cfg.unrelated, "prompts", key=key.fold("unrelated")).items if cfg.unrelated else plain
    return made + neutral([*pairs, *made], prompts, round(cfg.neutrals * (len(pairs) + len(made))), key)


def build(cfg: Config, scorer: Policy, pairs: Sequence[Preference], key: Key, augmenter: Augmenter | None = None) -> Recipe:
    check_pairs(pairs, "crome")
    if augmenter is None and cfg.oracle:
        speaker = Frozen(TextPolicy.load(cfg.oracle, max_new=cfg.max_new, engine=run_of(cfg).engine))
        augmenter = Oracle(asking(speaker.policy), cfg.qualities)
    extra, start = augmented(cfg, pairs, augmenter or WordSwap(), key), Snapshot(scorer)
    steps = cfg.steps or steps_of(len(pairs) + len(extra), cfg.batch, None, cfg.epochs)
    collate = partial(kind_batch, scorer)

    def prepare(_: int) -> tuple[list[Preference], Metrics]:
        kept = informative(extra, margins(scorer, extra, collate), sure=cfg.sure, tied=cfg.tied) if cfg.filter_steps else extra
        start.restore()
        return [*pairs, *kept], Metrics({"augmented": float(len(extra)), "kept": len(kept) / max(1, len(extra))})

    learner = learner_for(scorer, kind_terms(cfg.weight, cfg.total), cfg.optim, steps)
    train = rounds(
        learner=learner, prepare=prepare, collate=collate, batch=cfg.batch, rounds=1, steps_per_round=steps, key=key, state={"start": start}
    )
    if not cfg.filter_steps:
        return train
    baseline = learner_for(scorer, [bradley_terry.term()], cfg.optim, cfg.filter_steps)
    return chain(
        baseline=offline(learner=baseline, items=pairs, collate=collate, batch=cfg.batch, steps=cfg.filter_steps, key=key.fold("baseline")),
        train=train,
    )
