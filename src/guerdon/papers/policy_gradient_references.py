"""Policy gradients from reference answers without a verifier: reasoning is good when the answer becomes likely behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from guerdon.config import knob
from guerdon.core import credit, credit_group
from guerdon.core.masked import group_rank, group_std, keep
from guerdon.core.rng import Key
from guerdon.learn.controllers import RunningLevel
from guerdon.learn.swapped import Swapping
from guerdon.learn.verbs import Credit
from guerdon.rewards.given import ReferenceProbability
from guerdon.types import Batch, Paper, Policy, Prompt, Recipe, Reward, Score

from ._policy_gradient_reused import Clipped, SelfRewarded

TAG = "the answer is inside <tag>...</tag>, the reasoning before it; '': the reference is put behind the whole response"


@dataclass(frozen=True)
class RLPR(SelfRewarded, Clipped):
    """Reinforcement learning with reference probability rewards.

    Problem: verifiers exist for mathematics and code; elsewhere an answer can be right in other words.
    Idea: put the reference answer behind the reasoning that was sampled, and reward the mean probability of its tokens there, less that
    without any reasoning. Prompts whose answers hardly differ in it are left out.
    Left out: nothing known. House choices: a prompt is left out when its rewards' deviation is below `least` times the running mean of
    all prompts' (decay 0.9); responses without an answer's place earn 0. Neither verl nor TRL has it.
    """

    NAME = "rlpr"
    PAPER = Paper(
        title="RLPR: Extrapolating RLVR to General Domains without Verifiers",
        arxiv="2506.18254",
        year=2025,
        family="policy gradient",
        idea="GRPO on how much the reasoning adds to the reference answer's mean token probability",
        uses=("prompts", "rewards.given.ReferenceProbability", "core.certainty.gained", "core.credit.grpo", "core.surrogate.ppo_clip"),
        full_size="guerdon run rlpr --model Qwen/Qwen2.5-7B --data my-questions-and-answers --tag answer --n 8 --max-new 3072 --lr 5e-7",
    )
    data: str = knob("reasoning-gym:basic_arithmetic", "prompts with reference answers: a file, a folder, a hub name, or a named source")
    tag: str = knob("", TAG)
    debias: bool = knob(True, "subtract the reference's probability without reasoning")
    least: float = knob(0.5, "share of the running mean deviation that a prompt's rewards must have; 0: all prompts", at_least=0)

    def judge(self, policy: Policy) -> Reward:
        return ReferenceProbability(policy, self.tag, self.debias)

    def build(self, policy: Policy, prompts: Sequence[Prompt], key: Key) -> Recipe:
        usual = RunningLevel(0.9)

        def advantages(scores: Sequence[Score], batch: Batch) -> Tensor:
            reward, group = self.outcome(scores, batch), batch.group.cpu()
            spread = group_std(reward, group)
            wide = spread >= self.least * usual.level(spread[group_rank(group) == 0])
            return keep(credit.grpo(reward, group), wide)

        return self.recipe(policy, prompts, self.judge(policy), key, credit=advantages, state={"spread": usual})


@dataclass(frozen=True)
class VeriFree(SelfRewarded):
    """Reinforcement learning without a verifier.

    Problem: as for RLPR; and a sampled answer is a noisy estimate of what the policy's probability of the right one says exactly.
    Idea: maximise the chance of the reference answer behind sampled reasoning, `E_z[p(answer | z)]`. Its gradient has two parts: REINFORCE
    on the reasoning, by `p` above the mean of the group's others, and the likelihood of the answer, weighed by p.
    Left out: the authors' split of the text at its last token before the answer; here the tag's own tokens are the reasoning's last.
    Reasoning without an end or an opened tag has chance 0 and stays as it was sampled. Neither verl nor TRL has it.
    """

    NAME = "verifree"
    PAPER = Paper(
        title="Reinforcing General Reasoning without Verifiers",
        arxiv="2505.21493",
        year=2025,
        family="policy gradient",
        idea="The gradient of the reference answer's probability behind sampled reasoning",
        uses=("prompts", "learn.swapped.Swapping", "core.credit_group.verifree", "core.surrogate.reinforce"),
        full_size="guerdon run verifree --model Qwen/Qwen3-8B-Base --data my-questions-and-answers --tag answer --max-new 3000 --lr 1e-6",
    )
    data: str = knob("reasoning-gym:basic_arithmetic", "prompts with reference answers: a file, a folder, a hub name, or a named source")
    tag: str = knob("", TAG)

    def credited(self, policy: Policy) -> Credit:
        def advantages(scores: Sequence[Score], batch: Batch) -> Tensor:
            chance = self.outcome(scores, batch).to(batch.mask.device)
            return credit_group.verifree(chance, batch.group, batch.extra["answer"], batch.mask)

        return advantages

    def build(self, policy: Policy, prompts: Sequence[Prompt], key: Key) -> Recipe:
        swapping = Swapping(policy, self.tag)
        return self.recipe(policy, prompts, swapping.chance, key, acts=swapping)  # type: ignore[arg-type]
