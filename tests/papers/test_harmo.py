"""HARMO on toys: the composite reward term by term, the advantage, refusals."""

import pytest

from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.papers import harmo as method
from guerdon.testing import ToyPolicy, ToyReward, check_reward, toy_prompts
from guerdon.types import Prompt, Rollout


def answers(task, *texts, **meta):
    prompt = Prompt("p", "q", meta | {"task": task})
    return [Rollout(prompt, text) for text in texts]


def test_the_terms_add_up():
    cfg = method.Config(verifier="exact_match", length=method.Length(weight=1.0))
    reward = method.composite(cfg, ToyReward("a"))
    long, short = "<think>b b b b b b</think><answer>4</answer>", "<think>b</think><answer>5</answer>"
    right, wrong, bare = reward(answers("verifiable", long, short, "4", answer="4"))
    assert (right.parts["accuracy"], right.parts["format"]) == (1, 1)
    assert (wrong.parts["accuracy"], wrong.parts["format"]) == (0, 1)
    assert (bare.parts["accuracy"], bare.parts["format"]) == (1, 0)
    ref = (6 + 1) / 2  # words of the right ones
    penalty = -0.5 * ((ref - 1) / ref - 0.25) / 0.75
    assert [s.parts["brevity"] for s in (right, wrong, bare)] == pytest.approx([0, penalty, penalty])
    assert [s.value for s in (right, wrong, bare)] == pytest.approx([2, 1 + penalty, 1 + penalty])
    (open_,) = reward(answers("chat", "aaab"))
    assert open_.parts["accuracy"] == pytest.approx(1 / (1 + 2.718281828459045**-0.75))
    assert open_.parts["accuracy/open"] == open_.parts["accuracy"]
    check_reward(reward)


def test_weights_and_no_squash():
    cfg = method.Config(squash=False, accuracy_weight=3.0, format_weight=0.0, length=method.Length(weight=0.0))
    (score,) = method.composite(cfg, ToyReward("a"))(answers("chat", "ab"))
    assert score.value == pytest.approx(1.5)


def test_it_learns_both_kinds_of_task():
    policy = ToyPolicy()
    prompts = [Prompt(p.id, p.content, {**p.meta, "task": "verifiable"}) if i % 2 else p for i, p in enumerate(toy_prompts())]
    cfg = method.Config(verifier="exact_match", steps=25, batch=6, beta=0.0, sampling=Sampling(n=8), optim=Optim(lr=0.1))
    recipe = method.build(cfg, policy, prompts, ToyReward("a"), Key(0))
    found = [recipe.step(t) for t in range(25)]
    assert sum(m["rewards/accuracy/mean"] for m in found[-5:]) > sum(m["rewards/accuracy/mean"] for m in found[:5])
    assert {"rewards/brevity/mean", "rewards/format/mean", "rewards/accuracy/verifiable/mean"} <= set(found[0])


def test_a_verifiable_task_needs_a_reference():
    with pytest.raises(UserError, match="no reference answer"):
        method.build(method.Config(), ToyPolicy(), [Prompt("p", "A", {"task": "verifiable"})], ToyReward(), Key(0))
