"""From settings to a recipe: config, then data, then rewards tried on real rows, and only then models.

`build(cfg, ...)` of a method says by its parameter names what it needs; `guerdon.domains` says where it comes from.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guerdon import domains, monitoring, settings
from guerdon.allocator import keep_memory
from guerdon.catalog import Method, cards, load
from guerdon.config import BUILT_IN, Run, run_of
from guerdon.errors import UserError, WrongKind

if TYPE_CHECKING:
    from guerdon.core.rng import Key
    from guerdon.learn.run import Sink, Summary
    from guerdon.types import Recipe

PYTHON = "python:"  # how the config names an object that was given in Python and can't be written down
TRIED = 8  # rows a reward is tried on
PATHS = ("model", "data", "prompts", "scorer_model", "oracle", "unrelated")  # settings that may name a local file or folder


@dataclass(frozen=True)
class Prepared:
    """A method with its config and data, its rewards tried; no model is loaded yet.

    given: models and rewards handed over in Python, by `build` parameter name. needs: `build`'s parameters, in order.
    rewards: reports of their dry runs. notes: what is worth telling. held: preferences that are not trained on, for the monitor.
    """

    method: Method
    cfg: Any
    needs: tuple[str, ...]
    data: Mapping[str, domains.Data]
    given: Mapping[str, Any]
    rewards: Sequence[Any] = ()
    notes: Sequence[str] = field(default=())
    held: monitoring.Held = monitoring.Held()

    @property
    def seed(self) -> int:
        return self.cfg.seed if hasattr(self.cfg, "seed") else self.cfg.run.seed

    @property
    def key(self) -> Key:
        from guerdon.core.rng import Key

        return Key(self.seed)

    @property
    def config(self) -> dict[str, Any]:
        """What `config.json` holds."""
        name = self.method.name
        return {"paper": absolute(name) if name.endswith(".py") else name, "config": settings.to_dict(self.cfg)}

    @property
    def first(self) -> str:
        """The first item as the model will see it, or as the data set shows it where no model's template is involved."""
        domain, data = domains.domain(self.method.card.domain), next(iter(self.data.values()), None)
        if data is None:
            return ""
        if domain.render is None or not hasattr(self.cfg, "model") or set(domains.MODELS) & set(self.given):
            return data.first
        return domains.target(domain.render)(self.cfg, data.items[0])


# ---------------------------------------------------------------- settings


def configure(name: str, values: Mapping[str, Any], *, file: Path | str | None = None) -> tuple[Method, Any]:
    """The method and its config: defaults, then the file, then `values`. The config also has the `run` group (`config.Run`)."""
    method = load(name)
    made = settings.with_run(method.Config)
    cfg = settings.from_dict(made, settings.read_file(file)) if file is not None else None
    return method, anchored(settings.from_dict(made, values, base=cfg))


def anchored(cfg: Any) -> Any:
    """The config with absolute paths to local files and folders, so that the run can go on from any other folder."""
    values = {name: getattr(cfg, name) for name in PATHS if isinstance(getattr(cfg, name, None), str)}
    found: dict[str, Any] = {name: absolute(value) for name, value in values.items()}
    if isinstance(getattr(cfg, "reward", None), tuple):
        found["reward"] = tuple(absolute(spec) if is_model(spec) or ".py:" in spec else spec for spec in cfg.reward)
    if (held := getattr(getattr(cfg, "monitor", None), "data", None)) is not None:
        found["monitor"] = dataclasses.replace(cfg.monitor, data=absolute(held))
    if run_of(cfg).gold:
        found["run"] = dataclasses.replace(run_of(cfg), gold=tuple(map(absolute, run_of(cfg).gold)))
    if (where := run_of(cfg).ref_cache) not in ("auto", "on", "off"):
        found["run"] = dataclasses.replace(found.get("run", run_of(cfg)), ref_cache=str(Path(where).expanduser().absolute()))
    return dataclasses.replace(cfg, **found)


def absolute(spec: str) -> str:
    """`file.py:function`, `data.jsonl`, `folder=weight` ... with an absolute path where there is such a file or folder."""
    path = re.split(r"[:?(=]", spec, maxsplit=1)[0]
    there = path not in ("", *BUILT_IN) and Path(path).expanduser().exists()
    return f"{Path(path).expanduser().absolute()}{spec[len(path) :]}" if there else spec


# ---------------------------------------------------------------- data and rewards


def prepare(method: Method, cfg: Any, given: Mapping[str, Any] | None = None) -> Prepared:
    """Load the data and try the rewards. given: inputs that are there already, by `build` parameter name."""
    given = dict(given or {})
    needs = inputs(method)
    domain = domains.domain(method.card.domain)
    prepared = Prepared(method, cfg, needs, {}, given)
    for name in ("model", "data", "reward"):
        check_writable(name, getattr(cfg, name, None), prepared)
    domains.check_engine(cfg, method.card.domain, needs, given)
    data: dict[str, domains.Data] = {}
    for name in needs:
        if name in domains.DATA:
            data[name] = given[name] if name in given else fitting(method, partial(domain.load, name, cfg, prepared.key.fold("data")))
            if not len(data[name].items):
                raise UserError(f"{cfg.data}: no {name}", hint="give data with at least one row")
    data, held = monitoring.hold_out(cfg, data, prepared.key.fold("monitor"))  # before transforms: no copy of theirs is trained on
    for name in data:
        data[name] = transformed(prepared, name, data[name])
        getattr(cfg, "check", lambda items: None)(data[name].items)
    prepared = dataclasses.replace(prepared, data=data, held=held, notes=[held.note] if held.note else [])
    return try_rewards(prepared, domain) if "reward" in needs else prepared


def fitting(method: Method, load: Callable[[], domains.Data]) -> domains.Data:
    """What `load` gives; data of another kind than the method learns from is refused with the names of methods that learn from it."""
    try:
        return load()
    except WrongKind as error:
        others = [c for c in cards() if error.found in c.uses and c.domain == method.card.domain]
        if not others:
            raise
        kin = method.card.family.partition(":")[0]
        own_first = [c.name for c in sorted(others, key=lambda c: (not c.family.startswith(kin), c.module != c.name, c.name))]
        what, _, hint = str(error).partition("\nhint: ")
        raise UserError(f"{what}\n{method.name} does not learn from such data; {', '.join(own_first[:4])} do", hint=hint) from None


def transformed(prepared: Prepared, name: str, data: domains.Data) -> domains.Data:
    """Preference data after the run's transforms; what they did is shown and goes to the manifest."""
    specs = run_of(prepared.cfg).transforms
    if not specs:
        return data
    from guerdon.data.transforms import apply

    if name not in ("pairs", "pools"):
        raise UserError(f"{prepared.method.name} learns from {name}, and transforms change preferences", hint="leave --transforms out")
    items, notes = apply(data.items, specs, key=prepared.key.fold("transforms"))
    shown, cut, first = data.shown.partition("\nfirst:")
    said = "\n".join([shown, *(f"transform: {note}" for note in notes)]) + cut + first
    return dataclasses.replace(data, items=items, facts={**data.facts, "transforms": notes}, shown=said)


def inputs(method: Method) -> tuple[str, ...]:
    """`build`'s parameters after the config; those with a default that nothing provides are left to it."""
    parameters = list(inspect.signature(method.build).parameters.values())[1:]
    known = {*domains.domain(method.card.domain).loaders, "reward", "key"}
    return tuple(p.name for p in parameters if p.name in known or p.default is p.empty)


def check_writable(name: str, value: Any, prepared: Prepared) -> None:
    """A config that names a Python object needs that object again."""
    values = value if isinstance(value, (tuple, list)) else [value]
    stands_for = {"model": domains.MODELS, "data": domains.DATA, "reward": ("reward",)}[name]
    if any(isinstance(v, str) and v.startswith(PYTHON) for v in values) and not set(stands_for) & set(prepared.given):
        raise UserError(
            f"this run's {name} was a Python object ({', '.join(map(str, values))})",
            hint="go on from Python: guerdon.train(...) with the same arguments and out=",
        )


def try_rewards(prepared: Prepared, domain: domains.Domain) -> Prepared:
    """Every reward that is no model scores a few real rows; wrong ones stop here, before anything large is loaded."""
    from guerdon.rewards.guard import dry_run
    from guerdon.rewards.resolve import resolve_rewards

    specs = reward_specs(prepared)
    cheap = [spec for spec in specs if not is_model(spec)]
    resolved = resolve_rewards(cheap) if cheap else None
    notes = [f"{spec}: a reward model, tried when it is loaded" for spec in specs if is_model(spec)]
    reports: list[Any] = []
    items = next(
        (data.items for data in prepared.data.values()), next((prepared.given[n] for n in domains.DATA if n in prepared.given), [])
    )
    if resolved is not None and domain.rows is not None and len(items):
        rows = domains.target(domain.rows)(items[:TRIED])
        reports.append(dry_run(resolved.reward, rows))
    elif resolved is not None:
        notes.append("rewards are tried when the policy has acted: there is nothing to score before")
    return dataclasses.replace(prepared, rewards=reports, notes=[*prepared.notes, *notes])


def reward_specs(prepared: Prepared) -> list[Any]:
    if "reward" in prepared.given:
        value = prepared.given["reward"]
        return list(value) if isinstance(value, (list, tuple)) else [value]
    specs = list(getattr(prepared.cfg, "reward", ()))
    if not specs:
        raise UserError(f"{prepared.method.name} needs a reward", hint="--reward NAME, or --reward path.py:function")
    return specs


def is_model(spec: Any) -> bool:
    """Whether a reward spec is the folder of a reward model; one without a model in it is not what a plain name means."""
    from guerdon.rewards.resolve import Spec

    if not isinstance(spec, str) or ":" in spec:
        return False
    what = Spec.parse(spec).what
    folder = Path(what).expanduser()
    return folder.is_dir() and (not what.isidentifier() or any(folder.glob("*config.json")))


# ---------------------------------------------------------------- models and the recipe


def recipe(prepared: Prepared) -> Recipe:
    """Load the models, put the method together, and collect the facts for the manifest."""
    from guerdon.rewards.curriculum import coached

    method, cfg, key = prepared.method, prepared.cfg, prepared.key
    domain = domains.domain(method.card.domain)
    facts: dict[str, Any] = {"data": {name: data.facts for name, data in prepared.data.items()}}
    if prepared.data:
        facts["first"] = prepared.first
    filled: dict[str, Any] = {}
    for name in prepared.needs:
        if name == "key":
            filled[name] = key
        elif name == "reward":
            filled[name], facts["rewards"] = rewards(prepared)
        elif name in prepared.data:
            filled[name] = prepared.data[name].items
        else:
            filled[name] = prepared.given[name] if name in prepared.given else domain.load(name, cfg, key.fold(name))
            facts.setdefault("models", {})[name] = identity(cfg, filled[name])
    filled, live = coached(filled)
    made = method.build(cfg, **filled)
    steps = cfg.run.steps if not any(f.name == "steps" for f in dataclasses.fields(cfg)) and cfg.run.steps else made.steps
    made = dataclasses.replace(made, steps=steps, state={**made.state, **live}, facts={**facts, **made.facts})
    return monitoring.watched(cfg, prepared.held, made, filled.get("policy"), key.fold("monitor"))


def rewards(prepared: Prepared) -> tuple[Any, list[Any]]:
    from guerdon.rewards.resolve import resolve_rewards

    resolved = resolve_rewards(reward_specs(prepared), load_scorer=domains.scorer_folder)
    names = run_of(prepared.cfg).gold
    if not names:
        return resolved.reward, list(resolved.facts)
    from guerdon.rewards.gold import Watched

    judges: Any = resolve_rewards(names, load_scorer=domains.scorer_folder, max_abstained_share=1.0)
    facts = [*resolved.facts, *({**fact, "gold": True} for fact in judges.facts)]
    return Watched(resolved.reward, {part.name: part.reward for part in judges.reward.reward.parts}), facts


def identity(cfg: Any, model: Any) -> dict[str, str]:
    """Which weights a run started from: the name, and a digest of every tensor."""
    from torch import nn

    from guerdon.policies.weights import digest

    name, module = {"name": str(getattr(cfg, "model", ""))}, model if isinstance(model, nn.Module) else getattr(model, "model", None)
    return {**name, "digest": digest(module.state_dict().items())} if isinstance(module, nn.Module) else name


# ---------------------------------------------------------------- running


def start(prepared: Prepared, out: Path, *, sinks: Sequence[Sink] = (), profile: bool = False) -> Summary:
    """Load the models and run, or go on with, the run in `out`."""
    from guerdon.learn.run import run
    from guerdon.learn.trackers import open_trackers

    group: Run = prepared.cfg.run
    if group.keep_memory:
        keep_memory()
    trackers = open_trackers(group.trackers, out, name=out.name, config=prepared.config)
    made = recipe(prepared)
    for sink in sinks:
        getattr(sink, "begin", lambda steps: None)(made.steps)
    options = {"seed": prepared.seed, "save_every": group.save_every, "profile": profile}
    return run(made, out, config=prepared.config, sinks=[*sinks, *trackers], **options)


def reopen(folder: Path | str) -> Prepared:
    """The run in a folder, ready to go on."""
    import json

    path = Path(folder) / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} holds no run (no config.json)", hint="give the --out of a run")
    saved = settings.read_file(path)
    paper = json.loads(path.read_text(encoding="utf-8")).get("paper")
    if not isinstance(paper, str):
        raise UserError(f"{path} does not say which method it is", hint='it should hold {"paper": NAME, "config": {...}}')
    return prepare(*configure(paper, saved))


def train(
    method: str,
    *,
    model: Any = None,
    data: Any = None,
    reward: Any = None,
    out: Path | str | None = None,
    config: Path | str | None = None,
    progress: bool = True,
    profile: bool = False,
    **fields: Any,
) -> Summary:
    """Train by a method, in one call: `guerdon.train("grpo", model="tiny", data="human-ratings:movie", reward=my_reward, steps=20)`.

    method: a name from `guerdon papers`, or a file. model: a name or folder, or a policy. data: a name or file, or rows (a list of
    mappings). reward: a name, a function, or a list of them. out: the run folder (default: a new one under `runs/`); a folder that
    holds the same run goes on where it stopped. config: a YAML or JSON file. profile: time the parts of every step into
    `summary.profile` and `profile.json`, and print the table (not with progress=False). fields: any setting (`lr=1e-4`, or nested, as in
    `optim={"lr": 1e-4}`). Returns where the weights are (`summary.final`) and the last metrics.
    Raises UserError for wrong input, RunStopped when training must not go on.
    """
    values, given = dict(fields), {}
    for name, value in (("model", model), ("data", data), ("reward", reward)):
        if value is not None:
            values[name], more = written(name, value)
            given |= more
    found, cfg = configure(method, values, file=config)
    if "data" in given:
        rows = given.pop("data")
        kinds = [kind for kind in inputs(found) if kind in domains.DATA and not getattr(cfg, kind, None)]
        given |= {kind: fitting(found, partial(domains.given_rows, rows, kind)) for kind in kinds}
    if "model" in given:
        given[next(name for name in domains.MODELS if name in inputs(found))] = given.pop("model")
    prepared = prepare(found, cfg, given)
    folder = Path(out) if out is not None else new_folder(prepared.method.name)
    from guerdon.progress import bar, words

    with bar(prepared, shown=progress) as sinks:
        summary = start(prepared, folder, sinks=sinks, profile=profile)
    if progress:
        for line in ([summary.profile.table()] if summary.profile is not None else []) + words(summary):
            print(line, file=sys.stderr)
    return summary


def written(name: str, value: Any) -> tuple[Any, dict[str, Any]]:
    """How a config names a value given in Python, and the object itself where a name is not enough."""
    if isinstance(value, (str, Path)):
        return str(value), {}
    if name == "reward":
        specs = list(value) if isinstance(value, (list, tuple)) else [value]
        if all(isinstance(spec, str) for spec in specs):
            return specs, {}
        return [spec if isinstance(spec, str) else PYTHON + getattr(spec, "__name__", type(spec).__name__) for spec in specs], {name: specs}
    if name == "data":
        return f"{PYTHON}{len(value)} rows", {name: list(value)}
    return PYTHON + type(value).__name__, {name: value}


def new_folder(name: str) -> Path:
    """`runs/NAME`, or the first of `runs/NAME-2`, `runs/NAME-3` ... that is not there yet."""
    stem = Path(name).stem
    number = 1
    while (folder := Path("runs") / (stem if number == 1 else f"{stem}-{number}")).exists():
        number += 1
    return folder
