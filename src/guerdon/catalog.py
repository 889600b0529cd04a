"""The list of methods and of their claims: the modules in `papers/` and `claims/`, found by listing the folders.

A module holds one method (`PAPER`, `Config` and `build` at its top level, named like the module), or is a *table* of methods that
differ by little: classes with `NAME`, `PAPER`, settings and `build(self, ...)`. Cards are read from the source text (`PAPER = Paper(...)`
with literal arguments), so listing all methods imports none of them and no torch. A name ending in `.py` means a file outside the
package, which may hold a method, a claim, or both; `FILE.py:NAME` means one method of a table.
"""

from __future__ import annotations

import ast
import functools
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
    """`types.Paper` as data, with the method's name, its docstring, and the module it stands in; readable without torch."""

    name: str
    title: str
    arxiv: str
    year: int
    family: str
    idea: str
    uses: tuple[str, ...]
    claim: str = ""
    domain: str = "text"
    full_size: str = ""
    doc: str = ""
    module: str = ""


@dataclass(frozen=True)
class Method:
    """A method with its code: `build(cfg, **inputs) -> Recipe`, its `Config` class, and its `Paper`."""

    card: Card
    module: ModuleType
    Config: type
    build: Callable[..., Any]
    paper: Any

    @property
    def name(self) -> str:
        return self.card.name


def names() -> list[str]:
    """All methods of the package, in alphabetical order."""
    return [card.name for card in cards()]


def cards() -> list[Card]:
    """The cards of all methods of the package, by name."""
    return sorted((card for path in modules("papers") for card in read_cards(path)), key=lambda card: card.name)


def modules(kind: str) -> list[Path]:
    return sorted(path for path in FOLDERS[kind].glob("*.py") if not path.stem.startswith("_"))


def split(name: str) -> tuple[str, str]:
    """`FILE.py:NAME` as file and name; a plain name has no file, a file alone no name."""
    file, ending, row = name.rpartition(".py")
    return (file + ending, row.removeprefix(":")) if ending else ("", name.replace("-", "_"))


def find(name: str, kind: str = "papers") -> Path:
    """The source file of a method or claim. Raises UserError with the nearest name."""
    file, row = split(name)
    if file:
        if not Path(file).is_file():
            raise UserError(f"no file {file}", hint=f"give a file, or one of: {', '.join(p.stem for p in modules(kind))}")
        return Path(file).resolve()
    papers = {card.name: FOLDERS["papers"] / f"{card.module}.py" for card in cards()}
    homes = papers if kind == "papers" else {path.stem: path for path in modules(kind)}
    if row not in homes and row in papers:
        raise UserError(f"{name} has no claim of its own", hint=f"these have one: {', '.join(homes)}")
    if row not in homes:
        what = "method" if kind == "papers" else "claim for"
        raise UserError(f"unknown {what} {name!r}", hint=f"{nearest(row, homes)} (guerdon papers lists all)")
    return homes[row]


def card(name: str) -> Card:
    """The card of a method, without importing it."""
    return pick(name, find(name))


def pick(name: str, path: Path) -> Card:
    """The card of the method called `name` in a file; a file with one method needs no more than its path."""
    row, found = split(name)[1], read_cards(path)
    inside = {card.name.rpartition(":")[2]: card for card in found}
    if len(found) == 1 and not row:
        return found[0]
    if row not in inside:
        raise UserError(f"{path.name} holds {len(found)} methods", hint=f"write {path.name}:NAME; {nearest(row, inside)}")
    return inside[row]


def read_card(path: Path) -> Card:
    """The card of a module with one method."""
    return pick(str(path), path)


def read_cards(path: Path) -> list[Card]:
    """The cards of a module, from its source text: its own, or those of its classes that have one."""
    return list(_read(path, path.stat().st_mtime_ns))


@functools.lru_cache(maxsize=256)
def _read(path: Path, changed: int) -> tuple[Card, ...]:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    own = path.parent == FOLDERS["papers"]
    paper = assigned(tree.body, "PAPER")
    if isinstance(paper, ast.Call):
        doc = ast.get_docstring(tree) or ""
        return (Card(name=path.stem if own else str(path), doc=doc, module=path.stem, **literals(paper, path.name)),)
    found = []
    for node in tree.body:
        paper = assigned(node.body, "PAPER") if isinstance(node, ast.ClassDef) else None
        if not isinstance(node, ast.ClassDef) or not isinstance(paper, ast.Call):
            continue
        name = assigned(node.body, "NAME")
        if not isinstance(name, ast.Constant) or not isinstance(name.value, str):
            raise UserError(f"{path.name}: {node.name} has a PAPER and no NAME", hint='write NAME = "what_it_is_called" beside it')
        where, doc = f"{path.name}: {node.name}", ast.get_docstring(node) or ""
        found.append(Card(name=name.value if own else f"{path}:{name.value}", doc=doc, module=path.stem, **literals(paper, where)))
    if not found:
        raise UserError(f"{path.name} has no card", hint="write PAPER = Paper(...) at the top level")
    return tuple(found)


def assigned(body: list[ast.stmt], name: str) -> ast.expr | None:
    """What is assigned to a name among these statements."""
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        if any(isinstance(t, ast.Name) and t.id == name for t in targets):
            return node.value  # type: ignore[union-attr]
    return None


def literals(call: ast.Call, where: str) -> dict[str, Any]:
    """The arguments of `Paper(...)` as values."""
    known = {f.name: f for f in fields(Card)}
    order = [name for name in known if name not in ("name", "doc", "module")]
    values: dict[str, Any] = {}
    for name, value in [*zip(order, call.args, strict=False), *((k.arg or "**", k.value) for k in call.keywords)]:
        if name not in order:
            raise UserError(f"{where}: PAPER has no field {name!r}", hint=nearest(name, order))
        try:
            values[name] = ast.literal_eval(value)
        except ValueError:
            raise UserError(f"{where}: PAPER's {name} must be a literal", hint="cards are read without running it") from None
    missing = [name for name in order if name not in values and known[name].default is MISSING]
    if missing:
        raise UserError(f"{where}: PAPER lacks {', '.join(missing)}", hint="see guerdon.types.Paper")
    return values


def load(name: str) -> Method:
    """Import a method. Raises UserError for an unknown name or a module without `Config` or `build`."""
    path = find(name)
    found = pick(name, path)
    module = load_module(path, "papers")
    table = {vars(c).get("NAME"): c for c in vars(module).values() if isinstance(c, type) and "PAPER" in vars(c)}
    entry = table.get(found.name.rpartition(":")[2])
    if entry is not None and not hasattr(entry, "build"):
        raise UserError(f"{path.name}: {entry.__name__} has no build", hint="a method of a table has NAME, PAPER and build(self, ...)")
    if entry is not None:
        return Method(found, module, entry, entry.build, entry.PAPER)
    for part in ("Config", "build"):
        if not hasattr(module, part):
            raise UserError(f"{path.name} has no {part}", hint="a method is a module with PAPER, Config and build(cfg, ...)")
    return Method(found, module, module.Config, module.build, module.PAPER)


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
