"""Preferences as rows of any layout that `data.layouts` reads: what other trainers and data sets call their columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from guerdon.data.checks import marks, ratings
from guerdon.errors import UserError, nearest
from guerdon.types import Preference, Rollout

Row = dict[str, Any]


def rows_of(item: Preference, layout: str) -> list[Row]:
    """The rows of a preference in a layout of PAIRS or LISTS, with id, source, margin, label and the prompt's other columns where they fit.

    Layouts of conversations turn text prompts into user messages. A label below 1 and a margin are written where the layout has a place
    for them; `nectar` keeps ranks and no scores, lists without scores get minus the rank. Raises UserError for an unknown layout, a list
    in a layout of pairs, and a conversation in a layout of plain text.
    """
    if layout not in {**PAIRS, **LISTS}:
        raise UserError(f"unknown layout of preferences {layout!r}", hint=nearest(layout, {**PAIRS, **LISTS}))
    if layout in LISTS:
        return [LISTS[layout](item)]
    if len(item.ranked) != 2:
        fitting = ", ".join(LISTS)
        raise UserError(f"list {item.prompt.id!r} has {len(item.ranked)} responses, and {layout} holds pairs", hint=f"take {fitting}")
    return list(PAIRS[layout](item))


def further(item: Preference, *, judged: bool = True) -> Row:
    """id, source, margin and label (where they say something), and the columns of the prompt."""
    meta = {k: v for k, v in item.prompt.meta.items() if k != "scores"}
    row: Row = {"id": item.prompt.id}
    row |= {"source": item.source} if item.source else {}
    if judged and len(item.ranked) == 2:
        row |= {"margin": item.margin} if item.margin is not None else {}
        row |= {"label": item.label} if item.label != 1 else {}
        known = ratings(item)
        if known is not None and not any("chosen" in name or "rejected" in name for name in meta):
            row |= {"score_chosen": known[0], "score_rejected": known[1]}
    return row | {k: v for k, v in meta.items() if k not in row}


def said(rollout: Rollout) -> Any:
    """The response as its prompt is written: messages after messages, else what it is."""
    if isinstance(rollout.prompt.content, list) and isinstance(rollout.content, str):
        return messages(rollout)
    return rollout.content


def messages(rollout: Rollout) -> list[Any]:
    """The response as assistant messages."""
    return [{"role": "assistant", "content": rollout.content}] if isinstance(rollout.content, str) else list(rollout.content)


def turns(item: Preference) -> list[Any]:
    """The prompt as messages."""
    content = item.prompt.content
    return [{"role": "user", "content": content}] if isinstance(content, str) else list(content)


def plain(item: Preference, content: Any) -> str:
    """A text, or the text of a single message; raises UserError for a conversation."""
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0].get("content"), str):
        return content[0]["content"]
    if not isinstance(content, str):
        hint = "take a layout of conversations: preference, implicit-preference, messages-preference"
        raise UserError(f"{item.prompt.id!r} is a conversation, and this layout holds plain text", hint=hint)
    return content


def single(item: Preference, rollout: Rollout) -> Any:
    """The response as one message."""
    found = messages(rollout)
    if len(found) != 1:
        raise UserError(f"a response to {item.prompt.id!r} has {len(found)} messages, and this layout holds one", hint="take preference")
    return found[0]


# ---------------------------------------------------------------- pairs


def _explicit(item: Preference) -> Iterable[Row]:
    yield {"prompt": item.prompt.content, "chosen": said(item.ranked[0]), "rejected": said(item.ranked[1]), **further(item)}


def _implicit(item: Preference) -> Iterable[Row]:
    chosen, rejected = ([*turns(item), *messages(r)] for r in item.ranked)
    yield {"chosen": chosen, "rejected": rejected, **further(item)}


def _transcripts(item: Preference) -> Iterable[Row]:
    names = {"user": "Human", "assistant": "Assistant"}

    def text(turn: Mapping[str, Any]) -> str:
        if turn["role"] not in names or not isinstance(turn["content"], str):
            raise UserError(f"{item.prompt.id!r} has a {turn['role']} turn, unknown to transcripts", hint="take preference")
        return f"\n\n{names[turn['role']]}: {turn['content']}"

    chosen, rejected = ("".join(map(text, [*turns(item), *messages(r)])) for r in item.ranked)
    yield {"chosen": chosen, "rejected": rejected, **further(item)}


def _with_messages(item: Preference) -> Iterable[Row]:
    chosen, rejected = (single(item, r) for r in item.ranked)
    yield {"messages": turns(item), "chosen": chosen, "rejected": rejected, **further(item)}


def _swift(item: Preference) -> Iterable[Row]:
    rejected = plain(item, item.ranked[1].content)
    yield {"messages": [*turns(item), *messages(item.ranked[0])], "rejected_response": rejected, **further(item)}


def _named(prompt: str, chosen: str, rejected: str, **more: str) -> Callable[[Preference], Iterable[Row]]:
    def write(item: Preference) -> Iterable[Row]:
        texts = {prompt: item.prompt.content, chosen: item.ranked[0].content, rejected: item.ranked[1].content}
        yield {**more, **{name: plain(item, content) for name, content in texts.items()}, **further(item)}

    return write


def _unpaired(item: Preference) -> Iterable[Row]:
    rest = further(item, judged=False)
    for good, response in zip((True, False), item.ranked, strict=True):
        id = f"{item.prompt.id}/{'chosen' if good else 'rejected'}"
        yield {"prompt": item.prompt.content, "completion": said(response), "label": good, **rest, "id": id}


# ---------------------------------------------------------------- lists


def _pool(item: Preference) -> Row:
    return {
        "prompt": item.prompt.content,
        "responses": [said(r) for r in item.ranked],
        "scores": marks(item),
        **further(item, judged=False),
    }


def _ultrafeedback(item: Preference) -> Row:
    entries = [{"response": plain(item, r.content), "overall_score": s} for r, s in zip(item.ranked, marks(item), strict=True)]
    return {"instruction": plain(item, item.prompt.content), "completions": entries, **further(item, judged=False)}


def _nectar(item: Preference) -> Row:
    known = ratings(item)
    ranks = range(1, len(item.ranked) + 1) if known is None else [1 + sum(other > own for other in known) for own in known]
    entries = [{"answer": plain(item, r.content), "rank": float(i)} for i, r in zip(ranks, item.ranked, strict=True)]
    return {"prompt": plain(item, item.prompt.content), "answers": entries, **further(item, judged=False)}


def _four_way(item: Preference) -> Row:
    known = ratings(item) or [1.0] + [0.0] * (len(item.ranked) - 1)
    best = [plain(item, r.content) for r, s in zip(item.ranked, known, strict=True) if s == max(known)]
    rest = [plain(item, r.content) for r, s in zip(item.ranked, known, strict=True) if s != max(known)]
    return {"prompt": item.prompt.content, "chosen": best, "rejected": rest, **further(item, judged=False)}


PAIRS: Mapping[str, Callable[[Preference], Iterable[Row]]] = {
    "preference": _explicit,
    "implicit-preference": _implicit,
    "messages-preference": _with_messages,
    "swift-preference": _swift,
    "swift-query-preference": _named("query", "response", "rejected_response"),
    "alpaca-preference": _named("instruction", "chosen", "rejected"),
    "rewardbench": _named("prompt", "chosen", "rejected", subset="all"),
    "hh-rlhf": _transcripts,
    "unpaired": _unpaired,
}
LISTS: Mapping[str, Callable[[Preference], Row]] = {
    "pool": _pool,
    "ultrafeedback": _ultrafeedback,
    "nectar": _nectar,
    "rewardbench-2": _four_way,
}
