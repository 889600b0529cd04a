"""Questions in a second wording: asked for, read back, and kept beside the first.

from guerdon import Key, TextPolicy
from guerdon.data import load
from guerdon.data.paraphrase import paraphrased

writer = TextPolicy.load("Qwen/Qwen3-32B", temperature=0.7, top_p=0.8, max_new=1024)
prompts = paraphrased(load("questions.jsonl", "prompts").items, writer, Key(0))
guerdon.train("co_reward", model="my-model", data=prompts)
"""

from __future__ import annotations

from collections.abc import Sequence

from guerdon.core.rng import Key
from guerdon.data.chat import asked, is_chat
from guerdon.errors import UserError
from guerdon.types import Policy, Prompt

COLUMN = "paraphrase"
"""The column of a record that holds its question in other words."""

START, END, REWRITE = "[BEGIN]", "[END]", "REWRITE:"

REQUEST = f"""Put a problem into new words and into another everyday situation.
The mathematics must stay what it is: the same numbers, the same relations between them, the same answer.
Take over no phrase of the problem. What you write must read naturally and be solvable by itself, without the problem beside it.
Do not solve it. Write the problem as it is and then your version, in exactly this form:
{START}
ORIGINAL: the problem
{REWRITE} your version
{END}

The problem: {{question}}"""


def request(prompt: Prompt) -> Prompt:
    """The prompt that asks a strong language model for another wording of this one's question."""
    return Prompt(f"{prompt.id}/paraphrase", [{"role": "user", "content": REQUEST.replace("{question}", asked(prompt))}])


def parse(text: str) -> str | None:
    """The new wording in a response to `request`: after the first `REWRITE:` between the last start marker and the next end marker.

    None where a marker is missing, or nothing stands there.
    """
    _, started, rest = text.rpartition(START)
    block, ended, _ = rest.partition(END)
    _, split, found = block.partition(REWRITE)
    return (found.strip() or None) if started and ended and split else None


def paraphrased(prompts: Sequence[Prompt], writer: Policy, key: Key, *, column: str = COLUMN) -> list[Prompt]:
    """These prompts with their question in the words of `writer` in the column; those that it failed at are left out.

    A wording that is the question itself counts as a failure. Sampling is the writer's own; the paper's is temperature 0.7 and top_p 0.8.
    Raises UserError when nothing is left.
    """
    written = [parse(str(r.content)) for r in writer.sample([request(p) for p in prompts], 1, key.fold("paraphrase"))]
    pairs = zip(prompts, written, strict=True)
    kept = [Prompt(p.id, p.content, {**p.meta, column: text}) for p, text in pairs if text and text != asked(p).strip()]
    if not kept:
        raise UserError(
            f"none of {len(prompts)} questions came back in other words", hint="ask a stronger model, or give it more room with max_new"
        )
    return kept


def reworded(prompt: Prompt, column: str = COLUMN) -> Prompt:
    """The prompt that asks the same in the words of its column; of a conversation the last message is replaced.

    Raises UserError for a record without that column, or with nothing in it.
    """
    words = prompt.meta.get(column)
    if not isinstance(words, str) or not words.strip():
        columns = ", ".join(sorted(prompt.meta)) or "none"
        raise UserError(
            f"record {prompt.id!r} has no text in the column {column!r} (columns: {columns})",
            hint="guerdon.data.paraphrase.paraphrased has a model write it; --voter teacher needs none",
        )
    content = [*prompt.content[:-1], {**prompt.content[-1], "content": words}] if is_chat(prompt.content) else words
    return Prompt(f"{prompt.id}/reworded", content, prompt.meta)


# ---------------------------------------------------------------- a data set that has both


_PLAIN = ("What is {a} + {b}?", "Add {b} to {a}.", "How much is {a} plus {b}?")
_SETTINGS = (
    "A shelf holds {a} books, and {b} more are put on it. How many does it hold now?",
    "{a} people are on a train when {b} others get on. How many are there then?",
    "One basket has {a} eggs in it, another has {b}. How many eggs are that?",
    "Mia walks {a} steps, rests, and walks {b} more. How many steps has she walked?",
)
_FORM = " Give the number inside <answer></answer>."


def sums(n: int, key: Key) -> list[Prompt]:
    """n sums of two numbers up to 50, as a bare sum and (column `paraphrase`) as a little story; `answer` is the result, for people."""
    prompts = []
    for i in range(n):
        plain, told, a, b = (key.fold("sum", i, what).number for what in ("plain", "told", "a", "b"))
        a, b = 2 + a % 49, 2 + b % 49
        asked, story = (text.format(a=a, b=b) + _FORM for text in (_PLAIN[plain % len(_PLAIN)], _SETTINGS[told % len(_SETTINGS)]))
        prompts.append(Prompt(f"reworded-sums/{i}", asked, {COLUMN: story, "answer": str(a + b)}))
    return prompts
