"""The settings that all policy gradients of the tables have, and what a response earned under them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from guerdon.config import Checked, LoraConfig, Optim, Sampling, Stability, knob
from guerdon.core import kl
from guerdon.core.masked import row_sum
from guerdon.learn.verbs import values
from guerdon.types import Batch, Score

KlGrad = Literal["k2", "k3", "reward"]
KL_GRAD = "how the KL is followed: a term of the loss, by the unbiased gradient (k2) or GRPO's (k3), or taken off each decision's reward"


@dataclass(frozen=True)
class Settings(Checked):
    """Settings, and the choices that a method may make in place of a setting."""

    model: str = knob("tiny", "the policy to start from: tiny, a folder, or a hub name")
    data: str = knob("human-ratings:movie", "prompts: a file, a folder, a hub name, or a named source")
    reward: tuple[str, ...] = knob(("vader",), "rewards: names, file.py:function, or reward-model folders, each with an optional =weight")
    beta: float = knob(0.0, "weight of the KL to the starting policy; 0: no leash and no reference", at_least=0)
    kl_grad: KlGrad = knob("k2", KL_GRAD)
    show_kl: bool = knob(False, "with beta 0: keep a reference all the same, to log how far the policy moves")
    batch: int = knob(16, "prompts a step, each answered `sampling.n` times", unit="prompts", at_least=1)
    steps: int = knob(40, "steps of sampling and learning", unit="steps", at_least=1)
    sampling: Sampling = Sampling(n=8, max_new=28)
    optim: Optim = Optim(lr=2e-4)
    lora: LoraConfig = LoraConfig()
    stability: Stability = Stability()

    def reuse(self) -> tuple[int, int]:
        """Passes over what was sampled, and updates in each."""
        return 1, 1

    def refilled(self) -> int:
        """Batches of prompts that a step may sample on top of its own."""
        return 0

    def referenced(self) -> bool:
        """Whether batches have the reference's log-probabilities."""
        return bool(self.beta or self.show_kl)

    def charged(self) -> float:
        """What a nat of distance from the start costs in the reward."""
        return self.beta if self.kl_grad == "reward" else 0.0

    def outcome(self, scores: Sequence[Score], batch: Batch) -> Tensor:
        """`(N,)`: what each response earned, NaN where it was not judged; less its KL to the start where the reward pays for it."""
        reward, coef = values(scores), self.charged()
        if not coef:
            return reward
        return reward + row_sum(kl.penalty(batch.old_logp, batch.ref_logp, batch.mask, coef=coef), batch.mask).to(reward)
