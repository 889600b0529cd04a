"""Configuration of a method: frozen dataclasses, documented field by field.

A method has a frozen `Config`; what many methods share is nested in it as a group (`Optim`, `Sampling`, `LoraConfig`, `Run`).
`guerdon.settings` fills them from flags, files and keyword arguments. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Literal

from guerdon.errors import UserError

BUILT_IN = ("tiny", "gemma-3-270m")
"""Models that come by name; a local folder of such a name is not what is meant."""


def knob(
    default: Any = MISSING,
    help: str = "",
    *,
    unit: str = "",
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    check: Callable[[Any], bool] | None = None,
    expected: str = "",
) -> Any:
    """A documented dataclass field: `lr: float = knob(1e-4, "learning rate", above=0)`.

    unit: what the number counts. at_least, above, at_most: its range. check: any further condition, `expected` says it in words.
    None passes every check (it stands for "not set").
    """
    metadata = {"help": help, "unit": unit, "at_least": at_least, "above": above, "at_most": at_most, "check": check, "expected": expected}
    return dataclasses.field(metadata=metadata) if default is MISSING else dataclasses.field(default=default, metadata=metadata)


# ---------------------------------------------------------------- shared groups


class Checked:
    """Base of the shared groups: ranges are checked when the group is made."""

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class Optim(Checked):
    """Adam with decoupled weight decay and a schedule."""

    lr: float = knob(1e-5, "learning rate at its highest", above=0)
    weight_decay: float = knob(0.0, "decoupled weight decay", at_least=0)
    warmup: int = knob(0, "updates over which the learning rate rises linearly from 0", unit="updates", at_least=0)
    decay: Literal["constant", "linear", "cosine"] = knob(
        "constant", "what the learning rate does after the warm-up, until the last update"
    )
    max_grad_norm: float | None = knob(1.0, "gradients are scaled down to this norm; none: never", above=0)
    micro_units: int | None = knob(
        None, "units (rows that stay together) a forward pass; none: all (results stay the same)", unit="units", at_least=1
    )
    micro_tokens: int | None = knob(
        None, "tokens a forward pass, in place of micro_units; none: no limit (results stay the same)", unit="tokens", at_least=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.micro_units is not None and self.micro_tokens is not None:
            raise UserError(
                f"micro_units {self.micro_units} and micro_tokens {self.micro_tokens}, expected one of them",
                hint="micro_tokens bounds memory whatever the lengths; leave micro_units out",
            )


@dataclass(frozen=True)
class Sampling(Checked):
    """How responses are drawn."""

    n: int = knob(8, "responses to each prompt", unit="responses", at_least=1)
    max_new: int = knob(64, "longest response", unit="tokens", at_least=1)
    temperature: float = knob(1.0, "1: the model's own distribution; lower: greedier", above=0)
    top_p: float = knob(1.0, "smallest set of tokens with this probability; 1: all", above=0, at_most=1)
    top_k: int = knob(0, "this many most likely tokens; 0: all", unit="tokens", at_least=0)
    stop: tuple[str, ...] = knob((), "token that ends a response, beside the model's own; repeat the flag to add several")


@dataclass(frozen=True)
class LoraConfig(Checked):
    """Low-rank adapters instead of full training."""

    rank: int = knob(0, "rank of the adapters; 0: full training", at_least=0)
    alpha: float | None = knob(None, "scale of the adapters (alpha / rank); none: twice the rank", above=0)
    targets: str = knob("all-linear", "modules that get one: `all-linear`, or names separated by commas")

    @property
    def scale(self) -> float:
        """alpha with its default filled in: `2 * rank`."""
        return 2.0 * self.rank if self.alpha is None else self.alpha


@dataclass(frozen=True)
class OffPolicy(Checked):
    """What is done where rollouts do not come from the very distribution that learns (`learn.off_policy`)."""

    correction: Literal["bypass", "none", "truncated", "banded", "banded_rows"] = knob(
        "bypass",
        "bypass: the sampler's log-probabilities are the old ones; else the policy's own are, and decisions are weighed by own / sampler: "
        "none (not at all), truncated (at most cap), banded (0 outside low to high), banded_rows (responses outside it are left out)",
    )
    cap: float = knob(2.0, "largest weight of `truncated`", above=0)
    low: float = knob(0.5, "least weight of `banded`, and least mean of `banded_rows`", above=0)
    high: float = knob(5.0, "largest ones", above=0)
    keep_truncation: bool = knob(False, "learn the distribution that is sampled from: after top-p and top-k, not before")
    reports: Literal["sampled", "raw"] = knob(
        "sampled", "log-probabilities that the sampler reports: those it drew from, or raw, before temperature and truncation"
    )
    replay: Literal["none", "trainer", "sampler"] = knob(
        "none", "experts of a mixture that every update uses: its own, the policy's at the start of the step, or the sampler's"
    )
    staleness: int = knob(0, "steps by which sampling is ahead of learning; 0: sample, then learn", unit="steps", at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low > self.high:
            raise UserError(f"low {self.low} and high {self.high}, expected a band", hint="0.5 and 5 are usual")
        if self.staleness and self.keep_truncation:
            raise UserError(
                f"keep_truncation with staleness {self.staleness}: what top-p kept was decided by weights that are gone",
                hint="sample without truncation (top_p 1, top_k 0), or set staleness to 0",
            )


@dataclass(frozen=True)
class Explore(Checked):
    """What keeps a policy gradient from losing its entropy (`learn.exploration`)."""

    bonus: float = knob(0.0, "weight of the entropy as a reward in the loss; 0: none", at_least=0)
    fork_share: float = knob(1.0, "learn only from this share of the decisions, those of the highest entropy; 1: all", above=0, at_most=1)
    cov: Literal["none", "clip", "kl"] = knob(
        "none", "where advantage and log-probability go together most: clip leaves some such decisions out, kl holds them back"
    )
    cov_share: float = knob(2e-4, "share of the decisions that are left out or held back", above=0, at_most=1)
    cov_low: float = knob(1.0, "least covariance of decisions that clip leaves out")
    cov_high: float = knob(5.0, "largest one")
    cov_coef: float = knob(1.0, "what a nat away from the old policy costs where kl holds back", at_least=0)


@dataclass(frozen=True)
class Stability(OffPolicy, Explore):
    """Both, as one group of settings."""


@dataclass(frozen=True)
class Monitor(Checked):
    """What is measured on held-out preferences while a policy is aligned (`evaluate.probes.RunMonitor`)."""

    pairs: int | None = knob(
        None,
        "held-out pairs; 0: no monitor; none: 64 where the data have a test split, or 1,280 rows or more of which they are taken",
        unit="pairs",
        at_least=0,
    )
    data: str | None = knob(None, "held-out preferences; none: the data's test split, else rows taken out of the training data")
    every: int | None = knob(
        None, "steps between evaluations; none: a tenth of the run, a fiftieth with the stop rule", unit="steps", at_least=1
    )
    top_k: int = knob(10, "likeliest next tokens whose mass and entropy are measured", unit="tokens", at_least=1)
    raw_entropy: bool = knob(False, "entropy of their probabilities as they are, not divided by their sum")
    kl: bool = knob(True, "measure the KL to the start too: its hidden states at the held-out answers stay in memory")
    answers: int = knob(0, "answers to draw to each held-out prompt at each evaluation, for length and variety", unit="answers", at_least=0)
    context: Literal["chosen", "answers"] = knob("chosen", "where mass and entropy are read: at the chosen answers, or at those drawn")
    stop_on_overoptimisation: bool = knob(False, "end the run when mass or entropy say that it goes too far")
    smoothing: float = knob(0.8, "momentum of the running means that the stop rule reads", at_least=0, at_most=0.99)
    patience: int = knob(3, "evaluations in a row in which the entropy falls", unit="evaluations", at_least=1)
    min_delta: float = knob(0.02, "by how much it must fall in them altogether", unit="nats", at_least=0)
    delta_mass: float = knob(0.02, "how far the mass must be below its highest", at_least=0)


ENGINES = ("own", "transformers", "vllm")
"""Who may draw samples of a text model, beside a server by its address."""


@dataclass(frozen=True)
class Run(Checked):
    """What every run has, whatever the method."""

    seed: int = knob(0, "seed of everything random", at_least=0)
    steps: int | None = knob(None, "updates to make; none: the method's own number", unit="steps", at_least=1)
    save_every: int | None = knob(None, "steps between checkpoints; none: a tenth of the run", unit="steps", at_least=1)
    device: Literal["auto", "cpu", "cuda"] = knob("auto", "where text models run; auto: a GPU when there is one")
    dtype: Literal["float32", "bfloat16"] = knob("float32", "number format of the weights of text models")
    compute: Literal["auto", "float32", "bfloat16"] = knob(
        "auto", "number format of their matrix products in learning; auto: bfloat16 where the hardware is fast at it"
    )
    rollout_dtype: Literal["auto", "float32", "bfloat16"] = knob(
        "float32", "number format of matrix products in drawing samples; auto: as for compute"
    )
    engine: str = knob(
        "own",
        "who draws samples of text models: own, transformers, vllm, or the address of a vLLM server, http://host:8000",
        check=lambda engine: engine.partition("?")[0] in ENGINES or engine.startswith(("http://", "https://")),
        expected="own, transformers, vllm, or the address of a vLLM server (http://host:8000)",
    )
    checkpoint_activations: bool = knob(False, "compute each layer a second time in the backward pass: less memory, a third more time")
    keep_memory: bool = knob(True, "hold on to freed memory between steps (Linux with glibc): faster, given back at the end")
    gold: tuple[str, ...] = knob(
        (), "further rewards that only look on: scored on the samples of every step and logged as gold/NAME, not learnt from"
    )
    transforms: tuple[str, ...] = knob(
        (),
        "changes to preference data before training, in this order: drop_ties, dedupe, least_gap=G, agreement=SHARE, max_words=N, "
        "truncate=N, flip=SHARE (separated by commas)",
    )
    trackers: tuple[str, ...] = knob((), "also log to: tensorboard, wandb, mlflow, trackio (separated by commas)")
    ref_cache: str = knob(
        "auto",
        "keep the reference's log-probabilities of a data set on disk: on, off, a folder, or auto: from 100 million parameters on "
        "(results stay the same)",
    )


def run_of(cfg: Any) -> Run:
    """The `run` group of a method's config; the defaults when it has none."""
    group = getattr(cfg, "run", None)
    return group if isinstance(group, Run) else Run()


# ---------------------------------------------------------------- ranges


def validate(cfg: Any, at: str = "") -> None:
    """Check every range declared with `knob`; raises UserError with the value, the range and the setting's name."""
    for f in fields(cfg):
        value, path, meta = getattr(cfg, f.name), at + f.name, f.metadata
        if is_dataclass(value) and not isinstance(value, type):
            validate(value, path + ".")
        if value is None or not meta:
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        low, above, high = meta.get("at_least"), meta.get("above"), meta.get("at_most")
        wrong = number and (
            (low is not None and not value >= low)
            or (above is not None and not value > above)
            or (high is not None and not value <= high)
            or (isinstance(value, float) and math.isnan(value))
        )
        if wrong or (meta.get("check") is not None and not meta["check"](value)):
            sides = ((f"at least {low}", low), (f"above {above}", above), (f"at most {high}", high))
            bounds = " and ".join(s for s, b in sides if b is not None)
            expected = meta.get("expected") or bounds or "another value"
            raise UserError(f"{path}: got {value!r}, expected {expected}", hint=f"{path} is: {meta.get('help') or f.name}")
