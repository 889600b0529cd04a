"""SSR-Zero: the policy translates, judges its own translations, and learns from what it says of them.

Problem: translating by reinforcement learning asks for references or for a trained judge, and most languages and domains have neither.
Idea: sample translations of texts that nobody translated. The policy as it is now reads each of them beside its text and writes a score
from 0 to 100; the score, as a share, is GRPO's reward. Judgements are drawn without a gradient, and only the translation is shown to the
judge, not the thoughts before it. What is not in the form that was asked for gets 0 unjudged. Of one model's answers to its own questions
nothing is trusted but their order within a group.
Left out: nothing of the loop. Prompts, parsing and the number of attempts are not published: they are house choices with a name each.
Options: `judging.levels` takes the mean score over what the judge could write (a judge that says 90 to everything teaches nothing: equal
rewards have no gradient); `judging.samples` averages several judgements; `judging.by frozen` asks the policy's start instead;
`judging.unread abstain` leaves out what could not be judged, in place of a 0; without `tags` an answer is all translation (a model that
keeps to no form earns nothing and learns nothing). The judge is told both languages: else a copy of the text looks faithful.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from guerdon.config import Checked, LoraConfig, Optim, Sampling, knob
from guerdon.core.rng import Key
from guerdon.data.chat import flat
from guerdon.data.oracle import filled
from guerdon.papers import grpo
from guerdon.policies.refs import Frozen, Live
from guerdon.rewards.combine import Part, Weighted
from guerdon.rewards.extracted import Extracted, tagged
from guerdon.rewards.policy_judge import TRANSLATION, PolicyJudge
from guerdon.types import Paper, Policy, Prompt, Recipe

PAPER = Paper(
    title="SSR-Zero: Simple Self-Rewarding Reinforcement Learning for Machine Translation",
    arxiv="2505.16637",
    year=2025,
    family="self-rewarding",
    idea="The policy as it is now scores its own translations from 0 to 100, and GRPO learns from the scores",
    uses=("prompts", "rewards.policy_judge.PolicyJudge", "rewards.extracted.Extracted", "core.judged.graded", "core.credit.grpo"),
    claim="Without a reference, translations of held-out texts come nearer to the references than those of the policy before",
    full_size="guerdon run ssr_zero --model Qwen/Qwen2.5-7B-Instruct --data my-texts.jsonl --source-lang English --target-lang Chinese "
    "--lr 1e-6 --n 8 --batch 128 --max-new 1024",
)
TRANSLATE = (
    "Translate the text below from {source_lang} into {target_lang}. Think about it first, inside <think> and </think>; then write the "
    "translation alone inside <answer> and </answer>.\n\n{source}"
)


@dataclass(frozen=True)
class Judging(Checked):
    """How the policy judges."""

    by: Literal["live", "frozen"] = knob("live", "who judges: the policy as it is now, or as it was at the start")
    question: str = knob(TRANSLATION, "places: {answer}, {source}, {source_lang}, {target_lang}, and other columns of the data")
    tag: str = knob("answer", "the score stands inside <tag> and </tag>; empty: anywhere, the last number counts")
    high: float = knob(100.0, "best score; the worst is 0", above=0)
    samples: int = knob(1, "judgements of a translation, averaged", unit="judgements", at_least=1)
    retries: int = knob(2, "times to ask again where no judgement can be read", at_least=0)
    levels: tuple[float, ...] = knob((), "scores whose mean by probability is the reward, in place of written judgements; none: written")
    unread: Literal["zero", "abstain"] = knob("zero", "a translation without a readable judgement: reward 0, or left out")
    weight: float = knob(1.0, "weight of the share; of consequence beside other rewards alone", above=0)
    temperature: float | None = knob(None, "of judgements; none: that of translations", at_least=0)
    max_new: int | None = knob(None, "longest judgement; none: as long as translations", unit="tokens", at_least=1)


@dataclass(frozen=True)
class Config(Checked):
    model: str = knob("tiny", "the policy to start from, which judges too: tiny, a folder, or a hub name")
    data: str = knob("gettext:django:en-fr", "texts (column `source`, else the prompt): a file, a folder, a hub name, or a named source")
    source_lang: str = knob("English", "language of the texts, for data without a column `source_lang`")
    target_lang: str = knob("French", "language to translate into, for data without a column `target_lang`")
    translate: str = knob(TRANSLATE, "what the policy is asked", check=lambda text: "{source}" in text, expected="a text with {source}")
    tags: tuple[str, ...] = knob(("think", "answer"), "blocks that an answer is made of, the translation in the last; none: all of it is")
    judging: Judging = Judging()
    beta: float = knob(0.01, "weight of the KL to the starting policy; 0: no leash and no reference", at_least=0)
    eps_low: float = knob(0.2, "clip range below 1", above=0, at_most=1)
    eps_high: float = knob(0.2, "clip range above 1", above=0)
    batch: int = knob(16, "texts a step, each translated `sampling.n` times", unit="prompts", at_least=1)
    steps: int = knob(40, "steps of sampling and learning", unit="steps", at_least=1)
    sampling: Sampling = Sampling(n=8, max_new=64)
    optim: Optim = Optim(lr=1e-4)
    lora: LoraConfig = LoraConfig()

    def asked(self, prompt: Prompt) -> Prompt:
        """Asks for the translation of a prompt's text; the columns that the judge reads are there."""
        known = {"source": flat(prompt.content), "source_lang": self.source_lang, "target_lang": self.target_lang, **prompt.meta}
        content = filled(self.translate, **{name: str(value) for name, value in known.items()})
        return dataclasses.replace(prompt, content=content, meta=known)

    def judge(self, policy: Policy, key: Key) -> PolicyJudge:
        how: dict[str, Any] = {name: getattr(self.judging, name) for name in ("question", "tag", "high", "samples", "retries", "levels")}
        drawn = {name: x for name in ("temperature", "max_new") if (x := getattr(self.judging, name)) is not None}
        who = Live(policy) if self.judging.by == "live" else Frozen(policy)
        return PolicyJudge(who, key.fold("judging"), **how, unread=self.judging.unread, sampling=drawn)

    def recipe(self, policy: Policy, prompts: Sequence[Prompt], key: Key, more: Sequence[Part] = ()) -> Recipe:
        """GRPO on the share that the policy gives itself, and on `more`."""
        reward = Weighted((Part("self", self.judge(policy, key), self.judging.weight), *more))
        same = {f.name: getattr(self, f.name) for f in dataclasses.fields(grpo.Config) if f.name != "reward" and hasattr(self, f.name)}
        read = partial(tagged, tags=self.tags)
        return grpo.Config(**same).build(policy, [self.asked(p) for p in prompts], Extracted(reward, read), key)


def build(cfg: Config, policy: Policy, prompts: Sequence[Prompt], key: Key) -> Recipe:
    return cfg.recipe(policy, prompts, key)
