"""Every public function of the objective and credit topics keeps its kind's promises; one without an entry here fails."""

import importlib
import inspect
import pkgutil
from functools import partial
from typing import get_args

import pytest
import torch

import guerdon.core
from guerdon.core import (
    agreement,
    comparisons,
    confidence,
    continuation,
    contrastive_loss,
    credit,
    credit_group,
    doubt,
    gating,
    imitation,
    kl,
    length_bias,
    ordinal,
    preference,
    preference_free,
    preference_lists,
    preference_sides,
    preference_tokens,
    preference_unpaired,
    quantile,
    repetition,
    reward_loss,
    surrogate,
    trust_region,
)
from guerdon.testing import check_credit, check_objective

PREFERENCE = tuple(f"preference{kind}" for kind in ("", "_free", "_lists", "_sides", "_tokens", "_unpaired"))
REWARD_MODELS = ("reward_loss", "ordinal", "quantile", "gating", "comparisons", "length_bias", "doubt")
OBJECTIVES = (
    "surrogate",
    "trust_region",
    *PREFERENCE,
    "agreement",
    "confidence",
    "contrastive_loss",
    "imitation",
    "repetition",
    *REWARD_MODELS,
    "kl",
)
CREDIT = ("credit", "credit_group", "continuation")
OTHER = {  # topics whose functions are neither, and are tested in tests/core
    "monitor": "series of evaluations, and facts of one distribution",
    "series": "numbers logged step by step",
    "bench": "scores of benchmarks",
    "probing": "clusters of hidden states",
    "masked": "sums and means over masks and groups",
    "reduce": "reductions",
    "place": "spans to arrays",
    "contrast": "likelihoods of texts to a reward",
    "rewriting": "token rewards, without a gradient",
    "segments": "rewards of parts of a response, and the loss of a tagger, which has no mask of decisions",
    "brevity": "a reward, without a gradient",
    "judged": "a judge's words to numbers",
    "overlap": "n-grams of texts",
    "strength": "votes to labels and margins",
    "meta": "a quantity to climb",
    "inference_distance": "variances, for people to read",
    "stats": "statistics",
    "certainty": "rewards, without a gradient",
    "calibration": "repairs and facts of probabilities",
    "overoptimisation": "curves, and laws fitted to them",
    "score_table": "reducers of a table of scores",
    "mismatch": "weights, without a gradient",
    "exploration": "masks, without a gradient",
    "rng": "keys",
    "votes": "texts to labels, and a schedule",
    "hidden_reward": "weights of advantages, without a gradient",
    "ranges": "checks of settings",
    "logprob": "log-probabilities of a linear head",
    "newton_schulz": "a matrix to an orthogonal one",
    "fast_mlp": "fast weights: no objective, but what a layer does",
    "delta_rule": "a layer of a network",
}
HELPERS = {  # public functions of the topics above that are no objective and no estimator
    "surrogate.ratio": "a quantity to log",
    "surrogate.clip_fraction": "booleans to log",
    "surrogate.bounds": "two numbers",
    "agreement.agreed": "a mask",
    "confidence.adjusted": "a reward, without a gradient",
    "imitation.imitation_reward": "a reward, without a gradient",
    "imitation.attention_credit": "a reward, without a gradient",
    "imitation.shaping": "a reward, without a gradient",
    "contrastive_loss.sinkhorn": "a constant, for targets",
    "preference.goal_reward": "orders a pair under a goal",
    "preference_tokens.contrast_reward": "a constant, for weights",
    "preference.square_to": "makes a link; checked inside ipo",
    "preference.accuracy": "a quantity to log",
    "preference.wpo_aligned": "a constant, for weights",
    "preference.drawn": "a mask",
    "preference_lists.rejection_sample": "indices, drawn with a generator",
    "preference_lists.accepted": "a mask",
    "preference_unpaired.kto_kl": "a constant of the batch",
    "preference_unpaired.bco_weight": "a constant, for weights",
    "repetition.repeats": "a mask",
    "repetition.copies": "quantities to show",
    "ordinal.thresholds": "parameters to cuts",
    "quantile.levels": "constants",
    "gating.penalties": "constants of a set",
    "gating.ridge": "a fit in closed form",
    "length_bias.slope": "a number of a set",
    "length_bias.lowess": "a curve through a set",
    "length_bias.overlap": "a number of two heads",
    "doubt.epistemic": "a reducer of a table",
    "doubt.aleatoric": "a reducer of a table",
    **{f"comparisons.{name}": "of a table of duels" for name in ("duels", "over_opponents", "max_logits", "max_wins", "bubble")},
    "kl.penalty": "a reward, without a gradient",
    "kl.adapt": "a controller: numbers in, number out",
    "credit.running_baseline": "state in, state out",
    **{f"continuation.{name}": "where to cut a text" for name in ("smoothed", "chunk_probabilities", "cut_points", "long_enough")},
    **{f"continuation.{name}": "a reward, without a gradient" for name in ("match", "cosine", "likeness")},
    "credit.broadcast": "spreads (N,) to (N, T)",
    "credit.judged": "a mask",
    "credit.length_lambda": "a setting of gae, row by row",
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
ROW_PG = dict(
    args={"logp": LOGP, "old_logp": OLD, "adv": WIN, "mask": MASK}, wrt=["logp"], shape=(N,), mask="mask", no_signal={"adv": 0 * WIN}
)
PAIR = dict(args={"win_logratio": WIN, "lose_logratio": LOSE}, wrt=["win_logratio", "lose_logratio"])
VIEWS = dict(args={"one": LOGP, "two": REF}, wrt=["one", "two"], shape=(N,), row_wise=False)
STATED = {name: normal(N) for name in ("chosen_high", "chosen_low", "rejected_high", "rejected_low")}
STATED_RATIOS = {name: normal(N) for name in ("win_high", "win_low", "lose_high", "lose_low")}
OPINIONS = dict(args={"u": WIN, "v": LOSE}, wrt=["u", "v"])
TIE = {"lose_logratio": WIN, "label": HALF}
EVEN = {"win_logratio": 0 * WIN, "lose_logratio": 0 * WIN, "win_rate": 0.5, "lose_rate": 0.5}
MEAN, UNIFORM = -Z.abs() - 0.1, torch.rand(N, generator=DRAW, dtype=torch.float64)
STEPS, CUTS = torch.tensor([0, 1, 3, 2, 3, 1]), torch.tensor([-1.0, 0.2, 0.9], dtype=torch.float64)
UNRATED = {"rating": HALF * torch.nan}
QUANTILES = dict(args={"predicted": LOGP}, wrt=["predicted"], shape=(N,))
DUEL = dict(args={"first": LOGP, "second": REF}, wrt=["first", "second"], shape=(N,))
LENGTHS, DIVERGENCES = torch.tensor([3, 1, 4, 1, 5, 9]), get_args(preference.Divergence)
LAGS = torch.tensor([1, 1, 2, 1, 0, 2])
LOOP = dict(args={"logp": -LOGP.abs(), "mask": MASK, "start": LENGTHS.clamp(max=3), "lag": LAGS}, wrt=["logp"], mask="mask")
MEANS = dict(args={"win_logp_mean": MEAN, "lose_logp_mean": -WIN.abs() - 0.1}, wrt=["win_logp_mean", "lose_logp_mean"])
KL = dict(args={"logp": LOGP, "ref_logp": REF}, wrt=["logp"], no_signal={"ref_logp": LOGP})
BT = dict(args={"chosen": WIN, "rejected": LOSE}, wrt=["chosen", "rejected"], no_signal={"weight": torch.zeros(N, dtype=torch.float64)})
IMPLICIT = dict(args={"logp": LOGP, "ref_logp": REF, "mask": MASK}, wrt=["logp"], mask="mask")


def means(win, lose):
    """A pair of averages under these names."""
    return dict(args={win: MEAN, lose: -WIN.abs()}, wrt=[win, lose])


def with_args(*wrt, **more):
    """A pair of log-ratios with further arguments; `wrt` names those that carry a gradient too."""
    return {"args": {**PAIR["args"], **more}, "wrt": [*PAIR["wrt"], *wrt]}


CASES = {
    "surrogate.reinforce": [(surrogate.reinforce, dict(args={"logp": LOGP, "adv": ADV}, wrt=["logp"], no_signal={"adv": ZERO}))],
    "surrogate.ppo_clip": [
        (surrogate.ppo_clip, PG),
        (partial(surrogate.ppo_clip, eps_low=0.2, eps_high=0.28, dual=3.0), PG),
    ],
    "trust_region.gspo": [(partial(trust_region.gspo, eps_low=0.2, eps_high=0.28), ROW_PG)],
    "trust_region.gspo_token": [
        (
            partial(trust_region.gspo_token, eps_low=0.2, eps_high=0.28),
            {**PG, "args": {**PG["args"], "mask": MASK}, "mask": "mask", "gradcheck": False},
        )
    ],
    "trust_region.cispo": [
        (trust_region.cispo, {**PG, "gradcheck": False}),
        (partial(trust_region.cispo, eps_low=None), {**PG, "gradcheck": False}),
    ],
    "trust_region.minirl": [(trust_region.minirl, {**PG, "gradcheck": False})],
    "trust_region.sapo": [(trust_region.sapo, PG)],
    "trust_region.gmpo": [(trust_region.gmpo, ROW_PG)],
    "trust_region.topr": [(lambda logp, old_logp, adv, mask: trust_region.topr(logp, old_logp, adv, mask), {**ROW_PG, "gradcheck": False})],
    "surrogate.entropy_bonus": [(surrogate.entropy_bonus, dict(args={"entropy": LOGP.abs()}, wrt=["entropy"]))],
    "surrogate.value_loss": [
        (surrogate.value_loss, dict(args={"value": VALUE, "target": TARGET}, wrt=["value"], no_signal={"target": VALUE})),
        (
            partial(surrogate.value_loss, clip=0.2),
            dict(args={"value": VALUE, "target": TARGET, "old_value": OLD}, wrt=["value"], no_signal={"target": VALUE, "old_value": VALUE}),
        ),
    ],
    "imitation.discriminator": [
        (partial(imitation.discriminator, smoothing=eps), dict(args={"logit": Z, "label": LABEL}, wrt=["logit"])) for eps in (0.0, 0.1)
    ],
    "confidence.calibration": [(confidence.calibration, dict(args=STATED, wrt=list(STATED)))],
    "confidence.calibrated_dpo": [
        (
            partial(confidence.calibrated_dpo, beta=0.3, coef=0.5),
            dict(args={**PAIR["args"], **STATED_RATIOS}, wrt=[*PAIR["wrt"], *STATED_RATIOS]),
        )
    ],
    "agreement.two_orders": [
        (agreement.two_orders, dict(args={"first_shown": WIN, "second_shown": LOSE}, wrt=["first_shown", "second_shown"]))
    ],
    "agreement.agreement": [(agreement.agreement, {**OPINIONS, "no_signal": {"u": 0 * WIN, "v": 0 * WIN}})],
    "agreement.divergence": [
        (agreement.divergence, OPINIONS),
        (partial(agreement.divergence, entropy=0.0), {**OPINIONS, "no_signal": {"v": WIN}}),
    ],
    "contrastive_loss.simcse": [(contrastive_loss.simcse, VIEWS)],
    "contrastive_loss.swav": [  # the codes are constants
        (contrastive_loss.swav, {**VIEWS, "args": {**VIEWS["args"], "prototypes": LOGP[:3]}, "gradcheck": False})
    ],
    "repetition.self_decay": [  # the target is a constant
        (partial(repetition.self_decay, kind=kind), {**LOOP, "no_signal": {"lag": 0 * LENGTHS}, "gradcheck": False})
        for kind in ("nl", "nl_clip")
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
        (preference.ipo, {**PAIR, "args": {**PAIR["args"], "win_len": LENGTHS, "lose_len": torch.full((N,), 2)}}),
    ],
    "preference.implicit_reward": [(preference.implicit_reward, dict(args={"logp_sum": WIN, "ref_logp_sum": LOSE}, wrt=["logp_sum"]))],
    **{
        f"preference.{fn.__name__}": [(fn, {**PAIR, "no_signal": silent})]
        for fn, silent in (
            (preference.cdpo, {"lose_logratio": WIN, "eps": 0.5}),
            (preference.robust_dpo, None),
            (preference.hinge, TIE),
            (preference.exo, {"lose_logratio": WIN, "eps": 0.5}),
            (preference.discopop, None),
            (preference.f_dpo, None),
            (preference.dpop, None),
            (preference.dpo_shift, None),
        )
    },
    "preference.f_score": [(partial(preference.f_score, divergence=d), dict(args={"logratio": Z}, wrt=["logratio"])) for d in DIVERGENCES],
    "preference.rao_kupper": [(preference.rao_kupper, with_args(tied=DESIRED))],
    "preference.davidson": [(preference.davidson, with_args(tied=DESIRED))],
    "preference.odpo": [(preference.odpo, with_args(gap=Z))],
    "preference.r_dpo": [(preference.r_dpo, with_args(win_len=LENGTHS, lose_len=LENGTHS.flip(0)))],
    "preference.ln_dpo": [(preference.ln_dpo, means("win_logratio_mean", "lose_logratio_mean"))],
    "preference.wpo": [(preference.wpo, {**with_args(win_aligned=Z, lose_aligned=-Z.abs()), "no_signal": {"win_aligned": Z - 1e4}})],
    "preference.beta_dpo": [  # beta' is a constant that moves with the margins
        (partial(preference.beta_dpo, mean=0.1, std=1.0), {**with_args(uniform=UNIFORM), "gradcheck": False, "row_wise": False})
    ],
    "preference.tdpo1": [(preference.tdpo1, with_args("win_kl", "lose_kl", win_kl=Z.abs(), lose_kl=Z.square()))],
    "preference.tdpo2": [(preference.tdpo2, with_args("lose_kl", win_kl=Z.abs(), lose_kl=Z.square()))],
    "preference.ld_sum": [
        (preference.ld_sum, dict(args={"x": LOGP, "mask": MASK, "shared": LENGTHS}, wrt=["x"], mask="mask", shape=(N,))),
    ],
    "preference_free.slic": [(preference_free.slic, means("win_logp", "lose_logp"))],
    "preference_free.cpo": [(preference_free.cpo, means("win_logp", "lose_logp"))],
    "preference_free.log_odds": [(preference_free.log_odds, dict(args={"logp_mean": MEAN}, wrt=["logp_mean"]))],
    "preference_free.orpo": [(preference_free.orpo, MEANS)],
    "preference_tokens.credited": [
        (preference_tokens.credited, dict(args={"logp": LOGP, "credit": REF, "mask": MASK}, wrt=["logp"], mask="mask", shape=(N,)))
    ],
    **{
        f"preference_tokens.{fn.__name__}": [
            (fn, dict(args={win: WIN, lose: LOSE, gain: Z, loss: -Z}, wrt=[gain, loss], no_signal={"alpha": 0.0})),
            (fn, dict(args={win: WIN, lose: LOSE, gain: Z, loss: -Z}, wrt=[win, lose], gradcheck=False)),  # its weight is a constant
        ]
        for fn, win, lose, gain, loss in (
            (preference_tokens.t_reg, "win_logratio", "lose_logratio", "win_credited", "lose_credited"),
            (preference_tokens.simpo_reg, "win_logp_mean", "lose_logp_mean", "win_credited_mean", "lose_credited_mean"),
        )
    },
    "preference_free.simpo": [(preference_free.simpo, {**MEANS, "no_signal": {"lose_logp_mean": MEAN, "label": HALF, "gamma": 0.0}})],
    "preference_free.alphapo": [(partial(preference_free.alphapo, alpha=a), MEANS) for a in (0.25, -0.5, 0)],
    "preference_free.simper": [(preference_free.simper, MEANS)],
    **{
        f"preference_sides.{fn.__name__}": [(fn, {**PAIR, "row_wise": fn is not preference_sides.aot_unpaired})]
        for fn in (
            preference_sides.nca_pair,
            preference_sides.bco_pair,
            preference_sides.apo_zero,
            preference_sides.apo_down,
            preference_sides.aot_unpaired,
        )
    },
    "preference_sides.sppo": [(partial(preference_sides.sppo, eta=10), {**PAIR, "no_signal": EVEN})],
    "preference_sides.cal_dpo": [(partial(preference_sides.cal_dpo, beta=0.5), PAIR)],
    "preference_sides.rpo": [(preference_sides.rpo, with_args(win_logp_mean=MEAN))],
    "preference_sides.mpo": [(preference_sides.mpo, with_args(win_logp_mean=MEAN))],
    "preference_sides.xpo": [(preference_sides.xpo, with_args("explored_logp", explored_logp=Z))],
    "preference_sides.selm": [(preference_sides.selm, with_args("explored_logratio", explored_logratio=Z))],
    "preference_sides.aot": [
        (
            preference_sides.aot,
            dict(
                args=dict(win_logp=WIN, lose_logp=LOSE, win_ref_logp=Z, lose_ref_logp=MEAN), wrt=["win_logp", "lose_logp"], row_wise=False
            ),
        )
    ],
    "preference_sides.nash_md": [
        (
            preference_sides.nash_md,
            dict(args={"logp": WIN, "logratio": Z, "preferred": LABEL}, wrt=["logp"], no_signal={"logratio": 0 * Z, "preferred": HALF}),
        )
    ],
    **{
        f"preference_lists.{fn.__name__}": [
            (fn, dict(args={name: LOGP, "score": REF, "mask": MASK}, wrt=[name], mask="mask", shape=(N,), no_signal={"mask": MASK & False}))
        ]
        for name, fns in (
            ("logp_mean", (preference_lists.rrhf, preference_lists.pro)),
            ("logratio", (preference_lists.infonca, preference_lists.nca, preference_lists.exo_list, preference_lists.plackett_luce)),
        )
        for fn in fns
    },
    "preference_unpaired.kto": [
        (
            partial(preference_unpaired.kto, lambda_u=1.5),
            dict(args={"logratio": Z, "desirable": DESIRED, "kl": 0.1}, wrt=["logratio"], no_signal={"lambda_d": 0.0, "lambda_u": 0.0}),
        )
    ],
    "preference_unpaired.apo_zero_unpaired": [
        (preference_unpaired.apo_zero_unpaired, dict(args={"logratio": Z, "desirable": DESIRED}, wrt=["logratio"]))
    ],
    "preference_unpaired.bco": [
        (partial(preference_unpaired.bco, delta=0.1), dict(args={"logratio": Z, "desirable": DESIRED}, wrt=["logratio"]))
    ],
    "reward_loss.bradley_terry": [
        (reward_loss.bradley_terry, BT),
        (reward_loss.bradley_terry, {**BT, "args": {**BT["args"], "margin": Z.abs(), "label": LABEL}}),
    ],
    "reward_loss.centering": [
        (reward_loss.centering, dict(args={"chosen": WIN, "rejected": LOSE}, wrt=["chosen", "rejected"], no_signal={"rejected": -WIN}))
    ],
    "reward_loss.text_regulariser": [(reward_loss.text_regulariser, dict(args={"logp": WIN}, wrt=["logp"]))],
    "reward_loss.log_sigmoid_reward": [
        (reward_loss.log_sigmoid_reward, dict(args={"score": WIN, "reference": LOSE}, wrt=["score"])),
    ],
    "ordinal.likert": [(ordinal.likert, dict(args={"predicted": LOGP, "rating": REF}, wrt=["predicted"], no_signal={"rating": LOGP}))],
    "ordinal.cumulative_logit": [
        (ordinal.cumulative_logit, dict(args={"score": Z, "rating": STEPS, "cuts": CUTS}, wrt=["score"], no_signal=UNRATED)),
        (ordinal.cumulative_logit, dict(args={"score": Z, "rating": STEPS, "cuts": CUTS}, wrt=["cuts"], shape=(N,), no_signal=UNRATED)),
    ],
    "ordinal.cumulative_probabilities": [
        (ordinal.cumulative_probabilities, dict(args={"score": Z, "cuts": CUTS}, wrt=["score"], shape=(N, len(CUTS) + 1)))
    ],
    "ordinal.weighted": [(ordinal.weighted, dict(args={"attributes": LOGP, "weights": normal(T)}, wrt=["attributes"], shape=(N,)))],
    "quantile.pinball": [(quantile.pinball, {**QUANTILES, "args": {**QUANTILES["args"], "target": WIN, "level": quantile.levels(T)}})],
    "quantile.crossing": [(quantile.crossing, {**QUANTILES, "no_signal": {"predicted": LOGP.sort(1).values}})],
    "quantile.cvar": [(partial(quantile.cvar, share=0.5), QUANTILES)],
    "quantile.less_spread": [(quantile.less_spread, QUANTILES)],
    "gating.gate": [(gating.gate, dict(args={"logits": LOGP}, wrt=["logits"], no_signal={"scale": 0.0}))],
    "gating.less_verbosity": [
        (gating.less_verbosity, dict(args={"attributes": LOGP, "penalty": normal(T), "verbosity": 2}, wrt=["attributes"]))
    ],
    "gating.mixed": [(gating.mixed, dict(args={"attributes": LOGP, "weights": REF}, wrt=["attributes", "weights"], shape=(N,)))],
    "comparisons.preference_score": [
        (partial(comparisons.preference_score, unit=unit), {**DUEL, "args": {**DUEL["args"], **more}})
        for unit, more in ((False, {}), (True, {"scale": normal(N, T // 2).abs()}))
    ],
    "length_bias.residual": [(length_bias.residual, dict(args={"score": Z, "length": LENGTHS}, wrt=["score"], row_wise=False))],
    "length_bias.correlation": [(length_bias.correlation, dict(args={"score": Z, "length": LENGTHS}, wrt=["score"], row_wise=False))],
    "length_bias.odin": [
        (
            length_bias.odin,
            dict(args={"quality": Z, "wordiness": WIN, "length": LENGTHS}, wrt=["quality", "wordiness"], row_wise=False),
        )
    ],
    "doubt.gaussian_nll": [
        (
            doubt.gaussian_nll,
            dict(args={"mean": LOGP, "log_var": REF, "rating": OLD}, wrt=["mean", "log_var"], no_signal={"rating": OLD * torch.nan}),
        )
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
    "continuation.batch_std": [(continuation.batch_std, {})],
    "credit_group.opo": [(lambda r, g: credit_group.opo(r, 1 + g.abs() % 5, g), {})],
    "credit_group.gpg": [(credit_group.gpg, dict(shift_invariant=False))],
    "credit_group.best_minus_second": [(credit_group.best_minus_second, {})],
    "credit_group.bnpo": [(lambda r, g: credit_group.bnpo(r.sigmoid(), g), dict(shift_invariant=False))],
    "credit_group.empo": [(lambda r, g: credit_group.empo(r.sigmoid(), g), dict(shift_invariant=False))],
    "credit_group.verifree": [
        (lambda r, g: credit_group.verifree(r, g, torch.zeros(len(r), 3, dtype=torch.bool), torch.ones(len(r), 3, dtype=torch.bool)), {})
    ],
    "credit_group.pass_at_k": [(partial(credit_group.pass_at_k, k=2), dict(shift_invariant=False))],
    "credit.reinforce_pp_baseline": [(lambda r, g: credit.reinforce_pp_baseline(r, torch.ones(len(r), 3, dtype=torch.bool), g), {})],
    "credit.returns": [
        (lambda r, m, g, gamma=gamma: credit.returns(r, m, gamma), dict(dense=True, grouped=False, shift_invariant=False))
        for gamma in (1.0, 0.9)
    ],
    "credit.remax": [(lambda r, m, g: credit.remax(r, torch.zeros(len(r)), m), dict(dense=True, grouped=False, shift_invariant=False))],
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
