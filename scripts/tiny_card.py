"""Measures the embedded model's files and writes their model card."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from make_tiny import END, SUMS, answer_nll, encode, sums
from transformers import AutoModelForCausalLM, AutoTokenizer

from guerdon.data.human_ratings import CITATION, PROMPTS, human_ratings, messages
from guerdon.rewards.reasoning_gym import reasoning_gym
from guerdon.types import Prompt

TEST_SUM_SEED = 7

# ---------------------------------------------------------------- measuring what was written


@torch.no_grad()
def perplexity(model: Any, tokenizer: Any, domain: str) -> dict[str, float]:
    """Of the held-out sentences given their prompt, the <|end|> included: per token, and bits per byte of the text."""
    held = human_ratings(domain, "test")
    rows = [encode(tokenizer, messages(domain), s.text) for s in held]
    parts = [answer_nll(model, rows[i : i + 64]) for i in range(0, len(rows), 64)]
    nll, tokens = sum(float(n) for n, _ in parts), sum(c for _, c in parts)
    size = sum(len(s.text.encode()) for s in held)
    found = {"sentences": len(held), "tokens": tokens, "nll": nll}
    return found | {"perplexity": math.exp(nll / tokens), "bits_per_byte": nll / math.log(2) / size}


@torch.no_grad()
def answers(model: Any, tokenizer: Any, prompts: list[Prompt], new: int, greedy: bool = False) -> list[tuple[list[int], bool]]:
    """Each prompt's at most `new` tokens without the <|end|>, and whether it ended; sampling is at temperature 1, unfiltered."""
    tokenizer.padding_side = "left"
    texts = [tokenizer.apply_chat_template(p.content, add_generation_prompt=True, tokenize=False) for p in prompts]
    enc = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    how = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None} if greedy else {"do_sample": True}
    out = model.generate(**enc, max_new_tokens=new, **how)
    rows = [row[enc["input_ids"].shape[1] :].tolist() for row in out]
    return [(row[: row.index(END)], True) if END in row else (row, False) for row in rows]


def distinct(rows: list[list[int]], n: int = 2) -> float:
    """Share of different n-grams among all n-grams of all rows (Li et al. 2016, arXiv:1510.03055)."""
    grams = [tuple(row[i : i + n]) for row in rows for i in range(len(row) - n + 1)]
    return len(set(grams)) / len(grams)


def sampling(model: Any, tokenizer: Any, n: int = 256, new: int = 28) -> dict[str, dict[str, Any]]:
    """What n samples of each domain look like: share that ends within `new` tokens, mean length, distinct-2; the first three texts."""
    out = {}
    for domain in PROMPTS:
        torch.manual_seed(0)  # `generate` takes no generator
        done = answers(model, tokenizer, [Prompt(domain, messages(domain))] * n, new)
        rows = [ids for ids, _ in done]
        out[domain] = {
            "ended": sum(end for _, end in done) / n,
            "length": sum(map(len, rows)) / n,
            "distinct_2": distinct(rows),
            "texts": [tokenizer.decode(ids) for ids in rows[:3]],
        }
    return out


def solved(model: Any, tokenizer: Any, kind: str, n: int = 256) -> dict[str, float]:
    """Share of sums right, by the best guess and by a sample."""
    torch.manual_seed(0)
    asked = sums(kind, n, TEST_SUM_SEED)
    share = {}
    for name, greedy in (("greedy", True), ("sampled", False)):
        got = answers(model, tokenizer, [r.prompt for r in asked], 12, greedy)
        done = [r.with_(content=tokenizer.decode(ids)) for r, (ids, _) in zip(asked, got, strict=True)]
        share[name] = sum(score.value == 1.0 for score in reasoning_gym(done)) / n
    return share


def measure(folder: Path) -> dict[str, Any]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = {"perplexity": {d: perplexity(model, tokenizer, d) for d in PROMPTS}, "sampling": sampling(model, tokenizer)}
    return found | {"sums": {kind: solved(model, tokenizer, kind) for kind in SUMS}}


# ---------------------------------------------------------------- the model card


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(r) + " |" for r in [head, ["---"] * len(head), *rows])


def card(record: dict[str, Any], found: dict[str, Any], folder: Path) -> str:
    """The model card in Markdown."""
    cfg, ppl = record["config"], found["perplexity"]
    overall = math.exp(sum(v["nll"] for v in ppl.values()) / sum(v["tokens"] for v in ppl.values()))
    held = [[d, str(v["sentences"]), f"{v['perplexity']:.1f}", f"{v['bits_per_byte']:.2f}"] for d, v in ppl.items()]
    held.append(["all", str(sum(v["sentences"] for v in ppl.values())), f"{overall:.1f}", ""])
    samples = [[d, f"{v['ended']:.2f}", f"{v['length']:.1f}", f"{v['distinct_2']:.2f}"] for d, v in found["sampling"].items()]
    arithmetic = [[kind, f"{v['greedy']:.2f}", f"{v['sampled']:.2f}"] for kind, v in found["sums"].items()]
    size = sum(f.stat().st_size for f in folder.iterdir() if f.suffix in (".safetensors", ".json", ".jinja")) / 1e6
    versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
    return CARD.format(
        millions=record["parameters"] / 1e6,
        size=size,
        held=table(["domain", "sentences", "perplexity per token", "bits per byte"], held),
        samples=table(["domain", "ends within 28 tokens", "mean length", "distinct-2"], samples),
        arithmetic=table(["sums", "greedy", "sampled"], arithmetic),
        prompts="\n".join(f"- {d}: `{p}`" for d, p in PROMPTS.items()),
        sentences=record["sentences"],
        tokens=record["tokens_per_epoch"],
        minutes=record["seconds"] / 60,
        settings=", ".join(f"{k} {v}" for k, v in cfg.items()),
        versions=versions,
        citation=CITATION,
        note=" " + record["note"] if "note" in record else "",
        **{k: cfg[k] for k in ("vocab", "hidden", "layers", "heads", "kv_heads", "mlp", "context", "epochs", "sums", "dropout", "threads")},
    )


CARD = """---
license: apache-2.0
language: en
library_name: transformers
---
# Guerdon tiny

A language model of {millions:.2f} million parameters ({size:.1f} MB) for tests, claims and the quickstart: small enough to be
trained further on a CPU in minutes. It writes single sentences in the style of four domains and now and then gets a short sum
right. It knows nothing and invents words; it is no assistant, and what it writes may be rude, as the sentences it learnt from
sometimes are.

Made by `python scripts/make_tiny.py`, which also wrote this card: every number below was measured on these files.

## Use

    from transformers import AutoModelForCausalLM, AutoTokenizer
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)

where `folder` is `guerdon.policies.tiny.path()`. The prompts it knows:

{prompts}
- sums: as `reasoning-gym:chain_sum` words them

Chat template: `<|system|>`, `<|user|>` or `<|assistant|>`, the text, `<|end|>`. `<|end|>` is the end-of-sequence token and was
trained; padding is `<|pad|>`. Any string is encoded and read back exactly (byte-level BPE, {vocab} tokens, a token for each
digit).

## Model

Llama architecture: hidden size {hidden}, {layers} layers, {heads} heads sharing {kv_heads} key-value head, MLP {mlp}, tied
embeddings, {context} positions, bfloat16.

## Held-out perplexity

Of sentences never trained on, given the domain's prompt, end token included.

{held}

## Samples

256 samples of each domain, at most 28 new tokens, temperature 1. Length in tokens without the end token; distinct-2 is the
share of different token pairs.

{samples}

## Sums

Share of 256 problems answered exactly. With one digit there are few different problems: most of these were met in training.

{arithmetic}

## Training

{sentences} sentences of the train split of `human-ratings` ({tokens} tokens with their prompts), {epochs} epochs, plus {sums}
fresh sums of each kind an epoch; cross-entropy on the answer and its end token only; AdamW, cosine learning rate, dropout
{dropout} with one mask for all positions of a row; {minutes:.1f} minutes with {threads} CPU threads.

Settings: {settings}.
Versions: {versions}. With the same versions, processor and number of threads the result should repeat; elsewhere rounding differs.{note}

## Data and licence

- {citation}
- Stojanovski et al. (2025). Reasoning Gym. arXiv:2505.24760. Apache-2.0. Problems of its task chain_sum.

The sentences include excerpts of published reviews and editorials and tweet-like texts that the data set's authors collected
for research. The weights and this card are under the Apache License 2.0, like the rest of Guerdon.
"""


def write_card(folder: Path) -> dict[str, Any]:
    """Writes README.md beside the weights; returns what was measured."""
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    found = measure(folder)
    (folder / "README.md").write_text(card(record, found, folder), encoding="utf-8")
    return found
