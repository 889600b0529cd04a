"""Parallel text that Python packages bring along: catalogues of gettext, and the names of CLDR, both read by Babel.

A *catalogue* holds the texts of a program, in the program's own language (nearly always English), with translations by people: thousands
of short sentences and labels of an ordinary installed package (Django has about 1,000 texts in a hundred languages). CLDR, the Unicode
consortium's locale data (licence: Unicode-3.0), is part of Babel: names of languages, territories, scripts and currencies.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guerdon._need import need
from guerdon.data.human_ratings import held_out
from guerdon.errors import UserError, nearest
from guerdon.types import Prompt, Rollout

NAMES = ("languages", "territories", "scripts", "currencies")
"""What CLDR names."""
MARKED = re.compile(r"%|\{|<|&\w+;|[\r\n]")  # places to fill in, markup, several lines


@dataclass(frozen=True)
class Translation:
    """A text and every translation of it that people gave, in two languages by their codes (`en`, `pt_BR`, `zh_Hans`)."""

    source: str
    references: tuple[str, ...]
    languages: tuple[str, str]

    def prompt(self, id: str) -> Prompt:
        """Asks for the translation. Columns: source, source_lang and target_lang (English names), and reference: the translation, or a
        list where there are several."""
        one, other = map(name_of_language, self.languages)
        asked = f"Translate from {one} into {other}. Write the translation and nothing else.\n\n{self.source}"
        reference = self.references[0] if len(self.references) == 1 else list(self.references)
        meta = {"source": self.source, "source_lang": one, "target_lang": other, "reference": reference}
        return Prompt(id, [{"role": "user", "content": asked}], meta)

    def demo(self, id: str) -> Rollout:
        """The first translation as the response to its prompt."""
        return Rollout(self.prompt(id), self.references[0])


def two(pair: str) -> tuple[str, str]:
    """The two languages of `en-fr`. Raises UserError for anything else."""
    codes = pair.split("-")
    if len(codes) != 2 or not all(codes) or codes[0] == codes[1]:
        raise UserError(
            f"languages {pair!r}, expected two different ones", hint="write en-fr; regions and scripts as in en-pt_BR, en-zh_Hans"
        )
    return codes[0], codes[1]


def name_of_language(code: str) -> str:
    """`French` for `fr`. Raises UserError for a code that CLDR does not know."""
    return str(_locale(code).english_name)


def _locale(code: str) -> Any:
    babel = need("babel", extra="translation")
    try:
        return babel.Locale.parse(code)
    except (ValueError, babel.UnknownLocaleError):
        raise UserError(f"unknown language {code!r}", hint="a code such as fr, pt_BR or zh_Hans") from None


# ---------------------------------------------------------------- where the texts are


def catalogue(package: str, pair: str, *, plain: bool = True) -> list[Translation]:
    """The translations that an installed package brings along, in files `LANGUAGE/LC_MESSAGES/*.mo` (`*.po` where there are none).

    package: its import name. pair: `en-fr`; `en` is the language of the texts in the program, two others are joined where both translate
    the same text. plain: leave out texts with places to fill in, markup or several lines. Texts with plural forms, unsure translations
    (fuzzy) and those that leave the text as it is are always left out.
    Raises UserError for a package that is not installed, or has no catalogue of a language (with those it has).
    """
    one, other = two(pair)
    folder = _folder(package)
    known = _messages(package, folder, other)
    first = {message: (message[1],) for message in known} if one == "en" else _messages(package, folder, one)
    rows = [(a, b) for message in known if message in first for a in first[message] for b in known[message]]
    return joined(((a, b) for a, b in rows if not (plain and (MARKED.search(a) or MARKED.search(b)))), (one, other))


def names(pair: str, of: Sequence[str] = NAMES) -> list[Translation]:
    """CLDR's names of languages, territories, scripts and currencies in both languages of the pair `en-fr`.

    of: which of `NAMES`. Names that are the same in both are left out. Raises UserError for an unknown language or kind of name.
    """
    one, other = two(pair)
    for kind in of:
        if kind not in NAMES:
            raise UserError(f"CLDR names no {kind!r}", hint=nearest(kind, NAMES))
    tables = [(getattr(_locale(one), kind), getattr(_locale(other), kind)) for kind in of]
    return joined(((a[code], b[code]) for a, b in tables for code in a if code in b), (one, other))


def joined(rows: Iterable[tuple[str, str]], languages: tuple[str, str]) -> list[Translation]:
    """One item for each text, in order of first occurrence, with its different translations; white space made single spaces."""
    found: dict[str, dict[str, None]] = {}
    for source, reference in rows:
        a, b = " ".join(source.split()), " ".join(reference.split())
        if a and b and a != b:
            found.setdefault(a, {})[b] = None
    return [Translation(a, tuple(b), languages) for a, b in found.items()]


def split(items: Sequence[Translation], part: str) -> list[Translation]:
    """The `train` or the `test` tenth of the items, by their source texts, case aside. Raises UserError for another part."""
    if part not in ("train", "test"):
        raise UserError(f"unknown split {part!r} of translations", hint=nearest(part, ("train", "test")))
    away = held_out(item.source.casefold() for item in items)
    return [item for item in items if (item.source.casefold() in away) == (part == "test")]


def _folder(package: str) -> Path:
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    where = list(found.submodule_search_locations or ()) if found is not None else []
    if not where:
        raise UserError(
            f"there is no package {package!r} to read catalogues from", hint="write gettext:PACKAGE:en-fr, an installed package"
        )
    return Path(where[0])


def _messages(package: str, folder: Path, language: str) -> Mapping[tuple[str, str], tuple[str, ...]]:
    """Every translation into a language by (context, text); one text may be in several catalogues."""
    files = sorted(folder.rglob(f"{language}/LC_MESSAGES/*.mo")) or sorted(folder.rglob(f"{language}/LC_MESSAGES/*.po"))
    if not files:
        have = sorted({path.parent.parent.name for path in folder.rglob("LC_MESSAGES/*.[mp]o")})
        raise UserError(f"{package} has no catalogue in {language!r}", hint=nearest(language, have) if have else "it has none at all")
    found: dict[tuple[str, str], dict[str, None]] = {}
    for file in files:
        for message in _read(file):
            if isinstance(message.id, str) and message.id and isinstance(message.string, str) and message.string and not message.fuzzy:
                context = message.context.decode() if isinstance(message.context, bytes) else message.context or ""
                found.setdefault((context, message.id), {})[message.string] = None
    return {message: tuple(strings) for message, strings in found.items()}


def _read(file: Path) -> Any:
    reader = need("babel.messages.mofile" if file.suffix == ".mo" else "babel.messages.pofile", extra="translation")
    with file.open("rb") as stream:
        return reader.read_mo(stream) if file.suffix == ".mo" else reader.read_po(stream)
