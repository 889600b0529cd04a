"""Rewards from demonstrations, on toys: what is contrasted, what the discriminator hears, and which snapshots the dense path compares."""

from __future__ import annotations

import pytest
import torch

from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.learn.imitation import Adversary, by_returns, contrast_pairs, discriminator_term, fine_tuning
from guerdon.learn.learner import learner_for
from guerdon.learn.verbs import sft_term
from guerdon.papers import irl_post_training, prompt_oirl
from guerdon.papers.self_rewarding_ppo import Sft
from guerdon.rewards.implicit import ImplicitReward, Nothing
from guerdon.testing import ToyPolicy, check_recipe, toy_demos, toy_prompts
from guerdon.testing.toys import parameters_of
from guerdon.types import Prompt, Rollout

KEY, DEMOS = Key(0), toy_demos(12)


def config(**more):
    usual = dict(batch=6, steps=4, reward_steps=2, sampling=Sampling(n=2, max_new=6), sft=Sft(steps=2, batch=4, optim=Optim(lr=0.1)))
    return irl_post_training.Config(**{**usual, "optim": Optim(lr=0.1), "reward_optim": Optim(lr=0.1), **more})


@pytest.mark.parametrize("part", ["contrast", "adversarial", "dense_path", "endogenous"])
def test_every_part_survives_a_kill(part):
    make = lambda: irl_post_training.build(config(part=part), ToyPolicy(spread=0.3), ToyPolicy(spread=0.3), DEMOS, KEY)
    recipe = make()
    check_recipe(make, steps=recipe.steps - recipe.steps % 2)
    names = set(recipe.state)
    assert ("reward_learner" in names) == (part == "contrast")
    assert ("policy_discriminator" in names) == (part == "adversarial")


def test_final_has_policy_and_reward(tmp_path):
    recipe = irl_post_training.build(config(), ToyPolicy(), ToyPolicy(), DEMOS, KEY)
    recipe.final(tmp_path)
    assert (tmp_path / "toy.pt").exists() and (tmp_path / "reward" / "toy.pt").exists()


def test_what_is_contrasted():
    start, tuned = ToyPolicy(), ToyPolicy()
    with torch.no_grad():
        start.logits[..., 2], tuned.logits[..., 3] = 50.0, 50.0  # the one writes b alone, the other c alone
    for pair in contrast_pairs("tuned/start", DEMOS, start, tuned, KEY):
        assert [r.content for r in pair.ranked] == ["cccccc", "bbbbbb"]
    for source, bad in (("demos/start", "bbbbbb"), ("demos/tuned", "cccccc")):
        pairs = contrast_pairs(source, DEMOS, start, tuned, KEY)
        assert [p.ranked[0].content for p in pairs] == [d.content for d in DEMOS]
        assert {p.ranked[1].content for p in pairs} == {bad}
        assert [p.prompt.id for p in pairs] == [d.prompt.id for d in DEMOS]
    assert contrast_pairs("demos/start", [Rollout(DEMOS[0].prompt, "bbbbbb", end="length")], start, tuned, KEY) == []


def test_the_discriminator_learns_before_it_pays():
    scorer = ToyPolicy()
    adversary = Adversary(learner_for(scorer, [discriminator_term(0.1)], Optim(lr=0.3), 20), DEMOS, updates=3)
    rollouts = ToyPolicy().sample([d.prompt for d in DEMOS], 2, KEY)
    first = adversary(rollouts)
    assert any(s.value != 0 for s in first)  # untrained, every log-odds would be 0
    assert adversary.learner.updates == 3
    for _ in range(15):
        adversary(rollouts)
    made_up, real = (sum(s.value for s in adversary(x)) / len(x) for x in (rollouts, list(DEMOS)))
    assert real > made_up
    assert {"discriminator/loss", "discriminator/accuracy"} <= set(adversary.metrics())


def test_rows_of_the_discriminator():
    scorer = ToyPolicy()
    adversary = Adversary(learner_for(scorer, [discriminator_term(0.0)], Optim(lr=0.1), 1), DEMOS)
    rollouts = ToyPolicy().sample([DEMOS[0].prompt, Prompt("new", "A")], 2, KEY)
    batch = adversary.batch(rollouts)
    assert batch is not None and batch.label.tolist() == [1, 0, 1, 0]
    assert adversary.batch(rollouts[2:]) is None
    assert len(adversary(rollouts[2:])) == 2 and adversary.learner.updates == 0  # scored, not learnt from


def test_snapshots_of_fine_tuning():
    policy = ToyPolicy()
    recipe, half, tuned = fine_tuning(learner_for(policy, [sft_term()], Optim(lr=0.1), 4), DEMOS, 4, 4, KEY)
    seen = []
    for t in range(4):
        recipe.step(t)
        seen.append([p.detach().clone() for p in parameters_of(policy)])
    for snapshot, want in ((half, seen[1]), (tuned, seen[3])):
        assert all(torch.equal(a, b) for a, b in zip(parameters_of(snapshot.policy), want, strict=True))
    [score] = ImplicitReward(tuned.policy, half, beta=1.0, at="each", clamp=5.0)([DEMOS[0]])
    batch = policy.collate([DEMOS[0]])
    ratio = (tuned.logp(batch) - half.logp(batch))[0]
    torch.testing.assert_close(torch.tensor([s.value for s in score.spans]), ratio)
    [plain] = ImplicitReward(tuned.policy, Nothing(), beta=1.0, at="each")([DEMOS[0]])
    torch.testing.assert_close(torch.tensor([s.value for s in plain.spans]), tuned.logp(batch)[0])


def test_returns_to_go():
    policy = ToyPolicy()
    rollouts = policy.sample(toy_prompts(2), 2, KEY)
    batch = policy.collate(rollouts)
    scores = ImplicitReward(ToyPolicy(spread=1.0), Nothing(), beta=1.0, at="each")(rollouts)
    got = by_returns(whiten=False)(scores, batch)
    for row, score in zip(got, scores, strict=True):
        values = [s.value for s in score.spans]
        torch.testing.assert_close(row[: len(values)], torch.tensor([sum(values[t:]) for t in range(len(values))]), atol=1e-5, rtol=0)
    white = by_returns()(scores, batch)[batch.mask]
    assert abs(float(white.mean())) < 1e-5 and abs(float(white.std()) - 1) < 1e-3


def test_prompts_are_chosen_by_query():
    """Two kinds of queries, two prompts, each good for one of them."""
    logs = []
    for i in range(160):
        kind, tried = i % 2, (i // 2) % 2
        query = ("add {} and {}", "spell the word {} backwards {}")[kind].format(i, i + 7)
        logs.append(Rollout(Prompt(str(i), query, {"label": float(kind == tried)}), ("Calculate.", "Letter by letter.")[tried]))
    recipe = prompt_oirl.build(prompt_oirl.Config(epochs=120), logs, KEY)
    for t in range(recipe.steps):
        recipe.step(t)
    regressor = recipe.state["learner"].policy
    assert regressor.choose(["add 999 and 3", "spell the word 4 backwards 5"], ["Calculate.", "Letter by letter."]) == [0, 1]
    assert regressor.chances(["add 999 and 3"], ["Calculate.", "Letter by letter."]).tolist()[0][0] > 0.8
    assert prompt_oirl.build(prompt_oirl.Config(steps=7), logs, KEY).steps == 7
