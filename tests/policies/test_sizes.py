"""How large rows are, and that a forward pass keeps to a budget of tokens, with the same gradient."""

import pytest
import torch

from guerdon.core import preference, reduce
from guerdon.core.rng import Key
from guerdon.learn.learner import Adam, Learner
from guerdon.learn.verbs import chosen, pair_batch, rejected, row_sum
from guerdon.policies.heads import Scorer
from guerdon.policies.text import TextPolicy
from guerdon.testing.models import small_model
from guerdon.types import Preference, Prompt, Rollout, Term, decisions, pairs

LONG = "The cat sat on the mat, and the dog ran over the green hill. " * 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small_model(tmp_path_factory.mktemp("llama"), std=0.1)


def preferences() -> list[Preference]:
    prompts = [Prompt("a", LONG), Prompt("b", "Why?"), Prompt("c", LONG[20:]), Prompt("d", "Over the hill?")]
    return [Preference(p, (Rollout(p, "The dog ran." * (i + 1)), Rollout(p, "No."))) for i, p in enumerate(prompts)]


def term() -> Term:
    def loss(o, b):
        ratio = row_sum(o.logp, b)
        return preference.dpo(chosen(b, ratio), rejected(b, ratio), beta=0.5)

    return Term("dpo", loss, over=pairs, reduce=reduce.mean)


def gradient(policy, terms, batch, **limits) -> tuple[torch.Tensor, list[int]]:
    learner = Learner(policy, terms, Adam(0.0), max_grad_norm=None, **limits)
    kept: list[torch.Tensor] = []
    learner.optimizer.register_step_pre_hook(lambda *_: kept.extend(p.grad.flatten().clone() for p in learner.parameters))
    through: list[int] = []  # tokens of each forward pass, as the model sees them
    handle = policy.model.get_input_embeddings().register_forward_hook(lambda _, ids, __: through.append(ids[0].numel()))
    learner.update(batch)
    handle.remove()
    return torch.cat(kept), through


@pytest.mark.parametrize("layout", ["tree", "packed", "padded"])
def test_the_gradient_is_the_same_for_any_budget(folder, layout):
    policy = TextPolicy.load(folder, layout=layout)
    batch = pair_batch(policy, preferences())
    size = policy.sizes(batch).reshape(-1, 2).sum(1).tolist()
    whole, _ = gradient(policy, [term()], batch)
    for tokens in (1, min(size), sum(size) // 3, sum(size) - 1, sum(size)):
        parts, through = gradient(policy, [term()], batch, micro_tokens=tokens)
        assert float((parts - whole).norm() / whole.norm()) < 1e-6
        if layout != "padded":
            assert max(through) <= max(tokens, max(size))
        assert (len(through) == 1) == (tokens == sum(size)) or layout == "padded"


def test_a_prompt_that_siblings_share_counts_once_in_a_tree_and_each_time_elsewhere(folder):
    sampler = TextPolicy.load(folder, layout="tree", max_new=4)
    batch = sampler.collate(sampler.sample([Prompt("a", LONG), Prompt("b", "Why?")], 3, Key(0)))
    prompt, length = batch.inputs["prompt_len"], batch.inputs["length"]
    first = torch.tensor([True, False, False, True, False, False])
    assert torch.equal(sampler.sizes(batch), length + prompt * first)
    apart = batch.with_(unit=torch.arange(6))  # siblings that may part: each has its own
    assert torch.equal(sampler.sizes(apart), length + prompt)
    assert torch.equal(TextPolicy.load(folder, layout="packed").sizes(batch), length + prompt)


def test_the_texts_of_a_scorer_count_whole(folder):
    scorer = Scorer.load(folder)
    batch = pair_batch(scorer, preferences())
    assert torch.equal(scorer.sizes(batch), batch.inputs["length"])
    ranking = Term(
        "bt", lambda o, b: -(chosen(b, o.score) - rejected(b, o.score)), over=pairs, reduce=reduce.mean, needs=frozenset({"score"})
    )
    whole, _ = gradient(scorer, [ranking], batch)
    parts, through = gradient(scorer, [ranking], batch, micro_tokens=100)
    assert float((parts - whole).norm() / whole.norm()) < 1e-6
    assert len(through) > 1


def test_policy_gradients_with_a_budget(folder):
    policy = TextPolicy.load(folder, max_new=6)
    batch = policy.collate(policy.sample([Prompt(x, LONG[i:]) for i, x in enumerate("abc")], 2, Key(1)))
    nll = Term("nll", lambda o, b: -o.logp, over=decisions, reduce=reduce.seq_mean_token_mean)
    whole, _ = gradient(policy, [nll], batch)
    parts, _ = gradient(policy, [nll], batch, micro_tokens=60)
    assert float((parts - whole).norm() / whole.norm()) < 1e-6
