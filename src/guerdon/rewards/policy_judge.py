"""A language model as a judge that writes a number, and the policy itself as that model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, final

import torch

from guerdon.core.judged import expected_score, graded
from guerdon.core.rng import Key
from guerdon.data.oracle import filled, plain
from guerdon.errors import UserError
from guerdon.rewards.likelihood import likelihood
from guerdon.rewards.read import text_of
from guerdon.types import Prompt, Rollout, Score

TRANSLATION = (
    "Below are a text in {source_lang} and a translation of it into {target_lang}. How good is the translation? Consider whether it says "
    "all that the text says and nothing else, is written in {target_lang}, and reads well. Give a score from 0 (useless) to 100 (perfect). "
    "Think about it first, and then write the score as a number inside <answer> and </answer>."
    "\n\nText:\n{source}\n\nTranslation:\n{answer}"
)
_NUMBER = re.compile(r"((?:(?<!\d)-)?\d+(?:\.\d+)?)(?:\s*(?:/|out of)\s*(\d+(?:\.\d+)?))?")


def read_score(text: str, *, tag: str = "answer", high: float = 100.0) -> float | None:
    """The last number inside the last `<tag>...</tag>`; None where there is no such block, or no number in it. No tag: of the whole text.

    Of `60/100` and `60 out of 100` the first number counts, as a share of the second: `8/10` is 80 of `high` 100. Not yet cut to the scale.
    """
    if tag:
        blocks = re.findall(rf"<{re.escape(tag)}>(.*?)</{re.escape(tag)}>", text, re.DOTALL)
        text = blocks[-1] if blocks else ""
    found = _NUMBER.findall(text)
    if not found:
        return None
    number, of = found[-1]
    return float(number) / float(of) * high if of and float(of) > 0 else float(number)


@final
@dataclass(frozen=True)
class PolicyJudge:
    """A model's own words on how good each response is, as a share of its scale: `r = clip(s, 0, high) / high`, in [0, 1].

    model: who judges: a policy, or a reference to one (`policies.refs.Live`: the policy as it is now, without a gradient). key: of what it
    draws. question: with places for columns of the prompt, {prompt} and {answer}; only the response is inserted. tag: where the score
    stands (`read_score`). samples: judgements of a response, averaged over those that can be read. retries: times to ask again where none
    can. levels: scores whose probability-weighted mean (`core.judged.expected_score`) takes the place of written judgements, none when
    empty; it tells responses apart that would be given the same number. unread: what an answer is worth of which no judgement can be read.
    sampling: keywords of the policy's `sample` for judging (temperature, max_new ...). batch_size: questions in a pass that reads levels.

    A blank response gives 0 unasked. A question is asked once for all responses that are the same; one that is too long for the judge is
    not asked, so nothing can be read; a prompt without a column that the question names abstains. Parts: `judged`, 1 where a judgement was
    read. Raises UserError for a question without {answer}, and for
    samples, retries or a scale out of range. Source: Yang et al. 2025 (SSR-Zero), arXiv 2505.16637; the wording is our own.
    """

    model: Any
    key: Key = Key(0)
    question: str = TRANSLATION
    tag: str = "answer"
    high: float = 100.0
    samples: int = 1
    retries: int = 2
    levels: tuple[float, ...] = ()
    unread: Literal["zero", "abstain"] = "zero"
    sampling: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 32
    name: str = "self"

    bounded = True  # it must not be cut in the middle

    def __post_init__(self) -> None:
        if "{answer}" not in self.question:
            raise UserError("a judge's question without {answer}", hint="write {answer} where the response should stand")
        if self.samples < 1 or self.retries < 0 or self.batch_size < 1 or not self.high > 0:
            what = f"samples {self.samples}, retries {self.retries}, batch_size {self.batch_size}, high {self.high}"
            raise UserError(f"{what} of a judge", hint="at least 1, at least 0, at least 1, above 0")
        if self.unread not in ("zero", "abstain"):
            raise UserError(f"unread {self.unread!r} of a judge", hint="zero or abstain")

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        asked = [self.ask(r) for r in rollouts]
        judge = getattr(self.model, "policy", self.model)
        # In an order of their own, so that the same responses are judged alike in whatever order they come.
        questions = sorted({q for q in asked if q and self._fits(judge, q)})
        grades = self._expected(judge, questions) if self.levels else self._written(judge, questions)
        known = dict(zip(questions, grades, strict=True))
        return [self._score(r, q, known) for r, q in zip(rollouts, asked, strict=True)]

    def ask(self, rollout: Rollout) -> str | None:
        """The question about a response; empty for a blank one, None where the prompt lacks a column."""
        if not text_of(rollout).strip():
            return ""
        columns = {name: str(value) for name, value in rollout.prompt.meta.items()}
        columns |= {"prompt": plain(rollout.prompt.content), "answer": text_of(rollout).strip()}
        return filled(self.question, **columns) if set(re.findall(r"\{(\w+)\}", self.question)) <= set(columns) else None

    def _score(self, rollout: Rollout, question: str | None, known: Mapping[str, float | None]) -> Score:
        if question is None:
            return Score.abstain(f"the judge asks for columns that prompt {rollout.prompt.id!r} does not have")
        grade = known.get(question) if question else 0.0
        if grade is not None:
            return Score.whole(rollout, grade, {"judged": 1.0})
        note = "no judgement could be read"
        return Score((), {"judged": 0.0}, note) if self.unread == "abstain" else Score.whole(rollout, 0.0, {"judged": 0.0}, note)

    def _grade(self, scores: torch.Tensor) -> torch.Tensor:
        return graded(scores.double(), high=self.high)

    def _levels(self) -> list[str]:
        """What the judge would write for each level."""
        return [f"<{self.tag}>{level:g}</{self.tag}>" if self.tag else f"{level:g}" for level in self.levels]

    def _fits(self, judge: Any, question: str) -> bool:
        """Whether the judge has room for the question and the least it could answer."""
        fits = getattr(judge, "fits", None)
        return fits is None or all(fits(Rollout(Prompt("judge", question), text)) for text in self._levels() or [""])

    def _written(self, judge: Any, questions: Sequence[str]) -> list[float | None]:
        """The mean grade of each question's judgements that can be read, after as many attempts as it takes."""
        found: dict[str, float] = {}
        for attempt in range(self.retries + 1):
            left = [q for q in questions if q not in found]
            if not left:
                break
            key = self.key.fold("judge", judge.version, attempt)
            said = judge.sample([Prompt(f"judge/{i}", q) for i, q in enumerate(left)], self.samples, key, **self.sampling)
            for i, q in enumerate(left):
                replies = [text_of(r) for r in said[i * self.samples : (i + 1) * self.samples]]
                read = [s for s in (read_score(x, tag=self.tag, high=self.high) for x in replies) if s is not None]
                if read:
                    found[q] = float(self._grade(torch.tensor(read, dtype=torch.float64)).mean())
        return [found.get(q) for q in questions]

    def _expected(self, judge: Any, questions: Sequence[str]) -> list[float | None]:
        """The grade of each question's mean score."""
        if not questions:
            return []
        texts = self._levels()
        rows = [Rollout(Prompt(f"judge/{i}", q), t, group=i, end="length") for i, q in enumerate(questions) for t in texts]
        found = likelihood(judge, rows, batch_size=self.batch_size * len(texts))
        logp = torch.stack([x.double().sum() for x in found]).cpu().view(len(questions), len(texts))
        grades = self._grade(expected_score(logp, torch.tensor(self.levels, dtype=torch.float64)))
        return [None if g != g else g for g in grades.tolist()]
