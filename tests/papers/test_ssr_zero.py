"""SSR-Zero and SSR-X-Zero: what is asked, what is learnt from, who judges, and that it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from guerdon.assemble import configure
from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.papers import ssr_x_zero, ssr_zero
from guerdon.papers.ssr_zero import Judging
from guerdon.policies.refs import Frozen, Live
from guerdon.testing import ToyPolicy, ToyReward, check_recipe, toy_prompts
from guerdon.types import Prompt, Recipe

DIGITS = "0123456789"
OPEN = Judging(tag="", high=9.0, samples=4)


def config(kind: Any = ssr_zero.Config, **changes: Any) -> Any:
    usual = dict(tags=(), translate="{source}", judging=OPEN, beta=0.0, batch=6, steps=4, sampling=Sampling(n=6), optim=Optim(lr=0.1))
    return kind(**{**usual, **changes})


def built(policy: ToyPolicy, cfg: Any = None) -> Recipe:
    return ssr_zero.build(cfg or config(), policy, toy_prompts(), Key(0))


def test_prompts_ask_for_a_translation_in_the_given_form():
    cfg = ssr_zero.Config(target_lang="Danish")
    plain = cfg.asked(Prompt("a", [{"role": "user", "content": "a {cat}"}], {"n": 1}))
    assert plain.content.endswith("<answer> and </answer>.\n\na {cat}")
    assert plain.content.startswith("Translate the text below from English into Danish.")
    assert plain.meta == {"source": "a {cat}", "source_lang": "English", "target_lang": "Danish", "n": 1}
    known = cfg.asked(Prompt("b", "Please translate", {"source": "Hund", "source_lang": "German", "target_lang": "Welsh"}))
    assert "from German into Welsh" in known.content
    assert known.content.endswith("\n\nHund")
    with pytest.raises(UserError, match=r"expected a text with \{source\}"):
        ssr_zero.Config(translate="Translate!")


def test_the_judge_is_who_was_asked_for():
    policy = ToyPolicy()
    live = config(judging=Judging(temperature=0.3, levels=(0.0, 1.0))).judge(policy, Key(0))
    assert isinstance(live.model, Live)
    assert live.model.policy is policy
    assert (live.sampling, live.levels) == ({"temperature": 0.3}, (0.0, 1.0))
    frozen = config(judging=Judging(by="frozen")).judge(policy, Key(0))
    assert isinstance(frozen.model, Frozen)
    assert frozen.sampling == {}


def test_only_translations_are_learnt_from():
    policy, rows = ToyPolicy(letters=DIGITS, spread=0.3), []
    recipe = built(policy)
    learner: Any = recipe.state["learner"]
    update = learner.update
    learner.update = lambda batch: rows.append(batch) or update(batch)
    metrics = recipe.step(0)
    (batch,) = rows
    assert len(batch) == 36  # six texts, six translations: no row of a judgement
    assert batch.old_logp is not None
    assert {"rewards/self/mean", "rewards/format/mean", "rewards/self/judged/mean"} <= set(metrics)
    assert metrics["rewards/self/judged/mean"] > 0.5


def test_malformed_answers_get_nothing_unjudged():
    metrics = built(ToyPolicy(letters=DIGITS), config(tags=("answer",))).step(0)
    assert metrics["reward"] == 0
    assert metrics["rewards/format/mean"] == 0
    assert "rewards/self/mean" not in metrics


def shares(policy: ToyPolicy) -> float:
    """How often it writes a digit that its judge in context 0 reads, where it does not so by nature."""
    asked = [p for p in toy_prompts() if policy.context(p)]
    said = policy.sample(asked, 100, Key(5))
    return sum(r.content in ("0", "3", "6", "9") for r in said) / len(said)


def test_self_rewards_are_followed():
    """A toy judges by the sum of letters mod 3, and 9 points is all it says of 0: GRPO makes it write what it judges so."""
    policy = ToyPolicy(letters=DIGITS, steps=1, contexts=3)
    with torch.no_grad():
        policy.logits[0, 0, 10] = 20.0
        policy.logits[1:, 0, 0] = -20.0
    start = shares(policy)
    recipe = built(policy, config(steps=30, batch=6, judging=Judging(tag="", question="{answer}", high=9.0, by="frozen", samples=4)))
    metrics = [recipe.step(t) for t in range(30)]
    assert start == pytest.approx(0.4, abs=0.07)
    assert shares(policy) > 0.8
    assert metrics[-1]["reward"] > metrics[0]["reward"]


@pytest.mark.parametrize("by", ["live", "frozen"])
def test_a_killed_run_ends_the_same(by: Any):
    check_recipe(lambda: built(ToyPolicy(letters=DIGITS, spread=0.3), config(judging=Judging(by=by, tag="", high=9.0))))


def test_metrics_are_added_to_the_policys_own_score():
    policy = ToyPolicy(letters=DIGITS, spread=0.3)
    cfg = config(ssr_x_zero.Config, judging=Judging(tag="", high=9.0, weight=0.5))
    recipe = ssr_x_zero.build(cfg, policy, toy_prompts(), ToyReward("3"), Key(0))
    metrics = recipe.step(0)
    seen = 0.5 * metrics["rewards/self/mean"] + metrics["rewards/metrics/mean"]  # of answers that are not blank
    assert metrics["reward"] == pytest.approx(metrics["rewards/format/mean"] * seen, abs=1e-5)
    check_recipe(lambda: ssr_x_zero.build(cfg, ToyPolicy(letters=DIGITS, spread=0.3), toy_prompts(), ToyReward("3"), Key(0)))


def test_settings_by_name():
    _, cfg = configure("ssr_zero", {"judging.levels": "0,50,100", "tags": "answer", "judging.by": "frozen"})
    assert cfg.judging.levels == (0.0, 50.0, 100.0)
    assert (cfg.tags, cfg.judging.by, cfg.data) == (("answer",), "frozen", "gettext:django:en-fr")
    _, cfg = configure("ssr_x_zero", {"reward": ["comet=2"]})
    assert cfg.reward == ("comet=2",)
