"""The sequence-to-sequence reward model on toys: both mappings, the two phases, what is written."""

import pytest
import torch

from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.learn.little import new_policy
from guerdon.papers import seq2seq_rm as method
from guerdon.testing import ToyPolicy, toy_pairs, toy_prompts
from guerdon.types import Preference, Prompt, Rollout


def test_lessons_are_correction_and_identity():
    prompt = Prompt("p", "q")
    pair = Preference(prompt, (Rollout(prompt, "good"), Rollout(prompt, "bad")))
    first, second = method.lessons([pair], "Better:")
    assert (first.prompt.content, first.content) == ("q\n\nbad\n\nBetter:\n\n", "good")
    assert (second.prompt.content, second.content) == ("q\n\ngood\n\nBetter:\n\n", "good")
    three = Preference(prompt, tuple(Rollout(prompt, x) for x in ("good", "fair", "bad")))
    assert [x.content for x in method.lessons([three])] == ["good", "good", "good", "good", "fair", "fair"]


def test_the_loss_is_the_sum_over_the_target_averaged_over_both_mappings():
    pairs, rm = toy_pairs(3), ToyPolicy(spread=1.0)
    cfg = method.Config(rm=method.Fit(steps=1, batch=3))
    batch = rm.collate(method.lessons(pairs, cfg.instruction))
    want = -torch.where(batch.mask, rm.forward(batch).logp, 0.0).sum(1).mean()
    assert method.fit(cfg, rm, pairs, Key(0)).step(0)["loss/rewrite"] == pytest.approx(want.item(), abs=1e-5)


def test_first_the_reward_model_then_the_policy(tmp_path):
    policy, rm = ToyPolicy(), ToyPolicy(seed=1)
    cfg = method.Config(
        rm=method.Fit(steps=30, batch=6, optim=Optim(lr=0.1)), steps=25, sampling=Sampling(n=4), kl=0.0, optim=Optim(lr=0.1)
    )
    recipe = method.build(cfg, policy, rm, toy_pairs(), toy_prompts(), Key(0))
    start = {k: v.clone() for k, v in policy.state_dict().items()}
    fitted = [recipe.step(t) for t in range(30)]
    assert fitted[-1]["loss/rewrite"] < fitted[0]["loss/rewrite"]
    assert all(torch.equal(v, start[k]) for k, v in policy.state_dict().items())
    after = [recipe.step(t) for t in range(30, 55)]
    assert sum(m["reward"] for m in after[-5:]) > sum(m["reward"] for m in after[:5]) + 1
    assert after[-1]["rewards/prefix/mean"] > after[0]["rewards/prefix/mean"]
    recipe.final(tmp_path)
    assert (tmp_path / "toy.pt").exists() and (tmp_path / "reward_model" / "toy.pt").exists()


def test_little_models_and_refusals():
    prompt = Prompt("p", "a")
    pairs = [Preference(prompt, (Rollout(prompt, "a b"), Rollout(prompt, "b b")))]
    policy, rm = (new_policy(("a", "b", "->"), i, max_new=4, critic=True) for i in (0, 1))
    cfg = method.Config(instruction="{prompt} {answer} ->", steps=1, batch=1, rm=method.Fit(steps=1), sampling=Sampling(n=2))
    recipe = method.build(cfg, policy, rm, pairs, [prompt], Key(0))
    assert "loss/rewrite" in recipe.step(0) and "loss/value" in recipe.step(1)
    with pytest.raises(UserError, match="no critic"):
        method.build(cfg, new_policy(("a", "b", "->"), 0, max_new=4), rm, pairs, [prompt], Key(0))
    same = Preference(prompt, (Rollout(prompt, "a"), Rollout(prompt, "a")))
    with pytest.raises(UserError, match=r"seq2seq_rm|same|equal"):
        method.build(cfg, policy, rm, [same], [prompt], Key(0))
