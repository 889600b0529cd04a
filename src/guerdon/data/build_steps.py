"""Builders for step-by-step judgements: content is the joined text, `meta["step_texts"]` and `meta["step_labels"]` its parts.

Labels are 1 right, 0 wrong, or anything between (the share of roll-outs from there that came right); NaN: not judged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from guerdon.data.build_answers import asked
from guerdon.data.row import Content, Row
from guerdon.types import Rollout

MARK = "ки"  # the step mark of Math-Shepherd
NAN = float("nan")


def trajectory(row: Row, content: Content, texts: Sequence[str], labels: Sequence[float], joint: str, **more: Any) -> Rollout:
    """A rollout whose content is `joint.join(texts)`."""
    if not texts:
        raise row.fail("no steps", hint="drop the row, or pass bad='skip' to leave such rows out")
    for i, step in enumerate(texts):
        if not isinstance(step, str):
            raise row.fail(f"step {i + 1} is of type {type(step).__name__}, expected a string", hint="steps are texts, in order")
    prompt = row.prompt(content, step_texts=list(texts), step_labels=list(labels), step_joint=joint, **more)
    return row.rollout(prompt, row.completion(joint.join(texts), "completions"))


def stepwise(row: Row) -> list[Rollout]:
    """`prompt`, `completions[]`, `labels[]`: one label a step."""
    texts, labels = row.get("completions"), row.get("labels")
    if len(texts) != len(labels):
        raise row.fail(f"{len(texts)} steps, {len(labels)} labels", hint="give one label per step; null for a step that was not judged")
    values = [NAN if x is None else row.label(x, "labels") for x in labels]
    joint = row.get("step_joint")
    return [trajectory(row, asked(row), texts, values, joint if isinstance(joint, str) else "\n")]


def processbench(row: Row) -> list[Rollout]:
    """ProcessBench (Zheng et al. 2024, arXiv 2412.06559): `label` is the index of the first wrong step, -1 when all are right.

    Steps after the first wrong one were not judged: NaN. The index is kept as `meta["first_error"]`.
    """
    steps, first = row.get("steps"), row.get("label")
    if isinstance(first, bool) or not isinstance(first, int) or not -1 <= first < len(steps):
        raise row.fail(f"label {first!r} with {len(steps)} steps", hint="expected the first wrong step's index (from 0), or -1 for none")
    labels = [1.0 if first < 0 or i < first else 0.0 if i == first else NAN for i in range(len(steps))]
    return [trajectory(row, asked(row), steps, labels, "\n\n", first_error=first)]


def math_shepherd(row: Row) -> list[Rollout]:
    """Math-Shepherd (Wang et al. 2024, arXiv 2312.08935): a mark after each step of `input`; `label` is the same text with + or - there."""
    marked, judged = row.get("input"), row.get("label")
    parts = marked.split(MARK)
    labels, at = [], 0
    for part in parts[:-1]:
        at += len(part)
        if judged[at : at + 1] not in ("+", "-"):
            raise row.fail(
                f"the label has {judged[at : at + 1]!r} where step {len(labels) + 1} ends, expected + or -",
                hint=f"label must be the input with every {MARK!r} replaced by + or -",
            )
        labels.append(1.0 if judged[at] == "+" else 0.0)
        at += 1
    first = re.search(r"\bStep 1\s*:", parts[0])
    if not first:
        raise row.fail("no 'Step 1:' in the input, so question and solution cannot be told apart", hint="drop the row, or pass bad='skip'")
    question, parts[0] = parts[0][: first.start()].strip(), parts[0][first.start() :]
    return [trajectory(row, row.prompt_content(question, "input"), [p.strip() for p in parts[:-1]], labels, "\n")]


def prm800k(row: Row) -> list[Rollout]:
    """PRM800K (Lightman et al. 2023, arXiv 2305.20050), raw: several rated candidates a step, one of them gone on with.

    The path gone on with is one trajectory; every other rated candidate is one more: the path up to it, then itself. Only there is
    its label given (NaN before it), so that no judgement counts twice. Ratings: 1 and 0 (neutral) are right, -1 wrong, as the paper
    counts them; null is NaN.
    """
    question, steps = row.get("question"), row.get("label").get("steps") or ()
    content = row.prompt_content(question.get("problem"), "question")
    truth = question.get("ground_truth_answer")
    more = {} if truth is None else {"ground_truth": truth}
    path: list[Any] = []
    labels: list[float] = []
    branches: list[tuple[list[Any], list[float]]] = []
    for step in steps:
        options: list[Mapping[str, Any]] = list(step.get("completions") or ())
        written, choice = step.get("human_completion"), step.get("chosen_completion")
        taken: Mapping[str, Any] | None = written or (options[choice] if choice is not None and choice < len(options) else None)
        # The last step of a solution that went wrong has no choice: its first candidate ends the path.
        ends = taken is None
        if ends and options:
            taken = options[0]
        for option in options:
            if option is not taken and option.get("rating") is not None:
                branches.append(([*path, option.get("text")], [NAN] * len(path) + [_rated(row, option)]))
        if taken is not None:
            path.append(taken.get("text"))
            labels.append(_rated(row, taken))
        if ends:
            break
    main = trajectory(row, content, path, labels, "\n", **more)
    return [main, *(trajectory(row, content, t, v, "\n", **more) for t, v in branches)]


def _rated(row: Row, option: Mapping[str, Any]) -> float:
    rating = option.get("rating")
    rating = option.get("corrected_rating") if rating is None else rating
    if rating is None:
        return NAN
    if rating not in (-1, 0, 1):
        raise row.fail(f"rating {rating!r}, expected -1, 0 or 1", hint="null means not rated")
    return 0.0 if rating == -1 else 1.0
