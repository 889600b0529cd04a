"""Reward-augmented data: preferences relabelled under target scores, then plain DPO.

Problem: DPO reads which response is better and not how good the two are, so it unlearns good responses that lost and learns bad ones
that won.
Idea: let the prompt name a target score g, with the reward `-(g - score)^2`. Every pair is then two: asked for the better score, the
better response is chosen; asked for the lesser score, the lesser one is. DPO on both; after training ask for the best score
(`data.goals.Goals.best`; the scale, the template and where it goes stand in `goals.json` beside the weights).
Of several scored responses to a prompt the best is paired with a random other one. The authors' code reverses the label of the second
copy only for models with a system role (without one it exchanges the user turns, which are equal): here both are reversed.
Left out: goals of several attributes; scores by the implicit reward of a first DPO model (write them into the data).
Deliberate differences: the wording, and a scale that is read off the data unless `low` and `high` say it (the paper's: 1 and 10); beta and
the learning rate are for the embedded model. Options: `copies half` gives N pairs and not 2N; `label_smoothing` .3 is what some of the
paper's models had.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from guerdon.config import knob
from guerdon.core import preference
from guerdon.core.rng import Key
from guerdon.data.checks import ratings
from guerdon.data.goals import TEMPLATE, Goals, against_random, scale
from guerdon.errors import UserError
from guerdon.learn.alignment import PairView
from guerdon.types import Paper, Policy, Preference, Prompt, Recipe

from ._alignment import LEASH, Paired

PAPER = Paper(
    title="Reward-Augmented Data Enhances Direct Preference Alignment of LLMs",
    arxiv="2410.08067",
    year=2024,
    family="direct alignment: data strategy",
    idea="Name a target score in the prompt and prefer the response that comes nearer to it, then DPO",
    uses=("pools", "data.goals.Goals", "core.preference.goal_reward", "core.preference.dpo"),
    claim="Asked for the best score, the policy writes better responses than DPO's on the same pairs, though the best are rare in the data",
    full_size="guerdon run reward_augmented --model Qwen/Qwen2-7B-Instruct --data openbmb/UltraFeedback --low 1 --high 10 --beta 0.01 "
    "--label-smoothing 0.3 --lr 5e-7 --batch 128",
)


@dataclass(frozen=True)
class Config(Paired):
    NAME = "reward_augmented"
    TIES: ClassVar[bool] = True

    data: str = knob("human-ratings:movie?list=4", "scored responses: pairs with two scores, or lists; a file, a folder, a name")
    beta: float = knob(0.1, LEASH, above=0)
    label_smoothing: float = knob(0.0, "probability that a label is wrong (cDPO)", at_least=0, at_most=0.5)
    low: float | None = knob(None, "lowest score of the scale; none: of the data, rounded down")
    high: float | None = knob(None, "highest score of the scale, asked for after training; none: of the data, rounded up")
    template: str = knob(TEMPLATE, "how a score is asked for, with {goal}, and {low} and {high} for the scale")
    place: Literal["auto", "system", "user"] = knob(
        "auto", "where the goal goes; auto: the system message, where the model's template has one"
    )
    copies: Literal["both", "half"] = knob("both", "both goals of each pair, or one of them at random")
    ties: Literal["drop", "keep"] = knob("drop", "pairs of equal scores: left out, or kept once as ties")
    unrated: Literal["drop", "keep"] = knob("drop", "pairs without scores: left out, or kept without a goal")

    def goals(self, policy: Policy, items: Sequence[Preference]) -> Goals:
        """How scores are asked for, on the scale of the settings or of the data."""
        low, high = scale(items) if self.low is None or self.high is None else (self.low, self.high)
        system = speaks_of_system(policy) if self.place == "auto" else self.place == "system"
        return Goals(low if self.low is None else self.low, high if self.high is None else self.high, self.template, system)

    def check(self, items: Sequence[Any]) -> None:
        super().check(items)
        scale(items)

    def loss(self, view: PairView) -> Tensor:
        right = torch.where(view.tied, 0.5, 1 - self.label_smoothing)
        return preference.dpo(*view.logratio, beta=self.beta, label=right)


def speaks_of_system(policy: Any) -> bool:
    """Whether a policy's chat template renders a system message."""
    codec = getattr(policy, "codec", None)
    if codec is None or not codec.chat:
        return False
    said = [{"role": "system", "content": "quality"}, {"role": "user", "content": "question"}]
    try:
        return "quality" in codec.render(Prompt("probe", said))
    except UserError:  # the template raises for roles that it does not know
        return False


def build(cfg: Config, policy: Policy, pools: Sequence[Preference], key: Key) -> Recipe:
    cfg.check(pools)
    goals = cfg.goals(policy, pools)
    known = [x for item in pools for x in ratings(item) or []]
    if outside := sum(not goals.low <= x <= goals.high for x in known):
        logging.getLogger("guerdon").warning(
            f"{outside} of {len(known)} scores lie outside {goals.low:g} to {goals.high:g} and are cut to it"
        )
    pairs = goals.pairs(against_random(pools, key), copies=cfg.copies, ties=cfg.ties, unrated=cfg.unrated, key=key)
    if not pairs:
        raise UserError(f"none of {len(pools)} preferences has two different scores", hint="widen low and high, or --ties keep")
    made = cfg.recipe(policy, pairs, cfg.terms(), key)

    def final(folder: Path) -> None:
        policy.save(folder)
        (folder / "goals.json").write_text(json.dumps(dataclasses.asdict(goals), indent=2) + "\n", encoding="utf-8")

    facts = {
        **made.facts,
        "goals": {**dataclasses.asdict(goals), "given": len(pools), "pairs": len(pairs), "first": pairs[0].prompt.content},
    }
    return dataclasses.replace(made, final=final, facts=facts)
