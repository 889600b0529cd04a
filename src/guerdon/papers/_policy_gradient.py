"""What the tables of policy gradients share: sample, score, credit, update. A method chooses its advantage, its loss and its reduction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from guerdon.core import surrogate
from guerdon.core.masked import row_mean
from guerdon.core.reduce import Reduce, mean, seq_mean_token_mean, seq_mean_token_sum
from guerdon.core.rng import Key
from guerdon.learn.exploration import shaped
from guerdon.learn.learner import learner_for
from guerdon.learn.online import online
from guerdon.learn.terms import kl_term
from guerdon.learn.verbs import Credit
from guerdon.policies.refs import Frozen
from guerdon.types import Batch, Outputs, Policy, Prompt, Recipe, Reward, Stateful, Term, decisions, rows

from ._policy_gradient_settings import Settings


@dataclass(frozen=True)
class OnPolicy(Settings):
    """Loss and recipe of methods that learn once from what they sample, with REINFORCE's loss."""

    NAME: ClassVar[str] = ""
    REDUCE: ClassVar[Reduce] = seq_mean_token_sum

    def advantages(self, reward: Tensor, batch: Batch) -> Tensor:
        """`(N,)` or `(N, T)`, from one reward a response `(N,)`, NaN where it was not judged."""
        raise NotImplementedError

    def credited(self, policy: Policy) -> Credit:
        """From the scores of what this policy said to advantages, before it is updated."""
        return lambda scores, batch: self.advantages(self.outcome(scores, batch), batch)

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

    def terms(self) -> list[Term]:
        """What is minimised."""
        if not self.beta or self.kl_grad == "reward":
            return [self.term()]
        return [self.term(), kl_term(self.beta, self.kl_grad, self.leash())]

    def build(self, policy: Policy, prompts: Sequence[Prompt], reward: Reward, key: Key) -> Recipe:
        """The recipe."""
        return self.recipe(policy, prompts, reward, key)

    def recipe(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        reward: Reward,
        key: Key,
        *,
        credit: Credit | None = None,
        acts: Policy | None = None,
        state: Mapping[str, Stateful] | None = None,
    ) -> Recipe:
        """The recipe of all of them. credit: in place of `credited(policy)`. acts: what samples and learns in the place of the
        policy that it is made of. state: what the credit remembers."""
        epochs, minibatches = self.reuse()
        return online(
            learner=learner_for(acts or policy, shaped(self.terms(), self.stability), self.optim, self.steps * epochs * minibatches),
            prompts=prompts,
            reward=reward,
            credit=credit or self.credited(policy),
            n=self.sampling.n,
            batch=self.batch,
            steps=self.steps,
            key=key,
            ref=Frozen(policy) if self.referenced() else None,
            epochs=epochs,
            minibatches=minibatches,
            refills=self.refilled(),
            off=self.stability,
            explore=self.stability,
            state=state,
        )
