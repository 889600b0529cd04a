"""LaCT: pieces give what the whole gives, nothing looks ahead, a chunk is read before it is written."""

import math

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from guerdon.core import fast_mlp
from guerdon.core.fast_mlp import FastMLP
from guerdon.core.newton_schulz import newton_schulz
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.policies.fast_weights import LactConfig, LactForCausalLM
from guerdon.policies.fast_weights.lact_memory import Chunks, Rule, Weights, rotate, window_attention
from guerdon.policies.text import TextPolicy
from guerdon.testing import check_policy
from guerdon.testing.models import small_tokenizer
from guerdon.types import Prompt

F = torch.float64
SMALL = dict(vocab_size=40, hidden_size=16, num_hidden_layers=2, intermediate_size=24, num_attention_heads=4, num_fast_heads=2)
SMALL |= dict(chunk_size=4, window_size=3, low_rank=3, initializer_range=0.3, base_lr=0.05, bos_token_id=None, eos_token_id=1)
VARIANTS = {
    "paper": {},
    "plain": dict(use_muon=False, use_momentum=False, low_rank=0),
    "pre-norm": dict(pre_norm=True),
    "no positions": dict(fast_rope=False, qk_norm=True),
    "wide": dict(inter_multi=1.5, num_fast_heads=1, window_size=1),
    "long window": dict(window_size=9, chunk_size=2),
}
EACH = pytest.mark.parametrize("variant", VARIANTS)


def lact(variant="paper", **more):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LactForCausalLM(LactConfig(**{**SMALL, **VARIANTS[variant], **more})).eval()


def ids(rows, length, seed=0):
    return torch.randint(2, 40, (rows, length), generator=torch.Generator().manual_seed(seed))


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=F, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- the fast branch


def tokens_of(k, v, eta, gate):
    return torch.cat([k, v, eta, gate[..., None]], -1)


def test_worked_examples():
    k = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], dtype=F)[None, None]
    v = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], dtype=F)[None, None]
    eye = FastMLP(*(torch.eye(2, dtype=F)[None, None] for _ in range(3)))
    tokens = tokens_of(k, v, torch.full((1, 1, 3, 3), 0.5, dtype=F), torch.zeros(1, 1, 3, dtype=F))
    for muon, second, third in ((False, 0.68660363, (0.68660465, 0.25097358)), (True, 0.52254774, (0.52254519, 0.51123099))):
        chunks = Chunks(Weights(eye, None, None), None, torch.zeros(1, dtype=torch.long), fast_mlp.row_norms(eye), Rule(1, muon, False))
        got = chunks.run(k, tokens, None, last=False, cuts=False)[0, 0]
        torch.testing.assert_close(got, torch.tensor([[0.73105858, 0], [0, second], third], dtype=F), atol=1e-8, rtol=0)


def plain_loop(start, norms, q, k, v, eta, gate, chunk, muon, pre_norm):
    """One row and head, written as the paper's pseudocode, its gradients taken by autograd."""
    used = main = start
    momentum, out = [torch.zeros_like(w) for w in start], []
    for begin in range(0, len(q), chunk):
        part = slice(begin, begin + chunk)
        out.append(fast_mlp.read(used, q[part]))
        if len(k[part]) < chunk:
            break
        for i in range(3):
            loss = -(eta[part, i] * (fast_mlp.read(used, k[part]) * v[part]).sum(-1)).sum()
            [g] = torch.autograd.grad(loss, [used[i]], create_graph=True)
            momentum[i] = -g + gate[part].mean() * momentum[i]
        main = FastMLP(*(w + (newton_schulz(d) if muon else d) for w, d in zip(main, momentum, strict=True)))
        used = FastMLP(*(w / (w.norm(dim=1, keepdim=True) + 1e-5) * n for w, n in zip(main, norms, strict=True)))
        main = main if pre_norm else used
    return torch.cat(out)


@pytest.mark.parametrize(("muon", "pre_norm"), [(True, False), (False, False), (True, True)])
def test_values_and_gradients_are_those_of_the_plain_loop(muon, pre_norm):
    d, length, chunk = 3, 11, 4
    start = FastMLP(*(draw(1, 1, d, d, seed=i).requires_grad_() for i in range(3)))
    inputs = [draw(1, 1, length, d, seed=i).requires_grad_() for i in (4, 5, 6)]
    eta, gate = (draw(1, 1, length, 3, seed=7).sigmoid() * 0.2).requires_grad_(), draw(1, 1, length, seed=8).sigmoid().requires_grad_()
    zero = FastMLP(*(torch.zeros_like(w) for w in start))
    weights = Weights(start, start if pre_norm else None, zero)
    chunks = Chunks(weights, None, torch.zeros(1, dtype=torch.long), fast_mlp.row_norms(start), Rule(chunk, muon, pre_norm))
    got = chunks.run(inputs[0], tokens_of(*inputs[1:], eta, gate), None, last=False, cuts=False)[0, 0]
    single = FastMLP(*(w[0, 0] for w in start))
    expected = plain_loop(single, fast_mlp.row_norms(single), *(x[0, 0] for x in (*inputs, eta, gate)), chunk, muon, pre_norm)
    torch.testing.assert_close(got, expected, atol=1e-10, rtol=0)
    leaves, weight = [*start, *inputs, eta, gate], draw(length, d, seed=9)
    ours = torch.autograd.grad((got * weight).sum(), leaves)
    theirs = torch.autograd.grad((expected * weight).sum(), leaves)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=0)
        assert float(b.abs().max()) > 1e-6


# ---------------------------------------------------------------- order


@EACH
@torch.no_grad()
def test_no_token_depends_on_a_later_one(variant):
    model, text = lact(variant), ids(1, 14)
    whole = model(text).logits
    for place in range(1, 14):
        other = text.clone()
        other[0, place] = (other[0, place] + 7) % 38 + 2
        changed = model(other).logits
        torch.testing.assert_close(changed[:, :place], whole[:, :place], atol=1e-6, rtol=0)
        assert float((changed[:, place] - whole[:, place]).abs().max()) > 1e-4


def test_a_chunk_is_read_before_it_is_written():
    """What the fast branch gives for chunks up to i does not move with the keys and values of chunk i; for chunk i + 1 it does."""
    start = FastMLP(*(draw(1, 1, 3, 3, seed=i) for i in range(3)))
    q, k, v = (draw(1, 1, 16, 3, seed=i) for i in (4, 5, 6))
    eta, gate = draw(1, 1, 16, 3, seed=7).sigmoid(), draw(1, 1, 16, seed=8).sigmoid()

    def read(k, v, eta, gate):
        weights = Weights(start, None, FastMLP(*(torch.zeros_like(w) for w in start)))
        chunks = Chunks(weights, None, torch.zeros(1, dtype=torch.long), fast_mlp.row_norms(start), Rule(4, True, False))
        return chunks.run(q, tokens_of(k, v, eta, gate), None, last=False, cuts=False)[0, 0]

    whole = read(k, v, eta, gate)
    for chunk in range(4):
        inside = slice(4 * chunk, 4 * chunk + 4)
        moved = [x.clone() for x in (k, v, eta, gate)]
        for x in moved:
            x[:, :, inside] += 0.5
        changed = read(*moved)
        assert torch.equal(changed[: inside.stop], whole[: inside.stop])
        assert chunk == 3 or float((changed[inside.stop : inside.stop + 4] - whole[inside.stop : inside.stop + 4]).abs().min()) > 0


@torch.no_grad()
def test_far_tokens_are_remembered_by_the_fast_weights_alone():
    """Beyond the windows of both layers a token still matters, and without learning rates it does not."""
    model, text = lact(), ids(1, 30)
    other = text.clone()
    other[0, 0] = other[0, 0] % 38 + 2

    def effect():
        return float((model(other).logits[0, -1] - model(text).logits[0, -1]).abs().max())

    assert effect() > 1e-3
    for layer in model.model.layers:
        layer.attn.lr_bias = -torch.inf
    assert effect() == 0


# ---------------------------------------------------------------- pieces


@EACH
@pytest.mark.parametrize("pieces", [[1] * 13, [5, 8], [4, 4, 5], [12, 1], [3, 1, 1, 8]])
def test_pieces_give_what_the_whole_gives(variant, pieces):
    model, text = lact(variant).double(), ids(2, 13)
    cache, found = DynamicCache(config=model.config), []
    with torch.no_grad():
        for part in text.split(pieces, 1):
            found.append(model(part, past_key_values=cache, use_cache=True).logits)
        torch.testing.assert_close(torch.cat(found, 1), model(text).logits, atol=1e-9, rtol=0)
    assert cache.get_seq_length() == 13


@pytest.mark.parametrize(("variant", "chunk"), [*((name, 32) for name in VARIANTS), *(("plain", size) for size in (2, 4, 8))])
@torch.no_grad()
def test_decoding_in_float32(variant, chunk):
    """Chunks of four times a head's width; without Muon, any (see `LactConfig`)."""
    model, text = lact(variant, initializer_range=0.1, chunk_size=chunk), ids(2, 70)
    cache, found = DynamicCache(config=model.config), []
    for part in text.split(1, 1):
        found.append(model(part, past_key_values=cache, use_cache=True).logits)
    torch.testing.assert_close(torch.cat(found, 1), model(text).logits, atol=1e-5, rtol=0)


@EACH
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(variant, side):
    """Rows of different lengths, padded, then one more token at a time."""
    model, lengths = lact(variant).double(), [11, 4, 8, 1]
    text, more = ids(4, 11), ids(4, 6, seed=1)
    place = torch.arange(11)
    mask = place < torch.tensor(lengths)[:, None] if side == "right" else place >= 11 - torch.tensor(lengths)[:, None]
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        first = model(text, attention_mask=mask.long(), past_key_values=cache, use_cache=True).logits
        steps = [model(more[:, t : t + 1], past_key_values=cache, use_cache=True).logits for t in range(6)]
        for i in range(4):
            alone = model(torch.cat([text[i, mask[i]], more[i]])[None]).logits[0]
            got = torch.cat([first[i, mask[i]], torch.cat(steps, 1)[i]])
            torch.testing.assert_close(got, alone, atol=1e-9, rtol=0)


@EACH
def test_a_state_can_be_taken_anywhere_and_gone_on_from(variant):
    model, text, cuts = lact(variant).double(), ids(2, 13), torch.tensor([[0, 4, 7, 13], [3, 8, 12, 5]])
    states = model(text, cuts=cuts).states
    assert len(states) == 8
    whole = model(text).logits
    for i in range(8):
        row, cut = divmod(i, 4)
        rest = text[row : row + 1, int(cuts[row, cut]) :]
        if rest.shape[1]:
            got = model(rest, state=states.rows(torch.tensor([i]))).logits
            torch.testing.assert_close(got[0], whole[row, int(cuts[row, cut]) :], atol=1e-9, rtol=0)
    sum(x.float().sum() for x in states.layers[1].values()).backward()
    assert float(model.model.embeddings.weight.grad.abs().sum()) > 0


def test_the_state_does_not_grow():
    model = lact()
    sizes = set()
    for length in (1, 5, 40):
        cache = DynamicCache(config=model.config)
        model(ids(1, length), past_key_values=cache, use_cache=True)
        sizes.add(sum(x.numel() for layer in cache.layers for x in layer.memory.values()))
    assert len(sizes) == 1


@EACH
def test_gradients_are_finite_and_reach_every_weight(variant):
    model = lact(variant).double()
    text = ids(2, 14)
    model(text, labels=text).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name
        assert float(parameter.grad.abs().max()) > 0, name


# ---------------------------------------------------------------- the window


@pytest.mark.parametrize(("window", "length", "extra"), [(3, 10, 0), (3, 10, 2), (300, 700, 0), (7, 600, 6), (1, 5, 0), (20, 10, 0)])
def test_window_attention_is_masked_attention(window, length, extra):
    q, k, v = draw(2, 2, length, 4), draw(2, 2, length + extra, 4, seed=1), draw(2, 2, length + extra, 4, seed=2)
    unseen = torch.tensor([0, extra]) if extra else None
    got = window_attention(q, k, v, window=window, unseen=unseen)
    query, key = torch.arange(length)[:, None] + extra, torch.arange(length + extra)
    see = ((key <= query) & (key > query - window)).expand(2, -1, -1)
    if unseen is not None:
        see = see & (key >= unseen[:, None, None])
    weight = (q @ k.mT / 2).masked_fill(~see[:, None], -torch.inf).softmax(-1)
    torch.testing.assert_close(got, weight @ v, atol=1e-10, rtol=0)


def test_rotary_positions_are_relative():
    q, k = draw(1, 1, 5, 8), draw(1, 1, 5, 8, seed=1)
    here, there = (torch.arange(5)[None] + start for start in (0, 1000))
    products = [rotate(q, at, 1e4) @ rotate(k, at, 1e4).mT for at in (here, there)]
    torch.testing.assert_close(*products, atol=1e-9, rtol=0)
    turned = rotate(torch.tensor([[[[1.0, 0.0]]]], dtype=F), torch.tensor([[1]]), 1e4)
    torch.testing.assert_close(turned.flatten(), torch.tensor([math.cos(1), math.sin(1)], dtype=F), atol=1e-12, rtol=0)


# ---------------------------------------------------------------- as a model of transformers, and as a policy


@EACH
def test_saved_and_read_back(variant, tmp_path):
    model, text = lact(variant), ids(1, 9)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(again, LactForCausalLM)
    assert AutoConfig.from_pretrained(tmp_path).to_dict() == again.config.to_dict()
    assert torch.equal(again(text).logits, model(text).logits)


def test_generate_is_argmax_token_by_token():
    model, text = lact(), ids(2, 6)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    got = model.generate(text, attention_mask=mask, max_new_tokens=9, do_sample=False, eos_token_id=None, pad_token_id=0)
    for i in range(2):
        row = text[i, mask[i].bool()]
        for _ in range(9):
            row = torch.cat([row, model(row[None], use_cache=False).logits[0, -1:].argmax(-1)])
        assert row[-9:].tolist() == got[i, 6:].tolist()


@torch.no_grad()
def test_fresh_weights_have_the_spreads_of_the_paper():
    initial = lact(hidden_size=256, num_attention_heads=4, num_fast_heads=2, low_rank=16, intermediate_size=32).model.layers[0].attn.initial
    assert float(initial.w1.std()) == pytest.approx(128**-0.5, rel=0.05)
    assert float(initial.w0_left.std()) == pytest.approx(0.5 / 4, rel=0.1)
    assert float(initial.w2_right.std()) == pytest.approx(0.5 / 128**0.5, rel=0.1)
    fast = initial(torch.float32)
    torch.testing.assert_close(fast.w0, initial.w0_left @ initial.w0_right + 0.5 * torch.eye(128))


@pytest.mark.parametrize(
    "wrong",
    [
        dict(hidden_size=15),
        dict(num_fast_heads=3),
        dict(hidden_size=12),
        dict(chunk_size=0),
        dict(window_size=0),
        dict(low_rank=-1),
        dict(inter_multi=0.3),
        dict(base_lr=0.0),
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(UserError):
        LactConfig(**{**SMALL, **wrong})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, tokenizer = tmp_path_factory.mktemp("lact"), small_tokenizer()
    lact(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, initializer_range=0.1, chunk_size=32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("layout", ["padded", "branched"])
def test_a_policy_like_any_other(folder, layout):
    prompts = [Prompt("a", "The food was"), Prompt("b", "What is 12 plus 30?"), Prompt("c", [{"role": "user", "content": "Hello"}])]
    check_policy(TextPolicy.load(folder, max_new=8, layout=layout), prompts, tolerance=1e-4)


def test_it_is_not_packed(folder):
    assert TextPolicy.load(folder).layout not in ("tree", "packed")
    for layout in ("tree", "packed"):
        with pytest.raises(UserError, match="cannot have layout"):
            TextPolicy.load(folder, layout=layout)


@pytest.mark.parametrize("layout", ["padded", "branched"])
def test_sampled_logp_equals_teacher_forcing(folder, layout):
    policy = TextPolicy.load(folder, max_new=40, temperature=0.8, layout=layout)
    rollouts = policy.sample(
        [Prompt("short", "Hi"), Prompt("long", "What is 12 plus 30? The answer is 42, and 4 times 7 makes")], 3, Key(0)
    )
    batch = policy.collate(rollouts)
    torch.testing.assert_close(policy.forward(batch).logp, batch.old_logp, rtol=0, atol=3e-5)


def test_layers_can_be_computed_a_second_time(folder):
    grads = []
    for again in (False, True):
        policy = TextPolicy.load(folder, max_new=70, layout="padded", checkpoint_activations=again)  # three chunks
        batch = policy.collate(policy.sample([Prompt("a", "The food was")], 2, Key(1)))
        policy.forward(batch).logp.sum().backward()
        grads.append([p.grad for p in policy.parameters()])
    assert all(g is not None for g in grads[0])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)
