"""A policy, prompts, rewards and preferences small enough to train in milliseconds, for tests of methods and rewards.

The toy policy writes strings of letters: its logits are a table over (context, step, letter), and a context is a number made from
the prompt. It keeps every promise of `types.Policy`, so what holds for it holds in the learners, loops and checkpoints of real ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.policies.readout import Readout
from guerdon.types import ABSENT, Batch, Origin, Outputs, Preference, Prompt, Rollout, Score

LETTERS = "abcd"


class ToyPolicy(torch.nn.Module):
    """A softmax policy over `letters` and a stop token, for at most `steps` decisions.

    Token 0 stops and is a decision like any other; token i writes `letters[i - 1]`. `logits` is `(contexts, steps, 1 + letters)`, `value`
    (the critic) `(contexts, steps)`, `score` (the reward head) one weight per token, averaged over the response. All start at 0, or at
    normal draws of deviation `spread`. `with_head` gives it a head of several outputs, `heads` `(1 + letters, K)`, averaged alike.
    temperature: of the distribution sampled from; `forward` gives log-probabilities of the same one.
    """

    RECURRING = True  # a rollout gives the same row in every batch

    def __init__(
        self,
        letters: str = LETTERS,
        steps: int = 6,
        contexts: int = 3,
        *,
        temperature: float = 1.0,
        spread: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.letters, self.steps, self.contexts, self.temperature = letters, steps, contexts, temperature
        self.version = 0
        draw = Key(seed).fold("toy").generator()
        self.logits = Parameter(spread * torch.randn(contexts, steps, 1 + len(letters), generator=draw))
        self.value = Parameter(spread * torch.randn(contexts, steps, generator=draw))
        self.score = Parameter(spread * torch.randn(1 + len(letters), generator=draw))
        self.readout: Readout | None = None

    def with_head(self, readout: Readout, key: Key, *, fresh: bool = False) -> ToyPolicy:
        """This policy with a new reward head of as many outputs as the readout reads."""
        drawn = torch.randn(1 + len(self.letters), readout.labels, generator=key.fold("toy").generator())
        self.readout, self.heads = readout, Parameter(drawn)
        return self

    def normalise(self, rollouts: Sequence[Rollout]) -> None:
        """Its scores stay in the units they have."""

    @property
    def head_weight(self) -> Tensor:
        """`(K, 1 + letters)`: as a scorer's."""
        return self.heads.T

    @torch.no_grad()
    def outputs(self, rollouts: Sequence[Rollout]) -> Tensor:
        """What the head with several outputs gives, `(N, K)`."""
        return self.forward(self.collate(rollouts), frozenset({"outputs"})).extra["outputs"]

    def context(self, prompt: Prompt) -> int:
        """The row of the table that answers this prompt."""
        return sum(map(ord, str(prompt.content))) % self.contexts

    @property
    def critic(self) -> torch.nn.ParameterList:
        """What `value` learns by."""
        return torch.nn.ParameterList([self.value])

    def fits(self, rollout: Rollout) -> bool:
        """Whether it could have written as many decisions."""
        return len(self.encode(rollout)) <= self.steps

    def sample(self, prompts: Sequence[Prompt], n: int, key: Key, *, temperature: float | None = None, **_: Any) -> list[Rollout]:
        """n rollouts of each prompt, prompt by prompt. Of the keywords of `TextPolicy.sample` the temperature counts."""
        temperature = self.temperature if temperature is None else temperature
        origin = Origin(self.version, str(key), temperature=temperature)
        rollouts = []
        with torch.no_grad():
            # At temperature 0 the first of the likeliest: equal logits are as likely as not.
            sure = torch.nn.functional.one_hot(self.logits.argmax(-1), self.logits.shape[-1]).float().log()
            table = (self.logits / temperature).log_softmax(-1) if temperature else sure
            for group, prompt in enumerate(prompts):
                here = table[self.context(prompt)]
                for i in range(n):
                    drawn = torch.multinomial(here.exp(), 1, generator=key.fold(group, i).generator())[:, 0]
                    stops = (drawn == 0).nonzero()
                    length = int(stops[0]) + 1 if len(stops) else self.steps
                    actions = drawn[:length]
                    logp = here[torch.arange(length), actions]
                    end = "stop" if len(stops) else "length"
                    rollout = Rollout(prompt, self.decode(actions), actions, logp, torch.ones(length, dtype=torch.bool))
                    rollouts.append(rollout.with_(group=group, end=end, origin=origin))
        return rollouts

    @torch.no_grad()
    def extend(self, rollouts: Sequence[Rollout], n: int, key: Key, *, most: int, stops: bool = True) -> list[Rollout]:
        """n continuations of each unfinished rollout by at most `most` decisions, as whole rollouts; without room as it is. Groups stay.
        stops: False goes on behind a stop token."""
        out, origin = [], Origin(self.version, str(key), temperature=self.temperature)
        for i, begun in enumerate(rollouts):
            done = torch.zeros(0, dtype=torch.long) if begun.actions is None else begun.actions
            here = (self.logits[self.context(begun.prompt)] / self.temperature).log_softmax(-1)
            for j in range(n):
                drawn = torch.multinomial(here.exp(), 1, generator=key.fold(i, j).generator())[len(done) : len(done) + most, 0]
                ends = (drawn == 0).nonzero() if stops else drawn[:0]
                actions = torch.cat((done, drawn[: int(ends[0]) + 1] if len(ends) else drawn))
                whole = begun.with_(content=self.decode(actions), actions=actions, mask=torch.ones(len(actions), dtype=torch.bool))
                end = "stop" if len(ends) else "length"
                out.append(whole.with_(logp=here[torch.arange(len(actions)), actions], end=end, origin=origin))
        return out

    def decode(self, actions: Tensor) -> str:
        """The letters of a response."""
        return "".join(self.letters[a - 1] for a in actions.tolist() if a)

    def pieces(self, rollout: Rollout) -> list[str]:
        """Each decision as text; the stop writes nothing."""
        return [self.letters[a - 1] if a else "" for a in self.encode(rollout).actions.tolist()]  # type: ignore[union-attr]

    def encode(self, rollout: Rollout) -> Rollout:
        """The rollout with the decisions that write `rollout.content`: its letters, and the stop unless it ended by length."""
        if rollout.actions is not None:
            return rollout
        unknown = sorted(set(rollout.content) - set(self.letters))
        if unknown:
            raise UserError(f"the toy policy cannot write {unknown}", hint=f"use the letters {self.letters!r} only")
        ids = [self.letters.index(c) + 1 for c in rollout.content] + ([0] if rollout.end == "stop" else [])
        if len(ids) > self.steps:
            raise UserError(f"{len(ids)} decisions, expected at most {self.steps}", hint="give ToyPolicy more `steps`")
        return rollout.with_(actions=torch.tensor(ids, dtype=torch.long), mask=torch.ones(len(ids), dtype=torch.bool))

    def collate(self, rollouts: Sequence[Rollout]) -> Batch:
        """Rows padded on the right to the longest; `old_logp` when every rollout has its log-probabilities."""
        rollouts = [self.encode(r) for r in rollouts]
        actions = [r.actions for r in rollouts if r.actions is not None]
        width = max((len(a) for a in actions), default=0)

        def padded(rows: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
            out = torch.zeros(len(rows), width, dtype=dtype)
            for row, x in zip(out, rows, strict=True):
                row[: len(x)] = x
            return out

        chosen = [torch.ones(len(a), dtype=torch.bool) if r.mask is None else r.mask for r, a in zip(rollouts, actions, strict=True)]
        known = [r.logp for r in rollouts if r.logp is not None]
        group = torch.tensor([r.group for r in rollouts], dtype=torch.long)
        inputs = {
            "context": torch.tensor([self.context(r.prompt) for r in rollouts], dtype=torch.long),
            "actions": padded(actions, torch.long),
            "length": torch.tensor([len(a) for a in actions], dtype=torch.long),
        }
        old = padded(known, torch.float32) if known and len(known) == len(rollouts) else ABSENT
        return Batch(inputs, padded(chosen, torch.bool), group, group, old_logp=old)

    def forward(self, batch: Batch, need: frozenset[str] = frozenset({"logp"})) -> Outputs:
        """Log-probabilities, entropies, values and scores, and in `extra` sum_p2 (the sum of p^2), logits, hidden (a one-hot state: the row
        of the table that the logits are) and feature (the share of each token in the response, which `score` reads), each only when asked
        for."""
        context, actions, length = (batch.inputs[k] for k in ("context", "actions", "length"))
        width = actions.shape[1]
        table = (self.logits[context, :width] / self.temperature).log_softmax(-1)
        real = torch.arange(width) < length[:, None]
        extra = {"sum_p2": torch.where(real, (2 * table).exp().sum(-1), 0.0)} if "sum_p2" in need else {}
        score = torch.where(real, self.score[actions], 0.0).sum(1) / length.clamp(min=1)
        if "hidden" in need:
            row = context[:, None] * self.steps + torch.arange(width)
            extra |= {"hidden": torch.nn.functional.one_hot(row, self.contexts * self.steps).float()}
        if "feature" in need:
            shares = torch.nn.functional.one_hot(actions, 1 + len(self.letters)).float()
            extra |= {"feature": torch.where(real[:, :, None], shares, 0.0).sum(1) / length.clamp(min=1)[:, None]}
        if self.readout is not None:
            outputs = torch.where(real[:, :, None], self.heads[actions], 0.0).sum(1) / length.clamp(min=1)[:, None]
            score, extra = self.readout(outputs), extra | (self.readout.columns(outputs) if "outputs" in need else {})
        return Outputs(
            logp=torch.where(real, table.gather(2, actions[:, :, None])[:, :, 0], 0.0) if "logp" in need else ABSENT,
            entropy=torch.where(real, -(table.exp() * table).sum(-1), 0.0) if "entropy" in need else ABSENT,
            value=torch.where(real, self.value[context, :width], 0.0) if "value" in need else ABSENT,
            score=score if "score" in need else ABSENT,
            extra=extra | ({"logits": table} if "logits" in need else {}),
        )

    def logits_of(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """The logits of these tokens at its one-hot states, as `policies.words.logits_of` gives them."""
        return hidden @ (self.logits / self.temperature).flatten(0, 1)[:, ids]

    def against(self, ref: Any, outputs: Outputs, batch: Batch, need: frozenset[str] = frozenset({"logp"})) -> Outputs:
        """Its log-probabilities and, in `extra`, kl_to_ref, kl_from_ref and ref_logp, as `policies.divergence.against` gives them."""
        context, actions, length = (batch.inputs[k] for k in ("context", "actions", "length"))
        width = actions.shape[1]
        ours = (self.logits[context, :width] / self.temperature).log_softmax(-1)
        theirs = (ref.policy.logits[context, :width] / self.temperature).log_softmax(-1).detach()
        found = {"kl_to_ref": (ours.exp() * (ours - theirs)).sum(-1), "kl_from_ref": (theirs.exp() * (theirs - ours)).sum(-1)}
        found |= {"ref_logp": theirs.gather(2, actions[:, :, None])[:, :, 0]}
        real = torch.arange(width) < length[:, None]
        return Outputs(self.forward(batch).logp, extra={name: torch.where(real, x, 0.0) for name, x in found.items()})

    def save(self, folder: Path) -> None:
        """Write `toy.pt`, which `torch.load` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(self.state_dict(), folder / "toy.pt")


@dataclass(frozen=True)
class ToyReward:
    """The share of a response's letters that are `letter`, 0 for an empty one; one span per letter when `dense`."""

    letter: str = "a"
    dense: bool = False

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        return [self._one(r) for r in rollouts]

    def _one(self, rollout: Rollout) -> Score:
        text = str(rollout.content)
        share = text.count(self.letter) / max(1, len(text))
        if self.dense and len(rollout):
            hits = [float(t < len(text) and text[t] == self.letter) / max(1, len(text)) for t in range(len(rollout))]
            return Score.tokens(rollout, hits, {f"share_{self.letter}": share})
        return Score.whole(rollout, share, {f"share_{self.letter}": share})


def toy_prompts(n: int = 6, meta: Mapping[str, Any] | None = None) -> list[Prompt]:
    """n prompts, each a single letter; `meta["answer"]` is a letter the policy can write."""
    return [Prompt(f"toy-{i}", chr(ord("A") + i), {"answer": LETTERS[i % len(LETTERS)], **(meta or {})}) for i in range(n)]


def toy_pairs(n: int = 12, seed: int = 0, letters: str = LETTERS, length: int = 5) -> list[Preference]:
    """n pairs of different strings: the chosen one has more of the first letter; the margin is how many more."""
    draw = Key(seed).fold("pairs").generator()
    pairs: list[Preference] = []
    prompts = toy_prompts()
    while len(pairs) < n:
        rows = torch.randint(len(letters), (2, length), generator=draw).tolist()
        a, b = sorted(("".join(letters[i] for i in row) for row in rows), key=lambda s: -s.count(letters[0]))
        more = a.count(letters[0]) - b.count(letters[0])
        if more > 0:
            prompt = prompts[len(pairs) % len(prompts)]
            pairs.append(Preference(prompt, (Rollout(prompt, a), Rollout(prompt, b)), margin=float(more), source="toy"))
    return pairs


def toy_demos(n: int = 12, seed: int = 0) -> list[Rollout]:
    """n demonstrations: the chosen responses of `toy_pairs`, each in a group of its own; `meta["rating"]` counts the first letter."""
    found = [pair.ranked[0].with_(group=i) for i, pair in enumerate(toy_pairs(n, seed))]
    rated = [{**r.prompt.meta, "rating": float(str(r.content).count(LETTERS[0]) - 2)} for r in found]
    return [r.with_(prompt=Prompt(r.prompt.id, r.prompt.content, meta)) for r, meta in zip(found, rated, strict=True)]


def toy_pools(n: int = 8, size: int = 3, seed: int = 0) -> list[Preference]:
    """n ranked lists of `size` different strings, best first: the more of the first letter the better; `meta["scores"]` counts it."""
    pools = []
    for i, prompt in enumerate(toy_prompts(n)):
        draw = Key(seed).fold("pools", i).generator()
        rest = torch.randint(1, len(LETTERS), (size, 5), generator=draw).tolist()
        texts = ["".join(LETTERS[k] for k in row[: 5 - a]) + LETTERS[0] * a for a, row in zip(range(size, 0, -1), rest, strict=True)]
        asked = Prompt(prompt.id, prompt.content, {**prompt.meta, "scores": [float(t.count(LETTERS[0])) for t in texts]})
        pools.append(Preference(asked, tuple(Rollout(asked, t) for t in texts), source="toy"))
    return pools


def toy_unpaired(n: int = 12, seed: int = 0) -> list[Rollout]:
    """The two sides of `toy_pairs` one by one: `prompt.meta["label"]` is 1 for the chosen, 0 for the rejected."""
    judged = [(r, 1.0 - i) for pair in toy_pairs(n, seed) for i, r in enumerate(pair.ranked)]
    return [r.with_(prompt=Prompt(r.prompt.id, r.prompt.content, {**r.prompt.meta, "label": label})) for r, label in judged]


def parameters_of(policy: Any) -> list[Tensor]:
    """Copies of the trainable parameters, in order."""
    trainable: Iterable[Parameter] = policy.parameters()
    return [p.detach().clone() for p in trainable]
