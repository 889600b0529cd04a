"""FLR: the likelihood of what the user would say next, as a reward, and preferences mined with it.

Problem: preferences need annotators or a stronger judge, and a language model asked for a verdict is unreliable.
Idea: nobody is asked. After a good answer a satisfied user is likelier than a dissatisfied one, and a language model knows how both
sound: the likelihood of ten positive less that of ten negative follow-ups, averaged over six qualities, is the reward. Of eight answers
to each prompt the best and the worst make a pair for DPO.
Left out: fine-tuning the rater on written feedback; KTO on the mined answers. The reward itself is `rewards.follow_up`, for any recipe.
Deliberate differences: the published script averages unshifted raw logits (`--reward 'follow_up(mode="raw_logit")'`); here exact
log-probabilities of the follow-up's own tokens. The wording of the follow-ups is ours.
Options: the rater is the reward's model, not the policy, unless both are named alike: `--reward 'follow_up(model="my-model")'`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from guerdon.config import Optim, Sampling, knob
from guerdon.core import preference
from guerdon.core.rng import Key
from guerdon.data.pairing import best_and_worst
from guerdon.learn.alignment import PairView
from guerdon.types import Paper, Policy, Preference, Prompt, Recipe, Reward, Rollout, Score

from ._alignment_online import Sampled

PAPER = Paper(
    title="Aligning Language Models Using Follow-up Likelihood as Reward Signal",
    arxiv="2409.13948",
    year=2024,
    family="direct alignment: data strategy",
    idea="After a good answer praise is likelier than complaint: that difference ranks answers, and the best and worst make pairs",
    uses=("prompts", "reward", "rewards.follow_up", "core.contrast.follow_up", "core.preference.dpo", "data.pairing.best_and_worst"),
    claim="On held-out questions the follow-up likelihood tells right from wrong answers where the answer's own likelihood cannot",
    full_size="guerdon run flr --model meta-llama/Meta-Llama-3-8B-Instruct --data my-prompts --prompts-per-round 20000 --lr 5e-7 "
    "--reward 'follow_up(model=\"meta-llama/Meta-Llama-3-8B-Instruct\")' --n 8 --max-new 512 --steps-per-round 600",
)


@dataclass(frozen=True)
class Config(Sampled):
    NAME = "flr"

    reward: tuple[str, ...] = knob(("follow_up",), "what ranks the answers: follow_up, with settings, or any other reward")
    rounds: int = knob(1, "times to sample anew", unit="rounds", at_least=1)
    prompts_per_round: int = knob(32, "prompts to answer in a round", unit="prompts", at_least=1)
    sampling: Sampling = Sampling(n=8, max_new=28, temperature=0.7)
    optim: Optim = Optim(lr=1e-4)

    def select(self, rollouts: Sequence[Rollout], scores: Sequence[Score], key: Key) -> list[Preference]:
        return best_and_worst(rollouts, scores)

    def loss(self, view: PairView) -> Tensor:
        return preference.dpo(*view.logratio, beta=self.beta)


def build(cfg: Config, policy: Policy, prompts: Sequence[Prompt], reward: Reward, key: Key) -> Recipe:
    return cfg.build(policy, prompts, reward, key)
