"""MetaRM's step: worked numbers, and that everything but the place of the gradient is the ordinary update."""

import copy
from dataclasses import dataclass

import pytest
import torch

from guerdon.config import Optim
from guerdon.learn.learner import Learner, learner_for
from guerdon.learn.meta import MetaLearner, prompt_scores
from guerdon.papers import bradley_terry
from guerdon.testing.say import same
from guerdon.types import Batch, Outputs


class Linear(torch.nn.Module):
    """r = w . phi, in float64."""

    version = 0

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor([1.0, -1.0], dtype=torch.float64))

    def forward(self, batch, need=frozenset({"score"})):
        return Outputs(score=batch.inputs["phi"] @ self.w)


@dataclass(frozen=True)
class Plain:
    """Stochastic gradient descent, as an optimizer of a learner."""

    lr: float = 0.1

    def build(self, parameters):
        return torch.optim.SGD(list(parameters), self.lr)

    def lr_at(self, update):
        return self.lr


def batch(phi, group, pairs=()):
    group = torch.tensor(group)
    phi = torch.tensor(phi, dtype=torch.float64)
    extra = {"rating": torch.zeros(len(phi), dtype=torch.float64)}
    return Batch({"phi": phi}, torch.ones(len(phi), 1, dtype=torch.bool), group, group, pairs=torch.tensor(pairs).view(-1, 2), extra=extra)


META = batch([[1.0, 0], [0, 1], [1, 1]], [0, 0, 0])
PAIRS = batch([[1.0, 0], [0, 1], [1, 1], [0, 0]], [0, 0, 1, 1], [(0, 1), (2, 3)])


def learner(kind=MetaLearner, optimizer=None, **more):
    return kind(Linear(), [bradley_terry.term()], optimizer or Plain(), max_grad_norm=None, **more)


@pytest.mark.parametrize("more", [{}, {"micro_units": 1}])
def test_one_step(more):
    made = learner(**more)
    metrics = made.meta_update(PAIRS, META, eta=0.1)
    w = made.policy.w.detach()
    torch.testing.assert_close(w, torch.tensor([1.0308901342, -0.9808901342], dtype=torch.float64), atol=1e-9, rtol=0)
    assert metrics["meta/norm"] == pytest.approx(0.0670234486 * 2**0.5, abs=1e-9)
    assert made.updates == made.policy.version == 1


def test_the_gradient_is_taken_after_the_ascent():
    seen = []
    made = learner()
    forward = made.policy.forward
    made.policy.forward = lambda b, need: (seen.append(made.policy.w.detach().clone()), forward(b, need))[1]  # type: ignore[method-assign]
    made.meta_update(PAIRS, META, eta=0.1)
    want = [[1, -1], [1.0067023449, -1.0067023449]]
    torch.testing.assert_close(torch.stack(seen), torch.tensor(want, dtype=torch.float64), atol=1e-9, rtol=0)


def test_the_ascent_adds_up_when_it_is_kept():
    made, home = learner(), torch.tensor([1.0, -1.0], dtype=torch.float64)
    made.meta_update(PAIRS, META, eta=0.1, keep=True)
    away = torch.tensor([1.0067023449, -1.0067023449], dtype=torch.float64)
    want = away + torch.tensor([1.0308901342, -0.9808901342], dtype=torch.float64) - home
    torch.testing.assert_close(made.policy.w.detach(), want, atol=1e-9, rtol=0)


@pytest.mark.parametrize(("meta", "eta"), [(META, 0.0), (batch([[1.0, 0], [0, 1]], [0, 1]), 5.0)])
def test_without_an_ascent_it_is_the_ordinary_update(meta, eta):
    ours, plain = learner(), learner(Learner)
    ours.meta_update(PAIRS, meta, eta)
    plain.update(PAIRS)
    assert torch.equal(ours.policy.w, plain.policy.w)


def test_a_batch_that_teaches_nothing_leaves_the_weights_where_they_were():
    made = learner()
    metrics = made.meta_update(batch([[1.0, 0]], [0]), META, eta=10.0)
    assert metrics["skipped"] == 1
    assert made.policy.w.tolist() == [1, -1]
    made.update(PAIRS)
    plain = learner(Learner)
    plain.update(PAIRS)
    assert torch.equal(made.policy.w, plain.policy.w), "nothing of the ascent is left over"


def test_it_is_made_and_kept_as_any_learner():
    made = learner_for(Linear(), [bradley_terry.term()], Optim(lr=0.1), 3, MetaLearner)
    made.meta_update(PAIRS, META, eta=0.1)
    again = learner_for(Linear(), [bradley_terry.term()], Optim(lr=0.1), 3, MetaLearner)
    again.load_state_dict(copy.deepcopy(made.state_dict()))
    for each in (made, again):
        each.meta_update(PAIRS, META, eta=0.1)
    assert same(made.state_dict(), again.state_dict())


def test_answers_are_gathered_by_prompt():
    score, group = torch.tensor([0.0, 1, 2, 3, 4, 5]), torch.tensor([7, 3, 7, 3, 9, 7])
    assert [rows.tolist() for rows in prompt_scores(score, group)] == [[[4.0]], [[1.0, 3.0]], [[0.0, 2.0, 5.0]]]
