"""Co-Reward: labels for self-training that the policy's own majority does not write.

Problem: without answers to learn from, a policy rewarded for saying what most of its answers say votes for itself: it grows sure of its
mistakes as fast as of what it knows.
Idea: let another view vote. I (`--voter paraphrase`): the majority of the answers to a question's paraphrase is the label of the answers to
the question, and the other way round; each wording is a GRPO group of its own. Where both are sure of different answers nothing is learnt.
II (`--voter teacher`): the majority of a slow moving average of the policy is the label; it is the reference of the KL too.
Left out: the run with DAPO's loss. Paraphrases come from outside, once (`data.paraphrase`).
Deliberate differences: one mean over both halves, where the paper adds two means (twice the rate); the KL follows the gradient of k2,
`--kl-grad k3` is the paper's; the teacher's weights keep `start` at the first step and `end` after the last, as the paper says, not as its
formula does (`core.votes.annealed`). The published rate is 3e-6 with a warm-up of a tenth, then a cosine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from guerdon.config import Checked, LoraConfig, Optim, Sampling, knob
from guerdon.core import credit, votes
from guerdon.core.reduce import seq_mean_token_mean
from guerdon.core.rng import Key
from guerdon.data.cursor import Cursor
from guerdon.data.paraphrase import COLUMN, reworded
from guerdon.errors import UserError
from guerdon.learn.learner import learner_for
from guerdon.learn.terms import clip_term, kl_term
from guerdon.learn.verbs import collate, pieces_of, rollout_metrics, sample, update_with_ref, values, with_adv
from guerdon.policies.refs import Ema, Frozen
from guerdon.rewards.cross_vote import by_label, labels
from guerdon.types import Metrics, Paper, Policy, Prompt, Recipe, Rollout

PAPER = Paper(
    title="Co-Reward: Self-supervised Reinforcement Learning for Large Language Model Reasoning via Contrastive Agreement",
    arxiv="2508.00410",
    year=2025,
    family="self-rewarding",
    idea="The majority of the answers to a paraphrase, or of a slow teacher's answers, is the label",
    uses=("prompts", "core.votes.majority", "rewards.cross_vote", "core.credit.grpo", "core.surrogate.ppo_clip", "core.kl.kl"),
    claim="Where each wording of a question has misconceptions of its own, held-out answers end right more often than by self-majority",
    full_size="guerdon run co_reward --model Qwen/Qwen3-8B-Base --data my-questions-and-paraphrases --batch 128 --n 8 --max-new 3072 "
    "--max-prompt 512 --where boxed --lr 3e-6 --optim.decay cosine --optim.warmup 6 --steps 58",
)


@dataclass(frozen=True)
class Config(Checked):
    model: str = knob("tiny", "the policy to start from: tiny, a folder, or a hub name")
    data: str = knob("reworded-sums", "prompts, each with a paraphrase in a column: a file, a folder, a hub name, or a named source")
    voter: Literal["paraphrase", "teacher"] = knob("paraphrase", "who gives the labels: answers to the other wording (I), a teacher (II)")
    column: str = knob(COLUMN, "column that holds the question in other words; a teacher needs none")
    where: Literal["answer", "boxed"] = knob("answer", "where the answer stands: in <answer></answer> (else all of it), or the last boxed")
    max_prompt: int | None = knob(None, "questions longer than this in either wording are left out; none: none", unit="tokens", at_least=1)
    start: float = knob(0.99, "weight that the teacher keeps of itself at the first step", at_least=0, at_most=1)
    end: float = knob(0.9999, "the same after the last step, along half a cosine", at_least=0, at_most=1)
    beta: float = knob(0.005, "weight of the KL, to the start (I) or the teacher (II); 0: none", at_least=0)
    kl_grad: Literal["k2", "k3"] = knob("k2", "gradient of the KL term: k2 unbiased, k3 the paper's")
    eps: float = knob(0.2, "clip range around 1", above=0, at_most=1)
    batch: int = knob(16, "questions a step, each wording answered `sampling.n` times", unit="questions", at_least=1)
    steps: int = knob(40, "steps of sampling and learning", unit="steps", at_least=1)
    sampling: Sampling = Sampling(n=8, max_new=28)
    optim: Optim = Optim(lr=2e-4)
    lora: LoraConfig = LoraConfig()

    def check(self, items: Sequence[Prompt]) -> None:
        """Refuse records without a paraphrase before a model is loaded."""
        self.views(items)

    def views(self, items: Sequence[Prompt]) -> list[tuple[Prompt, ...]]:
        """Each question in its wordings: two where they vote on each other, else one."""
        return [(p, reworded(p, self.column)) if self.voter == "paraphrase" else (p,) for p in items]


def short(views: list[tuple[Prompt, ...]], policy: Any, most: int | None) -> list[tuple[Prompt, ...]]:
    """The questions all of whose wordings have at most so many tokens: both stay, or neither."""
    kept = views if most is None else [v for v in views if max(len(policy.codec.prompt_ids(p)) for p in v) <= most]
    if not kept:
        raise UserError(f"all {len(views)} questions are longer than {most} tokens", hint="raise --max-prompt")
    return kept


def build(cfg: Config, policy: Policy, prompts: Sequence[Prompt], key: Key) -> Recipe:
    def share(update: int) -> float:
        return votes.annealed(update - 1, cfg.steps, start=cfg.start, end=cfg.end)

    teacher = Ema(policy, share) if cfg.voter == "teacher" else None
    ref = teacher or (Frozen(policy) if cfg.beta else None)
    leash = [kl_term(cfg.beta, cfg.kl_grad, seq_mean_token_mean)] if cfg.beta else []
    learner = learner_for(policy, [clip_term(cfg.eps, cfg.eps, seq_mean_token_mean), *leash], cfg.optim, cfg.steps)
    cursor = Cursor(short(cfg.views(prompts), policy, cfg.max_prompt), cfg.batch, key.fold("prompts"))

    def given(rollouts: list[Rollout], asked: list[Prompt], t: int) -> tuple[dict[int, str], dict[str, float]]:
        """The label of each group, and what the vote was like. The two wordings of a question are groups 2i and 2i + 1."""
        voters = sample(teacher.policy, asked, cfg.sampling.n, key.fold("vote", t)) if teacher else rollouts
        said = labels(voters, cfg.where)
        seen = {"labels/none": sum(not label for label in said.values()) / len(said)}
        if teacher:
            return said, seen
        agree = sum(bool(said[g]) and said[g] == said[g + 1] for g in range(0, len(said), 2))
        return {g: said[g ^ 1] for g in said}, seen | {"labels/agree": 2 * agree / len(said)}

    def step(t: int) -> Metrics:
        asked = [view for views in cursor.at(t) for view in views]
        rollouts = sample(policy, asked, cfg.sampling.n, key.fold("rollout", t))
        label, seen = given(rollouts, asked, t)
        scores = by_label(rollouts, label, cfg.where)
        batch = collate(policy, rollouts)
        adv = credit.grpo(values(scores).to(batch.mask.device), batch.group)
        metrics = rollout_metrics(rollouts, scores, batch, pieces_of(policy)) | seen
        return metrics | update_with_ref(learner, with_adv(batch, adv), ref)

    state = {"learner": learner, **({"teacher": teacher} if teacher else {})}
    return Recipe(state, step, cfg.steps, final=policy.save)
