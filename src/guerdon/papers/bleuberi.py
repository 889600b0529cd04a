"""BLEUBERI: BLEU against a few good answers as the reward, on the prompts that are hardest.

Problem: a reward model for following instructions is trained on preferences, which are expensive, and is then gamed.
Idea: the base model answers every prompt of a pool once; the answers are scored by the reward that training will use, smoothed BLEU
against one or several references, and the prompts with the lowest scores are kept. GRPO on those with that reward.
Left out: the pool itself (50,000 prompts of the Tulu 3 mixture, answered by stronger models): give yours, with a column of references.
BERTScore as a reward: `similarity` is like it. Options: any reward (`smoothed_bleu`, `rouge_l`, `bleu_rouge`, a reward model); `pool.tag`
scores what stands inside a tag alone. Deliberate differences: prompts come in an order drawn from the key, not by their scores; the KL
is GRPO's default here, as it was that of the library there. Their rates: lr 1e-6 after a warm-up of 5 %, gradients clipped at .2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from guerdon.config import Checked, Optim, Sampling, knob
from guerdon.core.rng import Key
from guerdon.data.difficulty import Which, by_difficulty
from guerdon.data.record_files import write_rows
from guerdon.errors import UserError
from guerdon.learn.chain import chain
from guerdon.learn.kept import Kept
from guerdon.learn.verbs import collate, judge, pieces_of, rollout_metrics
from guerdon.papers import grpo
from guerdon.rewards.extracted import Extracted, opened
from guerdon.types import Metrics, Paper, Policy, Prompt, Recipe, Reward

PAPER = Paper(
    title="BLEUBERI: BLEU is a surprisingly effective reward for instruction following",
    arxiv="2505.11080",
    year=2025,
    family="policy gradient",
    idea="Smoothed BLEU against references is the reward, and the prompts that the base model answers worst are the data",
    uses=("prompts", "reward", "core.overlap.smoothed_bleu", "data.difficulty.by_difficulty", "core.credit.grpo"),
    claim="Held-out answers come nearer to the references and have more of their facts right than those of the policy before",
    full_size="guerdon run bleuberi --model Qwen/Qwen2.5-7B --data my-pool.jsonl --pool.keep 5000 --pool.max-new 512 --max-new 512 "
    "--temperature 0.9 --lr 1e-6 --warmup 8 --max-grad-norm 0.2 --batch 32 --steps 156",
)


@dataclass(frozen=True)
class Pool(Checked):
    """How the prompts to train on are chosen: each is answered once, and the answer scored."""

    keep: int = knob(512, "prompts to train on; all where there are no more", unit="prompts", at_least=1)
    which: Which = knob("hard", "those with the lowest scores (hard), the highest (easy), in the middle (medium), or drawn (random)")
    temperature: float = knob(0.7, "of the answers", at_least=0)
    top_p: float = knob(0.9, "of the answers", above=0, at_most=1)
    max_new: int = knob(28, "longest answer", unit="tokens", at_least=1)
    tag: str = knob("", "score what stands inside <tag> alone, in training too (an answer without it gets 0); empty: the whole answer")


@dataclass(frozen=True)
class Config(grpo.Config):
    data: str = knob("gettext:django:en-fr", "prompts with references: a file, a folder, a hub name, or a named source")
    reward: tuple[str, ...] = knob(("smoothed_bleu",), "rewards: names, file.py:function, or reward-model folders, each with a =weight")
    pool: Pool = Pool()
    sampling: Sampling = Sampling(n=8, max_new=28, temperature=0.9)
    optim: Optim = Optim(lr=2e-4)


@dataclass(frozen=True)
class Chosen(Sequence[Prompt]):
    """The prompts at the places that will be found, `size` of them."""

    prompts: Sequence[Prompt]
    found: Kept
    size: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, place):  # type: ignore[override]
        return self.prompts[self.found["places"][place]]


def build(cfg: Config, policy: Policy, prompts: Sequence[Prompt], reward: Reward, key: Key) -> Recipe:
    paid = Extracted(reward, partial(opened, tag=cfg.pool.tag)) if cfg.pool.tag else reward
    found, pool, size = Kept(), cfg.pool, min(cfg.pool.keep, len(prompts))
    how = {name: getattr(pool, name) for name in ("temperature", "top_p", "max_new")}

    def choose(t: int) -> Metrics:
        answers = policy.sample(prompts, 1, key.fold("pool"), **how)  # type: ignore[call-arg]
        scores, said = judge(paid, answers)
        places = by_difficulty([s.value for s in scores], size, pool.which, key=key.fold("choose"))
        if len(places) < size:
            raise UserError(f"{len(places)} of {len(prompts)} answers were judged, {size} prompts wanted", hint="lower pool.keep")
        found.update(places=places, ids=[p.id for p in prompts], scores=[s.value for s in scores])
        chosen = sum(scores[i].value for i in places) / size
        return rollout_metrics(answers, scores, collate(policy, answers), pieces_of(policy)) | said | {"reward/chosen": chosen}

    def final(folder: Path) -> None:
        policy.save(folder)
        rows = [{"id": found["ids"][i], "score": found["scores"][i]} for i in found["places"]]
        write_rows(folder / "chosen.jsonl", rows)

    train = cfg.build(policy, Chosen(prompts, found, size), paid, key)
    return replace(chain(pool=Recipe({"found": found}, choose, 1), train=train), final=final)
