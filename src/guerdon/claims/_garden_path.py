"""Texts with garden paths: after a key, a useless turn is a little likelier than the useful one, which can be completed from memory.

A text introduces two keys with a value of four tokens each, drawn anew. Later each key comes again and again, and is followed by its value,
or (with chance `digress`) by a digression: a stop word, one of eight heads, and the two tails that belong to the head. The likeliest next
token is the stop word; the likeliest four tokens are the value.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from guerdon.config import Optim
from guerdon.core import continuation
from guerdon.core.rng import Key
from guerdon.learn.continuing import TEXT, Continuations, Task, cut_open, go_on, read, rows_of, text_of
from guerdon.learn.learner import Learner
from guerdon.learn.little import copy_of, finish, new_policy
from guerdon.papers import refine
from guerdon.policies.text import TextPolicy
from guerdon.types import Prompt, Rollout

KEYS, VALUES, FILLER, HEADS, SPAN = 12, 16, 16, 8, 4
SIZE, BATCH, DIGRESS = 80, 16, 0.55
LACT = {"chunk_size": 16, "window_size": 16, "low_rank": 0}
GROUPS = (("begin", 1), ("stop", 1), ("key", KEYS), ("value", VALUES), ("filler", FILLER), ("head", HEADS), ("tail", HEADS))
WORDS = tuple(f"{name}{i}" for name, count in GROUPS for i in range(count))
FIRST = {name: 2 + WORDS.index(f"{name}0") for name, _ in GROUPS}  # ids 0 and 1 are the tokenizer's own


@dataclass(frozen=True)
class Made:
    """A text. repeats: for each key that comes again, the place behind it, the key's value, and whether the text has it there.
    spans: places of the values."""

    ids: tuple[int, ...]
    repeats: tuple[tuple[int, tuple[int, ...], bool], ...]
    spans: tuple[range, ...]

    @property
    def text(self) -> Rollout:
        """As it is learnt from."""
        return text_of(self.ids)


def successors() -> list[tuple[int, int]]:
    """Of each filler word, the usual and the rare next one: the same in all texts."""
    draw = random.Random(Key(0).fold("filler").number)
    return [(draw.randrange(FILLER), draw.randrange(FILLER)) for _ in range(FILLER)]


NEXT = successors()


def make(key: Key, digress: float, size: int = SIZE, keys: int = 2) -> Made:
    """One text of `size` tokens."""
    draw, ids, repeats, spans = random.Random(key.number), [FIRST["begin"]], [], []
    filler = draw.randrange(FILLER)

    def wander() -> None:
        nonlocal filler
        for _ in range(2):
            filler = NEXT[filler][draw.random() > 0.95]
            ids.append(FIRST["filler"] + filler)

    known = {k: tuple(FIRST["value"] + draw.randrange(VALUES) for _ in range(SPAN)) for k in draw.sample(range(KEYS), keys)}
    for k, value in known.items():
        wander()
        spans.append(range(len(ids) + 1, len(ids) + 1 + SPAN))
        ids += [FIRST["key"] + k, *value]
    while len(ids) < size:
        wander()
        k = draw.choice(list(known))
        useless, head = draw.random() < digress, draw.randrange(HEADS)
        ids.append(FIRST["key"] + k)
        if len(ids) + SPAN <= size:
            repeats.append((len(ids), known[k], not useless))
        digression = (FIRST["stop"], FIRST["head"] + head, FIRST["tail"] + head, FIRST["tail"] + (3 * head + 1) % HEADS)
        if not useless:
            spans.append(range(len(ids), min(len(ids) + SPAN, size)))
        ids += digression if useless else known[k]
    return Made(tuple(ids[:size]), tuple(repeats), tuple(spans))


def texts(key: Key, count: int, digress: float, **more: int) -> list[Made]:
    """So many texts."""
    return [make(key.fold(i), digress, **more) for i in range(count)]


# ---------------------------------------------------------------- models and training


def new_model(seed: int, kind: str = "delta_net", width: int = 64) -> TextPolicy:
    """A random fast-weight model of one layer that reads the words."""
    from guerdon.policies.fast_weights import DeltaNetConfig, DeltaNetForCausalLM, LactConfig, LactForCausalLM

    tokenizer = new_policy(WORDS, seed, max_new=SPAN).tokenizer
    shared: dict[str, Any] = dict(vocab_size=len(WORDS) + 2, hidden_size=width, num_hidden_layers=1, intermediate_size=2 * width)
    shared |= dict(eos_token_id=1, pad_token_id=0, bos_token_id=None)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "delta_net":
            model: Any = DeltaNetForCausalLM(DeltaNetConfig(num_heads=2, chunk_size=128, **shared))
        else:
            model = LactForCausalLM(LactConfig(num_attention_heads=2, num_fast_heads=2, **LACT, **shared))
        for module in model.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv1d):
                module.reset_parameters()  # torch's own way to begin: a layer this narrow learns to copy sooner
        torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.5)
    return TextPolicy(model, tokenizer, name="claim", max_new=SPAN, sample_rows=4096)


def trained(policy: TextPolicy, made: Sequence[Made], key: Key, *, moments: Any = None, optim: Optim, **settings: Any) -> Any:
    """Train the policy once through the texts, next-token prediction unless `settings` (of `refine.Config`) say more; gives the
    optimizer's state. moments: of the training before."""
    settings = {"lam_rl": 0.0, **settings}
    cfg = refine.Config(length=0, batch=BATCH, steps=len(made) // BATCH, optim=optim, **settings)
    recipe = refine.build(cfg, policy, [m.text for m in made], key)
    learner: Any = recipe.state["learner"]
    assert isinstance(learner, Learner)
    if moments is not None:
        learner.optimizer.load_state_dict(copy.deepcopy(moments))
    finish(recipe)
    return learner.optimizer.state_dict()


class Start(NamedTuple):
    """A trained model and its optimizer's state. updates, recalled: of its training on texts without digressions, and the share of
    values that it recalled behind it."""

    policy: TextPolicy
    moments: Any
    updates: int
    recalled: float


def recalling(seed: int, key: Key, kind: str = "delta_net", *, width: int = 64, until: float = 0.9, **size: int) -> Start:
    """Trained on texts without digressions until such a share of their values is recalled, or for 600 updates and a few more."""
    policy, moments, steps, recalled = new_model(seed, kind, width), None, 0, 0.0
    check = texts(key.fold("check"), 64, 0.0, **size)
    while steps < 600 and recalled < until:
        count = 150 if not steps else 20
        moments = trained(policy, texts(key.fold("recall", steps), BATCH * count, 0.0, **size), key, moments=moments, optim=at(5e-3))
        steps += count
        recalled = sum(per_text(exact(policy, check))) / len(check)
    return Start(policy, moments, steps, recalled)


def pretrained(seed: int, key: Key, kind: str = "delta_net", *, width: int = 64, second: int = 400, **size: int) -> Start:
    """A model that recalls values and has met digressions.

    First the same texts without digressions, until nine values of ten are recalled: with them, the copying is not learnt at all.
    """
    start = recalling(seed, key, kind, width=width, **size)
    flat, moments = int(0.41 * second), start.moments
    for name, count, decay in (("flat", flat, "constant"), ("falling", second - flat, "linear")):
        more = texts(key.fold(name), BATCH * count, DIGRESS, **size)
        moments = trained(start.policy, more, key, moments=moments, optim=at(4e-3, decay))
    return start._replace(moments=moments)


def continued(
    policy: TextPolicy, moments: Any, more: Sequence[Made], arms: Mapping[str, Mapping[str, Any]], key: Key, *, lr: float = 3e-3
) -> dict[str, TextPolicy]:
    """The start, and a copy of it for every arm (settings of `refine.Config`) that went once through the same texts, with the same moments
    and a rate that falls to 0: policies by name."""
    found = {"start": policy}
    for name, settings in arms.items():
        found[name] = copy_of(policy)
        trained(found[name], more, key.fold("arm"), moments=moments, optim=at(lr, "linear"), **settings)
    return found


def at(lr: float, decay: Any = "constant") -> Optim:
    """AdamW as everywhere here."""
    return Optim(lr=lr, decay=decay, weight_decay=0.01)


# ---------------------------------------------------------------- measures


def exact(policy: TextPolicy, made: Sequence[Made], key: Key = Key(0), *, temperature: float = 0.0) -> list[list[bool]]:
    """For each repeat of each text: whether the policy goes on with the text's own value. Digressions in the text count as misses."""
    asked = [(i, m.ids[:p], value, kept) for i, m in enumerate(made) for p, value, kept in m.repeats]
    drawn = policy.sample([Prompt(str(i), ids) for i, ids, _, _ in asked], 1, key, temperature=temperature, max_new=SPAN, stops=False)
    out: list[list[bool]] = [[] for _ in made]
    for (i, _, value, kept), r in zip(asked, drawn, strict=True):
        assert r.actions is not None
        out[i].append(kept and tuple(r.actions.tolist()) == value)
    return out


def per_text(hits: Sequence[Sequence[bool]]) -> list[float]:
    """The share of a text's repeats."""
    return [sum(x) / len(x) for x in hits]


@torch.no_grad()
def loss(policy: TextPolicy, made: Sequence[Made]) -> float:
    """Nats a token of next-token prediction."""
    batch = rows_of(policy, [m.text for m in made], TEXT)
    return -float(policy.forward(batch).logp[batch.mask].mean())


@torch.no_grad()
def chance_of_stop(policy: TextPolicy, made: Sequence[Made]) -> float:
    """The mean probability of the stop word behind a key that comes again."""
    actions = torch.tensor([FIRST["stop"]])
    rows = [Rollout(Prompt("stop", m.ids[:p]), "", actions, mask=torch.ones(1, dtype=torch.bool)) for m in made for p, _, _ in m.repeats]
    return float(policy.forward(policy.collate(rows)).logp.exp().mean())


def cut(policy: TextPolicy, made: Sequence[Made], how: Continuations, key: Key) -> list[Task]:
    """Held-out tasks, to be asked of all arms alike."""
    rows = [m.text for m in made]
    return cut_open(policy, rows, read(policy, rows), how, key)


def sampled_reward(policy: TextPolicy, tasks: Sequence[Task], how: Continuations, key: Key) -> float:
    """The mean share of equal tokens in continuations drawn by the policy."""
    drawn = go_on(policy, tasks, how, key)
    ids: list[Tensor] = [r.actions for r in drawn if r.actions is not None]
    return float(continuation.match(torch.stack(ids), torch.stack([t.gold for t in tasks for _ in range(how.n)])).mean())
