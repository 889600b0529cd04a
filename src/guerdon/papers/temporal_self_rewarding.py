"""Temporal Self-Rewarding: rejected answers of the past policy, chosen answers of a policy from the future.

Problem: in self-rewarding the chosen and the rejected answer come from the same improving model; they grow alike, and DPO's gradient with
them.
Idea: in iteration i, reject the worst of what M_0 and M_i say (first phase: train a temporary M_f from M_i on it), then choose the best
of what M_i and M_f say (second phase: train M_(i+1), from M_i again, and forget M_f). M_i judges throughout.
Left out: the model as a judge that explains itself and gives 0 to 5 points: any reward is the judge. Options: judge `own` is M_i's
averaged log-likelihood of an answer. In iteration 0 past and present are one pool. Neither learning rate, batch nor length of training is
published: the defaults are house choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from guerdon.config import Checked, LoraConfig, Monitor, Optim, Sampling, knob
from guerdon.core.rng import Key
from guerdon.data.buffer import Pools
from guerdon.data.cursor import Cursor
from guerdon.data.pairing import Judged, PairSelector
from guerdon.learn.learner import learner_for
from guerdon.learn.rounds import rounds
from guerdon.learn.verbs import collate, judge, pair_batch, pieces_of, rollout_metrics, sample
from guerdon.papers import dpo
from guerdon.policies.refs import Frozen, Snapshot
from guerdon.rewards.likelihood import likelihood
from guerdon.types import Metrics, Paper, Policy, Preference, Prompt, Recipe, Reward, Rollout, Score

PAPER = Paper(
    title="Temporal Self-Rewarding Language Models: Decoupling Chosen-Rejected via Past-Future",
    arxiv="2508.06026",
    year=2025,
    family="self-rewarding",
    idea="Rejected answers from the first policy, chosen ones from a temporary future policy",
    uses=("prompts", "reward", "data.pairing.PairSelector", "core.preference.dpo", "learn.rounds.rounds"),
    claim="In its last phase chosen and rejected answers lie further apart in true quality than in self-rewarding after as many updates",
    full_size="guerdon run temporal_self_rewarding --model my-sft-and-judge-model --data my-instructions --reward my-judge.py:score "
    "--prompts-per-iteration 4000 --steps-per-phase 62 --batch 64 --lr 5e-7 --max-new 1024",
)
ANCHORED = PairSelector(chosen_from=("present",), rejected_from=("past", "present"))
GUIDED = PairSelector(chosen_from=("present", "future"), rejected_from=("past", "present"))


@dataclass(frozen=True)
class Config(Checked):
    model: str = knob("tiny", "M_0, the policy to start from: tiny, a folder, or a hub name")
    data: str = knob("human-ratings:movie", "prompts: a file, a folder, a hub name, or a named source")
    reward: tuple[str, ...] = knob(("vader",), "the judge: names, file.py:function, or reward-model folders, each with an optional =weight")
    judge: Literal["reward", "own"] = knob("reward", "who judges: the reward, or M_i by its averaged log-likelihood")
    iterations: int = knob(2, "iterations of two phases each", unit="iterations", at_least=1)
    prompts_per_iteration: int = knob(64, "prompts to answer in an iteration", unit="prompts", at_least=1)
    steps_per_phase: int = knob(4, "updates in each of the two phases of an iteration", unit="updates", at_least=1)
    batch: int = knob(32, "pairs an update", unit="pairs", at_least=1)
    beta: float = knob(0.1, "strength of the leash to M_i", above=0)
    sampling: Sampling = Sampling(n=7, max_new=28)
    optim: Optim = Optim(lr=1e-4)
    lora: LoraConfig = LoraConfig()
    monitor: Monitor = Monitor()


def likely(judge: Snapshot, rollouts: Sequence[Rollout]) -> list[Score]:
    """Averaged log-likelihood of each answer under the policy held."""
    return [Score.whole(r, float(x.mean())) for r, x in zip(rollouts, likelihood(judge.policy, rollouts), strict=True)]


def build(cfg: Config, policy: Policy, prompts: Sequence[Prompt], reward: Reward, key: Key) -> Recipe:
    first, start, pools = Frozen(policy), Snapshot(policy), Pools()  # M_0, M_i, and what they said in this iteration
    cursor = Cursor(prompts, cfg.prompts_per_iteration, key.fold("prompts"))

    def answer(who: Policy, iteration: int, pool: str) -> tuple[Judged, Metrics]:
        rollouts = sample(who, cursor.at(iteration), cfg.sampling.n, key.fold("rollout", iteration, pool))
        scores, said = judge(reward if cfg.judge == "reward" else lambda rows: likely(start, rows), rollouts)
        return (rollouts, scores), rollout_metrics(rollouts, scores, collate(who, rollouts), pieces_of(who)) | said

    def prepare(number: int) -> tuple[list[Preference], Metrics]:
        iteration, second = divmod(number, 2)
        if second:
            pools.named["future"], metrics = answer(policy, iteration, "future")
            start.restore()
        else:
            start.take()
            pools.named["present"], metrics = answer(policy, iteration, "present")
            pools.named["past"] = answer(first.policy, iteration, "past")[0] if iteration else pools.named["present"]
        learner.forget()
        pairs = (GUIDED if second else ANCHORED)(pools.named)
        sources = [pair.source.split(" over ") for pair in pairs]
        count = max(1, len(pairs))
        return pairs, metrics | {
            "pairs": float(len(pairs)),
            "gap": sum(pair.margin or 0.0 for pair in pairs) / count,
            "chosen/future": sum(chosen == "future" for chosen, _ in sources) / count,
            "rejected/past": sum(rejected == "past" for _, rejected in sources) / count,
        }

    phases = 2 * cfg.iterations
    learner = learner_for(policy, [dpo.term(cfg.beta)], cfg.optim, phases * cfg.steps_per_phase)
    return rounds(
        learner=learner,
        prepare=prepare,
        collate=lambda items: pair_batch(policy, items),
        batch=cfg.batch,
        rounds=phases,
        steps_per_round=cfg.steps_per_phase,
        key=key,
        ref=start,
        state={"pools": pools},
        skip_empty=True,
    )
