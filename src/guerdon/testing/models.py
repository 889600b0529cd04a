"""Small random models and a real little tokenizer, saved as ordinary transformers folders: for tests, no download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from guerdon.policies.loading import quiet

TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] }}{% if m['role'] == 'assistant' %}<|end|>{% endif %}{{ '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
SPECIAL = ("<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>")
CORPUS = (
    "The food was great and the staff were very kind to all of us.",
    "A dull film: two hours, no plot, and the end comes too late.",
    "What is 12 plus 30? The answer is 42, and 4 times 7 makes 28.",
    "He said that the road to the old mill is long, but worth it.",
)

FAST_WEIGHTS: dict[str, dict[str, Any]] = {"delta_net": dict(num_heads=2, chunk_size=8)}


def small_tokenizer(*, template: str | None = TEMPLATE, pad: str = "<|pad|>", bos: bool = False) -> Any:
    """A byte-level BPE tokenizer trained on four sentences (about 300 ids). pad: may be the stop token `<|end|>`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = [*SPECIAL, "<|begin|>"] if bos else list(SPECIAL)
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tok.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tok.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False),  # type: ignore[call-arg]
    )
    if bos:
        begin = ("<|begin|>", tok.token_to_id("<|begin|>"))
        tok.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[begin])  # type: ignore[assignment]
    fast = PreTrainedTokenizerFast(tokenizer_object=tok, eos_token="<|end|>", pad_token=pad, bos_token="<|begin|>" if bos else None)
    fast.chat_template = template
    return fast


def small_config(kind: str, tokenizer: Any, **changes: Any) -> Any:
    """Config of a 2-layer model of width 32: llama, qwen2, qwen3 (normed queries), mixtral (4 experts), gemma2 (soft caps), gemma3_text
    (tied head, sliding window), granite (scaled logits), gpt2 (learnt positions) or a fast-weight model, such as delta_net."""
    from transformers import AutoConfig

    import guerdon.policies.fast_weights  # noqa: F401  (known to AutoConfig from now on)

    shared: dict[str, Any] = dict(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id)
    shared |= dict(pad_token_id=tokenizer.pad_token_id, max_position_embeddings=128)
    if kind == "gpt2":
        return AutoConfig.for_model("gpt2", n_embd=32, n_layer=2, n_head=4, **{**shared, "n_positions": 128, **changes})
    if kind in FAST_WEIGHTS:
        sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, **FAST_WEIGHTS[kind])
        return AutoConfig.for_model(kind, **{**shared, **sizes, **changes})
    shared |= dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8)
    special: dict[str, dict[str, Any]] = {
        "llama": {},
        "qwen2": dict(tie_word_embeddings=True),
        "qwen3": {},
        "mixtral": dict(num_local_experts=4),
        "gemma2": dict(final_logit_softcapping=2.0, sliding_window=6, query_pre_attn_scalar=8),
        "gemma3_text": dict(sliding_window=6, layer_types=["sliding_attention", "full_attention"], query_pre_attn_scalar=8),
        "granite": dict(logits_scaling=4.0),
    }
    return AutoConfig.for_model(kind, **{**shared, **special[kind], **changes})


def small_model(folder: Path, kind: str = "llama", *, tokenizer: Any = None, seed: int = 0, std: float = 0.3, **changes: Any) -> str:
    """Write a random causal model and its tokenizer into `folder`; gives the folder as text.

    std: of the random weights; wide enough that distributions are far from uniform.
    """
    from transformers import AutoModelForCausalLM

    tokenizer = tokenizer if tokenizer is not None else small_tokenizer()
    config = small_config(kind, tokenizer, **changes)
    config.initializer_range = std
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return str(folder)


def small_encoder(folder: Path, *, seed: int = 0) -> str:
    """Write a random 2-layer BERT (masked language model) with a whole-word tokenizer; gives the folder as text."""
    from transformers import AutoConfig, AutoModelForMaskedLM
    from transformers.models.bert.tokenization_bert import BertTokenizer

    words = sorted({w for line in CORPUS for w in line.lower().replace(".", " .").replace(",", " ,").replace("?", " ?").split()})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]) + "\n")
    tokenizer = BertTokenizer(vocab=str(folder / "vocab.txt"))
    shape = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64)
    config = AutoConfig.for_model("bert", vocab_size=len(tokenizer), initializer_range=0.3, **shape)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForMaskedLM.from_config(config)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return str(folder)
