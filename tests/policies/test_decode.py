"""Sampling: the distribution is right, whatever the batch, the model and the decoder."""

import copy
import logging

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from guerdon import domains
from guerdon.assemble import configure
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.policies.decode.lean import Lean
from guerdon.policies.decode.sampler import Sampler, largest, padded
from guerdon.policies.generate import decode, decoder_of
from guerdon.policies.head import backbone
from guerdon.policies.loading import quiet
from guerdon.policies.lora import Lora
from guerdon.policies.text import TextPolicy
from guerdon.testing.models import small_model
from guerdon.types import Prompt

VOCAB = 211
SHAPE = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
SHAPE |= dict(head_dim=8, max_position_embeddings=128, pad_token_id=1, bos_token_id=None, eos_token_id=0, initializer_range=0.3)
FAMILIES = {
    "llama": {},
    "qwen2": dict(tie_word_embeddings=True),
    "qwen3": {},
    "mistral": dict(sliding_window=6),
    "gemma3_text": dict(sliding_window=6, layer_types=["sliding_attention", "full_attention"], query_pre_attn_scalar=8),
    "gpt2": {},
    "mixtral": dict(num_local_experts=4),
    "gemma2": dict(sliding_window=6, attn_logit_softcapping=5.0, final_logit_softcapping=2.0),
}
LEAN = ("llama", "qwen2", "qwen3", "mistral", "gemma3_text")
WAVES = ("gemma2",)


def build(family, seed=0, **changes):
    small = dict(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=128, eos_token_id=0, bos_token_id=0, initializer_range=0.3)
    shape = small if family == "gpt2" else SHAPE
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**shape, **FAMILIES[family], **changes})).eval()
        for p in model.parameters():  # biases and norm weights as training leaves them
            if p.dim() == 1:
                p.data += 0.2 * torch.randn_like(p)
    return model


@pytest.fixture(scope="module")
def models():
    return {family: build(family) for family in FAMILIES}


def jobs(count=14, longest=40, seed=0, stops=2):
    """Prompts of many lengths, some of them shared; random numbers; budgets; stop ids."""
    g = torch.Generator().manual_seed(seed)
    texts = [torch.randint(VOCAB, (n,), generator=g).tolist() for n in (1, 4, 4, 13, 20)]
    prompts = [texts[i] for i in torch.randint(len(texts), (count,), generator=g)]
    budgets = torch.randint(1, longest + 1, (count,), generator=g).tolist()
    budgets[0] = longest
    return prompts, torch.rand(count, longest, dtype=torch.float64, generator=g), budgets, frozenset(range(3, 3 + stops))


@torch.no_grad()
def full_logits(model, prompt, ids):
    """Before each token, one row through the whole model, without a cache."""
    return model(torch.tensor([[*prompt, *ids.tolist()]])).logits[0, len(prompt) - 1 : -1].double()


def one_by_one(model, work, sampler):
    """The plain way: full forward passes, the cumulative distribution, one token after the other."""
    prompts, uniforms, budgets, stop = work
    rows = []
    for prompt, uniform, budget in zip(prompts, uniforms, budgets, strict=True):
        ids, logp = [], []
        while len(ids) < budget and not (ids and ids[-1] in stop):
            with torch.no_grad():
                z = model(torch.tensor([[*prompt, *ids]])).logits[0, -1].double() / sampler.temperature
            logq = torch.log_softmax(z, -1)
            ids.append(int(torch.searchsorted(logq.exp().cumsum(-1), uniform[len(ids)], right=True)))
            logp.append(logq[ids[-1]])
        rows.append((ids, torch.stack(logp).float(), ids[-1] in stop))
    return rows


def same(drawn, expected, atol=1e-4):
    for ours, (ids, logp, stopped) in zip(drawn, expected, strict=True):
        assert ours.ids.tolist() == ids
        assert ours.stopped is stopped
        torch.testing.assert_close(ours.logp, logp, rtol=0, atol=atol)


def plain(drawn):
    return [(one.ids.tolist(), one.logp, one.stopped) for one in drawn]


# ---------------------------------------------------------------- the draw


@pytest.mark.parametrize("sampler", [Sampler(), Sampler(0.6), Sampler(1.3, top_p=0.8), Sampler(top_k=7), Sampler(0.9, top_p=0.9, top_k=20)])
@pytest.mark.parametrize("vocabulary", [60, 1500])
def test_20000_draws_follow_the_distribution(sampler, vocabulary):
    """Pearson's statistic is below its 99.9 % quantile (by Wilson and Hilferty), and no truncated token is ever drawn."""
    g = torch.Generator().manual_seed(vocabulary)
    z = torch.randn(vocabulary, generator=g) * 2 + torch.linspace(3, -3, vocabulary)
    z += 4 * (torch.arange(vocabulary) % (vocabulary // 40) == 0)  # a few dozen carry most of the mass
    logq = torch.log_softmax(reference_kept(z.double() / sampler.temperature, sampler), -1)
    uniform = torch.rand(20000, dtype=torch.float64, generator=g)
    drawn = [sampler.draw(z.expand(len(u), -1), u) for u in uniform.split(400)]
    tokens, logp = (torch.cat(x) for x in zip(*drawn, strict=True))
    torch.testing.assert_close(logp.double(), logq[tokens], rtol=0, atol=2e-6)
    expected, seen = logq.exp() * 20000, torch.bincount(tokens, minlength=vocabulary).double()
    assert not seen[expected == 0].any()
    often = expected >= 8
    cells = [(seen[often], expected[often]), (seen[~often].sum()[None], expected[~often].sum()[None])]
    counted, hoped = (torch.cat(x) for x in zip(*cells, strict=True))
    counted, hoped = counted[hoped > 8], hoped[hoped > 8]
    free = len(hoped) - 1
    assert free >= 4
    assert ((counted - hoped) ** 2 / hoped).sum() < free * (1 - 2 / (9 * free) + 3.09 * (2 / (9 * free)) ** 0.5) ** 3


def reference_kept(z, sampler):
    """Truncation in words: sort, keep the first k, then the fewest whose mass reaches top_p."""
    order = sorted(range(len(z)), key=lambda i: (-float(z[i]), i))
    order = order[: sampler.top_k or None]
    mass = torch.softmax(z[order], -1).tolist()
    kept, total = [], 0.0
    for i, share in zip(order, mass, strict=True):
        if kept and total >= sampler.top_p:
            break
        kept.append(i)
        total += share
    out = torch.full_like(z, -torch.inf)
    out[kept] = z[kept]
    return out


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("spread", [0.3, 4.0])
def test_top_p_is_exact_however_wide_the_nucleus_and_with_ties(top_p, spread):
    """Wide nuclei take the way over sorting, narrow ones do not; rounded logits are full of ties."""
    g = torch.Generator().manual_seed(1)
    z = (torch.randn(6, 4500, generator=g) * spread * 8).round() / 8
    uniform = torch.rand(6, dtype=torch.float64, generator=g)
    sampler = Sampler(top_p=top_p)
    tokens, logp = sampler.draw(z, uniform)
    for i in range(6):
        logq = torch.log_softmax(reference_kept(z[i].double(), sampler), -1)
        cumulative = logq.exp().cumsum(-1)
        assert int(tokens[i]) == int(torch.searchsorted(cumulative, uniform[i] * cumulative[-1], right=True))
        assert abs(float(logp[i]) - float(logq[tokens[i]])) < 2e-6
        kept = sampler.truncate(z[i : i + 1])[0]
        assert torch.equal(kept.isfinite(), logq.isfinite())


@pytest.mark.parametrize("vocabulary", [5, 16, 100, 1030])
def test_largest_and_greedy_for_any_size(vocabulary):
    z = torch.randn(3, vocabulary, generator=torch.Generator().manual_seed(0)).mul(4).round()
    assert torch.equal(Sampler(0).draw(z, torch.zeros(3))[0], z.argmax(-1))
    filled = torch.nn.functional.pad(z, (0, padded(vocabulary) - vocabulary), value=-torch.inf)
    for k in (1, 3, 5):
        assert torch.equal(largest(filled.t().contiguous(), k).value, z.topk(k, -1).values)
    everything, _ = Sampler().draw(z.expand(3, -1), torch.tensor([0.0, 0.5, 1.0]))
    assert everything.tolist()[0] == 0
    assert everything.tolist()[2] == vocabulary - 1


def test_a_token_of_no_probability_is_never_drawn():
    z = torch.full((4, 600), -torch.inf)
    z[:, [17, 300, 301, 599]] = torch.tensor([0.0, -80.0, 0.5, -95.0])
    uniform = torch.tensor([0.0, 0.377, 0.378, 1 - 2**-53], dtype=torch.float64)
    tokens, logp = Sampler().draw(z, uniform)
    assert tokens.tolist() == [17, 17, 301, 301]
    assert logp.isfinite().all()


# ---------------------------------------------------------------- decoders


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_draws_what_the_plain_way_draws(family, models):
    """With the decoder chosen for it, in a batch that is refilled all the time."""
    model, work, sampler = models[family], jobs(), Sampler(0.9)
    assert decoder_of(model) == ("lean" if family in LEAN else "waves" if family in WAVES else "shared")
    same(decode(model, *work, sampler, rows=4), one_by_one(model, work, sampler))


@pytest.mark.parametrize("decoder", ["lean", "shared", "waves"])
def test_the_company_changes_nothing(decoder, models):
    model, work, sampler = models["gemma3_text"], jobs(20, 50, seed=3), Sampler()
    expected = plain(decode(model, *work, sampler, rows=64, decoder=decoder))
    assert {len(ids) for ids, _, _ in expected} != {50}
    for rows in (1, 7):
        same(decode(model, *work, sampler, rows=rows, decoder=decoder), expected)
    prompts, uniforms, budgets, stop = work
    backwards = decode(model, prompts[::-1], uniforms.flip(0), budgets[::-1], stop, sampler, rows=5, decoder=decoder)
    same(backwards[::-1], expected)
    for i in (0, 7, 19):
        alone = decode(model, prompts[i : i + 1], uniforms[i : i + 1], budgets[i : i + 1], stop, sampler, decoder=decoder)
        same(alone, expected[i : i + 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", LEAN)
def test_the_lean_decoder_gives_the_same_bits_in_any_company(family, dtype):
    """Sums longer than a part, prompts longer than a run of keys, heads and layers of every kind."""
    model = build(family, hidden_size=192, intermediate_size=640, head_dim=32, num_hidden_layers=2, initializer_range=0.1)
    prompts, uniforms, budgets, stop = jobs(24, 40, seed=8)
    first = decode(model, prompts, uniforms, budgets, stop, Sampler(0.8), dtype=dtype)
    for rows in (1, 3, 17):
        again = decode(model, prompts[::-1], uniforms.flip(0), budgets[::-1], stop, Sampler(0.8), rows=rows, dtype=dtype)
        for a, b in zip(first, again[::-1], strict=True):
            assert torch.equal(a.ids, b.ids)
            assert torch.equal(a.logp, b.logp)


def test_the_same_call_gives_the_same_bits(models):
    first, again = (decode(models["qwen2"], *jobs(), Sampler(), rows=5) for _ in range(2))
    assert all(torch.equal(a.logp, b.logp) and torch.equal(a.ids, b.ids) for a, b in zip(first, again, strict=True))
    first[0].logp.clone().requires_grad_().sum().backward()
    assert not first[0].ids.is_inference()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", [dict(temperature=0.7), dict(top_p=0.8), dict(top_k=5), dict(temperature=1.5, top_p=0.9, top_k=9)])
def test_logp_is_of_the_distribution_drawn_from(family, options, models):
    model, (prompts, uniforms, budgets, stop), sampler = models[family], jobs(8, 12, seed=5), Sampler(**options)
    for prompt, one in zip(prompts, decode(model, prompts, uniforms, budgets, stop, sampler, rows=3), strict=True):
        z = full_logits(model, prompt, one.ids) / sampler.temperature
        logq = torch.log_softmax(torch.stack([reference_kept(row, sampler) for row in z]), -1)
        torch.testing.assert_close(one.logp.double(), logq.gather(1, one.ids[:, None])[:, 0], rtol=0, atol=1e-4)


def test_greedy_stops_and_budgets(models):
    model, (prompts, uniforms, budgets, _) = models["llama"], jobs(10, 30, seed=2)
    for decoder in ("lean", "shared", "waves"):
        free = decode(model, prompts, uniforms, budgets, frozenset(), Sampler(0), rows=3, decoder=decoder)
        for prompt, one, budget in zip(prompts, free, budgets, strict=True):
            assert len(one.ids) == budget
            assert not one.stopped
            assert not one.logp.any()
            assert torch.equal(full_logits(model, prompt, one.ids).argmax(-1), one.ids)
        stop = int(free[0].ids[3])
        first = free[0].ids.tolist().index(stop)
        cut = decode(model, prompts, uniforms, budgets, frozenset({stop, VOCAB + 5}), Sampler(0), rows=3, decoder=decoder)
        assert cut[0].ids.tolist() == free[0].ids.tolist()[: first + 1]
        assert cut[0].stopped
        assert all(stop not in one.ids.tolist()[:-1] for one in cut)


@pytest.mark.parametrize(("family", "decoder"), [("llama", "lean"), ("gpt2", "shared"), ("gemma2", "waves")])
def test_equal_prompts_are_read_once(family, decoder, models):
    """Tokens that go through the model: each different prompt once (padded by waves), then one of each row."""
    model, seen = models[family], []
    prompts, uniforms, _, _ = jobs(18, 4)
    different = {tuple(p) for p in prompts}
    handle = model.get_input_embeddings().register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].numel()))
    decode(model, prompts, uniforms, [4] * 18, frozenset(), Sampler(), rows=18, decoder=decoder)
    handle.remove()
    first = len(different) * max(map(len, different)) if decoder == "waves" else sum(map(len, different))
    assert seen == [first, 18, 18, 18]


def test_rows_that_finish_are_refilled(models):
    """A completion of 40 tokens and nine of 4 in two rows: the short ones go by one after the other beside the long one."""
    model, seen = models["llama"], []
    prompts, uniforms, _, _ = jobs(10, 40)
    work = prompts[:1] * 10, uniforms, [40, *[4] * 9], frozenset()
    handle = model.get_input_embeddings().register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    drawn = decode(model, *work, Sampler(), rows=2, decoder="lean")
    handle.remove()
    assert seen == [len(prompts[0]), *[2] * 35, *[1] * 4]
    same(drawn, one_by_one(model, work, Sampler()))


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_new_weights_are_seen_at_once(family, dtype):
    """Also those that leave no trace in the version counters, as the fused optimizers' do not."""
    model, work = build(family), jobs(4, 8)
    model.requires_grad_()

    def logp():
        return torch.cat([one.logp for one in decode(model, *work, Sampler(), dtype=dtype)])

    before = logp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, fused=True)
    model(torch.arange(9)[None]).logits.logsumexp(-1).sum().backward()
    optimizer.step()
    fresh = copy.deepcopy(model)
    after = logp()
    assert not torch.equal(before, after)
    model = fresh
    assert torch.equal(after, logp())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lora_is_merged_for_the_call(dtype):
    with quiet():
        lora = Lora(r=4).wrap(build("qwen3"))
    for name, p in lora.named_parameters():
        if "lora_B" in name:
            p.data.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    before = {name: p.detach().clone() for name, p in lora.named_parameters()}
    assert decoder_of(lora, dtype) == "lean"
    work = jobs(8, 12)
    drawn = decode(lora, *work, Sampler(), dtype=dtype)
    assert all(torch.equal(p, before[name]) for name, p in lora.named_parameters())
    with lora.disable_adapter():
        off = decode(lora, *work, Sampler(), dtype=dtype)
    assert plain(off)[0][0] != plain(drawn)[0][0]
    if dtype == torch.float32:
        same(drawn, one_by_one(lora, work, Sampler()))
        same(off, one_by_one(build("qwen3"), work, Sampler()))


def test_weights_in_float32_are_not_copied(models):
    model = models["qwen2"]
    lean = Lean(model, torch.float32)
    addresses = {p.data_ptr() for p in model.parameters()}
    products = [w for b in lean.blocks for p in (b.heads, b.out, b.gate_up, b.down) for w in p.weights]
    assert len(products) == 2 * 7
    assert {w.data_ptr() for w in [*products, lean.head.weight]} <= addresses


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_rollouts(family, models):
    """Close to float32, and log-probabilities of what was drawn from: their sum over a vocabulary of draws is 1."""
    model, (prompts, _, _, _) = models[family], jobs()
    uniforms = ((torch.arange(1500, dtype=torch.float64) + 0.5) / 1500)[:, None]
    drawn = decode(model, prompts[:1] * 1500, uniforms, [1] * 1500, frozenset(), Sampler(1.5), rows=1500, dtype=torch.bfloat16)
    tokens, logp = torch.cat([one.ids for one in drawn]), torch.cat([one.logp for one in drawn])
    assert logp.dtype == torch.float32
    share = torch.bincount(tokens, minlength=VOCAB) / 1500
    found = share > 0
    claimed = torch.zeros(VOCAB).scatter(0, tokens, logp.exp())
    torch.testing.assert_close(claimed[found], share[found], rtol=0, atol=1.01 / 1500)
    exact = torch.log_softmax(full_logits(model, prompts[0], tokens[:1])[0] / 1.5, -1)
    gap = (logp - exact[tokens].float()).abs()
    assert 0 < float(gap.mean()) < 0.1


# ---------------------------------------------------------------- falling back


def test_what_a_decoder_does_not_know_is_found_out(models, caplog):
    caplog.set_level(logging.INFO, logger="guerdon")
    bent = build("llama")
    backbone(bent).layers[1].mlp.register_forward_hook(lambda _, __, out: out * 1.5)
    assert decoder_of(bent) == "shared"
    assert caplog.messages == ["LlamaForCausalLM samples through the 'shared' decoder (not lean: layers.1.mlp has a hook)"]
    same(decode(bent, *jobs(6, 9), Sampler(), rows=2), one_by_one(bent, jobs(6, 9), Sampler()))
    caplog.clear()
    assert decoder_of(models["gemma2"]) == "waves"
    assert len(caplog.messages) == 1
    assert "its attention has a soft cap" in caplog.messages[0]
    caplog.clear()
    assert decoder_of(models["llama"]) == "lean"
    assert not caplog.messages


def test_a_probe_that_differs_rules_a_decoder_out(monkeypatch):
    model = build("llama")
    run = Lean._look
    monkeypatch.setattr(Lean, "_look", lambda *args: run(*args) * 1.01)
    assert decoder_of(model) == "shared"


def test_the_models_own_attention_is_left_as_it_was(models):
    before = models["gpt2"].config._attn_implementation
    decode(models["gpt2"], *jobs(3, 3), Sampler(), decoder="shared")
    assert models["gpt2"].config._attn_implementation == before == "sdpa"


# ---------------------------------------------------------------- as a policy


def test_a_policy_samples_alike_whatever_sample_rows(tmp_path):
    folder = small_model(tmp_path, "qwen2", std=0.2)
    prompts = [Prompt(str(i), text) for i, text in enumerate(["Hi", "The food was", "What is 12 plus 30?"])]
    texts = []
    for rows in (1, 4, 64):
        policy = TextPolicy.load(folder, max_new=20, sample_rows=rows)
        texts.append([tuple(policy.collate([r]).inputs["actions"][0].tolist()) for r in policy.sample(prompts, 3, Key(1))])
    assert texts[0] == texts[1] == texts[2]
    assert TextPolicy.load(folder).sample([], 3, Key(1)) == []
    low = TextPolicy.load(folder, rollout_dtype="bfloat16", max_new=6)
    rollouts = low.sample(prompts, 2, Key(0))
    batch = low.collate(rollouts)
    gap = (low.forward(batch).logp.detach() - batch.old_logp)[batch.mask].abs()
    assert 0 < float(gap.mean()) < 0.1


def test_rollout_dtype_is_a_setting_of_runs():
    _, cfg = configure("grpo", {"rollout_dtype": "bfloat16", "device": "cpu"})
    policy = domains.text_policy(cfg, Key(0))
    assert policy.rollout_dtype == policy.facts["sampling"]["rollout_dtype"] == "bfloat16"
    assert TextPolicy.load("tiny").rollout_dtype == "float32"
    with pytest.raises(UserError, match="unknown compute 'int8'"):
        TextPolicy.load("tiny", rollout_dtype="int8")
