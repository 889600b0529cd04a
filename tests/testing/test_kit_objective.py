"""check_objective accepts objectives of the library and refuses the usual mistakes."""

import pytest
import torch

from guerdon.core import preference, reward_loss, surrogate
from guerdon.testing import check_objective

DRAW = torch.Generator().manual_seed(0)
WIN, LOSE = (torch.randn(5, generator=DRAW, dtype=torch.float64) for _ in range(2))
PAIRS = {"win_logratio": WIN, "lose_logratio": LOSE}
BOTH = ("win_logratio", "lose_logratio")
MASK = torch.arange(4) < torch.tensor([4, 2, 0, 3, 1])[:, None]
LOGP, REF, ADV = (torch.randn(5, 4, generator=DRAW, dtype=torch.float64) for _ in range(3))
DENSE = {"logp": LOGP, "ref_logp": REF, "mask": MASK, "label": torch.tensor([1.0, 0.0, 1.0, 0.0, 0.25], dtype=torch.float64)}


def test_good_objectives_pass():
    check_objective(preference.dpo, PAIRS, wrt=BOTH)
    check_objective(surrogate.ppo_clip, {"logp": LOGP, "old_logp": REF, "adv": ADV}, wrt=["logp"], no_signal={"adv": torch.zeros_like(ADV)})
    silent = {"label": torch.full((5,), torch.nan, dtype=torch.float64)}
    check_objective(reward_loss.implicit_outcome_ce, DENSE, wrt=["logp"], shape=(5,), mask="mask", no_signal=silent)


def reduced(win_logratio, lose_logratio):
    return preference.dpo(win_logratio, lose_logratio).mean()


def unstable(win_logratio, lose_logratio):
    return -torch.sigmoid(20 * (win_logratio - lose_logratio)).log()


def detached(win_logratio, lose_logratio):
    return preference.dpo(win_logratio, lose_logratio) * torch.sigmoid(lose_logratio - win_logratio).detach()


def centred(win_logratio, lose_logratio):
    return preference.dpo(win_logratio - win_logratio.mean(), lose_logratio)


def placed(win_logratio, lose_logratio):
    return preference.dpo(win_logratio, lose_logratio) * torch.arange(len(win_logratio))


def double(win_logratio, lose_logratio):
    return preference.dpo(win_logratio, lose_logratio).double()


def in_place(win_logratio, lose_logratio):
    out = preference.dpo(win_logratio, lose_logratio)
    with torch.no_grad():
        lose_logratio += 1.0
    return out


def noisy(win_logratio, lose_logratio):
    return preference.dpo(win_logratio, lose_logratio) + torch.rand(1, dtype=win_logratio.dtype)


BROKEN = [
    (reduced, "un-reduced"),
    (unstable, "+-50"),
    (detached, "finite differences"),
    (centred, "row 0"),
    (placed, "permuted"),
    (double, "torch.float32"),
    (in_place, "changed its argument 'lose_logratio'"),
    (noisy, "two results"),
]


@pytest.mark.parametrize(("objective", "told"), BROKEN)
def test_broken_objectives_fail_and_say_why(objective, told):
    with pytest.raises(AssertionError, match="hint:") as failure:
        check_objective(objective, {k: v.clone() for k, v in PAIRS.items()}, wrt=BOTH)
    assert told in str(failure.value)


def test_masked_too_late():
    def late(logp, ref_logp, mask, label):
        return torch.where(mask, (logp - ref_logp).exp(), 0.0).sum(1) * label

    with pytest.raises(AssertionError, match="the gradient of late"):
        check_objective(late, DENSE, wrt=["logp"], shape=(5,), mask="mask")


def test_multiplied_mask():
    def multiplied(logp, ref_logp, mask, label):
        return ((logp - ref_logp) * mask).sum(1) * label

    with pytest.raises(AssertionError, match="with NaN outside"):
        check_objective(multiplied, DENSE, wrt=["logp"], shape=(5,), mask="mask")


def test_a_signal_out_of_nothing():
    def decays(logp, old_logp, adv):
        return surrogate.ppo_clip(logp, old_logp, adv) + 1e-3 * logp.square()

    with pytest.raises(AssertionError, match="without a signal"):
        check_objective(decays, {"logp": LOGP, "old_logp": REF, "adv": ADV}, wrt=["logp"], no_signal={"adv": torch.zeros_like(ADV)})
