"""Sampler and learner: told apart on every batch, named in words, corrected; and sampling that runs ahead of learning."""

import dataclasses
import logging
import math

import pytest
import torch

from guerdon.config import Optim, Sampling, Stability
from guerdon.core.reduce import mean as row_wise
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.learn import off_policy
from guerdon.learn.learner import SAMPLED
from guerdon.learn.little import new_policy
from guerdon.papers import grpo
from guerdon.testing import ToyPolicy, ToyReward, check_recipe, toy_prompts
from guerdon.types import Metrics, Outputs, Prompt, Score, Term, rows

WORDS = [f"w{i}" for i in range(14)]
ASKED = [Prompt(str(i), f"w{i % 14} w{(3 * i) % 14}") for i in range(40)]
WITHIN = 4.0  # standard errors


def first_letters(rollouts):
    return [Score.whole(r, r.content.count("w1") / 8) for r in rollouts]


def told(policy, off, steps=1, **settings):
    """The metrics of the first steps of GRPO with rollouts of this policy."""
    how = {"batch": 20, "steps": steps, "beta": 0.0, "sampling": Sampling(n=16, max_new=8), "optim": Optim(lr=1e-3), **settings}
    cfg = grpo.Config(stability=off, **how)
    recipe = grpo.build(cfg, policy, ASKED, first_letters, Key(1))
    return [recipe.step(t) for t in range(steps)]


def far(metrics, name="sampling/ratio", wanted=1.0):
    """How many standard errors a mean is off."""
    return (metrics[name] - wanted) / metrics[f"{name}_error"]


# ---------------------------------------------------------------- "Must show" 5


def test_top_p_with_raw_log_probabilities_is_detected_and_corrected(caplog):
    """The learner's log-probabilities are those before truncation: the sampler's tokens seem too unlikely, and by a known factor."""
    with caplog.at_level(logging.WARNING, "guerdon"):
        [seen] = told(new_policy(WORDS, 0, max_new=8, top_p=0.7), Stability())
    assert 0.6 < seen["sampling/ratio"] < 0.9  # the mass of what is kept: at least .7 where the distribution is wide
    assert far(seen) < -10 * WITHIN
    assert "top-p or top-k is on there and not here" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "guerdon"):
        [mended] = told(new_policy(WORDS, 0, max_new=8, top_p=0.7), Stability(keep_truncation=True))
    assert mended["sampling/ratio"] == pytest.approx(1, abs=1e-5)  # the very distribution that was drawn from
    assert abs(far(mended, "sampling/surprise", 0.0)) < WITHIN
    assert caplog.text == ""


class Reporting:
    """The policy's own draws, reported as an engine does that knows nothing of temperature and truncation."""

    name = "reporting"

    def draw(self, policy, ids, n, key, sampler, longest):
        drawn = policy._draw(ids, n, key, sampler, longest)
        out = []
        for k, one in enumerate(drawn):
            row = torch.tensor([*ids[k // n], *one.ids.tolist()])[None]
            logp = policy.model(row).logits.log_softmax(-1)[0, -len(one.ids) - 1 : -1].gather(1, one.ids[:, None])[:, 0]
            out.append(dataclasses.replace(one, logp=logp.detach()))
        return out

    def check(self, policy, rollouts):
        pass


def reporting(**sampling):
    policy = new_policy(WORDS, 0, max_new=8, **sampling)
    policy.engine = Reporting()
    return policy


def test_an_engine_that_reports_raw_log_probabilities_of_truncated_draws(caplog):
    """Ratios are all 1 then; the surprise tells."""
    with caplog.at_level(logging.WARNING, "guerdon"):
        [seen] = told(reporting(top_p=0.7), Stability())
    assert seen["sampling/ratio"] == pytest.approx(1, abs=1e-5)
    assert far(seen, "sampling/surprise", 0.0) < -5 * WITHIN
    assert "reports raw log-probabilities" in caplog.text
    [half] = told(reporting(top_p=0.7), Stability(keep_truncation=True))
    assert far(half) > 10 * WITHIN and "set reports to raw" in off_policy.diagnosis(half)
    [mended] = told(reporting(top_p=0.7), Stability(keep_truncation=True, reports="raw"))
    assert mended["sampling/ratio"] == pytest.approx(1, abs=1e-5)
    assert abs(far(mended, "sampling/surprise", 0.0)) < WITHIN


def test_raw_log_probabilities_of_a_cooler_sampler():
    [seen] = told(reporting(temperature=0.5), Stability())
    assert abs(far(seen)) > WITHIN
    [mended] = told(reporting(temperature=0.5), Stability(reports="raw"))
    assert mended["sampling/ratio"] == pytest.approx(1, abs=1e-5)


# ---------------------------------------------------------------- corrections


def test_a_sampler_in_low_precision_is_weighed_to_the_truth():
    """Weights of two bits: log-probabilities differ, and the mean ratio is 1 all the same, as the sampler tells what it drew from."""
    from guerdon.policies.engines.rounded import Rounded

    seen = {}
    for correction in ("bypass", "none", "truncated", "banded", "banded_rows"):
        policy = new_policy(WORDS, 0, max_new=8)
        policy.engine = Rounded(2)
        [seen[correction]] = told(policy, Stability(correction=correction, cap=20.0, low=0.8, high=1.25))
    for metrics in seen.values():
        assert metrics["sampling/k3"] > 1e-3
        assert abs(far(metrics)) < WITHIN
        assert metrics["sampling/ratio"] == pytest.approx(seen["none"]["sampling/ratio"], abs=1e-5)
    assert abs(seen["bypass"]["ratio"] - 1) > 1e-6 and seen["none"]["ratio"] == pytest.approx(1, abs=1e-6)
    assert seen["truncated"]["sampling/weight"] == pytest.approx(seen["none"]["sampling/ratio"], abs=1e-5)
    assert seen["none"]["sampling/weight"] == 1
    assert 0 < seen["banded"]["sampling/weight_zero"] < 1


def test_the_weighted_gradient_is_that_of_the_learner():
    """Draws of a slanted sampler, weighed: the mean gradient is the one of the policy's own draws; unweighed it is not."""
    start = ToyPolicy(spread=1.0, steps=2)

    def gradient(policy, correction, sampler):
        with torch.no_grad():
            policy.logits.copy_(sampler.logits)
        drawn = policy.sample(toy_prompts(1), 8_000, Key(3))
        with torch.no_grad():
            policy.logits.copy_(start.logits)
        batch = off_policy.prepared(policy, policy.collate(drawn), Stability(correction=correction, cap=1e6))
        good = torch.tensor([float(r.content.startswith("a")) for r in drawn])
        term = off_policy.weighed(Term("pg", lambda o, b: -(good - 0.3)[:, None] * o.logp, over=lambda b: b.mask, reduce=row_wise))
        # Weights of single decisions are exact where one decision decides: the first.
        first = torch.zeros_like(batch.mask).index_fill(1, torch.tensor([0]), True) & batch.mask
        (term.loss(policy.forward(batch), batch)[first].mean()).backward()
        return policy.logits.grad[policy.context(toy_prompts(1)[0]), 0]

    own = gradient(ToyPolicy(steps=2), "none", start)
    other = ToyPolicy(spread=1.0, steps=2, seed=5)
    weighed, plain = (gradient(ToyPolicy(steps=2), c, other) for c in ("truncated", "none"))
    assert (weighed - own).abs().max() < 0.05 < (plain - own).abs().max()


def test_a_response_is_weighed_by_the_mean_of_its_decisions():
    policy = ToyPolicy()
    batch = policy.collate(policy.sample(toy_prompts(2), 3, Key(0)))
    weight = torch.rand(batch.mask.shape)
    batch = batch.with_(extra={off_policy.WEIGHT: weight})
    term = off_policy.weighed(Term("pg", lambda o, b: torch.ones(len(b)), over=rows, reduce=row_wise))
    mean = torch.where(batch.mask, weight, 0.0).sum(1) / batch.mask.sum(1)
    torch.testing.assert_close(term.loss(Outputs(), batch), mean)


def test_what_cannot_be_corrected_is_refused():
    policy = ToyPolicy()
    batch = policy.collate(policy.sample(toy_prompts(2), 2, Key(0)))
    silent = batch.with_(old_logp=None)
    assert off_policy.prepared(policy, silent, Stability()) is silent
    with pytest.raises(UserError, match="without the sampler's log-probabilities"):
        off_policy.prepared(policy, silent, Stability(correction="truncated"))
    for wrong in (Stability(keep_truncation=True), Stability(reports="raw"), Stability(replay="trainer")):
        with pytest.raises(UserError, match="needs a text policy"):
            off_policy.prepared(policy, batch, wrong)
    with pytest.raises(UserError, match="do not say which experts"):
        off_policy.prepared(policy, batch, Stability(replay="sampler"))
    with pytest.raises(UserError, match="expected a band"):
        Stability(low=2.0, high=1.0)
    with pytest.raises(UserError, match="weights that are gone"):
        Stability(staleness=1, keep_truncation=True)


def test_only_the_first_update_measures():
    policy = ToyPolicy()
    batch = off_policy.prepared(policy, policy.collate(policy.sample(toy_prompts(2), 2, Key(0))), Stability())
    assert SAMPLED in batch.extra and SAMPLED not in off_policy.unmeasured(batch).extra
    seen = toy(Stability(), epochs=3)[0]
    assert seen[0]["sampling/k3"] == pytest.approx(0, abs=1e-6) and seen[0]["sampling/staleness"] == 0
    assert not any(name.endswith("_square") for name in seen[0])


# ---------------------------------------------------------------- ahead


def toy(off, steps=6, **settings):
    cfg = grpo.Config(stability=off, batch=3, steps=steps, sampling=Sampling(n=4, max_new=6), optim=Optim(lr=0.05), beta=0.1, **settings)
    policy = ToyPolicy(spread=0.2)
    recipe = grpo.build(cfg, policy, toy_prompts(), ToyReward(), Key(0))
    return [recipe.step(t) for t in range(steps)], torch.cat([p.detach().flatten() for p in policy.parameters()])


def test_no_staleness_is_the_synchronous_run():
    """Through the queue as without it, bit for bit."""
    from guerdon.learn import draws

    plain, end = toy(Stability())
    queue = draws.Ahead(draws.Draws(ToyPolicy(), *cursor()), 0, 6)
    assert len(queue.at(0)[0]) == 12 and not queue.waiting.named
    pinned = toy_through(lambda d, _, steps: draws.Ahead(d, 0, steps))
    assert torch.equal(end, pinned[1])
    assert [{k: v for k, v in m.items() if "seconds" not in k} for m in plain] == [
        {k: v for k, v in m.items() if "seconds" not in k} for m in pinned[0]
    ]


def cursor():
    from guerdon.data.cursor import Cursor

    return Cursor(toy_prompts(), 3, Key(0)), ToyReward(), 4, Key(0)


def toy_through(ahead):
    """A run with staleness 1 in its settings, whose queue is made by `ahead`."""
    from guerdon.learn import online

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(online, "Ahead", ahead)
        return toy(Stability(staleness=1))


@pytest.mark.parametrize("updates", [1, 2])
def test_staleness_is_what_was_asked_for(updates):
    seen, end = toy(Stability(staleness=2), minibatches=updates)
    assert [m["sampling/staleness"] for m in seen] == [updates * n for n in (0, 1, 2, 2, 2, 2)]
    assert all(m["sampling/staleness_max"] == m["sampling/staleness"] for m in seen)
    assert not torch.equal(end, toy(Stability(), minibatches=updates)[1])
    assert seen[0]["sampling/k3"] < 1e-6 < seen[3]["sampling/k3"]
    assert abs(far(seen[3])) < 2 * WITHIN  # old weights are no wrong log-probabilities


def test_what_waits_survives_a_kill():
    def recipe():
        off = Stability(staleness=2, correction="truncated")
        cfg = grpo.Config(stability=off, batch=3, steps=8, sampling=Sampling(n=4, max_new=6), optim=Optim(lr=0.05), minibatches=2)
        return grpo.build(cfg, ToyPolicy(spread=0.2), toy_prompts(), ToyReward(), Key(0))

    check_recipe(recipe, steps=8)


def test_it_still_climbs():
    seen, _ = toy(Stability(staleness=3, correction="truncated"), steps=80)
    assert sum(m["reward"] for m in seen[-5:]) / 5 > seen[0]["reward"] + 0.3


def test_a_batch_that_missed_a_rare_token_is_no_alarm():
    """Of 100 tokens of probability .97 not one went the other way, as in one batch of 20: each says -.1 nats, and no variance."""
    entropy = -0.97 * math.log(0.97) - 0.03 * math.log(0.03)
    gap = -math.log(0.97) - entropy
    seen = {"sampling/surprise": gap, "sampling/surprise_square": gap**2, "sampling/ratio": 1.0, "sampling/k3": 0.0}
    assert gap < -0.1
    assert not off_policy.diagnosis(off_policy.measured(Metrics(seen), 100))
    assert "likelier" in off_policy.diagnosis(off_policy.measured(Metrics(seen), 3000))
