"""`--reward` as text: a built-in name, a function in a file or module, or the folder of a reward model.

    SPEC = WHAT [(setting=value, ...)] [=WEIGHT]
    WHAT = math | path/to/file.py:function | package.module:function | path/to/model_folder | http://host:port/path

Examples: `math`, `format=0.2`, `length(limit=400, unit="words")=0.1`, `rewards.py:closes_brackets=0.5`, `runs/rm/final`.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, final

from guerdon.errors import UserError, nearest
from guerdon.rewards.adapt import adapt
from guerdon.rewards.combine import Part, Weighted
from guerdon.rewards.foreign import safe_name
from guerdon.rewards.guard import Guarded
from guerdon.rewards.lift import is_reward, name_of, with_settings
from guerdon.rewards.model import ScalarModelReward
from guerdon.rewards.remote import RemoteReward
from guerdon.rewards.segments import SegmentReward
from guerdon.types import Reward

_HERE = Path(__file__).parent
_KINDS = "a built-in name, file.py:function, module:function, the folder of a reward model or an address (http://host:port/path)"


@cache
def public_rewards() -> Mapping[str, Reward]:
    """Every built-in reward by the name that `--reward` knows, with its default settings: found by looking, not by a list."""
    found: dict[str, Reward] = {}
    for info in pkgutil.iter_modules([str(_HERE)]):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"guerdon.rewards.{info.name}")
        for attribute, value in vars(module).items():
            at_home = not attribute.startswith("_") and getattr(value, "__module__", None) == module.__name__
            if at_home and not isinstance(value, type) and is_reward(value) and name_of(value) not in found:
                found[name_of(value)] = value
    return dict(sorted(found.items()))


@final
@dataclass(frozen=True)
class Spec:
    """One `--reward` taken apart."""

    text: str
    what: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    weight: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Raises `UserError` for a weight that is no finite number and for settings that are no Python literals."""
        body, weight = text.strip(), 1.0
        if match := re.fullmatch(r"(.*)=\s*([^=()\s\"']*)\s*", body, re.DOTALL):
            try:
                weight = float(match[2])
            except ValueError:
                weight = float("nan")
            if not abs(weight) < float("inf"):
                raise UserError(f"--reward {text!r}: weight {match[2]!r} is not a number", hint="for instance --reward math=1")
            body = match[1].strip()
        settings: dict[str, Any] = {}
        if match := re.fullmatch(r"([^()]*)\((.*)\)", body, re.DOTALL):
            body, settings = match[1].strip(), _settings(text, match[2])
        if not body:
            raise UserError(f"--reward {text!r} names no reward", hint=f"give {_KINDS}")
        return cls(text, body, settings, weight)


def _settings(text: str, inside: str) -> dict[str, Any]:
    try:
        call = ast.parse(f"f({inside})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(k.arg is None for k in call.keywords):
            raise ValueError("settings are given by name")
        return {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise UserError(
            f"--reward {text!r}: cannot read the settings ({error})", hint='write them as name(limit=400, unit="words")'
        ) from None


@final
@dataclass(frozen=True)
class Resolved:
    """What `--reward` came to. reward: guarded, with named parts. facts: for the manifest, one entry per part."""

    reward: Guarded
    facts: tuple[Mapping[str, Any], ...]


def resolve_rewards(
    specs: Sequence[str | Reward | Callable[..., Any]],
    *,
    load_scorer: Callable[[Path], Any] | None = None,
    timeout_s: float | None = 60.0,
    max_abstained_share: float = 0.5,
    missing: str = "abstain",
) -> Resolved:
    """One reward from the texts of `--reward` (or from rewards and functions themselves), each part guarded, all summed by weight.

    load_scorer: turns a reward model's folder into its scorer or a ready `ScalarModelReward` (the normaliser then comes from the folder).
    The others are those of `Guarded` and `Weighted`. Nothing is called and no model is loaded before the specs have all been read.
    """
    if not specs:
        raise UserError("no reward given", hint=f"--reward takes {_KINDS}; built in: {', '.join(public_rewards())}")
    parsed = [Spec.parse(s) if isinstance(s, str) else s for s in specs]
    found = [load(s, load_scorer) if isinstance(s, Spec) else _given(s) for s in parsed]
    parts: list[Part] = []
    facts: list[Mapping[str, Any]] = []
    for spec, (reward, fact) in zip(parsed, found, strict=True):
        base = safe_name(name_of(reward))
        taken = {p.name for p in parts}
        name = base if base not in taken else next(n for i in range(2, len(specs) + 2) if (n := f"{base}_{i}") not in taken)
        weight = spec.weight if isinstance(spec, Spec) else 1.0
        guard = Guarded(reward, name, timeout_s=timeout_s, max_abstained_share=max_abstained_share)
        parts.append(Part(name, guard, weight))
        facts.append({"name": name, "weight": weight, **fact})
    total = Weighted(tuple(parts), missing)  # type: ignore[arg-type]
    return Resolved(Guarded(total, "reward", timeout_s=None, max_abstained_share=max_abstained_share, watch_parts=False), tuple(facts))


def _given(thing: Any) -> tuple[Reward, dict[str, Any]]:
    reward = adapt(thing)
    return reward, {"spec": repr(reward), "kind": "python"}


def load(spec: Spec, load_scorer: Callable[[Path], Any] | None = None) -> tuple[Reward, dict[str, Any]]:
    """The reward of a spec (not guarded, not weighted) and its facts for the manifest."""
    what = spec.what
    path = Path(what).expanduser()
    if what.startswith(("http://", "https://")):
        return with_settings(RemoteReward(what), spec.settings), {"spec": spec.text, "kind": "remote", "settings": dict(spec.settings)}
    if ":" in what:
        return _function(spec)
    if what in public_rewards():
        reward = with_settings(public_rewards()[what], spec.settings)
        source = sys.modules[getattr(reward, "fn", reward).__module__].__file__  # of a plain function its own, of an object its class's
        return reward, {"spec": spec.text, "kind": "builtin", "settings": dict(spec.settings), "digest": _digest(Path(str(source)))}
    if path.is_dir():
        return _model(spec, path, load_scorer)
    if path.suffix == ".py":
        listed = f"it defines: {', '.join(_functions(path)) or 'none'}" if path.is_file() else f"and {path} does not exist"
        raise UserError(f"--reward {spec.text!r} names a file without a function; {listed}", hint=f"write {what}:function")
    if os.sep in what or what.startswith("."):
        raise UserError(f"--reward {spec.text!r}: there is no folder {what!r}", hint=f"give {_KINDS}")
    raise UserError(f"unknown reward {what!r}, expected {_KINDS}", hint=nearest(what, public_rewards()))


def _model(spec: Spec, folder: Path, load_scorer: Callable[[Path], Any] | None) -> tuple[Reward, dict[str, Any]]:
    from guerdon.rewards.model import Identity

    if not any((folder / name).is_file() for name in ("config.json", "features_config.json", "ensemble_config.json")):
        raise UserError(
            f"--reward {spec.text!r}: the folder holds no config.json, so it is no model", hint="give the `final` folder of a run"
        )
    if load_scorer is None:
        raise UserError(f"--reward {spec.text!r} is a model, and no loader for reward models was given", hint="pass load_scorer=")
    loaded = load_scorer(folder)
    reward = loaded if isinstance(loaded, (ScalarModelReward, SegmentReward)) else ScalarModelReward(loaded, identity=Identity.of(folder))
    reward = with_settings(
        reward, {"name": safe_name(folder.name if folder.name != "final" else folder.resolve().parent.name), **spec.settings}
    )
    return reward, {"spec": spec.text, "kind": "model", "settings": dict(spec.settings), **reward.facts}  # type: ignore[attr-defined]


def _function(spec: Spec) -> tuple[Reward, dict[str, Any]]:
    place, _, name = spec.what.rpartition(":")
    file = Path(place).expanduser()
    is_file = place.endswith(".py") or os.sep in place
    module = _load_file(spec, file) if is_file else _load_module(spec, place)
    if not hasattr(module, name):
        known = _functions(Path(module.__file__)) if module.__file__ else [n for n in vars(module) if not n.startswith("_")]
        raise UserError(f"--reward {spec.text!r}: {place} has no {name!r}", hint=nearest(name, known))
    reward = adapt(getattr(module, name), name=name, settings=spec.settings)
    source = Path(module.__file__) if module.__file__ else None
    fact = {"spec": spec.text, "kind": "file" if is_file else "module", "settings": dict(spec.settings)}
    return reward, {**fact, "source": str(source), "digest": _digest(source) if source else ""}


def _load_file(spec: Spec, file: Path) -> ModuleType:
    if not file.is_file():
        raise UserError(f"--reward {spec.text!r}: the file {str(file)!r} does not exist", hint=f"the current folder is {Path.cwd()}")
    name = f"guerdon_reward_{re.sub(r'[^0-9A-Za-z_]', '_', file.stem)}_{_digest(file.resolve(), path_too=True)[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    found = importlib.util.spec_from_file_location(name, file)
    if found is None or found.loader is None:
        raise UserError(f"--reward {spec.text!r}: {str(file)!r} is not a Python file", hint="rewards are functions in a .py file")
    module = importlib.util.module_from_spec(found)
    folder = str(file.resolve().parent)
    if folder not in sys.path:  # as when the file is run: it may import its neighbours
        sys.path.append(folder)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(f"--reward {spec.text!r}: {_where(error, file)}", hint="the file must import without errors") from error
    return module


def _load_module(spec: Spec, place: str) -> ModuleType:
    if (here := os.getcwd()) not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise UserError(f"--reward {spec.text!r}: importing {place} failed: {error}", hint=f"install {error.name!r}") from error
        raise UserError(
            f"--reward {spec.text!r}: there is no module {place!r}", hint=f"for a file write {place.replace('.', '/')}.py:function"
        ) from None
    except (Exception, SystemExit) as error:
        raise UserError(
            f"--reward {spec.text!r}: importing {place} failed: {error!r}", hint="the module must import without errors"
        ) from error


def _where(error: BaseException, file: Path) -> str:
    if isinstance(error, SyntaxError):
        return f"{file}:{error.lineno}: {error.msg}"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).name == file.name]
    return f"{file}:{lines[-1] if lines else '?'}: {type(error).__name__}: {error}"


def _functions(file: Path) -> list[str]:
    """Names of the functions and classes that a file defines, read without running it."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, OSError, UnicodeDecodeError):
        return []
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]


def _digest(file: Path, *, path_too: bool = False) -> str:
    data = file.read_bytes() + (str(file).encode() if path_too else b"")
    return hashlib.sha256(data).hexdigest()
