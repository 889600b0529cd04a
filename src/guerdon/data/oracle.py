"""A language model that rewrites answers in one quality alone: asked which qualities decide, to rewrite, and which is better."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

from guerdon.core.rng import Key
from guerdon.data.augment import Rewritten
from guerdon.types import Prompt, Rollout

Ask = Callable[[Sequence[Prompt], Key], Sequence[str]]
"""Prompts to one reply each: `asking(policy)`, or any function of this shape (a server's client, a batch of recorded replies)."""

QUALITIES = (
    "Name the {count} qualities that decide how good an answer to the request below is, such as being correct, clear or complete. "
    "Write each on a line of its own, in one to three words, and nothing else.\n\nRequest:\n{prompt}"
)
REWRITE = (
    "Below are a request and an answer to it. Decide whether the answer is weak or strong in this quality: {quality}. Write WEAK or STRONG "
    "on the first line. From the second line on, write the answer again: if it is weak, better in that quality; if it is strong, worse in "
    "it; and in everything else, length and form too, as it is.\n\nRequest:\n{prompt}\n\nAnswer:\n{answer}"
)
VERIFY = (
    "Below are a request and two answers to it, A and B. Which is better in this quality: {quality}? Write A or B and nothing else."
    "\n\nRequest:\n{prompt}\n\nA:\n{first}\n\nB:\n{second}"
)


def asking(policy: Any) -> Ask:
    """Asks a policy, with whatever engine draws its samples."""
    return lambda prompts, key: [str(r.content) for r in policy.sample(prompts, 1, key)]


def filled(template: str, **parts: str) -> str:
    """The template with its places filled; texts may hold braces."""
    return re.sub(r"\{(\w+)\}", lambda m: parts.get(m[1], m[0]), template)


def plain(content: Any) -> str:
    """A prompt as text; of a conversation, every turn with its role."""
    return content if isinstance(content, str) else "\n".join(f"{m.get('role', '')}: {m.get('content', '')}" for m in content)


def qualities(reply: str) -> list[str]:
    """The lines of a reply that name a quality, without bullets and numbers; none longer than six words."""
    lines = [re.sub(r"^[\s\-*\d.)]+", "", line).strip(" .:*") for line in reply.splitlines()]
    return [line for line in dict.fromkeys(lines) if line and len(line.split()) <= 6]


def rewriting(reply: str, quality: str) -> Rewritten | None:
    """What a reply to REWRITE says: WEAK or STRONG, then the text; None where it says neither or nothing else."""
    first, _, text = reply.strip().partition("\n")
    verdict = re.fullmatch(r"\W*(weak|strong)\W*", first.strip(), re.IGNORECASE)
    return Rewritten(text.strip(), verdict[1].lower() == "weak", quality) if verdict and text.strip() else None


def winner(reply: str) -> str | None:
    """`A` or `B`, where a reply is one of them."""
    found = re.fullmatch(r"\W*([AB])\W*", reply.strip())
    return found[1] if found else None


@final
@dataclass(frozen=True)
class Oracle:
    """Rewrites each answer in one quality of its request, and keeps what the oracle itself, asked again, finds better or worse as meant.

    ask: who is asked. count: qualities of a request; each answer gets one of them, drawn with the key. The order of the two answers in the
    last question is drawn too, so that a liking of a place does not decide. A reply that cannot be read gives no rewriting.
    Source: Srivastava et al. 2025 (Crome), arXiv 2506.16507, section 4; the wording of the questions is our own.
    """

    ask: Ask
    count: int = 5

    def __call__(self, answers: Sequence[Rollout], key: Key) -> list[Rewritten | None]:
        """One rewriting an answer, or None."""
        asked = {plain(r.prompt.content): r.prompt for r in answers}
        made = self._ask([filled(QUALITIES, count=str(self.count), prompt=text) for text in asked], key.fold("qualities"))
        known = {text: qualities(reply) for text, reply in zip(asked, made, strict=True)}
        chosen: list[str | None] = []
        for i, r in enumerate(answers):
            some = known[plain(r.prompt.content)]
            chosen.append(some[key.fold("quality", i).number % len(some)] if some else None)
        rows = [(i, r, q) for i, (r, q) in enumerate(zip(answers, chosen, strict=True)) if q is not None]
        texts = [filled(REWRITE, quality=q, prompt=plain(r.prompt.content), answer=str(r.content)) for _, r, q in rows]
        replies = self._ask(texts, key.fold("rewrite"))
        found = {i: new for (i, _, q), reply in zip(rows, replies, strict=True) if (new := rewriting(reply, q)) is not None}
        kept = self._verified(answers, found, key.fold("verify"))
        return [kept.get(i) for i in range(len(answers))]

    def _verified(self, answers: Sequence[Rollout], found: dict[int, Rewritten], key: Key) -> dict[int, Rewritten]:
        turned = {i: key.fold(i).number % 2 == 1 for i in found}  # whether the rewriting is shown first
        texts = []
        for i, new in found.items():
            sides = [str(answers[i].content), new.text]
            first, second = reversed(sides) if turned[i] else sides
            texts.append(filled(VERIFY, quality=new.attribute, prompt=plain(answers[i].prompt.content), first=first, second=second))
        want = {i: "A" if new.better == turned[i] else "B" for i, new in found.items()}
        replies = self._ask(texts, key.fold("ask"))
        return {i: found[i] for i, reply in zip(found, replies, strict=True) if winner(reply) == want[i]}

    def _ask(self, texts: Sequence[str], key: Key) -> Sequence[str]:
        asked = [Prompt(f"oracle/{i}", [{"role": "user", "content": text}]) for i, text in enumerate(texts)]
        return self.ask(asked, key) if asked else []
