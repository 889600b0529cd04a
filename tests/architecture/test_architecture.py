"""The shape of the package, kept by tests: who imports whom, what is pure, how long things get, what is written down."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "guerdon"
FILES = sorted(PACKAGE.rglob("*.py"))

# Each part may import from itself, from the parts of lower rank, and from those named beside it.
RANK = {
    part: rank
    for rank, parts in enumerate(
        (
            "errors _need allocator __init__",
            "core config settings catalog",  # the catalog reads names and cards from source text
            "types",
            "rewards policies data envs",
            "learn search evaluate",
            "papers",
            "claims serve report cli assemble auditing monitoring quickstart domains arithmetic progress testing __main__",
        )
    )
    for part in parts.split()
}
SIDEWAYS = {  # neighbours of one rank that know of each other, in this direction only
    3: {
        *(("envs", "data"), ("policies", "data"), ("rewards", "data")),
        *(("rewards", "envs"), ("rewards", "policies"), ("policies", "envs"), ("data", "envs")),
    },
    4: {("search", "learn"), ("evaluate", "learn"), ("evaluate", "search"), ("learn", "search")},
}
PLAIN = {"math", "typing", "collections", "dataclasses", "hashlib", "functools", "itertools", "__future__"}
CORE_MAY = PLAIN | {"torch", "jaxtyping", "guerdon"}


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, *, top_only: bool = False) -> list[tuple[str, int]]:
    """Absolute names of the imported modules; `TYPE_CHECKING` blocks are left out (they import nothing when the program runs)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    package = ["guerdon", *path.relative_to(PACKAGE).parts[:-1]]
    found = []
    for node in tree.body if top_only else ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package[: len(package) - node.level + 1], node.module or ""]).strip(".") if node.level else node.module or ""
            found += [(f"{base}.{alias.name}", node.lineno) for alias in node.names]
    return found


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_point_downwards(path):
    here = part(path)
    assert here in RANK, f"{here}: give the new part a rank"
    for name, line in imports(path):
        if not name.startswith("guerdon."):
            continue
        there = name.split(".")[1]
        if there not in RANK or there == here:  # a name of the package itself: `from guerdon import __version__`
            continue
        allowed = RANK[there] < RANK[here] or RANK[here] == RANK["cli"] or (here, there) in SIDEWAYS.get(RANK[here], ())
        lower = RANK[here] == RANK[there] and RANK[here] <= 1
        assert allowed or lower, f"{relative(path)}:{line}: {here} must not import {there}"


@pytest.mark.parametrize("path", [p for p in FILES if part(p) == "core"], ids=relative)
def test_core_is_pure(path):
    for name, line in imports(path):
        assert name.split(".")[0] in CORE_MAY, (
            f"{relative(path)}:{line}: core imports torch, math, jaxtyping and plain Python only, not {name}"
        )
        assert not name.startswith("guerdon.") or name.startswith("guerdon.core."), f"{relative(path)}:{line}: core imports core only"
        assert "distributed" not in name
    calls = {ast.unparse(n.func) for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)}
    assert not calls & {"print", "open", "input"}, f"{relative(path)}: core prints and opens nothing"


DRAWS = {f"torch.{name}" for name in ("rand", "randn", "randint", "randperm", "multinomial", "normal", "bernoulli")}


def under_fork(tree: ast.AST) -> set[int]:
    """Nodes inside `with torch.random.fork_rng(...)`, where the global stream is restored afterwards."""
    forks = (n for n in ast.walk(tree) if isinstance(n, ast.With) and any("fork_rng" in ast.unparse(i) for i in n.items))
    return {id(inner) for fork in forks for inner in ast.walk(fork)}


@pytest.mark.parametrize("path", [p for p in FILES if part(p) in ("core", "policies", "papers", "learn", "rewards")], ids=relative)
def test_randomness_and_time_are_arguments(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    forked = under_fork(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name, where = ast.unparse(node.func), f"{relative(path)}:{node.lineno}: {ast.unparse(node.func)}"
        if name in DRAWS:
            assert any(k.arg == "generator" for k in node.keywords), f"{where} without a generator"
        if name == "torch.manual_seed":
            assert path.name == "run.py" or id(node) in forked, f"{where} moves the global stream"
        assert not re.match(r"(random|np\.random|numpy\.random|time\.time$|datetime)", name), (
            f"{where}: take a Key, and the step as the clock"
        )
    for name, line in imports(path):
        assert name.split(".")[0] != "random" and not name.startswith("numpy.random"), f"{relative(path)}:{line}: {name}"


# ---------------------------------------------------------------- size and words


def functions(tree: ast.AST):
    return [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_files_and_functions_stay_short(path):
    text = path.read_text(encoding="utf-8")
    limit = 120 if part(path) == "papers" else 450
    assert text.count("\n") <= limit, f"{relative(path)}: {text.count(chr(10))} lines, at most {limit}: split it by idea"
    for function in functions(ast.parse(text)):
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length <= 70, f"{relative(path)}:{function.lineno}: {function.name} has {length} lines, at most 70"


RUN = 6  # equal lines that count as copied


def code_lines(path: Path) -> list[str]:
    """The lines of a file without imports, blank ones and pure punctuation."""
    text = path.read_text(encoding="utf-8")
    imported = [(n.lineno, n.end_lineno or n.lineno) for n in ast.walk(ast.parse(text)) if isinstance(n, (ast.Import, ast.ImportFrom))]
    skip = {i for a, b in imported for i in range(a, b + 1)}
    lines = [line.strip() for i, line in enumerate(text.split("\n"), 1) if i not in skip]
    return [line for line in lines if re.search(r"\w", line)]


def test_methods_are_not_copies_of_each_other():
    """Less than 5 % of the lines of `papers/` stand in a run of six equal lines that comes twice."""
    files = {path: code_lines(path) for path in FILES if part(path) == "papers"}
    places: dict[tuple[str, ...], list[tuple[Path, int]]] = {}
    for path, lines in files.items():
        for i in range(len(lines) - RUN + 1):
            places.setdefault(tuple(lines[i : i + RUN]), []).append((path, i))
    copied = {(path, i + k) for found in places.values() if len(found) > 1 for path, i in found for k in range(RUN)}
    share = len(copied) / sum(map(len, files.values()))
    assert share < 0.05, f"{share:.1%} of the lines of papers/ are copies: {sorted({relative(path) for path, _ in copied})}"


def missing_docstrings(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    missing = []
    if not ast.get_docstring(tree) and text_of(tree):
        missing.append("the module")
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_") and not ast.get_docstring(node):
            if any("overload" in ast.unparse(d) for d in node.decorator_list):
                continue
            if isinstance(node, ast.ClassDef) and any("Protocol" in ast.unparse(base) for base in node.bases):
                continue  # a protocol's methods speak
            if node.name in ("build", "trial", "Config", "__getattr__", "__dir__"):  # the module's docstring and card speak for them
                continue
            missing.append(f"{node.name} (line {node.lineno})")
    return missing


def text_of(tree: ast.Module) -> bool:
    return any(not isinstance(n, (ast.Import, ast.ImportFrom)) for n in tree.body)


STRICT = {"core", "types", "learn", "testing", "policies", "rewards", "data", "search", "evaluate", "papers", "envs"}


@pytest.mark.parametrize("path", [p for p in FILES if part(p) in STRICT], ids=relative)
def test_public_names_say_what_they_are(path):
    missing = missing_docstrings(path)
    assert not missing, f"{relative(path)}: no docstring on {', '.join(missing)}"


# ---------------------------------------------------------------- start-up


def test_importing_guerdon_and_its_help_load_no_torch():
    heavy = "{'torch', 'transformers', 'numpy', 'matplotlib'}"
    code = f"""
import sys, guerdon
assert not {heavy} & set(sys.modules), sorted({heavy} & set(sys.modules))
from guerdon import cli
for argv in (["--help"], ["run", "--help"], ["papers", "--json"]):
    try:
        cli.main(argv)
    except SystemExit:
        pass
assert not {heavy} & set(sys.modules), sorted({heavy} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- what is in the repository


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


MACHINE = re.compile(r"(?<![\w.])/(?:work|home|Users|root|mnt)/\w|(?:index-url|registry|proxy)\s*[=:]\s*[\"']?https?://")


def test_no_machine_is_named():
    """No absolute paths of somebody's machine and no package registries: the project is read elsewhere."""
    found = []
    for path in tracked():
        if path.suffix in (".safetensors", ".png", ".gz", ".parquet") or path == Path(__file__):
            continue
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError:
            continue
        found += [f"{relative(path)}:{i}: {line.strip()[:100]}" for i, line in enumerate(lines, 1) if MACHINE.search(line)]
    assert not found, "\n".join(found)


def test_the_package_ships_no_large_file():
    large = [f"{relative(p)}: {p.stat().st_size / 1e6:.1f} MB" for p in tracked() if p.stat().st_size > 12e6]
    assert not large, "\n".join(large)


def test_test_files_have_names_of_their_own():
    names = [p.name for p in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)), sorted(n for n in names if names.count(n) > 1)
