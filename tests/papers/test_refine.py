"""REFINE: its stages, what each of them learns from, resuming, and the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from guerdon import cli
from guerdon.config import Optim
from guerdon.core.rng import Key
from guerdon.learn.continuing import Continuations
from guerdon.papers import refine
from guerdon.policies.text import TextPolicy
from guerdon.testing import check_recipe
from guerdon.testing.models import CORPUS, small_model
from guerdon.testing.toys import ToyPolicy
from guerdon.types import Prompt, Rollout

HOW = Continuations(chunks=2, tokens=3, n=2, least=4, last=4, likeness="hybrid", scale="batch")
TEXTS = [Rollout(Prompt(str(i), ""), line, end="length") for i, line in enumerate(CORPUS)]
ASKED = [Rollout(Prompt(str(i), line), answer) for i, (line, answer) in enumerate(zip(CORPUS, ("yes", "no", "42", "far"), strict=True))]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return small_model(tmp_path_factory.mktemp("model"))


def config(**changes: Any) -> refine.Config:
    usual: dict[str, Any] = dict(length=24, batch=2, steps=4, continuations=HOW, optim=Optim(lr=1e-3), max_new=4)
    return refine.Config(**{**usual, **changes})


def policy(model: str) -> TextPolicy:
    return TextPolicy.load(model, raw=True)


@pytest.mark.parametrize(
    ("changes", "terms"),
    [
        ({}, {"loss/ntp", "loss/nsp"}),
        ({"lam_rl": 0.0}, {"loss/ntp"}),
        ({"minibatches": 2, "passes": 2}, {"loss/ntp", "loss/nsp"}),
    ],
)
def test_mid_training(model, changes, terms):
    recipe = refine.build(config(**changes), policy(model), TEXTS, Key(0))
    found = [recipe.step(t) for t in range(recipe.steps)]
    assert {name for name in found[0] if name.startswith("loss/")} == terms
    learner: Any = recipe.state["learner"]
    assert learner.updates == 4 * changes.get("minibatches", 1) * changes.get("passes", 1)


def test_next_token_prediction_alone_is_likelihood(model):
    """With `lam_rl` 0 the loss is the mean negative log-likelihood of every token but the first."""
    writer = policy(model)
    recipe = refine.build(config(lam_rl=0.0, length=0, batch=4), writer, TEXTS, Key(0))
    ids = [torch.tensor([writer.tokenizer(line).input_ids]) for line in CORPUS]
    with torch.no_grad():
        logp = [writer.model(input_ids=x).logits[0, :-1].log_softmax(-1).gather(1, x[0, 1:, None]) for x in ids]
    assert recipe.step(0)["loss/ntp"] == pytest.approx(-float(torch.cat(logp).mean()), abs=1e-4)


def test_post_training_updates_twice(model):
    """First on the prompts, then on the answers, whose loss falls."""
    recipe = refine.build(config(stage="post", batch=4, steps=10, optim=Optim(lr=1e-2)), policy(model), ASKED, Key(0))
    found = [recipe.step(t) for t in range(recipe.steps)]
    learner: Any = recipe.state["learner"]
    assert learner.updates == 20
    assert found[0]["loss/nsp"] != 0
    assert found[-1]["answers/loss/sft"] < 0.5 * found[0]["answers/loss/sft"]


@pytest.mark.parametrize("reset", [True, False])
def test_test_time_training_forgets_or_not(model, tmp_path, reset):
    """Undone between batches, the second one is what it would be without the first; kept, it is not."""

    def recipe() -> Any:
        return refine.build(config(stage="test", reset_between_batches=reset, passes=2), policy(model), ASKED, Key(0))

    alone, made = recipe().step(1), recipe()
    assert made.steps == 2, "each prompt once"
    _, second = made.step(0), made.step(1)
    assert made.state["learner"].updates == (2 if reset else 4)
    assert (second["loss/ntp"] == alone["loss/ntp"]) is reset
    assert {"answers/exact", "answers/contained"} <= set(second)
    made.final(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [row["gold"] for row in rows] == ["yes", "no", "42", "far"]


def test_prompts_too_short_to_cut_are_answered_all_the_same(model):
    asked = [*ASKED[:2], Rollout(Prompt("s", "A"), "b"), Rollout(Prompt("t", "B"), "c")]
    with pytest.warns(UserWarning, match="2 of 4 texts"):
        recipe = refine.build(config(stage="test"), policy(model), asked, Key(0))
    recipe.step(0)
    assert recipe.step(1)["skipped"] == 1
    assert len(recipe.state["answers"].items) == 4  # type: ignore[attr-defined]


@pytest.mark.parametrize("stage", ["mid", "post", "test"])
def test_every_stage_survives_a_kill(model, stage):
    data = TEXTS if stage == "mid" else ASKED
    check_recipe(lambda: refine.build(config(stage=stage, batch=2 if stage != "test" else 1), policy(model), data, Key(0)), steps=4)


def test_the_reward_is_learnt():
    """On one text alone, and without next-token prediction, sampled continuations come nearer to it."""
    texts = [Rollout(Prompt(str(i), "A"), "abcdabc", end="length") for i in range(4)]
    how = Continuations(chunks=2, tokens=3, n=8, least=1, last=3, likeness="binary", scale="batch")
    cfg = config(length=0, batch=4, steps=60, lam_ntp=0.0, lam_rl=1.0, continuations=how, optim=Optim(lr=0.1))
    recipe = refine.build(cfg, ToyPolicy(steps=9), texts, Key(0))
    found = [recipe.step(t)["reward"] for t in range(recipe.steps)]
    assert sum(found[:5]) / 5 < 0.35
    assert sum(found[-5:]) / 5 > 0.7


def test_from_the_command_line(model, tmp_path):
    data = tmp_path / "texts.jsonl"
    data.write_text("".join(json.dumps({"text": line}) + "\n" for line in CORPUS))
    flags = {"model": model, "data": data, "out": tmp_path / "run", "length": 24, "batch": 2, "steps": 2}
    flags |= {"tokens": 3, "least": 4, "last": 4, "chunks": 2, "likeness": "hybrid"}
    argv = [x for name, value in flags.items() for x in (f"--{name}", str(value))]
    assert cli.main(["run", "refine", *argv]) in (0, None)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert {"reward", "rewards/binary/mean", "rewards/cosine/mean", "entropy/cuts"} <= set(rows[0])
