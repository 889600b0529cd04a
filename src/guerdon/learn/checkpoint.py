"""Checkpoints that are whole or absent: written beside their place, synced, renamed, and checked by digest when read."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from guerdon.errors import UserError
from guerdon.types import Stateful

MANIFEST = "manifest.json"


def write_text(path: Path, text: str) -> None:
    """Replace a file at once: readers see the old text or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def save(folder: Path, step: int, state: Mapping[str, Stateful], *, keep: int = 2) -> Path:
    """Write `folder/step-N` (one file per entry of `state`, and a manifest with their digests); keep the newest `keep` checkpoints."""
    target = folder / f"step-{step}"
    temporary = folder / f".step-{step}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    digests = {}
    for name, part in state.items():
        path = temporary / f"{name}.pt"
        with path.open("wb") as file:
            torch.save(part.state_dict(), file)
            file.flush()
            os.fsync(file.fileno())
        digests[path.name] = _digest(path)
    write_text(temporary / MANIFEST, json.dumps({"step": step, "files": digests}, indent=1))
    shutil.rmtree(target, ignore_errors=True)
    os.replace(temporary, target)
    _sync_folder(folder)
    for old in steps(folder)[:-keep]:
        shutil.rmtree(folder / f"step-{old}", ignore_errors=True)
    return target


def steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a folder, oldest first."""
    names = [p.name.removeprefix("step-") for p in folder.glob("step-*")]
    return sorted(int(name) for name in names if name.isdigit())


def load(folder: Path, state: Mapping[str, Stateful]) -> int | None:
    """Fill `state` from the newest checkpoint and return its step; None when there is none. Anything missing or damaged is an error."""
    known = steps(folder)
    if not known:
        return None
    path = folder / f"step-{known[-1]}"
    step, parts = read(path)
    lacking, surplus = sorted(set(state) - set(parts)), sorted(set(parts) - set(state))
    if lacking or surplus:
        raise UserError(
            f"checkpoint {path} holds {sorted(parts)}, this run needs {sorted(state)}",
            hint="resume with the configuration and version that wrote it, or start in a new folder",
        )
    for name, part in state.items():
        part.load_state_dict(parts[name])
    return step


def read(path: Path) -> tuple[int, dict[str, Any]]:
    """The step and the states of one checkpoint folder, after checking every digest."""
    hint = f"delete {path} to go on from the checkpoint before it, or start in a new folder"
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        files: Mapping[str, str] = manifest["files"]
        step = int(manifest["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"checkpoint {path} has no readable manifest ({error})", hint=hint) from None
    parts = {}
    for name, digest in files.items():
        file = path / name
        if not file.is_file():
            raise UserError(f"checkpoint {path} lacks its file {name}", hint=hint)
        if _digest(file) != digest:
            raise UserError(f"{file} is truncated or corrupted: its digest is not the one in the manifest", hint=hint)
        try:
            parts[file.stem] = torch.load(file, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise UserError(f"{file} can't be read: {error}", hint=hint) from None
    return step, parts


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # processors have instructions for it; twice as fast as blake2b


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
