"""Reward models, kept as ordinary `AutoModelForSequenceClassification` folders: with one label, or with several and a readout.

A score is read at the last real token, found from lengths; so a text scores the same alone, padded on either side, or packed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from guerdon.core.rng import Key
from guerdon.errors import RunStopped, UserError
from guerdon.policies import reward_card
from guerdon.policies.codec import Codec, completion_text
from guerdon.policies.compute import Compute, in_float32
from guerdon.policies.head import plain
from guerdon.policies.head_layouts import FoundHead, find_head
from guerdon.policies.layout import choose
from guerdon.policies.loading import PROBE, dtype_of, load, locate, quiet
from guerdon.policies.lora import Lora, adapter_base, is_adapted, load_adapter
from guerdon.policies.network import Network
from guerdon.policies.packing import LAYOUTS, Layout, buckets, lay_texts
from guerdon.policies.readout import Readout, read
from guerdon.policies.several import head_weight, replace_head, units
from guerdon.types import Batch, Outputs, Prompt, Rollout

HEADS = ("score", "classifier", "pre_classifier", "pooler")
"""Names of the parts that a sequence classifier has on top of its body."""
PROBES = (
    Rollout(Prompt("probe-1", "How was the food?"), "It was great."),
    Rollout(Prompt("probe-2", PROBE), "No."),
)


class Scorer(Network):
    """A model that reads a prompt and its completion and gives one number: a reward model.

    Text: with a chat template the whole rendered conversation, as plain transformers would render it; without one the prompt, the
    completion and the end-of-text token (an encoder: the pair of texts). Rollouts are read as text, never as another model's ids.
    A completion that was cut at its length limit is read as if it ended there.

    layout: one of `packing.LAYOUTS`, or "left" (padded to the left); all give the same scores. As an attribute, the one that was chosen.
    rows: texts in one pass of `score`.
    mean, std: the normaliser of `score`; `forward` gives raw scores. compute, checkpoint_activations: of `forward` (see `Network`);
    the head itself and `score` stay float32. readout: how a head with several outputs comes to one number (`policies.readout`).
    """

    NEEDS: ClassVar[tuple[str, ...]] = ("score", "feature", "outputs")

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str = "",
        max_length: int | None = None,
        raw: bool = False,
        layout: str = "auto",
        rows: int = 64,
        mean: float = 0.0,
        std: float = 1.0,
        compute: Compute = "float32",
        checkpoint_activations: bool = False,
        readout: Readout | None = None,
    ) -> None:
        if not std > 0 or rows < 1:
            raise UserError(f"std {std} and rows {rows}, expected positive numbers")
        self.readout, labels = readout or Readout(), plain(model).config.num_labels
        if labels != self.readout.labels:
            raise UserError(
                f"{name or 'the model'} gives {labels} numbers a text, a reward model gives {self.readout.labels}",
                hint="load a model with num_labels=1, or say in reward_config.json how several are read",
            )
        super().__init__(model, tokenizer, name=name, compute=compute, checkpoint_activations=checkpoint_activations)
        self.readout.to(self.device)
        self.codec = Codec(tokenizer, raw=raw, acts=False)
        self.causal = hasattr(plain(model), "score")
        if layout in ("left", "tree", "packed") and not self.causal:
            raise UserError(f"layout {layout!r} is for causal models", hint='use layout="padded"')
        self.layout: Layout = choose(self, layout if self.causal or layout != "auto" else "padded", (*LAYOUTS, "left"))
        self.rows, self.mean, self.std = rows, mean, std
        own = getattr(plain(model).config.get_text_config(), "max_position_embeddings", 2**31)
        self.max_length = own if max_length is None else min(max_length, own)
        self.check()

    @classmethod
    def load(
        cls,
        model: str | Path = "tiny",
        *,
        lora: Lora | None = None,
        dtype: str = "float32",
        chat_template: str | None = None,
        device: str = "cpu",
        key: Key = Key(0),
        **options: Any,
    ) -> Scorer:
        """A reward model from a reward-model folder (head, normaliser and all; also those of `head_layouts`), or a new head on a causal
        model or an encoder.

        A new head is drawn from N(0, 1 / (width + 1)) (Stiennon et al. 2020, arXiv 2009.01325, appendix) with `key`. lora: adapters on
        the body, the head trained whole (an adapter whose head is in another file is merged). Raises UserError for an adapter that was
        saved without its head, for a model with other than one label, and for what cannot be loaded; RunStopped when the self-test fails.
        """
        from transformers import AutoTokenizer

        place = locate(model)
        head = find_head(place)
        adapter = _adapter(place, headless=head is not None)
        base = locate(adapter_base(adapter)) if adapter else place
        kept = Path(place) / reward_card.CONFIG
        known = json.loads(kept.read_text()) if kept.exists() else {}
        readout = options.pop("readout", None) or read(place, known.get("readout"))
        with quiet():
            tokenizer = load(AutoTokenizer, base if adapter and not (Path(place) / "tokenizer_config.json").exists() else place)
            labels = readout.labels if readout else 1
            network = _network(base, tokenizer, dtype_of(dtype), key, head, fresh_head=adapter is not None, labels=labels)
            if adapter:
                network = load_adapter(network, adapter, train=lora is None and head is None)
            if lora is not None:
                parts = {n.rpartition(".")[2] for n, _ in network.named_modules()}
                network = lora.wrap(
                    network, "SEQ_CLS", keep=tuple(h for h in ("score", "classifier", "pre_classifier", "pooler") if h in parts)
                )
        if chat_template is not None:
            tokenizer.chat_template = chat_template
        settings = {k: known[k] for k in ("mean", "std", "raw", "max_length") if k in known}
        found = head.normaliser if head else {}
        scorer = cls(network.to(device), tokenizer, name=str(model), readout=readout, **{**found, **settings, **options})
        scorer.on_merged = adapter is not None and lora is not None
        return scorer

    # ------------------------------------------------------------ reading

    def text(self, rollout: Rollout) -> str:
        """What is read, for a causal model: `tokenizer(text)` in plain transformers gives the same ids (with
        `add_special_tokens=False` when there is a chat template)."""
        completion = completion_text(rollout)
        if self.codec.chat:
            return self.codec.render(rollout.prompt) + "".join(self.codec.render_turn(rollout.prompt, completion))
        return self.codec.render(rollout.prompt) + completion + (self.tokenizer.eos_token or "")

    def ids(self, rollout: Rollout) -> list[int]:
        """Token ids of the text. Raises UserError over `max_length`; nothing is cut."""
        ids = self._encode(rollout)
        if len(ids) > self.max_length:
            raise UserError(
                f"prompt {rollout.prompt.id!r} and its completion have {len(ids)} tokens: more than the limit of {self.max_length}",
                hint="nothing is cut silently: raise max_length (where the model allows it), shorten the row, or leave it out",
            )
        return ids

    def _encode(self, rollout: Rollout) -> list[int]:
        key = ("read", rollout.prompt.content, completion_text(rollout))
        return self.codec.memo.ids(key, lambda: self._ids(rollout))

    def _ids(self, rollout: Rollout) -> list[int]:
        if not self.causal and not self.codec.chat:
            ids = self.tokenizer(self.codec.render(rollout.prompt), completion_text(rollout)).input_ids
        else:
            ids = self.tokenizer(self.text(rollout), add_special_tokens=not self.codec.chat).input_ids
        end = self.tokenizer.eos_token_id
        while not self.codec.chat and self.causal and len(ids) > 1 and ids[-1] == ids[-2] == end:
            ids = ids[:-1]  # the tokenizer closes texts by itself
        pad = plain(self.model).config.get_text_config().pad_token_id
        while self.causal and len(ids) > 1 and ids[-1] == pad:
            ids = ids[:-1]  # published with padding == end of text: plain transformers reads the token before it, and so must we
        return list(ids)

    def collate(self, rollouts: Sequence[Rollout]) -> Batch:
        """Rows of `ids (N, S)`, padded to the right, and `length (N,)`. One decision a row: `mask (N, 1)`. `unit` is the group."""
        if not rollouts:
            raise UserError("no rollouts to collate", hint="give at least one")
        group = torch.tensor([r.group for r in rollouts], device=self.device)
        return self._batch([self.ids(r) for r in rollouts], group)

    def _batch(self, rows: Sequence[Sequence[int]], group: Tensor) -> Batch:
        width = max(map(len, rows))
        inputs = {
            "ids": torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=self.device),
            "length": torch.tensor([len(row) for row in rows], device=self.device),
        }
        return Batch(inputs, torch.ones(len(rows), 1, dtype=torch.bool, device=self.device), group, group)

    def forward(self, batch: Batch, need: frozenset[str] = frozenset({"score"})) -> Outputs:
        """score `(N,)`: raw, float32 (float64 for a float64 model). Where `need` asks for it, `extra["feature"]` `(N, D)`: what the head
        reads, the last token's last hidden state (not of an encoder, whose head has layers of its own), and "outputs": what the readout
        makes of the head's outputs `(N, K)`, by name."""
        unknown = sorted(need - set(self.NEEDS))
        if unknown:
            raise UserError(f"a scorer gives 'score' and 'feature', not {unknown[0]!r}", hint="use a TextPolicy for log-probabilities")
        if "feature" in need and not self.causal:
            raise UserError("the features of an encoder with a head of its own are not read", hint="use a causal model, or FeatureScorer")
        ids, length = batch.inputs["ids"], batch.inputs["length"]
        groups = buckets(length) if self.layout in ("padded", "left") else [torch.arange(len(length), device=length.device)]
        found, place = [self._score(ids[rows], length[rows]) for rows in groups], torch.argsort(torch.cat(groups))
        outputs, *feature = (torch.cat(parts)[place] for parts in zip(*found, strict=True))
        outputs = outputs if outputs.dtype == torch.float64 else outputs.float()
        extra = {"feature": feature[0]} if "feature" in need else {}
        return Outputs(score=self.readout(outputs), extra=extra | (self.readout.columns(outputs) if "outputs" in need else {}))

    def reward_of(self, feature: Tensor) -> Tensor:
        """Raw scores `(N,)` of features `(N, D)`: the head alone."""
        return self.readout(self._head(feature))

    def _head(self, feature: Tensor) -> Tensor:
        with self.exactly():  # the products of a scalar head cost nothing, and three digits are too few for a reward
            return self.run(plain(self.model).score, feature.to(self.dtype))

    def _score(self, ids: Tensor, length: Tensor) -> tuple[Tensor, ...]:
        """What the head gives for these texts, `(N, K)`, and of a causal model the features it is made of, `(N, D)`."""
        if self.causal:
            laid = lay_texts(ids, length, self.layout)
            given = {"attention_mask": laid.mask} if laid.mask is not None else {}
            states = self.states(laid.ids, laid.position, laid.tree, laid.last, **given)
            feature = states.flatten(0, 1)[laid.last]
            return self._head(feature), feature
        ids = ids[:, : int(length.max())]
        real = torch.arange(ids.shape[1], device=ids.device) < length[:, None]
        heads = [part for name, part in plain(self.model).named_modules() if name.rpartition(".")[2] in HEADS]
        with in_float32(heads):
            score = self.run(plain(self.model), input_ids=ids, attention_mask=real.long(), **self._segments(ids)).logits
        return (score,)

    def _segments(self, ids: Tensor) -> dict[str, Tensor]:
        """token_type_ids of a text pair, for an encoder that knows them: 1 after the first separator."""
        if "token_type_ids" not in self.tokenizer.model_input_names or self.codec.chat:
            return {}
        ends = ids == self.tokenizer.sep_token_id
        return {"token_type_ids": (ends.cumsum(1) - ends.long()).clamp(max=1)}

    @torch.no_grad()
    def score(self, rollouts: Sequence[Rollout]) -> Tensor:
        """Normalised scores `(N,)`: `(raw - mean) / std`. No gradient. Never in bfloat16 (unless the weights are): a text scores the same
        in any company."""
        with self.exactly():
            parts = [self.forward(self.collate(rollouts[a : a + self.rows])).score for a in range(0, len(rollouts), self.rows)]
        return (torch.cat([x for x in parts if x is not None]) - self.mean) / self.std if parts else torch.zeros(0)

    @torch.no_grad()
    def outputs(self, rollouts: Sequence[Rollout]) -> Tensor:
        """What the head gives, `(N, K)`, before any readout and normaliser. No gradient."""
        with self.exactly():
            parts = [
                self.forward(self.collate(rollouts[a : a + self.rows]), frozenset({"outputs"})) for a in range(0, len(rollouts), self.rows)
            ]
        return torch.cat([x.extra["outputs"] for x in parts]) if parts else torch.zeros(0, self.readout.labels)

    def normalise(self, rollouts: Sequence[Rollout]) -> None:
        """Set mean and std so that these rollouts score 0 on average with standard deviation 1.

        Raises UserError when they all score the same.
        """
        self.mean, self.std = units(self.score(rollouts).double() * self.std + self.mean)

    # ------------------------------------------------------------ keeping

    def with_head(self, readout: Readout, key: Key, *, fresh: bool = False) -> Scorer:
        """This scorer with a new head, drawn with `key`, of as many outputs as the readout reads; as it is where its head is read in that
        way already, unless `fresh`."""
        if fresh or readout.described() != self.readout.described():
            replace_head(plain(self.model), readout.labels, key)
            self.readout, self.mean, self.std, self._frozen = readout.to(self.device), 0.0, 1.0, None
            self.check()
        return self

    @property
    def head_weight(self) -> Tensor:
        """`(K, D)`: one direction of the features for each output."""
        return head_weight(plain(self.model))

    def parameters(self) -> Iterable[torch.nn.Parameter]:
        """The trainable ones, in the model's order, then those of the readout."""
        return [*super().parameters(), *self.readout.parameters()]

    def sample(self, prompts: Sequence[Prompt], n: int, key: Key) -> list[Rollout]:
        raise UserError("a scorer reads text, it does not write any", hint="sample from a TextPolicy")

    def state_dict(self) -> dict[str, Any]:
        learnt = {name: x.clone() for name, x in self.readout.state_dict().items()}
        return {**super().state_dict(), "mean": self.mean, "std": self.std, **({"readout": learnt} if learnt else {})}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.mean, self.std = float(state["mean"]), float(state["std"])
        self.readout.load_state_dict(state.get("readout", {}))

    @torch.no_grad()
    def check(self) -> None:
        """Two probe texts must score the same alone and together, and as in plain transformers. Raises RunStopped otherwise."""
        for probe, outputs in zip(PROBES, self._probe(), strict=True):
            ids = torch.tensor([self._encode(probe)], device=self.device)
            usual = plain(self.model)(input_ids=ids, **({} if self.causal else self._segments(ids))).logits[0].cpu()
            at = int((outputs - usual).abs().argmax())
            score, other = float(outputs[at]), float(usual[at])
            if not abs(score - other) <= self._tolerance * max(1.0, abs(other)):
                raise RunStopped(
                    f"self-test of {self.name or 'the scorer'}: a text scores {score:.6g} here and {other:.6g} alone in plain transformers",
                    hint='use layout="padded"; if it still fails, this model family is not supported',
                )

    @torch.no_grad()
    def _probe(self) -> Tensor:
        """What the head gives for the probes, `(2, K)`, on the CPU."""
        batch = self._batch([self._encode(p) for p in PROBES], torch.zeros(len(PROBES), dtype=torch.long, device=self.device))
        with self.exactly():
            return self.forward(batch, frozenset({"outputs"})).extra["outputs"].cpu()

    @property
    def _tolerance(self) -> float:
        return 1e-4 if self.dtype in (torch.float32, torch.float64) else 5e-2

    def save(self, folder: Path) -> None:
        """Write a folder that plain transformers loads: weights (adapters merged), tokenizer, template, the normaliser in
        `reward_config.json`, and a model card; then load it and compare scores. RunStopped when they differ. An adapter is also in
        `folder/adapter`."""
        folder = Path(folder)
        places = self._write(folder, self._merged())
        known = {"mean": self.mean, "std": self.std, "raw": not self.codec.chat, "max_length": self.max_length, "base": self.name}
        if self.readout.kind != "one":
            known["readout"] = self.readout.described()
        for place in places:
            self.readout.save(place)
            (place / reward_card.CONFIG).unlink(missing_ok=True)  # what was found out about an older model there
            reward_card.note(place, **known)
        again = Scorer.load(folder, dtype=str(self.dtype).removeprefix("torch."))
        gap = float((again._probe() - self._probe()).abs().max())
        same = (
            self.device.type == "cpu"
            and self.layout == again.layout
            and not is_adapted(self.model)
            and (again.mean, again.std) == (self.mean, self.std)
        )
        limit = 0.0 if same else self._tolerance * max(1.0, float(self._probe().abs().max()))
        if not gap <= limit or (again.mean, again.std) != (self.mean, self.std):
            raise RunStopped(f"the scorer read back from {folder} differs by {gap:.3g}", hint="report this: the folder must not be used")


def _adapter(place: str, *, headless: bool) -> str | None:
    """The folder if it holds an adapter and no whole model. headless: its head is in another file. Raises UserError when the adapter
    came without a head."""
    folder = Path(place)
    if not (folder / "adapter_config.json").exists() or (folder / "config.json").exists():
        return None
    from safetensors import safe_open

    weights = folder / "adapter_model.safetensors"
    if not weights.exists():
        raise UserError(f"the adapter in {place!r} has no adapter_model.safetensors", hint="give a complete adapter folder")
    with safe_open(str(weights), framework="pt") as file:
        names = list(file.keys())
    if not headless and not any(part in ("score", "classifier") for name in names for part in name.split(".")):
        raise UserError(
            f"the adapter in {place!r} was saved without its score head, so its scores would be random",
            hint='train it with modules_to_save=["score"], or give the merged folder',
        )
    return place


def _network(place: str, tokenizer: Any, dtype: torch.dtype, key: Key, head: FoundHead | None, *, fresh_head: bool, labels: int = 1) -> Any:
    """The sequence classifier in a folder, or one on top of the model there. head: the one to take in place of a new one. fresh_head: an
    adapter will bring the head, of so many labels."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = load(AutoConfig, place)
    ready = any("ForSequenceClassification" in a for a in config.architectures or ()) and not fresh_head
    with torch.random.fork_rng():
        torch.manual_seed(key.fold("head").number % 2**63)
        if ready:
            return load(AutoModelForSequenceClassification, place, dtype=dtype)
        model = load(AutoModelForSequenceClassification, place, dtype=dtype, num_labels=labels, fresh=HEADS)
    if hasattr(model, "score"):
        width = model.score.weight.shape[1]
        if head and head.weight.shape[1] != width:
            raise UserError(
                f"the head in {head.file!r} reads {head.weight.shape[1]} numbers and the model in {place!r} gives {width}",
                hint="give the head together with the model it was trained on",
            )
        with torch.no_grad():
            drawn = torch.randn(model.score.weight.shape, generator=key.fold("head").generator(), dtype=torch.float64)
            model.score.weight.copy_(head.weight if head else drawn / (width + 1) ** 0.5)
        _set_padding(model, tokenizer)
    elif head:
        raise UserError(f"{place!r} has a reward head in {head.file!r}, and is no decoder", hint="save it as a sequence classifier")
    return model


def _set_padding(model: Any, tokenizer: Any) -> None:
    """A padding token that never ends a text. Plain transformers takes the last token that is not padding for the end: padding that is
    also the end-of-text token would make it read one token too early."""
    ends = {tokenizer.eos_token_id, *Codec(tokenizer, acts=False).stop_ids}
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in ends:
        others = [i for i in sorted({*tokenizer.added_tokens_decoder, *tokenizer.all_special_ids}) if i not in ends]
        if others:
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(others[0])
        else:
            tokenizer.add_special_tokens({"pad_token": "<|padding|>"})
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        with torch.random.fork_rng():  # the new row is never read
            model.resize_token_embeddings(len(tokenizer))
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
