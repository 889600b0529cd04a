"""Policy gradients without labels: what many of a prompt's answers say is taken for right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from guerdon.config import Sampling, knob
from guerdon.core import credit, credit_group
from guerdon.core.masked import group_rank
from guerdon.errors import UserError
from guerdon.learn.verbs import Credit, with_adv
from guerdon.types import Batch, Paper, Policy, Score

from ._policy_gradient_reused import Clipped


@dataclass(frozen=True)
class TTRL(Clipped):
    """Test-time reinforcement learning.

    Problem: questions at test time have no labels, and a policy could still learn from them.
    Idea: many answers to each question vote; those that agree with the majority earn 1, the others 0, and GRPO learns from a part of them.
    Left out: nothing. The first `learn` of a group's answers are kept, which is as good as any, since they are drawn alike; advantages are
    of the kept ones. Deliberate difference: at a tie all of the tied answers count as right (`rewards.vote.majority`). It makes a policy
    surer: where most answers are wrong, it teaches the mistake. Neither verl nor TRL has it.
    """

    NAME = "ttrl"
    PAPER = Paper(
        title="TTRL: Test-Time Reinforcement Learning",
        arxiv="2504.16084",
        year=2025,
        family="policy gradient",
        idea="GRPO on whether an answer is the majority's, voted by more answers than are learnt from",
        uses=("prompts", "reward", "rewards.vote.majority", "core.credit.grpo", "core.surrogate.ppo_clip"),
        full_size="guerdon run ttrl --model Qwen/Qwen2.5-Math-7B --data my-questions --n 64 --learn 32 --max-new 3072 --lr 5e-7 --batch 32",
    )
    reward: tuple[str, ...] = knob(("majority",), "what makes labels of a group's answers; majority is the method's")
    learn: int = knob(8, "answers of each prompt that are learnt from; all `sampling.n` of them vote", unit="answers", at_least=2)
    sampling: Sampling = Sampling(n=16, max_new=4)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.learn > self.sampling.n:
            raise UserError(
                f"learn {self.learn} of n {self.sampling.n} answers", hint="as many vote as are drawn: raise --n, or lower --learn"
            )

    def credited(self, policy: Policy) -> Credit:
        def advantages(scores: Sequence[Score], batch: Batch) -> Batch:
            kept = (group_rank(batch.group) < self.learn).nonzero()[:, 0]
            part = batch.rows(kept)
            return with_adv(part, credit.grpo(self.outcome(scores, batch)[kept.cpu()], part.group.cpu()))

        return advantages


@dataclass(frozen=True)
class EMPO(Clipped):
    """Entropy-minimised policy optimisation.

    Problem: a majority is a poor label where answers scatter, and there is none for answers in free words.
    Idea: reward an answer with the share of its group that means the same, in groups that are neither settled nor hopeless.
    Left out: clusters by meaning (an entailment model, or a verifier of equal answers): answers are the same when their words are.
    Options: the band of the entropy over answers, in nats (house choices: `low` 0, `high` 1.5; n answers reach log n at most).
    Neither verl nor TRL has it.
    """

    NAME = "empo"
    PAPER = Paper(
        title="Right Question is Already Half the Answer: Fully Unsupervised LLM Reasoning Incentivization",
        arxiv="2504.05812",
        year=2025,
        family="policy gradient",
        idea="GRPO on the share of the group that says the same, where the group is neither settled nor hopeless",
        uses=("prompts", "reward", "rewards.vote.answer_share", "core.credit_group.empo", "core.surrogate.ppo_clip"),
        full_size="guerdon run empo --model Qwen/Qwen2.5-Math-7B --data my-questions --n 16 --max-new 2048 --lr 3e-7",
    )
    reward: tuple[str, ...] = knob(("answer_share",), "share in (0, 1] of the group that says the same; answer_share is the method's")
    low: float = knob(0.0, "groups of which the answers have less entropy are left out", unit="nats", at_least=0)
    high: float = knob(1.5, "groups of which they have more are left out", unit="nats", above=0)
    sampling: Sampling = Sampling(n=8, max_new=4)

    def advantages(self, reward: Tensor, batch: Batch) -> Tensor:
        return credit_group.empo(reward, batch.group, low=self.low, high=self.high)
