"""Branches from a trunk's state: which rows become what, and the same numbers as rows read one by one."""

from __future__ import annotations

import pytest
import torch

from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.policies.branches import ends, part
from guerdon.policies.fast_weights import DeltaNetConfig, DeltaNetForCausalLM
from guerdon.policies.text import TextPolicy
from guerdon.testing.models import small_model, small_tokenizer
from guerdon.types import Prompt, Rollout

TEXT = tuple(range(20, 60))


def policy(layout: str = "auto", **options) -> TextPolicy:
    tokenizer = small_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = dict(hidden_size=32, num_hidden_layers=2, num_heads=2, intermediate_size=48, initializer_range=0.2, chunk_size=16)
        config = DeltaNetConfig(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, bos_token_id=None, **sizes)  # type: ignore[arg-type]
        model = DeltaNetForCausalLM(config)
    return TextPolicy(model, tokenizer, layout=layout, **options)


def row(prompt: tuple[int, ...], *actions: int) -> Rollout:
    return Rollout(Prompt("p", prompt), "", torch.tensor(actions), mask=torch.ones(len(actions), dtype=torch.bool))


def family() -> list[Rollout]:
    """A text, continuations of two of its beginnings (one as the text goes on), a short row and two rows of no family."""
    return [
        row(TEXT[:1], *TEXT[1:]),
        row(TEXT[:12], 7, 8, 9),
        row(TEXT[:12], 7, 5),
        row(TEXT[:25], *TEXT[25:28]),
        row(TEXT[:12], *TEXT[12:14], 4),
        row((99, 98), 97),
        row(tuple(range(70, 82)), 3, 4),
    ]


def padded(rows: list[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
    length = torch.tensor([len(r) for r in rows])
    ids = torch.zeros(len(rows), int(length.max()), dtype=torch.long)
    for line, r in zip(ids, rows, strict=True):
        line[: len(r)] = torch.tensor(r)
    return ids, length


def test_rows_are_parted():
    rows = [TEXT, (*TEXT[:12], 7, 8), (*TEXT[:12], 7), TEXT[:25], (99, 98)]
    parts, cut = part(*padded(rows), torch.tensor([1, 12, 12, 24, 2]))
    assert len(parts.trunk) == 2, "the text, and what belongs to no family"
    assert parts.cuts.tolist() == [[12, 24], [0, 0]]
    assert cut.shared.tolist() == [40, 12, 12, 24, 2]
    assert (cut.branch < 0).tolist() == [True, False, False, False, True]
    assert parts.rest.tolist() == [[7, 8], [7, 0], [TEXT[24], 0]]
    assert len(set(parts.origin.tolist())) == 2, "continuations of one beginning leave at one point"


def test_nothing_to_share():
    rows = [(1, 2, 3), (4, 5), (1, 2, 9)]
    parts, cut = part(*padded(rows), torch.tensor([3, 2, 3]))
    assert len(parts.trunk) == 3
    assert not len(parts.rest)
    assert cut.shared.tolist() == [3, 2, 3]


def test_ends_of_prompts():
    prompts = [TEXT[:30], TEXT[:12], (5, 6), TEXT[:20]]
    parts, cut, at = ends(prompts, torch.device("cpu"))
    assert len(parts.trunk) == 2
    assert parts.cuts.flatten()[at].tolist() == [30, 12, 2, 20]
    assert cut.shared.tolist() == [30, 12, 2, 20]


def test_the_same_numbers_as_row_by_row():
    branched, apart = policy(), policy("padded")
    assert (branched.layout, apart.layout) == ("branched", "padded")
    need = frozenset({"logp", "entropy", "hidden"})
    seen = [p.forward(p.collate(family()), need) for p in (branched, apart)]
    torch.testing.assert_close(seen[0].logp, seen[1].logp, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(seen[0].entropy, seen[1].entropy, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(seen[0].extra["hidden"], seen[1].extra["hidden"], atol=5e-5, rtol=1e-4)
    mask = branched.collate(family()).mask
    for out in seen:
        out.logp[mask].sum().backward()
    for (name, a), b in zip(branched.model.named_parameters(), apart.model.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=2e-3, rtol=2e-3, msg=name)


def test_the_same_draws_as_from_prompts_read_whole():
    """What is drawn from a trunk's state is drawn from the prompt itself, token by token."""
    one, prompts = policy(sample_rows=64), [Prompt(str(n), TEXT[:n]) for n in (12, 25, 40)]
    drawn = one.sample([*prompts, Prompt("other", (99, 98))], 2, Key(3), max_new=5, stops=False)
    alone = [r for i, p in enumerate(prompts) for r in _alone(one, p, i)]
    assert all(len(r) == 5 and r.end == "length" for r in drawn)
    for a, b in zip(drawn, alone, strict=False):
        again = one.forward(policy("padded").collate([a.with_(logp=None)])).logp[0]
        torch.testing.assert_close(a.logp, again, atol=2e-5, rtol=1e-5)
        assert a.prompt == b.prompt


def _alone(one: TextPolicy, prompt: Prompt, i: int) -> list[Rollout]:
    return one.sample([prompt], 2, Key(3), max_new=5, stops=False)


def test_stop_tokens_are_drawn_like_others():
    one = policy()
    stop = one.codec.stop_ids[0]
    with torch.no_grad():
        one.model.lm_head.weight[stop] = 0
        one.model.lm_head.weight *= 0  # every token as likely
    drawn = one.sample([Prompt("a", TEXT[:9])], 400, Key(0), max_new=6, stops=False)
    assert all(len(r) == 6 and r.end == "length" for r in drawn)
    assert any(stop in r.actions.tolist()[:-1] for r in drawn if r.actions is not None)


def test_a_model_without_states_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not give its state"):
        TextPolicy.load(small_model(tmp_path), layout="branched")
