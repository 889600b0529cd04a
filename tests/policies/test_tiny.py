"""The embedded model: the files that ship, read by plain transformers."""

import json
import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError
from transformers import AutoModelForCausalLM, AutoTokenizer

from guerdon.data.human_ratings import PROMPTS, messages
from guerdon.policies import tiny

# Written for this test in the manner of each domain: in no data set, so nothing here was trained on.
SENTENCES = {
    "movie": "The film is a funny and moving story, with a great performance from its young star.",
    "tweet": "I love my new phone! Can't wait to see you all tonight :)",
    "product": "i bought this camera two months ago and the battery life is great.",
    "editorial": "The President and the Congress will have to decide whether the state can afford a new tax.",
}


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(tiny.path())


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(tiny.path(), dtype=torch.float32).eval()


def answer_logp(model, tokenizer, domain, text):
    """Log-probability of each token of the answer, its end included."""
    start = tokenizer.apply_chat_template(messages(domain), add_generation_prompt=True)["input_ids"]
    ids = torch.tensor([start + tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]])
    with torch.no_grad():
        logp = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    return logp.gather(1, ids[0, 1:, None])[len(start) - 1 :, 0]


def test_the_folder_is_small_and_complete():
    files = {f.name: f for f in tiny.path().iterdir() if f.is_file()}
    wanted = {
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    assert wanted | {"README.md", "training.json"} <= files.keys()
    assert sum(f.stat().st_size for f in files.values()) <= 12e6


def test_the_model_card_is_of_these_weights():
    card = (tiny.path() / "README.md").read_text(encoding="utf-8")
    record = json.loads((tiny.path() / "training.json").read_text(encoding="utf-8"))
    assert f"{record['parameters'] / 1e6:.2f} million parameters" in card
    assert "Hutto" in card
    assert "MIT licence" in card
    rows = {d: float(p) for d, p in re.findall(r"^\| (\w+) \| \d+ \| ([\d.]+) \|", card, re.M)}
    assert rows.keys() == {*PROMPTS, "all"}
    assert max(rows.values()) < 150


def test_architecture_and_special_tokens(model, tokenizer):
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert sum(p.numel() for p in model.parameters()) < 6e6
    assert model.config.max_position_embeddings == tokenizer.model_max_length == 512
    assert model.config.vocab_size == len(tokenizer)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|end|>", "<|pad|>")
    for config in (model.config, model.generation_config):
        assert (config.eos_token_id, config.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert tokenizer.eos_token_id != tokenizer.pad_token_id


def test_weights_ship_in_bfloat16():
    assert AutoModelForCausalLM.from_pretrained(tiny.path(), dtype="auto").dtype == torch.bfloat16


def test_every_string_is_read_back(tokenizer):
    @settings(max_examples=200, deadline=None)
    @given(st.text())
    def check(text):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text

    check()
    check.hypothesis.inner_test("  two  spaces , don't \t\r\n\x00 10.05 <|end|> \u4e2d \U0001f600 e\u0301")


def test_prompts_are_short(tokenizer):
    for domain in PROMPTS:
        assert len(tokenizer.apply_chat_template(messages(domain), add_generation_prompt=True)["input_ids"]) <= 12


def test_chat_template(tokenizer):
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "1 + 1"},
    ]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Hello<|end|><|user|>1 + 1<|end|><|assistant|>"
    with pytest.raises(TemplateError, match="role 'tool' is not known"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


def test_generation_markers_cover_what_the_assistant_says(tokenizer):
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes, a lot."}, {"role": "user", "content": "Bye"}]
    enc = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    said = [i for i, m in zip(enc["input_ids"], enc["assistant_masks"], strict=True) if m]
    assert tokenizer.decode(said) == "Yes, a lot.<|end|>"


@pytest.mark.parametrize("domain", PROMPTS)
def test_perplexity_of_a_fresh_sentence(model, tokenizer, domain):
    assert math.exp(-answer_logp(model, tokenizer, domain, SENTENCES[domain]).mean()) < 150


def test_the_prompt_says_which_domain(model, tokenizer):
    """Each sentence is most probable under its own domain's prompt."""
    for own, text in SENTENCES.items():
        total = {d: float(answer_logp(model, tokenizer, d, text).sum()) for d in PROMPTS}
        assert max(total, key=total.__getitem__) == own


def test_the_end_is_learnt(model, tokenizer):
    """The end is far more probable after the sentence than in the middle of it."""
    for domain, text in SENTENCES.items():
        at_end = answer_logp(model, tokenizer, domain, text)[-1]
        midway = answer_logp(model, tokenizer, domain, text.rsplit(" ", 2)[0])[-1]
        assert at_end > midway + math.log(5), domain
