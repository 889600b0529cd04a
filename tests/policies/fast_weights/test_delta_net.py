"""DeltaNet: one reading, token by token, from any state, with padding anywhere: the same numbers."""

import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

import guerdon
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.policies.fast_weights import DeltaNetConfig, DeltaNetForCausalLM, State, delta_net
from guerdon.policies.text import TextPolicy
from guerdon.testing.models import small_model
from guerdon.types import Prompt, Rollout

VARIANTS = {
    "plain": {},
    "gate": dict(use_gate=True, allow_neg_eigval=True),
    "shapes": dict(expand_k=0.5, expand_v=2.0, conv_size=2, chunk_size=64),
    "no window": dict(conv_size=1, chunk_size=1, qk_activation="identity", tie_word_embeddings=True),
}


def model_of(seed=0, dtype=torch.float64, std=0.3, **changes):
    sizes = dict(vocab_size=40, hidden_size=32, num_hidden_layers=2, num_heads=2, intermediate_size=48, chunk_size=8)
    config = DeltaNetConfig(**{**sizes, "initializer_range": std, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return DeltaNetForCausalLM(config).to(dtype).eval()


def text(rows, length, seed=0):
    return torch.randint(0, 40, (rows, length), generator=torch.Generator().manual_seed(seed))


def close(a, b, dtype=torch.float64):
    """To 1e-5 in float32 and 1e-10 in float64, of the largest number where that is more than 1."""
    scale = max(1.0, float(b.detach().abs().max())) if b.numel() else 1.0
    torch.testing.assert_close(a, b, atol=scale * {torch.float32: 1e-5, torch.float64: 1e-10}[dtype], rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_reading_at_once_is_reading_token_by_token(variant, dtype):
    model, ids = model_of(dtype=dtype, **VARIANTS[variant]), text(3, 21)
    whole = model(ids, use_cache=True)
    cache, pieces = DynamicCache(config=model.config), []
    with torch.no_grad():
        for part in ids.split([1, 1, 5, 1, 9, 3, 1], 1):
            pieces.append(model(part, past_key_values=cache, use_cache=True).logits)
    close(torch.cat(pieces, 1), whole.logits, dtype)
    for ours, other in zip(cache.layers, whole.past_key_values.layers, strict=True):
        assert ours.seen.tolist() == other.seen.tolist() == [21] * 3
        for name in ("state", "conv"):
            close(ours.memory[name], other.memory[name], dtype)
    assert float(whole.logits.detach().std()) > 0.1


def test_a_later_token_changes_nothing_before_it():
    model, ids = model_of(), text(1, 20)
    other = ids.clone()
    other[0, 13] = (other[0, 13] + 1) % 40
    a, b = model(ids).logits, model(other).logits
    close(a[:, :13], b[:, :13])
    assert float((a - b).detach()[0, 13:].abs().amax(-1).min()) > 1e-6  # all that follow remember it


MASKS = {
    "left": [[0, 0, 0, 1, 1, 1, 1, 1], [1] * 8, [0, 0, 0, 0, 0, 0, 0, 1]],
    "right": [[1, 1, 1, 1, 1, 0, 0, 0], [1] * 8, [1, 0, 0, 0, 0, 0, 0, 0]],
    "anywhere": [[0, 1, 1, 0, 1, 0, 1, 0], [1, 0, 0, 0, 0, 0, 0, 1], [0] * 8],
}


@pytest.mark.parametrize("where", MASKS)
def test_padding_leaves_no_trace(where):
    model, ids, mask = model_of(), text(3, 8), torch.tensor(MASKS[where])
    more = text(3, 5, seed=1)
    out = model(ids, attention_mask=mask, use_cache=True, cuts=torch.tensor([[0, 4, 8]] * 3))
    later = model(more, attention_mask=torch.cat([mask, torch.ones_like(more)], 1), past_key_values=out.past_key_values)
    changed = model(torch.where(mask.bool(), ids, 39 - ids), attention_mask=mask)
    for row in range(3):
        real = mask[row].bool()
        alone = model(torch.cat([ids[row, real], more[row]])[None]).logits[0]
        close(out.logits[row, real], alone[: int(real.sum())])
        close(later.logits[row], alone[int(real.sum()) :])
        close(changed.logits[row, real], out.logits[row, real])
        for m, cut in enumerate((0, 4, 8)):
            at = out.states.rows(torch.tensor([3 * row + m]))
            assert at.seen.tolist() == [int(real[:cut].sum())]
            close(
                model(more[row : row + 1], state=at).logits[0],
                model(torch.cat([ids[row, :cut][real[:cut]], more[row]])[None]).logits[0, -5:],
            )


@pytest.mark.parametrize("variant", VARIANTS)
def test_states_at_cuts_and_their_gradient(variant):
    """A text read once gives the state at every cut; what is written from there is what the prefix, read again, would have given."""
    model, ids, cuts = model_of(**VARIANTS[variant]), text(2, 19), torch.tensor([[3, 8, 19], [0, 12, 5]])
    rolled, weight = text(12, 4, seed=1), torch.randn(4, 40, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    twice = torch.arange(6).repeat_interleave(2)  # two continuations of each cut
    out = model(ids, cuts=cuts)
    assert isinstance(out.states, State) and len(out.states) == 6 and out.states.bytes > 0
    assert out.states.seen.tolist() == cuts.flatten().tolist()
    branch = model(rolled, state=out.states.rows(twice), use_cache=False)
    plain = [
        model(torch.cat([ids[c // 3, : cuts.flatten()[c]], y])[None]).logits[0, -4:] for c, y in zip(twice.tolist(), rolled, strict=True)
    ]
    close(branch.logits, torch.stack(plain))
    params = list(model.parameters())
    found = torch.autograd.grad((weight * branch.logits).sum(), params, retain_graph=True)
    expected = torch.autograd.grad((weight * torch.stack(plain)).sum(), params)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9 * float(1 + b.abs().max()), rtol=0)
    detached = torch.autograd.grad((weight * model(rolled, state=out.states.rows(twice).detach()).logits).sum(), params)
    assert max(float((a - b).abs().max()) for a, b in zip(detached, expected, strict=True)) > 1e-3


def test_saved_and_loaded_by_transformers(tmp_path):
    model, ids = model_of(dtype=torch.float32, use_gate=True), text(2, 9)
    model.save_pretrained(tmp_path)
    again, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and type(again) is DeltaNetForCausalLM
    assert torch.equal(again.eval()(ids).logits, model(ids).logits)
    own, read = (c.to_dict() | {"dtype": None, "_name_or_path": ""} for c in (model.config, AutoConfig.from_pretrained(tmp_path)))
    assert own == read
    names = set(model.state_dict())
    assert {
        "model.embeddings.weight",
        "model.layers.0.attn.q_conv1d.weight",
        "model.layers.1.mlp.down_proj.weight",
        "lm_head.weight",
    } < names
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["model_type"] == "delta_net" and saved["num_heads"] == 2


def test_fresh_weights():
    model = model_of(std=0.02, hidden_size=64)
    layer = model.model.layers[0].requires_grad_(False)
    assert float(layer.attn.q_proj.weight.std()) == pytest.approx(0.02, rel=0.1)
    assert float(layer.attn.v_conv1d.weight.std()) == pytest.approx(0.5 / 3**0.5, rel=0.15)  # uniform in [-0.5, 0.5]
    assert bool((layer.attn_norm.weight == 1).all()) and model.loss_type == "ForCausalLM"
    assert DeltaNetConfig().intermediate_size == 5632 and DeltaNetConfig(max_position_embeddings=7).hidden_size == 2048


def test_generate():
    model, ids = model_of(eos_token_id=None, bos_token_id=None), text(2, 6)
    mask = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])
    settings = dict(max_new_tokens=7, do_sample=False, pad_token_id=0)
    found = model.generate(ids, attention_mask=mask, return_dict_in_generate=True, **settings)
    for row in range(2):
        line = ids[row, mask[row].bool()]
        for _ in range(7):
            line = torch.cat([line, model(line[None]).logits[0, -1:].argmax(-1)])
        assert found.sequences[row, -7:].tolist() == line[-7:].tolist()
    assert model.generate(ids, attention_mask=mask, use_cache=False, **settings).tolist() == found.sequences.tolist()
    several = model.generate(ids[:1], num_beams=3, num_return_sequences=2, **settings)
    assert several.tolist() == model.generate(ids[:1], num_beams=3, num_return_sequences=2, use_cache=False, **settings).tolist()
    longer = model.generate(text(2, 60).clamp(min=1), return_dict_in_generate=True, **settings).past_key_values
    size = lambda cache: sum(x.numel() for layer in cache.layers for x in layer.memory.values())
    assert size(longer) == size(found.past_key_values) == 2 * 2 * (2 * 16 * 16 + 3 * 96)
    assert longer.get_seq_length() == 66 and found.past_key_values.layers[0].seen.tolist() == [12, 10]


def test_a_cache_can_be_reset_and_not_cropped():
    model, ids = model_of(), text(2, 6)
    cache = model(ids, use_cache=True).past_key_values
    cache.batch_repeat_interleave(2)
    assert cache.layers[0].seen.tolist() == [6] * 4
    with pytest.raises(NotImplementedError, match="cannot forget"):
        cache.crop(3)
    cache.reset()
    close(model(ids, past_key_values=cache).logits, model(ids).logits)


def test_the_state_holds_nothing_of_the_texts_length():
    model = model_of(dtype=torch.float32)
    with torch.no_grad():
        caches = [model(text(1, n), use_cache=True).past_key_values for n in (5, 500)]
    held = [sum(x.untyped_storage().nbytes() for layer in c.layers for x in layer.memory.values()) for c in caches]
    assert held[0] == held[1]


@pytest.mark.parametrize(
    "changes",
    [dict(num_heads=3), dict(expand_v=0.01), dict(attn={"layers": [1]}), dict(qk_norm="sum"), dict(qk_activation="elu"), dict(conv_size=0)],
    ids=str,
)
def test_refusals(changes):
    with pytest.raises(UserError):
        DeltaNetConfig(**{**dict(hidden_size=32, num_heads=2), **changes})


@pytest.mark.parametrize("early", [False, True])
def test_gpu_kernels_are_given_what_they_ask_for(monkeypatch, early):
    """The kernels of flash-linear-attention can't run here; a stand-in with their signature shows that they would be used rightly."""
    from guerdon.core.delta_rule import chunkwise

    def chunk_delta_rule(q, k, v, beta, scale=None, initial_state=None, output_final_state=False):
        assert q.shape == (2, 21, 2, 16) and beta.shape == (2, 21, 2) and scale == 1.0 and output_final_state
        parts = (x.transpose(1, 2).double() for x in (q, k, v, beta))
        found = chunkwise(*parts, None if initial_state is None else initial_state.double())
        calls.append(1)
        return found.out.transpose(1, 2).to(v.dtype), found.state.float()

    def early_rule(q, k, v, beta, scale=None, initial_state=None, output_final_state=False, head_first=True):
        assert not head_first
        return chunk_delta_rule(q, k, v, beta, scale, initial_state, output_final_state)

    calls, rule = [], early_rule if early else chunk_delta_rule
    model, ids = model_of(dtype=torch.bfloat16), text(2, 21)
    own = model.requires_grad_(False)(ids, use_cache=True)
    assert not delta_net.served_by_kernel(torch.zeros(1, 1, 5, 4), torch.bfloat16)  # no GPU
    monkeypatch.setattr(delta_net, "_fla", lambda: type("Ops", (), {"chunk_delta_rule": staticmethod(rule)}))
    monkeypatch.setattr(delta_net, "served_by_kernel", lambda q, dtype: dtype == torch.bfloat16)
    theirs = model(ids, use_cache=True)
    assert len(calls) == 2
    torch.testing.assert_close(theirs.logits.float(), own.logits.float(), atol=0.1 * float(own.logits.std()), rtol=0)


# ---------------------------------------------------------------- as a policy

PROMPTS = [
    Prompt("short", "Hi"),
    Prompt("long", "What is 12 plus 30? The answer is 42, and 4 times 7 makes"),
    Prompt("mid", "The food was"),
]
OFFLINE = [Rollout(p, text, group=i) for i, (p, text) in enumerate(zip(PROMPTS, ["The end.", " 28", "great and very kind"], strict=True))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("delta_net"), "delta_net")


def test_it_cannot_be_a_tree(folder):
    assert TextPolicy.load(folder).layout in ("branched", "padded")
    for layout in ("tree", "packed"):
        with pytest.raises(UserError, match=f"layout '{layout}'"):
            TextPolicy.load(folder, layout=layout)


@pytest.mark.parametrize("layout", ["auto", "padded"])
def test_log_probabilities_of_batches_and_of_single_rows(folder, layout):
    policy = TextPolicy.load(folder, layout=layout)
    batch = policy.collate(OFFLINE)
    out = policy.forward(batch, frozenset({"logp", "entropy", "hidden"}))
    for i in range(len(batch)):
        alone = policy.forward(policy.collate([OFFLINE[i]]), frozenset({"logp", "entropy", "hidden"}))
        n = int(batch.inputs["length"][i])
        for a, b in ((out.logp, alone.logp), (out.entropy, alone.entropy), (out.extra["hidden"], alone.extra["hidden"])):
            close(a[i, :n], b[0, :n], torch.float32)
        ids = torch.cat([batch.inputs["prompt"][i, : batch.inputs["prompt_len"][i]], batch.inputs["actions"][i, :n]])
        logq = policy.model(ids[None]).logits[0, -n - 1 : -1].log_softmax(-1)
        close(out.logp[i, :n], logq.gather(1, ids[-n:, None])[:, 0], torch.float32)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_sampled_logp_equals_teacher_forcing(folder, temperature):
    policy = TextPolicy.load(folder, max_new=14, temperature=temperature)
    rollouts = policy.sample(PROMPTS, 3, Key(0))
    batch = policy.collate(rollouts)
    torch.testing.assert_close(policy.forward(batch).logp, batch.old_logp, rtol=0, atol=3e-5)
    assert policy._decoder == "waves"


def test_bfloat16_products_and_recomputed_layers(folder):
    batch = TextPolicy.load(folder).collate(OFFLINE)
    gradients = {}
    for name, options in {"plain": {}, "again": dict(checkpoint_activations=True), "half": dict(compute="bfloat16")}.items():
        policy = TextPolicy.load(folder, **options)
        policy.forward(batch).logp.sum().backward()
        gradients[name] = torch.cat([p.grad.flatten() for p in policy.parameters()])
    scale = float(gradients["plain"].abs().max())
    torch.testing.assert_close(gradients["again"], gradients["plain"], atol=1e-5 * scale, rtol=0)
    cosine = torch.nn.functional.cosine_similarity(gradients["half"], gradients["plain"], dim=0)
    assert float(cosine) > 0.98 and not torch.equal(gradients["half"], gradients["plain"])


def test_grpo_trains_it(folder, tmp_path):
    rows = [{"prompt": p.content} for p in PROMPTS]
    settings = dict(data=rows, reward=lambda text: float(len(text)), batch=2, n=3, max_new=6, steps=2, progress=False, lr=1e-2)
    done = guerdon.train("grpo", model=folder, out=tmp_path, **settings)
    before, after = TextPolicy.load(folder).model, TextPolicy.load(done.final).model
    assert isinstance(after, DeltaNetForCausalLM) and not torch.equal(before.lm_head.weight, after.lm_head.weight)


def test_the_page_keeps_its_word():
    text = (Path(__file__).parents[3] / "docs" / "fast-weights.md").read_text(encoding="utf-8")
    [block] = re.findall(r"<!-- run -->\n```python\n(.*?)```", text, re.DOTALL)
    exec(block, {})
