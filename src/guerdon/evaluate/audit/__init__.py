"""Is a reward right, calibrated, and hard to game? `audit(reward, material)` asks it thousands of questions and says so.

A finding a probe; a file a family of probes. What data or policy would be needed for is reported as not measured, never as sound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.evaluate.audit import accuracy, attacks, calibration, form, hacks, health, invariance, leak, length, optimise, order
from guerdon.evaluate.audit.finding import Audit, Finding, Plot, Row, unmeasured
from guerdon.evaluate.audit.limits import Limits
from guerdon.evaluate.audit.material import Material, Pair, gather
from guerdon.evaluate.audit.measure import Context
from guerdon.evaluate.audit.subject import Subject
from guerdon.rewards.adapt import adapt
from guerdon.types import Policy, Prompt, Reward

__all__ = ["Audit", "Finding", "Limits", "Material", "Pair", "Plot", "Row", "audit", "gather"]

Probe = Callable[[Context], Finding]

PROBES: dict[str, Probe] = {
    # Causes before symptoms: a reward that is not deterministic looks sensitive to everything.
    "latency": health.latency,
    "failures": health.failures,
    "abstention": health.abstention,
    "constancy": health.constancy,
    "determinism": health.determinism,
    "position": order.position,
    "batch": order.batch,
    "leak": leak.leak,
    "white space": invariance.spaces,
    "case": invariance.case,
    "paraphrase": invariance.paraphrase,
    "options": order.options,
    "length": length.length,
    "form": form.form,
    "repetition": length.repetition,
    "prompt copy": attacks.copying,
    "injection": attacks.injection,
    "sycophancy": attacks.sycophancy,
    "keywords": hacks.keywords,
    "junk": attacks.junk,
    "search": hacks.search,
    "saturation": health.saturation,
    "calibration": calibration.calibration,
    "shift": accuracy.shifted,
    "accuracy": accuracy.accuracy,
}
"""The items of an audit, in the order in which they are asked and told."""


def audit(
    reward: Reward | Callable[..., object],
    material: Material,
    *,
    limits: Limits | None = None,
    key: Key = Key(0),
    policy: Policy | None = None,
    judge: Reward | None = None,
    prompts: Sequence[Prompt] = (),
    samples: int = 64,
    log_odds: bool | None = None,
    on_finding: Callable[[Finding], None] = lambda finding: None,
    more: Callable[[Context], Sequence[Finding]] = lambda context: (),
) -> Audit:
    """Ask a reward everything that the material allows, and say what is sound, weak, broken, or not measured.

    reward: anything that `guerdon.rewards.adapt` takes. policy, judge: for over-optimisation by best of `samples` answers to each of
    `prompts` (default: those of the clear pairs). log_odds: its differences claim to be log-odds, as those of a fitted reward model do;
    None: what the attribute `log_odds` of the reward, or of the function in it, says, else no. on_finding: told each finding as it is
    made. more: further findings.

    Raises UserError for a reward that gives no value on any of the material.
    """
    limits = limits or Limits()
    made = adapt(reward)
    claims = log_odds if log_odds is not None else any(getattr(x, "log_odds", False) for x in (made, getattr(made, "fn", None)))
    subject = Subject(made, rows=limits.rows, timeout_s=limits.timeout_s)
    ctx = Context(subject, material, limits, key.fold("audit"), policy=policy, judge=judge, log_odds=claims)
    found: list[Finding] = []

    def tell(finding: Finding) -> None:
        found.append(finding)
        on_finding(finding)

    for item, probe in PROBES.items():
        tell(affordable(ctx, item) or probe(ctx))
        if item == "failures":
            check(ctx)
    asked = list(prompts) or list({p.better.prompt.id: p.better.prompt for p in material.clear}.values())[:16]
    results, drawn = optimise.curves(ctx, asked, n=samples)
    for finding in results:
        tell(finding)
    if drawn is not None:
        tell(hacks.drawn(ctx, drawn.rollouts, drawn.proxy, drawn.gold))
    for finding in more(ctx):
        tell(finding)
    facts = {"responses asked": subject.asked, "calls": subject.calls, "seconds": subject.seconds, "log-odds": claims}
    facts |= {"pairs": len(material.pairs), "clear pairs": len(material.clear), "built-in texts": material.built_in}
    return Audit(subject.name, tuple(found), facts)


def affordable(ctx: Context, item: str) -> Finding | None:
    """A finding that says so when the next probe would exceed the time that the audit may take."""
    if item in ("latency", "failures"):
        return None
    rows = {"accuracy": 2 * len(ctx.material.pairs)}.get(item, 4 * len(ctx.texts))
    expected = ctx.notes.get("seconds a response", 0.0) * rows
    if ctx.subject.seconds + expected <= ctx.limits.budget_s:
        return None
    return unmeasured(item, f"it would take {expected:.0f} s more; allow more than {ctx.limits.budget_s:.0f} s with --budget")


def check(ctx: Context) -> None:
    """Stop where nothing can be measured because the reward says nothing at all."""
    if bool(ctx.base.isnan().all()):
        raise UserError(
            f"the reward {ctx.subject.name!r} gives no value on any response: {ctx.answers.notes[0]}",
            hint="give --data with what it asks for",
        )
