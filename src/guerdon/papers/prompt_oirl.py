"""Prompt-OIRL: the prompt that suits a query, learnt from logs, chosen without asking the model.

Problem: no prompt is the best for every query, and trying several on a large model costs a call each.
Idea: logs of past trials say which prompt answered which query rightly. Fit the chance of that on the features of both, once and offline;
for a new query take the prompt with the highest chance: one call of the large model instead of one for each prompt.
Left out: gradient boosting as the regressor (here a small network, which learns like everything else), and collecting logs.
A log is a judged response: the query is its prompt, the prompt template its response, and the label says whether the answer was right.
Options: `--encoder words` counts hashed words and needs no model; `minilm`, a folder or a hub name reads sentences. Rates, width and
encoder are house choices. `PromptRegressor.load(RUN/final).choose(queries, prompts)` is the use of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from guerdon.config import Checked, Optim, knob
from guerdon.core.rng import Key
from guerdon.data.checks import check_unpaired
from guerdon.learn.alignment import row_batch
from guerdon.learn.imitation import discriminator_term
from guerdon.learn.learner import learner_for
from guerdon.learn.offline import offline, steps_of
from guerdon.policies.prompt_regressor import PromptRegressor, features_of
from guerdon.types import Paper, Recipe, Rollout

PAPER = Paper(
    title="Query-Dependent Prompt Evaluation and Optimization with Offline Inverse RL",
    arxiv="2309.06553",
    year=2023,
    family="imitation",
    idea="From logs of which prompt answered which query rightly, learn to choose a prompt for each query",
    uses=("unpaired", "core.imitation.discriminator", "policies.prompt_regressor.PromptRegressor"),
    claim="Prompts chosen for each held-out query are right more often than the best single prompt",
    full_size="guerdon run prompt_oirl --data my-logs --encoder minilm --hidden 256 --epochs 10",
)


@dataclass(frozen=True)
class Config(Checked):
    data: str = knob("human-ratings:movie", "logs: queries (prompt), prompt templates (response) and whether the answer was right (label)")
    encoder: str = knob("words", "features of a text: words, minilm, a folder, or a hub name")
    hidden: int = knob(64, "width of the hidden layer", at_least=1)
    smoothing: float = knob(0.0, "of the labels", at_least=0, at_most=0.4)
    batch: int = knob(64, "logs a step", unit="logs", at_least=1)
    epochs: float = knob(5.0, "passes over the logs", unit="passes", above=0)
    steps: int | None = knob(None, "updates to make; none: as many as `epochs` gives", unit="updates", at_least=1)
    optim: Optim = Optim(lr=3e-3, weight_decay=0.01, decay="linear")


def build(cfg: Config, unpaired: Sequence[Rollout], key: Key) -> Recipe:
    check_unpaired(unpaired, "prompt_oirl")
    regressor = PromptRegressor(features_of(cfg.encoder), hidden=cfg.hidden, key=key)
    steps = cfg.steps or steps_of(len(unpaired), cfg.batch, None, cfg.epochs)
    return offline(
        learner=learner_for(regressor, [discriminator_term(cfg.smoothing)], cfg.optim, steps),
        items=unpaired,
        collate=lambda logs: row_batch(regressor, logs),
        batch=cfg.batch,
        steps=steps,
        key=key,
    )
