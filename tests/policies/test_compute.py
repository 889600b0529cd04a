"""Number formats and activations: bfloat16 products are real and bounded, recomputed layers give the same gradient to the last bit."""

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from guerdon.core.reduce import token_mean
from guerdon.core.rng import Key
from guerdon.errors import RunStopped, UserError
from guerdon.learn.learner import Adam, Learner
from guerdon.policies.compute import fast_bfloat16, format_of, in_bfloat16, layers
from guerdon.policies.heads import Scorer
from guerdon.policies.lora import Lora
from guerdon.policies.refs import Frozen, check_step0
from guerdon.policies.text import TextPolicy
from guerdon.testing.models import small_encoder, small_model
from guerdon.types import Batch, Prompt, Rollout, Term, decisions

KINDS = ("llama", "qwen2", "gemma2", "gemma3_text", "gpt2")
PROMPTS = [Prompt("a", "The cat sat"), Prompt("b", "Dogs run over the green hill, and so do")]
ANSWERS = [Rollout(PROMPTS[i], text, group=i) for i, text in ((0, "on the mat."), (0, "."), (1, "we all, every day."))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {kind: small_model(tmp_path_factory.mktemp(kind), kind, std=0.1) for kind in KINDS}


def gradient(policy: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    out = policy.forward(batch, frozenset(policy.NEEDS[:1]))
    value = out.logp if out.score is None else out.score
    value.sum().backward()
    grads = [p.grad for p in policy.parameters()]
    assert all(g is not None and g.dtype == torch.float32 for g in grads)
    for p in policy.parameters():
        p.grad = None
    return value.detach(), torch.cat([g.flatten() for g in grads])


def gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


# ---------------------------------------------------------------- bfloat16 products


@pytest.mark.parametrize(
    ("kind", "lora", "layout"), [*((k, None, "padded") for k in KINDS), ("llama", None, "tree"), ("llama", Lora(4), "padded")], ids=str
)
def test_bfloat16_products_are_taken_and_stay_close(folders, kind, lora, layout):
    narrow, wide = (TextPolicy.load(folders[kind], lora=lora, layout=layout, compute=c) for c in ("bfloat16", "float32"))
    batch = wide.collate(ANSWERS)
    seen: list[torch.dtype] = []
    inner = next(m for m in narrow.model.modules() if type(m).__name__ in ("LlamaMLP", "Qwen2MLP", "Gemma2MLP", "Gemma3MLP", "GPT2MLP"))
    inner.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    logp, grad = gradient(narrow, batch)
    exact, expected = gradient(wide, batch)
    assert seen == [torch.bfloat16] * len(seen) and seen
    assert logp.dtype == torch.float32
    assert 0 < float((logp - exact).abs().max()) < 0.03
    assert gap(grad, expected) < 0.03
    assert {p.dtype for p in narrow.model.parameters()} == {torch.float32}


def test_the_policy_and_its_reference_agree_to_the_last_bit(folders):
    policy = TextPolicy.load(folders["llama"], compute="bfloat16")
    batch = policy.collate(ANSWERS)
    check_step0(policy, Frozen(policy), batch)
    with pytest.raises(RunStopped, match="compute: bfloat16 in the policy, float32 in the reference"):
        check_step0(policy, Frozen(TextPolicy.load(folders["llama"])), batch)


def test_training_in_bfloat16_moves_the_float32_weights(folders):
    """Steps far below the resolution of bfloat16 (lr 1e-5 on weights of 0.1) are not lost."""
    policy = TextPolicy.load(folders["llama"], compute="bfloat16")
    term = Term("nll", lambda o, b: -o.logp, over=decisions, reduce=token_mean)
    learner, batch = Learner(policy, [term], Adam(1e-5)), policy.collate(ANSWERS)
    before = [p.detach().clone() for p in policy.parameters()]
    losses = [learner.update(batch)["loss"] for _ in range(20)]
    moved = torch.cat([(p.detach() - b).abs().flatten() for p, b in zip(policy.parameters(), before, strict=True)])
    assert float((moved > 1e-4).float().mean()) > 0.5
    assert losses[-1] < losses[0]


def test_a_learner_goes_on_from_its_state_to_the_last_bit(folders):
    """With everything switched on; and no cast of an old weight survives an update."""

    def fresh() -> tuple[TextPolicy, Learner]:
        policy = TextPolicy.load(folders["llama"], compute="bfloat16", checkpoint_activations=True)
        term = Term("nll", lambda o, b: -o.logp, over=decisions, reduce=token_mean)
        return policy, Learner(policy, [term], Adam(1e-2), micro_tokens=40)

    (policy, learner), (other, restored) = fresh(), fresh()
    batch = policy.collate([r.with_(group=i) for i, r in enumerate(ANSWERS)])
    start = policy.forward(batch).logp
    for _ in range(2):
        learner.update(batch)
    restored.load_state_dict(copy.deepcopy(learner.state_dict()))
    assert torch.equal(policy.forward(batch).logp, other.forward(batch).logp)
    assert not torch.equal(policy.forward(batch).logp, start)
    assert learner.update(batch) == restored.update(batch)
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), other.parameters(), strict=True))


def test_sampling_stays_in_the_format_of_the_weights(folders):
    a, b = (TextPolicy.load(folders["llama"], compute=c, max_new=8) for c in ("bfloat16", "float32"))
    for x, y in zip(a.sample(PROMPTS, 2, Key(3)), b.sample(PROMPTS, 2, Key(3)), strict=True):
        assert torch.equal(x.actions, y.actions)
        assert torch.equal(x.logp, y.logp)


def test_the_gap_to_the_sampler_is_logged(folders):
    """Sampler float32, learner bfloat16: the ratio of the first update is not 1, and the metric says by how much."""
    gaps = {}
    for compute in ("float32", "bfloat16"):
        policy = TextPolicy.load(folders["llama"], compute=compute, max_new=8)
        batch = policy.collate(policy.sample(PROMPTS, 4, Key(0)))
        term = Term("pg", lambda o, b: -(o.logp - b.old_logp).exp(), over=decisions, reduce=token_mean)
        gaps[compute] = Learner(policy, [term], Adam(0.0)).update(batch)["sampling/sampling_logp_difference/mean"]
        told = torch.where(batch.mask, policy.forward(batch).logp.detach() - batch.old_logp, 0.0).abs().sum() / batch.mask.sum()
        assert gaps[compute] == pytest.approx(float(told), rel=1e-3, abs=1e-7)
    assert gaps["float32"] < 1e-6 < 1e-4 < gaps["bfloat16"] < 0.02


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_a_scorer_learns_in_bfloat16_and_scores_in_float32(folders, tmp_path, kind):
    folder = folders["llama"] if kind == "llama" else small_encoder(tmp_path)
    narrow, wide = (Scorer.load(folder, compute=c) for c in ("bfloat16", "float32"))
    assert torch.equal(narrow.score(ANSWERS), wide.score(ANSWERS))
    batch = wide.collate(ANSWERS)
    score, grad = gradient(narrow, batch)
    exact, expected = gradient(wide, batch)
    assert 0 < float((score - exact).abs().max()) < 0.04
    assert gap(grad, expected) < 0.05
    assert not torch.equal(score, score.bfloat16().float())  # the head itself has float32's digits
    assert narrow.compute == "bfloat16"


def test_attention_on_the_cpu_stays_float32():
    q, k, v = (torch.randn(1, 2, 5, 8, generator=Key(i).generator()) for i in range(3))
    exact = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    with in_bfloat16(torch.device("cpu")):
        assert torch.equal(functional.scaled_dot_product_attention(q, k, v, is_causal=True), exact)
        rounded = functional.scaled_dot_product_attention(q, k, v.bfloat16(), is_causal=True)
        assert functional.linear(q, k[0, 0]).dtype == torch.bfloat16
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, functional.scaled_dot_product_attention(q, k, v.bfloat16().float(), is_causal=True))


def test_auto_asks_the_hardware(monkeypatch):
    model = torch.nn.Sequential(torch.nn.Linear(300, 128), torch.nn.Linear(128, 1))
    for known, expected in (({"amx_bf16": True}, "bfloat16"), ({"avx512_bf16": True}, "bfloat16"), ({"avx2": True}, "float32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=known: known)
        assert format_of("auto", model) == expected
        assert fast_bfloat16(torch.device("cpu")) is (expected == "bfloat16")
        assert (format_of("float32", model), format_of("bfloat16", model)) == ("float32", "bfloat16")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert format_of("auto", torch.nn.Linear(300, 127)) == "float32"  # too narrow to gain
    assert format_of("bfloat16", torch.nn.Linear(2, 2, dtype=torch.float64)) == "float64"
    with pytest.raises(UserError, match=r"unknown compute 'bf16'\nhint: .*bfloat16"):
        format_of("bf16", model)  # type: ignore[arg-type]


# ---------------------------------------------------------------- recomputed activations


def kept_bytes(policy: Any, batch: Batch) -> int:
    """What one forward pass keeps for the backward pass, weights aside."""
    weights = {p.untyped_storage().data_ptr() for p in policy.model.parameters()}
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        if x.untyped_storage().data_ptr() not in weights:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        out = policy.forward(batch)
    assert out.logp.requires_grad
    return sum(kept.values())


CASES = [
    case
    for case in itertools.product(KINDS, [None, Lora(4)], ["padded", "tree"], ["float32", "bfloat16"])
    if (case[0] != "gpt2" or case[1] is None) and case[::2][:2] != ("gemma2", "tree")  # no linear layers; soft caps are not for trees
]


@pytest.mark.parametrize(("kind", "lora", "layout", "compute"), CASES, ids=lambda x: type(x).__name__ if isinstance(x, Lora) else str(x))
def test_recomputed_layers_give_the_same_gradient(folders, kind, lora, layout, compute):
    options = {"lora": lora, "layout": layout, "compute": compute}
    once, twice = (TextPolicy.load(folders[kind], checkpoint_activations=c, **options) for c in (False, True))
    batch = once.collate(ANSWERS)
    (logp, expected), (again, found) = gradient(once, batch), gradient(twice, batch)
    assert torch.equal(logp, again)
    assert torch.equal(found, expected)
    assert float(expected.abs().max()) > 0
    assert not any("forward" in vars(m) for m in twice.model.modules())  # nothing of it stays


def test_recomputing_keeps_less(folders):
    once, twice = (TextPolicy.load(folders["llama"], checkpoint_activations=c, layout="padded") for c in (False, True))
    batch = once.collate(ANSWERS * 8)
    assert kept_bytes(twice, batch) < 0.5 * kept_bytes(once, batch)


def test_recomputed_dropout_is_the_same_dropout(folders, tmp_path):
    folder = small_model(tmp_path, "llama", std=0.1, attention_dropout=0.5)
    found = []
    for checkpointing in (False, True):
        policy = TextPolicy.load(folder, checkpoint_activations=checkpointing, dropout=True)
        with torch.random.fork_rng():
            torch.manual_seed(5)
            found.append(gradient(policy, policy.collate(ANSWERS)))
        assert not policy.model.training
    plain = TextPolicy.load(folder)
    assert torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[0][0], gradient(plain, plain.collate(ANSWERS))[0])


def test_a_scorer_recomputes_too(folders, tmp_path):
    for folder in (folders["llama"], small_encoder(tmp_path)):
        once, twice = (Scorer.load(folder, checkpoint_activations=c) for c in (False, True))
        batch = once.collate(ANSWERS)
        assert torch.equal(gradient(once, batch)[1], gradient(twice, batch)[1])


def test_a_model_without_such_layers_is_refused():
    with pytest.raises(UserError, match=r"Linear has no layers that can be computed a second time\nhint: leave"):
        layers(torch.nn.Linear(2, 2))


# ---------------------------------------------------------------- from the settings


def test_settings_reach_the_models():
    from guerdon import domains
    from guerdon.assemble import configure

    _, cfg = configure("bradley_terry", {"compute": "bfloat16", "checkpoint_activations": True, "device": "cpu"})
    expected = {"device": "cpu", "dtype": "float32", "compute": "bfloat16", "checkpoint_activations": True}
    assert domains.place(cfg) == expected
    assert configure("bradley_terry", {})[1].run.compute == "auto"
    scorer = domains.text_scorer(cfg, Key(0))
    assert (scorer.compute, scorer.checkpoint_activations) == ("bfloat16", True)
    assert domains.place(object())["compute"] == "float32"  # settings without a `run` group: the library's default


def test_library_defaults_are_exact(folders):
    policy = TextPolicy.load(folders["llama"])
    assert (policy.compute, policy.checkpoint_activations) == ("float32", False)
    assert policy.facts["compute"] == "float32"
