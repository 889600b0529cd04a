"""Config dataclasses and the settings machinery."""

from __future__ import annotations

import json
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Literal

import pytest

from guerdon import catalog, settings
from guerdon.config import Checked, LoraConfig, Optim, Run, Sampling, knob
from guerdon.errors import UserError


@dataclass(frozen=True)
class Config(Checked):
    model: str = "tiny"
    reward: tuple[str, ...] = ("math",)
    beta: float = knob(0.1, "the leash", unit="nats", above=0, at_most=1)
    mode: Literal["fast", "exact"] = "exact"
    votes: bool = False
    widths: tuple[int, int] = (4, 8)
    steps: int | None = None
    optim: Optim = Optim(lr=1e-4)
    prm_optim: Optim = Optim(lr=1e-3)
    sampling: Sampling = Sampling(n=4)
    lora: LoraConfig | None = None


def test_groups_check_their_ranges():
    with pytest.raises(UserError, match=r"lr: got 0, expected above 0"):
        Optim(lr=0)
    with pytest.raises(UserError, match=r"top_p: got 1\.5, expected above 0 and at most 1"):
        Sampling(top_p=1.5)
    with pytest.raises(UserError, match="lr: got nan"):
        Optim(lr=float("nan"))
    assert Optim(max_grad_norm=None).max_grad_norm is None
    assert LoraConfig(rank=8).scale == 16
    assert LoraConfig(rank=8, alpha=4).scale == 4


def test_dotted_short_dashed_and_nested_keys_mean_the_same():
    wanted = settings.from_dict(Config, {"optim": {"lr": 0.5}, "sampling": {"max_new": 3}})
    assert settings.from_dict(Config, {"optim.lr": "0.5", "sampling.max-new": "3"}) == wanted
    assert settings.from_dict(Config, {"lr": 0.5, "max_new": 3}) == wanted
    assert wanted.optim.weight_decay == Optim().weight_decay
    assert wanted.prm_optim.lr == 1e-3  # --lr is the shared group's, not every group's


def test_a_name_in_two_unshared_groups_has_no_short_form():
    @dataclass(frozen=True)
    class Two:
        left: Optim = Optim()
        right: Optim = Optim()

    assert "lr" not in settings.short_names(settings.leaves(Two))
    with pytest.raises(UserError, match=r"unknown setting 'lr'"):
        settings.from_dict(Two, {"lr": 1})


def test_values_are_converted_only_where_nothing_is_lost():
    given = {"lr": "1e-3", "n": 7.0, "votes": "yes", "widths": "1,2", "steps": "none", "lora.rank": 2}
    cfg = settings.from_dict(Config, {**given, "reward": ["a(b=1,c=2)", "d=0.5"]})
    assert (cfg.optim.lr, cfg.sampling.n, cfg.votes, cfg.widths, cfg.steps) == (1e-3, 7, True, (1, 2), None)
    assert isinstance(cfg.sampling.n, int)
    assert cfg.reward == ("a(b=1,c=2)", "d=0.5")
    assert cfg.lora == LoraConfig(rank=2)
    assert settings.from_dict(Config, {"reward": "f(a=1,b=2)"}).reward == ("f(a=1,b=2)",)  # commas belong to the value
    for wrong in ({"n": 1.5}, {"n": True}, {"beta": "x"}, {"votes": 2}, {"widths": "1,2,3"}, {"model": 3}, {"n": None}):
        with pytest.raises(UserError, match=rf"{next(iter(wrong))}: got "):
            settings.from_dict(Config, wrong)


@pytest.mark.parametrize(
    ("wrong", "message", "hint"),
    [
        ({"bta": 1}, "unknown setting 'bta'", "did you mean 'beta'"),
        ({"optim": {"lrr": 1}}, "unknown setting 'optim.lrr'", "did you mean 'lr'"),
        ({"mode": "exct"}, "mode: got 'exct', expected fast | exact", "did you mean 'exact'"),
        ({"beta": 3}, "beta: got 3.0, expected above 0 and at most 1", "the leash"),
        ({"sampling.n": 0}, "sampling.n: got 0, expected at least 1", "responses to each prompt"),
    ],
)
def test_wrong_settings_say_which_and_what_instead(wrong, message, hint):
    with pytest.raises(UserError) as caught:
        settings.from_dict(Config, wrong)
    first, _, second = str(caught.value).partition("\nhint: ")
    assert first == message
    assert hint in second


def test_a_required_field_must_be_given():
    @dataclass(frozen=True)
    class Needs:
        path: str

    with pytest.raises(UserError, match="path has no default"):
        settings.from_dict(Needs, {})
    assert settings.leaves(Needs)[0].default is MISSING


def test_config_json_and_yaml_load_again(tmp_path: Path):
    made = settings.with_run(Config)
    cfg = settings.from_dict(made, {"lr": 3e-5, "seed": 4, "beta": 1.0, "lora.rank": 2, "trackers": "wandb,mlflow"})
    saved = tmp_path / "config.json"
    saved.write_text(json.dumps({"paper": "x", "config": settings.to_dict(cfg)}))
    assert settings.from_dict(made, settings.read_file(saved)) == cfg
    yaml = tmp_path / "c.yaml"
    yaml.write_text("beta: 1e-1\noptim:\n  lr: 2e-5\nsampling.n: 2\nreward: [a, b=0.5]\n")
    read = settings.from_dict(Config, settings.read_file(yaml))
    assert (read.beta, read.optim.lr, read.sampling.n, read.reward) == (0.1, 2e-5, 2, ("a", "b=0.5"))
    for name, text, match in (("b.yaml", "a: [", "not YAML"), ("b.json", "{", "not JSON"), ("l.yaml", "- 1", "holds a list")):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=match):
            settings.read_file(tmp_path / name)
    with pytest.raises(UserError, match="cannot read"):
        settings.read_file(tmp_path / "none.yaml")


def test_infinity_survives_json(tmp_path: Path):
    @dataclass(frozen=True)
    class Wide:
        bound: float = float("inf")

    text = json.dumps(settings.to_dict(Wide()), allow_nan=False)
    assert settings.from_dict(Wide, json.loads(text)) == Wide()


def test_the_run_group_has_no_second_place_for_what_the_method_has():
    made = settings.with_run(Config)
    paths = {leaf.path for leaf in settings.leaves(made)}
    assert "steps" in paths
    assert "run.steps" not in paths
    assert "run.seed" in paths
    cfg = settings.from_dict(made, {"steps": 5, "seed": 3})
    assert isinstance(cfg, Config)
    assert (cfg.steps, settings.to_dict(cfg)["run"]["seed"]) == (5, 3)
    assert settings.with_run(made) is made


def test_describe_names_defaults_and_units():
    rows = {row[0]: row for row in settings.describe(Config)}
    assert rows["beta"] == ("beta", "number", "0.1", "the leash [nats]")
    assert rows["optim.warmup"][3].endswith("[updates]")
    assert rows["steps"][1:3] == ("whole number or none", "none")
    assert rows["mode"][1] == "fast | exact"


@pytest.mark.parametrize("group", [Optim, Sampling, LoraConfig, Run])
def test_shared_groups_explain_every_field(group):
    for f in fields(group):
        assert f.metadata["help"], f.name


@pytest.mark.parametrize("name", catalog.names())
def test_every_method_config_round_trips_and_explains_itself(name):
    made = settings.with_run(catalog.load(name).Config)
    cfg = settings.from_dict(made, {})
    assert settings.from_dict(made, json.loads(json.dumps(settings.to_dict(cfg), allow_nan=False))) == cfg
    assert [row[0] for row in settings.describe(made) if not row[3]] == []
    assert len(fields(catalog.load(name).Config)) <= 20


def test_yaml_s_off_is_explained(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("ref_cache: off\n")
    with pytest.raises(UserError, match="ref_cache: got False, expected text") as error:
        settings.from_dict(Run, settings.read_file(path))
    assert "quote the word" in str(error.value)
    path.write_text("ref_cache: 'off'\n")
    assert settings.from_dict(Run, settings.read_file(path)).ref_cache == "off"
