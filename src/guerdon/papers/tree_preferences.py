"""Tree-structured preferences: a reward model from comparisons of responses that share prefixes.

Problem: comparing independent responses to a prompt ties each to one other only, so a reward model learns little from a comparison.
Idea: sample responses as the leaves of a prefix tree. Leaves share what stands before them, so that a comparison informs about all
responses through the same nodes; whole leaves are compared, never inner nodes. Then Bradley-Terry as usual.
Left out: people as annotators (a reward compares here, with `--flip` of the verdicts turned round), and the paper's rejection-sampling
fine-tuning and PPO on the model (`best_of_n`, `grpo --reward RUN/final`). Its depth and branching are not known: 4 and 2 here.
Options: `--topology chain` compares independent samples, as many; `--spread uniform` draws from all pairs of leaves.
How far responses are from each other in what was learnt (effective resistance; the similarity of leaves that share d of D segments counts
`similarity d / D` of a comparison, a house choice) is logged as `topology/distance`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from guerdon.config import Checked, LoraConfig, Optim, Sampling, knob
from guerdon.core.rng import Key
from guerdon.data.cursor import Cursor
from guerdon.data.transforms import flipped
from guerdon.learn.learner import learner_for
from guerdon.learn.rounds import rounds
from guerdon.learn.verbs import pair_batch
from guerdon.papers.bradley_terry import term as bradley_terry
from guerdon.policies.refs import Frozen
from guerdon.search.prefix_tree import PrefixTreeSampler, Spread
from guerdon.search.topology import chain_pairs, tree_pairs
from guerdon.types import Metrics, Paper, Policy, Preference, Prompt, Recipe, Reward

PAPER = Paper(
    title="Reward Generalization in RLHF: A Topological Perspective",
    arxiv="2402.10184",
    year=2024,
    family="reward model",
    idea="Compare the leaves of a prefix tree, so that every comparison informs about all responses through the same nodes",
    uses=(
        "prompts",
        "reward",
        "search.prefix_tree.PrefixTreeSampler",
        "core.inference_distance.resistance",
        "core.reward_loss.bradley_terry",
    ),
    claim="Where shared prefixes tie rewards together, as many comparisons leave less uncertainty in a tree than among independent pairs",
    full_size="guerdon run tree_preferences --model Qwen/Qwen3-1.7B --data my-prompts --reward my-annotator --segment 64 --lr 1e-5",
)


@dataclass(frozen=True)
class Config(Checked):
    model: str = knob("tiny", "the policy that writes, and the body of the reward model: tiny, a folder, or a hub name")
    data: str = knob("human-ratings:movie", "prompts: a file, a folder, a hub name, or a named source")
    reward: tuple[str, ...] = knob(("vader",), "who compares: the higher score wins")
    flip: float = knob(0.0, "share of the verdicts that are turned round, as by careless annotators", at_least=0, at_most=0.5)
    topology: Literal["tree", "chain"] = knob("tree", "responses that share prefixes, or independent ones")
    branching: int = knob(2, "continuations of a node", at_least=2)
    depth: int = knob(4, "segments of a response, at most", unit="segments", at_least=1)
    segment: int = knob(8, "tokens of a segment, at most", unit="tokens", at_least=1)
    sentence: bool = knob(False, "a segment also ends with a sentence")
    spread: Spread = knob("depth", "which leaves are compared: in turn by the depth at which they part, or uniformly")
    comparisons: int = knob(12, "comparisons for each prompt", unit="comparisons", at_least=1)
    similarity: float = knob(0.5, "what equal prefixes count in the logged distance, in comparisons", at_least=0)
    prompts_per_round: int = knob(8, "prompts to answer in a round", unit="prompts", at_least=1)
    rounds: int = knob(2, "times to sample and compare anew", unit="rounds", at_least=1)
    steps_per_round: int = knob(10, "updates in a round", unit="updates", at_least=1)
    batch: int = knob(16, "comparisons an update", unit="comparisons", at_least=1)
    sampling: Sampling = Sampling(n=1, max_new=32)
    optim: Optim = Optim(lr=5e-4, warmup=5)
    lora: LoraConfig = LoraConfig()


def build(cfg: Config, policy: Policy, scorer: Policy, prompts: Sequence[Prompt], reward: Reward, key: Key) -> Recipe:
    cursor, steps = Cursor(prompts, cfg.prompts_per_round, key.fold("prompts")), cfg.rounds * cfg.steps_per_round
    writer = Frozen(policy).policy
    grow = PrefixTreeSampler(cfg.branching, cfg.depth, cfg.segment, cfg.sentence)

    def prepare(number: int) -> tuple[Sequence[Preference], Metrics]:
        asked, draw = cursor.at(number), key.fold("round", number)
        if cfg.topology == "tree":
            pairs, metrics = tree_pairs(grow(writer, asked, draw), reward, cfg.comparisons, draw, cfg.spread, cfg.similarity)
        else:
            pairs, metrics = chain_pairs(writer, asked, reward, cfg.comparisons, draw)
        return flipped(pairs, cfg.flip, key=draw), metrics

    return rounds(
        learner=learner_for(scorer, [bradley_terry()], cfg.optim, steps),
        prepare=prepare,
        collate=lambda items: pair_batch(scorer, items),
        batch=cfg.batch,
        rounds=cfg.rounds,
        steps_per_round=cfg.steps_per_round,
        key=key,
    )
