"""The verifiers of the reasoning-gym tasks as a reward."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

from guerdon._need import need
from guerdon.data.chat import asked
from guerdon.errors import UserError
from guerdon.rewards.read import text_of
from guerdon.types import Rollout, Score


def reasoning_gym(rollouts: Sequence[Rollout], /) -> list[Score]:
    """The task's own `score_answer` of each response: 1 for a right answer, less for a wrong one (0, or the task's partial credit).

    The prompts come from the data source `reasoning-gym:TASK`: `prompt.meta` holds task, answer, metadata and options. The answer is the
    text between `<answer>` and `</answer>` where these tags occur (the last ones), else the whole response, trimmed; of several turns the
    last one counts.
    Abstains where the prompt is not one of these, and where the verifier raises.
    Source: Stojanovski et al. 2025, "Reasoning Gym", arXiv:2505.24760.
    """
    extract = need("reasoning_gym.utils", extra="tasks").extract_answer
    return [_score(r, extract) for r in rollouts]


def _score(rollout: Rollout, extract: Any) -> Score:
    meta = rollout.prompt.meta
    if missing := [k for k in ("task", "answer", "metadata") if k not in meta]:
        return Score.abstain(f"no reasoning-gym prompt: meta lacks {', '.join(missing)}")
    try:
        said = text_of(rollout)
    except UserError as error:
        return Score.abstain(str(error).partition("\n")[0])
    answer = extract(said)
    if answer is None:
        answer = said.strip()
    entry = {"question": asked(rollout.prompt), "answer": meta["answer"], "metadata": meta["metadata"]}
    try:
        verifier = _verifier(meta["task"], json.dumps(dict(meta.get("options", {})), sort_keys=True))
        return Score.whole(rollout, float(verifier.score_answer(answer, entry)))
    except Exception as error:  # a verifier is foreign code, and a judgement it cannot make is a missing one
        return Score.abstain(f"the verifier of {meta['task']!r} raised {type(error).__name__}: {error}")


@functools.lru_cache(maxsize=256)
def _verifier(task: str, options: str) -> Any:
    """The task with its options, of size 1: only its `score_answer` is used."""
    return need("reasoning_gym", extra="tasks").create_dataset(task, size=1, seed=0, **json.loads(options))
