"""Explicit against implicit: the order of the two trainings, the match at home, the table, a kill at any place."""

import json

import pytest

from guerdon import cli
from guerdon.config import Optim
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.evaluate.shift import judged
from guerdon.evaluate.tables import TABLE
from guerdon.learn.run import run
from guerdon.papers import exrm_vs_dporm
from guerdon.policies.heads import Scorer
from guerdon.policies.refs import Frozen
from guerdon.policies.text import TextPolicy
from guerdon.rewards import ImplicitReward, ScalarModelReward
from guerdon.testing import check_recipe
from guerdon.testing.models import small_model
from guerdon.types import Preference, Prompt, Rollout

GOOD, BAD = ("great", "very kind", "worth it", "great food"), ("dull", "too late", "no plot", "a dull film")


def pairs(n: int, word: str = "food") -> list[Preference]:
    out = []
    for i in range(n):
        prompt = Prompt(f"{word}{i}", f"The {word}?")
        out.append(Preference(prompt, (Rollout(prompt, GOOD[i % 4]), Rollout(prompt, BAD[(i // 4) % 4]))))
    return out


@pytest.fixture
def rows(tmp_path):
    """Files of pairs: train, at home, away."""

    def write(name: str, word: str, n: int) -> str:
        path = tmp_path / f"{name}.jsonl"
        lines = [{"prompt": f"The {word}?", "chosen": p.ranked[0].content, "rejected": p.ranked[1].content} for p in pairs(n, word)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return str(path)

    return write("train", "food", 16), write("home", "food", 8), write("away", "mill", 8)


@pytest.fixture
def model(tmp_path):
    return small_model(tmp_path / "model")


def built(model: str, rows, **changes):
    usual = {"held_out": rows[1:], "batch": 4, "epochs": 1.0, "explicit_epochs": 2.0, "match": 0.25, "look": 2, "gap": 0.0}
    usual |= {"optim": Optim(lr=1e-3), "explicit_optim": Optim(lr=1e-3)}
    cfg = exrm_vs_dporm.Config(**{**usual, **changes})
    policy, scorer = TextPolicy.load(model), Scorer.load(model, key=Key(0))
    return exrm_vs_dporm.build(cfg, policy, scorer, pairs(16), Key(0)), policy, scorer


def test_first_the_policy_then_the_explicit_model_until_they_match(model, rows):
    recipe, *_ = built(model, rows, explicit_epochs=20.0)
    assert recipe.steps == 3 + 60
    metrics = [recipe.step(t) for t in range(recipe.steps)]
    learners = recipe.state["implicit"], recipe.state["explicit"]
    target, last = metrics[2]["validation/implicit"], [m["validation/explicit"] for m in metrics if "validation/explicit" in m]
    made = next(t for t, m in enumerate(metrics) if m.get("skipped")) - 3
    assert learners[0].updates == 3
    assert learners[1].updates == made == 2 * len(last) < 60
    assert all(x < target for x in last[:-1]) and last[-1] >= target
    assert all(m.get("skipped") for m in metrics[3 + made :])


def test_without_a_match_both_train_to_the_end(model, rows):
    recipe, *_ = built(model, rows, match=0.0)
    metrics = [recipe.step(t) for t in range(recipe.steps)]
    assert [recipe.state[name].updates for name in ("implicit", "explicit")] == [4, 8]
    assert not any("skipped" in m or any(name.startswith("validation") for name in m) for m in metrics)


def test_the_table_is_what_the_saved_models_say(model, rows, tmp_path):
    summary = run(built(model, rows)[0], tmp_path / "run")
    data = json.loads((summary.final / "table.json").read_text())
    assert [row["distribution"] for row in data["rows"]] == ["train", *rows[1:], "mean of the shifted", "shifted minus home"]
    start, policy = Frozen(TextPolicy.load(model)), TextPolicy.load(summary.final / "implicit")
    rewards = [ScalarModelReward(Scorer.load(summary.final / "explicit")), ImplicitReward(policy, start, 0.1)]
    away = judged("away", pairs(8, "mill"), rewards).accuracy.tolist()
    assert [data["rows"][2][name] for name in ("explicit", "implicit")] == pytest.approx(away)
    assert summary.metrics[f"drop/{rows[2]}"] == pytest.approx(away[0] - away[1])
    assert "To label the next pairs" in (summary.final / TABLE).read_text()


@pytest.mark.parametrize("changes", [{}, {"length_norm": True}])
def test_a_killed_run_ends_the_same(model, rows, changes):
    check_recipe(lambda: built(model, rows, **changes)[0], steps=8)


def test_it_runs_from_the_command_line_and_prints_its_table(model, rows, tmp_path, capsys):
    flags = ["--model", model, "--data", rows[0], "--held-out", f"{rows[1]},{rows[2]}", "--gap", "0", "--batch", "4"]
    assert cli.main(["run", "exrm_vs_dporm", *flags, "--out", str(tmp_path / "run"), "--device", "cpu"]) == 0
    assert "mean of the shifted" in capsys.readouterr().out
    assert (tmp_path / "run" / "final" / "table.csv").is_file()


def test_wrong_data_is_refused(model, rows):
    with pytest.raises(UserError, match="nowhere"):
        built(model, ("", "nowhere.jsonl"))
