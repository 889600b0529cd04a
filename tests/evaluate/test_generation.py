"""What a policy writes, measured by hand, and every verdict on it."""

import math

import pytest
import torch

from guerdon.core.rng import Key
from guerdon.evaluate.generation import Generation, Limits, judge_run, measure, study
from guerdon.policies.refs import Frozen
from guerdon.testing import ToyPolicy, ToyReward, toy_prompts
from guerdon.types import Prompt, Rollout, Score

JUDGES = {"a": ToyReward("a"), "b": ToyReward("b")}


def written(*rows, end="stop"):
    """Rollouts of these decisions, each as likely as in the uniform toy policy."""
    out = []
    for i, row in enumerate(rows):
        actions = torch.tensor(row)
        logp = torch.full((len(row),), -math.log(5))
        prompt = Prompt(f"p{i}", "A")
        out.append(Rollout(prompt, ToyPolicy().decode(actions), actions, logp, torch.ones(len(row), dtype=torch.bool), group=i, end=end))
    return out


def test_numbers_by_hand():
    """Token pairs: 12 21 12 10, 12; so 3 different of 5. The start gives each token 1/5, so its perplexity is 5."""
    uniform = ToyPolicy()
    rollouts = [*written([1, 2, 1, 2, 0]), *written([1, 2], end="length")]
    found = measure(rollouts, uniform, Frozen(uniform), JUDGES)
    assert found.distinct_2 == pytest.approx(3 / 5)
    assert found.perplexity == pytest.approx(5, abs=1e-5)
    assert (found.eos, found.length) == (0.5, 3.5)
    assert found.kl == pytest.approx(0, abs=1e-6)
    assert found.reward == {"a": 0.5, "b": 0.5}
    assert found.values["a"].tolist() == [0.5, 0.5]
    assert found.rollouts == tuple(rollouts)


def test_a_start_is_no_nats_from_itself():
    policy = ToyPolicy(spread=1.0)
    assert study(policy, Frozen(policy), toy_prompts(4), JUDGES, n=3, key=Key(0)).kl == pytest.approx(0, abs=1e-6)


def test_kl_and_perplexity_equal_plain_loops():
    policy, start = ToyPolicy(spread=1.0, seed=1), ToyPolicy(spread=0.5, seed=2)
    found = study(policy, Frozen(start), toy_prompts(5), JUDGES, n=8, key=Key(0))
    assert len(found.rollouts) == 40
    table = [p.logits.detach().double().log_softmax(-1) for p in (policy, start)]
    moved, nats, tokens = 0.0, 0.0, 0
    for r in found.rollouts:
        for t, a in enumerate(r.actions.tolist()):
            now, before = (float(x[policy.context(r.prompt), t, a]) for x in table)
            moved, nats, tokens = moved + now - before, nats - before, tokens + 1
    assert found.kl == pytest.approx(moved / 40, abs=1e-5)
    assert found.kl > 0.5
    assert found.perplexity == pytest.approx(math.exp(nats / tokens), rel=1e-5)
    assert found.length == tokens / 40
    assert found.eos == sum(r.end == "stop" for r in found.rollouts) / 40
    for name in JUDGES:
        assert found.reward[name] == pytest.approx(sum(r.content.count(name) / max(1, len(r.content)) for r in found.rollouts) / 40)


def test_what_was_not_chosen_counts_nothing():
    """A token of a tool is masked out: it is neither KL nor perplexity."""
    (rollout,) = written([1, 2, 3])
    masked = rollout.with_(mask=torch.tensor([True, False, True]), logp=torch.tensor([-1.0, -100.0, -1.0]))
    found = measure([masked], ToyPolicy(), Frozen(ToyPolicy()), {})
    assert found.kl == pytest.approx(-2 + 2 * math.log(5), abs=1e-5)
    assert found.perplexity == pytest.approx(5, abs=1e-5)


def test_one_key_gives_one_sample():
    policy = ToyPolicy(spread=1.0)
    one, same, other = (study(policy, Frozen(policy), toy_prompts(4), JUDGES, n=4, key=Key(seed)) for seed in (0, 0, 1))
    assert [r.content for r in one.rollouts] == [r.content for r in same.rollouts]
    assert [r.content for r in one.rollouts] != [r.content for r in other.rollouts]
    assert one.reward == same.reward


def test_a_missing_judgement_is_not_a_zero():
    def half(rollouts):
        return [Score.abstain("no") if i % 2 else Score.whole(r, 3.0) for i, r in enumerate(rollouts)]

    found = measure(written([1], [2]), ToyPolicy(), Frozen(ToyPolicy()), {"half": half})
    assert found.reward == {"half": 3.0}
    assert math.isnan(found.values["half"][1])


# ---------------------------------------------------------------- verdicts


def generation(proxy=0.0, other=0.0, *, kl=0.0, distinct=0.5, perplexity=20.0, eos=1.0, length=15.0):
    return Generation({"proxy": proxy, "other": other}, {}, kl, distinct, perplexity, eos, length)


START = generation()


def verdict(**now):
    found = judge_run("run", START, generation(**now), proxy="proxy")
    assert found.run == "run"
    return found.verdict, found.why


def test_better():
    said, why = verdict(proxy=1.0, other=0.2, kl=3.0)
    assert said == "better"
    assert why == "proxy +1.00, other +0.20; KL 3.0 nats, distinct-2 0.50, perplexity 20 (start 20)"


@pytest.mark.parametrize(
    ("now", "sign"),
    [
        ({"distinct": 0.29}, "it repeats itself (distinct-2 0.50 -> 0.29)"),
        ({"perplexity": 41.0}, "it left the language (perplexity under the start 20 -> 41)"),
        ({"eos": 0.29, "length": 28.0}, "it no longer stops (ends by itself 100% -> 29%, length 15 -> 28)"),
        ({"kl": 10.1}, "it is far from its start (KL 10 nats a response)"),
    ],
)
def test_one_sign_is_watched_and_a_second_one_condemns(now, sign):
    said, why = verdict(proxy=1.0, other=0.2, **now)
    assert said == "better"
    assert why.endswith(f"; watch: {sign}")
    second = {"kl": 11.0} if "kl" not in now else {"eos": 0.0}
    said, why = verdict(proxy=1.0, other=-0.1, **{**now, **second})
    assert said == "gamed"
    assert sign in why
    assert "rose all the same" not in why


def test_at_a_limit_there_is_no_sign_yet():
    said, why = verdict(proxy=1.0, other=0.2, distinct=0.3, perplexity=40.0, eos=0.3, kl=10.0)
    assert said == "better"
    assert "watch" not in why


def test_judges_that_rise_do_not_clear_a_gamed_run():
    said, why = verdict(proxy=2.0, other=0.5, distinct=0.1, eos=0.0, kl=50.0)
    assert said == "gamed"
    assert why.startswith("proxy +2.00, but it repeats itself")
    assert why.count(";") == 3
    assert why.endswith("other rose all the same, so judges alone would have called it a success")


@pytest.mark.parametrize(("proxy", "said"), [(-0.2, "worse"), (-0.05, "worse"), (-0.04, "unchanged"), (0.0, "unchanged")])
def test_a_reward_that_did_not_rise(proxy, said):
    """Whatever else happened: nothing was gained, so nothing was gamed."""
    for rest in ({"other": 1.0}, {"other": -1.0, "distinct": 0.0, "eos": 0.0, "kl": 99.0}):
        got, why = verdict(proxy=proxy, **rest)
        assert got == said
        assert "did not rise" in why


def test_judges_that_did_not_rise_leave_it_unchanged():
    assert verdict(proxy=1.0, other=0.0) == (
        "unchanged",
        "the reward rose, judges it never trained on did not (proxy +1.00, other +0.00)",
    )
    assert verdict(proxy=1.0, other=-0.3)[0] == "unchanged"


@pytest.mark.parametrize("missing", ["proxy", "other"])
def test_a_missing_reward_makes_nothing_better(missing):
    assert verdict(**{"proxy": 1.0, "other": 1.0, missing: math.nan})[0] == "unchanged"


def test_limits_can_be_moved():
    now = generation(1.0, 0.2, kl=3.0, perplexity=25.0)
    assert judge_run("run", START, now, proxy="proxy").verdict == "better"
    assert judge_run("run", START, now, proxy="proxy", limits=Limits(kl=2.0, perplexity=1.2)).verdict == "gamed"
