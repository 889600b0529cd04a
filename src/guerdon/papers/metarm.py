"""MetaRM: a reward model that keeps telling answers apart after the policy has moved, without new labels.

Problem: as the policy moves away from what people labelled, its answers come to look alike to the reward model.
Idea: before every update, climb the difference function of unlabelled answers of the present policy (how far apart the rewards of each
prompt's answers lie), take the gradient of the pair loss there, and apply it to the weights as they were.
Left out: the rounds of reinforcement learning in between (three or four): run `ppo` or `grpo` with this reward, then this with `--model`
the new policy and `--scorer-model` the last reward model. No second derivatives, as published.
Options: `keep` steps from where the ascent ended. As published the step goes back first, and the gradient that comes from further out makes
for less spread than ordinary updates (measured, see the claim). `eta` 0 is the pair loss alone. eta, the answers to a prompt and the rate
of the step are not published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from guerdon.config import Checked, LoraConfig, Optim, Sampling, knob
from guerdon.core.rng import Key
from guerdon.data.checks import check_pairs
from guerdon.data.cursor import Cursor
from guerdon.learn.learner import learner_for
from guerdon.learn.meta import MetaLearner
from guerdon.learn.offline import steps_of
from guerdon.learn.verbs import collate, pair_batch, sample
from guerdon.papers import bradley_terry
from guerdon.policies.refs import Frozen
from guerdon.types import Metrics, Paper, Policy, Preference, Prompt, Recipe

PAPER = Paper(
    title="Secrets of RLHF in Large Language Models Part II: Reward Modeling (MetaRM)",
    arxiv="2401.06080",
    year=2024,
    family="reward model",
    idea="Take the gradient of the pair loss where the reward model tells the present policy's answers further apart",
    uses=("pairs", "prompts", "core.meta.difference", "core.reward_loss.bradley_terry", "learn.meta.MetaLearner"),
    claim="With the ascent kept, rewards of shifted answers spread further than after ordinary updates, as much being right at home; the "
    "published step spreads them less",
    full_size="guerdon run metarm --model my-ppo-policy --scorer-model my-reward-model --data Anthropic/hh-rlhf --n 4 --lr 5e-6 --batch 32",
)


@dataclass(frozen=True)
class Config(Checked):
    model: str = knob("tiny", "the present policy, which answers and does not learn: tiny, a folder, or a hub name")
    scorer_model: str | None = knob(None, "the reward model; none: a new head on `model`")
    data: str = knob("human-ratings:movie", "labelled pairs: a file, a folder, a hub name, or a named source")
    prompts: str | None = knob(None, "what the policy answers; none: the prompts of `data`")
    eta: float = knob(1.0, "rate of the ascent on the difference function", at_least=0)
    keep: bool = knob(False, "step from where the ascent ended, not from where it began (not the paper's)")
    asked: int = knob(8, "prompts that the policy answers in each step, `sampling.n` times", unit="prompts", at_least=1)
    batch: int = knob(32, "pairs a step", unit="pairs", at_least=1)
    epochs: float = knob(1.0, "passes over the pairs", unit="passes", above=0)
    steps: int | None = knob(None, "updates to make; none: as many as `epochs` gives", unit="updates", at_least=1)
    sampling: Sampling = Sampling(n=4, max_new=28, temperature=0.8, top_p=0.9)
    optim: Optim = Optim(lr=5e-4, warmup=10, decay="linear")
    lora: LoraConfig = LoraConfig()


def build(cfg: Config, policy: Policy, scorer: Policy, pairs: Sequence[Preference], prompts: Sequence[Prompt], key: Key) -> Recipe:
    check_pairs(pairs, "metarm")
    steps = cfg.steps or steps_of(len(pairs), cfg.batch, None, cfg.epochs)
    learner = learner_for(scorer, [bradley_terry.term()], cfg.optim, steps, MetaLearner)
    speaker, labelled, asked = Frozen(policy), Cursor(pairs, cfg.batch, key.fold("items")), Cursor(prompts, cfg.asked, key.fold("prompts"))

    def step(t: int) -> Metrics:
        answers = sample(speaker.policy, asked.at(t), cfg.sampling.n, key.fold("rollout", t))
        return learner.meta_update(pair_batch(scorer, labelled.at(t)), collate(scorer, answers), cfg.eta, keep=cfg.keep)

    return Recipe({"learner": learner}, step, steps, final=scorer.save)
