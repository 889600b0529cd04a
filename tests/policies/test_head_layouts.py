"""Reward models of other libraries, built as those write them: the scores are theirs, not a random head's."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from guerdon.errors import UserError
from guerdon.policies.head_layouts import find_head
from guerdon.policies.heads import Scorer
from guerdon.policies.lora import Lora
from guerdon.policies.text import TextPolicy
from guerdon.testing.models import small_model
from guerdon.types import Prompt, Rollout

ROWS = [Rollout(Prompt("a", "The food?"), "Great and very kind."), Rollout(Prompt("a", "The food?"), "No.")]
WEIGHT = torch.linspace(-1, 1, 32)[None]


@pytest.fixture
def folder(tmp_path):
    return Path(small_model(tmp_path / "model"))


def expected(body, scorer, bias=0.0):
    """The linear layer on the last hidden state at the last token, one text at a time."""
    last = [body(torch.tensor([scorer.ids(r)])).last_hidden_state[0, -1] for r in ROWS]
    return torch.stack(last) @ WEIGHT[0] + bias


def add(folder, weights, file="model.safetensors"):
    held = load_file(folder / file) if (folder / file).exists() else {}
    save_file({**held, **weights}, folder / file, {"format": "pt"})


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@torch.no_grad()
def check(scorer, body, bias=0.0, mean=0.0, std=1.0):
    torch.testing.assert_close(scorer.score(ROWS), (expected(body, scorer, bias) - mean) / std, atol=1e-5, rtol=0)


@pytest.mark.parametrize("prefix", ["value_head", "score", "r_head"])
@pytest.mark.parametrize("normalised", [True, False])
def test_openrlhf(folder, prefix, normalised, tmp_path):
    add(folder, {f"{prefix}.weight": WEIGHT})
    changes = {"value_head_prefix": prefix} if prefix == "r_head" else {}  # the old default is not in the config
    edit(folder, architectures=["RewardModel"], normalize_reward=normalised, mean=0.4, std=2.5, **changes)
    scorer = Scorer.load(folder)
    check(scorer, AutoModel.from_pretrained(folder), mean=0.4 if normalised else 0.0, std=2.5 if normalised else 1.0)
    scorer.save(tmp_path / "plain")  # as a plain sequence classifier, with the normaliser
    torch.testing.assert_close(Scorer.load(tmp_path / "plain").score(ROWS), scorer.score(ROWS), atol=0, rtol=0)


@pytest.mark.parametrize("sharded", [True, False])
def test_trl_value_head(folder, sharded, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder)
    state = {**model.state_dict(), "v_head.summary.weight": WEIGHT, "v_head.summary.bias": torch.tensor([0.25])}
    model.save_pretrained(tmp_path / "out", state_dict=state, max_shard_size="30KB" if sharded else "1GB")
    assert (tmp_path / "out" / "model.safetensors.index.json").exists() == sharded
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "out")
    check(Scorer.load(tmp_path / "out"), AutoModel.from_pretrained(folder), bias=0.25)


@pytest.mark.parametrize("safe", [True, False])
def test_llama_factory_beside_a_model(folder, safe):
    weights = {"v_head.summary.weight": WEIGHT, "v_head.summary.bias": torch.tensor([-0.5])}
    if safe:
        save_file(weights, folder / "value_head.safetensors")
    else:
        torch.save(weights, folder / "value_head.bin")
    check(Scorer.load(folder), AutoModel.from_pretrained(folder), bias=-0.5)


@pytest.mark.parametrize("again", [None, Lora(r=2)])
def test_llama_factory_beside_an_adapter(folder, again, tmp_path):
    policy = TextPolicy.load(folder, lora=Lora(r=2))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=draw))
    policy.save(tmp_path / "out")
    adapter = tmp_path / "out" / "adapter"
    save_file({"v_head.summary.weight": WEIGHT}, adapter / "value_head.safetensors")
    check(Scorer.load(adapter, lora=again), AutoModel.from_pretrained(tmp_path / "out"))


def test_a_plain_model_has_no_head_and_a_classifier_keeps_its_own(folder, tmp_path):
    assert find_head(str(folder)) is None
    scorer = Scorer.load(folder)
    scorer.save(tmp_path / "rm")
    assert find_head(str(tmp_path / "rm")) is None


@pytest.mark.parametrize(("shape", "said"), [((3, 32), "gives 3 numbers a text"), ((1, 16), "reads 16 numbers and the model .* gives 32")])
def test_heads_that_do_not_fit(folder, shape, said):
    add(folder, {"v_head.summary.weight": torch.ones(shape)}, "value_head.safetensors")
    with pytest.raises(UserError, match=said):
        Scorer.load(folder)
