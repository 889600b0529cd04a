"""Models from a config: random weights of a real architecture, and a tokenizer in which one letter is one token.

Speed depends on shapes and lengths, not on what the weights know; made here, both are exact and nothing is downloaded.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

STOP, PAD = "<|end|>", "<|pad|>"


@dataclass(frozen=True)
class Shape:
    """A Qwen2-like model with tied embeddings."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    vocab: int

    @property
    def body(self) -> int:
        """Weights that multiply: attention and MLP of all layers, without embeddings, norms and biases."""
        head = self.hidden // self.heads
        attention = self.hidden * head * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.mlp)

    @property
    def head(self) -> int:
        """Weights of the (tied) LM head."""
        return self.hidden * self.vocab

    @property
    def weights(self) -> int:
        return self.body + self.head


SHAPES = {
    "22m": Shape(384, 6, 6, 2, 1024, 32_000),
    "22m-64k": Shape(384, 6, 6, 2, 1024, 64_000),
    "22m-152k": Shape(384, 6, 6, 2, 1024, 151_936),
    "22m-256k": Shape(384, 6, 6, 2, 1024, 256_000),
    "0.5b": Shape(896, 24, 14, 2, 4864, 151_936),
    "toy": Shape(32, 2, 4, 2, 48, 512),
    "toy-wide": Shape(32, 2, 4, 2, 48, 1024),
}


def tokenizer(vocab: int) -> Any:
    """One character, one token: `letter(0)`, `letter(1)` ... in Qwen's own byte-level tokenizer; the stop token is written `<|end|>`.

    A letter is three bytes, put together by two merges. The ids that are left over have names that no text contains.
    """
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Tokenizer

    pre = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = [pre.pre_tokenize_str(letter(i))[0][0] for i in range(letters(vocab))]
    heads = sorted({s[:2] for s in split})
    pieces = [STOP, PAD, *sorted({c for s in split for c in s}), *heads, *split]
    merges: Any = [(h[0], h[1]) for h in heads] + [(s[:2], s[2]) for s in split]
    names = [*pieces, *(f"<|unused-{i}|>" for i in range(len(pieces), vocab))]
    found = Qwen2Tokenizer(
        vocab={name: i for i, name in enumerate(names)}, merges=merges, eos_token=STOP, pad_token=PAD, unk_token=STOP, padding_side="left"
    )
    if len(pieces) > vocab or len(found) != vocab:
        raise ValueError(f"{len(pieces)} tokens for a vocabulary of {vocab}\nhint: take at least 512")
    return found


def letters(vocab: int) -> int:
    """How many letters the tokenizer of this size has: all of one Unicode block, or as many as fit."""
    return min(20_480, (vocab - 256) // 64 * 64)


def letter(i: int) -> str:
    return chr(0x4E00 + i)


def config(shape: Shape) -> Any:
    from transformers import Qwen2Config

    return Qwen2Config(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.mlp,
        vocab_size=shape.vocab,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
        use_sliding_window=False,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=1,
    )


def model_folder(root: Path, shape: Shape, *, stop_every: float | None = None, scorer: bool = False) -> Path:
    """The folder of this model, written the first time it is asked for.

    stop_every: None leaves the random weights alone; else the stop token comes once in so many tokens (infinity: never), whatever
    the context. scorer: a sequence classifier with one label in place of the LM head.
    """
    name = "-".join(str(x) for x in asdict(shape).values()) + ("" if stop_every is None else f"-stop{stop_every:g}") + "-scorer" * scorer
    folder = root / name
    if (folder / "done.json").exists():
        return folder
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    torch.manual_seed(0)
    settings = config(shape)
    if scorer:
        settings.num_labels = 1
    model = (AutoModelForSequenceClassification if scorer else AutoModelForCausalLM).from_config(settings, dtype=torch.float32)
    if stop_every is not None:
        set_stop(model, stop_every)
    model.save_pretrained(folder)
    tokenizer(shape.vocab).save_pretrained(folder)
    (folder / "done.json").write_text(json.dumps(asdict(shape)))
    return folder


@torch.no_grad()
def set_stop(model: Any, every: float) -> None:
    """Give the stop token the probability `1 / every` in every context.

    All embeddings get the same first coordinate, which the residual stream carries to the last hidden state; the stop token's row gets
    more of it, or less. So lengths are geometric, or all the longest, without touching how either side samples.
    """
    weight = model.get_input_embeddings().weight
    weight[:, 0] = 0.5
    probe = torch.randint(2, weight.shape[0], (8, 64), generator=torch.Generator().manual_seed(1))
    hidden = model.base_model(input_ids=probe).last_hidden_state.flatten(0, 1)
    logits = hidden @ weight.T
    others = logits[:, 1:].logsumexp(1)
    odds = math.log(1 / (every - 1)) if math.isfinite(every) else -30.0
    weight[0, 0] += float((others + odds - logits[:, 0]).mean() / hidden[:, 0].mean())
