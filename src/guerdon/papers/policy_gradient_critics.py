"""Policy gradients with a critic: what a token is worth is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from guerdon.config import Sampling, knob
from guerdon.core.reduce import token_mean
from guerdon.learn.controllers import KlWeight
from guerdon.learn.verbs import Credit, values
from guerdon.types import Batch, Outputs, Paper, Policy, Score, Term

from ._policy_gradient_critic import ActorCritic, Gae
from ._policy_gradient_reused import Clipped, ClippedApart
from ._policy_gradient_settings import KL_GRAD, KlGrad


@dataclass(frozen=True)
class PPO(ActorCritic, Clipped):
    """Proximal policy optimisation, with a critic.

    Problem: policy gradients are noisy, and a step too far along one ruins the policy that the next samples come from.
    Idea: advantages from a learnt critic (GAE), whitened, and a surrogate that stops paying once a token's ratio leaves a range; for text
    the reward stands at the last token and each token pays for its distance from the starting policy.
    Left out: a critic with a network of its own: here it is one layer on the policy's. Rows cut off at the length limit count as ended.
    Options: `--dual 3` (verl's default; TRL has none), `--gae.kl-target`: move the KL's weight to hold so many nats (Ziegler et al. 2019).
    Difference from verl: the critic's clip is 0.2, not 0.5; tokens of tools are passed over, as there. From TRL: rewards are not whitened.
    """

    NAME = "ppo"
    PAPER = Paper(
        title="Proximal Policy Optimization Algorithms",
        arxiv="1707.06347",
        year=2017,
        family="policy gradient",
        idea="A critic's advantages in a surrogate that is clipped where the policy has moved",
        uses=("prompts", "reward", "core.credit.gae", "core.surrogate.ppo_clip", "core.surrogate.value_loss", "core.kl.penalty"),
        full_size="guerdon run ppo --model my-sft-model --data my-prompts --reward my-reward-model --batch 512 --minibatches 8 "
        "--lr 1e-6 --beta 0.05",
    )
    beta: float = knob(0.01, "weight of the KL to the starting policy; 0: no leash and no reference", at_least=0)
    kl_grad: KlGrad = knob("reward", KL_GRAD)
    batch: int = knob(64, "prompts a step, each answered `sampling.n` times", unit="prompts", at_least=1)
    sampling: Sampling = Sampling(n=1, max_new=28)


@dataclass(frozen=True)
class VAPO(ActorCritic, ClippedApart):
    """Value-augmented proximal policy optimisation.

    Problem: on long chains of thought a critic starts out biased, and one decay of its advantages is too short for long answers or too
    noisy for short ones.
    Idea: let the critic learn alone first, from whole returns; give the policy's advantages a decay that grows with the response,
    `1 - 1 / (0.05 l)`; clip higher; several answers a prompt; and imitate the right ones a little (`nll`).
    Left out: a critic with a network of its own; its warm-up moves its one layer alone. A right answer is one with a reward above 0. For
    answers of few tokens raise `--gae.alpha`: up to 1 / alpha tokens the decay is 0. Neither verl nor TRL has it as one method.
    """

    NAME = "vapo"
    PAPER = Paper(
        title="VAPO: Efficient and Reliable Reinforcement Learning for Advanced Reasoning Tasks",
        arxiv="2504.05118",
        year=2025,
        family="policy gradient",
        idea="PPO with a critic that learns first and from whole returns, and a decay that grows with the response",
        uses=("prompts", "reward", "core.credit.gae", "core.credit.length_lambda", "core.surrogate.ppo_clip", "learn.critic.OnlyCritic"),
        full_size="guerdon run vapo --model Qwen/Qwen2.5-32B --data my-prompts --reward my.py:check --n 16 --batch 512 --warmup 50 "
        "--lr 1e-6",
    )
    gae: Gae = Gae(lam=None, critic_lam=1.0, warmup=4)
    nll: float = knob(0.1, "weight of the likelihood of right answers", at_least=0)

    def by_critic(self, policy: Policy, weight: KlWeight | float) -> Credit:
        inner = super().by_critic(policy, weight)

        def labelled(scores: Sequence[Score], batch: Batch) -> Batch:
            found = inner(scores, batch)
            assert isinstance(found, Batch)
            return found.with_(label=values(scores).to(batch.mask.device))

        return labelled

    def terms(self) -> list[Term]:
        def loss(o: Outputs, b: Batch) -> Tensor:
            return -o.logp

        return [*super().terms(), Term("nll", loss, over=lambda b: b.mask & (b.label > 0)[:, None], reduce=token_mean, coef=self.nll)]
