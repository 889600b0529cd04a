"""What the tables of policy gradients share that learn a critic beside the policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from guerdon.config import Checked, knob
from guerdon.core.reduce import Reduce, token_mean
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.learn.chain import chain
from guerdon.learn.controllers import KlWeight
from guerdon.learn.critic import OnlyCritic, by_critic, check_critic, value_term
from guerdon.learn.learner import learner_for
from guerdon.learn.online import online
from guerdon.learn.verbs import Credit
from guerdon.policies.refs import Frozen
from guerdon.types import Policy, Prompt, Recipe, Reward, Term

from ._policy_gradient_reused import Reused


@dataclass(frozen=True)
class Gae(Checked):
    """Generalised advantages, and the critic that they are taken from."""

    gamma: float = knob(1.0, "discount of later rewards", above=0, at_most=1)
    lam: float | None = knob(
        0.95, "decay of the policy's advantages; none: 1 - 1 / (alpha l) for a response of l tokens", at_least=0, at_most=1
    )
    alpha: float = knob(0.05, "how fast that decay grows with the length; responses of up to 1 / alpha tokens have 0", above=0)
    critic_lam: float | None = knob(None, "decay of the critic's targets; none: as `lam`", at_least=0, at_most=1)
    value_clip: float | None = knob(0.2, "clip range of the critic around its values at sampling; none: no clip", above=0)
    value_coef: float = knob(0.1, "weight of the critic's loss", at_least=0)
    warmup: int = knob(0, "steps at the beginning in which only the critic learns", unit="steps", at_least=0)
    kl_target: float | None = knob(None, "KL of a response that the weight `beta` is moved to hold; none: it stays", unit="nats", above=0)


@dataclass(frozen=True)
class ActorCritic(Reused):
    """A critic's advantages for the policy, rewards by token, the KL in them, and the critic's own loss."""

    REDUCE: ClassVar[Reduce] = token_mean
    critic: ClassVar[bool] = True  # the policy is loaded with one

    gae: Gae = Gae()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gae.kl_target is not None and not self.charged():
            raise UserError(
                f"kl_target {self.gae.kl_target} with beta {self.beta} and kl_grad {self.kl_grad}",
                hint="only a KL in the reward has a weight that moves: give beta above 0, and kl_grad reward",
            )

    def by_critic(self, policy: Policy, weight: KlWeight | float) -> Credit:
        """Advantages, values and targets."""
        gae = self.gae
        return by_critic(policy, kl_coef=weight, gamma=gae.gamma, lam=gae.lam, critic_lam=gae.critic_lam, alpha=gae.alpha)

    def value_term(self) -> Term:
        """The critic's loss."""
        return value_term(self.gae.value_clip, self.gae.value_coef)

    def terms(self) -> list[Term]:
        return [*super().terms(), self.value_term()]

    def build(self, policy: Policy, prompts: Sequence[Prompt], reward: Reward, key: Key) -> Recipe:
        check_critic(policy)
        weight = KlWeight(self.charged(), self.gae.kl_target)
        whole = self.recipe(policy, prompts, reward, key, credit=self.by_critic(policy, weight), state={"kl": weight})
        if not self.gae.warmup:
            return whole
        first = online(
            learner=learner_for(OnlyCritic(policy), [self.value_term()], self.optim, self.gae.warmup),  # type: ignore[arg-type]
            prompts=prompts,
            reward=reward,
            credit=self.by_critic(policy, self.charged()),
            n=self.sampling.n,
            batch=self.batch,
            steps=self.gae.warmup,
            key=key.fold("warmup"),
            ref=Frozen(policy) if self.referenced() else None,
            off=self.stability,
        )
        return chain(critic=first, policy=whole)
