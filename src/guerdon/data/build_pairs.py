"""Builders for preferences: pairs, and pools of scored responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from guerdon.data import chat
from guerdon.data.build_answers import asked
from guerdon.data.row import Content, Row, number
from guerdon.types import Preference

NO_PREFIX = "chosen and rejected share no common beginning, so there is no prompt"


def explicit(row: Row) -> list[Preference]:
    """`prompt`, `chosen`, `rejected`. When both answers are whole conversations the prompt is what they share, which says more than
    the prompt column (it has the system message and the earlier turns)."""
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if _whole(chosen) and _whole(rejected):
        return implicit(row)
    if isinstance(chosen, str) != isinstance(rejected, str) or _whole(chosen) != _whole(rejected):
        raise row.fail(
            f"chosen is {_form(chosen)} and rejected {_form(rejected)}",
            hint="give both as strings, both as whole conversations, or both as assistant messages",
        )
    content = asked(row)
    if isinstance(content, str) and not isinstance(chosen, str):
        content = [{"role": "user", "content": content}]
    return [row.preference(row.prompt(content), row.completion(chosen, "chosen"), row.completion(rejected, "rejected"))]


def _whole(value: Any) -> bool:
    """A conversation that begins with what was asked, not with the answer."""
    return chat.is_chat(value) and chat.ROLES.get(str(value[0].get("role", value[0].get("from"))).lower()) != "assistant"


def _form(value: Any) -> str:
    if chat.is_message(value) or chat.is_chat(value):
        return "a whole conversation" if _whole(value) else "an assistant's message"
    return chat.kind(value)


def implicit(row: Row) -> list[Preference]:
    """`chosen` and `rejected` each hold prompt and answer; the prompt is their common beginning."""
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if isinstance(chosen, str) and isinstance(rejected, str):
        if chosen == rejected:
            return [row.preference(row.prompt(""), chosen, rejected)]  # raises: they are equal
        cut = chat.common_text(chosen, rejected)
        if not cut:
            raise row.fail(NO_PREFIX, hint="give the prompt in a column of its own")
        return [_cut(row, row.prompt_content(chosen[:cut]), chosen[cut:], rejected[cut:])]
    if not (chat.is_chat(chosen) and chat.is_chat(rejected)):
        raise row.fail(
            f"chosen is {chat.kind(chosen)} and rejected {chat.kind(rejected)}, expected two strings or two conversations",
            hint="a conversation is a list of messages with role and content",
        )
    return _conversations(row, chat.messages(chosen, row.fail), chat.messages(rejected, row.fail))


def _conversations(row: Row, chosen: list[chat.Message], rejected: list[chat.Message]) -> list[Preference]:
    if chosen == rejected:
        raise row.fail("chosen == rejected: the pair says nothing", hint="drop the row, or pass bad='skip' to leave such rows out")
    cut = chat.common_prompt(chosen, rejected)
    if not cut:
        raise row.fail(NO_PREFIX, hint="both conversations must begin with the same messages, and go on with an assistant message")
    return [_cut(row, row.prompt_content(chosen[:cut]), chosen[cut:], rejected[cut:])]


def _cut(row: Row, content: Content, chosen: Any, rejected: Any) -> Preference:
    return row.preference(row.prompt(content), row.completion(chosen, "chosen"), row.completion(rejected, "rejected"))


def transcripts(row: Row) -> list[Preference]:
    """HH-RLHF: two `Human: ... Assistant: ...` transcripts that part at some answer."""
    both = [row.get("chosen"), row.get("rejected")]
    for value in both:
        if not chat.is_transcript(value):
            raise row.fail("not a transcript", hint="each must begin with 'Human:' and hold '\\n\\nAssistant:'")
    return _conversations(row, chat.transcript(both[0]), chat.transcript(both[1]))


def with_messages(row: Row) -> list[Preference]:
    """LLaMA-Factory and axolotl: the conversation so far, and two single messages."""
    content = row.prompt_content(row.get("messages"), "messages")
    return [_cut(row, content, row.get("chosen"), row.get("rejected"))]


def messages_and_rejected(row: Row) -> list[Preference]:
    """swift: the conversation ends with the chosen answer, the rejected one is a text."""
    content = row.prompt_content(row.get("messages"), "messages")
    before, after = chat.split(content) if isinstance(content, list) else ([], [])
    if not before or not after:
        raise row.fail(f"column {row.name('messages')} holds no question with an answer", hint="end it with the chosen assistant message")
    return [_cut(row, before, after, row.get("rejected"))]


# ---------------------------------------------------------------- pools


def pool(row: Row, content: Content, scored: Sequence[tuple[Content, float]]) -> list[Preference]:
    """One preference over K responses, best first (ties keep their order); `meta["scores"]` stands beside `ranked`."""
    if len(scored) < 2:
        raise row.fail(f"{len(scored)} scored responses, expected at least 2", hint="drop the row, or pass bad='skip'")
    best_first = sorted(scored, key=lambda pair: -pair[1])
    prompt = row.prompt(content, scores=[score for _, score in best_first])
    source = row.get("source")
    ranked = tuple(row.rollout(prompt, said) for said, _ in best_first)
    return [Preference(prompt, ranked, source=source if isinstance(source, str) else "")]


def responses(row: Row) -> list[Preference]:
    """`prompt`, `responses[]`, `scores[]`."""
    said, scores = row.get("responses"), row.get("scores")
    if len(said) != len(scores):
        raise row.fail(f"{len(said)} responses, {len(scores)} scores", hint="give one score per response; null for one without judgement")
    scored = []
    for text, score in zip(said, scores, strict=True):
        if score is None:
            continue
        if (value := number(score)) is None:
            raise row.fail(f"score {score!r} in column {row.name('scores')}, expected a number", hint="null means not judged")
        scored.append((row.completion(text, "responses"), value))
    return pool(row, asked(row), scored)


def ultrafeedback(row: Row) -> list[Preference]:
    """UltraFeedback (Cui et al. 2023, arXiv 2310.01377): `completions[]`, each with a `response` and ratings."""
    scored = []
    for entry in row.get("completions"):
        score = _rating(entry)
        if score is not None:  # an answer nobody could rate is left out, not given 0
            scored.append((row.completion(entry.get("response"), "completions"), score))
    return pool(row, asked(row), scored)


def _rating(entry: Mapping[str, Any]) -> float | None:
    # The aspects' mean comes first: some published overall scores are wrong (10 where the critique means 1).
    aspects = (entry.get("annotations") or {}).values()
    ratings = [number(a.get("Rating", a.get("rating"))) for a in aspects if isinstance(a, Mapping)]
    known = [r for r in ratings if r is not None]
    if known:
        return sum(known) / len(known)
    scores = (number(entry.get(k)) for k in ("fine-grained_score", "overall_score", "rating", "score"))
    return next((s for s in scores if s is not None), None)


def nectar(row: Row) -> list[Preference]:
    """Nectar: `answers[]` with ranks, 1 the best; scores are minus the ranks."""
    scored = []
    for entry in row.get("answers"):
        rank = number(entry.get("rank"))
        if rank is None:
            raise row.fail(f"rank {entry.get('rank')!r}, expected a number", hint="1 is the best answer")
        scored.append((row.completion(entry.get("answer"), "answers"), -rank))
    question = row.get("prompt")
    content = row.prompt_content(chat.transcript(question) if chat.is_transcript(question) else question)
    return pool(row, content, scored)


def four_way(row: Row) -> list[Preference]:
    """RewardBench 2 (Malik et al. 2025, arXiv 2506.01937): right and wrong answers, usually
    one against three; scores 1 and 0."""
    good = [(row.completion(x, "chosen"), 1.0) for x in row.get("chosen")]
    bad = [(row.completion(x, "rejected"), 0.0) for x in row.get("rejected")]
    return pool(row, asked(row), good + bad)
