"""A text policy acts and learns on the same numbers."""

import pytest
import torch

from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.policies.generate import Sampler
from guerdon.policies.text import TextPolicy
from guerdon.testing.models import small_model, small_tokenizer
from guerdon.types import Prompt, Rollout

KINDS = ["llama", "qwen2", "gemma2", "gemma3_text", "granite", "gpt2"]
LAYOUTS = [(kind, layout) for kind in KINDS for layout in ("padded", "packed", "tree") if kind != "gemma2" or layout == "padded"]
PROMPTS = [
    Prompt("short", "Hi"),
    Prompt("long", "What is 12 plus 30? The answer is 42, and 4 times 7 makes"),
    Prompt("chat", [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "The food?"}]),
]
OFFLINE = [Rollout(p, text, group=i) for i, (p, text) in enumerate(zip(PROMPTS, ["The end.", " 28", "great and very kind"], strict=True))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: small_model(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


@pytest.fixture(scope="module")
def stopping(tmp_path_factory):
    """A model that often stops, whose padding is its stop token."""
    tokenizer = small_tokenizer(pad="<|end|>")
    policy = TextPolicy.load(small_model(tmp_path_factory.mktemp("random"), "llama", tokenizer=tokenizer, std=0.15))
    batch = policy.collate(policy.sample(PROMPTS, 8, Key(0), max_new=12))
    with torch.no_grad():  # turn the stop token's row of the head until stopping has one chance in ten
        states = policy.forward(batch, frozenset({"hidden"})).extra["hidden"][batch.mask]
        row = policy.model.get_output_embeddings().weight[tokenizer.eos_token_id]
        along = states.mean(0) / (states @ states.mean(0)).mean()
        rest = policy.model.get_output_embeddings()(states).logsumexp(-1).mean()
        row.copy_(along * (rest - 2.2))
    folder = tmp_path_factory.mktemp("stopping")
    policy.save(folder)
    return str(folder)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize(("kind", "layout"), LAYOUTS)
def test_sampled_logp_equals_teacher_forcing(kind, layout, temperature, folders):
    policy = TextPolicy.load(folders[kind], max_new=14, temperature=temperature, layout=layout)
    rollouts = policy.sample(PROMPTS, 3, Key(0))
    assert [r.prompt.id for r in rollouts] == ["short"] * 3 + ["long"] * 3 + ["chat"] * 3
    assert [r.group for r in rollouts] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    batch = policy.collate(rollouts)
    logp = policy.forward(batch).logp
    torch.testing.assert_close(logp, batch.old_logp, rtol=0, atol=3e-5)  # two implementations: rounding apart
    assert float(batch.old_logp[batch.mask].std()) > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_forward_is_the_models_own_log_softmax(kind, folders):
    """The plain way: one row at a time through the whole model, full logits, float64 softmax."""
    policy = TextPolicy.load(folders[kind], temperature=0.7)
    batch = policy.collate(OFFLINE)
    out = policy.forward(batch, frozenset({"logp", "entropy", "logits", "hidden"}))
    for i in range(len(batch)):
        prompt = batch.inputs["prompt"][i, : batch.inputs["prompt_len"][i]]
        actions = batch.inputs["actions"][i, : batch.inputs["length"][i]]
        with torch.no_grad():
            logits = policy.model(torch.cat([prompt, actions])[None]).logits[0, len(prompt) - 1 : -1].double()
        logq = torch.log_softmax(logits / 0.7, -1)
        n = len(actions)
        torch.testing.assert_close(out.logp[i, :n].double(), logq.gather(1, actions[:, None])[:, 0], rtol=0, atol=1e-5)
        torch.testing.assert_close(out.entropy[i, :n].double(), -(logq.exp() * logq).sum(-1), rtol=0, atol=1e-5)
        torch.testing.assert_close(torch.log_softmax(out.extra["logits"][i, :n].double(), -1), logq, rtol=0, atol=1e-5)
        assert not out.logp[i, n:].any()
        assert out.extra["hidden"].shape[2] == 32


def test_micro_batches_give_the_rows_of_the_batch(folders):
    policy = TextPolicy.load(folders["llama"])
    batch = policy.collate(OFFLINE)
    whole = policy.forward(batch).logp
    for index in ([0], [2, 0], [1, 2]):
        part = batch.rows(torch.tensor(index))
        torch.testing.assert_close(policy.forward(part).logp, whole[index], rtol=0, atol=1e-5)


def test_stop_token_is_trained_even_when_it_is_the_padding(stopping):
    policy = TextPolicy.load(stopping, max_new=24)
    assert policy.tokenizer.pad_token_id == policy.tokenizer.eos_token_id
    rollouts = policy.sample(PROMPTS, 8, Key(3))
    ends = [r.end for r in rollouts]
    assert 3 < ends.count("stop") < len(ends)
    batch = policy.collate(rollouts)
    torch.testing.assert_close(policy.forward(batch).logp, batch.old_logp, rtol=0, atol=1e-5)
    stop = policy.tokenizer.eos_token_id
    for rollout, row in zip(rollouts, batch.mask, strict=True):
        assert row.sum() == len(rollout)
        assert (rollout.actions[:-1] != stop).all()
        assert (rollout.actions[-1] == stop) == (rollout.end == "stop")
        assert "<|end|>" not in rollout.content
    shortest = min(range(len(rollouts)), key=lambda i: len(rollouts[i]))
    where = len(rollouts[shortest]) - 1
    policy.forward(batch).logp[shortest, where].backward()
    assert policy.model.get_output_embeddings().weight.grad[stop].abs().max() > 0


def test_draws_do_not_depend_on_the_company(stopping):
    policy = TextPolicy.load(stopping, max_new=16)
    both = policy.sample(PROMPTS, 4, Key(7))
    alone = policy.sample(PROMPTS[:1], 2, Key(7))
    few = TextPolicy.load(stopping, max_new=16, sample_rows=3).sample(PROMPTS, 4, Key(7))
    again = policy.sample(PROMPTS, 4, Key(7))
    for ours, theirs in ((both[:2], alone), (both, few), (both, again)):
        assert [r.actions.tolist() for r in ours] == [r.actions.tolist() for r in theirs]
    assert [r.actions.tolist() for r in policy.sample(PROMPTS, 4, Key(8))] != [r.actions.tolist() for r in both]
    assert len({tuple(r.actions.tolist()) for r in both[:4]}) > 1


def test_origin_tells_the_distribution(folders):
    policy = TextPolicy.load(folders["llama"], max_new=3)
    policy.version = 5
    origin = policy.sample(PROMPTS[:1], 1, Key(1).fold("rollout", 2), temperature=0.5, top_p=0.9, top_k=7)[0].origin
    assert (origin.version, origin.key, origin.temperature, origin.top_p, origin.top_k) == (5, "1/rollout/2", 0.5, 0.9, 7)


def test_recorded_logp_is_of_the_truncated_distribution(folders):
    policy = TextPolicy.load(folders["llama"], max_new=6, temperature=0.8)
    rollouts = policy.sample(PROMPTS, 4, Key(0), top_k=5, top_p=0.7)
    batch = policy.collate(rollouts)
    logits = policy.forward(batch, frozenset({"logits"})).extra["logits"]
    for i, rollout in enumerate(rollouts):
        kept = logits[i, : len(rollout)].topk(5, -1)
        p = kept.values.softmax(-1)
        outside = p.cumsum(-1) - p >= 0.7
        logq = kept.values.masked_fill(outside, -torch.inf).log_softmax(-1)
        at = (kept.indices == rollout.actions[:, None]).nonzero()[:, 1]
        torch.testing.assert_close(rollout.logp, logq[torch.arange(len(rollout)), at], rtol=0, atol=1e-5)


def test_greedy_takes_the_best_and_says_probability_one(folders):
    policy = TextPolicy.load(folders["llama"], max_new=8, temperature=0.0)
    rollout = policy.sample(PROMPTS[:1], 1, Key(0))[0]
    assert not rollout.logp.any()
    logits = policy.forward(policy.collate([rollout]), frozenset({"logits"})).extra["logits"]
    assert torch.equal(logits[0].argmax(-1), rollout.actions)


def test_sampler_follows_the_probabilities():
    logits = torch.tensor([[0.0, 1.0, -torch.inf, 2.0]])
    p = logits.softmax(-1)[0]
    u = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    tokens, logp = Sampler().draw(logits.expand(20000, -1), u)
    share = torch.bincount(tokens, minlength=4) / 20000
    torch.testing.assert_close(share, p, rtol=0, atol=1e-4)
    torch.testing.assert_close(logp, p.log()[tokens])
    ends, _ = Sampler().draw(logits.expand(2, -1), torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64))
    assert ends.tolist() == [0, 3]


def test_truncation_keeps_the_fewest_tokens_that_reach_top_p():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    for top_p, kept in ((0.4, 1), (0.5, 1), (0.6, 2), (0.81, 3), (1.0, 4)):
        assert int(Sampler(top_p=top_p).truncate(logits).isfinite().sum()) == kept
    assert Sampler(top_k=2).truncate(logits.flip(1)).isfinite().tolist() == [[False, False, True, True]]
    assert Sampler(top_k=9, top_p=1.0).truncate(logits).equal(logits)


@pytest.mark.parametrize(
    "bad", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -2}, {"layout": "pakced"}, {"max_new": 0}, {"max_length": 999}]
)
def test_options_out_of_range(bad, folders):
    with pytest.raises(UserError):
        TextPolicy.load(folders["llama"], **bad)


def test_prompt_over_the_context_is_named_not_cut(folders):
    policy = TextPolicy.load(folders["llama"], max_length=20, max_new=30)
    long = Prompt("row 17", "The road to the old mill is long, and long, and long, and long.")
    for call in (lambda: policy.sample([long], 1, Key(0)), lambda: policy.collate([Rollout(long, "x")])):
        with pytest.raises(UserError, match=r"prompt 'row 17' has \d+ tokens .* limit of 20\nhint: .*max_length"):
            call()
    assert not policy.fits(Rollout(long, "x"))
    room = policy.sample([Prompt("a", "Hi")], 2, Key(0))
    prompt = policy.lengths(room[0])[0]
    assert all(len(r) == 20 - prompt and r.end == "length" for r in room if r.end != "stop")
    assert policy.fits(room[0])


def test_a_masked_token_is_known_but_not_learnt(folders):
    policy = TextPolicy.load(folders["llama"])
    rollout = policy.encode(OFFLINE[0])
    mask = rollout.mask.clone()
    mask[1] = False
    batch = policy.collate([rollout.with_(mask=mask), OFFLINE[1]])
    assert batch.mask[0, :3].tolist() == [True, False, True]
    assert policy.forward(batch).logp[0, 1] < 0


def test_old_logp_needs_every_row(folders):
    policy = TextPolicy.load(folders["llama"], max_new=4)
    sampled = policy.sample(PROMPTS[:1], 1, Key(0))
    assert policy.collate(sampled).old_logp is not None
    assert policy.collate([*sampled, OFFLINE[1]]).old_logp is None
    assert policy.collate(OFFLINE).unit.tolist() == [0, 1, 2]
    with pytest.raises(UserError, match="no rollouts"):
        policy.collate([])


def test_unknown_need(folders):
    policy = TextPolicy.load(folders["llama"])
    with pytest.raises(UserError, match="did you mean 'entropy'"):
        policy.forward(policy.collate(OFFLINE), frozenset({"entrpy"}))


def test_dropout_is_off_unless_asked_for_and_never_while_sampling(tmp_path):
    folder = small_model(tmp_path, attention_dropout=0.4)
    quiet, loud = TextPolicy.load(folder), TextPolicy.load(folder, dropout=True)
    batch = quiet.collate(OFFLINE)
    assert torch.equal(quiet.forward(batch).logp, quiet.forward(batch).logp)
    assert not torch.equal(loud.forward(batch).logp, loud.forward(batch).logp)
    with torch.no_grad():
        assert torch.equal(loud.forward(batch).logp, quiet.forward(batch).logp)
    a, b = (p.sample(PROMPTS, 2, Key(0), max_new=5) for p in (quiet, loud))
    assert [r.actions.tolist() for r in a] == [r.actions.tolist() for r in b]


def test_bfloat16_weights_give_float32_numbers(folders):
    policy = TextPolicy.load(folders["llama"], dtype="bfloat16", max_new=5)
    batch = policy.collate(policy.sample(PROMPTS, 2, Key(0)))
    logp = policy.forward(batch).logp
    assert logp.dtype == batch.old_logp.dtype == torch.float32
    torch.testing.assert_close(logp, batch.old_logp, rtol=0, atol=0.2)
