"""The command line. Help and listings import neither torch nor a method; a command imports what it runs."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import guerdon
from guerdon import auditing
from guerdon.errors import RunStopped, UserError, nearest

if TYPE_CHECKING:
    from guerdon.evaluate.claim import SeedResult, Verdict

PROFILE = "print where the time of a step went, and write it to DIR/profile.json (the run stays the same run, with or without it)"
EPILOG = "Wrong input ends with exit code 2 and a hint. `guerdon COMMAND --help` explains each command."


class Parser(argparse.ArgumentParser):
    """argparse whose errors are UserErrors, so that all wrong input is reported alike."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UserError(message, hint=f"{self.prog} --help")


def parser() -> tuple[Parser, dict[str, Parser]]:
    """The top parser, and those of the commands by name."""
    top = Parser(prog="guerdon", description="Reward-driven post-training: from any signal of quality to a better model.", epilog=EPILOG)
    top.add_argument("--version", action="version", version=f"guerdon {guerdon.__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    made: dict[str, Parser] = {}

    def command(name: str, help: str, description: str = "") -> Parser:
        made[name] = commands.add_parser(name, help=help, description=description or help[0].upper() + help[1:] + ".")
        return made[name]

    one = command("quickstart", "from human ratings to a better model, and one that was gamed, in a few minutes")
    one.add_argument("--out", default="runs/quickstart", metavar="DIR", help="where runs and report go (default: runs/quickstart)")
    one.add_argument("--seed", type=int, default=0, metavar="N", help="seed of everything random (default: 0)")
    one = command("papers", "list the methods")
    one.add_argument("--json", action="store_true", help="print JSON")
    one = command("show", "one method: its card, its settings, how to run it full-size")
    one.add_argument("name", metavar="NAME")
    one.add_argument("--json", action="store_true", help="print JSON")
    for name, help in (("run", "train by a method"), ("check", "try settings, data and rewards without training")):
        one = command(name, help, f"{help[0].upper()}{help[1:]}.\n`guerdon {name} NAME --help` lists the settings of that method.")
        one.usage = f"guerdon {name} NAME [--model M] [--data D] [--reward R ...] [--out DIR] [--seed S] [--steps N] [--SETTING VALUE ...]"
        one.add_argument("name", metavar="NAME", help="a method (see `guerdon papers`), or the path of a file with one")
        one.add_argument("--out", metavar="DIR", help="the run folder (default: a new one under runs/)")
        one.add_argument("--config", metavar="FILE", help="settings from a YAML or JSON file, or a run's config.json; flags win over it")
        if name == "run":
            one.add_argument("--profile", action="store_true", help=PROFILE)
    one = command("resume", "go on with a run that was stopped or killed")
    one.add_argument("dir", metavar="DIR")
    one.add_argument("--profile", action="store_true", help=PROFILE)
    one = command("reproduce", "test the claim of a method against a baseline, with several seeds")
    one.description = "Run the claim of a method at small scale, against its baseline, with several seeds. Exit code 0 only when it holds."
    one.add_argument("name", metavar="NAME")
    one.add_argument("--seeds", metavar="S,S,...", help="seeds (default: the claim's own)")
    one.add_argument("--json", action="store_true", help="print JSON")
    one = command("convert", "write preference data in another layout, changed by transforms")
    one.add_argument("data", metavar="DATA", help="a file, a folder, a hub name or a named source, as for --data")
    one.add_argument("out", metavar="OUT", help="the JSONL file to write")
    one.add_argument("--lists", action="store_true", help="keep ranked lists of responses (default: pairs)")
    one.add_argument("--layout", metavar="NAME", help="columns to write (default: prompt, chosen, rejected; of lists: responses, scores)")
    one.add_argument("--transforms", default="", metavar="T,T,...", help="changes, in this order (see `guerdon run dpo --help`)")
    one.add_argument("--seed", type=int, default=0, metavar="N", help="seed of everything random (default: 0)")
    one = command("report", "write one HTML file about one or more runs")
    one.add_argument("dirs", nargs="+", metavar="DIR", help="run folders, or folders of runs")
    one.add_argument("--out", metavar="FILE", help="the HTML file (default: report.html in the first folder)")
    auditing.flags(command("audit", "ask a reward whether it is right, calibrated, and hard to game"))
    one = command("doctor", "name what ails a run, with evidence and what to change: exit code 0 for healthy runs, 1 for ill ones")
    one.add_argument("dirs", nargs="+", metavar="DIR", help="run folders (also of runs that go on), or folders of runs")
    one.add_argument("--json", action="store_true", help="print JSON")
    return top, made


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 stopped or not held, 2 wrong input, 130 interrupted."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
        return dispatch(list(sys.argv[1:] if argv is None else argv))


def dispatch(argv: list[str]) -> int:
    """The command named first, with every expected failure turned into a message and an exit code."""
    top, commands = parser()
    try:
        if not argv:
            top.print_help()
            return 2
        if argv[0] in ("run", "check") and len(argv) > 1 and not argv[1].startswith("-"):
            return train_or_check(commands[argv[0]], argv[0], argv[1:])
        if argv[0] not in commands and not argv[0].startswith("-"):
            raise UserError(f"unknown command {argv[0]!r}", hint=nearest(argv[0], commands))
        args = top.parse_args(argv)
        return COMMANDS[args.command](args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RunStopped as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `guerdon papers | head`
        sys.stderr.close()
        return 0


# ---------------------------------------------------------------- looking


def papers(args: argparse.Namespace) -> int:
    from guerdon.catalog import cards

    found = cards()
    if args.json:
        print(json.dumps([card_dict(card) for card in found], indent=1))
        return 0
    from rich.console import Console
    from rich.table import Table

    console = Console()
    width = max(len(card.name) for card in found)
    for family in sorted({card.family for card in found}):
        table = Table(
            box=None, pad_edge=False, padding=(0, 2, 0, 0), title=family, title_justify="left", title_style="bold", show_header=False
        )
        table.add_column(no_wrap=True, min_width=width)
        table.add_column(no_wrap=True, min_width=10)
        table.add_column()
        for card in (card for card in found if card.family == family):
            table.add_row(card.name, card.arxiv, card.idea)
        console.print(table)
    console.print("\nguerdon show NAME: title, claim and settings. guerdon run NAME: train.", highlight=False)
    return 0


def card_dict(card: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return {name: value for name, value in asdict(card).items() if name != "doc"}


def show(args: argparse.Namespace) -> int:
    from guerdon import settings
    from guerdon.catalog import load

    method = load(args.name)
    made = settings.with_run(method.Config)
    card, rows = method.card, settings.describe(made)
    short = {path: name for name, path in settings.short_names(settings.leaves(made)).items()}
    if args.json:
        keys = ("setting", "type", "default", "meaning")
        print(json.dumps({**card_dict(card), "doc": card.doc, "config": [dict(zip(keys, row, strict=True)) for row in rows]}, indent=1))
        return 0
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    console.print(f"[bold]{escape(card.name)}[/bold]  {escape(card.title)}, {card.year}", highlight=False)
    console.print(f"{card.family}, arXiv {card.arxiv}: https://arxiv.org/abs/{card.arxiv}\n", highlight=False)
    console.print(card.doc + "\n", markup=False, highlight=False, soft_wrap=True)
    claim = f"[bold]Claim[/bold]: {escape(card.claim)}\n" if card.claim else ""
    console.print(f"{claim}[bold]Uses[/bold]: {', '.join(card.uses)}\n", highlight=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title="Settings", title_justify="left", title_style="bold")
    for name in ("setting", "default", "meaning, \\[unit], choices"):
        table.add_column(name, no_wrap=name != "meaning, \\[unit], choices", header_style="bold")
    for name, kind, default, meaning in rows:
        choices = f" ({kind})" if "|" in kind else ""
        table.add_row(escape(flag(short.get(name, name))), escape(default), escape(meaning + choices))
    console.print(table)
    console.print(f"\n[bold]Here[/bold]: guerdon run {escape(args.name)}", highlight=False, soft_wrap=True)
    if card.full_size:
        console.print(f"[bold]Full size[/bold]: {escape(card.full_size)}", highlight=False, soft_wrap=True)
    return 0


def flag(path: str) -> str:
    return "--" + path.replace("_", "-")


# ---------------------------------------------------------------- training


def train_or_check(base: Parser, command: str, argv: Sequence[str]) -> int:
    """`run` and `check`: the flags are those of the method that is named."""
    from guerdon import assemble, settings
    from guerdon.catalog import load

    method = load(argv[0])
    found = settings.leaves(settings.with_run(method.Config))
    add_flags(base, found)
    args, unknown = base.parse_known_args([dashes(token) for token in argv])
    if unknown:
        known = {o.removeprefix("--") for action in base._actions for o in action.option_strings}
        raise UserError(f"unknown flag {unknown[0]!r} of {method.name}", hint=nearest(unknown[0].lstrip("-").partition("=")[0], known))
    paths = {leaf.path for leaf in found}
    values = {path: value for path, value in vars(args).items() if path in paths}
    method, cfg = assemble.configure(args.name, values, file=args.config)
    prepared = assemble.prepare(method, cfg)
    if command == "check":
        return tell(prepared)
    return train(prepared, Path(args.out) if args.out else assemble.new_folder(method.name), profile=args.profile)


def dashes(token: str) -> str:
    """`--max_new=4` as `--max-new=4`; values keep their underscores."""
    name, equals, value = token.partition("=")
    return name.replace("_", "-") + equals + value if token.startswith("--") else token


def add_flags(base: Parser, found: Sequence[Any]) -> None:
    """A flag for every setting, by its dotted path and, where that is clear, by its last part."""
    from guerdon import settings

    short = {path: name for name, path in settings.short_names(found).items()}
    groups: dict[str, Any] = {}
    for leaf in found:
        title = leaf.path.rpartition(".")[0]
        group = groups.setdefault(title, base.add_argument_group(title or "settings"))
        names = dict.fromkeys(flag(name) for name in (short.get(leaf.path) or leaf.path, leaf.path) if name not in ("out", "config"))
        help = f"{settings.with_unit(leaf)} (default: {settings.show(leaf.default)})".strip().replace("%", "%%")
        options: dict[str, Any] = {"dest": leaf.path, "default": argparse.SUPPRESS, "help": help}
        if leaf.type is bool:
            group.add_argument(*names, action=argparse.BooleanOptionalAction, **options)
        elif leaf.whole:
            group.add_argument(*names, action="append", metavar=leaf.name.upper(), **options)
        else:
            group.add_argument(*names, metavar=metavar(leaf), **options)


def metavar(leaf: Any) -> str:
    import typing

    for option in typing.get_args(leaf.type) or (leaf.type,):
        if option in (int, float):
            return "N" if option is int else "X"
    choices = typing.get_args(leaf.type)
    return "{" + ",".join(map(str, choices)) + "}" if typing.get_origin(leaf.type) is typing.Literal else leaf.name.upper()


def tell(prepared: Any) -> int:
    """What a run would be."""
    from rich.console import Console

    from guerdon import settings
    from guerdon.arithmetic import arithmetic
    from guerdon.progress import introduce

    console = Console()
    introduce(prepared, None, console)
    console.print("[bold]settings[/bold] (* changed from the default)")
    usual = {leaf.path: leaf.default for leaf in settings.leaves(type(prepared.cfg))}
    for leaf in settings.leaves(type(prepared.cfg), base=prepared.cfg):
        mark = " " if leaf.default == usual[leaf.path] else "*"
        console.print(f"{mark} {leaf.path}: {settings.show(leaf.default)}", markup=False, highlight=False, soft_wrap=True)
    kind, data = next(iter(prepared.data.items()), ("items", None))
    console.print("[bold]arithmetic[/bold]")
    for name, value in arithmetic(prepared.cfg, kind, len(data.items) if data else 0):
        console.print(f"  {name}: {value}", markup=False, highlight=False)
    console.print(f"\nall in order, nothing trained; to train: guerdon run {prepared.method.name} with the same flags", highlight=False)
    return 0


def train(prepared: Any, out: Path, *, profile: bool = False) -> int:
    """Run, or go on with, a run in `out`, and say what came of it."""
    from rich.console import Console

    from guerdon.assemble import start
    from guerdon.evaluate.tables import TABLE
    from guerdon.progress import bar, introduce, outcome

    introduce(prepared, out, Console(file=sys.stderr))
    try:
        with bar(prepared) as sinks:
            summary = start(prepared, out, sinks=sinks, profile=profile)
    except KeyboardInterrupt:
        print(f"\ninterrupted; go on with: guerdon resume {out}", file=sys.stderr)
        return 130
    if summary.profile is not None and summary.profile.steps:
        print(f"\n{summary.profile.table()}\n")
    if (page := summary.final / TABLE).is_file():
        print(f"\n{page.read_text(encoding='utf-8')}")
    print(f"{outcome(summary)}\nfinal weights: {summary.final}\nlook at it: guerdon report {out}")
    return 0


def resume(args: argparse.Namespace) -> int:
    from guerdon.assemble import reopen

    return train(reopen(args.dir), Path(args.dir), profile=args.profile)


def quickstart(args: argparse.Namespace) -> int:
    from guerdon.quickstart import main as start

    start(Path(args.out), seed=args.seed)
    return 0


# ---------------------------------------------------------------- judging


def reproduce(args: argparse.Namespace) -> int:
    from rich.console import Console

    from guerdon import catalog
    from guerdon.evaluate import claim

    module = catalog.load_claim(args.name)
    seeds = whole_numbers(args.seeds) if args.seeds else list(module.CLAIM.seeds)
    console = Console(stderr=args.json)
    said = paper_claim(args.name)
    if not args.json:
        announce(args.name, module.CLAIM, said, seeds, console)

    def on_seed(result: SeedResult) -> None:
        if not args.json:
            notes = "".join(f", {name} {value:.4g}" for name, value in result.notes.items())
            console.print(
                f"  seed {result.seed}: baseline {result.baseline:.4g}, method {result.method:.4g} "
                f"({result.method - result.baseline:+.4g} over {result.items} items{notes}; {result.seconds:.1f} s)",
                highlight=False,
                soft_wrap=True,
            )

    with console.status("running", spinner="dots"):
        verdict = claim.reproduce(args.name, seeds, on_seed=on_seed)
    if args.json:
        print(json.dumps({**verdict.as_dict(), "paper_claim": said}))
    else:
        conclude(verdict, console)
    return 0 if verdict.holds else 1


def paper_claim(name: str) -> str:
    """What the method's card says is shown; nothing for a claim without a method of its name."""
    from guerdon import catalog

    try:
        return catalog.card(name).claim
    except UserError:
        return ""


def whole_numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UserError(f"--seeds {text!r}, expected whole numbers separated by commas", hint="--seeds 0,1,2") from None


def announce(name: str, claim: Any, said: str, seeds: Sequence[int], console: Any) -> None:
    from rich.markup import escape

    lines = [("claim", said), ("setting", claim.setting), ("baseline", claim.baseline), ("method", claim.method)]
    wanted = f"{'higher' if claim.direction == 'up' else 'lower'} by at least {claim.margin:g}"
    lines += [("metric", f"{claim.metric}, {wanted}"), ("seeds", ", ".join(map(str, seeds)))]
    console.print(f"[bold]{escape(name)}[/bold]", highlight=False)
    for title, text in lines:
        if text:
            console.print(f"  {title}: {text}", markup=False, highlight=False, soft_wrap=True)


def conclude(verdict: Verdict, console: Any) -> None:
    from guerdon.evaluate.claim import INTERVAL, TEST

    ends = f"from {verdict.low:+.4g} to {verdict.high:+.4g}"
    console.print(f"  difference: {verdict.difference:+.4g}, {ends} ({INTERVAL})", highlight=False, soft_wrap=True)
    console.print(f"  p-value: {verdict.p_value:.2g} ({TEST})", highlight=False, soft_wrap=True)
    console.print(f"  holds: [bold]{'yes' if verdict.holds else 'no'}[/bold] ({verdict.seconds:.1f} s)", highlight=False)


def convert(args: argparse.Namespace) -> int:
    """The keys are those of a run with this seed, so that a run sees the same transformed rows."""
    from guerdon.core.rng import Key
    from guerdon.data import load, write_jsonl
    from guerdon.data.transforms import apply

    key = Key(args.seed)
    loaded = load(args.data, "pools" if args.lists else "pairs", key=key.fold("data"))
    specs = [spec.strip() for spec in args.transforms.split(",") if spec.strip()]
    items, notes = apply(loaded.items, specs, key=key.fold("transforms"))
    count = write_jsonl(args.out, items, layout=args.layout)
    print("\n".join([str(loaded.detected).partition("\nfirst:")[0], *notes, f"{count} lines: {args.out}"]))
    return 0


def report(args: argparse.Namespace) -> int:
    from guerdon.report import write

    path = write(args.dirs, args.out or Path(args.dirs[0]) / "report.html")
    print(f"report: {path}")
    return 0


def doctor(args: argparse.Namespace) -> int:
    from guerdon.evaluate.doctor.show import tell

    return tell(args.dirs, as_json=args.json)


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "quickstart": quickstart,
    "papers": papers,
    "show": show,
    "run": lambda args: train_or_check(parser()[1]["run"], "run", [args.name]),
    "check": lambda args: train_or_check(parser()[1]["check"], "check", [args.name]),
    "resume": resume,
    "reproduce": reproduce,
    "convert": convert,
    "report": report,
    "audit": auditing.main,
    "doctor": doctor,
}
