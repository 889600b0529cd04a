"""One reader a file type: each yields (row, number), numbers from 1 (lines for text, rows for tables). `write_rows` writes JSON lines."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from guerdon.errors import UserError

AROUND = 30  # characters shown on each side of the place where a line breaks


def _open(path: Path) -> IO[str]:
    # utf-8-sig: files saved by spreadsheets begin with a byte-order mark that would become part of the first column's name.
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig", newline="")


def _not_utf8(path: Path, error: UnicodeDecodeError) -> UserError:
    return UserError(f"{path} is not UTF-8 text ({error.reason} near byte {error.start} of a block)", hint="convert it: iconv -t UTF-8")


def _around(text: str, at: int) -> str:
    left, right = max(0, at - AROUND), at + AROUND
    return ("..." if left else "") + text[left:at] + ">>>" + text[at:right] + ("..." if right < len(text) else "")


def read_json(path: Path) -> Any:
    """The value of a JSON file."""
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} line {error.lineno} column {error.colno}: broken JSON ({error.msg}): {_around(error.doc, error.pos)!r}",
            hint="the text breaks at >>>; fix it there",
        ) from None


def jsonl(path: Path) -> Iterator[tuple[Any, int]]:
    """One JSON value a line; blank lines are passed over."""
    try:
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise UserError(
                        f"{path} line {number}: broken JSON ({error.msg}, column {error.colno}): {_around(line.rstrip(), error.pos)!r}",
                        hint=_broken(line, number),
                    ) from None
                yield row, number
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from None
    except (gzip.BadGzipFile, EOFError) as error:
        raise UserError(f"{path} is not a readable gzip file: {error}", hint="unpack or fetch it again") from None


def _broken(line: str, number: int) -> str:
    if number == 1 and line.strip() in ("[", "{"):
        return "this looks like one JSON value over several lines: rename the file to .json"
    return "the text breaks at >>>; every line must be one complete JSON value (was the file cut off?)"


def json_file(path: Path) -> Iterator[tuple[Any, int]]:
    """A list of rows, or a mapping in which exactly one value is a list of rows (`{"data": [...]}`), or JSON lines after all."""
    try:
        value = json.loads(path.read_text("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from None
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # a second value follows the first: JSON lines under a .json name, as on the hub
            yield from jsonl(path)
            return
        value = read_json(path)  # raises, with the place
    if isinstance(value, dict):
        lists = [v for v in value.values() if isinstance(v, list) and v and all(isinstance(x, dict) for x in v)]
        looks_like_a_row = any(not isinstance(v, list | dict) for v in value.values())
        if len(lists) == 1 and not looks_like_a_row:
            value = lists[0]
        else:
            raise UserError(
                f"{path} is one JSON mapping with {', '.join(map(repr, value)) or 'nothing'}, expected a list of rows",
                hint='write [{"prompt": ...}, ...], or one row a line in a .jsonl file',
            )
    if not isinstance(value, list):
        raise UserError(f"{path} is a JSON {type(value).__name__}, expected a list of rows", hint='write [{"prompt": ...}, ...]')
    yield from zip(value, range(1, len(value) + 1), strict=True)


def csv_file(path: Path) -> Iterator[tuple[Any, int]]:
    """A header line, then a row a record; .tsv splits at tabs. An empty cell is a missing value; every other is a string."""
    csv.field_size_limit(2**31 - 1)
    try:
        with _open(path) as file:
            reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
            last = 1
            try:
                for row in reader:
                    last = reader.line_num
                    # DictReader puts surplus cells under the key None and fills missing ones with the value None.
                    if None in row or None in row.values():
                        cells = len(reader.fieldnames or ()) + len(row.get(None) or ()) - sum(v is None for v in row.values())
                        raise UserError(
                            f"{path} line {reader.line_num}: {cells} cells, the header names {len(reader.fieldnames or ())}",
                            hint='quote text that holds the separator: "like, this"',
                        )
                    yield {k: v if v != "" else None for k, v in row.items()}, reader.line_num
            except csv.Error as error:
                raise UserError(f"{path} line {last + 1}: broken CSV ({error})", hint="is a quotation mark left open?") from None
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from None


def parquet(path: Path) -> Iterator[tuple[Any, int]]:
    """Rows of a Parquet file, read batch by batch."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield row, number
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a readable Parquet file: {_first_line(error)}", hint="is the file complete?") from None


def arrow(path: Path) -> Iterator[tuple[Any, int]]:
    """Rows of an Arrow file: the file format (Feather) or the stream format (`datasets`)."""
    import pyarrow
    import pyarrow.ipc

    try:
        with pyarrow.OSFile(str(path)) as file:
            is_file = file.read(6) == b"ARROW1"
            file.seek(0)
            reader = pyarrow.ipc.open_file(file) if is_file else pyarrow.ipc.open_stream(file)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches)) if is_file else iter(reader)
            number = 0
            for batch in batches:
                for row in batch.to_pylist():
                    number += 1
                    yield row, number
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a readable Arrow file: {_first_line(error)}", hint="is the file complete?") from None


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
