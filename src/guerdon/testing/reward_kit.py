"""What every reward promises, as a check that anyone can run on theirs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from guerdon.core.rng import Key
from guerdon.testing.say import fail, name_of, require
from guerdon.types import Prompt, Reward, Rollout, Score, Span

ODD_TEXTS = ("", " ", "\n\n", "word " * 3000, "ünïcödé 漢字 العربية 🙂\u200d\u2028 end", "<tag>\\frac{1}{0} $$ ``` {", "\x00\ufffd")


def sample_rollouts(groups: int = 3, n: int = 4) -> list[Rollout]:
    """Text rollouts as an online step makes them: groups of n, with decisions, log-probabilities, steps and the usual columns
    (`answer`, `ground_truth`, `solution`, `reference`)."""
    texts = ("The answer is 4.", "I think it is \\boxed{4}", "<think>2 + 2</think><answer>4</answer>", "Five, surely. Or 5?")
    meta = {"answer": "4", "ground_truth": "4", "solution": "4", "reference": "The answer is 4."}
    rollouts = []
    for g in range(groups):
        prompt = Prompt(f"sample-{g}", f"What is {g} + {4 - g}?", meta)
        rollouts += [_encoded(Rollout(prompt, texts[(g + i) % len(texts)], group=g)) for i in range(n)]
    return rollouts


def check_reward(reward: Reward, rollouts: Sequence[Rollout] | None = None) -> None:
    """Raise AssertionError unless `reward` keeps the contract of `types.Reward`.

    One score for each rollout, in its order, whatever that order is; the same scores when asked again; spans inside `[0, T)`; finite values
    or an abstention; nothing of the input changed; no rollouts, no scores; and for odd rollouts (empty, long, unicode, without columns) a
    score or an abstention, never an exception.
    rollouts: what to ask it about; default `sample_rollouts()`. Give your own when the reward does not read text.
    """
    given = list(rollouts) if rollouts is not None else sample_rollouts()
    require(given, "no rollouts", "at least one", "leave `rollouts` out to use the sample ones")
    name = name_of(reward)
    before = _snapshot(given)
    scores = _scores(reward, given, name)
    if _snapshot(given) != before:
        fail(f"{name} changed its input", "rollouts as they were", "copy `meta` and tensors before changing them")
    require(_scores(reward, [], name) == [], f"{name}([])", "an empty list", "return one score per rollout, so none for none")
    _check_repeats(reward, given, scores, name)
    _check_order(reward, given, scores, name)
    if all(isinstance(r.content, str) for r in given):
        _check_odd(reward, given, name)


def _scores(reward: Reward, rollouts: Sequence[Rollout], name: str, what: str = "rollouts") -> list[Score]:
    try:
        scores = reward(list(rollouts))
    except Exception as error:
        fail(
            f"{name} raised {type(error).__name__}: {error} for {len(rollouts)} {what}",
            "scores, or Score.abstain(why) where it cannot judge",
            "return Score.abstain(...) for what is missing or can't be parsed, or lift a plain function with `pointwise`",
        )
        raise
    require(isinstance(scores, list), f"{name} returned a {type(scores).__name__}", "a list of Score", "return [Score...]")
    require(
        len(scores) == len(rollouts),
        f"{name} returned {len(scores)} scores for {len(rollouts)} {what}",
        "one score per rollout, in order",
        "score rollouts that cannot be judged with Score.abstain(why) instead of leaving them out",
    )
    for rollout, score in zip(rollouts, scores, strict=True):
        _check_score(score, rollout, name)
    return scores


def _check_score(score: Any, rollout: Rollout, name: str) -> None:
    require(
        isinstance(score, Score),
        f"{name} returned a {type(score).__name__}",
        "a Score",
        "Score.whole(rollout, value), or lift your function with `pointwise`",
    )
    length = max(len(rollout), 1)
    for span in score.spans:
        require(
            isinstance(span, Span) and 0 <= span.start < span.stop <= length,
            f"{name} gave the span {span} for {length} decisions",
            f"0 <= start < stop <= {length}",
            "spans are half-open and count decisions of the response, not of the prompt; Score.whole covers all of it",
        )
        require(
            isinstance(span.value, (int, float)) and math.isfinite(span.value),
            f"{name} gave the value {span.value!r} for {_short(rollout)}",
            "a finite number",
            "where there is no judgement return Score.abstain(why); NaN and infinities are no scores",
        )
    for part, value in score.parts.items():
        require(
            isinstance(part, str) and isinstance(value, (int, float)) and math.isfinite(value),
            f"{name} gave the part {part!r} = {value!r}",
            "names and finite numbers",
            "leave out parts that have no value",
        )


def _check_repeats(reward: Reward, rollouts: list[Rollout], scores: list[Score], name: str) -> None:
    for a, b, rollout in zip(scores, _scores(reward, rollouts, name), rollouts, strict=True):
        require(
            _equal(a, b, 0.0),
            f"{name} gave {_told(a)} and then {_told(b)} for {_short(rollout)}",
            "the same score for the same rollouts",
            "draw what is random from a Key made of the rollout, and keep no state between calls",
        )


def _check_order(reward: Reward, rollouts: list[Rollout], scores: list[Score], name: str) -> None:
    for order in (list(range(len(rollouts)))[::-1], Key(0).fold("check_reward").permutation(len(rollouts))):
        moved = _scores(reward, [rollouts[i] for i in order], name)
        for i, score in zip(order, moved, strict=True):
            require(
                _equal(scores[i], score, 1e-6),
                f"{name} gave {_told(scores[i])} for {_short(rollouts[i])}, and {_told(score)} after the rollouts were reordered",
                "a score that goes with its rollout, not with its place",
                "read `rollout.group` to find siblings; never rely on the order of the list",
            )


def _check_odd(reward: Reward, rollouts: list[Rollout], name: str) -> None:
    base = rollouts[0]
    odd = [_encoded(base.with_(content=text, group=i)) for i, text in enumerate(ODD_TEXTS)]
    _scores(reward, odd, name, "odd texts (empty, long, unicode)")
    bare = [r.with_(prompt=Prompt(r.prompt.id, r.prompt.content), segments={}) for r in rollouts]
    _scores(reward, bare, name, "rollouts without columns (empty `prompt.meta`)")
    offline = [r.with_(actions=None, logp=None, mask=None, segments={}) for r in rollouts]
    _scores(reward, offline, name, "rollouts that are not encoded yet (no `actions`)")


def _encoded(rollout: Rollout) -> Rollout:
    """With one decision per four characters and a stop, so that T is neither 0 nor the text's length."""
    length = len(rollout.content) // 4 + 1
    steps = ((0, length // 2), (length // 2, length)) if length > 1 else ((0, length),)
    ids = torch.arange(length) % 97
    return rollout.with_(actions=ids, logp=torch.full((length,), -1.0), mask=torch.ones(length, dtype=torch.bool), segments={"step": steps})


def _equal(a: Score, b: Score, tolerance: float) -> bool:
    if len(a.spans) != len(b.spans) or a.parts.keys() != b.parts.keys():
        return False
    places = all((s.start, s.stop) == (t.start, t.stop) for s, t in zip(a.spans, b.spans, strict=True))
    numbers = [(s.value, t.value) for s, t in zip(a.spans, b.spans, strict=True)] + [(a.parts[k], b.parts[k]) for k in a.parts]
    return places and all(math.isclose(x, y, rel_tol=tolerance, abs_tol=tolerance) for x, y in numbers)


def _snapshot(rollouts: Sequence[Rollout]) -> list[Any]:
    def plain(x: Any) -> Any:
        return x.tolist() if isinstance(x, Tensor) else repr(x)

    return [
        [r.group, r.end, r.prompt.id]
        + [plain(x) for x in (r.prompt.content, dict(r.prompt.meta), r.content, r.actions, r.logp, r.mask, dict(r.segments))]
        for r in rollouts
    ]


def _told(score: Score) -> str:
    return f"an abstention ({score.note})" if score.abstained else f"{score.value:.6g} in {len(score.spans)} spans"


def _short(rollout: Rollout) -> str:
    text = repr(rollout.content)
    return text if len(text) <= 60 else text[:57] + "..."
