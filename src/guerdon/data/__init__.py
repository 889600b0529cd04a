"""Data: `load` reads any of the known layouts into typed items, `Cursor` says which of them a step sees."""

from guerdon.data.buffer import Buffer
from guerdon.data.cursor import Cursor
from guerdon.data.formats import Detected, Loaded, detect, read_items
from guerdon.data.layouts import KINDS, LAYOUTS
from guerdon.data.loading import load
from guerdon.data.records import Record, read
from guerdon.data.write import to_row, write_jsonl

__all__ = [
    "KINDS",
    "LAYOUTS",
    "Buffer",
    "Cursor",
    "Detected",
    "Loaded",
    "Record",
    "detect",
    "load",
    "read",
    "read_items",
    "to_row",
    "write_jsonl",
]
