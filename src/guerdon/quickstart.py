"""The quickstart: from human ratings to a better model, and to a gamed one, in one command.

A reward model learns from people's ratings of movie sentences and is tested on held-out ones, in its own domain and in three others.
The embedded model is then trained against it twice, with a KL leash and without. Two judges that never train anything watch, and so do
diversity, perplexity, stopping and length: without the leash the reward is gamed while both judges still rise.
Every training goes through `guerdon.train`, so the folder it leaves behind holds ordinary runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import guerdon
from guerdon import report
from guerdon.config import Optim
from guerdon.core import stats
from guerdon.core.rng import Key
from guerdon.data.human_ratings import PROMPTS, demo, human_ratings, prompt, rating_lists
from guerdon.evaluate.generation import Generation, Verdict, judge_run, measure, study
from guerdon.evaluate.pair_accuracy import PairAccuracy, pair_accuracy
from guerdon.papers import bradley_terry
from guerdon.policies.features import FeatureScorer, SentenceEncoder
from guerdon.policies.heads import Scorer
from guerdon.policies.refs import Frozen
from guerdon.policies.text import TextPolicy
from guerdon.rewards.model import ScalarModelReward
from guerdon.rewards.text_metrics import vader
from guerdon.search.best_of import best_of
from guerdon.types import Reward

HOME = "movie"
AWAY = tuple(d for d in PROMPTS if d != HOME)
PROXY, VADER, JUDGE = "reward model", "VADER", "other judge"

EPOCHS = 2  # passes of the reward model over the movie sentences
LEASHED = {"beta": 0.3, "steps": 40, "optim": {"lr": 3e-4, "decay": "linear"}}
UNLEASHED = {"beta": 0.0, "steps": 60, "show_kl": True, "optim": {"lr": 2e-4}}
SAMPLES = 256  # responses behind every number about a policy
JUDGE_SENTENCES = 1000  # rated sentences of each other domain behind the judge
BEST_OF = 64  # responses to each prompt of the best-of-n comparison
MAX_NEW = 28


@dataclass
class Findings:
    """What the quickstart found, and wrote to `findings.json`."""

    accuracy: dict[str, PairAccuracy]
    judges: dict[str, PairAccuracy]
    policies: dict[str, Generation]
    verdicts: list[Verdict]
    seconds: dict[str, float]


def main(out: str | Path = "quickstart", *, seed: int = 0, console: Console | None = None) -> Findings:
    """Run it all into a folder: `reward-model/`, `leashed/`, `unleashed/`, `findings.json`, `report.html`."""
    out, console, clock = Path(out), console or Console(), Clock()
    key = Key(seed).fold("quickstart")
    console.print(f"[bold]Guerdon {guerdon.__version__}[/]: from human ratings to a better model, in the folder {out}\n")

    with clock.stage(console, "1. A reward model from people's ratings of movie sentences"):
        scorer = train_reward_model(out, seed)
        accuracy = test_reward_model(scorer, key)
        console.print(table("Does it order held-out sentences as people do?", *rows_of_accuracy(accuracy)))

    with clock.stage(console, "2. Two judges that never train the policy"):
        other = other_domain_judge(key)
        judges = {PROXY: ScalarModelReward(scorer), VADER: vader, JUDGE: ScalarModelReward(other)}
        quality = test_judges({VADER: vader, JUDGE: judges[JUDGE]}, key)
        console.print(table("Do the judges order movie sentences as people do?", *rows_of_accuracy(quality)))

    start = TextPolicy.load("tiny", max_new=MAX_NEW)
    origin = Frozen(start)
    asked = [prompt(HOME, f"evaluation/{i}") for i in range(SAMPLES)]
    policies = {"start": study(start, origin, asked, judges, key=key.fold("evaluation"))}

    for name, settings in (("leashed", LEASHED), ("unleashed", UNLEASHED)):
        with clock.stage(console, f"3. GRPO against the reward model: {name} (beta {settings['beta']})"):
            final = train_policy(out / name, out / "reward-model" / "final", settings, seed)
            policies[name] = study(final, origin, asked, judges, key=key.fold("evaluation"))

    with clock.stage(console, "4. Best of n from the start, at the KL of the leashed run"):
        n = n_at_kl(policies["leashed"].kl)
        policies[f"best of {n}"] = best_of_n(start, origin, judges, n, key)

    verdicts = [judge_run(name, policies["start"], policies[name], proxy=PROXY) for name in ("leashed", "unleashed")]
    findings = Findings(accuracy, quality, policies, verdicts, clock.seconds)
    page = write_report(out, findings)
    conclude(console, findings, page)
    return findings


# ---------------------------------------------------------------- the stages


def train_reward_model(out: Path, seed: int) -> Scorer:
    """The embedded model with a scalar head, on ranked lists of movie sentences."""
    guerdon.train(
        "bradley_terry",
        model="tiny",
        data=f"human-ratings:{HOME}?list=32",
        out=out / "reward-model",
        seed=seed,
        batch=2,
        epochs=EPOCHS,
        optim={"lr": 5e-4, "warmup": 20, "decay": "linear"},
    )
    return Scorer.load(out / "reward-model" / "final")


def test_reward_model(scorer: Scorer, key: Key) -> dict[str, PairAccuracy]:
    """Pair accuracy on the held-out sentences of every domain."""
    return {domain: test(ScalarModelReward(scorer), domain, key) for domain in (HOME, *AWAY)}


def test(reward: Reward, domain: str, key: Key) -> PairAccuracy:
    sentences = human_ratings(domain, "test")
    score = torch.tensor([s.value for s in reward([demo(s) for s in sentences])])
    return pair_accuracy(score, torch.tensor([s.mean for s in sentences]), key=key.fold("accuracy", domain))


def other_domain_judge(key: Key) -> FeatureScorer:
    """A linear reward model on frozen sentence features, fitted on ratings of the three other domains only."""
    judge = FeatureScorer(SentenceEncoder("minilm", compute="auto"))
    sentences = []
    for domain in AWAY:
        rated = human_ratings(domain)
        sentences += [rated[i] for i in key.fold("judge", domain).permutation(len(rated))[:JUDGE_SENTENCES]]
    cfg = bradley_terry.Config(batch=4, epochs=8, optim=Optim(lr=0.02, decay="linear"))
    recipe = bradley_terry.build(cfg, judge, rating_lists(sentences, size=100, key=key), key)
    for t in range(recipe.steps):
        recipe.step(t)
    return judge


def test_judges(judges: Mapping[str, Reward], key: Key) -> dict[str, PairAccuracy]:
    return {name: test(judge, HOME, key) for name, judge in judges.items()}


def train_policy(out: Path, reward: Path, settings: Mapping[str, Any], seed: int) -> TextPolicy:
    """GRPO from the embedded model; the result is loaded back from the folder that it was saved to."""
    summary = guerdon.train(
        "grpo",
        model="tiny",
        data=f"human-ratings:{HOME}",
        reward=[str(reward)],
        out=out,
        seed=seed,
        sampling={"n": 8, "max_new": MAX_NEW},
        batch=16,
        **settings,
    )
    return TextPolicy.load(summary.final, max_new=MAX_NEW)


def n_at_kl(kl: float) -> int:
    """The n whose best-of-n is nearest to this KL from its start, among powers of two up to `BEST_OF`."""
    return min((2**i for i in range(1, BEST_OF.bit_length())), key=lambda n: abs(stats.best_of_n_kl(n) - kl))


def best_of_n(policy: TextPolicy, start: Frozen, judges: Mapping[str, Reward], n: int, key: Key) -> Generation:
    """Best-of-n responses from the start, measured as the policies are; their KL is the closed form's bound."""
    asked = [prompt(HOME, f"best-of-n/{i}") for i in range(SAMPLES // 4)]
    best = best_of(policy, asked, judges[PROXY], n=n, key=key.fold("best of n")).best
    return replace(measure(best, policy, start, judges), kl=stats.best_of_n_kl(n))


# ---------------------------------------------------------------- what it says


class Clock:
    """Seconds of each stage, announced as it starts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, console: Console, title: str) -> Iterator[None]:
        console.print(f"[bold]{title}[/]")
        began = time.monotonic()
        yield
        self.seconds[title] = time.monotonic() - began
        console.print(f"[dim]{self.seconds[title]:.0f} s[/]\n")


def rows_of_accuracy(found: Mapping[str, PairAccuracy]) -> tuple[list[str], list[list[str]]]:
    header = ["", "accuracy", "95 % interval", "ECE", "pairs"]
    return header, [[k, f"{a.accuracy:.3f}", f"{a.low:.3f} to {a.high:.3f}", f"{a.ece:.3f}", f"{a.pairs:,}"] for k, a in found.items()]


def rows_of_policies(found: Mapping[str, Generation]) -> tuple[list[str], list[list[str]]]:
    header = ["policy", PROXY, VADER, JUDGE, "KL", "dist-2", "ppl", "EOS", "length"]

    def row(name: str, g: Generation) -> list[str]:
        rewards = [f"{g.reward[j]:+.2f}" for j in (PROXY, VADER, JUDGE)]
        return [name, *rewards, f"{g.kl:.2f}", f"{g.distinct_2:.2f}", f"{g.perplexity:.0f}", f"{g.eos:.0%}", f"{g.length:.1f}"]

    return header, [row(name, g) for name, g in found.items()]


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    shown = Table(*header, title=title, title_justify="left", title_style="", header_style="dim", box=SIMPLE, pad_edge=False)
    shown.columns[0].no_wrap = True
    for row in rows:
        shown.add_row(*row)
    return shown


def write_report(out: Path, findings: Findings) -> Path:
    """`findings.json`, and the HTML report of all three runs with the tables and the verdicts."""
    plain = {
        "accuracy": {k: asdict(v) for k, v in findings.accuracy.items()},
        "judges": {k: asdict(v) for k, v in findings.judges.items()},
        "policies": {k: _numbers(v) for k, v in findings.policies.items()},
        "verdicts": [asdict(v) for v in findings.verdicts],
        "seconds": findings.seconds,
    }
    (out / "findings.json").write_text(json.dumps(plain, indent=1))
    tables = [
        ("The reward model on held-out sentences", *rows_of_accuracy(findings.accuracy), ACCURACY_NOTE),
        ("The judges on held-out movie sentences", *rows_of_accuracy(findings.judges), "They never train the policy."),
        ("What each policy writes", *rows_of_policies(findings.policies), POLICY_NOTE),
    ]
    runs = [out / name for name in ("leashed", "unleashed", "reward-model")]
    return report.write(runs, out / "report.html", verdicts=[asdict(v) for v in findings.verdicts], tables=tables)


ACCURACY_NOTE = (
    "Trained on movie sentences only. ECE: calibration error. All pairs of held-out sentences whose mean ratings are more than 1 apart; "
    "intervals resample sentences."
)
POLICY_NOTE = (
    f"{SAMPLES} responses each (best of n: {SAMPLES // 4}). KL: nats a response from the start (best of n: the closed form's bound). "
    "dist-2: share of different token pairs. ppl: perplexity under the start. EOS: share that ends by itself. The other judge was fitted "
    "on the three other domains. A reward that is being gamed shows on the right of the table, not on the left."
)


def _numbers(g: Generation) -> dict[str, Any]:
    values = {name: v.tolist() for name, v in g.values.items()}
    plain = {k: getattr(g, k) for k in ("kl", "distinct_2", "perplexity", "eos", "length")}
    return {"reward": dict(g.reward), **plain, "values": values, "samples": [r.content for r in g.rollouts[:8]]}


def conclude(console: Console, findings: Findings, page: Path) -> None:
    """The last lines: which run got better, which one was gamed and how that was seen, and where the report is."""
    console.print(table("What each policy writes", *rows_of_policies(findings.policies)))
    for name in ("start", "leashed", "unleashed"):
        console.print(f"[dim]{name}:[/] {findings.policies[name].rollouts[0].content!r}", highlight=False)
    console.print()
    for v in findings.verdicts:
        colour = {"better": "green", "gamed": "red"}.get(v.verdict, "yellow")
        console.print(f"[bold {colour}]{v.run}: {v.verdict}[/]. {v.why}.", highlight=False)
    console.print(f"\nReport: {page}", highlight=False)
