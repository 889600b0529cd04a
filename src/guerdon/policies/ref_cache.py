"""Log-probabilities of a fixed reference, computed once for each row of a data set.

A row's value is computed in the batch in which the row first comes, and remembered for later epochs. Rounding depends on the company a
row is computed in, so that company must not be a matter of chance: it is a function of the data, the seed and the batch size, and a run
that was killed computes the same batches again and gets the same bits. For the same reason the cache on disk keeps whole batches, under
a digest of everything that the bits depend on.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import guerdon
from guerdon.data.human_ratings import cache_dir
from guerdon.errors import RunStopped
from guerdon.policies.refs import Frozen
from guerdon.policies.weights import digest
from guerdon.types import Batch

LARGE = 100_000_000
"""Parameters from which on a reference is cached on disk by default, and freed before training when it is a copy of its own."""

COLLECTED = 10_000_000
"""Parameters from which on a reference that was let go is looked for at once, not whenever Python does."""

log = logging.getLogger("guerdon")


class Rows:
    """Log-probabilities of the rows of one batch: `logp` end to end, `length (N,)` of each, and where each is by the row's name."""

    def __init__(self, names: Sequence[bytes], length: Tensor, logp: Tensor) -> None:
        self.length, self.logp = length, logp
        stops = length.cumsum(0).tolist()
        parts = zip([0, *stops[:-1]], stops, strict=True)
        self.where = dict(reversed([*zip(names, parts, strict=True)]))  # of equal rows the first one counts

    @classmethod
    def of(cls, names: Sequence[bytes], logp: Tensor) -> Rows:
        """Of `(N, T)`; the zeros behind each row's end are left out."""
        logp = logp.detach().cpu()
        column = torch.arange(1, logp.shape[1] + 1)
        length = ((logp != 0) * column).amax(1)
        return cls(names, length, logp[column <= length[:, None]])

    def __getitem__(self, name: bytes) -> Tensor:
        start, stop = self.where[name]
        return self.logp[start:stop]


class Once:
    """The log-probabilities of a frozen reference for the batches of a run, each row computed once.

    batch_at: the batch of a step, a pure function. first_at: the steps at which the items of a step's batch first came, in order.
    steps: of the run; first_steps: in those all items come (an epoch, or less when the run is shorter). disk: kept between runs.
    upfront: everything is computed at the first call; otherwise as it comes. The bits are the same.

    When all rows are known, the reference itself is let go, and its copy of the weights with it. A row that never comes again (noise,
    or a partner, drawn anew at each step) is computed as it comes.
    """

    def __init__(
        self,
        ref: Frozen,
        *,
        batch_at: Callable[[int], Batch],
        first_at: Callable[[int], Sequence[int]],
        steps: int,
        first_steps: int,
        disk: Disk | None = None,
        upfront: bool = False,
    ) -> None:
        self.ref: Frozen | None = ref
        self.batch_at, self.first_at = batch_at, first_at
        self.steps, self.first_steps = steps, min(steps, first_steps)
        self.disk, self.upfront = disk, upfront
        self.known: dict[int, Rows] = {}
        self.settled = False  # whether the reference is still needed has been decided

    def logp(self, step: int, batch: Batch) -> Tensor:
        """Log-probability of every decision of the batch of this step, `(N, T)`."""
        if self.upfront and not self.known:
            self._fill()
        firsts = self.first_at(step)
        for first in firsts:
            self._know(first, batch if first == step else None)
        found, missing = self._look_up(firsts, batch)
        if len(missing):
            found[missing] = self._compute(batch.rows(missing))
        self._let_go()
        return found

    def _fill(self) -> None:
        log.info("reference log-probabilities of %d batches first, so that the reference need not stay in memory", self.first_steps)
        for first in range(self.first_steps):
            self._know(first)
            if (first + 1) % max(1, self.first_steps // 10) == 0:
                log.info("reference log-probabilities: %d of %d batches", first + 1, self.first_steps)

    def _know(self, first: int, batch: Batch | None = None) -> None:
        """Make sure that the batch of this step is known."""
        if first in self.known:
            return
        batch = self.batch_at(first) if batch is None else batch
        names = names_of(batch)
        rows = None if self.disk is None else self.disk.read(batch, names, self._compute)
        if rows is None:
            rows = Rows.of(names, self._compute(batch))
            if self.disk is not None:
                self.disk.write(batch, names, rows)
        self.known[first] = rows

    def _compute(self, batch: Batch) -> Tensor:
        if self.ref is None:
            raise RunStopped(
                "a row came that was not among those of the first epoch, and the reference was let go",
                hint="make `collate` give the same rows for the same items, whatever the step",
            )
        return self.ref.logp(batch)

    def _look_up(self, firsts: Sequence[int], batch: Batch) -> tuple[Tensor, Tensor]:
        """`(N, T)`, and the rows not found. A row that is in several batches is taken from the first."""
        known = [self.known[first] for first in firsts]
        where = {name: rows for rows in reversed(known) for name in rows.where}
        found = torch.zeros(batch.mask.shape, dtype=known[0].logp.dtype)
        missing = []
        for i, name in enumerate(names_of(batch)):
            if name in where:
                logp = where[name][name]
                found[i, : len(logp)] = logp
            else:
                missing.append(i)
        return found.to(batch.mask.device), torch.tensor(missing, dtype=torch.long, device=batch.mask.device)

    def _let_go(self) -> None:
        if self.ref is None or self.settled or len(self.known) < self.first_steps:
            return
        self.settled = True
        # Whether rows come again is tried on the batches of the second epoch's start and of the run's end.
        later = {step for step in (self.first_steps, self.steps - 1) if self.first_steps <= step < self.steps}
        if not any(len(self._look_up(self.first_at(step), self.batch_at(step))[1]) for step in later):
            size = self.ref.size
            self.ref = None
            if size >= COLLECTED:
                gc.collect()  # a model lies in a cycle, and its memory is wanted now


def names_of(batch: Batch) -> list[bytes]:
    """A digest of each row's inputs, the same in every batch: padding (zeros at the end) does not count."""
    columns = [(name, x.flatten(1) if x.dim() > 1 else x[:, None]) for name, x in sorted(batch.inputs.items())]
    arrays = [(name.encode(), x.cpu().contiguous().view(torch.uint8).numpy()) for name, x in columns]
    names = []
    for i in range(len(batch)):
        total = hashlib.blake2b(digest_size=16)
        for name, rows in arrays:
            data = rows[i].tobytes().rstrip(b"\0")
            total.update(b"%s %d " % (name, len(data)))
            total.update(data)
        names.append(total.digest())
    return names


# ---------------------------------------------------------------- on disk


class Disk:
    """Batches of reference log-probabilities in a folder: `FOLDER/ref-logp/REFERENCE/BATCH.safetensors`.

    Nothing that goes wrong here stops a run: what cannot be read is computed, what cannot be written is left out, with one warning.
    The first batch that is found is computed all the same: when it is not the same to the last bit, the cache is not used.
    """

    def __init__(self, folder: Path, ref: Frozen) -> None:
        self.folder = folder / "ref-logp" / identity(ref)
        self.tried = False
        self.usable = True

    def read(self, batch: Batch, names: Sequence[bytes], compute: Callable[[Batch], Tensor]) -> Rows | None:
        """The batch, or None when it is not there, or not to be trusted."""
        path = self._path(batch, names)
        if not self.usable or not path.exists():
            return None
        try:
            rows = _load(path, names)
        except (OSError, ValueError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
            log.warning("the reference cache file %s can't be read (%s): computed again", path, error)
            return None
        if not self.tried:
            self.tried = True
            again = Rows.of(names, compute(batch))
            if not torch.equal(again.logp, rows.logp):
                log.warning("the reference cache %s is not what is computed now: not used in this run; delete that folder", self.folder)
                self.usable = False
                return again
        return rows

    def write(self, batch: Batch, names: Sequence[bytes], rows: Rows) -> None:
        """Put the batch there, whole or not at all."""
        if not self.usable:
            return
        path = self._path(batch, names)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                temporary = Path(folder) / path.name
                _save(temporary, rows)
                os.replace(temporary, path)
        except OSError as error:
            log.warning("the reference cache %s can't be written (%s): not used in this run", self.folder, error)
            self.usable = False

    def _path(self, batch: Batch, names: Sequence[bytes]) -> Path:
        """By the rows in their order, and by how they are grouped: what is computed together is part of what is computed."""
        total = hashlib.blake2b(b"".join(names), digest_size=16)
        for x in (batch.group, batch.unit):
            total.update(x.cpu().numpy().tobytes())
        return self.folder / f"{total.hexdigest()}.safetensors"


def identity(ref: Frozen) -> str:
    """A digest of what a reference's bits depend on: weights, settings, the machine and the versions that compute them."""
    settings = {name: value for name, value in ref.policy.facts.items() if name not in ("model", "trainable")}  # type: ignore[attr-defined]
    versions = (guerdon.__version__, torch.__version__, version("transformers"))
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    machine = (torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), gpu)
    text = json.dumps([ref.identity, settings, ref.rows, versions, machine], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _save(path: Path, rows: Rows) -> None:
    tensors = {"logp": rows.logp, "length": rows.length}
    save_file(tensors, path, metadata={"digest": digest(tensors.items())})


def _load(path: Path, names: Sequence[bytes]) -> Rows:
    tensors = load_file(path)
    with safetensors.safe_open(path, framework="pt") as file:
        written = (file.metadata() or {}).get("digest")
    if written != digest([("logp", tensors["logp"]), ("length", tensors["length"])]):
        raise ValueError("its digest is not the one it was written with")
    return Rows(names, tensors["length"], tensors["logp"])


def disk_for(ref: Frozen, where: str) -> Disk | None:
    """The cache of a setting: `auto` (on for `LARGE` references), `on`, `off`, or a folder. None: off.

    It lies in the cache folder of the data (`GUERDON_HOME`, else `$XDG_CACHE_HOME/guerdon`, else `~/.cache/guerdon`). Off for policies
    that don't tell their settings (`policy.facts`): nobody knows then what their bits depend on.
    """
    if where == "off" or not hasattr(ref.policy, "facts") or (where == "auto" and ref.size < LARGE):
        return None
    return Disk(cache_dir() if where in ("auto", "on") else Path(where).expanduser(), ref)
