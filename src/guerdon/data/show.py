"""One item in words, so that a person sees what the model will see."""

from __future__ import annotations

import json
from typing import Any

from guerdon.types import Preference, Prompt, Rollout

MOST = 1200  # characters shown of each part


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(_message(m) if isinstance(m, dict) else str(m) for m in content)
    return str(content)


def _message(message: dict[str, Any]) -> str:
    rest = {k: v for k, v in message.items() if k not in ("role", "content")}
    content = message.get("content")
    said = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=repr)
    return f"<{message.get('role')}> {said}" + (f" {json.dumps(rest, ensure_ascii=False, default=repr)}" if rest else "")


def _cut(text: str) -> str:
    return text if len(text) <= MOST else f"{text[: MOST // 2]} [... {len(text) - MOST} characters ...] {text[-MOST // 2 :]}"


def _part(name: str, content: Any) -> str:
    return f"[{name}] {_cut(_text(content))}"


def first_item(item: Prompt | Preference | Rollout) -> tuple[str, str]:
    """The item rendered part by part, and the form of its prompt: `chat` or `plain`."""
    prompt = item if isinstance(item, Prompt) else item.prompt
    lines = [_part("prompt", prompt.content)]
    if isinstance(item, Preference) and len(item.ranked) == 2:
        lines += [_part("chosen", item.ranked[0].content), _part("rejected", item.ranked[1].content)]
        lines += [f"[margin] {item.margin:g}"] if item.margin is not None else []
        lines += [f"[label] {item.label:g}"] if item.label != 1 else []
    elif isinstance(item, Preference):
        scores = prompt.meta.get("scores") or [None] * len(item.ranked)
        lines += [_part(f"rank {i}, score {s}", r.content) for i, (r, s) in enumerate(zip(item.ranked, scores, strict=True), 1)]
    elif isinstance(item, Rollout):
        steps, labels = prompt.meta.get("step_texts"), prompt.meta.get("step_labels")
        if steps and labels:
            lines += [_part(f"step {i}, label {x:g}", s) for i, (s, x) in enumerate(zip(steps, labels, strict=True), 1)]
        else:
            lines += [_part("completion", item.content)]
            lines += [f"[label] {prompt.meta['label']}"] if "label" in prompt.meta else []
    if "ground_truth" in prompt.meta:
        lines.append(_part("ground_truth", prompt.meta["ground_truth"]))
    return "\n".join(lines), "chat" if isinstance(prompt.content, list) else "plain"
