"""The list of methods and of their claims: the modules in `papers/` and `claims/`, found by listing the folders.

Cards are read from the source text (`PAPER = Paper(...)` with literal arguments), so listing all methods imports none of them and no
torch. A name ending in `.py` means a file outside the package; it may hold a method, a claim, or both.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any

from guerdon.errors import UserError, nearest

HERE = Path(__file__).parent
FOLDERS = {"papers": HERE / "papers", "claims": HERE / "claims"}


@dataclass(frozen=True)
class Card:
    """`types.Paper` as data, with the method's name and the module's docstring; readable without torch."""

    name: str
    title: str
    arxiv: str
    year: int
    family: str
    idea: str
    uses: tuple[str, ...]
    claim: str
    domain: str = "text"
    full_size: str = ""
    doc: str = ""


@dataclass(frozen=True)
class Method:
    """A method with its code: `build(cfg, **inputs) -> Recipe` and its `Config` class."""

    card: Card
    module: ModuleType
    Config: type
    build: Callable[..., Any]

    @property
    def name(self) -> str:
        return self.card.name


def names() -> list[str]:
    """All methods of the package, in alphabetical order."""
    return [path.stem for path in modules("papers")]


def cards() -> list[Card]:
    """The cards of all methods of the package."""
    return [read_card(path) for path in modules("papers")]


def modules(kind: str) -> list[Path]:
    return sorted(path for path in FOLDERS[kind].glob("*.py") if not path.stem.startswith("_"))


def find(name: str, kind: str = "papers") -> Path:
    """The source file of a method or claim. Raises UserError with the nearest name."""
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"no file {name}", hint=f"give a file, or one of: {', '.join(p.stem for p in modules(kind))}")
        return path.resolve()
    stem = name.replace("-", "_")
    path = FOLDERS[kind] / f"{stem}.py"
    if stem.startswith("_") or not stem.isidentifier() or not path.is_file():
        known = [p.stem for p in modules(kind)]
        what = "method" if kind == "papers" else "claim for"
        raise UserError(f"unknown {what} {name!r}", hint=f"{nearest(stem, known)} (guerdon papers lists all)")
    return path


def card(name: str) -> Card:
    """The card of a method, without importing it."""
    return read_card(find(name))


def read_card(path: Path) -> Card:
    """`PAPER` and the docstring of a module, from its source text."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    known = {f.name: f for f in fields(Card)}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        if not any(isinstance(t, ast.Name) and t.id == "PAPER" for t in targets) or not isinstance(getattr(node, "value", None), ast.Call):
            continue
        call: ast.Call = node.value  # type: ignore[union-attr]
        order = [name for name in known if name not in ("name", "doc")]
        values: dict[str, Any] = {}
        for name, value in [*zip(order, call.args, strict=False), *((k.arg or "**", k.value) for k in call.keywords)]:
            if name not in order:
                raise UserError(f"{path.name}: PAPER has no field {name!r}", hint=nearest(name, order))
            try:
                values[name] = ast.literal_eval(value)
            except ValueError:
                raise UserError(f"{path.name}: PAPER's {name} must be a literal", hint="cards are read without running it") from None
        missing = [name for name in order if name not in values and known[name].default is MISSING]
        if missing:
            raise UserError(f"{path.name}: PAPER lacks {', '.join(missing)}", hint="see guerdon.types.Paper")
        own = path.parent == FOLDERS["papers"]
        return Card(name=path.stem if own else str(path), doc=ast.get_docstring(tree) or "", **values)
    raise UserError(f"{path.name} has no card", hint="write PAPER = Paper(...) at the top level")


def load(name: str) -> Method:
    """Import a method. Raises UserError for an unknown name or a module without `Config` or `build`."""
    path = find(name)
    found = read_card(path)
    module = load_module(path, "papers")
    for part in ("Config", "build"):
        if not hasattr(module, part):
            raise UserError(f"{path.name} has no {part}", hint="a method is a module with PAPER, Config and build(cfg, ...)")
    return Method(found, module, module.Config, module.build)


def load_claim(name: str) -> ModuleType:
    """Import `claims/NAME`, a module with `CLAIM` and `trial(seed)`."""
    path = find(name, "claims")
    module = load_module(path, "claims")
    for part in ("CLAIM", "trial"):
        if not hasattr(module, part):
            raise UserError(f"{path.name} has no {part}", hint="a claim is a module with CLAIM = Claim(...) and trial(seed) -> Trial")
    return module


def load_module(path: Path, kind: str) -> ModuleType:
    if path.parent == FOLDERS[kind]:
        return importlib.import_module(f"guerdon.{kind}.{path.stem}")
    name = f"guerdon_file_{path.stem}_{hashlib.sha1(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while the class is made
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
