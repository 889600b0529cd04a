"""Self-Rewarding PPO: the reward by hand, answers without an end, the two phases of a run, and what it teaches."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from guerdon.assemble import configure, prepare
from guerdon.config import Optim, Sampling
from guerdon.core import credit, kl
from guerdon.core.place import place
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.papers import self_rewarding_ppo as method
from guerdon.rewards.combine import Ended
from guerdon.rewards.implicit import ImplicitReward
from guerdon.testing import check_reward
from guerdon.testing.toys import ToyPolicy, ToyReward, toy_demos, toy_prompts
from guerdon.types import Batch, Outputs, Prompt, Recipe, Rollout, Score, Span

SFT, BASE = torch.tensor([[-0.5, -1.0]], dtype=torch.float64), torch.tensor([[-1.5, -0.8]], dtype=torch.float64)
MASK = torch.ones(1, 2, dtype=torch.bool)
ANSWER = Rollout(Prompt("p", "q"), "yes", torch.tensor([1, 0]), mask=MASK[0])


class Knows:
    """A policy and reference of one answer with known log-probabilities."""

    def __init__(self, logp: torch.Tensor) -> None:
        self.known = logp

    def collate(self, rollouts: Any) -> Batch:
        none = torch.zeros(len(rollouts), dtype=torch.long)
        return Batch({}, MASK.expand(len(rollouts), 2), none, none)

    def forward(self, batch: Batch, need: Any = None) -> Outputs:
        return Outputs(logp=self.known.expand(len(batch), 2))

    def logp(self, batch: Batch) -> torch.Tensor:
        return self.known.expand(len(batch), 2)


def reward(sft: torch.Tensor = SFT, base: torch.Tensor = BASE, penalty: float = 1.0) -> Ended:
    return Ended(ImplicitReward(Knows(sft), Knows(base), beta=1.0, clamp=method.CLAMP), penalty)  # type: ignore[arg-type]


def test_reward_and_advantages_by_hand():
    """Spec numbers: R .8, token rewards [-.01, .82], advantages [.589, .42], returns [.789, .82]."""
    (score,) = reward()([ANSWER])
    assert score.value == pytest.approx(0.8, abs=1e-9)
    policy = torch.tensor([[-0.4, -1.2]], dtype=torch.float64)
    paid = place([score.spans], 2, at="end", mask=MASK, dtype=torch.float64) + kl.penalty(policy, SFT, MASK, coef=0.1)
    torch.testing.assert_close(paid, torch.tensor([[-0.01, 0.82]], dtype=torch.float64), atol=1e-9, rtol=0)
    adv, target = credit.gae(paid, torch.tensor([[0.2, 0.4]], dtype=torch.float64), MASK, gamma=1.0, lam=0.95)
    torch.testing.assert_close(adv, torch.tensor([[0.589, 0.42]], dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(target, torch.tensor([[0.789, 0.82]], dtype=torch.float64), atol=1e-9, rtol=0)


def test_an_answer_without_an_end_earns_nothing():
    cut = ANSWER.with_(end="length")
    assert [s.value for s in reward()([ANSWER, cut])] == pytest.approx([0.8, -1.0])
    assert reward(BASE, SFT)([cut])[0].value == pytest.approx(-1.8)
    assert reward()([cut])[0].parts == pytest.approx({"implicit": 0.8})


def test_log_ratios_are_bounded():
    never = torch.tensor([[-torch.inf, -1.0]], dtype=torch.float64)
    assert reward(never, BASE)([ANSWER])[0].value == pytest.approx(-20.2)
    assert reward(SFT, never)([ANSWER])[0].value == pytest.approx(20.0)
    assert reward(never, never)([ANSWER])[0].abstained
    with pytest.raises(UserError, match="clamp 0"):
        ImplicitReward(Knows(SFT), Knows(BASE), clamp=0)  # type: ignore[arg-type]


def test_equal_models_give_no_reward():
    assert reward(SFT, SFT)([ANSWER])[0].value == 0


def test_ended_keeps_the_contract_of_rewards():
    check_reward(Ended(ToyReward()))
    abstains = Ended(lambda rollouts: [Score.abstain("?") for _ in rollouts])
    assert abstains([ANSWER.with_(end="length")])[0].abstained
    spread = Ended(lambda rollouts: [Score((Span(0, 1, 1.0), Span(1, 2, -3.0))) for _ in rollouts], 0.5)
    assert spread([ANSWER.with_(end="length")])[0].value == -2.5
    with pytest.raises(UserError, match="penalty -1"):
        Ended(ToyReward(), -1)


def built(**changes: Any) -> tuple[Recipe, ToyPolicy]:
    policy = ToyPolicy()
    usual: dict[str, Any] = dict(batch=6, steps=15, sampling=Sampling(n=4), optim=Optim(lr=0.05), missing_end=0.0)
    cfg = method.Config(**{**usual, "sft": method.Sft(steps=20, batch=6, optim=Optim(lr=0.05)), **changes})
    return method.build(cfg, policy, toy_demos(), toy_prompts(), Key(0)), policy


def share_of_a(policy: ToyPolicy) -> float:
    rollouts = policy.sample(toy_prompts(), 60, Key(9))
    return sum(s.value for s in ToyReward("a")(rollouts)) / len(rollouts)


def test_first_fine_tuning_then_ppo_towards_what_it_changed():
    """The demonstrations have many `a`s: PPO goes on where fine-tuning stopped, and the reward rises."""
    recipe, policy = built()
    assert recipe.steps == 35
    start = share_of_a(policy)
    first = [recipe.step(t) for t in range(20)]
    tuned = share_of_a(policy)
    then = [recipe.step(t) for t in range(20, 35)]
    assert all("loss/nll" in m for m in first)
    assert all({"loss/pg", "loss/value", "kl", "value"} <= set(m) for m in then)
    assert then[0]["kl"] == pytest.approx(0, abs=1e-6)  # the leash is to the fine-tuned model
    assert sum(m["reward"] for m in then[-3:]) > sum(m["reward"] for m in then[:3])
    assert start + 0.02 < tuned < share_of_a(policy) - 0.02


def test_a_policy_without_a_critic_is_refused():
    with pytest.raises(UserError, match="no critic"):
        method.build(method.Config(), SimpleNamespace(critic=None), toy_demos(), toy_prompts(), Key(0))  # type: ignore[arg-type]


def test_prompts_may_come_from_elsewhere(tmp_path):
    demos, prompts = tmp_path / "demos.jsonl", tmp_path / "more.jsonl"
    demos.write_text("".join(json.dumps({"prompt": f"q{i}", "completion": "yes"}) + "\n" for i in range(3)))
    prompts.write_text("".join(json.dumps({"prompt": f"new {i}"}) + "\n" for i in range(2)))
    for given, expected in ((None, ["q0", "q1", "q2"]), (str(prompts), ["new 0", "new 1"])):
        found, cfg = configure("self_rewarding_ppo", {"data": str(demos), "prompts": given})
        data = prepare(found, cfg).data
        assert [p.content for p in data["prompts"].items] == expected
        assert len(data["demos"].items) == 3
