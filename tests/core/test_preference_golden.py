"""Every objective of the direct-alignment catalogue on one fixture of three pairs: printed numbers, a plain-Python twin, gradients.

The printed numbers were worked out apart from this code, to six digits; the twins compute them again in plain Python floats, and both
must agree with the tensors: the twin to 1e-9. What is a list or a single response here has fixtures of its own.
"""

import math
from functools import partial

import pytest
import torch
from torch.autograd import gradcheck

from guerdon.core import preference, preference_free, preference_lists, preference_sides, preference_unpaired
from guerdon.core.reduce import token_mean

F = torch.float64


def t(*x):
    return torch.tensor(x, dtype=F)


PW, PL, RW, RL = [-12, -8.5, -20], [-14, -7, -25], [-13, -9, -19], [-13.5, -7.5, -22]
NW, NL = [6, 4, 10], [7, 5, 8]
A, B = [w - r for w, r in zip(PW, RW, strict=True)], [x - r for x, r in zip(PL, RL, strict=True)]
D = [a - b for a, b in zip(A, B, strict=True)]
MW, ML = [x / n for x, n in zip(PW, NW, strict=True)], [x / n for x, n in zip(PL, NL, strict=True)]
MA, MB = [a / n for a, n in zip(A, NW, strict=True)], [b / n for b, n in zip(B, NL, strict=True)]
EXPLORED = [-12, -7, -9]
TIED = [True, True, True]


def sig(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def ls(z: float) -> float:
    return math.log(sig(z))


def odds(m: float) -> float:
    return math.log(math.exp(m) / (1 - math.exp(m)))


def rho(m: float, alpha: float) -> float:
    return (1 - math.exp(-alpha * m)) / alpha


def exo(h: float, e: float) -> float:
    return sig(h) * (ls(h) - math.log(1 - e)) + sig(-h) * (ls(-h) - math.log(e))


def discopop(h: float, tau: float) -> float:
    return -(1 - sig(h / tau)) * ls(h) + sig(h / tau) * math.exp(-h)


def davidson(d: float, nu: float) -> float:
    return 1 / (1 + math.exp(-d) + 2 * nu * math.exp(-d / 2))


def fkl(u: float) -> float:
    return -math.exp(-u)


def js(u: float) -> float:
    return math.log(2) + ls(u)


P, S, X = preference, preference_sides, preference_free
BOOL = partial(torch.tensor, dtype=torch.bool)
INT = torch.tensor
# name: (function of the tensors that carry a gradient, those tensors, what is printed, its twin)
LOGRATIO = {
    "dpo": (P.dpo, [0.620957, 0.693147, 0.598139], lambda a, b, i: -ls(0.1 * (a - b))),
    "cdpo": (P.cdpo, [0.635957, 0.693147, 0.618139], lambda a, b, i: -0.9 * ls(0.1 * (a - b)) - 0.1 * ls(-0.1 * (a - b))),
    "robust_dpo": (
        P.robust_dpo,
        [0.602207, 0.693147, 0.573139],
        lambda a, b, i: (-0.9 * ls(0.1 * (a - b)) + 0.1 * ls(-0.1 * (a - b))) / 0.8,
    ),
    "rao_kupper": (
        lambda a, b: P.rao_kupper(a, b, BOOL([False] * 3)),
        [1.275956, 1.386294, 1.240167],
        lambda a, b, i: -ls(0.1 * (a - b) - math.log(3)),
    ),
    "rao_kupper tie": (
        lambda a, b: P.rao_kupper(a, b, BOOL(TIED)),
        [0.697365, 0.693147, 0.700644],
        lambda a, b, i: -math.log(8) - ls(0.1 * (a - b) - math.log(3)) - ls(-0.1 * (a - b) - math.log(3)),
    ),
    "davidson": (
        lambda a, b: P.davidson(a, b, BOOL([False] * 3)),
        [1.312700, 1.386294, 1.288793],
        lambda a, b, i: -math.log(davidson(0.1 * (a - b), 1)),
    ),
    "davidson tie": (
        lambda a, b: P.davidson(a, b, BOOL(TIED)),
        [0.694553, 0.693147, 0.695646],
        lambda a, b, i: -math.log(2 * math.exp(-0.05 * (a - b)) * davidson(0.1 * (a - b), 1)),
    ),
    "odpo": (
        lambda a, b: P.odpo(a, b, t(0.5, 0.5, 0.5).exp()),
        [0.883382, 0.974077, 0.854355],
        lambda a, b, i: -ls(0.1 * (a - b) - 0.5),
    ),
    "hinge": (P.hinge, [0.85, 1, 0.8], lambda a, b, i: max(0, 1 - 0.1 * (a - b))),
    "ipo summed": (P.ipo, [12.25, 25, 9], lambda a, b, i: (a - b - 5) ** 2),
    "ipo averaged": (
        lambda a, b: P.ipo(a, b, win_len=INT(NW), lose_len=INT(NL)),
        [22.675737, 24.750625, 22.325625],
        lambda a, b, i: (a / NW[i] - b / NL[i] - 5) ** 2,
    ),
    "exo": (partial(P.exo, beta=0.1), [2.505517, 2.761231, 2.422015], lambda a, b, i: exo(0.1 * (a - b), 1e-3)),
    "discopop": (partial(P.discopop, beta=0.1), [0.849338, 0.846574, 0.814763], lambda a, b, i: discopop(0.1 * (a - b), 0.05)),
    "f_dpo forward_kl": (
        partial(P.f_dpo, divergence="forward_kl"),
        [0.631154, 0.693147, 0.162201],
        lambda a, b, i: -ls(0.1 * (fkl(a) - fkl(b))),
    ),
    "f_dpo js": (P.f_dpo, [0.660652, 0.693147, 0.610140], lambda a, b, i: -ls(0.1 * (js(a) - js(b)))),
    "f_dpo alpha": (
        partial(P.f_dpo, divergence="alpha"),
        [0.627691, 0.693147, 0.449453],
        lambda a, b, i: -ls(0.1 * (rho(a, 0.5) - rho(b, 0.5))),
    ),
    "f_dpo reverse_kl": (partial(P.f_dpo, divergence="reverse_kl"), [0.620957, 0.693147, 0.598139], lambda a, b, i: -ls(0.1 * (a - b))),
    "r_dpo": (
        lambda a, b: P.r_dpo(a, b, INT(NW), INT(NL)),
        [0.644397, 0.718460, 0.554355],
        lambda a, b, i: -ls(0.1 * (a - b) + 0.05 * (NW[i] - NL[i])),
    ),
    "dpop": (P.dpop, [0.493249, 0.693147, 14.400001], lambda a, b, i: -ls(0.3 * (a - b - 50 * max(0, -a)))),
    "dpo_shift": (partial(P.dpo_shift, beta=0.1), [0.626759, 0.686917, 0.632599], lambda a, b, i: -ls(0.1 * (a - 0.75 * b))),
    "nca_pair": (
        partial(S.nca_pair, beta=0.1),
        [1.350825, 1.386919, 1.343773],
        lambda a, b, i: -ls(0.1 * a) - 0.5 * ls(-0.1 * a) - 0.5 * ls(-0.1 * b),
    ),
    "bco_pair": (S.bco_pair, [1.312856, 1.386919, 1.298752], lambda a, b, i: -ls(0.1 * a) - ls(-0.1 * b)),
    "bco_pair shifted": (
        partial(S.bco_pair, delta=0.1),
        [1.314104, 1.386919, 1.311154],
        lambda a, b, i: -ls(0.1 * a - 0.1) - ls(0.1 - 0.1 * b),
    ),
    "sppo": (partial(S.sppo, eta=10), [18.125, 25.25, 20], lambda a, b, i: 0.5 * ((a - 5) ** 2 + (b + 5) ** 2)),
    "apo_zero": (S.apo_zero, [0.962523, 1, 0.950537], lambda a, b, i: 1 - sig(0.1 * a) + sig(0.1 * b)),
    "apo_down": (S.apo_down, [0.987549, 1.012497, 0.925187], lambda a, b, i: sig(0.1 * a) + 1 - sig(0.1 * (a - b))),
    "cal_dpo": (
        partial(S.cal_dpo, beta=0.05),
        [85.826413, 100.943147, 85.126928],
        lambda a, b, i: -ls(a - b) + 0.5 * ((a - 10) ** 2 + (b + 10) ** 2),
    ),
    "rpo": (lambda a, b: S.rpo(a, b, t(*MW)), [2.620957, 2.818147, 2.598139], lambda a, b, i: -ls(0.1 * (a - b)) - MW[i]),
    "mpo": (
        lambda a, b: S.mpo(a, b, t(*MW)),
        [2.759337, 2.956901, 2.738262],
        lambda a, b, i: -0.8 * ls(0.1 * (a - b)) - 0.2 * (ls(0.1 * a) + ls(-0.1 * b)) - MW[i],
    ),
    "xpo": (
        lambda a, b: S.xpo(a, b, t(*EXPLORED), alpha=0.01),
        [0.500957, 0.623147, 0.508139],
        lambda a, b, i: -ls(0.1 * (a - b)) + 0.01 * EXPLORED[i],
    ),
    "selm": (
        lambda a, b: S.selm(a, b, t(1, 0.5, 0)),
        [0.685685, 0.693152, 0.683197],
        lambda a, b, i: -ls(0.01 * (a - b)) + 1e-5 * [1, 0.5, 0][i],
    ),
}
AVERAGED = {
    "orpo": (X.orpo, [2.069315, 2.247766, 2.025744], lambda w, x, i: -w - 0.1 * ls(odds(w) - odds(x))),
    "simpo": (X.simpo, [1.313262, 2.532772, 0.251929], lambda w, x, i: -ls(2 * (w - x) - 1)),
    "alphapo": (X.alphapo, [1.313262, 3.293739, 0.036799], lambda w, x, i: -ls(2 * (rho(w, 0.25) - rho(x, 0.25)) - 1)),
    "alphapo 0": (partial(X.alphapo, alpha=0), [1.313262, 2.532772, 0.251929], lambda w, x, i: -ls(2 * (w - x) - 1)),
    "simper": (X.simper, [0, 0.127164, -0.091398], lambda w, x, i: -math.exp(w) + math.exp(x)),
}
CASES = (
    [pytest.param(fn, A, B, printed, twin, id=name) for name, (fn, printed, twin) in LOGRATIO.items()]
    + [pytest.param(fn, MW, ML, printed, twin, id=name) for name, (fn, printed, twin) in AVERAGED.items()]
    + [
        pytest.param(X.slic, PW, PL, [1.2, 3.35, 2.0], lambda w, x, i: max(0, 1 - w + x) - 0.1 * w, id="slic"),
        pytest.param(P.ln_dpo, MA, MB, [0.265495, 0.632599, 0.225413], lambda w, x, i: -ls(5 * (w - x)), id="ln_dpo"),
    ]
)


@pytest.mark.parametrize(("fn", "win", "lose", "printed", "twin"), CASES)
def test_golden(fn, win, lose, printed, twin):
    by_hand = [twin(w, x, i) for i, (w, x) in enumerate(zip(win, lose, strict=True))]
    got = fn(t(*win), t(*lose))
    torch.testing.assert_close(got, t(*printed), rtol=0, atol=1e-6)
    torch.testing.assert_close(got, t(*by_hand), rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize(("fn", "win", "lose", "name"), [pytest.param(*c.values[:3], c.id, id=c.id) for c in CASES])
def test_gradients_and_far_out(fn, win, lose, name):
    off = t(0.011, 0.023, 0.037)  # off the kinks of hinges
    assert gradcheck(fn, ((t(*win) - off).requires_grad_(), (t(*lose) + off).requires_grad_()))
    top = 0.0 if name in AVERAGED else 1e3  # log-probabilities end at 0
    for far in ((top, -1e3), (-1e3, top), (min(top, 50.0), -50.0), (-50.0, min(top, 50.0))):
        for dtype in (torch.float32, F):
            leaves = [torch.full((3,), x, dtype=dtype).requires_grad_() for x in far]
            loss = fn(*leaves)
            loss.sum().backward()
            assert loss.isfinite().all(), (far, dtype)
            assert all(x.grad is not None and x.grad.isfinite().all() for x in leaves), (far, dtype)


# ---------------------------------------------------------------- those with more than two arguments


def test_cpo_is_a_pair_term_and_the_likelihood_of_all_chosen_tokens():
    pair = X.cpo(t(*PW), t(*PL))
    torch.testing.assert_close(pair, t(*(-ls(0.1 * (w - x)) for w, x in zip(PW, PL, strict=True))), rtol=0, atol=1e-12)
    logp = torch.zeros(3, 10, dtype=F)
    mask = torch.arange(10) < INT(NW)[:, None]
    logp[mask] = (t(*PW) / INT(NW)).repeat_interleave(INT(NW))
    total = pair.mean() + token_mean(-logp, mask)
    assert total.item() == pytest.approx(2.639391, abs=1e-6)
    assert total.item() == pytest.approx(sum(-ls(0.1 * (w - x)) for w, x in zip(PW, PL, strict=True)) / 3 + 40.5 / 20, abs=1e-12)


def test_aot_golden():
    paired = S.aot(t(*PW), t(*PL), t(*RW), t(*RL))
    unpaired = S.aot_unpaired(t(*A), t(*B))
    in_order = lambda loss, by: loss[torch.tensor(by).argsort()]
    ratio = [w - x for w, x in zip(PW, PL, strict=True)]
    reference = sorted(w - x for w, x in zip(RW, RL, strict=True))
    torch.testing.assert_close(in_order(paired, ratio), t(0.693147, 0.620957, 0.598139), rtol=0, atol=1e-6)
    torch.testing.assert_close(in_order(unpaired, A), t(0.598139, 0.644397, 0.668460), rtol=0, atol=1e-6)
    by_hand = [-ls(0.1 * (s - r)) for s, r in zip(sorted(ratio), reference, strict=True)]
    torch.testing.assert_close(in_order(paired, ratio), t(*by_hand), rtol=0, atol=1e-12)
    by_hand = [-ls(0.1 * (s - r)) for s, r in zip(sorted(A), sorted(B), strict=True)]
    torch.testing.assert_close(in_order(unpaired, A), t(*by_hand), rtol=0, atol=1e-12)
    shuffled = S.aot_unpaired(t(*A), t(*B)[torch.tensor([2, 0, 1])])  # who belongs to whom does not matter
    torch.testing.assert_close(shuffled, unpaired)
    assert gradcheck(S.aot_unpaired, (t(*A).requires_grad_(), t(*B).requires_grad_()))


def test_discopop_turns_where_its_authors_say():
    """Its loss rises from -2.3714 to 1.44012 nats: stationary points that the paper reports."""
    for turn in (-2.3714, 1.44012):
        d = t(turn - 1e-3, turn + 1e-3).requires_grad_()
        [slope] = torch.autograd.grad(P.discopop(d, t(0, 0), beta=0.05, tau=0.05).sum(), d)
        assert slope[0] * slope[1] < 0


def token_kls(z, q, labels):
    """log-ratio sum and forward KL sum, term by term."""
    ratio = kl = 0.0
    for row, ref, y in zip(z, q, labels, strict=True):
        lp = [x - math.log(sum(map(math.exp, row))) for x in row]
        lq = [x - math.log(sum(map(math.exp, ref))) for x in ref]
        ratio += lp[y] - lq[y]
        kl += sum(math.exp(b) * (b - a) for a, b in zip(lp, lq, strict=True))
    return ratio, kl


def test_tdpo_golden():
    ref = [[1, 0, 0], [0, 0, 0]]
    a, kw = token_kls([[2, 0, -1], [0, 1, 0]], ref, [0, 1])
    b, kl = token_kls([[0, 2, 0], [1, 0, 0]], ref, [2, 1])
    assert [a, kw, b, kl] == pytest.approx([0.928766269, 0.373725070, -1.140932478, 0.959832914], abs=1e-9)
    leaves = [t(x).requires_grad_() for x in (a, b, kw, kl)]
    for fn, value, slopes in (
        (P.tdpo1, 0.621716418, [-0.046297811, 0.046297811, -0.046297811, 0.046297811]),
        (P.tdpo2, 0.608255345, [-0.045570034, 0.045570034, 0, 0.022785017]),
    ):
        loss = fn(*leaves)
        assert loss.item() == pytest.approx(value, abs=1e-9)
        found = torch.autograd.grad(loss.sum(), leaves, allow_unused=True)
        assert [0 if g is None else g.item() for g in found] == pytest.approx(slopes, abs=1e-9)
    assert P.tdpo1(t(0), t(0), t(0), t(0)).item() == pytest.approx(math.log(2), abs=1e-12)


def test_wpo_golden():
    def one(logits, label):
        lp = [x - math.log(sum(map(math.exp, logits))) for x in logits]
        return t([lp[label]]), t([math.log(sum(math.exp(2 * x) for x in lp))])

    mask = torch.ones(1, 1, dtype=torch.bool)
    typical = P.wpo_aligned(*one([2, 0, 0], 0), mask)
    other = P.wpo_aligned(*one([1, 0, 0], 1), mask)
    assert (typical + other).exp().item() == pytest.approx(0.615986, abs=1e-6)
    ratio = t(1.5).requires_grad_()
    weighted = P.wpo(ratio, t(0), typical, other, beta=0.1)
    assert weighted.item() == pytest.approx(math.exp((typical + other).item()) * -ls(0.15), abs=1e-12)
    # p = .787 against sum p^2 = .642: more typical than a sample of its own; the weight stops at 1.
    assert P.wpo(ratio, t(0), typical, P.wpo_aligned(*one([1, 0, 0], 0), mask), beta=0.1).item() == pytest.approx(-ls(0.15), abs=1e-12)
    empty = P.wpo_aligned(t([-1.0]), t([-1.0]), torch.zeros(1, 1, dtype=torch.bool))
    assert empty.item() == 0


def test_beta_dpo_golden():
    uniform, weights = t(0.5, 0.5, 0.5), [math.exp(-0.5 * (m - 1) ** 2) for m in D]
    assert weights == pytest.approx([0.882497, 0.606531, 0.606531], abs=1e-6)
    loss = P.beta_dpo(t(*A), t(*B), uniform, mean=1.0, std=1.0, rho=0.0)
    assert loss.mean().item() == pytest.approx(0.632126, abs=1e-6)
    beta = 0.1 * (1 + 0.6 * (sum(D) / 3 - 1))
    assert beta == pytest.approx(0.11)
    torch.testing.assert_close(loss, t(*(-ls(beta * m) for m in D)), rtol=0, atol=1e-12)
    dropped = P.beta_dpo(t(*A), t(*B), t(0.9, 0.1, 0.9), mean=1.0, std=1.0, rho=0.34)  # floor(3 * .66) = 1: the first is drawn
    assert (dropped == 0).tolist() == [False, True, True]
    assert dropped.mean().item() == pytest.approx(-ls(0.1 * (1 + 0.6 * 0.5) * 1.5), abs=1e-12)  # the mean over those kept
    first = P.beta_dpo(t(*A), t(*B), uniform, rho=0.0)  # running values start from the batch: beta' = beta
    torch.testing.assert_close(first, P.dpo(t(*A), t(*B)))
    assert P.beta_dpo(t(1.0), t(0.0), t(0.5)).isfinite().all()  # one pair has no spread
    low = P.beta_dpo(t(*A), t(*B), uniform, mean=100.0, std=1.0, rho=0.0)  # beta' has a floor
    torch.testing.assert_close(low, P.dpo(t(*A), t(*B), beta=1e-3))


def test_beta_dpo_draws_without_replacement_by_weight():
    draw = torch.Generator().manual_seed(0)
    weight = t(0.6, 0.3, 0.1)
    count = sum(P.drawn(weight.log(), torch.rand(3, generator=draw, dtype=F), 2).double() for _ in range(4000))
    w = weight.tolist()
    last = [sum(w[j] * w[k] / (1 - w[j]) for j, k in ((x, y), (y, x))) for x, y in ((1, 2), (0, 2), (0, 1))]  # the two others come first
    want = 1 - t(*last)
    torch.testing.assert_close(count / 4000, want, rtol=0, atol=0.03)


def test_ld_sum_golden():
    x, mask = t([-1, -2, -0.5, -0.25, 99]), torch.tensor([[True, True, True, True, False]])
    assert P.ld_sum(x, mask, INT([2]), alpha=0.5).item() == pytest.approx(-3.375)
    assert P.ld_sum(x, mask, INT([2]), alpha=1).item() == pytest.approx(-3.75)
    assert P.ld_sum(x, mask, INT([9]), alpha=0).item() == pytest.approx(-3.75)


def test_nash_md_is_the_gradient_of_preference_less_kl():
    logp, ratio, preferred = t(-3, -4).requires_grad_(), t(0.5, -1), t(0.9, 0.2)
    loss = S.nash_md(logp, ratio, preferred, beta=0.1)
    torch.testing.assert_close(loss, t(-(0.4 - 0.05) * -3, -(-0.3 + 0.1) * -4), rtol=0, atol=1e-12)
    [slope] = torch.autograd.grad(loss.sum(), logp)
    torch.testing.assert_close(slope, t(-0.35, 0.2), rtol=0, atol=1e-12)


# ---------------------------------------------------------------- lists and single responses

L = preference_lists
M3, SCORE3, ALL3 = t([-2, -1, -3]), t([0.9, 0.1, 0.5]), torch.ones(1, 3, dtype=torch.bool)
R3, S3 = t([1, 0.5, -3]), t([3, 2, 1])


def test_rrhf_golden():
    assert L.rrhf(M3, SCORE3, ALL3).item() == pytest.approx(5.0, abs=1e-12)  # 1 + 2 + 0, and 2 for the best
    assert L.rrhf(M3, t([0.5, 0.5, 0.5]), ALL3).item() == pytest.approx(2.0)  # equal marks order nothing


def test_pro_golden():
    first = 1.6 + math.log(math.exp(-1.6) + math.exp(-1.2) + math.exp(-0.8))
    second = 1.2 + math.log(math.exp(-1.2) + math.exp(-0.4))
    assert L.pro(M3, SCORE3, ALL3, weight=0.05).item() == pytest.approx(first + second + 0.1, abs=1e-9)
    assert L.pro(M3, SCORE3, ALL3, weight=0.05).item() == pytest.approx(2.822351, abs=1e-6)
    assert L.pro(M3, SCORE3, ALL3).item() == pytest.approx(first + second + 0.2 * 2, abs=1e-9)  # .05 (3 - 1)^2
    assert L.pro(M3, t([1, 1, 1]), ALL3, weight=0).item() == pytest.approx(math.log(3) + math.log(2), abs=1e-9)


def test_infonca_and_nca_golden():
    q = [math.exp(s) / sum(map(math.exp, (3, 2, 1))) for s in (3, 2, 1)]
    r = [0.1, 0.05, -0.3]
    norm = math.log(sum(map(math.exp, r)))
    one = L.infonca(R3, S3, ALL3, beta=0.1, alpha=1).item()
    assert one == pytest.approx(1.012014, abs=1e-6)
    assert one == pytest.approx(-sum(w * (x - norm) for w, x in zip(q, r, strict=True)), abs=1e-9)
    two = L.nca(R3, S3, ALL3, beta=0.1, alpha=1).item()
    assert two == pytest.approx(1.341592, abs=1e-6)
    assert two == pytest.approx(-sum(ls(-x) for x in r) / 3 - sum(w * ls(x) for w, x in zip(q, r, strict=True)), abs=1e-9)


def test_lists_of_two_are_pairs():
    a, b = t(*A), t(*B)
    both, score, mask = torch.stack((a, b), 1), t([1, 0]).expand(3, 2), torch.ones(3, 2, dtype=torch.bool)
    torch.testing.assert_close(L.nca(both, score, mask, beta=0.1, alpha=1e-4), S.nca_pair(a, b, beta=0.1))
    torch.testing.assert_close(L.infonca(both, score, mask, beta=0.1, alpha=1e-4), P.dpo(a, b))
    torch.testing.assert_close(L.plackett_luce(both, score, mask), P.dpo(a, b))
    gap = math.log(0.999 / 0.001)
    torch.testing.assert_close(L.exo_list(both, score * gap, mask, beta=0.1, beta_r=1), P.exo(a, b, beta=0.1))


def test_plackett_luce_of_three_by_hand():
    r = [0.1, 0.05, -0.3]
    want = -(r[0] - math.log(sum(map(math.exp, r)))) - (r[1] - math.log(math.exp(r[1]) + math.exp(r[2])))
    assert L.plackett_luce(R3, S3, ALL3).item() == pytest.approx(want, abs=1e-9)
    turned = L.plackett_luce(R3.flip(1), S3.flip(1), ALL3)
    assert turned.item() == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize("fn", [L.rrhf, L.pro, L.infonca, L.nca, L.exo_list, L.plackett_luce])
def test_lists_of_several_lengths(fn):
    draw = torch.Generator().manual_seed(1)
    x, score = (torch.randn(4, 3, generator=draw, dtype=F) for _ in range(2))
    mask = torch.arange(3) < INT([3, 2, 1, 0])[:, None]
    whole = fn(x, score, mask)
    for i, n in enumerate((3, 2, 1)):
        torch.testing.assert_close(whole[i], fn(x[i : i + 1, :n], score[i : i + 1, :n], torch.ones(1, n, dtype=torch.bool))[0])
    assert whole[3].item() == 0
    assert gradcheck(lambda y: fn(y, score, mask), (x.clone().requires_grad_(),))
    poisoned = fn(torch.where(mask, x, torch.nan), torch.where(mask, score, torch.inf), mask)
    torch.testing.assert_close(poisoned, whole)


def test_rejection_sampling_golden():
    reward, uniform = t(0, 0.5, 1), t(0.1, 0.5, 0.9)
    chance = ((reward - 1) / 0.5).exp()
    torch.testing.assert_close(chance, t(0.135335, 0.367879, 1), rtol=0, atol=1e-6)
    assert L.accepted(reward, uniform).tolist() == [True, False, True]


def test_rejection_sampling_gives_n_different_ones_and_prefers_reward():
    reward = torch.linspace(0, 2, 16, dtype=F)[torch.randperm(16, generator=torch.Generator().manual_seed(0))]

    def mean_of_picks(beta):
        picks = [L.rejection_sample(reward, 4, beta=beta, generator=torch.Generator().manual_seed(i)) for i in range(60)]
        assert all(len(set(p.tolist())) == 4 for p in picks)
        return torch.stack([reward[p].mean() for p in picks]).mean()

    assert mean_of_picks(0.1) > mean_of_picks(0.5) > reward[:4].mean() + 0.2
    assert mean_of_picks(math.inf) == reward[:4].mean()  # takes all, in order
    with pytest.raises(ValueError, match="not judged"):
        L.rejection_sample(t(1, math.nan), 1, generator=torch.Generator())
    with pytest.raises(ValueError, match="hint"):
        L.rejection_sample(reward, 17, generator=torch.Generator())


U = preference_unpaired
GOOD = torch.tensor([True, True, False])


def test_kto_golden():
    got = U.kto(t(1, 0.5, -3), GOOD, 0.2)
    torch.testing.assert_close(got, t(0.480011, 0.492501, 0.420676), rtol=0, atol=1e-6)
    torch.testing.assert_close(got, t(1 - sig(0.08), 1 - sig(0.03), 1 - sig(0.32)), rtol=0, atol=1e-12)
    weighted = U.kto(t(1, 0.5, -3), GOOD, t(0.2)[0], lambda_d=2, lambda_u=3)
    torch.testing.assert_close(weighted, got * t(2, 2, 3), rtol=1e-12, atol=0)
    torch.testing.assert_close(U.kto(t(1.0), GOOD[:1], -5), U.kto(t(1.0), GOOD[:1], 0))
    torch.testing.assert_close(U.apo_zero_unpaired(t(1, 0.5, -3), GOOD), U.kto(t(1, 0.5, -3), GOOD, 0))
    tail = U.kto(t(400.0), GOOD[:1], 0).item()
    assert tail == pytest.approx(math.exp(-40), rel=1e-9)  # 1 - sigmoid(40) would round to 0


def test_kto_reference_point_is_a_constant_above_0():
    ratio = t(1, -4).requires_grad_()
    assert U.kto_kl(ratio).item() == 0
    assert U.kto_kl(-ratio).item() == 1.5
    assert not U.kto_kl(ratio).requires_grad
    z = t(0.2)[0].requires_grad_()
    U.kto(ratio, GOOD[1:], z).sum().backward()
    assert z.grad is None


def test_bco_golden_and_its_weights():
    a, b = t(*A), t(*B)
    for delta, want in ((0.0, [1.312856, 1.386919, 1.298752]), (0.1, [1.314104, 1.386919, 1.311154])):
        good = U.bco(a, torch.ones(3, dtype=torch.bool), delta=delta)
        bad = U.bco(b, torch.zeros(3, dtype=torch.bool), delta=delta)
        torch.testing.assert_close(good + bad, t(*want), rtol=0, atol=1e-6)
        torch.testing.assert_close(good + bad, S.bco_pair(a, b, delta=delta), rtol=0, atol=1e-12)
    torch.testing.assert_close(U.bco_weight(t(0.5, 0.9, 0.01, 1)), t(1, 9, 0.5, 10), rtol=1e-6, atol=0)
    heavy = U.bco(b, torch.tensor([True, False, False]), weight=t(2, 2, 2))
    torch.testing.assert_close(heavy, U.bco(b, torch.tensor([True, False, False])) * t(1, 2, 2))


def test_gradients_of_single_responses():
    for fn in (lambda r: U.kto(r, GOOD, 0.2), lambda r: U.bco(r, GOOD, delta=0.1), lambda r: U.apo_zero_unpaired(r, GOOD)):
        assert gradcheck(fn, (t(*A).requires_grad_(),))


# ---------------------------------------------------------------- wrong settings

A_, B_ = t(*A), t(*B)
WRONG = [
    lambda: P.dpo(A_, B_, beta=0),
    lambda: P.ipo(A_, B_, tau=-1),
    lambda: P.ipo(A_, B_, win_len=INT(NW)),
    lambda: X.simpo(A_, B_, beta=0),
    lambda: P.cdpo(A_, B_, eps=0.6),
    lambda: P.robust_dpo(A_, B_, eps=0.5),
    lambda: P.exo(A_, B_, eps=0),
    lambda: P.rao_kupper(A_, B_, BOOL(TIED), nu=1),
    lambda: P.davidson(A_, B_, BOOL(TIED), nu=0),
    lambda: P.dpo_shift(A_, B_, f=0),
    lambda: P.beta_dpo(A_, B_, t(0.1, 0.2, 0.3), rho=1),
    lambda: P.ld_sum(t([1.0]), torch.ones(1, 1, dtype=torch.bool), INT([1]), alpha=2),
    lambda: S.nash_md(A_, B_, t(1, 1, 1), beta=-1),
    lambda: L.nca(R3, S3, ALL3, alpha=0),
]


@pytest.mark.parametrize("call", WRONG)
def test_settings_out_of_range_say_what_is_expected(call):
    with pytest.raises(ValueError, match="hint:"):
        call()


def test_odpo_survives_a_tie_and_a_reversed_gap():
    loss = P.odpo(A_, B_, t(0, -1, 2))
    assert loss.isfinite().all()
    torch.testing.assert_close(loss[:2], t(-ls(0.15 - math.log(1e-3)), -ls(-math.log(1e-3))))
