"""`guerdon audit`: from flags to a reward, its material, a policy and a judge; then the table, the JSON and the page.

Flags are declared without torch; everything that computes is imported when the command runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guerdon.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from guerdon.core.rng import Key
    from guerdon.evaluate.audit import Audit, Finding, Limits, Material
    from guerdon.evaluate.audit.measure import Context
    from guerdon.types import Policy, Prompt, Reward

DESCRIPTION = """Ask a reward thousands of questions: is it right, calibrated, and hard to game?

REWARD is what --reward of `guerdon run` takes: a name, file.py:function, the folder of a reward model, or http://host:port/path.
Exit code 1 when something is broken. docs/audit.md explains every item."""
COLOURS = {"sound": "green", "weak": "yellow", "broken": "red", "not measured": "dim"}


def flags(one: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    one.description = DESCRIPTION
    one.add_argument("reward", metavar="REWARD", help="the reward under audit")
    one.add_argument("--data", metavar="D", help="held-out preferences or rated lists: a file, a folder, a hub name or a named source")
    one.add_argument("--train", metavar="D", help="what the reward was trained on, to see whether it knows it by heart")
    one.add_argument("--shift", metavar="D", action="append", default=[], help="preferences of another distribution; repeat for more")
    one.add_argument("--gap", type=float, default=0.0, metavar="X", help="pairs of lists rated no more than this apart are left out")
    one.add_argument("--policy", metavar="P", help="a policy (tiny, a folder, a hub name) to press against the reward")
    one.add_argument("--judge", metavar="R", help="a reward that stands for what was meant, as REWARD is given")
    one.add_argument("--samples", type=int, default=64, metavar="N", help="samples of each prompt for best of n (default: 64)")
    one.add_argument("--prompts", type=int, default=16, metavar="N", help="prompts for the policy (default: 16)")
    one.add_argument("--learn", type=int, default=0, metavar="STEPS", help="also train the policy against the reward for so many steps")
    one.add_argument("--max-new", type=int, default=28, metavar="N", help="longest response of the policy, in tokens (default: 28)")
    one.add_argument(
        "--log-odds",
        action=argparse.BooleanOptionalAction,
        help="its differences claim to be log-odds (default: of models, and of functions whose attribute log_odds says so)",
    )
    one.add_argument("--pairs", type=int, metavar="N", help="pairs to judge (default: 400)")
    one.add_argument("--budget", type=float, metavar="SECONDS", help="how long the audit may take (default: 1800)")
    one.add_argument("--json", action="store_true", help="print JSON")
    one.add_argument("--out", metavar="DIR", help="write audit.json, audit.html and the plots into this folder")
    one.add_argument("--keep", action="store_true", help="write findings and calibration into the reward model's folder and its card")
    one.add_argument("--seed", type=int, default=0, metavar="N", help="seed of everything random (default: 0)")


def main(args: argparse.Namespace) -> int:
    """Audit, tell, write; 1 when something is broken."""
    from rich.console import Console

    from guerdon.core.rng import Key
    from guerdon.evaluate.audit import audit, keep

    key, limits = Key(args.seed), limits_of(args)
    kept = keep.place(args.reward) if args.keep else None
    if args.learn and not (args.policy and args.judge):
        raise UserError("--learn needs a policy and a judge", hint="for instance --policy tiny --judge vader")
    reward, is_model = reward_of(args.reward)
    material, prompts = gathered(args, limits, key)
    judge = reward_of(args.judge)[0] if args.judge else None
    policy = policy_of(args.policy, args.max_new) if args.policy else None
    err = Console(stderr=True)
    with err.status("asking", spinner="dots") as status:
        result = audit(
            reward,
            material,
            limits=limits,
            key=key,
            policy=policy,
            judge=judge,
            prompts=prompts,
            samples=args.samples,
            log_odds=(is_model or None) if args.log_odds is None else args.log_odds,
            on_finding=lambda finding: status.update(f"{finding.item}: {finding.verdict}"),
            more=lambda ctx: learnt(ctx, args, prompts, key) if args.learn else (),
        )
    if args.json:
        print(json.dumps(result.as_dict(), allow_nan=False))
    else:
        tell(result, Console())
    if args.out:
        said = write(result, Path(args.out))
        print(f"report: {said}", file=sys.stderr if args.json else sys.stdout)
    if kept is not None:
        keep.keep(result, kept, data=args.data or "")
        print(f"kept in: {kept}", file=sys.stderr if args.json else sys.stdout)
    return 1 if result.verdict == "broken" else 0


def limits_of(args: argparse.Namespace) -> Limits:
    """The house limits, in the sizes asked for."""
    import dataclasses

    from guerdon.evaluate.audit import Limits

    given = {name: value for name, value in (("pairs", args.pairs), ("budget_s", args.budget)) if value is not None}
    return dataclasses.replace(Limits(), **given)


# ---------------------------------------------------------------- what the flags name


def reward_of(text: str) -> tuple[Reward, bool]:
    """A reward by what `--reward` takes (a weight is ignored), and whether it is a fitted model."""
    from guerdon.domains import scorer_folder
    from guerdon.rewards.resolve import Spec, load

    reward, fact = load(Spec.parse(text), scorer_folder)
    return reward, fact["kind"] == "model"


def preferences(name: str, key: Key) -> Sequence[Any]:
    """Pairs or ranked lists: lists where the data have them, or single ratings to make them of."""
    from guerdon.data import load

    if name.partition("?")[0].partition(":")[0] == "human-ratings" and "list=" not in name:
        name += ("&" if "?" in name else "?") + "list=16"
    try:
        return load(name, "pairs", key=key).items
    except UserError as error:
        try:
            return load(name, "pools", key=key).items
        except UserError:
            raise error from None


def gathered(args: argparse.Namespace, limits: Limits, key: Key) -> tuple[Material, list[Prompt]]:
    """The material, and the prompts that a policy is asked."""
    from guerdon.evaluate.audit import gather
    from guerdon.types import Prompt

    data = preferences(args.data, key.fold("data")) if args.data else ()
    shifted = {name: preferences(name, key.fold("shift", name)) for name in args.shift}
    train = preferences(args.train, key.fold("train")) if args.train else ()
    material = gather(data, limits, key.fold("material"), shifted=shifted, train=train, gap=args.gap)
    given = [p.better.prompt for p in material.pairs or material.clear]
    distinct = list({repr(p.content): p for p in given}.values())
    # Every prompt is asked `samples` times; where the data have few different ones they are asked again, as others.
    prompts = [Prompt(f"audit/{i}", distinct[i % len(distinct)].content, distinct[i % len(distinct)].meta) for i in range(args.prompts)]
    return material, prompts


def policy_of(name: str, max_new: int) -> Policy:
    """A language model to press."""
    from guerdon.policies.text import TextPolicy

    return TextPolicy.load(name, max_new=max_new)


def learnt(ctx: Context, args: argparse.Namespace, prompts: Sequence[Prompt], key: Key) -> list[Finding]:
    """Over-optimisation by GRPO without a leash, looked at about ten times."""
    import torch

    from guerdon.evaluate.audit import optimise
    from guerdon.papers import grpo
    from guerdon.policies.refs import Frozen
    from guerdon.types import Prompt

    assert ctx.policy is not None and ctx.judge is not None
    looked = [Prompt(f"look/{i}", p.content, p.meta) for i, p in enumerate(p for _ in range(64) for p in prompts)][:128]
    start = Frozen(ctx.policy)
    cfg = grpo.Config(beta=0.0, steps=args.learn, batch=min(16, len(prompts)))
    recipe = grpo.build(cfg, ctx.policy, list(prompts), ctx.subject.reward, key.fold("learn"))  # type: ignore[arg-type]
    with torch.random.fork_rng():
        curve = optimise.by_learning(
            recipe, ctx.policy, start, looked, (ctx.subject.reward, ctx.judge), key.fold("learn"), every=max(1, args.learn // 10)
        )
    return [optimise.finding(ctx, curve)]


# ---------------------------------------------------------------- telling


def tell(result: Audit, console: Console) -> None:
    """The table, the evidence of what is broken or weak, and the verdict."""
    from rich.markup import escape
    from rich.table import Table

    from guerdon.report.audit import measure

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=f"Audit of {escape(result.reward)}", title_justify="left")
    for name in ("item", "verdict", "measure", "what was seen"):
        table.add_column(name, no_wrap=name in ("item", "verdict", "measure"), header_style="bold")
    for f in result.findings:
        colour = COLOURS[f.verdict]
        number = measure(f.number) if f.number is not None else "-"
        table.add_row(f.item, f"[{colour}]{f.verdict}[/]", number, escape(f.why))
    console.print(table)
    for f in [*result.those("broken"), *result.those("weak")]:
        console.print(
            f"\n[bold {COLOURS[f.verdict]}]{escape(f.flaw)}[/] ({escape(f.item)}, {f.verdict}): {escape(f.why)}.", highlight=False
        )
        for row in f.rows[:2]:
            against = f"  against {row.other:.4g} {escape(repr(shortened(row.against)))}" if row.against else ""
            note = f"  ({escape(row.note)})" if row.note else ""
            console.print(f"  {row.score:.4g} {escape(repr(shortened(row.text)))}{against}{note}", highlight=False)
        console.print(f"  what to change: {escape(f.fix)}", highlight=False)
    colour = COLOURS[result.verdict]
    asked = f"{result.facts['responses asked']:,} responses asked in {result.facts['seconds']:.1f} s"
    console.print(f"\n[bold {colour}]{escape(result.summary())}[/]  ({asked})", highlight=False)


def shortened(text: str, width: int = 90) -> str:
    """For one line."""
    return text if len(text) <= width else f"{text[: width // 2]} ... {text[-width // 2 :]}"


def write(result: Audit, folder: Path) -> Path:
    """`audit.json`, `audit.html`, and the curves of over-optimisation as SVG files of their own."""
    from guerdon.report.audit import standalone
    from guerdon.report.audit import write as page

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "audit.json").write_text(json.dumps(result.as_dict(), indent=1, allow_nan=False), encoding="utf-8")
    for f in result.findings:
        if f.item.startswith("over-optimisation"):
            for plot in f.plots:
                (folder / f"{f.item.replace(' ', '-')}.svg").write_text(standalone(plot), encoding="utf-8")
    return page(result, folder / "audit.html")
