"""Best of n, at sampling time and distilled (RAFT).

Problem: a reward is at hand, and reinforcement learning is more machinery than the task is worth.
Idea: sample n answers and keep the best; that alone moves the policy by at most `log n - (n - 1) / n` nats of KL. To keep the gain
without sampling n times for ever, fine-tune on the kept answers, and do so again from the improved policy.
Left out: RAFT's ranking over the whole batch of prompts (here the best of each prompt is kept, its later variant), and the KL-shaped
reward of its appendix. `--rounds 1 --steps-per-round 1 --lr 1e-12` is best-of-n alone; `guerdon.search.best_of` is its Python call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from guerdon.config import Checked, LoraConfig, Optim, Sampling, knob
from guerdon.core import stats
from guerdon.core.rng import Key
from guerdon.data.cursor import Cursor
from guerdon.learn.learner import learner_for
from guerdon.learn.rounds import rounds
from guerdon.learn.verbs import rollout_metrics, sft_term, values
from guerdon.search.best_of import best_of
from guerdon.types import Metrics, Paper, Policy, Prompt, Recipe, Reward, Rollout

PAPER = Paper(
    title="RAFT: Reward rAnked FineTuning for Generative Foundation Model Alignment",
    arxiv="2304.06767",
    year=2023,
    family="rejection sampling",
    idea="Keep the best of n answers to each prompt, fine-tune on them, repeat",
    uses=("prompts", "reward", "search.best_of"),
    claim="Fine-tuned on its own best answers, the policy earns more reward with one sample than its start does",
    full_size="guerdon run best_of_n --model meta-llama/Llama-3.1-8B-Instruct --data HuggingFaceH4/ultrafeedback_binarized "
    "--reward my-reward-model --n 32 --lr 2e-5 --rounds 4 --prompts-per-round 2048",
)


@dataclass(frozen=True)
class Config(Checked):
    model: str = knob("tiny", "the policy to start from: tiny, a folder, or a hub name")
    data: str = knob("human-ratings:movie", "prompts: a file, a folder, a hub name, or a named source")
    reward: tuple[str, ...] = knob(("vader",), "rewards: names, file.py:function, or reward-model folders, each with an optional =weight")
    rounds: int = knob(2, "times to sample anew from the improved policy", unit="rounds", at_least=1)
    prompts_per_round: int = knob(64, "prompts to answer in a round", unit="prompts", at_least=1)
    batch: int = knob(32, "kept answers an update", unit="answers", at_least=1)
    steps_per_round: int = knob(4, "updates in a round", unit="updates", at_least=1)
    sampling: Sampling = Sampling(n=8, max_new=28)
    optim: Optim = Optim(lr=2e-4)
    lora: LoraConfig = LoraConfig()


def build(cfg: Config, policy: Policy, prompts: Sequence[Prompt], reward: Reward, key: Key) -> Recipe:
    cursor = Cursor(prompts, cfg.prompts_per_round, key.fold("prompts"))

    def prepare(number: int) -> tuple[Sequence[Rollout], Metrics]:
        found = best_of(policy, cursor.at(number), reward, n=cfg.sampling.n, key=key.fold("rollout", number))
        metrics = rollout_metrics(found.rollouts, found.scores, policy.collate(found.rollouts))
        kept = {id(r) for r in found.best}
        best = values([s for r, s in zip(found.rollouts, found.scores, strict=True) if id(r) in kept])
        bound = stats.best_of_n_kl(cfg.sampling.n)
        return found.best, metrics | {"reward/best": float(best.mean()), "kl/bound": float(bound)}

    learner = learner_for(policy, [sft_term()], cfg.optim, cfg.rounds * cfg.steps_per_round)
    return rounds(
        learner=learner,
        prepare=prepare,
        collate=policy.collate,
        batch=cfg.batch,
        rounds=cfg.rounds,
        steps_per_round=cfg.steps_per_round,
        key=key,
    )
