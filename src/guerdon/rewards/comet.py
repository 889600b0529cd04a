"""COMET: trained judges of translations, with or without a reference."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from guerdon.data.chat import flat
from guerdon.errors import UserError
from guerdon.rewards.read import reference_or_none, text_of
from guerdon.rewards.rules import references
from guerdon.types import Rollout, Score


@functools.lru_cache(2)
def _loaded(model: str) -> Any:
    """The checkpoint by hub name, or in a local file."""
    try:
        package: Any = importlib.import_module("comet")
    except ModuleNotFoundError as error:
        if error.name != "comet":
            raise
        raise UserError(
            "COMET needs the package 'unbabel-comet', which is not installed",
            hint="pip install unbabel-comet; versions that ask for an older transformers go into an environment of their own, "
            "served to this one by address: --reward http://host:port/score",
        ) from None
    if not hasattr(package, "load_from_checkpoint"):
        raise UserError("the module 'comet' that is installed is not COMET's", hint="pip install unbabel-comet")
    return package.load_from_checkpoint(model if Path(model).is_file() else package.download_model(model))


@final
@dataclass(frozen=True)
class Comet:
    """The score of a COMET model for each translation (Rei et al. 2020, arXiv 2009.09025), usually in [0, 1], higher is better.

    model: hub name or checkpoint file, loaded when first asked. COMETKIWI models (the default; Rei et al. 2022, arXiv 2209.06243) read
    source and translation, others the first reference too: the model itself says which. batch_size: translations in a pass. gpus: how many.
    The source is the column `source`, else the prompt's text. An empty reference, where one is needed, abstains.
    Do not judge a run by the model that it was trained with. Raises UserError where the package is missing.
    """

    model: str = "Unbabel/wmt22-cometkiwi-da"
    batch_size: int = 16
    gpus: int = 0
    name: str = "comet"

    bounded = True  # a forward pass needs no time bound, and must not be cut in the middle

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        if not rollouts:
            return []
        judge = _loaded(self.model)
        rows = [self._row(r, judge.requires_references()) for r in rollouts]
        known = [row for row in rows if row is not None]
        found = judge.predict(known, batch_size=self.batch_size, gpus=self.gpus, progress_bar=False).scores if known else []
        scores = iter(found)
        why = "this COMET model needs a reference, and there is none"
        return [Score.abstain(why) if row is None else Score.whole(r, next(scores)) for r, row in zip(rollouts, rows, strict=True)]

    def _row(self, rollout: Rollout, with_reference: bool) -> dict[str, str] | None:
        source = rollout.prompt.meta.get("source")
        row = {"src": flat(rollout.prompt.content if source is None else source), "mt": text_of(rollout)}
        golds = references(reference_or_none(rollout))
        if not with_reference:
            return row
        return {**row, "ref": golds[0]} if golds and golds[0].strip() else None


comet = Comet()
