"""What the tables of policy gradients share: sample, score, credit, update. A method chooses its advantage, its loss and its reduction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from guerdon.config import Checked, LoraConfig, Optim, Sampling, knob
from guerdon.core import surrogate
from guerdon.core.masked import row_mean
from guerdon.core.reduce import Reduce, mean, seq_mean_token_mean, seq_mean_token_sum
from guerdon.core.rng import Key
from guerdon.learn.learner import learner_for
from guerdon.learn.online import online
from guerdon.learn.terms import kl_term
from guerdon.learn.verbs import Credit, values
from guerdon.policies.refs import Frozen
from guerdon.types import Batch, Outputs, Policy, Prompt, Recipe, Reward, Term, decisions, rows


@dataclass(frozen=True)
class OnPolicy(Checked):
    """Settings and recipe of methods that learn once from what they sample, with REINFORCE's loss."""

    NAME: ClassVar[str] = ""
    REDUCE: ClassVar[Reduce] = seq_mean_token_sum

    model: str = knob("tiny", "the policy to start from: tiny, a folder, or a hub name")
    data: str = knob("human-ratings:movie", "prompts: a file, a folder, a hub name, or a named source")
    reward: tuple[str, ...] = knob(("vader",), "rewards: names, file.py:function, or reward-model folders, each with an optional =weight")
    beta: float = knob(0.0, "weight of the KL to the starting policy; 0: no leash and no reference", at_least=0)
    kl_grad: Literal["k2", "k3"] = knob("k2", "gradient of the KL term: k2 unbiased, k3 GRPO's")
    show_kl: bool = knob(False, "with beta 0: keep a reference all the same, to log how far the policy moves")
    batch: int = knob(16, "prompts a step, each answered `sampling.n` times", unit="prompts", at_least=1)
    steps: int = knob(40, "steps of sampling and learning", unit="steps", at_least=1)
    sampling: Sampling = Sampling(n=8, max_new=28)
    optim: Optim = Optim(lr=2e-4)
    lora: LoraConfig = LoraConfig()

    def reuse(self) -> tuple[int, int]:
        """Passes over what was sampled, and updates in each."""
        return 1, 1

    def refilled(self) -> int:
        """Batches of prompts that a step may sample on top of its own."""
        return 0

    def referenced(self) -> bool:
        """Whether batches have the reference's log-probabilities."""
        return bool(self.beta or self.show_kl)

    def advantages(self, reward: Tensor, batch: Batch) -> Tensor:
        """`(N,)` or `(N, T)`, from one reward a response `(N,)`, NaN where it was not judged."""
        raise NotImplementedError

    def credited(self, policy: Policy) -> Credit:
        """From the scores of what this policy said to advantages, before it is updated."""
        return lambda scores, batch: self.advantages(values(scores), batch)

    def loss(self, o: Outputs, b: Batch) -> Tensor:
        """`(N, T)`, or `(N,)` of whole responses."""
        return surrogate.reinforce(o.logp, b.adv)

    def reduction(self) -> Reduce:
        """How the losses become one number."""
        return self.REDUCE

    def leash(self) -> Reduce:
        """How the KL to the starting policy becomes one number."""
        return seq_mean_token_mean

    def term(self) -> Term:
        """The loss; watches how far the ratio has moved."""
        reduce = self.reduction()
        whole = reduce is mean

        def watch(o: Outputs, b: Batch) -> Mapping[str, Tensor]:
            seen = {"ratio": surrogate.ratio(o.logp, b.old_logp), "entropy": o.entropy}
            return {name: row_mean(x, b.mask) for name, x in seen.items()} if whole else seen

        over, needs = rows if whole else decisions, frozenset({"logp", "entropy"})
        return Term("pg", self.loss, over=over, reduce=reduce, needs=needs, watch=watch)

    def build(self, policy: Policy, prompts: Sequence[Prompt], reward: Reward, key: Key) -> Recipe:
        """The recipe."""
        epochs, minibatches = self.reuse()
        leash = [kl_term(self.beta, self.kl_grad, self.leash())] if self.beta else []
        return online(
            learner=learner_for(policy, [self.term(), *leash], self.optim, self.steps * epochs * minibatches),
            prompts=prompts,
            reward=reward,
            credit=self.credited(policy),
            n=self.sampling.n,
            batch=self.batch,
            steps=self.steps,
            key=key,
            ref=Frozen(policy) if self.referenced() else None,
            epochs=epochs,
            minibatches=minibatches,
            refills=self.refilled(),
        )
