"""Settings: a config dataclass is the single source of flags, files and documentation.

The same dataclass is filled from flags (`--optim.lr 1e-4`, or `--lr 1e-4` where only one field has that name), from a YAML or JSON file,
and from keyword arguments; an unknown key is an error that names the nearest one. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from guerdon.config import Run, validate
from guerdon.errors import UserError, nearest

C = TypeVar("C")

# What a field of this name means in every method, for those that say nothing themselves: (help, unit).
COMMON: Mapping[str, tuple[str, str]] = {
    "model": ("model to train: `tiny` (built in), a local folder or a hub name", ""),
    "data": ("data: a named source, a file (JSONL, CSV, Parquet), a folder or a hub name", ""),
    "reward": ("reward: a name or `path.py:function`, optionally `=weight`; repeat the flag to add several", ""),
    "steps": ("updates to make", "steps"),
    "seed": ("seed of everything random", ""),
    "optim": ("optimizer and schedule", ""),
    "sampling": ("how responses are drawn", ""),
    "lora": ("low-rank adapters", ""),
    "run": ("logging and checkpoints", ""),
    "monitor": ("what is measured on held-out preferences", ""),
    "stability": ("rollouts of another distribution than the one that learns, and what keeps the entropy up", ""),
    "beta": ("strength of the leash to the reference", ""),
}
WHOLE = {"reward", "stop"}  # values of these tuples may hold commas and line breaks, so a flag adds one item and is repeated for more


# ---------------------------------------------------------------- reading a dataclass


@dataclass(frozen=True)
class Leaf:
    """One settable value: `path` is dotted (`optim.lr`), `default` is MISSING when a value must be given."""

    path: str
    type: Any
    default: Any
    help: str
    unit: str

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def whole(self) -> bool:
        """Commas belong to the values of this tuple."""
        return self.name in WHOLE


def leaves(cls: type, prefix: str = "", base: Any = None) -> list[Leaf]:
    """All settable values of a dataclass: its own in order, then those of its groups. base: an instance that supplies the defaults."""
    found: list[Leaf] = []
    grouped: list[Leaf] = []
    hints, hidden = typing.get_type_hints(cls), shadowed(cls)
    for f in fields(cls):
        default = getattr(base, f.name) if base is not None else default_of(f)
        group = group_of(hints[f.name])
        if group is not None:
            inner = leaves(group, f"{prefix}{f.name}.", None if default is MISSING else default)
            grouped += [leaf for leaf in inner if leaf.path not in hidden]
            continue
        common, meta = COMMON.get(f.name, ("", "")), f.metadata
        found.append(Leaf(prefix + f.name, hints[f.name], default, meta.get("help") or common[0], meta.get("unit") or common[1]))
    return found + grouped


def with_run(cls: type) -> type:
    """The dataclass with a `run` group (`config.Run`) for what every run has; itself when it brings its own."""
    if any(f.name == "run" for f in fields(cls)):
        return cls
    made = dataclasses.make_dataclass(
        cls.__name__, [("run", Run, dataclasses.field(default=Run(), kw_only=True))], bases=(cls,), frozen=True
    )
    made.__module__, made.__doc__ = cls.__module__, cls.__doc__
    return made


def shadowed(cls: type) -> set[str]:
    """Settings of the `run` group that the method has itself (`seed`, `steps`): there must be one place for each."""
    return {f"run.{f.name}" for f in fields(cls)} if any(f.name == "run" for f in fields(cls)) else set()


def default_of(f: dataclasses.Field[Any]) -> Any:
    """A field's default; MISSING when it has none."""
    return f.default_factory() if f.default_factory is not MISSING else f.default


def group_of(kind: Any) -> type | None:
    """The dataclass inside `Group` or `Group | None`; None for everything else."""
    for option in options(kind):
        if isinstance(option, type) and is_dataclass(option):
            return option
    return None


def options(kind: Any) -> tuple[Any, ...]:
    """The members of a union; a type that is none stands alone."""
    return typing.get_args(kind) if typing.get_origin(kind) in (Union, types.UnionType) else (kind,)


GROUPS = ("optim", "sampling", "lora", "run")  # what a bare `--lr` or `--rank` means when a second group has the name too


def short_names(found: Iterable[Leaf]) -> dict[str, str]:
    """Last part of a path -> the path it means: the top-level field of that name, else one in a shared group, else the only one."""
    by_name: dict[str, list[str]] = {}
    for leaf in found:
        by_name.setdefault(leaf.name, []).append(leaf.path)
    short = {}
    for name, paths in by_name.items():
        preferred = [name, *(f"{group}.{name}" for group in GROUPS)]
        path = next((path for path in preferred if path in paths), paths[0] if len(paths) == 1 else None)
        if path is not None:
            short[name] = path
    return short


# ---------------------------------------------------------------- filling a dataclass


def from_dict(cls: type[C], data: Mapping[str, Any], *, base: C | None = None) -> C:
    """The dataclass filled from a mapping: nested (`{"optim": {"lr": ...}}`), dotted (`{"optim.lr": ...}`) or short (`{"lr": ...}`).

    base: supplies what `data` leaves out (default: the dataclass's own defaults). Values are converted to the field's type where that
    loses nothing (YAML reads `1e-4` as text). Raises UserError for an unknown key, a value of the wrong type, one out of range.
    """
    found = leaves(cls, base=base)
    cfg = fill(cls, nest(found, data), base, "")
    validate(cfg)
    return cfg


def nest(found: list[Leaf], data: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted and short keys written out as nested mappings."""
    paths = {leaf.path for leaf in found}
    groups = {path[:i] for path in paths for i, c in enumerate(path) if c == "."}
    short = short_names(found)
    nested: dict[str, Any] = {}
    for given, value in data.items():
        key = str(given).replace("-", "_")
        path = key if key in paths or key in groups else short.get(key)
        if path is None:
            raise UserError(f"unknown setting {str(given)!r}", hint=nearest(key, paths | set(short)))
        if path in groups and isinstance(value, Mapping):
            inner = [dataclasses.replace(leaf, path=leaf.path[len(path) + 1 :]) for leaf in found if leaf.path.startswith(path + ".")]
            try:
                value = nest(inner, value)
            except UserError as error:
                raise UserError(str(error).replace("unknown setting '", f"unknown setting '{path}.", 1)) from None
        node = nested
        *parents, last = path.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        if isinstance(value, Mapping) and isinstance(node.get(last), dict):
            node[last].update(value)
        else:
            node[last] = value
    return nested


def fill(cls: type[C], data: Mapping[str, Any], base: C | None, at: str) -> C:
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for f in fields(typing.cast(Any, cls)):
        default = getattr(base, f.name) if base is not None else default_of(f)
        path = at + f.name
        group = group_of(hints[f.name])
        if f.name not in data:
            if default is MISSING:
                raise UserError(f"{path} has no default", hint=f"give it: --{path} VALUE ({spell(hints[f.name])})")
            values[f.name] = default
        elif group is not None and isinstance(data[f.name], Mapping):
            values[f.name] = fill(group, data[f.name], None if default is MISSING else default, path + ".")
        else:
            values[f.name] = coerce(items_of(data[f.name], f.name), hints[f.name], path)
    try:
        return cls(**values)
    except UserError as error:
        raise UserError(f"{at}{error}") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{at or 'config: '}{error}") from None


def coerce(value: Any, kind: Any, path: str) -> Any:
    """`value` as `kind`, or a UserError that names both. Text is read as a flag would be: `none`, `true`, `1e-4`, `a,b`."""
    for option in options(kind):
        try:
            return convert(value, option)
        except (ValueError, TypeError):
            continue
    hint = f"--{path} takes {spell(kind)}"
    if typing.get_origin(kind) is Literal:
        hint = nearest(str(value), map(str, typing.get_args(kind)))
    if isinstance(value, bool):
        hint += "; in YAML, on, off, yes and no are true and false: quote the word"
    raise UserError(f"{path}: got {value!r}, expected {spell(kind)}", hint=hint)


def convert(value: Any, kind: Any) -> Any:
    if kind is Any:
        return value
    if kind is type(None):
        if value is None or (isinstance(value, str) and value.lower() in ("none", "null")):
            return None
        raise ValueError
    origin = typing.get_origin(kind)
    if origin is Literal:
        for choice in typing.get_args(kind):
            if value == choice or (isinstance(value, str) and not isinstance(choice, str) and value == str(choice)):
                return choice
        raise ValueError
    if origin in (tuple, list):
        return convert_many(value, kind)
    if kind is bool:
        return convert_bool(value)
    if kind in (int, float):
        return convert_number(value, kind)
    if kind is str:
        if isinstance(value, (str, Path)):
            return str(value)
        raise ValueError
    if kind is Path:
        return Path(value)
    if isinstance(kind, type) and isinstance(value, kind):
        return value
    raise ValueError


def convert_bool(value: Any) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    if isinstance(value, bool):
        return value
    raise ValueError


def convert_number(value: Any, kind: type) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError
    try:
        number = int(value)  # exact for any size
        exact = not isinstance(value, float) or value == number
    except (ValueError, OverflowError):
        number, exact = float(value), False
        exact = number.is_integer()
    if kind is int:
        if not exact:
            raise ValueError
        return int(number)
    return float(value)


def items_of(value: Any, name: str) -> Any:
    """A text for a list whose items may hold commas is one item."""
    return [value] if name in WHOLE and isinstance(value, str) else value


def convert_many(value: Any, kind: Any) -> tuple[Any, ...] | list[Any]:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    items = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else list(value)
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        if len(items) != len(inner):
            raise ValueError
        return tuple(coerce(item, one, "item") for item, one in zip(items, inner, strict=True))
    return (tuple if origin is tuple else list)(coerce(item, inner[0] if inner else Any, "item") for item in items)


def spell(kind: Any) -> str:
    """A type in plain words: `whole number or none`."""
    names = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "none", Path: "path", Any: "anything"}
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(spell(option) for option in inner)
    if origin is Literal:
        return " | ".join(map(str, inner))
    if origin in (tuple, list):
        if inner and inner[-1] is not Ellipsis and origin is tuple:
            return ", ".join(spell(one) for one in inner)
        return f"list of {spell(inner[0]) if inner else 'anything'}"
    return names.get(kind, getattr(kind, "__name__", str(kind)))


# ---------------------------------------------------------------- writing, reading a file, telling


def to_dict(cfg: Any) -> dict[str, Any]:
    """Nested plain values, ready for JSON; `from_dict` reads them back to an equal object."""
    values = {f.name: plain(getattr(cfg, f.name)) for f in fields(cfg)}
    for path in shadowed(type(cfg)):
        values["run"].pop(path.partition(".")[2], None)
    return values


def plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinity; `from_dict` reads the text
    return value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)


def read_file(path: Path | str) -> dict[str, Any]:
    """The mapping in a YAML or JSON file; a run's `config.json` gives its `config` part."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read the config file {path}: {error.strerror}", hint="give a YAML or JSON file") from None
    try:
        if path.suffix == ".json":
            data = json.loads(text)
        else:
            import yaml  # 15 ms, and only here

            data = yaml.safe_load(text)
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}", hint="check the place named above") from None
    except Exception as error:  # yaml.YAMLError: not a ValueError, and not importable before it is needed
        raise UserError(f"{path} is not YAML: {error}", hint="check the place named above") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UserError(f"{path} holds a {type(data).__name__}, expected settings", hint="write `name: value` lines")
    wrapped = isinstance(data.get("config"), dict) and "paper" in data
    return data["config"] if wrapped else data


def show(value: Any) -> str:
    """A default as a flag would take it."""
    if value is MISSING:
        return "required"
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value)) or "-"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def describe(cls: type, base: Any = None) -> list[tuple[str, str, str, str]]:
    """Rows (setting, type, default, meaning with its unit) of a dataclass, for help texts and docs."""
    return [(leaf.path, spell(leaf.type), show(leaf.default), with_unit(leaf)) for leaf in leaves(cls, base=base)]


def with_unit(leaf: Leaf) -> str:
    return f"{leaf.help} [{leaf.unit}]".strip() if leaf.unit else leaf.help
