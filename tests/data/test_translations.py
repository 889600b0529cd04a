"""Parallel text of installed packages: catalogues made for the test, Django's own, and CLDR's names."""

import sys

import pytest
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import write_po

from guerdon.data import load, sources, translations
from guerdon.data.translations import Translation
from guerdon.errors import UserError
from guerdon.rewards.text_metrics import chrf
from guerdon.types import Rollout


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An importable package `little` with catalogues in French and German, and one in Spanish as text alone."""
    texts = {
        "fr": {
            "Save": "Enregistrer",
            "Open %s": "Ouvrir %s",
            "OK": "OK",
            "two  words": "deux\u00a0mots",
            ("cat", "cats"): ("chat", "chats"),
        },
        "de": {"Save": "Speichern", "Close": "Schließen", "Bold <b>": "Fett <b>"},
        "es": {"Save": "Guardar"},
    }
    for language, rows in texts.items():
        made = Catalog(locale=language)
        for text, string in rows.items():
            made.add(text, string)
        if language == "fr":
            made.add("Save", "Sauver", context="rescue")
        if language == "es":
            made.add("Close", "Cerca", flags=["fuzzy"])
        folder = tmp_path / "little" / "locale" / language / "LC_MESSAGES"
        folder.mkdir(parents=True)
        with (folder / f"little.{'po' if language == 'es' else 'mo'}").open("wb") as stream:
            write_po(stream, made) if language == "es" else write_mo(stream, made)
    (tmp_path / "little" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("little", None)


def pairs(items):
    return {t.source: t.references for t in items}


def test_a_catalogue_gives_texts_with_all_their_translations(package):
    assert pairs(translations.catalogue("little", "en-fr")) == {"Save": ("Enregistrer", "Sauver"), "two words": ("deux mots",)}
    assert pairs(translations.catalogue("little", "en-fr", plain=False))["Open %s"] == ("Ouvrir %s",)
    assert pairs(translations.catalogue("little", "en-es")) == {"Save": ("Guardar",)}  # from text; unsure ones left out
    assert pairs(translations.catalogue("little", "fr-de")) == {"Enregistrer": ("Speichern",)}  # joined by the text in the program


def test_what_is_not_there_is_named(package):
    for name, pair, message in (
        ("nothing_of_this_name", "en-fr", "no package"),
        ("../little", "en-fr", "no package"),
        ("little", "en-it", "no catalogue in 'it'"),
        ("little", "en", "expected two different ones"),
        ("little", "fr-fr", "expected two different ones"),
    ):
        with pytest.raises(UserError, match=message):
            translations.catalogue(name, pair)
    with pytest.raises(UserError, match=r"no 'colours'\nhint: "):
        translations.names("en-fr", ["colours"])
    with pytest.raises(UserError, match="unknown language 'xx'"):
        translations.names("en-xx")
    with pytest.raises(UserError, match="unknown split"):
        translations.split([], "dev")


def test_django_by_name():
    train, test = (sources.load(f"gettext:django:en-fr?split={part}", "prompts") for part in ("train", "test"))
    assert len(train) > 500
    assert 0.08 < len(test) / (len(train) + len(test)) < 0.12
    assert not {p.meta["source"].casefold() for p in train} & {p.meta["source"].casefold() for p in test}
    known = {p.meta["source"]: p for p in [*train, *test]}
    asked = known["Enter a valid value."]
    assert asked.meta["reference"] == "Saisissez une valeur valide."
    assert (asked.meta["source_lang"], asked.meta["target_lang"]) == ("English", "French")
    assert asked.content[0]["content"].endswith("\n\nEnter a valid value.")
    assert any(isinstance(p.meta["reference"], list) for p in train)  # translated differently in different places
    assert not any("%" in p.meta["source"] for p in train)
    demos = sources.load("gettext:django:en-de?n=7", "demos")
    assert len(demos) == 7
    assert [s.value for s in chrf(demos)] == pytest.approx([1.0] * 7)


def test_cldr_by_name():
    found = pairs(translations.names("en-fr", ["languages", "territories"]))
    assert found["German"] == ("allemand",)
    assert found["Germany"] == ("Allemagne",)
    assert "France" not in found  # the same in both
    prompts = load("cldr:en-zh_Hans?of=currencies&n=20", "prompts").items
    assert len(prompts) == 20
    assert prompts[0].meta["target_lang"] == "Chinese (Simplified)"


@pytest.mark.parametrize("name", ["gettext:django:en-fr", "cldr:en-fr"])
def test_translations_are_no_preferences(name):
    with pytest.raises(UserError, match="not preference pairs"):
        sources.load(name, "pairs")
    with pytest.raises(UserError, match="unknown option 'size'"):
        sources.load(f"{name}?size=3", "prompts")


def test_without_babel_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "babel", None)
    with pytest.raises(UserError, match=r"'babel'.*\nhint: pip install 'guerdon\[translation\]'"):
        translations.names("en-fr")


def test_a_demo_answers_its_prompt():
    item = Translation("cat", ("chat", "minou"), ("en", "fr"))
    demo = item.demo("x")
    assert isinstance(demo, Rollout)
    assert (demo.content, demo.prompt.meta["reference"]) == ("chat", ["chat", "minou"])
