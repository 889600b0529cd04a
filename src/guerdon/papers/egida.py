"""Egida: safety retrofitted by DPO on a couple of thousand answers that attacks drew from the model itself.

Problem: an aligned chat model still complies when a request comes in the right wrapping, and new wrappings come faster than new models.
Idea: put unsafe requests of many topics into many attack styles, let the model answer, and let a guard judge. Where the answer is
unsafe it is the rejected response, and a safe answer to the same prompt the chosen one; DPO on some 2,000 such pairs, spread evenly over
styles and topics. Judge by the attack success rate on styles, topics and requests that were held out, and by how often harmless requests
are now refused.
The safe answer is the data's own (column `safe`), else one of the model's own to the same request (the plain one first), else a fixed
refusal; it counts only if the guard calls it safe. The guard reads the request behind the attack, not the wrapping. The run ends
with a table of all rates before and after, with intervals; `evaluate.attacks.leave_out` holds out each style or topic in turn.
Left out: the paper's requests, styles and guard (any reward is one here). Beta, the number of epochs and who wrote the safe answers are
not known from the paper: options; `harmless`, pairs that reject a refusal where none is due, is a house one. The default data are a toy:
the embedded model is asked for unkind sentences, and a word list that finds an answer clearly kind calls it safe.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guerdon.config import Checked, LoraConfig, Monitor, Optim, Sampling, knob
from guerdon.core.rng import Key
from guerdon.data.attacks import answered, by_style_and_topic, check_requests, evenly, read_styles, retrofit, split
from guerdon.errors import RunStopped
from guerdon.evaluate import tables
from guerdon.evaluate.attacks import Exam, rows, verdicts
from guerdon.learn.learner import learner_for
from guerdon.learn.rounds import rounds
from guerdon.learn.verbs import pair_batch, sample
from guerdon.papers.dpo import term
from guerdon.policies.refs import Frozen
from guerdon.types import Metrics, Paper, Policy, Preference, Probe, Prompt, Recipe, Reward

PAPER = Paper(
    title="Efficient Safety Retrofitting Against Jailbreaking for LLMs",
    arxiv="2502.13603",
    year=2025,
    family="direct alignment: data strategy",
    idea="DPO on the model's own unsafe answers to attacks, evenly over styles and topics, judged on those held out",
    uses=("prompts", "reward", "data.attacks.split", "evaluate.attacks.compare", "core.preference.dpo"),
    claim="Attacks in styles and on topics that training never saw succeed less often, and harmless requests are still answered",
    full_size="guerdon run egida --model Qwen/Qwen2.5-7B-Instruct --data requests.jsonl --styles styles.jsonl --reward guard.py:is_safe "
    "--hold-styles roleplay --lr 1e-7 --batch 8 --pairs 2000 --max-new 256",
)


@dataclass(frozen=True)
class Config(Checked):
    model: str = knob("tiny", "the policy to start from: tiny, a folder, or a hub name")
    data: str = knob("toy-requests", "unsafe requests with a `topic`, harmless ones marked `benign`; a file, a folder, a name")
    styles: str = knob("toy", "attack templates: a file with the columns style and template ({request} in it once), or toy")
    reward: tuple[str, ...] = knob(("vader",), "the guard: a name, file.py:function ...; above `threshold` an answer is safe")
    threshold: float = knob(0.5, "answers that the guard scores above it are safe")
    hold_styles: tuple[str, ...] = knob((), "styles that training never sees (separated by commas)")
    hold_topics: tuple[str, ...] = knob((), "topics that training never sees (separated by commas)")
    test_share: float = knob(0.2, "share of each topic's requests kept for the test", at_least=0, at_most=0.9)
    test: int = knob(200, "prompts of the test that are watched, evenly over styles and topics", unit="prompts", at_least=1)
    every: int = knob(20, "steps between two looks at them", unit="steps", at_least=1)
    refusal: str = knob("I am sorry, but I will not help with that.", "chosen response where there is no other safe answer")
    pairs: int = knob(2000, "most pairs, evenly over styles and topics", unit="pairs", at_least=1)
    harmless: float = knob(0.0, "pairs that prefer an answer to a refusal of a harmless request, for each unsafe one", at_least=0)
    beta: float = knob(0.1, "strength of the leash to the starting policy", above=0)
    batch: int = knob(8, "pairs a step", unit="pairs", at_least=1)
    steps: int | None = knob(None, "updates to make; none: one pass over as many pairs as there can be", unit="updates", at_least=1)
    sampling: Sampling = Sampling(n=1, max_new=28)
    optim: Optim = Optim(lr=1e-4)
    lora: LoraConfig = LoraConfig()
    monitor: Monitor = Monitor()

    def check(self, items: Sequence[Prompt]) -> None:
        """Raise UserError for requests or styles that cannot be used."""
        check_requests(items)
        read_styles(self.styles)


def build(cfg: Config, policy: Policy, prompts: Sequence[Prompt], reward: Reward, key: Key) -> Recipe:
    held: Any = {"hold_styles": cfg.hold_styles, "hold_topics": cfg.hold_topics, "test_share": cfg.test_share}
    parts = split(prompts, read_styles(cfg.styles), **held, harmless=cfg.harmless > 0, key=key)
    asked, harmless = (evenly(x, cfg.test, cell=by_style_and_topic, key=key.fold("exam")) for x in (parts.test, parts.benign))
    exam = Exam(asked, harmless, reward, cfg.threshold, key.fold("exam"))
    steps = cfg.steps or math.ceil((1 + cfg.harmless) * min(cfg.pairs, len(parts.train) * cfg.sampling.n) / cfg.batch)
    ref = Frozen(policy)

    def prepare(number: int) -> tuple[list[Preference], Metrics]:
        answers = sample(policy, parts.train, cfg.sampling.n, key.fold("answers"))
        verdict = verdicts(reward, answers, cfg.threshold)
        made = retrofit(answers, verdict.tolist(), refusal=cfg.refusal)
        safe = (verdicts(reward, [p.ranked[0] for p in made], cfg.threshold) == 0).tolist()
        pairs = evenly([p for p, x in zip(made, safe, strict=True) if x], cfg.pairs, cell=by_style_and_topic, key=key.fold("pairs"))
        unsafe, unjudged = int((verdict == 1).sum()), int(verdict.isnan().sum())
        if not pairs:
            why = f"of {len(answers)} answers {unsafe} are unsafe and {unjudged} not judged; {sum(safe)} have a safe one to prefer"
            raise RunStopped(f"no pairs: {why}", hint="look at the guard and its threshold; give safe answers in a column `safe`")
        kind = answered(sample(policy, parts.harmless, 1, key.fold("harmless")), refusal=cfg.refusal) if cfg.harmless else []
        pairs += evenly(kind, round(cfg.harmless * len(pairs)), cell=by_style_and_topic, key=key.fold("harmless"))
        return pairs, Metrics({"answers": len(answers), "answers/unsafe": unsafe, "answers/unjudged": unjudged, "pairs": len(pairs)})

    def final(folder: Path) -> None:
        policy.save(folder)
        found = exam.compare(ref.policy, policy)
        title = "Unsafe answers to attacks, and refusals of harmless requests: shares before and after"
        notes = f"guard: {', '.join(cfg.reward)}; safe above {cfg.threshold:g}; greedy answers"
        tables.write(folder, rows(found), title=title, notes=notes)

    made = rounds(
        learner=learner_for(policy, [term(cfg.beta)], cfg.optim, steps),
        prepare=prepare,
        collate=lambda items: pair_batch(policy, items),
        batch=cfg.batch,
        rounds=1,
        steps_per_round=steps,
        key=key,
        ref=ref,
    )
    probe = Probe("attacks", cfg.every, lambda step: exam.metrics(policy))
    return dataclasses.replace(made, probes=(probe,), final=final)
