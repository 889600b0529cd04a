"""The table of record layouts: which columns tell a layout, and which builder reads it. Most specific first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from guerdon.data import build_answers as answers
from guerdon.data import build_pairs as pairs
from guerdon.data import build_steps as steps
from guerdon.data import chat
from guerdon.data.convert import reaches
from guerdon.data.row import WORDS, Row, number

Kind = Literal["prompts", "pairs", "demos", "unpaired", "stepwise", "pools"]
KINDS: dict[str, str] = {
    "prompts": "prompts to respond to",
    "pairs": "preference pairs (a better and a worse answer)",
    "demos": "demonstrations (a prompt and a good answer)",
    "unpaired": "single answers judged good or bad",
    "stepwise": "solutions judged step by step",
    "pools": "pools (one prompt, several scored answers)",
}
Names = tuple[str, ...]

PROMPT: Names = ("prompt", "question", "query", "problem", "instruction", "input")
COMPLETION: Names = ("completion", "response", "output")
MESSAGES: Names = ("messages", "conversations", "conversation")
CHOSEN: Names = ("chosen", "chosen_response")
REJECTED: Names = ("rejected", "rejected_response")
LABEL: Names = ("label", "kto_tag")
TRUTH: Names = ("ground_truth", "answer", "solution", "label", "final_answer", "target")

CONTEXT: dict[str, Names] = {"system": ("system", "system_prompt"), "history": ("history",)}
INPUT: dict[str, Names] = {"input": ("input",), **CONTEXT}
JUDGED: dict[str, Names] = {
    "margin": ("margin",),
    "score_chosen": ("score_chosen", "chosen_score", "chosen_rating"),
    "score_rejected": ("score_rejected", "rejected_score", "rejected_rating"),
    "label": ("label",),
    "source": ("source",),
}
ID: Names = ("id", "prompt_id")
# Columns that are read *and* forwarded to rewards under their own name.
KEPT = frozenset({"ground_truth", "score_chosen", "score_rejected", "spec", "data_source", "env_class", "subset"})


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _texts(value: Any) -> bool:
    return _list(value) and len(value) > 0 and all(map(_text, value))


def _map(value: Any, key: str) -> bool:
    return isinstance(value, Mapping) and key in value


def _maps(value: Any, key: str) -> bool:
    return _list(value) and len(value) > 0 and all(_map(v, key) for v in value)


def _judgement(value: Any) -> bool:
    return number(value) is not None


def _numeric(value: Any) -> bool:
    """A number or numeral, but not a word that could stand for one."""
    return number(value) is not None and not (_text(value) and value.strip().lower() in WORDS)


def _answer(value: Any) -> bool:
    return _text(value) or chat.is_chat(value) or chat.is_message(value)


# The builders say what is wrong themselves, and better, when a later row fails one of these.
EXPLAINED = (chat.ends_with_answer, chat.is_transcript, chat.is_chat, chat.is_message, _judgement, _text, _answer)


# What an optional column must look like to be taken for its target; otherwise it stays an extra column.
OPTIONAL_TESTS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("margin", "label", "score_chosen", "score_rejected"), _numeric),
    **dict.fromkeys(("source", "system", "input", "step_joint"), _text),
    "history": _list,
}


@dataclass(frozen=True)
class Layout:
    """columns: target -> the names it is known by, all of them needed. optional: the same, taken when there. tests: what the
    first value of a target must look like. build: items of one row. note: shown with the detection. each: in a pool, every best
    answer against every worst (and not one of each). only: no conversion makes sense."""

    name: str
    kind: Kind
    columns: Mapping[str, Names]
    build: Callable[[Row], list[Any]]
    optional: Mapping[str, Names] = field(default_factory=dict)
    tests: Mapping[str, Callable[[Any], bool]] = field(default_factory=dict)
    note: str = ""
    each: bool = False
    only: bool = False

    def serves(self, kind: str) -> bool:
        """Whether its rows can be had as `kind`, by conversion if need be."""
        return self.kind == kind or (not self.only and reaches(self.kind, kind))


def _stepwise() -> tuple[Layout, ...]:
    return (
        Layout(
            "prm800k",
            "stepwise",
            {"question": ("question",), "label": ("label",)},
            steps.prm800k,
            tests={"question": lambda v: _map(v, "problem"), "label": lambda v: _map(v, "steps")},
            note="ratings 1 and 0 count as right, -1 as wrong",
        ),
        Layout(
            "math-shepherd",
            "stepwise",
            {"input": ("input",), "label": ("label",)},
            steps.math_shepherd,
            tests={"input": lambda v: _text(v) and steps.MARK in v, "label": lambda v: isinstance(v, str)},
        ),
        Layout(
            "processbench",
            "stepwise",
            {"prompt": PROMPT, "steps": ("steps",), "label": ("label",)},
            steps.processbench,
            tests={"steps": _texts, "label": lambda v: isinstance(v, int)},
            note="steps after the first wrong one are not judged",
        ),
        Layout(
            "stepwise",
            "stepwise",
            {"prompt": PROMPT, "completions": ("completions", "steps", "step_texts"), "labels": ("labels", "step_labels")},
            steps.stepwise,
            {"step_joint": ("step_joint",), **CONTEXT},
            tests={"completions": _texts, "labels": _list},
        ),
    )


def _pools() -> tuple[Layout, ...]:
    source: dict[str, Names] = {"source": ("source",)}
    return (
        Layout(
            "ultrafeedback",
            "pools",
            {"prompt": ("instruction", "prompt"), "completions": ("completions",)},
            pairs.ultrafeedback,
            source,
            {"completions": lambda v: _maps(v, "response")},
            note="a response's score is the mean of its aspect ratings, else its fine-grained or overall score",
        ),
        Layout(
            "nectar",
            "pools",
            {"prompt": ("prompt",), "answers": ("answers",)},
            pairs.nectar,
            tests={"answers": lambda v: _maps(v, "rank")},
            note="scores are minus the ranks",
        ),
        Layout(
            "rewardbench-2",
            "pools",
            {"prompt": PROMPT, "chosen": ("chosen",), "rejected": ("rejected",)},
            pairs.four_way,
            tests={"chosen": _texts, "rejected": _texts},
            each=True,
        ),
        Layout(
            "pool",
            "pools",
            {"prompt": PROMPT, "responses": ("responses", "completions", "candidates"), "scores": ("scores", "rewards", "ratings")},
            pairs.responses,
            {**source, **CONTEXT},
            {"responses": _list, "scores": _list},
        ),
    )


def _pairs() -> tuple[Layout, ...]:
    both: dict[str, Names] = {"chosen": CHOSEN, "rejected": REJECTED}
    strings = {"chosen": _text, "rejected": _text}
    return (
        Layout(
            "messages-preference",
            "pairs",
            {"messages": MESSAGES, **both},
            pairs.with_messages,
            {**JUDGED, **CONTEXT},
            {"messages": chat.is_chat, "chosen": chat.is_message, "rejected": chat.is_message},
        ),
        Layout(
            "swift-preference",
            "pairs",
            {"messages": MESSAGES, "rejected": ("rejected_response",)},
            pairs.messages_and_rejected,
            {**JUDGED, **CONTEXT},
            {"messages": chat.ends_with_answer},
        ),
        Layout(
            "swift-query-preference",
            "pairs",
            {"prompt": ("query",), "chosen": ("response",), "rejected": ("rejected_response",)},
            pairs.explicit,
            {**JUDGED, **CONTEXT},
        ),
        Layout(
            "hh-rlhf",
            "pairs",
            {"chosen": ("chosen",), "rejected": ("rejected",)},
            pairs.transcripts,
            JUDGED,
            {"chosen": chat.is_transcript, "rejected": chat.is_transcript},
            note="transcripts were read as conversations",
        ),
        Layout("rewardbench", "pairs", {"prompt": ("prompt",), **both, "subset": ("subset",)}, pairs.explicit, JUDGED, strings),
        Layout("alpaca-preference", "pairs", {"prompt": ("instruction",), **both}, pairs.explicit, {**JUDGED, **INPUT}, strings),
        Layout("preference", "pairs", {"prompt": PROMPT, **both}, pairs.explicit, {**JUDGED, **CONTEXT}),
        Layout("implicit-preference", "pairs", both, pairs.implicit, JUDGED),
    )


def _judged_answers() -> tuple[Layout, ...]:
    return (
        Layout(
            "unpaired-messages",
            "unpaired",
            {"messages": MESSAGES, "label": LABEL},
            answers.judged_conversation,
            CONTEXT,
            {"messages": chat.ends_with_answer, "label": _judgement},
        ),
        Layout(
            "unpaired",
            "unpaired",
            {"prompt": PROMPT, "completion": COMPLETION, "label": LABEL},
            answers.judged_answer,
            {**INPUT},
            {"completion": _answer, "label": _judgement},
        ),
    )


def _verifiable() -> tuple[Layout, ...]:
    one = lambda *names: {n: (n,) for n in names}
    return (
        Layout(
            "verl",
            "prompts",
            {"prompt": ("prompt",), "spec": ("reward_model",), "data_source": ("data_source",)},
            answers.nested_truth,
            tests={"spec": lambda v: isinstance(v, Mapping)},
        ),
        Layout(
            "skyrl",
            "prompts",
            {"prompt": ("prompt",), "spec": ("reward_spec",)},
            answers.nested_truth,
            tests={"spec": lambda v: isinstance(v, Mapping)},
        ),
        Layout("skyrl-env", "prompts", one("prompt", "env_class"), answers.prompt),
        Layout(
            "open-instruct",
            "prompts",
            {"messages": MESSAGES, "ground_truth": ("ground_truth",)},
            answers.prompt_messages,
            CONTEXT,
            {"messages": chat.is_chat},
        ),
        Layout("slime", "prompts", {"prompt": ("prompt",), "ground_truth": ("label",)}, answers.prompt, CONTEXT),
        Layout("openrlhf", "prompts", {"prompt": ("input",), "ground_truth": ("label",)}, answers.prompt, CONTEXT),
        Layout("verifiers", "prompts", {"prompt": PROMPT, "ground_truth": ("answer", "solution", "ground_truth")}, answers.prompt, CONTEXT),
    )


def _demos() -> tuple[Layout, ...]:
    return (
        Layout("swift", "demos", {"prompt": ("query",), "completion": ("response",)}, answers.answer, CONTEXT),
        Layout("alpaca", "demos", {"prompt": ("instruction",), "completion": ("output", "response")}, answers.answer, INPUT),
        Layout("prompt-completion", "demos", {"prompt": PROMPT, "completion": COMPLETION}, answers.answer, CONTEXT),
        Layout("question-answer", "demos", {"prompt": PROMPT, "completion": ("answer", "solution")}, answers.answer, CONTEXT),
        Layout(
            "sharegpt",
            "demos",
            {"messages": ("conversations", "conversation")},
            answers.conversation,
            CONTEXT,
            {"messages": chat.ends_with_answer},
        ),
        Layout("messages", "demos", {"messages": ("messages",)}, answers.conversation, CONTEXT, {"messages": chat.ends_with_answer}),
        Layout("text", "demos", {"text": ("text",)}, answers.text, tests={"text": _text}, only=True),
        Layout("tokens", "demos", {"tokens": ("tokens", "input_ids")}, answers.tokens, tests={"tokens": _list}, only=True),
    )


def _prompts() -> tuple[Layout, ...]:
    truth = {"ground_truth": TRUTH}
    return (
        Layout(
            "messages-prompt", "prompts", {"messages": MESSAGES}, answers.prompt_messages, {**truth, **CONTEXT}, {"messages": chat.is_chat}
        ),
        Layout("alpaca-prompt", "prompts", {"prompt": ("instruction",), "input": ("input",)}, answers.prompt, {**truth, **CONTEXT}),
        Layout("prompt", "prompts", {"prompt": PROMPT}, answers.prompt, {**truth, **CONTEXT}),
    )


LAYOUTS: tuple[Layout, ...] = (*_stepwise(), *_pools(), *_pairs(), *_judged_answers(), *_verifiable(), *_demos(), *_prompts())
