"""Is there anything to learn from? Checks on the reward of a run."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from guerdon.core.series import change, mean, median, since
from guerdon.evaluate.doctor.findings import Check, Finding, Limits, samples
from guerdon.evaluate.journal import Journal, Series, finite

FEW = 3  # values below which a level is not judged
GOLD = ("gold/", "judge/")
PART, CORRELATION = "rewards/", "/correlation"


def step_at(series: Series, place: int | None) -> int | None:
    """The step of a place in a series."""
    return None if place is None else series.steps[place]


def abstains(journal: Journal, limits: Limits) -> Iterator[Finding]:
    """Responses that no reward judged: left out of the learning, so the policy is not told what it may not do there."""
    seen = journal.series("reward/abstained")
    level = mean(seen.last().values)
    if len(seen) < FEW or level <= limits.abstained:
        return
    names = [n for n in journal.names if n.startswith(PART) and n.endswith("/abstained")]
    parts = {n: mean(journal.series(n).last().values) for n in names}
    worst = max(parts, key=lambda n: parts[n], default="")
    who = f", most of them by {worst.split('/')[1]}" if parts.get(worst, 0) > limits.abstained else ""
    begin = step_at(seen, since(seen.values, lambda x: x > limits.abstained))
    rows = samples(journal, lambda row: row.get("reward") is None)
    reasons = sorted({str(row["note"]) for row in rows if row.get("note")})
    why = f"{level:.0%} of the responses got no reward{who}" + (f" ({'; '.join(reasons)[:200]})" if reasons else "")
    yield Finding(
        "abstention",
        why,
        "mend what the reward cannot judge (a missing column, an answer that is not found, a timeout), or score it as wrong on purpose",
        begin,
        {"reward/abstained": level, **{n: x for n, x in parts.items() if x > 0}},
        rows,
    )


def latency(journal: Journal, limits: Limits) -> Iterator[Finding]:
    """Steps that wait for their rewards."""
    steps = {int(row["step"]): row for row in journal.rows if finite(row.get("reward/seconds")) and finite(row.get("seconds"))}
    if len(steps) < FEW:
        return
    spent = [float(row["reward/seconds"]) for row in steps.values()]
    share = median([s / max(float(row["seconds"]), 1e-9) for s, row in zip(spent, steps.values(), strict=True)])
    if share <= limits.latency or median(spent) <= limits.latency_seconds:
        return
    parts = {n: median(journal.series(n).values) for n in journal.names if n.startswith(PART) and n.endswith("/seconds")}
    slowest = max(parts, key=lambda n: parts[n], default="")
    who = f", {slowest.split('/')[1]} most ({parts[slowest]:.2g} s)" if len(parts) > 1 else ""
    yield Finding(
        "reward latency",
        f"rewards take {share:.0%} of a step, {median(spent):.2g} s{who}",
        "score in batches (a groupwise reward sees all rows at once), keep slow rules in processes, or ask a smaller judge",
        next(iter(steps)),
        {"share": share, "reward/seconds": median(spent), "seconds": median([float(r["seconds"]) for r in steps.values()]), **parts},
    )


def no_contrast(journal: Journal, limits: Limits) -> Iterator[Finding]:
    """Groups whose responses all earn the same teach nothing: at the ceiling of the reward it is saturated, elsewhere it is blind."""
    flat, reward = journal.series("frac_reward_zero_std"), journal.series("reward")
    highest, lowest = journal.series("reward/max"), journal.series("reward/min")
    level = mean(flat.last().values)
    if reward and highest and lowest:
        yield from _saturated(journal, limits, reward, max(highest.values), min(lowest.values), level)
    if len(flat) < FEW or not level >= limits.zero_std or (highest and _is_top(reward, highest, lowest, limits)):
        return
    begin = step_at(flat, since(flat.values, lambda x: x >= limits.zero_std))
    now = mean(reward.last().values)
    constant = bool(highest) and max(highest.values) == min(lowest.values)
    what = f"the reward was {now:.3g} for every response" if constant else f"the mean reward is {now:.3g}"
    yield Finding(
        "zero-variance groups",
        f"in {level:.0%} of the groups all responses earn the same, so there is nothing to learn from; {what}",
        "easier (or harder) prompts, more responses a group (--n), a higher temperature, or a reward with degrees; "
        "look at whether the reward reads the answers at all",
        begin,
        {"frac_reward_zero_std": level, "reward": now},
        samples(journal, lambda row: finite(row.get("reward"))),
    )


def _is_top(reward: Series, highest: Series, lowest: Series, limits: Limits) -> bool:
    top, bottom = max(highest.values), min(lowest.values)
    return top > bottom and mean(reward.last().values) >= top - limits.top * (top - bottom)


def _saturated(journal: Journal, limits: Limits, reward: Series, top: float, bottom: float, flat: float) -> Iterator[Finding]:
    now, spread = mean(reward.last().values), journal.series("reward_std")
    if len(reward) < FEW or not top > bottom or now < top - limits.top * (top - bottom):
        return
    left = mean(spread.last().values) if spread else 0.0
    if left > 2 * limits.top * (top - bottom) and not flat >= limits.zero_std:
        return
    begin = step_at(reward, since(reward.values, lambda x: x >= top - limits.top * (top - bottom)))
    yield Finding(
        "reward saturated",
        f"the mean reward is {now:.3g}, and it has never been above {top:.3g} (below {bottom:.3g}): "
        f"responses differ by {left:.2g} within a group",
        "stop here, take harder prompts, or a reward that still tells good answers apart; normalised advantages now amplify noise",
        begin,
        {"reward": now, "reward/max": top, "reward/min": bottom, "reward_std": left},
        samples(journal, lambda row: finite(row.get("reward")) and row["reward"] >= top - limits.top * (top - bottom)),
    )


def one_part_rules(journal: Journal, limits: Limits) -> Iterator[Finding]:
    """One summand decides the reward, and another that varies as well does not matter. Parts may go together without mattering, so what
    counts is how much the first leaves to the others."""
    names = {n.removeprefix(PART).removesuffix(CORRELATION): n for n in journal.names if n.startswith(PART) and n.endswith(CORRELATION)}
    tops = {part: n for part, n in names.items() if not any(part.startswith(f"{other}/") for other in names)}
    seen = {part: journal.series(n) for part, n in tops.items()}
    level = {part: mean(s.last(0.5, 20).values) for part, s in seen.items() if len(s) >= FEW}
    if len(level) < 2:
        return
    first = max(level, key=lambda part: level[part])
    idle = [part for part, x in level.items() if part != first and abs(x) <= limits.same]
    if level[first] < limits.rules or not idle:
        return
    numbers = {f"{PART}{part}{CORRELATION}": x for part, x in level.items()}
    begin = step_at(seen[first], since(seen[first].values, lambda x: x >= limits.rules))
    yield Finding(
        "one part dominates",
        f"{first} decides {level[first] ** 2:.1%} of what the reward varies (correlation {level[first]:.3f}); "
        f"{', '.join(idle)} varies too and does not matter ({', '.join(f'{level[p]:.2f}' for p in idle)})",
        f"give the parts one scale before they are summed (rewards.combine.GroupNormalise), or lower the weight of {first}",
        begin,
        numbers,
        samples(journal, lambda row: len(row.get("parts") or {}) > 1),
    )


def gold_falls(journal: Journal, limits: Limits) -> Iterator[Finding]:
    """The reward that is trained on rises while a judge that only looks on falls."""
    proxy = journal.series("reward")
    for name in (n for n in journal.names if n.startswith(GOLD)):
        gold = journal.series(name)
        if min(len(gold), len(proxy)) < 9:
            continue
        third = len(gold) // 3
        sums = [0.0, *accumulate(gold.values)]
        # The best third of those before the last against the last: gold often rises before it falls.
        best = max(range(len(gold) - 2 * third + 1), key=lambda i: sums[i + third] - sums[i])
        fell = change([*gold.values[best : best + third], *gold.values[-third:]], 0.5)
        rose = change(proxy.values)
        if not (fell.z < -limits.z and rose.z > limits.z):
            continue
        spread = journal.series(f"gold_std/{name.partition('/')[2]}")
        if spread and -fell.gain < limits.gold * mean(spread.values):
            continue  # the best stretch is picked after the fact, so a fall needs a size, too
        yield Finding(
            "proxy and gold diverge",
            f"the reward rose from {rose.before:.3g} to {rose.after:.3g} while {name} fell from {fell.before:.3g} to {fell.after:.3g}",
            "stop where the judge was best, strengthen the leash (--beta), or mend the reward: an audit shows what it pays for",
            gold.steps[best + third - 1],
            {"reward before": rose.before, "reward after": rose.after, f"{name} before": fell.before, f"{name} after": fell.after},
            samples(journal, lambda row: finite(row.get("reward"))),
        )


def unlearnt(journal: Journal, limits: Limits) -> Iterator[Finding]:
    """What should rise did not, over enough steps."""
    name, what = _aim(journal)
    seen = journal.series(name) if name else Series()
    enough = max(limits.steps, 0 if journal.over else journal.planned // 2)
    if len(seen) < limits.steps or journal.steps < enough:
        return
    moved = change(seen.values)
    sign = -1 if name == "loss" else 1
    if sign * moved.z > 2 and not _idle(journal):
        return
    if name == "rewards/accuracies" and moved.after >= 0.9 and not _idle(journal):
        return
    norm = journal.series("grad_norm")
    numbers: dict[str, Any] = {f"{name} before": moved.before, f"{name} after": moved.after, "standard error": moved.error}
    numbers |= {"grad_norm": median(norm.values)} if norm else {}
    yield Finding(
        "no learning",
        f"{what} went from {moved.before:.3g} to {moved.after:.3g} in {journal.steps} steps, no more than chance ({moved.error:.2g})",
        "a higher learning rate, more steps or larger groups; look at whether the gradient is 0 (grad_norm) and the right weights train",
        None,
        numbers,
    )


def _idle(journal: Journal) -> bool:
    """Whether a loss on pairs stays where it was: a margin of 1e-8 puts a pair in order, and is nothing."""
    loss = journal.series("loss")
    moved = change(loss.values) if loss and "rewards/accuracies" in journal.names else None
    return moved is not None and abs(moved.gain) < 1e-3 * abs(moved.before)


def _aim(journal: Journal) -> tuple[str, str]:
    """The metric that a run is there to move, and what it is called."""
    known = (("reward", "the mean reward"), ("rewards/accuracies", "the share of pairs in order"), ("loss", "the loss"))
    return next(((name, what) for name, what in known if name in journal.names), ("", ""))


CHECKS: tuple[Check, ...] = (
    Check("abstention", abstains, ("reward/abstained",)),
    Check("reward latency", latency, ("reward/seconds",)),
    Check("reward saturated, zero-variance groups", no_contrast, ("frac_reward_zero_std", "reward/max")),
    Check("one part dominates", one_part_rules, (f"{PART}*{CORRELATION}",)),
    Check("proxy and gold diverge", gold_falls, ("gold/*", "judge/*")),
    Check("no learning", unlearnt, ("reward", "rewards/accuracies", "loss")),
)
