"""A policy beside a reference, and the other facts of whole distributions, against full logits."""

import pytest
import torch

from guerdon.core.reduce import token_mean
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.learn.learner import Adam, Learner
from guerdon.policies.divergence import REF_HIDDEN, against, look, states_at, still_head
from guerdon.policies.head import TOP_K, head_of
from guerdon.policies.lora import Lora
from guerdon.policies.refs import Frozen
from guerdon.policies.text import TextPolicy
from guerdon.testing.models import small_model, small_tokenizer
from guerdon.types import Outputs, Prompt, Rollout, Term, decisions

KINDS = ["llama", "gemma2", "granite", "gpt2"]
PROMPTS = [Prompt("a", "Hi"), Prompt("b", "What is 12 plus 30?"), Prompt("c", "The food?")]
ROWS = [Rollout(p, text, group=i) for i, (p, text) in enumerate(zip(PROMPTS, ["The end.", " 28", "great and very kind"], strict=True))]
HIDDEN = frozenset({"hidden"})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: small_model(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


def moved(policy, by=0.3):
    """A reference, and the policy some way off from it."""
    ref = Frozen(policy)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(by * p.std().clamp(min=0.1) * torch.randn(p.shape, generator=generator))
    return ref


def logq(policy, batch):
    """Log-probabilities of all tokens at all decisions, `(N, T, V)`, in float64."""
    return torch.log_softmax(policy.forward(batch, frozenset({"logits"})).extra["logits"].double(), -1)


def of_top(p, k):
    """Mass and entropy of the k largest probabilities, the plain way."""
    best = p.topk(k, -1).values
    q = best / best.sum(-1, keepdim=True)
    return best.sum(-1), -(q * q.log()).sum(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_sum_of_squares_and_the_top_k(kind, folders):
    policy = TextPolicy.load(folders[kind], temperature=0.7)
    batch = policy.collate(ROWS)
    out = policy.forward(batch, frozenset({"logp", "sum_p2", "top_k_mass", "top_k_entropy"}))
    p = logq(policy, batch).exp()
    mass, entropy = of_top(p, TOP_K)
    for name, theirs in (("sum_p2", p.square().sum(-1)), ("top_k_mass", mass), ("top_k_entropy", entropy)):
        ours = out.extra[name]
        torch.testing.assert_close(ours.double()[batch.mask], theirs[batch.mask], rtol=0, atol=5e-6)
        assert not ours[~batch.mask].any()
    assert out.entropy is None and out.logp is not None
    assert policy.forward(batch, frozenset({"sum_p2"})).logp is None
    assert set(policy.forward(batch, frozenset({"top_k_entropy"})).extra) == {"top_k_entropy"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_beside_its_own_past(kind, folders):
    """As `against` a copy of it, with another k; and the past does not follow the weights."""
    policy = TextPolicy.load(folders[kind], temperature=0.7)
    batch = policy.collate(ROWS)
    past = still_head(policy).of(states_at(policy, batch))
    ref = moved(policy)
    out = look(policy, batch, frozenset({"logp", "top_k_mass", "top_k_entropy"}), start=past, top_k=3)
    want = against(policy, ref, policy.forward(batch, HIDDEN), batch)
    assert torch.equal(out.logp, want.logp)
    for name in ("kl_to_ref", "ref_logp"):
        torch.testing.assert_close(out.extra[name], want.extra[name], rtol=0, atol=1e-6)
    assert out.extra["kl_to_ref"][batch.mask].mean() > 1e-3
    for name, theirs in zip(("top_k_mass", "top_k_entropy"), of_top(logq(policy, batch).exp(), 3), strict=True):
        torch.testing.assert_close(out.extra[name].double()[batch.mask], theirs[batch.mask], rtol=0, atol=5e-6)
    assert not out.logp.requires_grad


def test_what_does_not_learn_is_shared_with_the_past(folders):
    policy = TextPolicy.load(folders["llama"], lora=Lora(r=2))
    assert still_head(policy).weight.data_ptr() == head_of(policy.model).weight.data_ptr()
    policy = TextPolicy.load(folders["llama"])
    assert still_head(policy).weight.data_ptr() != head_of(policy.model).weight.data_ptr()


@pytest.mark.parametrize("kind", KINDS)
def test_divergences_and_their_gradients_are_those_of_full_logits(kind, folders):
    policy = TextPolicy.load(folders[kind], temperature=0.7)
    ref = moved(policy)
    batch = policy.collate(ROWS)
    both = against(policy, ref, policy.forward(batch, HIDDEN), batch, frozenset({"logp", "entropy"}))
    p, q, mask = logq(policy, batch), logq(ref.policy, batch).detach(), batch.mask
    want = {"kl_to_ref": (p.exp() * (p - q)).sum(-1), "kl_from_ref": (q.exp() * (q - p)).sum(-1)}
    for name, value in want.items():
        assert value[mask].mean() > 1e-3
        torch.testing.assert_close(both.extra[name].double()[mask], value[mask], rtol=0, atol=1e-5)
        assert not both.extra[name][~mask].any()
        ours, theirs = (
            torch.autograd.grad(x[mask].sum(), list(policy.parameters()), retain_graph=True, allow_unused=True)
            for x in (both.extra[name], value)
        )
        for x, y in zip(ours, theirs, strict=True):
            if y is not None:
                torch.testing.assert_close(x, y, rtol=1e-3, atol=2e-4 * float(y.abs().max()) + 1e-7)
    exact = policy.forward(batch, frozenset({"logp", "entropy"}))
    torch.testing.assert_close(both.logp, exact.logp, rtol=0, atol=1e-6)
    torch.testing.assert_close(both.entropy, exact.entropy, rtol=0, atol=1e-6)
    torch.testing.assert_close(both.extra["ref_logp"], ref.logp(batch), rtol=0, atol=1e-6)


def test_a_reference_pulls_the_policy_back_through_a_term(folders):
    """The whole way as a recipe goes it, in micro-batches, with the reference's states kept in the batch; and with adapters."""
    for lora in (None, Lora(r=4)):
        policy = TextPolicy.load(folders["llama"], lora=lora)
        ref = moved(policy, 0.5)
        batch = policy.collate(policy.sample(PROMPTS, 4, Key(0), max_new=8))
        batch = batch.with_(extra={REF_HIDDEN: ref.forward(batch, HIDDEN).extra["hidden"]})
        loss = lambda o, b, policy=policy, ref=ref: against(policy, ref, o, b).extra["kl_to_ref"]
        term = Term("kl", loss, over=decisions, reduce=token_mean, needs=HIDDEN)
        learner = Learner(policy, [term], Adam(3e-3), micro_units=1)
        values = [learner.update(batch)["loss/kl"] for _ in range(8)]
        assert values[-1] < 0.6 * values[0]


def test_states_of_the_reference_are_asked_for_when_the_batch_has_none(folders):
    policy = TextPolicy.load(folders["llama"])
    ref = moved(policy)
    batch = policy.collate(ROWS)
    states = ref.forward(batch, HIDDEN).extra["hidden"]
    assert not states.requires_grad
    out = policy.forward(batch, HIDDEN)
    first, second = (against(policy, ref, out, b).extra["kl_to_ref"] for b in (batch, batch.with_(extra={REF_HIDDEN: states})))
    assert torch.equal(first, second)


def test_bfloat16_products_are_near(folders):
    """The head's own rounding: against float64 on the same hidden states, which the bfloat16 body has rounded before."""
    policy = TextPolicy.load(folders["llama"], compute="bfloat16")
    batch = policy.collate(ROWS)
    out = policy.forward(batch, frozenset({"logp", "entropy", "hidden"}))
    z = out.extra["hidden"].double() @ policy.model.get_output_embeddings().weight.double().t()
    logp = torch.log_softmax(z, -1)
    entropy, logp = -(logp.exp() * logp).sum(-1), logp.gather(2, batch.inputs["actions"][..., None])[..., 0]
    assert out.logp.dtype == torch.float32
    error = (out.logp - logp)[batch.mask].abs().max()
    assert 1e-5 < error < 0.02
    assert (out.entropy - entropy)[batch.mask].abs().max() < 0.02


def test_kind_errors(folders, tmp_path):
    policy = TextPolicy.load(folders["llama"])
    batch = policy.collate(ROWS)
    with pytest.raises(UserError, match="without hidden states"):
        against(policy, Frozen(policy), Outputs(), batch)
    out = policy.forward(batch, HIDDEN)
    with pytest.raises(UserError, match="does not give 'value'"):
        against(policy, Frozen(policy), out, batch, frozenset({"value"}))
    tokenizer = small_tokenizer()
    tokenizer.add_tokens(["<extra>"])
    other = TextPolicy.load(small_model(tmp_path, "llama", tokenizer=tokenizer))
    with pytest.raises(UserError, match="cannot be compared"):
        against(policy, Frozen(other), out, batch)
