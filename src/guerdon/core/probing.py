"""Hidden states of a reward model: clusters of those it was checked on, and how far a new one is from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor


def nearest(states: Float[Tensor, "N D"], centroids: Float[Tensor, "M D"]) -> Float[Tensor, " N"]:
    """`min_i ||h - c_i||_2`: the distance of each state to the nearest centroid, >= 0, in the units of the states.

    Source: inference-time probing, Wang et al. 2025, arXiv 2511.12464.
    """
    return torch.cdist(states, centroids, compute_mode="donot_use_mm_for_euclid_dist").amin(1)


def kmeans(states: Float[Tensor, "N D"], k: int, *, generator: torch.Generator, rounds: int = 25) -> Float[Tensor, "k D"]:
    """k centres such that states lie near one of them: Lloyd's rounds from a start drawn by distance (k-means++).

    k: 1 gives the mean. A centre that nothing is nearest to moves to the state farthest from all. Fewer states than k: each is a centre,
    the last one several times. Raises ValueError for no states. Source: Lloyd 1982; Arthur and Vassilvitskii 2007.
    """
    if k < 1 or len(states) < 1:
        raise ValueError(f"{k} centres of {len(states)} states\nhint: give at least one of each")
    centres = states[torch.randint(len(states), (1,), generator=generator)]
    for _ in range(k - 1):
        far = nearest(states, centres).square()
        chance = far if bool(far.sum() > 0) else torch.ones_like(far)
        centres = torch.cat((centres, states[torch.multinomial(chance, 1, generator=generator)]))
    for _ in range(rounds):
        distance = torch.cdist(states, centres, compute_mode="donot_use_mm_for_euclid_dist")
        owner = distance.argmin(1)
        moved = torch.stack(
            [states[owner == i].mean(0) if bool((owner == i).any()) else states[distance.amin(1).argmax()] for i in range(k)]
        )
        if bool((moved == centres).all()):
            break
        centres = moved
    return centres


def centroids(
    states: Float[Tensor, "N D"], label: Int[Tensor, " N"], *, clusters: int = 1, generator: torch.Generator, rounds: int = 25
) -> Float[Tensor, "M D"]:
    """The centres of each label's states, label by label: M = labels * clusters. clusters: of each label; 1 takes its mean."""
    parts = [kmeans(states[label == value], clusters, generator=generator, rounds=rounds) for value in label.unique()]
    return torch.cat(parts)


@dataclass(frozen=True)
class Confidence:
    """distance: `(N,)` to the nearest centroid of all dimensions. dimension: `(N,)` which dimension that is, by its place."""

    distance: Float[Tensor, " N"]
    dimension: Int[Tensor, " N"]

    def keep(self, limit: float | int) -> Bool[Tensor, " N"]:
        """Near enough: `distance <= limit`."""
        return self.distance <= limit


def confidence(states: Float[Tensor, "N D"], dimensions: Mapping[str, Float[Tensor, "M D"]] | Sequence[Float[Tensor, "M D"]]) -> Confidence:
    """How near the states are to what each dimension's centroids were made of, and which dimension is nearest: the one relied on.

    dimensions: the centroids of each. Distances of different models do not compare: take the limit from a quantile of the model's own.
    Source: inference-time probing, Wang et al. 2025, arXiv 2511.12464.
    """
    parts = list(dimensions.values()) if isinstance(dimensions, Mapping) else list(dimensions)
    if not parts:
        raise ValueError("no dimensions\nhint: give the centroids of at least one")
    least, which = torch.stack([nearest(states, part) for part in parts]).min(0)
    return Confidence(least, which)


def cuts(rating: Shaped[Tensor, " N"], classes: int) -> Float[Tensor, " C"]:
    """Where to cut ratings into `classes` ordered labels of sizes as equal as ties allow: at most `classes - 1` values, ascending.

    Equal ratings keep together, so that there may be fewer; none for a constant. Label i is for ratings above i of the cuts (`labels`).
    Source: a house choice; Wang et al. 2025, arXiv 2511.12464, merge ratings from 0 to 4 into even classes without saying how.
    """
    if classes < 2:
        raise ValueError(f"{classes} classes, expected at least 2\nhint: 2 is easy, 3 is hard")
    levels, count = rating.double().unique(return_counts=True)
    below = count.cumsum(0)[:-1].double() / len(rating)  # the share at or below each level but the last
    if not len(below):
        return levels[:0]
    return torch.stack([levels[int((below - i / classes).abs().argmin())] for i in range(1, classes)]).unique()


def labels(rating: Shaped[Tensor, " N"], at: Float[Tensor, " C"]) -> Int[Tensor, " N"]:
    """How many of the cuts each rating is above; -1 for NaN, a rating that is missing."""
    x = rating.double()
    return torch.where(x.isnan(), -1, (x[:, None] > at.double()).sum(1))


def probe_loss(logits: Float[Tensor, "N K"], label: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Cross-entropy of a linear probe: one logit for the second of two classes (binary), else one for each class.

    label: in [0, max(2, K)); rows below 0 have none and give 0. Source: Wang et al. 2025, arXiv 2511.12464, and its code.
    """
    there, target = label >= 0, label.clamp(min=0)
    if logits.shape[1] == 1:
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], target.to(logits.dtype), reduction="none")
    else:
        loss = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    return torch.where(there, loss, 0.0)


def guessed(logits: Float[Tensor, "N K"]) -> Int[Tensor, " N"]:
    """The likeliest class of each row."""
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)
