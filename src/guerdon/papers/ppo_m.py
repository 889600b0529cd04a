"""PPO-M: a reward model that does not like confidence for its own sake.

Problem: reward models prefer answers that say they are sure, right or wrong, so that policies trained with them say so always.
Idea: fine-tune a reward model a little more, on pairs whose confidence is stated four ways: a good answer should score higher with high
than with low confidence, a bad one lower. PPO with the calibrated model is then ordinary PPO (`ppo_c --form none --reward RUN/final`).
Left out: nothing of the fine-tuning. The authors draw their pairs from preference data of their own making; any pairs will do here.
Options: the authors' code has three more objectives: `combined` also orders the plain pair, `across` the confident good answer above the
unsure bad one, `list` ranks all four. The reward model is given by `--model` (a folder of `bradley_terry`). What counts as high and low
(7 to 10, 0 to 3), and how it is asked for and stated, are house choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from guerdon.config import Checked, LoraConfig, Optim, knob
from guerdon.core import preference
from guerdon.core.confidence import calibration
from guerdon.core.preference_lists import plackett_luce
from guerdon.core.reduce import mean
from guerdon.core.rng import Key
from guerdon.data.checks import check_pairs
from guerdon.data.confidence import ASK, FourWays
from guerdon.learn.confidence import Variants, variant_batch
from guerdon.learn.learner import learner_for
from guerdon.learn.offline import offline, steps_of
from guerdon.types import Batch, Outputs, Paper, Policy, Preference, Recipe, Term, pairs

PAPER = Paper(
    title="Taming Overconfidence in LLMs: Reward Calibration in RLHF (PPO-M)",
    arxiv="2410.09724",
    year=2024,
    family="reward model",
    idea="Fine-tune the reward model so that confidence counts for good answers and against bad ones",
    uses=("pairs", "core.confidence.calibration", "data.confidence.FourWays", "learn.confidence.variant_batch"),
    claim="PPO with the calibrated reward model states confidence that fits its accuracy far better than PPO with the model before",
    full_size="guerdon run ppo_m --model my-reward-model --data HuggingFaceH4/ultrafeedback_binarized --lr 9e-6 --batch 256",
)


@dataclass(frozen=True)
class Config(Checked):
    model: str = knob("tiny", "the reward model to calibrate: a folder, a hub name, or tiny (a new head on the embedded model)")
    data: str = knob("human-ratings:movie", "preference pairs: a file, a folder, a hub name, or a named source")
    objective: Literal["calibration", "combined", "across", "list"] = knob("calibration", "what is ordered: see the options")
    ask: str = knob(ASK, "words that every prompt ends with, to ask for confidence")
    statement: str = knob("{answer}\nConfidence: {confidence}.", "how a response states its confidence")
    confident: tuple[str, ...] = knob(("7", "8", "9", "10"), "high confidences, one drawn for each pair")
    unsure: tuple[str, ...] = knob(("0", "1", "2", "3"), "low confidences, one drawn for each pair")
    batch: int = knob(32, "pairs a step, each read six times", unit="pairs", at_least=1)
    epochs: float = knob(1.0, "passes over the pairs", unit="passes", above=0)
    steps: int | None = knob(None, "updates to make; none: as many as `epochs` gives", unit="updates", at_least=1)
    optim: Optim = Optim(lr=1e-4, warmup=5, decay="linear")
    lora: LoraConfig = LoraConfig()


def term(objective: str = "calibration") -> Term:
    """The calibration loss on the scores of a `variant_batch`, and by how much confidence moves them."""

    def loss(o: Outputs, b: Batch) -> torch.Tensor:
        x = Variants.of(b, o.score)
        if objective == "list":
            best_first = -torch.arange(4.0, device=x.ranking.device).expand_as(x.ranking)
            return plackett_luce(x.ranking, best_first, torch.ones_like(x.ranking, dtype=torch.bool), beta=1.0)
        out = calibration(x.chosen_high, x.chosen_low, x.rejected_high, x.rejected_low)
        if objective == "combined":
            out = out + preference.logistic(x.chosen - x.rejected)
        return out + preference.logistic(x.chosen_high - x.rejected_low) if objective == "across" else out

    def watch(o: Outputs, b: Batch) -> dict[str, torch.Tensor]:
        x = Variants.of(b, o.score)
        return {
            "confidence/chosen": x.chosen_high - x.chosen_low,
            "confidence/rejected": x.rejected_high - x.rejected_low,
            "rewards/accuracies": preference.accuracy(x.chosen, x.rejected),
        }

    return Term("calibration", loss, over=pairs, reduce=mean, needs=frozenset({"score"}), watch=watch)


def build(cfg: Config, scorer: Policy, pairs: Sequence[Preference], key: Key) -> Recipe:
    check_pairs(pairs, "ppo_m")
    ways = FourWays(cfg.confident, cfg.unsure, cfg.statement, cfg.ask)
    steps = cfg.steps or steps_of(len(pairs), cfg.batch, None, cfg.epochs)
    return offline(
        learner=learner_for(scorer, [term(cfg.objective)], cfg.optim, steps),
        items=pairs,
        collate=lambda items: variant_batch(scorer, items, ways, key),
        batch=cfg.batch,
        steps=steps,
        key=key,
    )
