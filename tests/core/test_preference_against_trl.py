"""The same tensors through TRL's own trainer methods: equal losses, or the difference that is known.

TRL keeps its losses inside trainer classes, so its methods are called on trainers made without `__init__`, with a model that returns
given log-probabilities. Nothing of TRL is copied. Skipped where TRL is not installed. (XPO, Nash-MD and BCO are not in TRL 1.16.)
"""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from guerdon.core import preference, preference_free, preference_sides, preference_unpaired

trl = pytest.importorskip("trl", reason="needs trl")
pytestmark = pytest.mark.filterwarnings("ignore")  # of TRL's imports

DRAW = torch.Generator().manual_seed(3)
P, T = 5, 9
N_WIN, N_LOSE = torch.tensor([6, 4, 9, 1, 3]), torch.tensor([7, 5, 8, 2, 3])
LENGTHS = torch.cat((N_WIN, N_LOSE))
MASK = torch.arange(T) < LENGTHS[:, None]
LOGP, REF = (torch.where(MASK, -3 * torch.rand(2 * P, T, generator=DRAW), 0.0) for _ in range(2))
LOG_P2 = torch.where(MASK, LOGP + 0.5 * torch.randn(2 * P, T, generator=DRAW), 0.0)
PW, PL = LOGP.sum(1).chunk(2)
RW, RL = REF.sum(1).chunk(2)
A, B = PW - RW, PL - RL
MW, ML = PW / N_WIN, PL / N_LOSE
NOWHERE = SimpleNamespace(device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x)


class Metrics(dict):
    def __missing__(self, key):
        self[key] = Metrics() if key in ("train", "eval") else []
        return self[key]


class Given(torch.nn.Module):
    """A model that gives these log-probabilities, whatever it is asked."""

    def __init__(self, logp):
        super().__init__()
        zeros = torch.zeros_like(logp)
        self.out = SimpleNamespace(
            log_probs=logp, log_sum_sq_probs=LOG_P2, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool(), aux_loss=None
        )

    def forward(self, **_):
        return self.out


def theirs(loss_type, *, mean_of=None, **options):
    """The mean loss of TRL's DPO trainer on the fixture: a row is a prompt token followed by the completion."""
    from trl import DPOTrainer

    made = object.__new__(DPOTrainer)
    settings = dict(beta=0.1, label_smoothing=0.0, f_divergence_type="reverse_kl", f_alpha_divergence_coef=0.5, ld_alpha=None)
    settings |= dict(use_weighting=False, precompute_ref_logps=True, aux_loss_enabled=False, loss_weights=[1.0], loss_types=[loss_type])
    settings |= dict(_total_train_tokens=0, _tp_size=1, _metrics=Metrics(), accelerator=NOWHERE, model=torch.nn.Linear(1, 1))
    settings |= dict(args=SimpleNamespace(discopop_tau=0.05))
    for name, value in (settings | options).items():
        object.__setattr__(made, name, value)
    mask = torch.cat((torch.zeros(2 * P, 1, dtype=torch.long), MASK.long()), 1)
    ids = torch.ones_like(mask)
    inputs = dict(input_ids=ids, attention_mask=ids, completion_mask=mask, ref_chosen_logps=RW, ref_rejected_logps=RL)
    if options.get("ld_alpha") is not None:
        refs = sums(REF, options["ld_alpha"])
        inputs |= dict(ref_chosen_logps=refs[0], ref_rejected_logps=refs[1])
    return DPOTrainer._compute_loss(made, Given(LOGP), inputs, False)


def sums(x, alpha):
    shared = torch.minimum(N_WIN, N_LOSE).repeat(2)
    return preference.ld_sum(x, MASK, shared, alpha=alpha).chunk(2)


p, s = preference, preference_sides
SAME = {
    "sigmoid": (p.dpo(A, B), {}),
    "hinge": (p.hinge(A, B), {}),
    "ipo": (p.ipo(A, B, win_len=N_WIN, lose_len=N_LOSE), {}),
    "exo_pair": (p.exo(A, B, beta=0.1, eps=0.01), {"label_smoothing": 0.01}),
    "nca_pair": (s.nca_pair(A, B, beta=0.1), {}),
    "robust": (p.robust_dpo(A, B, eps=0.2), {"label_smoothing": 0.2}),
    "bco_pair": (s.bco_pair(A, B), {}),
    "aot": (s.aot(PW, PL, RW, RL), {}),
    "aot_unpaired": (s.aot_unpaired(A, B), {}),
    "apo_zero": (s.apo_zero(A, B), {}),
    "apo_down": (s.apo_down(A, B), {}),
    "discopop": (p.discopop(A, B, beta=0.1), {}),
    "sigmoid_norm": (p.ln_dpo(A / N_WIN, B / N_LOSE), {"beta": 5.0}),
}


@pytest.mark.parametrize("loss_type", SAME)
def test_equal_to_the_dpo_trainer(loss_type):
    ours, options = SAME[loss_type]
    torch.testing.assert_close(ours.mean(), theirs(loss_type, **options), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("divergence", "name"),
    [("reverse_kl", "reverse_kl"), ("forward_kl", "forward_kl"), ("js", "js_divergence"), ("alpha", "alpha_divergence")],
)
def test_f_divergences(divergence, name):
    ours = p.f_dpo(A / 9, B / 9, divergence=divergence, alpha=0.3)
    with small(9):
        got = theirs("sigmoid", f_divergence_type=name, f_alpha_divergence_coef=0.7)  # their coefficient is 1 - alpha
    torch.testing.assert_close(ours.mean(), got, rtol=1e-6, atol=1e-6)


@contextlib.contextmanager
def small(by):
    """Log-ratios divided, where exponentials would hide a difference."""
    keep = LOGP.clone(), REF.clone(), RW.clone(), RL.clone()
    try:
        for x in (LOGP, REF, RW, RL):
            x.div_(by)
        yield
    finally:
        for x, y in zip((LOGP, REF, RW, RL), keep, strict=True):
            x.copy_(y)


def test_ld_sums():
    (aw, al), (rw, rl) = sums(LOGP, 0.3), sums(REF, 0.3)
    torch.testing.assert_close(p.dpo(aw - rw, al - rl).mean(), theirs("sigmoid", ld_alpha=0.3), rtol=1e-6, atol=1e-6)


# ---------------------------------------------------------------- known differences


def test_the_sigmoid_loss_forgets_label_smoothing():
    assert theirs("sigmoid", label_smoothing=0.3) == theirs("sigmoid")
    assert abs(p.cdpo(A, B, eps=0.3).mean() - theirs("sigmoid")) > 1e-3


def test_sppo_is_twice_ours():
    torch.testing.assert_close(2 * s.sppo(A, B, eta=10).mean(), theirs("sppo_hard"), rtol=1e-6, atol=1e-6)


def test_wpo_weights_are_not_capped_at_1():
    aligned = p.wpo_aligned(LOGP, LOG_P2, MASK)
    weight = sum(aligned.chunk(2)).exp()
    assert (weight > 1).any(), "the fixture should show the cap"
    assert (weight < 1).any()
    uncapped = p.pairwise(0.1 * (A - B), weight=weight)
    torch.testing.assert_close(uncapped.mean(), theirs("sigmoid", use_weighting=True), rtol=1e-6, atol=1e-6)
    ours = p.wpo(A, B, *aligned.chunk(2), beta=0.1)
    torch.testing.assert_close(ours, p.pairwise(0.1 * (A - B), weight=weight.clamp(max=1)), rtol=1e-6, atol=1e-6)


def test_exo_without_smoothing_is_infinite():
    assert not theirs("exo_pair", label_smoothing=0.0).isfinite()  # ours raises


def test_forward_kl_overflows_where_ours_is_cut():
    with small(1e-3):
        assert not theirs("sigmoid", f_divergence_type="forward_kl").isfinite()
    assert p.f_dpo(1e3 * A, 1e3 * B, divergence="forward_kl").isfinite().all()


def test_rpo_as_a_mixture_takes_the_likelihood_over_all_tokens():
    """`sigmoid` + `sft` with weights is their RPO: the second term is a mean over the batch's tokens, ours one per pair."""
    nll = -LOGP[:P][MASK[:P]].mean()
    torch.testing.assert_close(theirs("sft"), nll, rtol=1e-6, atol=1e-6)
    mixed = theirs("sigmoid", loss_types=["sigmoid", "sft"], loss_weights=[1.0, 1.0])
    torch.testing.assert_close(mixed, p.dpo(A, B).mean() + nll, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(s.rpo(A, B, MW).mean(), p.dpo(A, B).mean() - MW.mean(), rtol=1e-6, atol=1e-6)
    assert abs(nll + MW.mean()) > 1e-3


def test_mpo_as_a_mixture():
    mixed = theirs("sigmoid", loss_types=["sigmoid", "bco_pair", "sft"], loss_weights=[0.8, 0.2, 1.0])
    ours = s.mpo(A, B, MW).mean() + MW.mean() - LOGP[:P][MASK[:P]].mean()
    torch.testing.assert_close(ours, mixed, rtol=1e-6, atol=1e-6)


# ---------------------------------------------------------------- CPO and its relatives, ORPO


def cpo_losses(win, lose, **options):
    from trl.experimental.cpo import CPOTrainer

    made = object.__new__(CPOTrainer)
    settings = dict(beta=0.1, alpha=0.0, label_smoothing=0.0, loss_type="sigmoid", simpo_gamma=0.5, accelerator=NOWHERE)
    for name, value in (settings | options).items():
        object.__setattr__(made, name, value)
    return CPOTrainer.cpo_loss(made, win, lose)[0]


def test_cpo_simpo_and_their_smoothed_forms():
    f = preference_free
    torch.testing.assert_close(f.cpo(PW, PL), cpo_losses(PW, PL))
    torch.testing.assert_close(f.cpo(PW, PL, label=0.8), cpo_losses(PW, PL, label_smoothing=0.2))
    torch.testing.assert_close(f.simpo(MW, ML, gamma=0.7), cpo_losses(MW, ML, loss_type="simpo", beta=2.0, simpo_gamma=0.7))


def test_alphapo():
    ours = preference_free.alphapo(MW, ML, gamma=0.7)
    torch.testing.assert_close(ours, cpo_losses(MW, ML, loss_type="simpo", beta=2.0, simpo_gamma=0.7, alpha=0.25), rtol=1e-5, atol=1e-6)
    long = torch.full((1,), -500.0)  # their default loss takes the power of a sum
    assert not cpo_losses(long, long, alpha=0.25).isfinite().all()
    assert preference_free.alphapo(long, long).isfinite().all()


def test_orpo_penalty():
    from trl.experimental.orpo import ORPOTrainer

    made = object.__new__(ORPOTrainer)
    for name, value in (("beta", 0.1), ("accelerator", NOWHERE)):
        object.__setattr__(made, name, value)
    penalty = ORPOTrainer.odds_ratio_loss(made, MW, ML)[0]
    torch.testing.assert_close(preference_free.orpo(MW, ML), -MW - penalty, rtol=1e-6, atol=1e-6)


# ---------------------------------------------------------------- KTO


class Twice(torch.nn.Module):
    """Gives the mismatched log-probabilities first and the real ones then, as the KTO trainer asks."""

    def __init__(self, mismatched, real):
        super().__init__()
        self.answers = [mismatched, real]

    def forward(self, **_):
        logp = self.answers.pop(0)
        zeros = torch.zeros_like(logp)
        return SimpleNamespace(log_probs=logp, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool(), aux_loss=None)


@pytest.mark.parametrize(("name", "sign"), [("kto", 1.0), ("kto", -1.0), ("apo_zero_unpaired", 1.0)])
def test_kto(name, sign):
    from trl import KTOTrainer

    desirable = torch.tensor([True, False, True, True, False, False, True, True, False, True])
    other = LOGP.roll(1, 0)
    mismatched_ratio = sign * (other.sum(1) - REF.sum(1)).abs()  # a reference point above 0, and one below
    made = object.__new__(KTOTrainer)
    settings = dict(beta=0.1, loss_type=name, calculate_KL=name == "kto", desirable_weight=1.2, undesirable_weight=0.9)
    settings |= dict(precompute_ref_logps=True, aux_loss_enabled=False, _metrics=Metrics(), accelerator=NOWHERE)
    settings |= dict(_total_train_tokens=0, _tp_size=1, model=torch.nn.Linear(1, 1), state=SimpleNamespace(num_input_tokens_seen=0))
    for key, value in settings.items():
        object.__setattr__(made, key, value)
    mask = torch.cat((torch.zeros(2 * P, 1, dtype=torch.long), MASK.long()), 1)
    ids = torch.ones_like(mask)
    inputs = dict(input_ids=ids, attention_mask=ids, completion_mask=mask, label=desirable, ref_logps=REF.sum(1))
    inputs |= dict(KL_input_ids=ids, KL_attention_mask=ids, KL_completion_mask=mask, ref_KL_logps=other.sum(1) - mismatched_ratio)
    model = Twice(other, LOGP) if name == "kto" else Given(LOGP)
    got = KTOTrainer._compute_loss(made, model, inputs, False)
    kl = preference_unpaired.kto_kl(mismatched_ratio) if name == "kto" else 0.0
    ours = preference_unpaired.kto((LOGP - REF).sum(1), desirable, kl, lambda_d=1.2, lambda_u=0.9)
    torch.testing.assert_close(ours.mean(), got, rtol=1e-6, atol=1e-6)
