"""What a `RunMonitor` saw, in plain words: what happened to the held-out answers, since which step, and what to change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from guerdon.core import preference
from guerdon.core.monitor import Sign, fall_from_peak


@dataclass(frozen=True)
class Look:
    """One evaluation. step: as in `metrics.jsonl`. values: by name (None: nothing to measure). chosen, rejected: log-ratios to the start in
    nats, one per held-out pair."""

    step: int
    values: Mapping[str, float | None]
    chosen: Sequence[float]
    rejected: Sequence[float]


@dataclass(frozen=True)
class Limits:
    """From when on something is worth a word; house choices.

    displaced: nats by which the mean chosen answer becomes less likely. accuracy: share of pairs by which ordering them falls behind its
    best. length: relative change of the answers' length. kl: nats a response away from the start. Falls count from two standard
    errors over the held-out pairs on, too.
    """

    displaced: float = 1.0
    accuracy: float = 0.05
    length: float = 0.25
    kl: float = 10.0


Verdict = Mapping[str, str]


def verdicts(looks: Sequence[Look], signs: Sequence[Sign], limits: Limits, *, stopped: bool) -> list[Verdict]:
    """Everything worth a word, the worst first; one `fine` where nothing is. stopped: whether a sign ends the run.

    looks: the start first. A start alone says that nothing was measured yet.
    """
    if len(looks) < 2:
        return [_said("not measured", "the run ended before its first evaluation on held-out pairs; lower --monitor.every")]
    found = [
        displaced(looks, limits),
        diversity(looks, signs, stopped),
        ordering(looks, limits),
        length(looks, limits),
        distance(looks, limits),
    ]
    known = [x for x in found if x is not None]
    return known or [_said("fine", numbers(looks))]


def reason(signs: Sequence[Sign], looks: Sequence[Look]) -> str:
    """Why a run should end, empty without a sign."""
    return "; ".join(_sign(sign, looks) for sign in signs)


def displaced(looks: Sequence[Look], limits: Limits) -> Verdict | None:
    """The chosen answers became less likely than they were at the start."""
    fall = fall_from_peak(torch.tensor([x.chosen for x in looks], dtype=torch.float64))
    now = _mean(looks[-1].chosen)
    if not (now < 0 and fall.drop > limits.displaced and fall.drop > 2 * fall.error):
        return None
    also = _mean(looks[fall.since].rejected) - _mean(looks[-1].rejected)
    rest = f"the rejected ones by {also:.3g}" if also > 0 else f"while the rejected ones gained {-also:.3g}"
    why = f"the chosen answers became less likely by {fall.drop:.3g} nats since step {looks[fall.since].step}, {rest}"
    return _said("displaced", f"{why}: try dpop, cal_dpo, or an NLL term (rpo)")


def diversity(looks: Sequence[Look], signs: Sequence[Sign], stopped: bool) -> Verdict | None:
    """The next-token distributions say that the run goes too far."""
    if not signs:
        return None
    way = "the run was ended there" if stopped else "end the run about there (--stop-on-overoptimisation)"
    return _said("over-optimised", f"{reason(signs, looks)}: {way}, or raise beta, or lower the learning rate")


def ordering(looks: Sequence[Look], limits: Limits) -> Verdict | None:
    """Held-out pairs are ordered worse than before, or no better than at the start."""
    right = torch.stack([preference.accuracy(*(torch.tensor(x, dtype=torch.float64) for x in (k.chosen, k.rejected))) for k in looks])
    fall = fall_from_peak(right[1:])
    best, now = right[1 + fall.since].mean(), right[-1].mean()
    if fall.drop > limits.accuracy and fall.drop > 2 * fall.error:
        why = f"{best:.0%} of the held-out pairs were ordered right at step {looks[1 + fall.since].step}, {now:.0%} at the end"
        return _said("past its best", f"{why}: fewer steps, a higher beta, or a lower learning rate")
    margin = torch.tensor(looks[-1].chosen, dtype=torch.float64) - torch.tensor(looks[-1].rejected, dtype=torch.float64)
    error = float(margin.std()) / len(margin) ** 0.5 if len(margin) > 1 else 0.0
    if float(margin.mean()) < -2 * error:
        why = f"the margin of held-out pairs fell by {-margin.mean():.3g} nats"
        return _said("the wrong way", f"{why}: look at the data, chosen and rejected may be swapped")
    if float(margin.mean()) <= 2 * error:
        why = f"the margin of held-out pairs moved by {margin.mean():+.3g} nats, no more than chance ({error:.2g})"
        return _said("nothing learnt", f"{why}: more steps, a higher learning rate, or other pairs")
    return None


def length(looks: Sequence[Look], limits: Limits) -> Verdict | None:
    """Answers became longer or shorter."""
    before, now = (x.values.get("mean_length") for x in (looks[0], looks[-1]))
    if not before or now is None or abs(now / before - 1) <= limits.length:
        return None
    way, take = ("longer", "r_dpo, ln_dpo or simpo") if now > before else ("shorter", "a higher beta, or ipo")
    return _said(f"{way} answers", f"their mean length went from {before:.3g} to {now:.3g} tokens: try {take}")


def distance(looks: Sequence[Look], limits: Limits) -> Verdict | None:
    """The policy is far from its start."""
    kl, now = looks[-1].values.get("kl"), looks[-1].values
    per_token, whole = now.get("logps_per_token/chosen"), now.get("logps/chosen")
    if kl is None or not per_token or whole is None:
        return None
    nats = kl * whole / per_token  # the ratio is the mean length of the chosen answers
    if nats <= limits.kl:
        return None
    return _said("far from its start", f"KL {nats:.3g} nats at a held-out answer of mean length: raise beta, or lower the learning rate")


def numbers(looks: Sequence[Look]) -> str:
    """The last evaluation in one line."""
    now, before = looks[-1].values, looks[0].values
    said = [f"{now['accuracies']:.0%} of {len(looks[-1].chosen)} held-out pairs ordered right"]
    said += [f"chosen answers {now['logratios/chosen']:+.3g} nats, rejected {now['logratios/rejected']:+.3g}"]
    said += [
        f"{name.replace('_', '-', 1).replace('_', ' ')} {before[name]:.3g} -> {now[name]:.3g}"
        for name in ("top_k_mass", "top_k_entropy")
        if now.get(name) is not None and before.get(name) is not None
    ]
    return "; ".join(said)


def _sign(sign: Sign, looks: Sequence[Look]) -> str:
    since, at = looks[sign.since].step, looks[sign.at].step
    if sign.indicator == "entropy":
        return f"the entropy among the likeliest next tokens fell from step {since} on, by {sign.fall:.2g} nats up to step {at} (smoothed)"
    return f"the likeliest next tokens lost {sign.fall:.2g} of their probability from step {since} to step {at} (smoothed)"


def _said(verdict: str, why: str) -> Verdict:
    return {"verdict": verdict, "why": why}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
