"""Files of long-text benchmarks: RULER's and LongBench's JSONL as prompts with answers, and RULER's written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from guerdon.core.rng import Key
from guerdon.data import recall, records
from guerdon.data.record_files import write_rows
from guerdon.errors import UserError, nearest
from guerdon.types import Prompt, Rollout

QUESTION = "Read the text.\n\n{context}\n\nAnswer the question from the text, in as few words as possible.\nQuestion: {input}\nAnswer:"
SUMMARY = "Read the text.\n\n{context}\n\n{input}\nSummarise the text.\nSummary:"
EXAMPLES = "{context}\n{input}"
COUNT = "Some paragraphs of the text are copies of others.\n\n{context}\n\nHow many different paragraphs are there? Give the number alone:"
FIND = "Each paragraph of the text has a number.\n\n{context}\n\nSummary: {input}\nWhich is it of? Answer as in: Paragraph 1\nAnswer:"
CODE = "Write the next line of this code.\n{context}{input}Next line:\n"
TEMPLATES: Mapping[str, str] = {
    **dict.fromkeys(("narrativeqa", "qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "musique"), QUESTION),
    **dict.fromkeys(("gov_report", "qmsum", "multi_news"), SUMMARY),
    **dict.fromkeys(("trec", "triviaqa", "samsum"), EXAMPLES),
    "passage_count": COUNT,
    "passage_retrieval_en": FIND,
    **dict.fromkeys(("lcc", "repobench-p"), CODE),
}
"""How a record of each of LongBench's English and code tasks becomes a prompt: Guerdon's wording, not the benchmark's."""


def write_ruler(path: str | Path, items: Iterable[recall.Item]) -> int:
    """Write questions as RULER's files have them, one JSON object a line: index, input, outputs, length, answer_prefix, and task.

    Gives the number of lines. The folder is made where it is missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "index": i,
            "input": item.input,
            "outputs": list(item.outputs),
            "length": item.length,
            "answer_prefix": item.answer_prefix,
            "task": item.task,
        }
        for i, item in enumerate(items)
    ]
    write_rows(path, rows)
    return len(rows)


def read_ruler(path: str | Path) -> list[Prompt]:
    """The prompts of a RULER file, for the reward `ruler`: input and answer prefix, with the columns `answer` (its outputs), `task` and
    what else the file has. A file without a column `task` is of the task its folder is named after, as RULER lays them out.

    Raises UserError for a row without input or outputs.
    """
    prompts = []
    for record in records.read(str(path)):
        row = dict(record.row)
        given, outputs = row.pop("input", None), row.pop("outputs", None)
        if not isinstance(given, str) or not isinstance(outputs, list) or not outputs:
            raise UserError(
                f"{record.where}: no row of RULER (it lacks input, or outputs)", hint='{"index": 0, "input": "...", "outputs": ["..."]}'
            )
        task = row.setdefault("task", Path(path).resolve().parent.name)
        content = given + str(row.pop("answer_prefix", ""))
        prompts.append(Prompt(f"{task}/{row.pop('index', record.index)}", content, {"answer": [str(x) for x in outputs], **row}))
    return prompts


def read_longbench(path: str | Path) -> list[Prompt]:
    """The prompts of a LongBench file, for the reward `longbench`, with the columns `answer` (its answers), `dataset`, `all_classes`,
    `length` and `language`.

    Source of the layout: Bai et al. 2023, arXiv 2308.14508. Raises UserError for a row that lacks a column, and for a task that is not
    served: those in Chinese, whose scores need its word segmentation.
    """
    prompts = []
    for record in records.read(str(path)):
        row = record.row
        if missing := [name for name in ("input", "context", "answers", "dataset") if row.get(name) is None]:
            raise UserError(
                f"{record.where}: no row of LongBench (it lacks {', '.join(missing)})", hint="take a file of LongBench's data folder"
            )
        name = str(row["dataset"]).removesuffix("_e")  # LongBench-E has the same tasks
        if name not in TEMPLATES:
            raise UserError(f"{record.where}: LongBench's task {name!r} is not served", hint=nearest(name, TEMPLATES))
        content = TEMPLATES[name].format(context=row["context"], input=row["input"])
        meta = {"answer": [str(x) for x in row["answers"]], "dataset": name, "all_classes": row.get("all_classes")}
        meta |= {k: row[k] for k in ("length", "language") if k in row}
        prompts.append(Prompt(str(row.get("_id", record.index)), content, meta))
    return prompts


# ---------------------------------------------------------------- as named sources


def ruler_source(variant: str, options: Mapping[str, Any], kind: str, key: Key) -> list[Prompt] | list[Rollout]:
    """`ruler:TASK?n=256&length=512&...` makes questions, `ruler:FILE.jsonl` reads a file. As demos: each with its outputs in order."""
    if kind == "pairs":
        raise UserError("ruler has answers, not preference pairs", hint="use it for prompts (reward: ruler) or demos")
    if variant.endswith(".jsonl"):
        if options:
            raise UserError(f"{variant} is read as it is", hint="options are for questions that are made: ruler:niah_single?length=512")
        prompts = read_ruler(variant)
    else:
        given = {"n": 256, "length": 512, "seed": 0, **options}
        n, length, seed = (given.pop(name) for name in ("n", "length", "seed"))
        if any(isinstance(x, bool) or not isinstance(x, int) or x < least for x, least in ((n, 1), (length, 1), (seed, 0))):
            raise UserError(f"options n={n!r}, length={length!r}, seed={seed!r}", hint="whole numbers; n and length are at least 1")
        made = recall.make(variant, n, key.fold("ruler", seed), length=length, **given)
        prompts = [item.prompt(f"{variant}/{length}/{seed}/{i}") for i, item in enumerate(made)]
    return prompts if kind == "prompts" else [Rollout(p, " " + ", ".join(p.meta["answer"])) for p in prompts]


def longbench_source(variant: str, options: Mapping[str, Any], kind: str, key: Key) -> list[Prompt] | list[Rollout]:
    """`longbench:FILE.jsonl`: the records of a file. As demos: each with its first answer."""
    if kind == "pairs" or options or not variant:
        raise UserError("longbench reads a file, as prompts or demos", hint="write longbench:FILE.jsonl")
    prompts = read_longbench(variant)
    return prompts if kind == "prompts" else [Rollout(p, p.meta["answer"][0]) for p in prompts if p.meta["answer"]]
