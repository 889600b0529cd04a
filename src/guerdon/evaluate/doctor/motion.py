"""How does the policy move, and how does it learn? Checks on everything but the reward itself."""

from __future__ import annotations

from collections.abc import Iterator

from guerdon.core.series import change, mean, median, since, spikes
from guerdon.evaluate.doctor.findings import Check, Finding, Limits, samples
from guerdon.evaluate.doctor.rewards import FEW, step_at
from guerdon.evaluate.journal import Journal, Series

VITAL = ("loss", "loss/*", "grad_norm", "kl", "kl/sequence", "entropy", "ratio", "reward", "logps/*", "rewards/chosen", "rewards/rejected")
LATENT = ("monitor/logratios/chosen",)
DRIFT = "sampling/sampling_logp_difference/mean"
QUIET = ("fine", "not measured")  # words of the monitor that are no illness
SAME = {"displaced": "likelihood displacement", "nothing learnt": "no learning"}
TIMED = frozenset({"control", "diffusion"})  # domains where an end by length is the usual one


def broken(journal: Journal, limits: Limits) -> Iterator[Finding]:
    """Numbers that are NaN or infinite, and runs that were stopped for such a reason."""
    names = [n for check in VITAL for n in journal.names if n == check or (check.endswith("*") and n.startswith(check[:-1]))]
    bad = {n: steps for n in names if (steps := journal.not_finite(n))}
    why, at = str(journal.stopped.get("why", "")).partition("\nhint:")[0], journal.stopped.get("step")
    fatal = "not finite" in why
    if not bad and not fatal:
        return
    first = min((steps[0] for steps in bad.values()), default=at)
    said = [f"{n} is NaN or infinite in {len(steps)} steps" for n, steps in list(bad.items())[:3]] + ([why] if fatal else [])
    usual = journal.series("grad_norm")
    yield Finding(
        "not finite",
        "; ".join(said),
        "a lower learning rate with a warm-up, a bound on the reward (rewards.combine.Clip), or a smaller --max-grad-norm",
        first,
        {**{n: float(len(steps)) for n, steps in bad.items()}, **({"last grad_norm": usual.values[-1]} if usual else {})},
        samples(journal, lambda row: True),
    )


def ended(journal: Journal, limits: Limits) -> Iterator[Finding]:
    """A run that was stopped for another reason: no reward at all, a disk that is full."""
    why = str(journal.stopped.get("why", ""))
    if not why or "not finite" in why:
        return
    said, _, hint = why.partition("\nhint: ")
    unjudged = "are missing" in said or "abstained" in said or "gave no value" in said
    illness = "abstention" if unjudged else "stopped"
    rows = samples(journal, lambda row: row.get("reward") is None) if unjudged else ()
    yield Finding(
        illness, f"the run was stopped: {said}", hint or "read the reason, mend it, and resume", journal.stopped.get("step"), {}, rows
    )


def truncated(journal: Journal, limits: Limits) -> Iterator[Finding]:
    """Answers that are cut off have no end to be judged, and are taught to go on."""
    seen = journal.series("completions/clipped_ratio")
    level = mean(seen.last().values)
    if len(seen) < FEW or not level >= limits.truncated or _domain(journal) in TIMED:
        return
    length = mean(journal.series("completions/mean_length").last().values)
    yield Finding(
        "all truncated",
        f"{level:.0%} of the responses are cut off at the limit, {length:.3g} tokens on average",
        "a larger --max-new; if it is large enough, reward the end (rewards.combine.Ended), and check the stop tokens of the chat template",
        step_at(seen, since(seen.values, lambda x: x >= limits.truncated)),
        {"completions/clipped_ratio": level, "completions/mean_length": length},
        samples(journal, lambda row: row.get("end") == "length"),
    )


def _domain(journal: Journal) -> str:
    """The domain of the run's method; empty when it has none by name."""
    from guerdon.catalog import card
    from guerdon.errors import UserError

    try:
        return card(journal.paper).domain if journal.paper else ""
    except (UserError, OSError):
        return ""


def far(journal: Journal, limits: Limits) -> Iterator[Finding]:
    """The policy has left its start."""
    token, response = journal.series("kl"), journal.series("kl/sequence")
    a, b = mean(token.last().values), mean(response.last().values)
    over = b > limits.budget if limits.budget is not None else a > limits.kl_token and b > limits.kl_response
    if not over or min(len(token), len(response)) < FEW:
        return
    edge = limits.budget if limits.budget is not None else limits.kl_response
    yield Finding(
        "KL off budget",
        f"the policy is {b:.3g} nats a response away from its start ({a:.2g} a token), the budget is {edge:g}",
        "a stronger leash (--beta), a lower learning rate, or fewer steps; a reward that pays so far out is likely gamed",
        step_at(response, since(response.values, lambda x: x > edge)),
        {"kl": a, "kl/sequence": b},
        samples(journal, lambda row: True),
    )


def collapsed(journal: Journal, limits: Limits) -> Iterator[Finding]:
    """The policy says the same again and again: nothing is explored any more."""
    seen = journal.series("entropy")
    if len(seen) < 2 * FEW:
        return
    moved = change(seen.values, 0.2, most=5)
    if not (moved.before > 0 and moved.after < limits.entropy * moved.before):
        return
    edge = limits.entropy * moved.before
    yield Finding(
        "entropy collapse",
        f"entropy fell from {moved.before:.3g} to {moved.after:.2g} nats a token ({moved.after / moved.before:.0%} of its start)",
        "an entropy bonus or a stronger leash (--beta), a lower learning rate, a higher --eps-high; or stop at the step where it began",
        step_at(seen, since(seen.values, lambda x: x < edge)),
        {"entropy before": moved.before, "entropy after": moved.after},
        samples(journal, lambda row: True),
    )


def lengths(journal: Journal, limits: Limits) -> Iterator[Finding]:
    """Answers become longer or shorter, perhaps because the reward pays for it."""
    seen, pays = journal.series("completions/mean_length"), journal.series("reward/length_correlation")
    if len(seen) < 2 * FEW or _domain(journal) in TIMED:
        return
    moved = change(seen.values, 0.2, most=5)
    factor = moved.after / moved.before if moved.before else 1.0
    if limits.shorter < factor < limits.longer or abs(moved.z) < limits.z or abs(moved.gain) < 1:
        return
    way = "longer" if factor > 1 else "shorter"
    early = mean(pays.values[: max(1, len(pays) // 3)])
    paid = (
        f"; the reward goes with the length (correlation {early:+.2f} at first)"
        if pays and early * moved.gain > 0 and abs(early) > 0.2
        else ""
    )
    edge = (moved.before + moved.after) / 2
    yield Finding(
        "length drift",
        f"responses became {way}: {moved.before:.3g} to {moved.after:.3g} tokens{paid}",
        "take the length out of the reward (a penalty: --reward length=..., or a debiased reward model), or normalise the loss by tokens",
        step_at(seen, since(seen.values, lambda x: x > edge if factor > 1 else x < edge)),
        {"length before": moved.before, "length after": moved.after, **({"reward/length_correlation": early} if pays else {})},
        samples(journal, lambda row: True),
    )


def off_policy(journal: Journal, limits: Limits) -> Iterator[Finding]:
    """The samples are no longer those of the policy that learns from them."""
    low, high = journal.series("clip_ratio/low"), journal.series("clip_ratio/high")
    ratio, drift = journal.series("ratio"), journal.series(DRIFT)
    clipped, gap = _worst(low) + _worst(high), _worst(drift)
    ends = (_worst(ratio), -_worst(ratio, -1)) if len(ratio) >= FEW else (1.0,)
    far = max(ends, key=lambda x: abs(x - 1))
    away = abs(far - 1)
    said = [f"{clipped:.0%} of the decisions are outside the clip range"] if clipped > limits.clipped else []
    said += [f"the mean ratio is {far:.3g}"] if away > limits.ratio else []
    said += [f"sampler and learner differ by {gap:.2g} nats a token before the first update"] if gap > limits.drift else []
    if not said:
        return
    advice = "fewer passes over the samples (--epochs, --minibatches) or a lower learning rate"
    if gap > limits.drift:
        advice = "make the sampler's distribution the learner's (temperature, top-p, number format, weights handed over); " + advice
    worst = low if mean(low.values) > mean(high.values) else high
    yield Finding(
        "off-policy",
        "; ".join(said),
        advice,
        step_at(worst, since(worst.values, lambda x: x > limits.clipped / 2)),
        {"clip_ratio": clipped, "ratio": far, DRIFT: gap},
    )


def _worst(series: Series, sign: int = 1) -> float:
    """The larger one of its level at first and at last; 0 where there is too little of it. sign -1: the smaller one, negated."""
    if len(series) < FEW:
        return 0.0
    moved = change(series.values, 0.2, most=5)
    return max(sign * moved.before, sign * moved.after)


def jumps(journal: Journal, limits: Limits) -> Iterator[Finding]:
    """Gradients that are suddenly many times the usual size."""
    seen = journal.series("grad_norm")
    places = spikes(seen.values, factor=limits.spike)
    if not places:
        return
    usual, worst = median(seen.values), max(places, key=lambda i: seen.values[i])
    yield Finding(
        "gradient spikes",
        f"the gradient norm was {seen.values[worst]:.3g} at step {seen.steps[worst]}, usually {usual:.2g} "
        f"({len(places)} steps above {limits.spike:g} times the usual)",
        "clip (--max-grad-norm), warm up, and look at the samples of that step: an outlier in reward or length is the usual cause",
        seen.steps[places[0]],
        {"grad_norm": seen.values[worst], "usual": usual, "steps": float(len(places))},
        samples(journal, lambda row: int(row["step"]) == seen.steps[worst]),
    )


def monitored(journal: Journal, limits: Limits) -> Iterator[Finding]:
    """What the run's monitor said of held-out preferences; of a run that goes on, whether the chosen answers became less likely."""
    for said in journal.verdicts:
        word = str(said.get("verdict", ""))
        if word and word not in QUIET:
            why, _, advice = str(said.get("why", "")).rpartition(": ")
            yield Finding(SAME.get(word, word), why or advice, advice if why else "see docs/concepts/likelihood-displacement.md")
    if not journal.verdicts:
        yield from _displaced(journal)


def _displaced(journal: Journal) -> Iterator[Finding]:
    from guerdon.evaluate.verdicts import Limits as Monitor

    chosen, rejected = journal.series(LATENT[0]), journal.series("monitor/logratios/rejected")
    if len(chosen) < 2 or not (chosen.values[-1] < 0 and max(chosen.values) - chosen.values[-1] > Monitor().displaced):
        return
    other = rejected.values[-1] if rejected else 0.0
    yield Finding(
        "likelihood displacement",
        f"the chosen answers are {-chosen.values[-1]:.3g} nats less likely than at the start, the rejected ones {-other:.3g}",
        "try dpop, cal_dpo, or an NLL term (rpo)",
        step_at(chosen, since(chosen.values, lambda x: x < 0)),
        {"monitor/logratios/chosen": chosen.values[-1], "monitor/logratios/rejected": other},
    )


FIRST: tuple[Check, ...] = (Check("not finite", broken), Check("stopped", ended))
CHECKS: tuple[Check, ...] = (
    Check("all truncated", truncated, ("completions/clipped_ratio",)),
    Check("off-policy", off_policy, ("ratio", "clip_ratio/*", DRIFT)),
    Check("KL off budget", far, ("kl",)),
    Check("entropy collapse", collapsed, ("entropy",)),
    Check("length drift", lengths, ("completions/mean_length",)),
    Check("gradient spikes", jumps, ("grad_norm",)),
    Check("likelihood displacement", monitored, LATENT),
)
