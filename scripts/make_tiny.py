"""Trains the embedded language model from scratch and writes its folder, model card included.

    python scripts/make_tiny.py                # train, write, measure, describe
    python scripts/make_tiny.py --card-only    # measure and describe the files that are there

Data: the train split of `human-ratings` (a sentence is the answer to its domain's prompt) and sums of `reasoning-gym:chain_sum`.
Every number in the model card is measured by this script on the files it has written.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from guerdon.core.rng import Key
from guerdon.data.human_ratings import PROMPTS, human_ratings, messages
from guerdon.data.sources import load
from guerdon.types import Rollout

SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
PAD, END = 0, 1
# One turn is `<|role|>text<|end|>`. Only what the assistant says, its <|end|> included, stands between the generation markers.
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception(\"role '\" ~ message['role'] ~ \"' is not known; known: system, user, assistant\") }}"
    "{% endif %}"
    "{{ '<|' ~ message['role'] ~ '|>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] ~ '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] ~ '<|end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SUMS = {
    "2 terms of 1 digit": "num_terms=2&num_digits=1",
    "3 terms of 1 digit": "num_terms=3&num_digits=1",
    "2 terms of 2 digits": "num_terms=2&num_digits=2",
}
# Epoch e trains on the sums of seed 100 + e; the model card tests on another seed.
FIRST_SUM_SEED = 100


@dataclass(frozen=True)
class Config:
    vocab: int = 3072
    hidden: int = 192
    layers: int = 4
    heads: int = 3
    kv_heads: int = 1
    mlp: int = 512
    context: int = 512
    epochs: int = 7
    batch: int = 32
    lr: float = 2e-3
    warmup: int = 200
    weight_decay: float = 0.1
    dropout: float = 0.1
    sums: int = 800  # of each kind, drawn anew each epoch
    seed: int = 0
    threads: int = 2


# ---------------------------------------------------------------- tokenizer


def build_tokenizer(texts: list[str], cfg: Config) -> PreTrainedTokenizerFast:
    """Byte-level BPE: all 256 bytes are in the vocabulary, so every string is encoded and read back exactly. A digit is a token of its
    own, so that numbers are spelt the same wherever they stand."""
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.Digits(individual_digits=True), tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=cfg.vocab,
        special_tokens=SPECIAL,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        model_max_length=cfg.context,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATE
    assert fast.vocab_size == cfg.vocab, fast.vocab_size
    assert fast.convert_tokens_to_ids(["<|pad|>", "<|end|>"]) == [PAD, END]
    return fast


# ---------------------------------------------------------------- data


Row = tuple[list[int], int]  # token ids of prompt and answer, and how many of them are the prompt


def encode(tokenizer: Any, chat: list[dict[str, str]], answer: str) -> Row:
    """One training row through the chat template; the answer ends in <|end|>."""
    head = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    start = tokenizer.encode(head, add_special_tokens=False)
    return start + tokenizer.encode(answer, add_special_tokens=False) + [END], len(start)


def sums(kind: str, n: int, seed: int) -> list[Rollout]:
    return load(f"reasoning-gym:chain_sum?{SUMS[kind]}&size={n}&seed={seed}", "demos")


def epoch_batches(rows: list[Row], size: int, key: Key) -> Iterator[list[Row]]:
    """A random order; rows of similar length share a batch (sorted within pools of 20 batches), so that little is padding."""
    order = key.fold("order").permutation(len(rows))
    pools = [order[i : i + 20 * size] for i in range(0, len(order), 20 * size)]
    batches = [p[i : i + size] for pool in pools for p in [sorted(pool, key=lambda r: len(rows[r][0]))] for i in range(0, len(p), size)]
    for b in key.fold("batches").permutation(len(batches)):
        yield [rows[i] for i in batches[b]]


def pad(rows: list[Row]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids (B, S) right-padded, attention mask, and labels: the answer's tokens, -100 elsewhere."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), width), PAD)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for i, (row, start) in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
        labels[i, start : len(row)] = ids[i, start : len(row)]
    return ids, mask, labels


# ---------------------------------------------------------------- training


def answer_nll(model: Any, rows: list[Row]) -> tuple[Tensor, int]:
    """Summed negative log-probability of the answers' tokens in nats, and how many there are."""
    ids, mask, labels = pad(rows)
    hidden = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels[:, 1:]
    chosen = wanted != -100  # the vocabulary is the largest product: only where a token is learnt
    logits = model.lm_head(hidden[chosen]).float()
    return nn.functional.cross_entropy(logits, wanted[chosen], reduction="sum"), int(chosen.sum())


def lock_dropout(model: Any, p: float, generator: torch.Generator) -> list[Any]:
    """Dropout with one mask for all positions of a row, on the embeddings and on what each block adds to the stream.

    As regularisation it does the work of the usual kind here, and its random numbers cost next to nothing.
    """

    def drop(_module: nn.Module, _inputs: Any, out: Tensor) -> Tensor:
        keep = torch.rand(out.shape[0], 1, out.shape[2], generator=generator) >= p
        return out * (keep / (1 - p)).to(out.dtype)

    places = [model.model.embed_tokens, *(m for b in model.model.layers for m in (b.self_attn.o_proj, b.mlp.down_proj))]
    return [m.register_forward_hook(drop) for m in places]


def build_model(cfg: Config) -> LlamaForCausalLM:
    torch.manual_seed(cfg.seed)  # transformers draws the initial weights from the global generator
    shape = LlamaConfig(
        vocab_size=cfg.vocab,
        hidden_size=cfg.hidden,
        num_hidden_layers=cfg.layers,
        num_attention_heads=cfg.heads,
        num_key_value_heads=cfg.kv_heads,
        intermediate_size=cfg.mlp,
        max_position_embeddings=cfg.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=PAD,
        attn_implementation="eager",  # faster than SDPA's backward at this size on a CPU
    )
    return LlamaForCausalLM(shape)


def train(cfg: Config, sentences: list[Row], tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    model, key = build_model(cfg), Key(cfg.seed, ("tiny",))
    hooks = lock_dropout(model, cfg.dropout, key.fold("dropout").generator())
    matrices = [p for p in model.parameters() if p.ndim > 1]
    gains = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": cfg.weight_decay}, {"params": gains, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=cfg.lr, betas=(0.9, 0.98), fused=True)
    per_epoch = -(-(len(sentences) + len(SUMS) * cfg.sums) // cfg.batch)
    total, step, began = cfg.epochs * per_epoch, 0, time.perf_counter()
    # Batches differ in length: dividing by the mean number of tokens gives every token the same weight.
    typical = sum(len(ids) - start for ids, start in sentences) / len(sentences) * cfg.batch
    for epoch in range(cfg.epochs):
        fresh = [r for kind in SUMS for r in sums(kind, cfg.sums, FIRST_SUM_SEED + epoch)]
        drawn = [encode(tokenizer, r.prompt.content, r.content) for r in fresh]
        losses, tokens = 0.0, 0
        for batch in epoch_batches(sentences + drawn, cfg.batch, key.fold("epoch", epoch)):
            rate = min(1.0, (step + 1) / cfg.warmup) * 0.5 * (1 + math.cos(math.pi * step / total))
            for group in optimizer.param_groups:
                group["lr"] = cfg.lr * rate
            with torch.autocast("cpu", torch.bfloat16):
                nll, count = answer_nll(model, batch)
            (nll / typical).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses, tokens, step = losses + float(nll.detach()), tokens + count, step + 1
        seconds = time.perf_counter() - began
        print(f"epoch {epoch + 1}/{cfg.epochs}: train perplexity {math.exp(losses / tokens):.1f}, {seconds:.0f} s", flush=True)
    for hook in hooks:
        hook.remove()
    return model


# ---------------------------------------------------------------- files


def save(model: Any, tokenizer: Any, out: Path, record: dict[str, Any]) -> None:
    """The folder that `from_pretrained` reads; weights in bfloat16. `training.json` says how they were made."""
    out.mkdir(parents=True, exist_ok=True)
    model = model.to(torch.bfloat16).eval()
    model.generation_config = transformers.GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=64, bos_token_id=None, eos_token_id=END, pad_token_id=PAD
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def make(cfg: Config, out: Path) -> None:
    torch.set_num_threads(cfg.threads)
    began = time.perf_counter()
    sentences = human_ratings()
    # The prompts stand beside every 70th sentence or so: enough for one token a word.
    asked = [r.prompt.content[0]["content"] for kind in SUMS for r in sums(kind, 100, FIRST_SUM_SEED)] + list(PROMPTS.values()) * 100
    tokenizer = build_tokenizer([s.text for s in sentences] + asked, cfg)
    rows = [encode(tokenizer, messages(s.domain), s.text) for s in sentences]
    model = train(cfg, rows, tokenizer)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "tokenizers": tokenizers.__version__}
    record = {
        "config": asdict(cfg),
        "parameters": sum(p.numel() for p in model.parameters()),
        "sentences": len(rows),
        "tokens_per_epoch": sum(len(ids) for ids, _ in rows),
        "seconds": round(time.perf_counter() - began),
        "versions": {"python": platform.python_version(), **versions},
    }
    save(model, tokenizer, out, record)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "src/guerdon/policies/tiny")
    parser.add_argument("--card-only", action="store_true", help="train nothing: measure the files that are there and write the card anew")
    parser.add_argument("--epochs", type=int, default=Config.epochs)
    parser.add_argument("--threads", type=int, default=Config.threads)
    args = parser.parse_args()
    if not args.card_only:
        make(Config(epochs=args.epochs, threads=args.threads), args.out)
    from tiny_card import write_card  # it imports this module, which is complete by now

    print(json.dumps(write_card(args.out), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
