"""What all reward models of the tables share: settings, and offline learning of their terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from guerdon.config import Checked, LoraConfig, Optim, knob
from guerdon.core.rng import Key
from guerdon.learn.learner import learner_for
from guerdon.learn.offline import offline, steps_of
from guerdon.policies.readout import Readout
from guerdon.types import Batch, Policy, Recipe, Term

FREEZE = "train the head alone, on features that are computed once and kept (then a learning rate of .001 to .01)"


@dataclass(frozen=True)
class Fitted(Checked):
    """Settings and recipe of every reward model that is fitted to judgements. WRITES: whether it keeps the body's language-model head."""

    NAME: ClassVar[str] = ""
    WRITES: ClassVar[bool] = False

    model: str = knob("tiny", "the backbone: tiny, a folder, a hub name; with freeze also minilm, a sentence encoder")
    data: str = knob("human-ratings:movie", "preference pairs: a file, a folder, a hub name, or a named source")
    freeze: bool = knob(False, FREEZE)
    batch: int = knob(32, "pairs a step", unit="pairs", at_least=1)
    epochs: float = knob(2.0, "passes over the data", unit="passes", above=0)
    steps: int | None = knob(None, "updates to make; none: as many as `epochs` gives", unit="updates", at_least=1)
    optim: Optim = Optim(lr=5e-4, warmup=10, decay="linear")
    lora: LoraConfig = LoraConfig()

    def head(self) -> Readout:
        """How the head is read: one number, unless the method says otherwise."""
        return Readout()

    def headed(self, scorer: Any, key: Key) -> Any:
        """The scorer with this method's head."""
        head = self.head()
        return scorer if head.kind == "one" else scorer.with_head(head, key.fold("head"))

    def recipe(
        self, scorer: Policy, items: Sequence[Any], terms: Sequence[Term], collate: Callable[[Sequence[Any]], Batch], key: Key
    ) -> Recipe:
        """Offline learning of these terms."""
        steps = self.steps or steps_of(len(items), self.batch, None, self.epochs)
        learner = learner_for(scorer, terms, self.optim, steps)
        return offline(learner=learner, items=items, collate=collate, batch=self.batch, steps=steps, key=key)
