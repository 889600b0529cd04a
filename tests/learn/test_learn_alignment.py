"""Views of a batch against plain loops over its rows; batches of lists and verdicts; running means."""

import pytest
import torch

from guerdon.core import preference
from guerdon.core.rng import Key
from guerdon.learn.alignment import ListView, PairView, RowView, Running, chosen_nll, list_batch, list_term, lists, mismatched, row_batch
from guerdon.learn.verbs import pair_batch
from guerdon.policies.refs import Frozen
from guerdon.testing import ToyPolicy, toy_pairs, toy_pools, toy_unpaired
from guerdon.types import Preference, Prompt, Rollout

POLICY, REF = ToyPolicy(spread=0.5), Frozen(ToyPolicy(spread=0.5, seed=1))


def rows_of(batch):
    """logp and ref sums and lengths of each row, by a loop."""
    logp, ref = POLICY.forward(batch).logp.detach(), REF.logp(batch)
    kept = [batch.mask[i] for i in range(len(batch))]
    return [(float(logp[i][m].sum()), float(ref[i][m].sum()), int(m.sum())) for i, m in enumerate(kept)]


def pair(chosen, rejected):
    prompt = Prompt(chosen + rejected, "A")
    return Preference(prompt, (Rollout(prompt, chosen), Rollout(prompt, rejected)), margin=1.5, label=0.8)


PAIRS = [pair("aab", "b"), pair("c", "dddd"), pair("ab", "ba")]


def test_pair_view_equals_a_loop():
    batch = pair_batch(POLICY, PAIRS)
    rows = rows_of(batch)
    view = PairView(RowView(POLICY.forward(batch), batch.with_(ref_logp=REF.logp(batch))))
    for i in range(len(PAIRS)):
        for side, (p, r, n) in enumerate((rows[2 * i], rows[2 * i + 1])):
            got = [x[side][i].item() for x in (view.logp, view.ref_logp, view.logratio, view.length, view.logp_mean, view.logratio_mean)]
            assert got == pytest.approx([p, r, p - r, n, p / n, (p - r) / n], abs=1e-5)
    assert view.gap.tolist() == [1.5] * 3
    assert view.column("label").tolist() == pytest.approx([0.8] * 3)
    assert view.tied.tolist() == [False] * 3


def test_shortened_weighs_the_tail():
    batch = pair_batch(POLICY, PAIRS)
    batch = batch.with_(ref_logp=REF.logp(batch))
    view = PairView(RowView(POLICY.forward(batch), batch, "ld_dpo"))
    win, lose = view.shortened(0.25)
    ratio = POLICY.forward(batch).logp.detach() - batch.ref_logp
    shared = [min(int(batch.mask[2 * i].sum()), int(batch.mask[2 * i + 1].sum())) for i in range(3)]
    for i in range(3):
        for row, got in ((2 * i, win), (2 * i + 1, lose)):
            x = ratio[row][batch.mask[row]]
            assert float(got[i].detach()) == pytest.approx(float(x[: shared[i]].sum() + 0.25 * x[shared[i] :].sum()), abs=1e-5)
    for got, whole in zip(view.shortened(1.0), view.logratio, strict=True):
        torch.testing.assert_close(got, whole)
    three = pair_batch(POLICY, toy_pools(1))
    with pytest.raises(ValueError, match="give pairs, not longer ranked lists"):
        PairView(RowView(POLICY.forward(three), three.with_(ref_logp=REF.logp(three)), "ld_dpo")).shortened(0.5)


def test_list_view_equals_a_loop_and_survives_selection():
    pools = [*toy_pools(2, size=3), toy_pools(3, size=2)[2]]
    batch = list_batch(POLICY, pools)
    batch = batch.with_(ref_logp=REF.logp(batch))
    for part, expected in ((batch, pools), (batch.rows(torch.tensor([6, 7, 0, 1, 2])), [pools[2], pools[0]])):
        view = ListView(RowView(POLICY.forward(part), part))
        rows = rows_of(part)
        assert view.mask.tolist() == [[True] * len(p.ranked) + [False] * (3 - len(p.ranked)) for p in expected]
        assert lists(part).shape == (len(expected),)
        k = 0
        for g, pool in enumerate(expected):
            for i in range(len(pool.ranked)):
                p, r, n = rows[k]
                got = [view.logratio[g, i].item(), view.logp_mean[g, i].item(), view.score[g, i].item()]
                assert got == pytest.approx([p - r, p / n, pool.prompt.meta["scores"][i]], abs=1e-5)
                k += 1
        assert view.logratio[~view.mask].eq(0).all()


def test_list_accuracy_counts_ties_half():
    batch = list_batch(POLICY, toy_pools(3))
    term = list_term("x", lambda v: v.logratio.sum(1))
    same = batch.with_(ref_logp=POLICY.forward(batch).logp.detach())
    assert term.watch(POLICY.forward(same), same)["rewards/accuracies"].tolist() == [0.5] * 3


def test_chosen_nll_counts_the_chosen_tokens_alone():
    batch = pair_batch(POLICY, PAIRS)
    term = chosen_nll(1.0)
    logp = POLICY.forward(batch).logp
    got = term.reduce(term.loss(POLICY.forward(batch), batch), term.over(batch))
    rows = torch.cat([logp[2 * i][batch.mask[2 * i]] for i in range(3)])
    torch.testing.assert_close(got, -rows.mean())


def test_row_batch_and_mismatched():
    rollouts = toy_unpaired(3)
    batch = row_batch(POLICY, rollouts)
    assert batch.label.tolist() == [1, 0, 1, 0, 1, 0]
    assert batch.unit.tolist() == list(range(6))
    numbered = [r.with_(content=str(i)) for i, r in enumerate(rollouts)]
    other = mismatched(numbered, Key(0))
    assert [r.prompt for r in other] == [r.prompt for r in rollouts]
    assert sorted(r.content for r in other) == [r.content for r in numbered]
    assert all(r.content != str(i) for i, r in enumerate(other))
    assert other == mismatched(numbered, Key(0)) != mismatched(numbered, Key(1))
    view = RowView(POLICY.forward(batch), batch)
    assert view.desirable.tolist() == [True, False] * 3


def test_running_means():
    running = Running(("a", "b"))
    running.update({"a": 2.0, "c": 9.0})
    assert running.values == {"a": 2.0}
    running.update({"a": 4.0, "b": 1.0})
    assert running.values == pytest.approx({"a": 2.2, "b": 1.0})
    again = Running(("a", "b"))
    again.load_state_dict(running.state_dict())
    assert again.values == running.values


def test_lists_of_two_learn_as_pairs_do():
    """A pool of two under the Plackett-Luce loss and the same pair under DPO: one gradient."""
    from guerdon.core import preference_lists

    pairs = toy_pairs(4)
    a, b = pair_batch(POLICY, pairs), list_batch(POLICY, pairs)
    a, b = a.with_(ref_logp=REF.logp(a)), b.with_(ref_logp=REF.logp(b))
    one = preference.dpo(*PairView(RowView(POLICY.forward(a), a)).logratio).mean()
    view = ListView(RowView(POLICY.forward(b), b))
    two = preference_lists.plackett_luce(view.logratio, view.score, view.mask).mean()
    for x, y in zip(torch.autograd.grad(one, POLICY.logits), torch.autograd.grad(two, POLICY.logits), strict=True):
        torch.testing.assert_close(x, y)
