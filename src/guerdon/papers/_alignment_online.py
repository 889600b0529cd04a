"""What the tables of sampled direct alignment share: answers are drawn, judged by a reward, paired, and learnt from, round by round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from guerdon.config import Checked, LoraConfig, Monitor, Optim, Sampling, knob
from guerdon.core.rng import Key
from guerdon.data.cursor import Cursor
from guerdon.learn.alignment import PairView, pair_term
from guerdon.learn.learner import learner_for
from guerdon.learn.rounds import rounds
from guerdon.learn.verbs import collate, judge, pair_batch, pieces_of, rollout_metrics, sample
from guerdon.policies.refs import Lagged, Reference
from guerdon.types import Batch, Metrics, Policy, Preference, Prompt, Recipe, Reward, Rollout, Score

from ._alignment_base import LEASH


@dataclass(frozen=True)
class Sampled(Checked):
    """Settings and recipe of pairs that the policy's own answers make."""

    NAME: ClassVar[str] = ""

    model: str = knob("tiny", "the policy to start from: tiny, a folder, or a hub name")
    data: str = knob("human-ratings:movie", "prompts: a file, a folder, a hub name, or a named source")
    reward: tuple[str, ...] = knob(("vader",), "rewards: names, file.py:function, or reward-model folders, each with an optional =weight")
    rounds: int = knob(2, "times to sample anew", unit="rounds", at_least=1)
    prompts_per_round: int = knob(64, "prompts to answer in a round", unit="prompts", at_least=1)
    steps_per_round: int = knob(4, "updates in a round", unit="updates", at_least=1)
    batch: int = knob(32, "pairs an update", unit="pairs", at_least=1)
    beta: float = knob(0.1, LEASH, above=0)
    sampling: Sampling = Sampling(n=8, max_new=28)
    optim: Optim = Optim(lr=1e-4)
    lora: LoraConfig = LoraConfig()
    monitor: Monitor = Monitor()

    def reference(self, policy: Policy) -> Reference:
        """What the policy is compared with: itself at the start of the round."""
        return Lagged(policy, every=self.steps_per_round)

    def draw(self, policy: Policy, ref: Reference, prompts: Sequence[Prompt], key: Key) -> list[Rollout]:
        """The answers of a round."""
        return sample(policy, prompts, self.sampling.n, key)

    def select(self, rollouts: Sequence[Rollout], scores: Sequence[Score], key: Key) -> list[Preference]:
        """The pairs of a round."""
        raise NotImplementedError

    def collate(self, policy: Policy, items: Sequence[Preference]) -> Batch:
        """The pairs of an update as a batch."""
        return pair_batch(policy, items)

    def loss(self, view: PairView) -> Tensor:
        """`(P,)`."""
        raise NotImplementedError

    def build(self, policy: Policy, prompts: Sequence[Prompt], reward: Reward, key: Key) -> Recipe:
        """The recipe: in each round answer, judge and pair, then update on the pairs."""
        cursor, ref = Cursor(prompts, self.prompts_per_round, key.fold("prompts")), self.reference(policy)

        def prepare(number: int) -> tuple[list[Preference], Metrics]:
            rollouts = self.draw(policy, ref, cursor.at(number), key.fold("rollout", number))
            scores, said = judge(reward, rollouts)
            pairs = self.select(rollouts, scores, key.fold("select", number))
            metrics = rollout_metrics(rollouts, scores, collate(policy, rollouts), pieces_of(policy)) | said
            return pairs, metrics | {"pairs": float(len(pairs))}

        learner = learner_for(policy, [pair_term(self.NAME, self.loss, reward=self.beta)], self.optim, self.rounds * self.steps_per_round)
        return rounds(
            learner=learner,
            prepare=prepare,
            collate=lambda items: self.collate(policy, items),
            batch=None if self.steps_per_round == 1 else self.batch,
            rounds=self.rounds,
            steps_per_round=self.steps_per_round,
            key=key,
            ref=ref,
            skip_empty=True,
        )
