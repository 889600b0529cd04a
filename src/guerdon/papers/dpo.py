"""Direct Preference Optimization: learn from pairs without a reward model or sampling.

Problem: RLHF fits a reward model, then runs RL against it: two models, two losses, much tuning.
Idea: the policy that is optimal for a reward under a KL leash has log-ratios to the reference that *are* that reward (up to a prompt
constant), so the Bradley-Terry loss can be put on the log-ratios directly: `-log sigmoid(beta * (logratio_chosen - logratio_rejected))`.
Left out: nothing of the method. The published learning rate (1e-6, batch 64) is for billions of parameters; the defaults here are for
the embedded model, `full_size` has the others. `votes` is an option of ours: the share of raters who agree becomes the label
probability (cDPO with a rate per pair).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from guerdon.config import Checked, LoraConfig, Monitor, Optim, knob, run_of
from guerdon.core import preference
from guerdon.core.reduce import mean
from guerdon.core.rng import Key
from guerdon.data.checks import check_pairs
from guerdon.learn.learner import learner_for
from guerdon.learn.offline import offline, steps_of
from guerdon.learn.verbs import chosen, pair_batch, rejected, row_sum
from guerdon.policies.refs import Frozen
from guerdon.types import Batch, Outputs, Paper, Policy, Preference, Recipe, Term, pairs

PAPER = Paper(
    title="Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
    arxiv="2305.18290",
    year=2023,
    family="preference",
    idea="A Bradley-Terry loss on the policy's own log-ratios to the starting policy",
    uses=("pairs", "core.preference.dpo"),
    claim="Trained on rated pairs, the policy orders held-out pairs better than its start does by likelihood",
    full_size="guerdon run dpo --model meta-llama/Llama-3.1-8B --data HuggingFaceH4/ultrafeedback_binarized --lr 5e-7 --batch 64",
)


@dataclass(frozen=True)
class Config(Checked):
    model: str = knob("tiny", "the policy to start from: tiny, a folder, or a hub name")
    data: str = knob("human-ratings:movie", "preference pairs: a file, a folder, a hub name, or a named source")
    beta: float = knob(0.1, "strength of the leash to the starting policy", above=0)
    label_smoothing: float = knob(0.0, "probability that a label is wrong (cDPO); 0: trust every label", at_least=0, at_most=0.5)
    votes: bool = knob(False, "use each pair's share of agreeing raters as its label probability")
    batch: int = knob(32, "pairs a step", unit="pairs", at_least=1)
    epochs: float = knob(1.0, "passes over the pairs", unit="passes", above=0)
    steps: int | None = knob(None, "updates to make; none: as many as `epochs` gives", unit="updates", at_least=1)
    optim: Optim = Optim(lr=1e-4, warmup=10, decay="linear")
    lora: LoraConfig = LoraConfig()
    monitor: Monitor = Monitor()


def logratio(outputs: Outputs, batch: Batch) -> torch.Tensor:
    """`(N,)`: log pi(y|x) - log ref(y|x)."""
    return row_sum(outputs.logp - batch.ref_logp, batch)


def term(beta: float, label_smoothing: float = 0.0, votes: bool = False) -> Term:
    """The DPO loss over pairs, with the rewards that users watch."""

    def loss(o: Outputs, b: Batch) -> torch.Tensor:
        ratio = logratio(o, b)
        label = chosen(b, b.label) if votes else torch.ones(len(b.pairs), dtype=ratio.dtype, device=ratio.device)
        label = label * (1 - label_smoothing) + (1 - label) * label_smoothing
        return preference.dpo(chosen(b, ratio), rejected(b, ratio), beta=beta, label=label)

    def watch(o: Outputs, b: Batch) -> dict[str, torch.Tensor]:
        reward, logp = beta * logratio(o, b), row_sum(o.logp, b)
        margin = chosen(b, reward) - rejected(b, reward)
        return {
            "rewards/chosen": chosen(b, reward),
            "rewards/rejected": rejected(b, reward),
            "rewards/margins": margin,
            "rewards/accuracies": (margin > 0).float() + 0.5 * (margin == 0).float(),
            "logps/chosen": chosen(b, logp),
            "logps/rejected": rejected(b, logp),
        }

    return Term("dpo", loss, over=pairs, reduce=mean, watch=watch)


def build(cfg: Config, policy: Policy, pairs: Sequence[Preference], key: Key) -> Recipe:
    check_pairs(pairs, "dpo", ties=cfg.votes)
    steps = cfg.steps or steps_of(len(pairs), cfg.batch, None, cfg.epochs)
    ref = Frozen(policy)
    learner = learner_for(policy, [term(cfg.beta, cfg.label_smoothing, cfg.votes)], cfg.optim, steps)
    return offline(
        learner=learner,
        items=pairs,
        collate=lambda items: pair_batch(policy, items),
        batch=cfg.batch,
        steps=steps,
        ref=ref,
        ref_cache=run_of(cfg).ref_cache,
        key=key,
    )
