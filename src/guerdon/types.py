"""The central types: read this file first.

A *policy* turns prompts into rollouts, a *reward* turns rollouts into scores, a *recipe* turns scores into a better policy.
Shapes use N rows, T decisions, G groups and P pairs. A decision is a token (text), a denoising step (diffusion), a control tick
(robots) or a rank (retrieval); nothing in this file, in `core/` or in `learn/` knows which.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.core.reduce import Reduce
from guerdon.core.rng import Key

ABSENT: Any = None
"""Default of tensors that are None until somebody fills them; typed as tensors, so that objectives read without ceremony."""

EMPTY: Mapping[str, Any] = MappingProxyType({})
NAN = float("nan")


# ---------------------------------------------------------------- what is asked, what was done, what it is worth


@dataclass(frozen=True)
class Prompt:
    """One thing to respond to.

    content: a string, chat messages (`[{"role": ..., "content": ...}]`), an environment seed, a class id, a query ...
    meta: every other column of the record (ground truth, domain, difficulty ...); rewards read it by name.
    """

    id: str
    content: Any
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Origin:
    """Where a rollout came from: enough to tell how stale it is and to draw it again.

    version: number of updates of the policy that acted. key: text form of the random key. temperature, top_p, top_k: the
    distribution that `Rollout.logp` belongs to.
    """

    version: int = 0
    key: str = ""
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0


@dataclass(frozen=True)
class Rollout:
    """One response to one prompt, as the policy made it (or as a data set holds it).

    content: what a reward reads: text, an image tensor, a trajectory.
    actions: `[T]` ids or `[T, d]` values; None for offline content that `Policy.collate` has yet to encode.
    logp: `[T]` log-probabilities under the distribution sampled from; None for offline data.
    mask: `[T]`, True where the policy chose (tool output: False); None with `actions`.
    segments: named spans on the decision axis, for instance `{"step": ((0, 4), (4, 9))}`.
    group: rollouts of one prompt share it. end: why it stopped. record: what the sampler did besides, by name, for training to repeat
    (`routes`: the experts of a mixture, `policies.routing`).
    """

    prompt: Prompt
    content: Any
    actions: Tensor | None = None
    logp: Float[Tensor, " T"] | None = None
    mask: Bool[Tensor, " T"] | None = None
    segments: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    group: int = 0
    end: Literal["stop", "length", "error"] = "stop"
    origin: Origin = Origin()
    record: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of decisions T; 0 when not encoded yet."""
        return 0 if self.actions is None else int(self.actions.shape[0])

    def with_(self, **changes: Any) -> Rollout:
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class Span:
    """A value for the decisions `start <= t < stop`."""

    start: int
    stop: int
    value: float


@dataclass(frozen=True)
class Score:
    """What a reward says of one rollout. Granularity is data: a token is a span of length 1, a sequence one long span.

    spans: empty means *abstained* (no judgement): NaN in arrays, left out of every baseline, counted, never 0.
    parts: named components, for logs and audits. note: the reason, for people.
    """

    spans: tuple[Span, ...] = ()
    parts: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    @classmethod
    def whole(cls, rollout: Rollout, value: float, parts: Mapping[str, float] = EMPTY, note: str = "") -> Score:
        """One value for the whole rollout."""
        return cls((Span(0, max(len(rollout), 1), float(value)),), parts, note)

    @classmethod
    def per(cls, rollout: Rollout, segment: str, values: Sequence[float], parts: Mapping[str, float] = EMPTY, note: str = "") -> Score:
        """One value for each span of `rollout.segments[segment]`, in order."""
        spans = rollout.segments.get(segment, ())
        if len(spans) != len(values):
            raise ValueError(
                f"{len(values)} values for {len(spans)} {segment!r} spans of rollout {rollout.prompt.id!r}\n"
                f"hint: give one value per span; known segments: {sorted(rollout.segments) or 'none'}"
            )
        return cls(tuple(Span(a, b, float(v)) for (a, b), v in zip(spans, values, strict=True)), parts, note)

    @classmethod
    def tokens(cls, rollout: Rollout, values: Sequence[float] | Tensor, parts: Mapping[str, float] = EMPTY, note: str = "") -> Score:
        """One value for each decision."""
        values = values.tolist() if isinstance(values, Tensor) else list(values)
        if len(values) != len(rollout):
            raise ValueError(
                f"{len(values)} values for {len(rollout)} decisions of rollout {rollout.prompt.id!r}\nhint: give one value per decision"
            )
        return cls(tuple(Span(t, t + 1, float(v)) for t, v in enumerate(values)), parts, note)

    @classmethod
    def abstain(cls, why: str) -> Score:
        """No judgement, and why."""
        return cls((), EMPTY, why)

    @property
    def abstained(self) -> bool:
        return not self.spans

    @property
    def value(self) -> float:
        """Sum of the span values; NaN when abstained."""
        return sum(s.value for s in self.spans) if self.spans else NAN


class Reward(Protocol):
    """Rollouts in, scores out, aligned with the input."""

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]: ...


@dataclass(frozen=True)
class Preference:
    """Responses to one prompt, best first: two make a pair, K a list.

    margin: how much better the first is (in units of the source's ratings), None when unknown.
    label: probability in [0, 1] that the first really is better (a vote share); 1 when unknown.
    """

    prompt: Prompt
    ranked: tuple[Rollout, ...]
    margin: float | None = None
    label: float = 1.0
    source: str = ""


# ---------------------------------------------------------------- what a learner sees


@dataclass(frozen=True)
class Batch:
    """Rows ready for a forward pass. Every tensor has the row axis N first, so that rows can be selected; `inputs` is otherwise
    the policy's own business. What belongs to a pair (label, margin, weight) stands at the row of its chosen response.

    mask: True where a decision is learnt from. group: rows of one prompt. unit: rows that must stay in one micro-batch.
    old_logp, ref_logp, adv, label, pairs: None until given. extra: further named columns, `[N]` or `[N, T]`.
    """

    inputs: Mapping[str, Tensor]
    mask: Bool[Tensor, "N T"]
    group: Int[Tensor, " N"]
    unit: Int[Tensor, " N"]
    old_logp: Float[Tensor, "N T"] = ABSENT
    ref_logp: Float[Tensor, "N T"] = ABSENT
    adv: Float[Tensor, "N T"] = ABSENT
    label: Float[Tensor, " N"] = ABSENT
    pairs: Int[Tensor, "P 2"] = ABSENT
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.mask.shape[0])

    def with_(self, **changes: Any) -> Batch:
        return dataclasses.replace(self, **changes)

    def rows(self, index: Int[Tensor, " M"]) -> Batch:
        """The sub-batch of these rows, in this order; pairs are kept where both rows are, and renumbered."""

        def take(x: Tensor | None) -> Any:
            return None if x is None else x[index]

        pairs = self.pairs
        if pairs is not None:
            where = torch.full((len(self),), -1, dtype=torch.long, device=pairs.device)
            where[index] = torch.arange(len(index), device=pairs.device)
            moved = where[pairs]
            pairs = moved[(moved >= 0).all(1)]
        return Batch(
            {k: v[index] for k, v in self.inputs.items()},
            self.mask[index],
            self.group[index],
            self.unit[index],
            take(self.old_logp),
            take(self.ref_logp),
            take(self.adv),
            take(self.label),
            pairs,
            {k: v[index] for k, v in self.extra.items()},
        )


@dataclass(frozen=True)
class Outputs:
    """What a forward pass gives; a field is None unless it was asked for in `need`.

    logp: log-probability of each decision. entropy: of the distribution it was drawn from. value: a critic's estimate before it.
    score: a scalar head's reward of the row. extra: anything else, by name.
    """

    logp: Float[Tensor, "N T"] = ABSENT
    entropy: Float[Tensor, "N T"] = ABSENT
    value: Float[Tensor, "N T"] = ABSENT
    score: Float[Tensor, " N"] = ABSENT
    extra: Mapping[str, Tensor] = field(default_factory=dict)


Mask = Tensor  # Bool["N T"] | Bool["N"] | Bool["P"]


@dataclass(frozen=True)
class Term:
    """One visible line that binds a pure objective to a batch.

    loss: un-reduced values, `(N, T)`, `(N,)` or `(P,)`. over: the mask of the same shape that says which of them count.
    reduce: how they become one number (`core.reduce`). needs: which `Outputs` it reads.
    watch: un-reduced quantities to log, of the shape of the loss, averaged over the same mask.
    whole_batch: the rows couple (in-batch negatives, batch quantiles), so the batch must not be split.
    """

    name: str
    loss: Callable[[Outputs, Batch], Tensor]
    over: Callable[[Batch], Mask]
    reduce: Reduce
    coef: float = 1.0
    needs: frozenset[str] = frozenset({"logp"})
    watch: Callable[[Outputs, Batch], Mapping[str, Tensor]] | None = None
    whole_batch: bool = False


def decisions(batch: Batch) -> Mask:
    """Every decision that is learnt from: `(N, T)`."""
    return batch.mask


def rows(batch: Batch) -> Mask:
    """Every row with at least one decision: `(N,)`."""
    return batch.mask.any(1)


def pairs(batch: Batch) -> Mask:
    """Every pair: `(P,)`."""
    return torch.ones(len(batch.pairs), dtype=torch.bool, device=batch.mask.device)


class Metrics(dict[str, float]):
    """Numbers of one step by name, and the rollouts worth showing. `a | b` joins both."""

    def __init__(self, values: Mapping[str, float] = EMPTY, samples: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(values)
        self.samples = tuple(samples)

    def __or__(self, other: Mapping[str, float]) -> Metrics:  # type: ignore[override]
        return Metrics({**self, **other}, self.samples + tuple(getattr(other, "samples", ())))


# ---------------------------------------------------------------- who acts and who learns


@runtime_checkable
class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any], /) -> Any: ...


class Policy(Stateful, Protocol):
    """Whatever acts: a language model, a diffusion model, a controller. `collate` is the only writer of `Batch.inputs`, `forward`
    their only reader. `version` counts the updates its weights have had; the learner keeps it, rollouts carry it."""

    version: int

    def sample(self, prompts: Sequence[Prompt], n: int, key: Key) -> list[Rollout]:
        """n rollouts of each prompt, prompt by prompt; `group` is the prompt's index."""
        ...

    def collate(self, rollouts: Sequence[Rollout]) -> Batch: ...
    def forward(self, batch: Batch, need: frozenset[str] = frozenset({"logp"})) -> Outputs: ...
    def parameters(self) -> Iterable[torch.nn.Parameter]:
        """The trainable ones, in a fixed order."""
        ...

    def save(self, folder: Path) -> None:
        """Write what a plain loader of the domain reads back."""
        ...


@dataclass(frozen=True)
class Probe:
    """A read-only tap: every `every` steps `fn(step)` gives further metrics."""

    name: str
    every: int
    fn: Callable[[int], Mapping[str, float]]


class Watcher(Stateful, Protocol):
    """Judges a run while it goes on. stop: why it should end now, in words; empty to go on. verdicts: what there is to say of the run so
    far, each `{"verdict": a word, "why": a sentence}`."""

    @property
    def stop(self) -> str: ...
    def verdicts(self) -> list[Mapping[str, str]]: ...


@dataclass(frozen=True)
class Recipe:
    """A method, assembled: what it remembers, what one step does, how many there are.

    state: everything that must survive a kill. step: takes the step's number, returns its metrics. final: writes the result into a
    folder. facts: for the manifest (data mapping, first rendered row, identities of frozen models). watcher: may end the run before its
    last step, and has the last word; what it remembers is in `state` too.
    """

    state: Mapping[str, Stateful]
    step: Callable[[int], Metrics]
    steps: int
    probes: tuple[Probe, ...] = ()
    final: Callable[[Path], None] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    watcher: Watcher | None = None


# ---------------------------------------------------------------- cards


@dataclass(frozen=True)
class Paper:
    """The card of a method: `uses` names the inputs and pieces it is put together from, `claim` says in words what is shown (nothing for
    the rows of a table)."""

    title: str
    arxiv: str
    year: int
    family: str
    idea: str
    uses: tuple[str, ...]
    claim: str = ""
    domain: str = "text"
    full_size: str = ""


@dataclass(frozen=True)
class Claim:
    """A small-scale proof: `metric` of the method against the baseline, better by at least `margin` in `direction`."""

    method: str
    baseline: str
    metric: str
    direction: Literal["up", "down"]
    margin: float
    setting: str
    seeds: tuple[int, ...] = (0, 1, 2)


@dataclass(frozen=True)
class Trial:
    """One seed of a claim: the metric item by item (prompts, pairs, episodes), paired between the two arms."""

    baseline: Sequence[float]
    method: Sequence[float]
    notes: Mapping[str, float] = field(default_factory=dict)
