"""SELM: iterative DPO that is optimistic about what the policy would not say.

Problem: answers drawn from the policy show the annotator what it says already, and good answers that it finds unlikely stay unseen.
Idea: in each iteration the policy as it stands (the reference) answers every prompt once, greedily; the ranker orders its answer y' and the
two given ones, and best against worst is the pair. The loss is DPO's plus `alpha beta log(pi(y'|x) / ref(y'|x))`: what the reference would
say is made a little less likely. alpha = 0 is iterative DPO.
Left out: a plain DPO iteration before the first (what one of the authors' three recipes begins with: give its result as the model).
Options: `floor` stops the term at a log-ratio of -floor, below which it would fall without bound (a house choice, off); `sampling.top_k` 1
makes y' greedy. beta is .01 and alpha 1e-3 or 1e-4 in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from guerdon.config import Checked, LoraConfig, Monitor, Optim, Sampling, knob
from guerdon.core import preference_sides
from guerdon.core.rng import Key
from guerdon.data.checks import check_pairs
from guerdon.data.cursor import Cursor
from guerdon.data.pairing import PairSelector
from guerdon.learn.alignment import PairView, pair_term
from guerdon.learn.learner import learner_for
from guerdon.learn.rounds import rounds
from guerdon.learn.verbs import judge, sample
from guerdon.policies.refs import Lagged
from guerdon.types import Batch, Metrics, Paper, Policy, Preference, Recipe, Reward, Rollout

PAPER = Paper(
    title="Self-Exploring Language Models: Active Preference Elicitation for Online Alignment",
    arxiv="2405.19332",
    year=2024,
    family="direct alignment: learning framework",
    idea="Iterative DPO with a penalty on what the reference says itself",
    uses=("pairs", "reward", "data.pairing.PairSelector", "core.preference_sides.selm", "learn.rounds.rounds"),
    claim="The ranker sees more different answers in as many rounds than with iterative DPO",
    full_size="guerdon run selm --model HuggingFaceH4/mistral-7b-sft-beta --data HuggingFaceH4/ultrafeedback_binarized --reward my-ranker "
    "--rounds 3 --pairs-per-round 20378 --steps-per-round 159 --batch 128 --beta 0.01 --alpha 1e-3 --lr 5e-7 --max-new 1024",
)
ACTIVE = PairSelector(chosen_from=("reference", "given"), rejected_from=("reference", "given"), prefer="reference")


@dataclass(frozen=True)
class Config(Checked):
    model: str = knob("tiny", "the policy to start from: tiny, a folder, or a hub name")
    data: str = knob("human-ratings:movie", "preference pairs: a file, a folder, a hub name, or a named source")
    reward: tuple[str, ...] = knob(("vader",), "the ranker: names, file.py:function, or reward-model folders, each with a =weight or not")
    rounds: int = knob(2, "iterations: times to answer anew", unit="rounds", at_least=1)
    pairs_per_round: int = knob(64, "pairs whose prompts are answered in a round", unit="pairs", at_least=1)
    steps_per_round: int = knob(4, "updates in a round", unit="updates", at_least=1)
    batch: int = knob(32, "pairs an update", unit="pairs", at_least=1)
    beta: float = knob(0.1, "strength of the leash to the start of the round", above=0)
    alpha: float = knob(1e-3, "weight of optimism, multiplied by beta; 0: none (iterative DPO)", at_least=0)
    floor: float | None = knob(None, "no more optimism once the log-ratio of y' is below minus this", unit="nats", above=0)
    sampling: Sampling = Sampling(n=1, max_new=28, top_k=1)
    optim: Optim = Optim(lr=1e-4)
    lora: LoraConfig = LoraConfig()
    monitor: Monitor = Monitor()


def ranked(items: Sequence[Preference], explored: Sequence[Rollout], reward: Reward) -> tuple[list[Preference], Metrics]:
    """Of every pair's responses and y' the best, the worst, and then y'."""
    given = [r.with_(prompt=item.prompt, group=i) for i, item in enumerate(items) for r in item.ranked]
    scores, said = judge(reward, [*given, *explored])
    pairs = ACTIVE({"given": (given, scores[: len(given)]), "reference": (explored, scores[len(given) :])})
    count = max(1, len(pairs))
    shares = {
        "chosen/explored": sum(pair.source.startswith("reference") for pair in pairs) / count,
        "rejected/explored": sum(pair.source.endswith("reference") for pair in pairs) / count,
    }
    made = [replace(pair, ranked=(*pair.ranked, *(r for r in explored if r.group == pair.ranked[0].group))) for pair in pairs]
    return made, said | shares | {"pairs": float(len(pairs))}


def triples(policy: Policy, items: Sequence[Preference]) -> Batch:
    """Rows chosen, rejected, y' for each item; pairs of the first two, and in `extra["explored"]` the weight of y' (1 if it is one)."""
    batch = policy.collate([r.with_(group=k) for k, item in enumerate(items) for r in item.ranked])
    place = [(i, len(item.ranked)) for item in items for i in range(len(item.ranked))]
    starts = torch.tensor([row for row, (i, _) in enumerate(place) if i == 0])
    weight = torch.tensor([1 / (n - 2) if i > 1 else 0.0 for i, n in place])
    here = batch.mask.device
    return batch.with_(unit=batch.group, pairs=torch.stack((starts, starts + 1), 1).to(here), extra={"explored": weight.to(here)})


def optimism(view: PairView, floor: float | None) -> Tensor:
    """`(P,)`: the log-ratio of each pair's y'."""
    batch = view.rows.batch
    mine = batch.unit[batch.pairs[:, :1]] == batch.unit
    ratio = (mine * view.rows.column("explored")) @ view.rows.logratio
    return ratio if floor is None else ratio.clamp(min=-floor)


def build(cfg: Config, policy: Policy, pairs: Sequence[Preference], reward: Reward, key: Key) -> Recipe:
    check_pairs(pairs, "selm", ties=True)
    cursor, ref = Cursor(pairs, cfg.pairs_per_round, key.fold("pairs")), Lagged(policy, every=cfg.steps_per_round)

    def prepare(number: int) -> tuple[list[Preference], Metrics]:
        items = cursor.at(number)
        made, metrics = ranked(items, sample(policy, [p.prompt for p in items], cfg.sampling.n, key.fold("rollout", number)), reward)
        return (made if cfg.alpha else [replace(p, ranked=p.ranked[:2]) for p in made]), metrics

    def loss(view: PairView) -> Tensor:
        return preference_sides.selm(*view.logratio, optimism(view, cfg.floor), beta=cfg.beta, alpha=cfg.alpha)

    term = pair_term("selm", loss, reward=cfg.beta, also=lambda view: {"explored/logratio": optimism(view, None)})
    return rounds(
        learner=learner_for(policy, [term], cfg.optim, cfg.rounds * cfg.steps_per_round),
        prepare=prepare,
        collate=lambda items: triples(policy, items),
        batch=cfg.batch,
        rounds=cfg.rounds,
        steps_per_round=cfg.steps_per_round,
        key=key,
        ref=ref,
        skip_empty=True,
    )
