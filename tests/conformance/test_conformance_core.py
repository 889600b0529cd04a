"""Every public function of the objective and credit topics keeps its kind's promises; one without an entry here fails."""

import importlib
import inspect
import pkgutil
from functools import partial

import pytest
import torch

import guerdon.core
from guerdon.core import credit, kl, preference, reward_loss, surrogate
from guerdon.testing import check_credit, check_objective

OBJECTIVES = ("surrogate", "preference", "reward_loss", "kl")
CREDIT = ("credit",)
OTHER = {  # topics whose functions are neither, and are tested in tests/core
    "masked": "sums and means over masks and groups",
    "reduce": "reductions",
    "place": "spans to arrays",
    "stats": "statistics",
    "rng": "keys",
    "logprob": "log-probabilities of a linear head",
}
HELPERS = {  # public functions of the topics above that are no objective and no estimator
    "surrogate.ratio": "a quantity to log",
    "surrogate.clip_fraction": "booleans to log",
    "preference.square_to": "makes a link; checked inside ipo",
    "preference.kto_kl": "a constant of the batch",
    "preference.accuracy": "a quantity to log",
    "kl.penalty": "a reward, without a gradient",
    "kl.adapt": "a controller: numbers in, number out",
    "credit.running_baseline": "state in, state out",
    "credit.broadcast": "spreads (N,) to (N, T)",
    "credit.judged": "a mask",
}

DRAW = torch.Generator().manual_seed(5)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=DRAW, dtype=torch.float64)


N, T = 6, 4
MASK = torch.arange(T) < torch.tensor([4, 2, 0, 3, 1, 4])[:, None]
WIN, LOSE, Z = normal(N), normal(N), normal(N)
LOGP, OLD, REF, ADV, VALUE, TARGET = (normal(N, T) for _ in range(6))
LABEL = torch.tensor([1.0, 0.0, 0.75, 0.5, 1.0, 0.0], dtype=torch.float64)
DESIRED = torch.tensor([True, False, True, True, False, False])
ZERO = torch.zeros(N, T, dtype=torch.float64)
HALF = torch.full((N,), 0.5, dtype=torch.float64)
PG = dict(args={"logp": LOGP, "old_logp": OLD, "adv": ADV}, wrt=["logp"], no_signal={"adv": ZERO})
PAIR = dict(args={"win_logratio": WIN, "lose_logratio": LOSE}, wrt=["win_logratio", "lose_logratio"])
TIE = {"lose_logratio": WIN, "label": HALF}
KL = dict(args={"logp": LOGP, "ref_logp": REF}, wrt=["logp"], no_signal={"ref_logp": LOGP})
BT = dict(args={"chosen": WIN, "rejected": LOSE}, wrt=["chosen", "rejected"], no_signal={"weight": torch.zeros(N, dtype=torch.float64)})
IMPLICIT = dict(args={"logp": LOGP, "ref_logp": REF, "mask": MASK}, wrt=["logp"], mask="mask")

CASES = {
    "surrogate.reinforce": [(surrogate.reinforce, dict(args={"logp": LOGP, "adv": ADV}, wrt=["logp"], no_signal={"adv": ZERO}))],
    "surrogate.ppo_clip": [
        (surrogate.ppo_clip, PG),
        (partial(surrogate.ppo_clip, eps_low=0.2, eps_high=0.28, dual=3.0), PG),
    ],
    "surrogate.entropy_bonus": [(surrogate.entropy_bonus, dict(args={"entropy": LOGP.abs()}, wrt=["entropy"]))],
    "surrogate.value_loss": [
        (surrogate.value_loss, dict(args={"value": VALUE, "target": TARGET}, wrt=["value"], no_signal={"target": VALUE})),
        (
            partial(surrogate.value_loss, clip=0.2),
            dict(args={"value": VALUE, "target": TARGET, "old_value": OLD}, wrt=["value"], no_signal={"target": VALUE, "old_value": VALUE}),
        ),
    ],
    "preference.logistic": [(preference.logistic, dict(args={"z": Z}, wrt=["z"]))],
    "preference.pairwise": [
        (preference.pairwise, dict(args={"margin": Z, "label": LABEL}, wrt=["margin"], no_signal={"weight": 0.0})),
        (
            partial(preference.pairwise, link=preference.square_to(1.0), offset=0.3),
            dict(args={"margin": Z, "label": LABEL}, wrt=["margin"]),
        ),
    ],
    "preference.dpo": [
        (preference.dpo, {**PAIR, "no_signal": TIE}),
        (partial(preference.dpo, beta=0.5), {**PAIR, "args": {**PAIR["args"], "label": LABEL}, "no_signal": TIE}),
    ],
    "preference.ipo": [
        (preference.ipo, {**PAIR, "no_signal": TIE}),
        (preference.ipo, {**PAIR, "args": {**PAIR["args"], "win_len": torch.tensor([3, 1, 4, 1, 5, 9]), "lose_len": torch.full((N,), 2)}}),
    ],
    "preference.simpo": [
        (
            preference.simpo,
            dict(
                args={"win_logp_mean": WIN, "lose_logp_mean": LOSE},
                wrt=["win_logp_mean", "lose_logp_mean"],
                no_signal={"lose_logp_mean": WIN, "label": HALF, "gamma": 0.0},
            ),
        )
    ],
    "preference.kto": [
        (partial(preference.kto, lambda_u=1.5), dict(args={"logratio": Z, "desirable": DESIRED, "kl": 0.1}, wrt=["logratio"]))
    ],
    "preference.implicit_reward": [(preference.implicit_reward, dict(args={"logp_sum": WIN, "ref_logp_sum": LOSE}, wrt=["logp_sum"]))],
    "reward_loss.bradley_terry": [
        (reward_loss.bradley_terry, BT),
        (reward_loss.bradley_terry, {**BT, "args": {**BT["args"], "margin": Z.abs(), "label": LABEL}}),
    ],
    "reward_loss.centering": [
        (reward_loss.centering, dict(args={"chosen": WIN, "rejected": LOSE}, wrt=["chosen", "rejected"], no_signal={"rejected": -WIN}))
    ],
    "reward_loss.implicit_rewards": [(reward_loss.implicit_rewards, IMPLICIT)],
    "reward_loss.implicit_outcome_ce": [
        (
            reward_loss.implicit_outcome_ce,
            {**IMPLICIT, "args": {**IMPLICIT["args"], "label": LABEL}, "shape": (N,), "no_signal": {"label": HALF * torch.nan}},
        )
    ],
    "kl.estimate": [(partial(kl.estimate, kind=kind), dict(args={"d": LOGP}, wrt=["d"])) for kind in kl.SHOW],
    "kl.kl": [
        *((partial(kl.kl, show=kind, grad=kind), KL if kind != "k1" else {**KL, "no_signal": None}) for kind in kl.SHOW),
        (kl.kl, {**KL, "gradcheck": False}),  # shows k3, follows k2: value and gradient are two choices
        (partial(kl.kl, grad="score"), {**KL, "gradcheck": False}),
    ],
}

CREDITS = {
    "credit.reinforce": [(lambda r, g: credit.reinforce(r), dict(grouped=False, shift_invariant=False))],
    "credit.grpo": [(credit.grpo, {}), (partial(credit.grpo, eps=1e-4, ddof=0), {})],
    "credit.dr_grpo": [(credit.dr_grpo, {})],
    "credit.rloo": [(credit.rloo, {})],
    "credit.reinforce_pp_baseline": [(lambda r, g: credit.reinforce_pp_baseline(r, torch.ones(len(r), 3, dtype=torch.bool), g), {})],
    "credit.returns": [
        (lambda r, m, g, gamma=gamma: credit.returns(r, m, gamma), dict(dense=True, grouped=False, shift_invariant=False))
        for gamma in (1.0, 0.9)
    ],
    "credit.gae": [
        (lambda r, m, g: credit.gae(r, torch.zeros_like(r), m, gamma=0.9)[0], dict(dense=True, grouped=False, shift_invariant=False))
    ],
    "credit.reinforce_pp": [(lambda r, m, g: credit.reinforce_pp(r, m), dict(dense=True, grouped=False, shift_invariant=False))],
    "credit.token_rloo": [(credit.token_rloo, dict(dense=True)), (partial(credit.token_rloo, scaled=True), dict(dense=True))],
    "credit.prime": [(lambda r, m, g: credit.prime(torch.where(m[:, 0], r[:, 0], 0.0), r, m, g), dict(dense=True))],
}


def public(topic: str) -> set[str]:
    module = importlib.import_module(f"guerdon.core.{topic}")
    return {f"{topic}.{n}" for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module.__name__ and n[0] != "_"}


def test_every_topic_has_a_place_here():
    topics = {info.name for info in pkgutil.iter_modules(guerdon.core.__path__) if not info.name.startswith("_")}
    assert topics == {*OBJECTIVES, *CREDIT, *OTHER}, "put the new topic into OBJECTIVES, CREDIT or OTHER"


def test_every_public_function_has_an_entry():
    known = {*CASES, *CREDITS, *HELPERS}
    found = set().union(*(public(topic) for topic in (*OBJECTIVES, *CREDIT)))
    assert found - known == set(), "give each of these example arguments in CASES or CREDITS (or a reason in HELPERS)"
    assert known - found == set(), "these are gone: take their entries out"


@pytest.mark.parametrize(
    ("fn", "how"), [pytest.param(*case, id=f"{name}-{i}") for name, cases in CASES.items() for i, case in enumerate(cases)]
)
def test_objectives(fn, how):
    check_objective(fn, **how)


@pytest.mark.parametrize(
    ("fn", "how"), [pytest.param(*case, id=f"{name}-{i}") for name, cases in CREDITS.items() for i, case in enumerate(cases)]
)
def test_estimators(fn, how):
    check_credit(fn, **how)
