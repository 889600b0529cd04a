"""The command line, run as a user runs it (in this process where start-up is not the point)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest

import guerdon
from guerdon import catalog, types
from guerdon.assemble import configure, reopen
from guerdon.cli import main
from guerdon.errors import UserError

METHOD = '''"""A method for tests: counts."""
from dataclasses import dataclass
from guerdon.config import Checked, knob
from guerdon.core.rng import Key
from guerdon.types import Claim, Metrics, Paper, Recipe, Trial

PAPER = Paper("Counting", "0000.00001", 2024, "test", idea="count", uses=("prompts",), claim="counting " "counts", domain="text")

@dataclass(frozen=True)
class Config(Checked):
    data: str = knob("prompts.jsonl", "prompts")
    steps: int = knob(4, "steps", at_least=1)
    batch: int = knob(2, "prompts a step", at_least=1)
    fail_at: int = knob(-1, "raise KeyboardInterrupt at this step")

class Count:
    n = 0
    def state_dict(self): return {"n": self.n}
    def load_state_dict(self, state): self.n = state["n"]

def build(cfg, prompts, key):
    count = Count()
    def step(t):
        if t == cfg.fail_at and count.n == t:
            raise KeyboardInterrupt
        count.n += 1
        return Metrics({"reward": float(count.n)}, [{"prompt": prompts[0].content, "text": str(t), "reward": 1.0}])
    def final(folder):
        (folder / "count.txt").write_text(f"{count.n} {key.seed}")
    return Recipe({"count": count}, step, cfg.steps, final=final, facts={"own": 1})

CLAIM = Claim("counting", "not counting", "count", "up", 0.5, "on fingers", (0, 1))

def trial(seed):
    return Trial([0.0] * 6, [1.0] * 6, {"fingers": 10})
'''


@pytest.fixture
def method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder with a method and prompts, made the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    (tmp_path / "count.py").write_text(METHOD)
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"Hello {i}"}) + "\n" for i in range(5)))
    return "count.py"


def run(*argv: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(list(argv))
    out, err = capsys.readouterr()
    return code, out, err


# ---------------------------------------------------------------- start-up


def loaded_by(code: str) -> tuple[set[str], float]:
    began = time.perf_counter()
    script = f"import sys, time; t = time.perf_counter()\n{code}\nprint(time.perf_counter() - t); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=100)
    assert time.perf_counter() - began < 60
    *_, seconds, names = done.stdout.strip().splitlines()
    return set(names.split()), float(seconds)


IMPORT = "import guerdon; dir(guerdon)"
VERSION = "import guerdon.cli; guerdon.cli.main(['--version'])"
PAPERS = "import guerdon.cli; guerdon.cli.main(['papers'])"


@pytest.mark.parametrize("code", [IMPORT, VERSION, PAPERS])
def test_starting_needs_no_torch(code: str):
    # argparse leaves by SystemExit after --version.
    names, seconds = loaded_by("try:\n " + code + "\nexcept SystemExit: pass")
    assert not names & {"torch", "numpy", "transformers", "matplotlib", "pyarrow"}
    assert seconds < 5  # 0.3 s on an idle machine


def test_help_starts_without_rich_either():
    names, _ = loaded_by("from guerdon.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass")
    assert not names & {"torch", "rich", "yaml", "jinja2"}


def test_python_dash_m_works():
    done = subprocess.run([sys.executable, "-m", "guerdon", "reproduce"], capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert "hint:" in done.stderr


# ---------------------------------------------------------------- listing


def test_papers_lists_every_module(capsys):
    code, out, _ = run("papers", "--json", capsys=capsys)
    found = json.loads(out)
    assert code == 0
    assert [card["name"] for card in found] == catalog.names()
    assert {"name", "title", "arxiv", "family", "idea", "claim"} <= set(found[0])


@pytest.mark.parametrize("name", catalog.names())
def test_the_card_read_from_text_is_the_module_s(name):
    paper = catalog.load(name).paper
    card = catalog.card(name)
    for f in fields(types.Paper):
        assert getattr(card, f.name) == getattr(paper, f.name), f.name


def test_show_tells_settings_defaults_units_and_full_size(capsys):
    code, out, _ = run("show", "dpo", "--json", capsys=capsys)
    shown = json.loads(out)
    assert code == 0
    rows = {row["setting"]: row for row in shown["config"]}
    assert rows["batch"]["meaning"].endswith("[pairs]")
    assert rows["beta"]["default"] == "0.1"
    code, out, _ = run("show", "dpo", capsys=capsys)
    assert "--max-grad-norm" in out
    assert shown["full_size"].split()[2] in out


# ---------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        (["runn"], "unknown command 'runn'", "did you mean 'run'"),
        (["show", "grop"], "unknown method 'grop'", "did you mean 'grpo'"),
        (["run", "grop", "--lr", "1"], "unknown method 'grop'", "did you mean 'grpo'"),
        (["run", "grpo", "--stpes", "1"], "unknown flag '--stpes'", "did you mean 'steps'"),
        (["run", "grpo", "--n", "x"], "sampling.n: got 'x', expected whole number", "--sampling.n"),
        (["run", "grpo", "--lr", "-1"], "optim.lr: got -1.0, expected above 0", "learning rate"),
        (["check", "nothing.py"], "no file nothing.py", "grpo"),
        (["resume", "nowhere"], "nowhere holds no run", "--out"),
        (["report", "nowhere"], "no folder nowhere", "--out"),
        (["reproduce", "grop"], "unknown claim for 'grop'", "did you mean 'grpo'"),
        (["reproduce", "grpo", "--seeds", "a"], "--seeds 'a'", "0,1,2"),
        (["papers", "--jso"], "unrecognized arguments: --jso", "guerdon --help"),
    ],
)
def test_wrong_input_exits_with_2_and_the_fix(argv, message, hint, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*argv, capsys=capsys)
    first, _, second = err.partition("\nhint: ")
    assert code == 2
    assert message in first
    assert hint in second
    assert out == ""


def test_unknown_key_in_a_file_names_the_nearest(method, capsys):
    Path("c.yaml").write_text("stepz: 3\n")
    code, _, err = run("check", method, "--config", "c.yaml", capsys=capsys)
    assert code == 2
    assert "unknown setting 'stepz'\nhint: did you mean 'steps'" in err


def test_unknown_model_reward_tracker_and_broken_rows(method, capsys):
    for argv, message in (
        (["grpo", "--data", "prompts.jsonl", "--reward", "vadr"], "unknown reward 'vadr'"),
        (["grpo", "--data", "prompts.jsonl", "--reward", "length", "--model", "tinny"], "no model of this name: 'tinny'"),
        (["grpo", "--data", "promts.jsonl"], "promts.jsonl"),
    ):
        code, _, err = run("check", *argv, capsys=capsys)
        assert code == 2
        assert message in err
        assert "hint:" in err
    Path("prompts.jsonl").write_text('{"prompt": "a"}\n{"prompt": \n')
    code, _, err = run("check", method, capsys=capsys)
    assert code == 2
    assert "2" in err.partition("hint:")[0]


def test_a_reward_that_gives_text_is_stopped_before_any_model(method, capsys):
    Path("r.py").write_text("def says(prompt, text):\n    return 'good'\n")
    code, _, err = run("run", "grpo", "--data", "prompts.jsonl", "--reward", "r.py:says", "--model", "no/such/model/here", capsys=capsys)
    assert code == 2
    assert "says" in err
    assert "no/such/model" not in err


# ---------------------------------------------------------------- check, run, resume


def test_run_help_lists_the_method_s_own_settings(capsys):
    with pytest.raises(SystemExit) as left:
        main(["run", "grpo", "--help"])
    out = capsys.readouterr().out
    assert left.value.code == 0
    for flag in ("--kl-grad {k2,k3,reward}", "--lr, --optim.lr", "--trackers", "--seed", "(default: 0.04)"):
        assert flag in " ".join(out.split()).replace(" X", "")


def test_check_prints_the_arithmetic_and_trains_nothing(method, capsys):
    code, out, _ = run("check", method, "--steps", "10", capsys=capsys)
    assert code == 0
    assert "steps an epoch: 5 prompts / 2 = 2.5" in out
    assert "passes over the prompts: 4.00" in out
    assert "* steps: 10" in out
    assert "Hello 0" in out
    assert not Path("runs").exists()


def test_run_writes_the_run_folder_and_resume_goes_on(method, capsys):
    code, _, err = run("run", method, "--out", "o", "--seed", "7", "--fail_at=2", "--save-every", "1", capsys=capsys)
    assert code == 130
    assert "guerdon resume o" in err
    assert not Path("o/final").exists()
    code, _, _ = run("resume", "o", capsys=capsys)
    assert code == 130  # the method asks for it again: it went on at step 2, not at 0
    saved = json.loads(Path("o/config.json").read_text())
    assert saved["config"]["fail_at"] == 2
    assert saved["config"]["run"]["seed"] == 7
    Path("o/config.json").write_text(json.dumps({**saved, "config": {**saved["config"], "fail_at": -1}}))
    code, _, err = run("resume", "o", capsys=capsys)
    assert code == 0
    assert Path("o/final/count.txt").read_text() == "4 7"
    rows = [json.loads(line) for line in Path("o/metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["reward"]) for row in rows] == [(t, t + 1.0) for t in range(4)]
    facts = json.loads(Path("o/manifest.json").read_text())["facts"]
    assert facts["own"] == 1
    assert facts["data"]["prompts"]["items"] == 5
    assert "Hello 0" in facts["first"]
    code, _, _ = run("report", "o", capsys=capsys)
    assert code == 0
    assert Path("o/report.html").stat().st_size > 5000
    code, _, err = run("run", method, "--out", "o", "--seed", "8", capsys=capsys)
    assert code == 2
    assert "another configuration" in err
    assert "run.seed" in err


def test_the_folder_of_the_reference_cache_is_kept_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, cfg = configure("dpo", {"ref_cache": "cache"})
    assert cfg.run.ref_cache == str(tmp_path / "cache")
    assert configure("dpo", {"ref_cache": "off"})[1].run.ref_cache == "off"


def test_a_run_goes_on_from_another_folder(method, capsys, monkeypatch):
    Path("asked.jsonl").write_text('{"prompt": "Hello"}\n')
    code, _, _ = run("run", method, "--out", "o", "--data", "asked.jsonl", "--fail_at=2", "--save-every", "1", capsys=capsys)
    assert code == 130
    out = Path("o").absolute()
    saved = json.loads(Path("o/config.json").read_text())
    Path("o/config.json").write_text(json.dumps({**saved, "config": {**saved["config"], "fail_at": -1}}))
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert run("resume", str(out), capsys=capsys)[0] == 0
    assert (out / "final" / "count.txt").exists()


def test_profile_prints_a_table_and_is_no_setting(method, capsys):
    assert main(["run", method, "--out", "timed", "--profile"]) == 0
    out = capsys.readouterr().out
    assert "where the time went" in out and "saving" in out and "4 steps" in out
    assert "peak memory" in out and "s a step" in out
    assert json.loads(Path("timed/profile.json").read_text())["steps"] == 4
    assert main(["run", method, "--out", "plain"]) == 0
    assert "where the time went" not in capsys.readouterr().out
    assert Path("plain/config.json").read_text() == Path("timed/config.json").read_text()
    assert main(["resume", "plain", "--profile"]) == 0  # the same run: nothing is refused, and nothing is left to do
    assert not Path("plain/profile.json").exists() and "where the time went" not in capsys.readouterr().out


def test_a_folder_does_not_hide_a_reward_of_its_name(method, capsys):
    Path("length").mkdir()
    code, out, _ = run("check", "grpo", "--data", "prompts.jsonl", "--reward", "length", capsys=capsys)
    assert code == 0
    assert "reward model" not in out


def test_config_json_of_a_run_is_a_config_file(method, capsys):
    assert run("run", method, "--out", "a", "--steps", "3", capsys=capsys)[0] == 0
    assert run("run", method, "--out", "b", "--config", "a/config.json", capsys=capsys)[0] == 0
    assert run("run", method, "--out", "c", "--config", "a/config.json", "--steps", "1", capsys=capsys)[0] == 0
    assert json.loads(Path("a/config.json").read_text()) == json.loads(Path("b/config.json").read_text())
    assert len(Path("c/metrics.jsonl").read_text().splitlines()) == 1


def test_a_base_model_without_a_template_runs_and_stops_where_it_is_told(tmp_path, monkeypatch, capsys):
    from guerdon.testing.models import small_model, small_tokenizer

    monkeypatch.chdir(tmp_path)
    small_model(tmp_path / "base", "gemma3_text", tokenizer=small_tokenizer(template=None, bos=True))
    rows = [{"prompt": [{"role": "user", "content": f"What is {i} plus 30?"}]} for i in range(4)]
    Path("asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("judge.py").write_text("def short(completions, **_):\n    return [-float(len(c)) for c in completions]\n")
    argv = ("rloo", "--model", "base", "--data", "asked.jsonl", "--reward", "judge.py:short", "--batch", "2", "--n", "4", "--max-new", "8")
    code, _, err = run("run", *argv, "--steps", "2", "--stop", "\n", "--stop", ",", "--out", "o", capsys=capsys)
    assert code == 0, err
    facts = json.loads(Path("o/manifest.json").read_text())["facts"]
    assert "What is 0 plus 30?" in facts["first"]
    assert json.loads(Path("o/final/guerdon.json").read_text())["stop_tokens"] == ["<|end|>", "\u010a", ","]
    texts = [json.loads(line)["text"] for line in Path("o/samples.jsonl").read_text().splitlines()]
    assert texts and not any("\n" in text or "," in text for text in texts)


def test_runs_go_to_new_folders_by_default(method, capsys):
    for _ in range(2):
        assert run("run", method, "--steps", "1", capsys=capsys)[0] == 0
    assert sorted(p.name for p in Path("runs").iterdir()) == ["count", "count-2"]


# ---------------------------------------------------------------- reproduce


def test_reproduce_exits_0_only_when_it_holds(method, capsys):
    code, out, _ = run("reproduce", method, "--json", capsys=capsys)
    found = json.loads(out)
    assert code == 0
    assert found["holds"] is True
    assert found["paper_claim"] == "counting counts"
    assert (found["baseline"], found["method"], found["margin"]) == (0.0, 1.0, 0.5)
    code, out, _ = run("reproduce", method, "--seeds", "3", capsys=capsys)
    assert code == 0
    for words in ("claim: counting counts", "setting: on fingers", "seed 3: baseline 0, method 1", "fingers 10", "p-value", "holds: yes"):
        assert words in out
    Path("count.py").write_text(METHOD.replace("[1.0] * 6", "[0.1] * 6"))
    Path("other.py").write_text(Path("count.py").read_text())
    code, out, _ = run("reproduce", "other.py", capsys=capsys)
    assert code == 1
    assert "holds: no" in out


# ---------------------------------------------------------------- Python


def test_train_in_one_call(method):
    summary = guerdon.train(method, data=[{"prompt": "a"}, {"prompt": "b"}], steps=2, out="py", progress=False)
    assert summary.steps == 2
    assert (summary.final / "count.txt").read_text() == "2 0"
    saved = json.loads(Path("py/config.json").read_text())
    assert saved["config"]["data"] == "python:2 rows"
    assert json.loads(Path("py/manifest.json").read_text())["facts"]["data"]["prompts"]["items"] == 2
    with pytest.raises(UserError, match="data was a Python object"):
        reopen("py")
    with pytest.raises(UserError, match="unknown setting 'stepz'"):
        guerdon.train(method, stepz=2)


def test_public_names_load_when_used():
    for name in guerdon._MODULE:
        assert getattr(guerdon, name) is not None
    assert {"train", "Rollout", "Score", "pointwise"} <= set(dir(guerdon))
    with pytest.raises(AttributeError):
        guerdon.no_such_name  # noqa: B018


def test_cards_must_be_readable_without_running(tmp_path: Path):
    path = tmp_path / "m.py"
    for text, match in (
        ("x = 1", "has no card"),
        ("PAPER = Paper(title='a')", "PAPER lacks arxiv"),
        ("PAPER = Paper(title=name)", "must be a literal"),
        ("PAPER = Paper(titel='a')", "no field 'titel'"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=match):
            catalog.read_card(path)
