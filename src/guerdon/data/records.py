"""Files, folders and hub data sets, read as plain dict rows that know where they came from.

Nothing is interpreted here: columns keep their names and values, and `formats` decides what they mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from guerdon._need import need
from guerdon.data import record_files as files
from guerdon.errors import UserError, nearest

FORMS = "a .jsonl, .json, .csv, .tsv, .parquet or .arrow file, a folder of them or of save_to_disk, or a hub name org/name[:config][@split]"
HUB = re.compile(r"(?P<path>[\w.-]+/[\w.-]+)(?::(?P<config>[\w.,+-]+))?(?:@(?P<split>[\w.-]+))?")

READERS: dict[str, Callable[[Path], Iterator[tuple[Any, int]]]] = {
    ".jsonl": files.jsonl,
    ".ndjson": files.jsonl,
    ".jsonl.gz": files.jsonl,
    ".json": files.json_file,
    ".csv": files.csv_file,
    ".tsv": files.csv_file,
    ".parquet": files.parquet,
    ".arrow": files.arrow,
    ".feather": files.arrow,
}
BY_LINE = (".jsonl", ".ndjson", ".jsonl.gz", ".csv", ".tsv")


@dataclass(frozen=True)
class Record:
    """One row. where: for messages, `train.jsonl line 7` (lines and rows count from 1). index: position in the data, from 0."""

    row: dict[str, Any]
    where: str
    index: int


def read(source: str | Path | Iterable[Mapping[str, Any]], *, limit: int | None = None) -> list[Record]:
    """Rows of a file, a folder, a hub data set or any iterable of mappings (a `datasets.Dataset` too), at most `limit` of them.

    A folder or hub name may carry `@split`. Errors: `UserError` for what cannot be found or read (a broken line is named with its
    number and the text around it), for rows that are not mappings, and for no rows at all.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit={limit}, expected at least 1", hint="leave it out to read everything")
    records: list[Record] = []
    for row, where in islice(_rows(source, limit), limit):
        if not isinstance(row, Mapping):
            raise UserError(
                f"{where} is {_kind(row)}, expected a mapping of column names to values", hint='write each row as {"prompt": ..., ...}'
            )
        records.append(Record(dict(row), where, len(records)))
    if not records:
        raise UserError(f"{name_of(source)} holds no rows", hint="check that the file was written completely")
    return records


def name_of(source: str | Path | Iterable[Mapping[str, Any]]) -> str:
    """The source in words, for messages and manifests."""
    return str(source) if isinstance(source, str | Path) else f"the given {type(source).__name__}"


def _kind(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"


def _rows(source: str | Path | Iterable[Mapping[str, Any]], limit: int | None) -> Iterator[tuple[Any, str]]:
    if not isinstance(source, str | Path):
        if isinstance(source, Mapping):
            parts = ", ".join(map(str, source)) or "nothing"
            raise UserError(f"a mapping with {parts} was given, expected rows", hint="give one split: data['train']")
        yield from ((row, f"row {i}") for i, row in enumerate(source, 1))
        return
    text = str(source)
    path, split = Path(text), ""
    if not path.exists() and "@" in text and Path(text.rpartition("@")[0]).is_dir():
        path, split = Path(text.rpartition("@")[0]), text.rpartition("@")[2]
    if path.is_dir():
        for file in _folder(path, split):
            yield from _file(file)
    elif path.exists():
        yield from _file(path)
    elif isinstance(source, str) and not suffix(path) and (match := HUB.fullmatch(text)):
        yield from _hub(match["path"], match["config"], match["split"], limit)
    else:
        raise _missing(path)


def suffix(path: Path) -> str:
    """The file ending that decides the reader; '' when none is known."""
    name = path.name.lower()
    return next((s for s in sorted(READERS, key=len, reverse=True) if name.endswith(s)), "")


def _file(path: Path) -> Iterator[tuple[Any, str]]:
    ending = suffix(path)
    if not ending:
        raise UserError(f"{path}: no reader for files ending in {path.suffix or 'nothing'!r}", hint=f"give {FORMS}")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty (0 bytes)", hint="check that the file was written completely")
    unit = "line" if ending in BY_LINE else "row"
    yield from ((row, f"{path} {unit} {number}") for row, number in READERS[ending](path))


def _missing(path: Path) -> UserError:
    folder = path.parent
    if folder.is_dir() and suffix(path):
        beside = [p.name for p in folder.iterdir() if p.is_dir() or suffix(p)]
        return UserError(f"no file {path}", hint=nearest(path.name, beside) if beside else f"the folder {folder} holds no data files")
    if not folder.is_dir() and suffix(path):
        return UserError(f"no file {path}: there is no folder {folder}", hint="check the path; relative paths start at the current folder")
    return UserError(f"no data set {str(path)!r}", hint=f"give {FORMS}")


def _folder(path: Path, split: str) -> list[Path]:
    """The files of a folder: one written by save_to_disk, or plain data files (then `split` picks those whose name starts with it)."""
    if (path / "dataset_dict.json").is_file():
        splits = files.read_json(path / "dataset_dict.json").get("splits", [])
        chosen = split or ("train" if "train" in splits else splits[0] if len(splits) == 1 else "")
        if chosen not in splits:
            what = f"has no split {chosen!r}" if chosen else "has several splits and no 'train'"
            raise UserError(f"{path} {what}", hint=f"write {path}@SPLIT; {nearest(chosen, splits)}")
        return _folder(path / chosen, "")
    if (path / "state.json").is_file():
        # save_to_disk flattens any selection or shuffle first, so the Arrow files alone are the data.
        return [path / f["filename"] for f in files.read_json(path / "state.json")["_data_files"]]
    found = sorted(p for p in path.rglob("*") if p.is_file() and suffix(p) and not _hidden(p, path))
    chosen = [p for p in found if p.name.startswith(split) or split in p.relative_to(path).parts[:-1]] if split else found
    endings = sorted({suffix(p) for p in chosen})
    if not chosen:
        what = f"no data files of split {split!r}" if split else "no data files"
        raise UserError(f"{path} holds {what}", hint=f"found: {', '.join(p.name for p in found[:5]) or 'nothing'}; give {FORMS}")
    if len(endings) > 1:
        raise UserError(f"{path} mixes {' and '.join(endings)} files", hint=f"name one of them, for instance {chosen[0]}")
    return chosen


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _hub(path: str, config: str | None, split: str | None, limit: int | None) -> Iterator[tuple[Any, str]]:
    datasets = need("datasets", extra="data")
    name = path + (f":{config}" if config else "") + (f"@{split}" if split else "")
    wanted = split or "train"
    try:
        # Streaming fetches only the first rows when few are wanted; the whole split goes through the on-disk cache instead.
        loaded = datasets.load_dataset(path, config, split=wanted, streaming=limit is not None)
        yield from ((row, f"{name} row {i}") for i, row in enumerate(loaded, 1))
    except Exception as error:  # the hub client raises its own, httpx's, OSError and ValueError alike
        raise _hub_error(name, wanted, error) from error


def _hub_error(name: str, split: str, error: Exception) -> UserError:
    said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    words = f"{type(error).__name__} {error}".lower()
    message = f"hub data set {name!r} could not be loaded: {said}"
    if "split" in words and split in str(error):
        return UserError(message, hint=f"pick a split: {name.partition('@')[0]}@SPLIT")
    if "config" in words and "connect" not in words:
        return UserError(message, hint="pick a config: org/name:CONFIG[@SPLIT]")
    if any(w in words for w in ("connect", "offline", "resolve", "timeout", "timed out", "proxy", "network", "unreachable")):
        return UserError(message, hint=f"is there a network? if {name!r} is meant as a path, there is none; else give a local copy")
    return UserError(message, hint=f"check the name at the hub, and that you may read it; or give {FORMS}")
