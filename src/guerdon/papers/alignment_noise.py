"""Direct alignment, data strategy: labels that are wrong, or say that neither response is better."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from guerdon.config import knob
from guerdon.core import preference
from guerdon.learn.alignment import PairView
from guerdon.types import Paper

from ._alignment import LEASH, Paired


@dataclass(frozen=True)
class CDPO(Paired):
    """Conservative DPO.

    Problem: people's labels are wrong now and then, and DPO goes on pushing whatever they say.
    Idea: expect a share eps of flipped labels, so that the best margin is finite: `log((1 - eps) / eps) / beta` nats.
    Left out: nothing. A rate per pair is `dpo --votes`.
    """

    NAME = "cdpo"
    PAPER = Paper(
        title="A note on DPO with noisy preferences & relationship to IPO (Mitchell; no arXiv number: the one below tells of it)",
        arxiv="2403.00409",
        year=2023,
        family="direct alignment: data strategy",
        idea="DPO that expects a share of the labels to be flipped",
        uses=("pairs", "core.preference.cdpo"),
        full_size="guerdon run cdpo --eps 0.2 --lr 5e-7 --batch 64 --model Qwen/Qwen3-8B --data my-noisy-pairs",
    )
    beta: float = knob(0.1, LEASH, above=0)
    eps: float = knob(0.1, "share of labels that are thought to be flipped", at_least=0, at_most=0.5)

    def loss(self, view: PairView) -> Tensor:
        return preference.cdpo(*view.logratio, beta=self.beta, eps=self.eps)


@dataclass(frozen=True)
class RobustDPO(Paired):
    """DPO without the bias of flipped labels.

    Problem: cDPO softens flipped labels, but its best policy still leans towards them.
    Idea: weigh both orders so that the mean over flips is the loss on clean labels, `((1 - eps) f(z) - eps f(-z)) / (1 - 2 eps)`.
    Left out: estimating eps. The loss has no lower bound: stop early, or keep the learning rate small.
    """

    NAME = "robust_dpo"
    PAPER = Paper(
        title="Provably Robust DPO: Aligning Language Models with Noisy Feedback",
        arxiv="2403.00409",
        year=2024,
        family="direct alignment: data strategy",
        idea="An unbiased estimate of DPO's loss on labels that were never flipped",
        uses=("pairs", "core.preference.robust_dpo"),
        full_size="guerdon run robust_dpo --eps 0.1 --lr 5e-7 --batch 64 --model Qwen/Qwen3-8B --data my-noisy-pairs",
    )
    beta: float = knob(0.1, LEASH, above=0)
    eps: float = knob(0.1, "share of labels that are thought to be flipped", at_least=0, at_most=0.49)

    def loss(self, view: PairView) -> Tensor:
        return preference.robust_dpo(*view.logratio, beta=self.beta, eps=self.eps)


@dataclass(frozen=True)
class RaoKupper(Paired):
    """DPO with ties, after Rao and Kupper.

    Problem: pairs of equally good responses are thrown away, or forced into an order that they do not have.
    Idea: a third outcome: within a band of `log nu` around equal rewards people call a tie.
    Left out: nothing. A pair is a tie when its label is 0.5, or its ratings are equal.
    """

    NAME = "rao_kupper"
    TIES = True
    PAPER = Paper(
        title="On Extending Direct Preference Optimization to Accommodate Ties",
        arxiv="2409.17431",
        year=2024,
        family="direct alignment: data strategy",
        idea="A tie is an outcome of its own: a band around equal rewards",
        uses=("pairs", "core.preference.rao_kupper"),
        full_size="guerdon run rao_kupper --lr 5e-7 --batch 64 --model Qwen/Qwen3-8B --data my-pairs-with-ties",
    )
    beta: float = knob(0.1, LEASH, above=0)
    nu: float = knob(3.0, "width of the band: equal responses tie with probability (nu - 1) / (nu + 1)", above=1)

    def loss(self, view: PairView) -> Tensor:
        return preference.rao_kupper(*view.logratio, view.tied, beta=self.beta, nu=self.nu)


@dataclass(frozen=True)
class Davidson(Paired):
    """DPO with ties, after Davidson.

    Problem: as for `rao_kupper`.
    Idea: the strength of a tie is the geometric mean of the two responses' strengths, times nu.
    Left out: nothing. A pair is a tie when its label is 0.5, or its ratings are equal.
    """

    NAME = "davidson"
    TIES = True
    PAPER = Paper(
        title="On Extending Direct Preference Optimization to Accommodate Ties",
        arxiv="2409.17431",
        year=2024,
        family="direct alignment: data strategy",
        idea="A tie is an outcome of its own: as strong as the geometric mean of both sides",
        uses=("pairs", "core.preference.davidson"),
        full_size="guerdon run davidson --lr 5e-7 --batch 64 --model Qwen/Qwen3-8B --data my-pairs-with-ties",
    )
    beta: float = knob(0.1, LEASH, above=0)
    nu: float = knob(1.0, "how often equal responses tie: with probability nu / (1 + nu)", above=0)

    def loss(self, view: PairView) -> Tensor:
        return preference.davidson(*view.logratio, view.tied, beta=self.beta, nu=self.nu)
