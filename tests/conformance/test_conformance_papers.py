"""Every method is a card, a documented frozen config, a `build` whose inputs are known, and a claim."""

import copy
import dataclasses
import importlib
import inspect
import re
from functools import partial

import pytest

from guerdon import catalog, domains, settings
from guerdon.claims import __path__ as claims_path
from guerdon.config import LoraConfig, Optim, Sampling
from guerdon.core.rng import Key
from guerdon.learn.continuing import Continuations
from guerdon.learn.run import run
from guerdon.testing import ToyPolicy, ToyReward, check_recipe, toy_demos, toy_pairs, toy_pools, toy_prompts, toy_unpaired
from guerdon.testing.say import same
from guerdon.types import Claim, Paper

NAMES = catalog.names()
ROWS = {card.name for card in catalog.cards() if card.name != card.module}  # of tables: no claim of their own
SMALL = {"steps": 4, "batch": 3, "rounds": 2, "steps_per_round": 2, "prompts_per_round": 3, "n": 4, "sampling": Sampling(n=4, max_new=6)}
SMALL |= {"objectives": ("dpo", "hinge"), "seeds": 2, "pairs": 6, "test_pairs": 4, "base_steps": 2}  # a survey
SMALL |= {"block": 6}  # tokens that a toy writes at most
SMALL |= {"held_out": (), "match": 0.0}  # test data that a toy could not read
SMALL |= {"labels": ("a", "b"), "sft_steps": 1, "seed_steps": 1}  # what a toy can say; short warm-ups
SMALL |= {"shown": "{first}{second}"}  # letters only
SMALL |= {"iterations": 1, "prompts_per_iteration": 3, "steps_per_phase": 2, "pairs_per_round": 3}
SMALL |= {"statement": "{answer}{confidence}", "confident": ("a",), "unsure": ("b",)}
SMALL |= {"column": "answer"}  # another wording that a toy can read
SMALL |= {"learn": 3}  # of the four that vote
SMALL |= {"continuations": Continuations(chunks=2, tokens=2, n=2, least=1, last=2, likeness="binary", scale="batch")}
SMALL |= {"rows_per_step": 2, "probed": ("rating",)}  # benchmarks
GROUPS = (Optim, Sampling, LoraConfig)
FOUNDATION = {"bradley_terry", "dpo", "grpo", "best_of_n", "prime", "reinforce", "diffusion_dpo"}


def test_the_foundation_is_there():
    assert set(NAMES) >= FOUNDATION
    assert claims_path


@pytest.mark.parametrize("name", NAMES)
def test_card(name):
    method = catalog.load(name)
    card = method.paper
    assert isinstance(card, Paper)
    for field in ("title", "family", "idea", "uses", "domain", "full_size"):
        assert getattr(card, field), f"{name}: PAPER.{field} is empty"
    assert card.claim or name in ROWS, f"{name}: PAPER.claim is empty"
    assert 1900 < card.year < 2100
    assert re.fullmatch(r"\d{4}\.\d{4,5}", card.arxiv) or (card.arxiv == "" and card.year < 2000), f"{name}: arxiv {card.arxiv!r}"
    assert not card.idea.endswith("."), f"{name}: the idea is one line without a full stop"
    assert card.full_size.startswith(f"guerdon run {name}"), f"{name}: full_size shows how to run it"
    read = catalog.card(name)
    assert {f.name: getattr(card, f.name) for f in dataclasses.fields(Paper)} == {
        f.name: getattr(read, f.name) for f in dataclasses.fields(Paper)
    }, f"{name}: the card read from the source is the card"


@pytest.mark.parametrize("name", NAMES)
def test_docstring_has_its_parts(name):
    doc = catalog.card(name).doc
    for part in ("Problem:", "Idea:"):
        assert part in doc, f"{name}: the docstring says the {part[:-1].lower()}"
    assert re.search(r"Left out:|Options|Deliberate difference", doc), f"{name}: the docstring says what is left out or different"


@pytest.mark.parametrize("name", NAMES)
def test_config_is_frozen_and_documented(name):
    config = catalog.load(name).Config
    assert config.__dataclass_params__.frozen, f"{name}: Config is frozen"  # type: ignore[attr-defined]
    fields = dataclasses.fields(config)
    assert len(fields) <= 20, f"{name}: {len(fields)} settings, at most 20"
    made = config()
    for path, kind, default, meaning in settings.describe(config):
        assert meaning, f"{name}: {path} says what it means"
        assert (kind, default) != ("", "")
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, fields[0].name, None)
    assert settings.from_dict(config, settings.to_dict(made)) == made, f"{name}: config.json reads back to the same settings"


@pytest.mark.parametrize("name", NAMES)
def test_build_asks_for_known_inputs(name):
    method = catalog.load(name)
    first, *parameters = inspect.signature(method.build).parameters.values()
    assert first.name == ("self" if name in ROWS else "cfg")
    known = {*domains.domain(method.card.domain).loaders, "reward", "key"}
    unknown = {p.name for p in parameters if p.default is p.empty} - known
    assert not unknown, f"{name}: build asks for {unknown}; known are {sorted(known)}"
    assert any(p.name == "key" for p in parameters), f"{name}: what is random comes from a key"
    inputs = {p.name for p in parameters} & {*domains.DATA, "reward"}
    assert inputs <= set(method.card.uses), f"{name}: the card's `uses` names {inputs}"


@pytest.mark.parametrize("name", NAMES)
def test_pieces_named_by_the_card_exist(name):
    for piece in catalog.card(name).uses:
        if "." in piece:
            module, _, attribute = piece.rpartition(".")
            try:
                found = hasattr(importlib.import_module(f"guerdon.{module}"), attribute)
            except ModuleNotFoundError:
                found = False
            if not found:  # a module itself, such as search.best_of
                importlib.import_module(f"guerdon.{piece}")


def build_on_toys(name):
    """The method on toy inputs: no branch on the domain is left to hide in, since a toy is of none."""
    method = catalog.load(name)
    fields = {f.name for f in dataclasses.fields(method.Config)}
    small = SMALL | ({"length": 5} if name == "refine" else {})  # tokens; elsewhere a group of settings
    cfg = dataclasses.replace(method.Config(), **{k: v for k, v in small.items() if k in fields})
    for warm_up in fields & {"pretrain", "sft"}:
        cfg = dataclasses.replace(cfg, **{warm_up: dataclasses.replace(getattr(cfg, warm_up), steps=2, batch=3)})
    given = {
        "policy": lambda: ToyPolicy(spread=0.2),
        "prm": lambda: ToyPolicy(spread=0.2),
        "scorer": lambda: ToyPolicy(spread=0.2, steps=12),
        "prompts": toy_prompts,
        "pairs": partial(toy_pairs, length=4),  # short enough to say one thing more
        "pools": toy_pools,
        "unpaired": toy_unpaired,
        "demos": toy_demos,
        "reward": ToyReward,
        "key": lambda: Key(0),
    }
    parameters = list(inspect.signature(method.build).parameters.values())[1:]
    return method.build(cfg, **{p.name: given[p.name]() for p in parameters if p.name in given})


@pytest.mark.parametrize("name", NAMES)
def test_every_method_survives_a_kill(name):
    check_recipe(lambda: build_on_toys(name), steps=4)


@pytest.mark.parametrize("name", NAMES)
def test_every_method_moves_the_weights(name, tmp_path):
    recipe = build_on_toys(name)
    before = copy.deepcopy({k: v.state_dict() for k, v in recipe.state.items()})
    summary = run(recipe, tmp_path / "run")
    assert not same(before, {k: v.state_dict() for k, v in recipe.state.items()})
    assert summary.steps == recipe.steps
    assert list(summary.final.iterdir()), f"{name}: the recipe writes its result"


def test_names_are_given_once():
    assert len(NAMES) == len(set(NAMES)), sorted(n for n in NAMES if NAMES.count(n) > 1)
    homes = {path.stem for path in catalog.modules("papers")}
    assert not ROWS & homes, "a row of a table is called like a module"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ROWS])
def test_claim(name):
    module = catalog.load_claim(name)
    claim = module.CLAIM
    assert isinstance(claim, Claim)
    for field in ("method", "baseline", "metric", "setting"):
        assert getattr(claim, field), f"{name}: CLAIM.{field} is empty"
    assert claim.margin >= 0
    assert len(set(claim.seeds)) >= 3
    assert list(inspect.signature(module.trial).parameters) == ["seed"]
    assert (inspect.getdoc(module) or "").strip()
