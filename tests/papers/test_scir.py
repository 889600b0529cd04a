"""SCIR: the six rows of a pair, both opinions by hand, who wins, and a run in which they come to agree."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.learn.verbs import with_ref
from guerdon.papers import scir
from guerdon.papers._pairwise_judge import Opinions, Question, at_pairs, opinions, right_labels
from guerdon.policies.refs import Frozen
from guerdon.testing import ToyPolicy, check_recipe, toy_pairs, toy_prompts
from guerdon.types import Batch, Outputs, Preference, Prompt, Rollout

KEY = Key(0)


class Reader(ToyPolicy):
    """A toy that heeds the order of what it reads."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(spread=0.4, contexts=31, seed=seed)

    def context(self, prompt: Prompt) -> int:
        return sum((i + 1) * ord(c) for i, c in enumerate(str(prompt.content))) % self.contexts


ASK = Question("{prompt}|{first}|{second}", ("a", "b"))


def config(**changes: Any) -> scir.Config:
    usual = dict(labels=("a", "b"), seed_steps=2, rounds=2, prompts_per_round=4, steps_per_round=3, batch=4, sampling=Sampling(n=4))
    return scir.Config(**{**usual, "optim": Optim(lr=0.05), "seed_optim": Optim(lr=0.1), **changes})


def build(cfg: scir.Config, policy: Reader | None = None) -> Any:
    return scir.build(cfg, policy or Reader(), toy_pairs(12), toy_prompts(), KEY)


def test_both_orders_are_asked_whatever_the_answers_hold():
    prompt = Prompt("p", [{"role": "user", "content": "Say {second}."}])
    first, second = Rollout(prompt, "{first}"), Rollout(prompt, "no {prompt}")
    assert ASK.ask(prompt, first, second).content == "Say {second}.|{first}|no {prompt}"
    assert ASK.ask(prompt, second, first).content == "Say {second}.|no {prompt}|{first}"
    with pytest.raises(UserError, match=r"'\{second\}'"):
        Question("{prompt} {first}", ("a", "b"))
    with pytest.raises(UserError, match="two different labels"):
        Question("{prompt} {first} {second}", ("a", "a"))


def test_six_rows_of_a_pair():
    policy = Reader()
    batch = ASK.rows(policy, toy_pairs(2))
    assert batch.unit.tolist() == [0] * 6 + [1] * 6
    assert batch.pairs.tolist() == [[0, 1], [6, 7]]
    assert right_labels(batch).nonzero()[:, 0].tolist() == [2, 5, 8, 11]
    assert batch.mask.sum(1).tolist() == [6, 6, 1, 1, 1, 1] * 2
    assert batch.inputs["actions"][2:6, 0].tolist() == [1, 2, 1, 2]  # a, b after either question
    question, swapped = (policy.context(ASK.ask(p.prompt, *order)) for p in toy_pairs(1) for order in (p.ranked, p.ranked[::-1]))
    assert batch.inputs["context"][2:6].tolist() == [question, question, swapped, swapped]


def read(answers: list[float], labels: list[float], ref: list[float], **how: Any) -> Opinions:
    """Of one pair: log-probabilities of both answers (two decisions each), of the four labels, and the reference's of the answers."""
    logp = torch.tensor([[x / 2, x / 2] for x in answers] + [[x, 0.0] for x in labels], dtype=torch.float64)
    old = torch.tensor([[x / 2, x / 2] for x in ref] + [[0.0, 0.0]] * 4, dtype=torch.float64)
    mask = torch.tensor([[True, True]] * 2 + [[True, False]] * 4)
    batch = Batch({}, mask, torch.zeros(6).long(), torch.zeros(6).long(), ref_logp=old, pairs=torch.tensor([[0, 1]]))
    return opinions(Outputs(logp=logp), batch, **how)


def test_opinions_by_hand():
    """The published pieces' worked numbers: labels [1, 0] and, swapped, [0, .5] less what makes them probabilities."""
    scale = [math.log(math.exp(1) + 1)] * 2 + [math.log(1 + math.exp(0.5))] * 2
    labels = [x - s for x, s in zip([1.0, 0.0, 0.0, 0.5], scale, strict=True)]
    seen = read([-1.2, -1.5], labels, [-1.0, -1.1], beta=1.0)
    assert float(torch.sigmoid(seen.judge)) == pytest.approx(0.676758955, abs=1e-9)
    assert float(torch.sigmoid(seen.implicit)) == pytest.approx(0.549833997, abs=1e-9)
    assert bool(seen.known)
    assert float(seen.place) == pytest.approx((0.731058579 - 0.622459331) / 2, abs=1e-9)
    normed = read([-1.2, -1.5], labels, [-1.0, -1.1], beta=1.0, length_norm=True)
    assert float(normed.implicit) == pytest.approx(0.1, abs=1e-12)
    assert not bool(read([-1.2, -1.5], [-20.0, -20, -1, -1], [-1.0, -1.1], beta=1.0).known)


@pytest.mark.parametrize(
    ("whose", "threshold", "want"),
    [("agreed", 0.0, [1, 0, None, None, 1]), ("agreed", 0.2, [1, None, None, None, 1]), ("judge", 0.0, [1, 0, 1, None, None])],
)
def test_who_wins(whose: str, threshold: float, want: list[float | None]):
    judge, implicit = torch.tensor([2.0, -2, 2, 0, -9]), torch.tensor([1.0, -0.5, -1, 3, 2])
    known = torch.tensor([True, True, True, True, False])  # the last judge did not answer: the implicit reward decides, if anybody
    found = Opinions(judge, implicit, known, judge).winners(whose, threshold)
    assert [None if math.isnan(x) else x for x in found.tolist()] == want


def losses(cfg: scir.Config, policy: Reader, label: list[float], known: list[bool]) -> tuple[Any, Batch]:
    start = Frozen(Reader())
    batch = at_pairs(with_ref(ASK.rows(policy, toy_pairs(3)), start), torch.tensor(label), torch.tensor(known))
    return scir.terms(cfg), batch


def test_terms_by_hand_and_without_a_winner():
    policy, nan = Reader(seed=1), math.nan
    [won, agree], batch = losses(config(beta=0.5), policy, [1.0, 0.0, nan], [True, False, True])
    out = policy.forward(batch)
    ratio = (out.logp - batch.ref_logp).sum(1).view(3, 6)
    margin = 0.5 * (ratio[:, 0] - ratio[:, 1])
    want = torch.nn.functional.softplus(torch.stack((-margin[0], margin[1]))).mean()
    torch.testing.assert_close(won.reduce(won.loss(out, batch), won.over(batch)), want)
    z = out.logp.sum(1).view(3, 6)
    p = 0.5 * (torch.sigmoid(z[:, 2] - z[:, 3]) + torch.sigmoid(z[:, 5] - z[:, 4]))
    q = torch.sigmoid(margin)
    both = -(p * q + (1 - p) * (1 - q)).log()
    torch.testing.assert_close(agree.reduce(agree.loss(out, batch), agree.over(batch)), (both[0] + both[2]) / 2)
    [won, _], batch = losses(config(), policy, [nan] * 3, [True] * 3)
    assert won.reduce(won.loss(policy.forward(batch), batch), won.over(batch)).item() == 0.0  # not NaN


def test_the_winner_is_a_constant_of_the_batch():
    """What DPO learns from is decided before the update: no gradient goes through the judge's rows when lam is 0."""
    policy = Reader(seed=1)
    [won, _], batch = losses(config(), policy, [1.0, 0.0, 1.0], [True] * 3)
    logp = policy.forward(batch).logp.detach().requires_grad_()
    won.loss(Outputs(logp=logp), batch).sum().backward()
    assert logp.grad is not None
    rows = logp.grad.abs().sum(1).view(3, 6)
    assert (rows[:, :2] > 0).all() and (rows[:, 2:] == 0).all()


def test_judge_and_implicit_reward_come_to_agree():
    found = {}
    for lam in (0.0, 1.0):
        recipe = build(config(rounds=1, steps_per_round=60, prompts_per_round=6, lam=lam, threshold=0.49, batch=12, beta=1.0))
        metrics = [recipe.step(t) for t in range(recipe.steps)]
        assert metrics[1]["loss/judge"] < metrics[0]["loss/judge"]
        found[lam] = (metrics[2]["loss/agreement"], metrics[-1]["loss/agreement"], metrics[-1]["agree"])
    assert found[0.0][0] == found[1.0][0]
    assert found[1.0][1] < 0.7 * found[0.0][1]
    assert found[1.0][2] > 0.9


def test_kl_and_self_rewarding_by_the_judge_run():
    for changes in (dict(objective="kl"), dict(winner="judge", lam=0.0), dict(length_norm=True, optim=Optim(lr=0.05, micro_units=1))):
        recipe = build(config(**changes))
        assert all(math.isfinite(recipe.step(t)["loss"]) for t in range(recipe.steps))


def test_bad_input():
    with pytest.raises(UserError, match="1 answer to each prompt"):
        build(config(sampling=Sampling(n=1)))
    prompt = toy_prompts(1)[0]
    equal = [Preference(prompt, (Rollout(prompt, "a"), Rollout(prompt, "a")))]
    with pytest.raises(UserError, match="chosen and rejected are equal"):
        scir.build(config(), ToyPolicy(), equal, toy_prompts(), KEY)


def test_a_killed_run_ends_the_same():
    check_recipe(lambda: build(config()), steps=8)
