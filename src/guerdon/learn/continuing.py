"""Texts cut open and gone on with: from running text to a task {prefix, gold continuation}, and from there to a batch with advantages.

It needs no labels and no reward model: the text itself says how it goes on. Any policy will do that encodes texts (`encode`) and goes on
from an unfinished rollout (`extend`). Where the model gives its state at any token, continuations start from there; where it does not,
prefixes are read again (`policies/packing.py`). The numbers are the same.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from guerdon.config import Checked, knob
from guerdon.core import continuation, credit
from guerdon.core.rng import Key
from guerdon.data.repeat import joined
from guerdon.errors import UserError
from guerdon.learn import clock
from guerdon.learn.verbs import pieces_of, rollout_metrics
from guerdon.types import Batch, Metrics, Policy, Prompt, Rollout, Score

TEXT, CONTINUATION, ANSWER = 0, 1, 2
"""What a row is (`batch.extra["part"]`): a text, a continuation drawn from the policy, or a given answer."""


@dataclass(frozen=True)
class Continuations(Checked):
    """Where texts are cut, how they are gone on with, and what a continuation is worth."""

    cuts: continuation.Cuts = knob("entropy", "where to cut: drawn by entropy, uniformly, or at the largest or smallest entropy")
    chunks: int = knob(8, "equal parts of a text, with one cut each", at_least=1)
    tokens: int = knob(5, "length of a continuation, and width over which entropies are smoothed", unit="tokens", at_least=1)
    n: int = knob(1, "continuations drawn at each cut", at_least=1)
    least: int = knob(20, "tokens before any cut", unit="tokens", at_least=1)
    last: int = knob(20, "tokens behind any cut, at least those of a continuation", unit="tokens", at_least=1)
    likeness: continuation.Likeness = knob("cosine", "reward: cosine of hidden states, binary (share of equal tokens), or hybrid (the sum)")
    baseline: Literal["auto", "text", "prefix"] = knob(
        "auto", "what rewards are compared with: all of the text, or those of the same prefix; auto: of the prefix where n is above 1"
    )
    scale: Literal["std", "batch", "none"] = knob(
        "std", "divide advantages by the spread of what they are compared with (a z-score), by that of the whole batch, or not"
    )

    @property
    def per_prefix(self) -> bool:
        """Whether a continuation is compared with those of the same prefix alone."""
        return self.baseline == "prefix" or (self.baseline == "auto" and self.n > 1)

    @property
    def room(self) -> int:
        """Tokens that stay behind a cut."""
        return max(self.last, self.tokens)

    @property
    def graded(self) -> bool:
        """Whether a reward can be anything but right or wrong."""
        return self.likeness != "binary" or self.tokens > 1


# ---------------------------------------------------------------- texts


def as_text(policy: Policy, demo: Rollout, *, prompt_only: bool = False) -> Rollout:
    """Prompt and answer (or the prompt alone) as one text: its first token is given, every other one a decision.

    A policy that reads no ids keeps the prompt as it is, and has the answer as its text. Raises UserError for a text without tokens, and
    where the prompt alone is asked for and is not made of tokens.
    """
    codec = getattr(policy, "codec", None)
    if codec is None:
        if prompt_only:
            raise UserError(f"the prompts of {type(policy).__name__} are not made of tokens", hint="take stage mid")
        return _encoded(policy, demo)
    ids = list(codec.prompt_ids(demo.prompt)) if demo.prompt.content else []
    return text_of(ids if prompt_only else [*ids, *_encoded(policy, demo).actions.tolist()], demo.prompt.id)


def text_of(ids: Sequence[int], name: str = "text") -> Rollout:
    """Token ids as a text. Raises UserError for none."""
    if not len(ids):
        raise UserError(f"text {name!r} is empty", hint="drop such rows")
    actions = torch.tensor(ids[1:], dtype=torch.long)
    return Rollout(Prompt(name, (int(ids[0]),)), "", actions, mask=torch.ones(len(actions), dtype=torch.bool), end="length")


def ids_of(text: Rollout) -> list[int]:
    """The token ids of a text, the given one first."""
    actions: Any = text.actions
    return [*text.prompt.content, *actions.tolist()]


def joined_texts(policy: Policy, demos: Sequence[Rollout], length: int) -> list[Rollout]:
    """The texts end to end, in pieces of `length` tokens, without a shorter rest where there is a whole piece; 0: each by itself."""
    texts = [as_text(policy, demo) for demo in demos]
    if not length:
        return texts
    if not hasattr(policy, "codec"):
        pieces = joined(texts, lambda text: text, length)
    else:
        ids = list(chain.from_iterable(map(ids_of, texts)))
        pieces = [text_of(ids[i : i + length], f"text-{i // length}") for i in range(0, len(ids), length)]
    return pieces[:-1] if len(pieces) > 1 and len(pieces[-1]) < len(pieces[0]) else pieces


def tokens_in(text: Rollout) -> int:
    """Tokens of a text, the given first one included."""
    return len(text) + 1


def fits(text: Rollout, how: Continuations) -> bool:
    """Whether a text is long enough to be cut."""
    sizes: Any = {"chunks": how.chunks, "tokens": how.tokens, "least": how.least, "last": how.last}
    return bool(continuation.long_enough(torch.tensor([tokens_in(text)]), **sizes))


def check(policy: Policy, texts: Sequence[Rollout], how: Continuations, *, draws: bool = True) -> None:
    """Warns of texts that are too short to be cut, with their number, and (draws: where continuations are drawn) of a z-score in each
    prefix, which forgets that one was nearly right and another one hardly.

    Raises UserError when no text is long enough, when one has no room for the place behind it, and for a tempered policy.
    """
    if getattr(policy, "temperature", 1.0) != 1:
        raise UserError("a policy with a temperature other than 1", hint="next-token prediction would learn the tempered model")
    room = getattr(policy, "max_length", math.inf) - 1
    if long := sum(tokens_in(text) > room for text in texts):
        raise UserError(
            f"{long} of {len(texts)} texts have more than {room} tokens: the model reads {room + 1}, with one place behind a text",
            hint=f"--length {room} at most, or split long texts",
        )
    short, needed = sum(not fits(text, how) for text in texts), max(how.chunks, how.least + how.last + how.tokens)
    if short == len(texts):
        raise UserError(
            f"all {short} texts have fewer than {needed} tokens",
            hint="join them (--length), or ask for less: --least, --last, --chunks, --tokens",
        )
    if short:
        warnings.warn(f"{short} of {len(texts)} texts have fewer than {needed} tokens and cannot be cut: left out", stacklevel=3)
    if draws and how.per_prefix and how.scale == "std" and how.graded:
        warnings.warn(
            "a z-score in each prefix gives graded rewards the same size everywhere, so what most rollouts do wins; --scale batch keeps "
            "their size (docs/refine.md)",
            stacklevel=3,
        )


def _encoded(policy: Policy, demo: Rollout) -> Any:
    encode = getattr(policy, "encode", None)
    if encode is None:
        raise UserError(f"{type(policy).__name__} does not encode texts", hint="this needs a policy over tokens")
    done = encode(demo)
    return done.with_(mask=torch.ones(len(done), dtype=torch.bool), logp=None)


# ---------------------------------------------------------------- the task


class Reading(NamedTuple):
    """What the policy made of texts of n tokens: the entropy of the token after each, in nats, and the hidden state at each token, where
    the policy gives one."""

    entropy: Float[Tensor, "B S"]
    hidden: Float[Tensor, "B S D"] | None
    length: Int[Tensor, " B"]


@dataclass(frozen=True)
class Task:
    """A text cut open. text: its number. cut: its tokens before the continuation. given: these, to be gone on with. start: the decision at
    which continuations of `given` begin. gold, states: the text's own, ids `(K,)` and hidden states at them `(K, D)` (None: there are
    none)."""

    text: int
    cut: int
    given: Rollout
    start: int
    gold: Int[Tensor, " K"]
    states: Float[Tensor, "K D"] | None


@torch.no_grad()
def read(policy: Policy, texts: Sequence[Rollout]) -> Reading:
    """One pass over texts, without a gradient."""
    batch = policy.collate([_longer(text) for text in texts])
    out = policy.forward(batch, frozenset({"entropy", "hidden"}))
    length = torch.tensor([tokens_in(text) for text in texts], device=batch.mask.device)
    return Reading(out.entropy, out.extra.get("hidden"), length)


def cut_open(policy: Policy, texts: Sequence[Rollout], reading: Reading, how: Continuations, key: Key) -> list[Task]:
    """A task for each chunk of each text, text by text; the draws of text i come from `key.fold(i)`. The texts must fit."""
    draws = [torch.rand(how.chunks, generator=key.fold(i).generator(), dtype=torch.float64) for i in range(len(texts))]
    uniform = torch.stack(draws).to(reading.entropy.device)
    where: Any = {"width": how.tokens, "how": how.cuts, "least": how.least, "last": how.room}
    points = continuation.cut_points(reading.entropy, reading.length, uniform, **where).tolist()
    reads_ids, tasks = hasattr(policy, "codec"), []
    for i, (text, found) in enumerate(zip(texts, points, strict=True)):
        actions: Any = text.actions
        for p in found:
            behind = slice(p - 1, p - 1 + how.tokens)  # decision t is token t + 1
            if reads_ids:  # the prefix is context, and context belongs into the prompt
                given, start = Rollout(Prompt(text.prompt.id, (*text.prompt.content, *actions[: p - 1].tolist())), ""), 0
            else:
                given, start = text.with_(actions=actions[: p - 1], content=""), p - 1
            states = None if reading.hidden is None else reading.hidden[i, p : p + how.tokens]
            tasks.append(Task(i, p, given.with_(group=i), start, actions[behind], states))
    return tasks


def go_on(policy: Policy, tasks: Sequence[Task], how: Continuations, key: Key) -> list[Rollout]:
    """`how.n` continuations of each task, task by task: exactly `how.tokens` tokens each, for nothing ends one."""
    extend: Any = getattr(policy, "extend", None)
    if extend is None:
        raise UserError(f"{type(policy).__name__} cannot go on from a beginning", hint="this needs a policy with `extend`")
    with clock.span("sampling"):
        found = extend([task.given for task in tasks], how.n, key, most=how.tokens, stops=False)
    clock.count(sampled=len(found) * how.tokens)
    starts = [tasks[k // how.n].start for k in range(len(found))]
    return [r.with_(mask=torch.arange(len(r)) >= start) if start else r for r, start in zip(found, starts, strict=True)]


def _longer(row: Rollout, group: int = 0) -> Rollout:
    """With one more decision, which does not count: the state before it is the state *at* the last token."""
    actions: Any = row.actions
    mask: Any = row.mask
    return row.with_(actions=torch.cat([actions, actions[-1:]]), mask=torch.cat([mask, mask.new_zeros(1)]), logp=None, group=group)


# ---------------------------------------------------------------- the batch


def rows_of(policy: Policy, rollouts: Sequence[Rollout], part: int) -> Batch:
    """Rollouts as rows of one kind, each a unit of its own."""
    batch = policy.collate([r.with_(group=i) for i, r in enumerate(rollouts)])
    return batch.with_(extra={**batch.extra, "part": torch.full_like(batch.unit, part)})


def continued(policy: Policy, texts: Sequence[Rollout], how: Continuations | None, key: Key) -> tuple[Batch, Metrics]:
    """The texts and continuations of them in one batch, ready to be learnt from, and what there is to say of them; how None: texts alone.

    Rows: the texts, then the continuations, task by task; a text and its continuations are one unit. `extra["part"]` tells them apart.
    `old_logp` is the policy's own, in a forward pass as it will learn; `adv` is 0 on texts. Rewards carry no gradient. Metrics are of texts
    as groups; `frac_silent` is the share of continuations with an advantage of 0.
    """
    if how is None:
        return rows_of(policy, texts, TEXT), Metrics()
    reading = read(policy, texts)
    tasks = cut_open(policy, texts, reading, how, key.fold("cuts"))
    rollouts = go_on(policy, tasks, how, key.fold("rollouts"))
    task_of = [k // how.n for k in range(len(rollouts))]
    rows = [text.with_(group=i) for i, text in enumerate(texts)]
    rows += [_longer(r, tasks[k].text) for k, r in zip(task_of, rollouts, strict=True)]
    batch = policy.collate(rows)
    with torch.no_grad():
        seen = policy.forward(batch, frozenset({"logp", "hidden"}))
    said = _rewards(tasks, task_of, rollouts, seen.extra.get("hidden"), len(texts), how)
    here = batch.mask.device
    group = torch.tensor(task_of if how.per_prefix else [tasks[k].text for k in task_of], device=here)
    reward = said[how.likeness]
    estimate = {"std": credit.grpo, "batch": continuation.batch_std, "none": credit.dr_grpo}[how.scale]
    adv = torch.cat([torch.zeros(len(texts), device=here), estimate(reward, group).to(here)])
    part = torch.tensor([TEXT] * len(texts) + [CONTINUATION] * len(rollouts), device=here)
    made = batch.with_(old_logp=seen.logp.detach(), adv=credit.broadcast(adv, batch.mask), extra={**batch.extra, "part": part})
    parts = {name: x.tolist() for name, x in said.items() if name != "hybrid"}
    scores = [
        Score.whole(r, value, {name: x[i] for name, x in parts.items()})
        for i, (r, value) in enumerate(zip(rollouts, reward.tolist(), strict=True))
    ]
    seen_as = Batch({}, batch.mask[len(texts) :], batch.group[len(texts) :], batch.unit[len(texts) :])
    told = rollout_metrics(_readable(policy, rollouts), scores, seen_as, pieces_of(policy))
    told["frac_silent"] = float((adv[len(texts) :] == 0).float().mean())
    return made, told | _facts(reading, tasks)


def _rewards(
    tasks: Sequence[Task], task_of: Sequence[int], rollouts: Sequence[Rollout], hidden: Tensor | None, texts: int, how: Continuations
) -> dict[str, Tensor]:
    """Every kind of reward that can be had, `(N,)` each. hidden: before each decision of all rows."""
    start = [tasks[k].start for k in task_of]
    drawn: Any = torch.stack([r.actions[s : s + how.tokens] for s, r in zip(start, rollouts, strict=True)])  # type: ignore[index]
    gold = torch.stack([tasks[k].gold for k in task_of])
    said = {"binary": continuation.match(drawn, gold)}
    known = [tasks[k].states for k in task_of]
    if hidden is not None and all(x is not None for x in known):
        at = torch.tensor(start, device=hidden.device)[:, None] + torch.arange(1, how.tokens + 1, device=hidden.device)
        own = hidden[texts:].gather(1, at[:, :, None].expand(-1, -1, hidden.shape[2]))
        said["cosine"] = continuation.cosine(own, torch.stack([x for x in known if x is not None])).float()
        said["hybrid"] = said["cosine"] + said["binary"].to(said["cosine"].device)
    if how.likeness not in said:
        raise UserError(f"likeness {how.likeness} needs hidden states, and the policy gives none", hint="--likeness binary")
    return said


def _readable(policy: Policy, rollouts: Sequence[Rollout]) -> list[Rollout]:
    """For people: the end of what was given as text."""
    codec = getattr(policy, "codec", None)
    few = [] if codec is None else rollouts[:4]
    told = [r.with_(prompt=Prompt(r.prompt.id, codec.text(r.prompt.content)[-400:])) for r in few]  # type: ignore[union-attr]
    return [*told, *rollouts[len(told) :]]


def _facts(reading: Reading, tasks: Sequence[Task]) -> dict[str, float]:
    """How uncertain the first token of a continuation was, beside all tokens."""
    inside = torch.arange(reading.entropy.shape[1], device=reading.entropy.device) < (reading.length - 1)[:, None]
    at_cuts = torch.stack([reading.entropy[task.text, task.cut - 1] for task in tasks])
    return {"entropy/cuts": float(at_cuts.mean()), "entropy/texts": float(reading.entropy[inside].mean())}
