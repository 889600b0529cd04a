"""Taggers: reward models of the parts of a response, kept as ordinary `AutoModelForTokenClassification` folders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.policies.codec import completion_text
from guerdon.policies.compute import Compute
from guerdon.policies.head import plain
from guerdon.policies.loading import dtype_of, load, locate, quiet
from guerdon.policies.network import Network
from guerdon.policies.sentences import segmenter
from guerdon.types import Batch, Outputs, Prompt, Rollout

CONFIG = "tagger_config.json"
SPANS, CONTEXT = "errors", "passages"
HEADS = ("score", "classifier", "dropout")


class Tagger(Network):
    """A model that reads a prompt and a response with a separator at each segment, and gives C numbers a segment, read at its separator.

    Read is `question: PROMPT answer: SEGMENT [SEP] SEGMENT [SEP] ...`, with `context: PASSAGES` before the answer where the prompt has a
    column `passages` and `context` is set. The separator stands behind its segment, where a causal model has read it; `before` puts it in
    front (encoders see both sides). Longer texts than `max_length` lose the beginning of prompt and passages, never the response.

    kind: the density, one of `sentences.KINDS`. bad, good: the two classes compared; the rest are not looked at. errors: categories of
    marked spans that make a segment bad; empty: all. rows: responses in one pass of `tags`.
    Training data are responses whose prompts have a column `errors`: a list of `{"start", "end", "category"}` in characters of the
    response (`category` may be missing), empty where it is all good. A segment that any of them touches is bad. Without the
    column (or with None) nothing is learnt from the row.
    Source: Wu et al. 2023, arXiv 2306.01693, section 2 (Longformer; sub-sentences, classes 1 and 2 for relevance; sentences, 0 and 2 for
    factuality).
    """

    NEEDS: ClassVar[tuple[str, ...]] = ("tags",)
    SHARED: ClassVar[tuple[str, ...]] = ("tokenizer",)

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str = "",
        kind: str = "sentence",
        bad: int = 0,
        good: int = 2,
        errors: Sequence[str] = (),
        context: bool = True,
        before: bool = False,
        max_length: int | None = None,
        rows: int = 32,
        compute: Compute = "float32",
    ) -> None:
        super().__init__(model, tokenizer, name=name, compute=compute)
        config = plain(model).config
        classes = config.num_labels
        if not (0 <= bad < classes and 0 <= good < classes and bad != good):
            raise UserError(f"classes bad {bad} and good {good} of {classes}", hint="give two different ones of the model's classes")
        if rows < 1:
            raise UserError(f"rows {rows}, expected an integer >= 1")
        self.segment, self.kind, self.bad, self.good = segmenter(kind), kind, bad, good
        self.errors, self.context, self.before, self.rows = tuple(errors), context, before, rows
        separator = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
        if separator is None:
            raise UserError("the tokenizer names neither a separator nor an end of text", hint="give it a sep_token")
        self.separator: int = separator
        own = getattr(config.get_text_config(), "max_position_embeddings", 2**31)
        self.max_length = own if max_length is None else min(max_length, own)
        self.layout = "padded"

    @classmethod
    def load(cls, model: str | Path = "tiny", *, classes: int = 3, dtype: str = "float32", key: Key = Key(0), **options: Any) -> Tagger:
        """A tagger's folder (settings and all), or a new head of so many classes on a model: "tiny", a folder, or a hub name."""
        from transformers import AutoConfig, AutoModelForTokenClassification, AutoTokenizer

        place = locate(model)
        with quiet(), torch.random.fork_rng():
            torch.manual_seed(key.fold("tagger").number % 2**63)
            tokenizer = load(AutoTokenizer, place)
            ready = any("ForTokenClassification" in a for a in load(AutoConfig, place).architectures or ())
            how = {} if ready else {"num_labels": classes, "fresh": HEADS}
            network = load(AutoModelForTokenClassification, place, dtype=dtype_of(dtype), **how)
        kept = Path(place) / CONFIG
        known = json.loads(kept.read_text()) if kept.exists() else {}
        return cls(network, tokenizer, name=str(model), **{**known, **options})

    # ------------------------------------------------------------ reading

    def segments(self, rollout: Rollout) -> list[tuple[int, int]]:
        """Of the response, in characters."""
        return self.segment(completion_text(rollout))

    def ids(self, rollout: Rollout) -> tuple[list[int], list[int]]:
        """Token ids of what is read, and the place of each segment's separator. Raises UserError where the response alone is too long."""
        answer, at, room = self._answer(rollout)
        prompt = rollout.prompt
        passages = prompt.meta.get(CONTEXT) if self.context else None
        read = self._encode(f"question: {_joined(prompt.content)}" + (f" context: {_joined(passages)}" if passages else ""))
        if room < 0:
            raise UserError(
                f"the response to {prompt.id!r} has {len(answer)} tokens with its separators, and the limit is {self.max_length}",
                hint="raise max_length where the model allows it, or leave the row out",
            )
        begin = read[max(0, len(read) - room) :]
        return begin + answer, [len(begin) + i for i in at]

    def _answer(self, rollout: Rollout) -> tuple[list[int], list[int], int]:
        """Ids of the response's part, the places of its separators, and the room that is left before it (below 0: it is too long)."""
        text, ids, at = completion_text(rollout), self._encode(" answer:"), []
        for start, stop in self.segments(rollout):
            piece = self._encode(text[start:stop])
            at.append(len(ids) + (0 if self.before else len(piece)))
            ids += [self.separator, *piece] if self.before else [*piece, self.separator]
        return ids, at, self.max_length - len(ids)

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def labels(self, rollout: Rollout) -> list[int]:
        """The class of each segment by the marked spans; -100 without judgement."""
        marked = rollout.prompt.meta.get(SPANS)
        if marked is None:
            return [-100] * len(self.segments(rollout))
        wrong = [(m["start"], m["end"]) for m in marked if not self.errors or m.get("category") in self.errors]
        return [self.bad if any(a < stop and start < b for a, b in wrong) else self.good for start, stop in self.segments(rollout)]

    def collate(self, rollouts: Sequence[Rollout]) -> Batch:
        """Rows of `ids (N, S)`, `length (N,)` and `at (N, J)`; a decision is a segment: `mask (N, J)`, and `extra["tag"] (N, J)` its class,
        -100 where it was not judged or there is none."""
        if not rollouts:
            raise UserError("no rollouts to collate", hint="give at least one")
        read = [self.ids(r) for r in rollouts]
        tags = [self.labels(r) for r in rollouts]
        width, most = max(1, *(len(ids) for ids, _ in read)), max(1, *(len(at) for _, at in read))
        inputs = {
            "ids": torch.tensor([[*ids, *[self.separator] * (width - len(ids))] for ids, _ in read]),
            "length": torch.tensor([len(ids) for ids, _ in read]),
            "at": torch.tensor([[*at, *[0] * (most - len(at))] for _, at in read]),
        }
        mask = torch.arange(most) < torch.tensor([len(at) for _, at in read])[:, None]
        group = torch.tensor([r.group for r in rollouts]).to(self.device)
        tag = torch.tensor([[*t, *[-100] * (most - len(t))] for t in tags]).to(self.device)
        moved = {k: v.to(self.device) for k, v in inputs.items()}
        return Batch(moved, mask.to(self.device), group, torch.arange(len(rollouts), device=self.device), extra={"tag": tag})

    def forward(self, batch: Batch, need: frozenset[str] = frozenset({"tags"})) -> Outputs:
        """`extra["tags"] (N, J, C)`: logits of each segment."""
        unknown = sorted(need - set(self.NEEDS))
        if unknown:
            raise UserError(f"a tagger does not give {unknown[0]!r}, only 'tags'", hint="use a TextPolicy for log-probabilities")
        ids, at = batch.inputs["ids"], batch.inputs["at"]
        real = torch.arange(ids.shape[1], device=ids.device) < batch.inputs["length"][:, None]
        logits = self.run(plain(self.model), input_ids=ids, attention_mask=real.long()).logits
        tags = logits.gather(1, at[..., None].expand(*at.shape, logits.shape[-1]))
        return Outputs(extra={"tags": tags if tags.dtype == torch.float64 else tags.float()})

    @torch.no_grad()
    def tags(self, rollouts: Sequence[Rollout]) -> list[Tensor | None]:
        """`(J_i, C)` logits of each response's segments, without a gradient; None for a response that is too long to be read."""
        fits = [self._answer(r)[2] >= 0 for r in rollouts]
        read, found = [r for r, fit in zip(rollouts, fits, strict=True) if fit], []
        for i in range(0, len(read), self.rows):
            batch = self.collate(read[i : i + self.rows])
            with self.exactly():
                tags = self.forward(batch).extra["tags"]
            found += [row[real] for row, real in zip(tags, batch.mask, strict=True)]
        given = iter(found)
        return [next(given) if fit else None for fit in fits]

    def sample(self, prompts: Sequence[Prompt], n: int, key: Key) -> list[Rollout]:
        raise UserError("a tagger reads text, it does not write any", hint="sample from a TextPolicy")

    def save(self, folder: Path) -> None:
        """Write a folder that plain transformers loads, and the settings of the reading beside it."""
        folder = Path(folder)
        known = {name: getattr(self, name) for name in ("kind", "bad", "good", "context", "before", "max_length")}
        for place in self._write(folder, self._merged()):
            (place / CONFIG).write_text(json.dumps({**known, "errors": list(self.errors)}, indent=2) + "\n")


def _joined(content: Any) -> str:
    """A text, or the texts of a list (of chat messages) one after the other."""
    if isinstance(content, str):
        return content
    return " ".join(str(p.get("content") or "") if isinstance(p, Mapping) else str(p) for p in content)
