"""Policy gradients with trust regions around whole responses."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from guerdon.config import knob
from guerdon.core import trust_region
from guerdon.core.reduce import mean, seq_mean_token_mean
from guerdon.types import Batch, Outputs, Paper

from ._policy_gradient_reused import Reused, of_rows


@dataclass(frozen=True)
class GSPO(Reused):
    """Group sequence policy optimisation.

    Problem: importance ratios of single tokens are noise that adds up over a long response, and collapse mixtures of experts.
    Idea: one ratio a response, the geometric mean of its tokens', clipped as a whole, in a range hundreds of times narrower.
    Left out: nothing; its token form is `gspo_token`.
    """

    NAME = "gspo"
    REDUCE = mean
    PAPER = Paper(
        title="Group Sequence Policy Optimization",
        arxiv="2507.18071",
        year=2025,
        family="policy gradient",
        idea="Clip the ratio of the whole response, not of each token",
        uses=("prompts", "reward", "core.credit.grpo", "core.trust_region.gspo"),
        full_size="guerdon run gspo --model Qwen/Qwen3-30B-A3B --data my-prompts --reward my.py:check --n 16 --minibatches 4 --lr 1e-6",
    )
    eps_low: float = knob(3e-4, "clip range below 1", above=0, at_most=1)
    eps_high: float = knob(4e-4, "clip range above 1", above=0)

    def loss(self, o: Outputs, b: Batch) -> Tensor:
        return trust_region.gspo(o.logp, b.old_logp, of_rows(b), b.mask, eps_low=self.eps_low, eps_high=self.eps_high)


@dataclass(frozen=True)
class GSPOToken(GSPO):
    """Group sequence policy optimisation, token by token.

    Problem: one ratio a response cannot weigh its tokens differently, which rewards of single turns or steps ask for.
    Idea: the response's ratio as a constant times each token's own `exp(logp - sg(logp))`: clipped by response, followed by token.
    Left out: nothing. With one advantage a response, as here, values and gradients are those of `gspo`; verl trains this form and calls
    it gspo, with the log-ratio bounded at 10. Methods of your own override `credited` to give each token its advantage.
    """

    NAME = "gspo_token"
    REDUCE = seq_mean_token_mean
    PAPER = Paper(
        title="Group Sequence Policy Optimization",
        arxiv="2507.18071",
        year=2025,
        family="policy gradient",
        idea="The ratio of the whole response in value, of the token in gradient",
        uses=("prompts", "reward", "core.credit.grpo", "core.trust_region.gspo_token"),
        full_size="guerdon run gspo_token --model Qwen/Qwen3-30B-A3B --data my-prompts --reward my.py:check --minibatches 4 --lr 1e-6",
    )

    def loss(self, o: Outputs, b: Batch) -> Tensor:
        return trust_region.gspo_token(o.logp, b.old_logp, b.adv, b.mask, eps_low=self.eps_low, eps_high=self.eps_high)


@dataclass(frozen=True)
class GMPO(Reused):
    """Geometric-mean policy optimisation.

    Problem: the mean of token ratios is ruled by its outliers.
    Idea: the geometric mean, of ratios that are clipped one by one in log space.
    Left out: nothing.
    """

    NAME = "gmpo"
    REDUCE = mean
    PAPER = Paper(
        title="Geometric-Mean Policy Optimization",
        arxiv="2507.20673",
        year=2025,
        family="policy gradient",
        idea="The geometric mean of clipped token ratios in place of their mean",
        uses=("prompts", "reward", "core.credit.grpo", "core.trust_region.gmpo"),
        full_size="guerdon run gmpo --model Qwen/Qwen2.5-Math-7B --data my-prompts --reward my-verifier.py:check --minibatches 8 --lr 1e-6",
    )
    eps: float = knob(0.4, "clip range of a token's log-ratio", unit="nats", above=0)

    def loss(self, o: Outputs, b: Batch) -> Tensor:
        return trust_region.gmpo(o.logp, b.old_logp, of_rows(b), b.mask, eps=self.eps)
