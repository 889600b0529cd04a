"""The documentation is true: generated pages are current, examples run, numbers come out, links lead somewhere, nothing is left out."""

import doctest
import importlib.util
import re
from pathlib import Path

import pytest

from guerdon import catalog, cli

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
WRITTEN = sorted([*DOCS.glob("*.md"), *(DOCS / "guides").glob("*.md"), *(DOCS / "concepts").glob("*.md"), *(DOCS / "adr").glob("*.md")])
PAGES = [*WRITTEN, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def make_docs():
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "scripts" / "make_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_current():
    assert make_docs().stale() == [], "run `make docs`"


def test_the_index_covers_every_method_and_every_command():
    text = (DOCS / "index.md").read_text(encoding="utf-8")
    missing = [card.name for card in catalog.cards() if f"papers/{card.module}.md" not in text or card.name not in text]
    missing += [name for name in cli.parser()[1] if f"`guerdon {name}" not in text]
    assert not missing, f"docs/index.md does not mention {missing}"


@pytest.mark.parametrize("page", [p for p in WRITTEN if ">>>" in p.read_text(encoding="utf-8")], ids=lambda p: p.name)
def test_numbers_come_out(page):
    result = doctest.testfile(str(page), module_relative=False, verbose=False)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_blocks_are_python(page):
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        if not block.startswith(">>>"):
            compile(block, str(page), "exec")


def test_the_guide_to_the_python_parts_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "guides" / "python-api.md").read_text(encoding="utf-8")
    [block] = re.findall(r"<!-- run -->\n```python\n(.*?)```", text, re.DOTALL)
    names: dict = {}
    exec(block, names)
    assert names["summary"].metrics["reward"] > 0.8, "the guide says so"
    first = (tmp_path / "runs/toy/metrics.jsonl").read_text().split("\n")[0]
    assert float(re.findall(r'"reward": ([\d.]+)', first)[0]) == pytest.approx(0.2, abs=0.15)


def test_the_guide_to_rewards_keeps_its_word():
    text = (DOCS / "guides" / "rewards.md").read_text(encoding="utf-8")
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_in_the_pages_exist(page):
    known = set(cli.parser()[1])
    for command in re.findall(r"^guerdon (\S+)", page.read_text(encoding="utf-8"), re.MULTILINE):
        assert command in known, f"{page.name}: guerdon {command}"
