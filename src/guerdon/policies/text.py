"""Language models as policies: any causal model of transformers, whole or through adapters.

Tokens are the truth: ids that were sampled are learnt from as they are, and masks come from lengths, so the padding id may be the
stop token. The stop token is part of a completion that ended by itself, and is learnt.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from guerdon.core.rng import Key
from guerdon.errors import UserError, nearest
from guerdon.policies.as_sampled import AsSampled, of_kept
from guerdon.policies.codec import Codec
from guerdon.policies.compute import Compute, format_of
from guerdon.policies.critic import ValueHead
from guerdon.policies.engines.base import open_engine
from guerdon.policies.generate import Drawn, Sampler, decode, decoder_of
from guerdon.policies.head import check_head, head_of, plain, spread
from guerdon.policies.layout import choose
from guerdon.policies.loading import compare_saved, dtype_of, load, locate, quiet
from guerdon.policies.lora import Lora, adapter_base, load_adapter
from guerdon.policies.network import Network
from guerdon.policies.packing import LAYOUTS, Laid, Layout, buckets, lay
from guerdon.policies.routing import replayed, to_tokens
from guerdon.policies.weights import load_module_state, module_state, trainable
from guerdon.types import Batch, Origin, Outputs, Prompt, Rollout


class TextPolicy(AsSampled, Network):
    """A causal language model that acts, and learns.

    The policy is the *tempered* model: `forward` divides logits by `temperature` (by 1 when it is 0), as sampling does, so that
    log-ratios compare like with like. Truncation by top_p and top_k belongs to the sampler alone: `Rollout.logp` is renormalised
    over what was kept, `forward` is not (but for batches that are `truncated`), so the two differ when truncation is on.

    temperature, top_p, top_k, max_new: of `sample`. max_length: most tokens of prompt and completion together (default: the
    model's own limit). layout: one of `packing.LAYOUTS`, as an attribute the one that was chosen. sample_rows: completions in
    flight at a time. dropout: whether dropout is on in forward passes that build a gradient; it is off everywhere else.
    compute, checkpoint_activations: see `Network`; `sample` does not heed them. rollout_dtype: what `compute` is to learning, for
    `sample`; `Rollout.logp` always belongs to the distribution that was drawn from.
    version: number of updates behind the weights, written into rollouts; whoever trains the policy counts it up.
    critic: also learn a value head (`critic.ValueHead`), which `forward` asks for "value"; it is saved and read with the rest.
    engine: who draws in `sample`: "own", "transformers", "vllm", or the address of a vLLM server (docs/guides/engines.md).
    """

    SHARED: ClassVar[tuple[str, ...]] = (*Network.SHARED, "engine")
    NEEDS: ClassVar[tuple[str, ...]] = ("logp", "entropy", "sum_p2", "top_k_mass", "top_k_entropy", "hidden", "logits", "value")
    RECURRING: ClassVar[bool] = True  # a rollout gives the same row in every batch

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str = "",
        max_length: int | None = None,
        raw: bool = False,
        stop: Sequence[str] = (),
        layout: str = "auto",
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        max_new: int = 128,
        sample_rows: int = 64,
        dropout: bool = False,
        compute: Compute = "float32",
        checkpoint_activations: bool = False,
        rollout_dtype: Compute = "float32",
        engine: str = "own",
        critic: bool = False,
    ) -> None:
        if max_new < 1 or sample_rows < 1:
            raise UserError(f"max_new {max_new} and sample_rows {sample_rows}, expected integers >= 1")
        how: Any = {"dropout": dropout, "compute": compute, "checkpoint_activations": checkpoint_activations}
        super().__init__(model, tokenizer, name=name, **how)
        self.temperature, self.top_p, self.top_k, self.max_new = temperature, top_p, top_k, max_new
        self.sample_rows, self.engine = sample_rows, open_engine(engine)
        self.rollout_dtype, self._decoder = format_of(rollout_dtype, model), None
        self.codec = Codec(tokenizer, stop=[*_named_stops(tokenizer, stop), *_model_stops(model)], raw=raw)
        self.max_length = _limit(plain(model).config, max_length)
        self._sampler()
        check_head(model)
        self.critic = ValueHead(model) if critic else None
        self.layout: Layout = choose(self, layout, (*LAYOUTS, "branched"))

    @classmethod
    def load(
        cls,
        model: str | Path = "tiny",
        *,
        lora: Lora | None = None,
        dtype: str = "float32",
        chat_template: str | None = None,
        device: str = "cpu",
        **options: Any,
    ) -> TextPolicy:
        """A policy from "tiny" (the embedded model), "gemma-3-270m", a folder of `save_pretrained`, a hub name, or an adapter folder.

        lora: train new adapters and leave the rest alone. On an adapter folder: without `lora` its adapter goes on learning; with
        `lora` it is merged first. chat_template: in place of the tokenizer's. options: those of the class.
        Raises UserError for an unknown name, a folder that cannot be loaded, missing weights, and a template that does not fit.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        place = locate(model)
        adapter = place if (Path(place) / "adapter_config.json").exists() and not (Path(place) / "config.json").exists() else None
        base = locate(adapter_base(place)) if adapter else place
        with quiet():
            network = load(AutoModelForCausalLM, base, dtype=dtype_of(dtype)).to(device)
            if adapter:
                network = load_adapter(network, adapter, train=lora is None)
            if lora is not None:
                network = lora.wrap(network)
            own = adapter and (Path(adapter) / "tokenizer_config.json").exists()
            tokenizer = load(AutoTokenizer, adapter if own and adapter else base)
        if chat_template is not None:
            tokenizer.chat_template = chat_template
        policy = cls(network, tokenizer, name=str(model), **options)
        policy.on_merged = bool(adapter) and lora is not None
        if policy.critic is not None:
            policy.critic.read(Path(place))
        return policy

    # ------------------------------------------------------------ acting

    def sample(
        self,
        prompts: Sequence[Prompt],
        n: int,
        key: Key,
        *,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        max_new: int | None = None,
        stops: bool = True,
    ) -> list[Rollout]:
        """n completions of each prompt, prompt by prompt; `group` is the prompt's index. Keywords override the policy's own settings.
        stops: False lets nothing but its length end a completion: stop tokens are drawn like others (own engine only).

        `logp` belongs to the distribution sampled from (tempered, truncated); with temperature 0 (greedy) that is a point, and logp 0.
        Completion j of prompt i draws its random numbers from `key.fold(i, j)`, whatever else is in the call (another engine than the
        own one: docs/guides/engines.md says how far this holds). A completion ends
        with a stop token (`end` "stop"), or after max_new tokens or at max_length ("length").
        Raises UserError for a prompt that leaves no room for a token.
        """
        sampler = self._sampler(temperature, top_p, top_k)
        longest = self.max_new if max_new is None else max_new
        ids = [self._prompt(p) for p in prompts]
        if not stops and self.engine is not None:
            raise UserError(f"engine {self.engine.name} ends completions at stop tokens", hint="leave --engine out")
        draw = partial(self._draw, stops=stops) if self.engine is None else partial(self.engine.draw, self)
        drawn = draw(ids, n, key, sampler, longest)
        origin = Origin(self.version, str(key), sampler.temperature, sampler.top_p, sampler.top_k)
        rollouts = [self._rollout(prompts[k // n], k // n, one, origin) for k, one in enumerate(drawn)]
        if self.engine is not None:
            self.engine.check(self, rollouts)
        return rollouts

    def extend(self, rollouts: Sequence[Rollout], n: int, key: Key, *, most: int, stops: bool = True) -> list[Rollout]:
        """n continuations of each unfinished rollout by at most `most` tokens, as whole rollouts; groups stay.

        A rollout without actions begins. stops, and randomness: as in `sample`. Raises UserError where there is no room for a token.
        """
        ids = [(*self.codec.prompt_ids(r.prompt), *([] if r.actions is None else r.actions.tolist())) for r in rollouts]
        drawn = self.sample([Prompt(r.prompt.id, x) for r, x in zip(rollouts, ids, strict=True)], n, key, max_new=most, stops=stops)
        return [self._joined(rollouts[i // n], more) for i, more in enumerate(drawn)]

    def _joined(self, begun: Rollout, more: Rollout) -> Rollout:
        if begun.actions is None:
            return more.with_(prompt=begun.prompt, group=begun.group)
        parts = [r for r in (begun, more) if r.actions is not None]
        actions, logp, mask = (torch.cat([getattr(r, name) for r in parts]) for name in ("actions", "logp", "mask"))
        text = self.codec.text(actions[: len(actions) - (more.end == "stop")].tolist())
        return more.with_(prompt=begun.prompt, content=text, actions=actions, logp=logp, mask=mask, group=begun.group)

    def _draw(self, ids: Sequence[list[int]], n: int, key: Key, sampler: Sampler, longest: int, stops: bool = True) -> list[Drawn]:
        """The own decoder: n completions of each prompt, prompt by prompt."""
        if not ids or not n:
            return []
        jobs = [(i, j) for i in range(len(ids)) for j in range(n)]
        uniforms = torch.stack([torch.rand(longest, dtype=torch.float64, generator=key.fold(i, j).generator()) for i, j in jobs])
        budgets = [min(longest, self.max_length - len(ids[i])) for i, _ in jobs]
        dtype, stop = dtype_of(self.rollout_dtype), frozenset(self.codec.stop_ids if stops else ())
        self.model.eval()
        if self._decoder is None:
            self._decoder = decoder_of(self.model, dtype)
        how: Any = {"rows": self.sample_rows, "dtype": dtype, "decoder": self._decoder}
        return decode(self.model, [ids[i] for i, _ in jobs], uniforms.to(self.device), budgets, stop, sampler, **how)

    def _rollout(self, prompt: Prompt, group: int, drawn: Drawn, origin: Origin) -> Rollout:
        text = self.codec.text(drawn.ids[: len(drawn.ids) - drawn.stopped].tolist())
        mask = torch.ones(len(drawn.ids), dtype=torch.bool)
        end = "stop" if drawn.stopped else "length"
        return Rollout(prompt, text, drawn.ids, drawn.logp, mask, group=group, end=end, origin=origin)

    def pieces(self, rollout: Rollout) -> list[str]:
        """Each token of a completion as text, special tokens too."""
        return [self.tokenizer.decode([i]) for i in self.encode(rollout).actions.tolist()]  # type: ignore[union-attr]

    def _sampler(self, temperature: float | None = None, top_p: float | None = None, top_k: int | None = None) -> Sampler:
        try:
            return Sampler(
                self.temperature if temperature is None else temperature,
                self.top_p if top_p is None else top_p,
                self.top_k if top_k is None else top_k,
            )
        except ValueError as error:
            raise UserError(str(error)) from None

    # ------------------------------------------------------------ encoding

    def encode(self, rollout: Rollout) -> Rollout:
        """An offline rollout with its `actions` and `mask`; one that has actions is given back as it is."""
        if rollout.actions is not None:
            return rollout
        ids = torch.tensor(self.codec.completion_ids(rollout), dtype=torch.long)
        return rollout.with_(actions=ids, mask=torch.ones(len(ids), dtype=torch.bool))

    def lengths(self, rollout: Rollout) -> tuple[int, int]:
        """Tokens of the prompt and of the completion."""
        return len(self.codec.prompt_ids(rollout.prompt)), len(self.encode(rollout))

    def fits(self, rollout: Rollout) -> bool:
        """Whether prompt and completion together are within `max_length`."""
        return sum(self.lengths(rollout)) <= self.max_length

    def _prompt(self, prompt: Prompt, completion: int | None = None) -> list[int]:
        ids = self.codec.prompt_ids(prompt)
        if len(ids) + (1 if completion is None else completion) > self.max_length:
            rest = "and a completion needs at least 1" if completion is None else f"and its completion {completion}"
            raise UserError(
                f"prompt {prompt.id!r} has {len(ids)} tokens {rest}: more than the limit of {self.max_length}",
                hint="nothing is cut silently: raise max_length (where the model allows it), shorten the prompt, or leave the row out "
                "(policy.fits tells)",
            )
        return ids

    def collate(self, rollouts: Sequence[Rollout]) -> Batch:
        """Rows of `prompt (N, P)`, `prompt_len (N,)`, `actions (N, T)` and `length (N,)`, padded to the right; offline rollouts are
        encoded. `unit` is the group. `old_logp` is there when every rollout has its log-probabilities, `routes` when all recorded them.

        Raises UserError for a row over `max_length`, and for no rows.
        """
        if not rollouts:
            raise UserError("no rollouts to collate", hint="give at least one")
        done = [self.encode(r) for r in rollouts]
        prompts = [torch.tensor(self._prompt(r.prompt, len(r))) for r in done]
        actions = [r.actions for r in done if r.actions is not None]
        mask = [torch.ones(len(r), dtype=torch.bool) if r.mask is None else r.mask for r in done]
        logp = [r.logp for r in done if r.logp is not None]
        inputs = {
            "prompt": _stack(prompts),
            "prompt_len": torch.tensor([len(p) for p in prompts]),
            "actions": _stack(actions),
            "length": torch.tensor([len(a) for a in actions]),
        }
        group = torch.tensor([r.group for r in done])
        routes = [r.record["routes"] for r in done if "routes" in r.record]
        if len(routes) == len(done):
            inputs["routes"] = _stack(routes)
        old: Any = _stack(logp).to(self.device) if len(logp) == len(done) else None
        moved = {k: v.to(self.device) for k, v in inputs.items()}
        return Batch(moved, _stack(mask).to(self.device), group.to(self.device), group.to(self.device), old_logp=old)

    # ------------------------------------------------------------ learning

    def forward(self, batch: Batch, need: frozenset[str] = frozenset({"logp"})) -> Outputs:
        """logp `(N, T)` in nats, under logits / temperature; 0 behind the end of a row.

        Asked for by name in `need`: entropy `(N, T)` of the same distribution p; in `extra` sum_p2 `(N, T)`, the sum of p^2, and
        top_k_mass and top_k_entropy `(N, T)`, of its `head.TOP_K` likeliest tokens (no gradient), all in one pass over the vocabulary;
        hidden `(N, T, D)`, the last state before each decision, and logits `(N, T, V)`, float32 and tempered (memory!); value `(N, T)`,
        the critic's estimate before each decision. Only decisions go through the LM head. The distance to a reference:
        `divergence.against`; to the policy's own past: `divergence.look`.
        """
        unknown = sorted(need - set(self.NEEDS))
        if unknown:
            raise UserError(f"a text policy does not give {unknown[0]!r}", hint=nearest(unknown[0], self.NEEDS))
        groups = self._groups(batch.inputs)
        parts = [lay({k: v[rows] for k, v in batch.inputs.items()}, self.layout) for rows in groups]
        kept, routes = batch.inputs.get("kept"), batch.inputs.get("routes")
        with self.one_gradient() as weight:
            hidden = torch.cat([self._states(p, routes if routes is None else routes[i]) for i, p in zip(groups, parts, strict=True)])
        target, taken = torch.cat([p.target for p in parts]), torch.cat([p.taken for p in parts])
        back = torch.argsort(torch.cat(groups))
        head, temperature = head_of(self.model, weight), self.temperature or 1.0
        if kept is None:
            facts = head.facts(need, hidden, target, temperature, compute=self.compute)
        else:
            kept = torch.cat([kept[i][p.taken] for i, p in zip(groups, parts, strict=True)])
            facts = of_kept(need, head.logits(hidden, temperature), target, kept)
        extra = {name: spread(x, taken)[back] for name, x in facts.items()}
        if "hidden" in need:
            extra["hidden"] = spread(hidden, taken)[back]
        if "logits" in need:
            extra["logits"] = spread(head.logits(hidden, temperature), taken)[back]
        value = spread(self._critic()(hidden), taken)[back] if "value" in need else None
        first: list[Any] = [extra.pop("logp", None), extra.pop("entropy", None), value]
        return Outputs(*first, extra=extra)

    def _critic(self) -> ValueHead:
        if self.critic is None:
            raise UserError("this policy has no critic, so it gives no `value`", hint="TextPolicy.load(..., critic=True)")
        return self.critic

    def _groups(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """Rows that go through the model together: like lengths when padded, else all."""
        length = inputs["prompt_len"] + inputs["length"]
        return buckets(length) if self.layout == "padded" else [torch.arange(len(length), device=length.device)]

    def _states(self, laid: Laid, routes: Tensor | None = None) -> Tensor:
        """The hidden state before each decision, `(M, D)`. routes: the experts to use, row by row."""
        if routes is not None and self.checkpoint_activations:
            raise UserError(
                "experts cannot be replayed with checkpoint_activations", hint="the second time would choose anew: leave one out"
            )
        with replayed(self.model, routes if routes is None else to_tokens(routes, laid.slot, laid.ids.numel())):
            return self._states_of(laid)

    def _states_of(self, laid: Laid) -> Tensor:
        if laid.branches is not None:
            return self.branched(laid.branches).index_select(0, laid.state)
        return self.states(laid.ids, laid.position, laid.tree, laid.state).flatten(0, 1).index_select(0, laid.state)

    # ------------------------------------------------------------ keeping

    def parameters(self) -> Iterable[torch.nn.Parameter]:
        """The trainable ones, in the model's order; the critic's after them."""
        return [*super().parameters(), *(trainable(self.critic).values() if self.critic is not None else ())]

    def state_dict(self) -> dict[str, Any]:
        own = {} if self.critic is None else {"critic": module_state(self.critic, "")}
        return {**super().state_dict(), **own, "version": self.version}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if (self.critic is None) != ("critic" not in state):
            have = ("a critic", "none")
            mine, saved = have[self.critic is None], have["critic" not in state]
            raise UserError(f"the saved policy has {saved}, this one {mine}", hint="load both with or without critic=True")
        super().load_state_dict(state)
        if self.critic is not None:
            load_module_state(self.critic, "", state["critic"])
        self.version = int(state["version"])

    @property
    def facts(self) -> dict[str, Any]:
        """For the manifest: what this policy is and how it reads and writes text."""
        tokens = self.tokenizer.convert_ids_to_tokens(list(self.codec.stop_ids))
        return {
            "model": self.name,
            "architecture": type(plain(self.model)).__name__,
            "compute": self.compute,
            "dtype": str(self.dtype).removeprefix("torch."),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "trainable": sum(p.numel() for p in self.parameters()),
            "prompts": "chat template; a string prompt is one user message" if self.codec.chat else "raw text",
            "stop_tokens": tokens,
            "max_length": self.max_length,
            "sampling": {k: getattr(self, k) for k in ("temperature", "top_p", "top_k", "max_new", "rollout_dtype")},
            "layout": self.layout,
            "engine": "own" if self.engine is None else self.engine.name,
        }

    def save(self, folder: Path) -> None:
        """Write weights (adapters merged), tokenizer, template and generation settings for plain transformers, and load them again.

        With adapters, the adapter alone is in `folder/adapter` (not when it stands on a merged older one: its base is nowhere on
        disk then). The folder is read back as any user would and compared: RunStopped
        when a logit differs.
        """
        from transformers import AutoModelForCausalLM

        folder = Path(folder)
        network = self._merged()
        network.generation_config = copy.deepcopy(network.generation_config)
        network.generation_config.eos_token_id = list(self.codec.stop_ids)
        pad = self.tokenizer.pad_token_id
        network.generation_config.pad_token_id = self.codec.stop_ids[0] if pad is None else pad
        self._write(folder, network)
        with quiet():
            compare_saved(AutoModelForCausalLM, folder, self.model, network, self.tokenizer)
        if self.critic is not None:
            self.critic.save(folder)
        (folder / "guerdon.json").write_text(json.dumps(self.facts, indent=2) + "\n")


def _stack(rows: Sequence[Tensor]) -> Tensor:
    """Rows padded with 0 to the right; at least one column."""
    width = max(1, *(len(r) for r in rows))
    out = rows[0].new_zeros(len(rows), width, *rows[0].shape[1:])
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def _named_stops(tokenizer: Any, names: Sequence[str]) -> list[int]:
    ids = []
    for name in names:
        pieces = tokenizer(name, add_special_tokens=False).input_ids
        if len(pieces) != 1:
            raise UserError(f"stop token {name!r} is {len(pieces)} tokens for this tokenizer", hint="name one token of the vocabulary")
        ids += pieces
    return ids


def _model_stops(model: Any) -> list[int]:
    """The ids that the model's own generation settings stop at."""
    causal = plain(model)
    found: list[int] = []
    for config in (getattr(causal, "generation_config", None), causal.config.get_text_config()):
        ids = getattr(config, "eos_token_id", None)
        found += [] if ids is None else [ids] if isinstance(ids, int) else list(ids)
    return found


def _limit(config: Any, asked: int | None) -> int:
    text = config.get_text_config()
    own = next((getattr(text, k) for k in ("max_position_embeddings", "n_positions", "max_seq_len") if getattr(text, k, None)), 2**31)
    if asked is None:
        return own
    if not 2 <= asked <= own:
        raise UserError(f"max_length {asked}, expected 2 to {own} (the model's context)")
    return asked
