"""Little languages: a model of a few ten thousand weights that reads and writes a handful of words, one token each, taught by examples."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from guerdon.core.rng import Key
from guerdon.learn.learner import Adam, Learner
from guerdon.learn.offline import offline
from guerdon.learn.verbs import sft_term
from guerdon.policies.head import plain
from guerdon.policies.heads import Scorer
from guerdon.policies.text import TextPolicy
from guerdon.types import Recipe, Rollout


def new_policy(
    words: Sequence[str],
    seed: int,
    *,
    max_new: int,
    width: int = 64,
    layers: int = 2,
    context: int = 32,
    experts: int = 0,
    **options: Any,
) -> TextPolicy:
    """A random Llama over `words` (no spaces in them, ids 2 and up) and the two it adds: `<pad>` (0) and `<end>` (1), which stops.

    Prompts are raw text. max_new: tokens to write, with the stop. context: most tokens of prompt and answer. experts: a Qwen3 mixture of
    so many in each layer in place of the Llama, of which one is chosen for each token. options: of the policy.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen3MoeConfig, Qwen3MoeForCausalLM

    known = Tokenizer(models.WordLevel({w: i for i, w in enumerate(("<pad>", "<end>", *words))}, unk_token="<pad>"))
    known.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=known, eos_token="<end>", pad_token="<pad>")
    sizes: dict[str, Any] = dict(
        hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers, num_attention_heads=4, max_position_embeddings=context
    )
    ids: dict[str, Any] = dict(eos_token_id=1, pad_token_id=0, bos_token_id=None, vocab_size=len(words) + 2, initializer_range=0.1)
    mixed: dict[str, Any] = dict(num_experts=experts, num_experts_per_tok=1, moe_intermediate_size=width, head_dim=width // 4)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if experts:
            model: Any = Qwen3MoeForCausalLM(Qwen3MoeConfig(num_key_value_heads=4, **sizes, **ids, **mixed))
        else:
            model = LlamaForCausalLM(LlamaConfig(**sizes, **ids))
    return TextPolicy(model, tokenizer, name="claim", max_new=max_new, sample_rows=512, **options)


def new_scorer(policy: TextPolicy, seed: int) -> Scorer:
    """A reward model that reads the policy's language: a random head on a copy of its body.

    It reads prompt and answer as one text: prompts must end with a space.
    """
    from transformers import LlamaConfig, LlamaForSequenceClassification

    own: Any = plain(policy.model)
    sizes: dict[str, Any] = {name: x for name, x in own.config.to_dict().items() if name not in ("id2label", "label2id")}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForSequenceClassification(LlamaConfig(**{**sizes, "num_labels": 1}))
    model.model.load_state_dict(own.model.state_dict())
    return Scorer(model, policy.tokenizer, name="claim")


def taught(policy: TextPolicy, lessons: Sequence[Rollout], key: Key, *, updates: int, lr: float = 8e-3, batch: int = 64) -> TextPolicy:
    """The same policy, after maximum likelihood on the answers of the lessons."""
    learner = Learner(policy, [sft_term()], Adam(lr, warmup=20, decay="linear", steps=updates))
    finish(offline(learner=learner, items=lessons, collate=policy.collate, batch=batch, steps=updates, key=key))
    return policy


def copy_of(policy: TextPolicy) -> TextPolicy:
    """Another policy with the same weights, to be trained by itself."""
    shared = [getattr(policy, name) for name in policy.SHARED]
    twin = copy.deepcopy(policy, {id(x): x for x in shared})
    twin.version = 0
    return twin


def finish(recipe: Recipe) -> None:
    """All steps, nothing written."""
    for t in range(recipe.steps):
        recipe.step(t)
