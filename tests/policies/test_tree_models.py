"""Trees and packed rows give the numbers of padded rows, on every family of models that can be served; the others are left alone."""

import contextlib
import logging
import random

import pytest
import torch

from guerdon.errors import UserError
from guerdon.policies import attention, compute, packing, tree_attention
from guerdon.policies.heads import Scorer
from guerdon.policies.lora import Lora
from guerdon.policies.network import Network
from guerdon.policies.text import TextPolicy
from guerdon.testing.models import small_model
from guerdon.types import Batch, Prompt, Rollout

KINDS = ("llama", "qwen2", "qwen3", "gemma3_text", "gpt2", "mixtral")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: small_model(tmp_path_factory.mktemp(kind), kind) for kind in (*KINDS, "gemma2")}


def batch_of(rows):
    """A batch of (prompt ids, completion ids)."""

    def stack(lists):
        out = torch.zeros(len(lists), max(1, *map(len, lists)), dtype=torch.long)
        for i, x in enumerate(lists):
            out[i, : len(x)] = torch.tensor(x, dtype=torch.long)
        return out, torch.tensor([len(x) for x in lists])

    (prompt, prompt_len), (actions, length) = (stack(x) for x in zip(*rows, strict=True))
    mask = torch.arange(actions.shape[1]) < length[:, None]
    group = torch.arange(len(rows))
    return Batch({"prompt": prompt, "prompt_len": prompt_len, "actions": actions, "length": length}, mask, group, group)


def words(rng, n):
    return [rng.randrange(5, 250) for _ in range(n)]


def some_rows(seed):
    """Groups of G answers to a prompt: answers of no token or one, twins, answers that begin alike, a later turn of the same talk."""
    rng = random.Random(seed)
    rows = []
    for _ in range(rng.randint(1, 3)):
        prompt = words(rng, rng.randint(1, 30))
        answers = [words(rng, rng.choice([0, 1, rng.randint(2, 20)])) for _ in range(rng.randint(1, 8))]
        answers += [answers[0], answers[-1][:3] + words(rng, 4)][: rng.randint(0, 2)]
        rows += [(prompt, a) for a in answers]
        talk = prompt + max(answers, key=len) + words(rng, 3)
        rows += [(talk, words(rng, rng.randint(0, 9))) for _ in range(rng.randint(0, 3))]
    rng.shuffle(rows)
    return rows


EDGES = {
    "one row of one token": [([7], [8])],
    "nothing is decided": [([7, 8], []), ([7], [])],
    "only the prompts differ": [([7, 8, 9], [5, 6, 5]), ([7, 8, 8], [5, 6, 5])],
    "one prompt begins the other": [([7, 8], [5, 6, 5]), ([7, 8, 5, 6], [5, 9])],
    "all rows alike": [([7, 8], [5, 6, 5])] * 4,
    "nothing in common": [([i], [9, 9, i]) for i in range(5, 9)],
}


def values(policy, batch):
    """Log-probabilities and entropies, and the gradient of a mixture of both."""
    out = policy.forward(batch, frozenset({"logp", "entropy"}))
    weight = torch.linspace(-1, 1, batch.mask.numel()).view(batch.mask.shape)
    (weight * (out.logp + 0.3 * out.entropy)).sum().backward()
    gradient = {name: p.grad for name, p in policy.model.named_parameters() if p.requires_grad}
    for p in policy.parameters():
        p.grad = None
    return out.logp.detach(), out.entropy.detach(), gradient


def check_equal(found, expected):
    for a, b in zip(found[:2], expected[:2], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    scale = max(float(g.abs().max()) for g in expected[2].values() if g is not None)
    for name, b in expected[2].items():
        a = found[2][name]
        assert (a is None) == (b is None), name
        if b is not None:
            assert float((a - b).norm()) <= 1e-4 * float(b.norm()) + 1e-6 * scale, name


@pytest.mark.parametrize(("kind", "lora"), [*((k, None) for k in KINDS), ("llama", Lora(4)), ("mixtral", Lora(4))], ids=str)
def test_equal_to_padded_rows(kind, lora, folders, monkeypatch):
    padded, packed, tree = (TextPolicy.load(folders[kind], lora=lora, layout=layout) for layout in ("padded", "packed", "tree"))
    if lora is not None:
        for policy in (padded, packed, tree):
            g = torch.Generator().manual_seed(0)  # B starts at 0, which would hide A
            for p in policy.parameters():
                p.data.add_(0.1 * torch.randn(p.shape, generator=g))
    saved = 0
    for seed in range(4):
        monkeypatch.setattr(packing, "LEAST", (1, 16)[seed % 2])
        batch = batch_of(some_rows(seed))
        expected = values(padded, batch)
        for policy in (tree, packed):
            check_equal(values(policy, batch), expected)
        saved += packing.lay(batch.inputs, "packed").ids.numel() - packing.lay(batch.inputs, "tree").ids.numel()
    assert saved > 100


@pytest.mark.parametrize("kind", ["qwen2", "gemma3_text"])
def test_a_tied_weight_gets_the_sum_of_its_gradients(kind, folders, monkeypatch):
    policy, batch = TextPolicy.load(folders[kind]), batch_of(some_rows(0))
    layer = policy.model.get_input_embeddings()
    for need in ("logp", "hidden"):  # with the head and without it
        gradients = []
        for context in (Network.one_gradient, lambda self: contextlib.nullcontext()):
            monkeypatch.setattr(TextPolicy, "one_gradient", context)
            out = policy.forward(batch, frozenset({need}))
            (out.logp if need == "logp" else out.extra["hidden"]).square().sum().backward()
            gradients.append(layer.weight.grad)
            layer.weight.grad = None
        assert not gradients[0].is_sparse
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5 * float(gradients[1].abs().max()))
    assert not layer.sparse


@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
@pytest.mark.parametrize("case", EDGES)
def test_edges(kind, case, folders, monkeypatch):
    monkeypatch.setattr(packing, "LEAST", 1)
    padded, tree = (TextPolicy.load(folders[kind], layout=layout) for layout in ("padded", "tree"))
    batch = batch_of(EDGES[case])
    check_equal(values(tree, batch), values(padded, batch))


def test_double_precision(folders):
    padded, tree = (TextPolicy.load(folders["qwen2"], layout=layout, dtype="float64") for layout in ("padded", "tree"))
    batch = batch_of(some_rows(1))
    for a, b in zip(values(tree, batch)[:2], values(padded, batch)[:2], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["qwen2", "gemma3_text"])
def test_bfloat16_products_are_as_good_as_plain_autocast(kind, folders, monkeypatch):
    """Error of the log-probabilities and of the gradient against float32: at most a tenth more than transformers' under autocast."""
    exact, plain = TextPolicy.load(folders[kind], layout="padded"), TextPolicy.load(folders[kind], layout="padded", compute="bfloat16")
    tree = TextPolicy.load(folders[kind], layout="tree", compute="bfloat16")
    errors = {"tree": torch.zeros(2), "plain": torch.zeros(2)}
    for seed in range(8):
        batch = batch_of(some_rows(seed))
        logp, _, gradient = values(exact, batch)
        whole = torch.cat([g.flatten() for g in gradient.values()])
        for name, policy in (("tree", tree), ("plain", plain)):
            with monkeypatch.context() as patch:
                if name == "plain":
                    patch.setattr(compute, "WideAttention", contextlib.nullcontext)
                found, _, other = values(policy, batch)
            off = torch.cat([g.flatten() for g in other.values()]) - whole
            errors[name] += torch.stack([(found - logp)[batch.mask].pow(2).mean().sqrt(), off.norm() / whole.norm()]) / 8
    assert (errors["tree"] <= 1.1 * errors["plain"]).all(), errors
    assert errors["tree"][0] < 0.05, errors


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3_text", "gpt2"])
@pytest.mark.parametrize("layout", ["padded", "tree"])
def test_the_last_layer_works_for_those_who_are_read(kind, layout, folders, monkeypatch):
    """The same numbers as when every token goes through the whole of it, and fewer tokens in its MLP."""
    policy = TextPolicy.load(folders[kind], layout=layout, dtype="float64")
    batch, rows = batch_of(some_rows(3)), []
    mlp = next(x for x in reversed(list(policy.model.modules())) if hasattr(x, "mlp")).mlp
    list(mlp.modules())[1].register_forward_pre_hook(lambda _, given: rows.append(given[0].numel() // given[0].shape[-1]))
    some = values(policy, batch)
    states = Network.states
    monkeypatch.setattr(
        Network, "states", lambda self, ids, position, tree=None, read=None, **more: states(self, ids, position, tree, **more)
    )
    every = values(policy, batch)
    assert sum(rows[: len(rows) // 2]) < sum(rows[len(rows) // 2 :])
    for a, b in zip(some[:2], every[:2], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    for name, expected in every[2].items():
        torch.testing.assert_close(some[2][name], expected, rtol=0, atol=1e-12)


def test_a_scorer_on_a_tree_gives_the_scores_and_gradients_of_padded_texts(folders):
    start = "The food was great and the staff were very kind to all of us, but the end comes too late"
    ends = [" for me.", " for me.", "", "; two hours, no plot.", "; two hours, and no plot, and the end.", " 42"]
    rollouts = [Rollout(Prompt(str(i), start), end, group=i) for i, end in enumerate(ends)]
    found = []
    for layout in ("padded", "packed", "tree"):
        scorer = Scorer.load(folders["llama"], layout=layout)
        score = scorer.forward(scorer.collate(rollouts)).score
        (score * torch.tensor([1.0, -1.0, 0.5, 2.0, -0.5, 1.0])).sum().backward()
        found.append((score.detach(), {n: p.grad for n, p in scorer.model.named_parameters()}))
    assert found[0][0].std() > 0.01
    for score, gradient in found[1:]:
        torch.testing.assert_close(score, found[0][0], rtol=0, atol=1e-5)
        for name, expected in found[0][1].items():
            assert float((gradient[name] - expected).norm()) <= 1e-4 * float(expected.norm()) + 1e-6, name


# ---------------------------------------------------------------- who can be served


def test_auto_takes_a_tree_and_falls_back_with_a_word(folders, caplog):
    with caplog.at_level(logging.INFO, logger="guerdon"):
        assert TextPolicy.load(folders["qwen3"]).layout == "tree"
        assert not caplog.messages
        policy = TextPolicy.load(folders["gemma2"])
    assert policy.layout == "padded"
    assert len(caplog.messages) == 1
    assert "Gemma2" in caplog.messages[0] and "softcap" in caplog.messages[0]
    with pytest.raises(UserError, match=r"'tree'.*softcap"):
        TextPolicy.load(folders["gemma2"], layout="tree")
    assert TextPolicy.load(folders["qwen3"], dropout=True).layout == "padded"


def test_layers_of_another_kind_are_refused(tmp_path):
    """Convolutions over the row would run from one row into the next."""
    shape = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=300)
    from transformers import AutoConfig, AutoModelForCausalLM

    from guerdon.testing.models import small_tokenizer

    config = AutoConfig.for_model("lfm2", **shape, layer_types=["conv", "full_attention"], conv_L_cache=3, initializer_range=0.3)
    tokenizer = small_tokenizer()
    folder = str(tmp_path)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match="'conv'"):
        TextPolicy.load(folder, layout="packed")
    assert TextPolicy.load(folder).layout == "padded"


def test_rotary_positions_that_depend_on_the_longest_row_are_refused(tmp_path):
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    folder = small_model(tmp_path, "llama", rope_parameters=rope)
    with pytest.raises(UserError, match="longest"):
        TextPolicy.load(folder, layout="tree")
    assert TextPolicy.load(folder).layout == "padded"


def test_dropout_switched_on_later_is_refused(tmp_path):
    policy = TextPolicy.load(small_model(tmp_path, "llama", attention_dropout=0.5), layout="tree")
    policy.dropout = True
    with pytest.raises(UserError, match="dropout"):
        policy.forward(batch_of([([5, 6, 7], [8, 9])]))


def test_the_probe_finds_what_is_wrong(folders, tmp_path, monkeypatch):
    def blind(*args, **how):
        return parts_of(*args, **how)._replace(above=[])  # answers that don't see their prompt

    parts_of = tree_attention.parts_of
    with monkeypatch.context() as patch:
        patch.setattr(tree_attention, "parts_of", blind)
        with pytest.raises(UserError, match="states on a tree differ"):
            TextPolicy.load(folders["llama"], layout="tree")
    # A window longer than the probe, which never reaches our attention: only the configuration tells.
    wide = small_model(tmp_path, "gemma3_text", sliding_window=64)
    assert TextPolicy.load(wide).layout == "tree"
    attend = attention.attend
    monkeypatch.setattr(attention, "attend", lambda q, k, v, tree, scale, window, **how: attend(q, k, v, tree, scale, **how))
    assert TextPolicy.load(wide).layout == "padded"


def test_another_attention_never_takes_a_tree_for_a_row(folders):
    """A layer that is recomputed after the switch back must fail, not give another gradient."""
    policy = TextPolicy.load(folders["llama"], layout="tree")
    laid = packing.lay(batch_of([([5, 6, 7], [8, 9])]).inputs, "tree")
    with attention.attention(policy.model, "sdpa"), pytest.raises((RuntimeError, ValueError)):
        policy.run(policy.model, input_ids=laid.ids, position_ids=laid.position, tree=laid.tree, attention_mask=attention.no_mask("cpu"))


def test_nothing_of_it_is_saved(folders, tmp_path):
    policy = TextPolicy.load(folders["llama"], layout="tree")
    before = policy.model.config._attn_implementation
    policy.forward(batch_of(some_rows(0)))
    assert policy.model.config._attn_implementation == before
    policy.save(tmp_path)
    assert "guerdon" not in (tmp_path / "config.json").read_text()
