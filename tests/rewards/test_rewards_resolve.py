import json
from textwrap import dedent

import pytest
import torch

from guerdon.errors import UserError
from guerdon.rewards import ScalarModelReward, pointwise, resolve_rewards
from guerdon.rewards.model import Identity
from guerdon.rewards.resolve import Spec
from guerdon.types import Prompt, Rollout


def rows(*texts):
    return [Rollout(Prompt(f"p{i}", "q", {"answer": "4"}), t) for i, t in enumerate(texts)]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    (tmp_path / "helper_of_rewards.py").write_text("FACTOR = 3\n")
    (tmp_path / "my_rewards.py").write_text(
        dedent("""
        from helper_of_rewards import FACTOR
        def shout(prompt, text, scale=1.0):
            return scale * FACTOR * text.count("!")
        def batch(completions, **kw):
            return [float(len(c)) for c in completions]
        """)
    )
    return tmp_path


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("math", ("math", {}, 1.0)),
        ("math=1", ("math", {}, 1.0)),
        ("format=0.2", ("format", {}, 0.2)),
        ("length=-1e-2", ("length", {}, -0.01)),
        ('length(limit=400, unit="words")=0.1', ("length", {"limit": 400, "unit": "words"}, 0.1)),
        ('regex(pattern="a=1")', ("regex", {"pattern": "a=1"}, 1.0)),
        ('regex(pattern="(a)=2")=3', ("regex", {"pattern": "(a)=2"}, 3.0)),
        ("dir/r.py:f=0.5", ("dir/r.py:f", {}, 0.5)),
        ("pkg.mod:f(tags=('a','b'))", ("pkg.mod:f", {"tags": ("a", "b")}, 1.0)),
    ],
)
def test_syntax(text, spec):
    parsed = Spec.parse(text)
    assert (parsed.what, dict(parsed.settings), parsed.weight) == spec


@pytest.mark.parametrize("text", ["math=abc", "math=", "math=nan", "=1", "", "length(400)", "length(limit=)", "length(limit=foo)"])
def test_bad_syntax(text):
    with pytest.raises(UserError, match="\nhint: "):
        Spec.parse(text)


def test_builtins_files_and_weights_make_one_reward_with_named_parts(here):
    found = resolve_rewards(["exact_match=2", "my_rewards.py:shout(scale=0.5)=0.5", "my_rewards:batch=0.1"])
    scores = found.reward(rows("4", "5!!"))
    assert [s.value for s in scores] == pytest.approx([2.1, 1.5 + 0.3])
    assert dict(scores[1].parts) == {"exact_match": 0.0, "shout": 3.0, "batch": 3.0}
    assert [f["kind"] for f in found.facts] == ["builtin", "file", "module"]
    assert [f["weight"] for f in found.facts] == [2.0, 0.5, 0.1]
    assert all(len(f["digest"]) == 64 for f in found.facts)
    json.dumps(found.facts)
    assert "rewards/shout/abstained" in found.reward.metrics()
    assert "rewards/reward/seconds" in found.reward.metrics()


def test_python_objects_and_repeated_names():
    found = resolve_rewards([pointwise(lambda text: 1.0), lambda text: 2.0, "length(limit=4)", "length(limit=8)"])
    (score,) = found.reward(rows("a b"))
    assert set(score.parts) == {"lambda", "lambda_2", "length", "length_2"}
    assert score.value == pytest.approx(3 - 0.5 - 0.25)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("exact_mach", r"unknown reward 'exact_mach'.*did you mean 'exact_match'"),
        ("nothere.py:f", r"the file 'nothere.py' does not exist.*current folder"),
        ("my_rewards.py:shuot", r"has no 'shuot'.*did you mean 'shout'"),
        ("my_rewards.py", r"without a function; it defines: shout, batch.*write my_rewards.py:function"),
        ("broken.py:f", r"broken.py:2: SyntaxError|broken.py:2: "),
        ("raising.py:f", r"raising.py:2: ZeroDivisionError"),
        ("no_such_module:f", r"there is no module 'no_such_module'.*no_such_module.py:function"),
        ("needs_more.py:f", r"needs_more.py:1: ModuleNotFoundError"),
        ("./runs/rm", r"there is no folder './runs/rm'"),
        ("empty_dir", r"no config.json"),
        ("model_dir", r"no loader"),
        ("length(limt=3)", r"no setting 'limt'.*did you mean 'limit'"),
        ("math(foo=3)", r"'math' has no setting 'foo'"),
        ("my_rewards.py:shout(scael=3)", r"no parameter 'scael'.*did you mean 'scale'"),
    ],
)
def test_errors_show_the_way_out(here, spec, message):
    (here / "broken.py").write_text("x = 1\ndef f(:\n")
    (here / "raising.py").write_text("x = 1\n1 / 0\n")
    (here / "needs_more.py").write_text("import not_installed_anywhere\n")
    (here / "empty_dir").mkdir()
    (here / "model_dir").mkdir()
    (here / "model_dir" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=f"(?s){message}") as error:
        resolve_rewards([spec])
    assert "\nhint: " in str(error.value)


def test_no_reward_lists_the_builtins():
    with pytest.raises(UserError, match=r"built in: .*exact_match"):
        resolve_rewards([])


class LengthScorer:
    def score(self, rollouts):
        return torch.tensor([float(len(r.content)) for r in rollouts])


def test_a_model_folder_goes_to_the_loader_and_into_the_manifest(tmp_path):
    folder = tmp_path / "rm" / "final"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    found = resolve_rewards([f"{folder}(mean=2.0, std=4.0)=0.5"], load_scorer=lambda path: LengthScorer())
    (score,) = found.reward(rows("a" * 10))
    assert score.value == pytest.approx(0.5 * (10 - 2) / 4)
    assert dict(score.parts) == {"rm": 2.0, "rm/raw": 10.0}
    (fact,) = found.facts
    assert (fact["kind"], fact["digest"], fact["mean"]) == ("model", Identity.of(folder).digest, 2.0)
    (folder / "weights").write_bytes(b"1")
    assert Identity.of(folder).digest != fact["digest"]
    ready = ScalarModelReward(LengthScorer(), mean=1.0, std=1.0, identity=Identity("x", "y"))
    assert resolve_rewards([str(folder)], load_scorer=lambda path: ready).reward(rows("aaa"))[0].value == 2.0
