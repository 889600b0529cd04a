"""One recipe after another, as one."""

from __future__ import annotations

from guerdon.types import Metrics, Recipe


def chain(**parts: Recipe) -> Recipe:
    """All steps of the first part, then all of the next: supervised warm-up and then rounds, for instance.

    State of part `a` is kept as `a_learner` and so on. All probes stay, and count the steps of the whole; final weights and facts are
    those of the last part.
    """

    def step(t: int) -> Metrics:
        inner = t
        for part in parts.values():
            if inner < part.steps:
                return part.step(inner)
            inner -= part.steps
        raise IndexError(f"step {t}: there are {sum(part.steps for part in parts.values())}")

    state = {f"{name}_{key}": thing for name, part in parts.items() for key, thing in part.state.items()}
    probes = tuple(probe for part in parts.values() for probe in part.probes)
    last = [*parts.values()][-1]
    return Recipe(state, step, sum(part.steps for part in parts.values()), probes, last.final, last.facts)
