"""Reward models: the same text has the same score, everywhere and after saving."""

import json

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from guerdon.core.rng import Key
from guerdon.errors import RunStopped, UserError
from guerdon.policies.heads import Scorer
from guerdon.policies.lora import Lora
from guerdon.policies.refs import Frozen
from guerdon.policies.text import TextPolicy
from guerdon.testing.models import small_encoder, small_model, small_tokenizer
from guerdon.types import Prompt, Rollout

ROWS = [
    Rollout(Prompt("a", "The food?"), "Great and very kind.", group=0),
    Rollout(Prompt("a", "The food?"), "No.", group=0),
    Rollout(Prompt("b", "What is 12 plus 30?"), "The answer is 42, and 4 times 7 makes 28.", group=1),
    Rollout(Prompt("c", [{"role": "user", "content": "The film?"}]), "Two hours, no plot.", group=2),
]
TEXT = ROWS[:3]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def same_pad(tmp_path_factory):
    """A model whose padding token is its stop token."""
    return small_model(tmp_path_factory.mktemp("same_pad"), tokenizer=small_tokenizer(pad="<|end|>"))


def raw(scorer, rollouts):
    return scorer.forward(scorer.collate(rollouts)).score


def usual(folder, scorer, rollouts, side="right"):
    """Scores of plain transformers, in one padded batch."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side=side)
    texts = [scorer.text(r) for r in rollouts]
    given = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=not scorer.codec.chat)
    with torch.no_grad():
        return model(input_ids=given.input_ids, attention_mask=given.attention_mask).logits[:, 0]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3_text", "gpt2"])
def test_a_text_scores_the_same_alone_and_in_every_layout(kind, tmp_path):
    folder = small_model(tmp_path, kind, tokenizer=small_tokenizer(pad="<|end|>"))
    scorers = [Scorer.load(folder, layout=layout) for layout in ("padded", "left", "packed", "tree")]
    alone = torch.cat([raw(scorers[0], [r]) for r in ROWS])
    assert len({round(x, 3) for x in alone.tolist()}) == len(ROWS)
    for scorer in scorers:
        torch.testing.assert_close(raw(scorer, ROWS), alone, rtol=0, atol=1e-5)
        torch.testing.assert_close(raw(scorer, ROWS[::-1]).flip(0), alone, rtol=0, atol=1e-5)
        scorer.rows = 3
        torch.testing.assert_close(scorer.score(ROWS), alone, rtol=0, atol=1e-5)


def test_gradients_do_not_depend_on_the_layout(base):
    grads = []
    for layout in ("padded", "left", "packed", "tree"):
        scorer = Scorer.load(base, layout=layout)
        (raw(scorer, ROWS) * torch.tensor([1.0, -1.0, 0.5, 2.0])).sum().backward()
        grads.append([p.grad for p in scorer.parameters()])
    for other in grads[1:]:
        for a, b in zip(grads[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(a.abs().max()))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("template", [True, False])
@pytest.mark.parametrize("pad", ["<|pad|>", "<|end|>"])
def test_plain_transformers_gives_the_saved_scores(pad, template, side, tmp_path):
    tokenizer = small_tokenizer(pad=pad)
    if not template:
        tokenizer.chat_template = None
    scorer = Scorer.load(small_model(tmp_path / "base", tokenizer=tokenizer))
    scorer.save(tmp_path / "out")
    torch.testing.assert_close(usual(tmp_path / "out", scorer, TEXT, side), raw(scorer, TEXT).detach(), rtol=0, atol=1e-5)
    assert scorer.text(TEXT[0]).strip().endswith("kind.<|end|>")


def test_the_stop_token_is_read_even_when_it_was_the_padding(same_pad):
    scorer = Scorer.load(same_pad, raw=True)
    assert scorer.ids(TEXT[0])[-1] == scorer.tokenizer.eos_token_id
    assert scorer.model.config.pad_token_id != scorer.tokenizer.eos_token_id


def test_a_published_model_with_padding_equal_to_the_end_scores_as_published(same_pad, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(same_pad, num_labels=1)
    tokenizer = AutoTokenizer.from_pretrained(same_pad)
    tokenizer.chat_template = None
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert model.config.pad_token_id == tokenizer.eos_token_id
    scorer = Scorer.load(tmp_path)
    torch.testing.assert_close(raw(scorer, TEXT).detach(), usual(tmp_path, scorer, TEXT), rtol=0, atol=1e-5)


def test_chat_rendering_is_the_templates_own(base):
    scorer = Scorer.load(base)
    messages = [{"role": "user", "content": "The film?"}, {"role": "assistant", "content": "Two hours, no plot."}]
    assert scorer.ids(ROWS[3]) == scorer.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)


def test_rollouts_are_read_as_text_not_as_foreign_ids(base):
    scorer = Scorer.load(base)
    foreign = TEXT[0].with_(actions=torch.tensor([7, 7, 7]), mask=torch.ones(3, dtype=torch.bool))
    assert torch.equal(raw(scorer, [foreign]), raw(scorer, TEXT[:1]))


def test_head_comes_from_the_key(base):
    first, again, other = (Scorer.load(base, key=Key(s)).model.score.weight for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float(first.detach().std()) == pytest.approx(33**-0.5, rel=0.4)


def test_normaliser_is_saved_with_the_model(base, tmp_path):
    scorer = Scorer.load(base)
    scorer.normalise(ROWS)
    assert scorer.score(ROWS).mean().item() == pytest.approx(0, abs=1e-5)
    assert scorer.score(ROWS).std(correction=0).item() == pytest.approx(1, abs=1e-5)
    scorer.save(tmp_path)
    assert json.loads((tmp_path / "reward_config.json").read_text())["mean"] == scorer.mean
    again = Scorer.load(tmp_path)
    assert torch.equal(again.score(ROWS), scorer.score(ROWS))
    assert torch.equal(raw(again, ROWS), raw(scorer, ROWS))
    with pytest.raises(UserError, match="one and the same score"):
        scorer.normalise(TEXT[:1])


def shake(scorer):
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in scorer.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))


def test_lora_keeps_its_head_through_save_and_load(base, tmp_path):
    scorer = Scorer.load(base, lora=Lora(r=2))
    names = list(scorer.state_dict()["weights"])
    assert any("score" in n for n in names)
    assert all("score" in n or "lora_" in n for n in names)
    shake(scorer)
    scorer.save(tmp_path)
    for place in (tmp_path, tmp_path / "adapter"):
        torch.testing.assert_close(Scorer.load(place).score(ROWS), scorer.score(ROWS), rtol=0, atol=1e-4)
    torch.testing.assert_close(usual(tmp_path, scorer, TEXT), raw(scorer, TEXT).detach(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("lora", [None, Lora(r=2)])
def test_a_tokenizer_whose_only_special_token_ends_texts_gets_a_padding_token(lora, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"</s>": 0, "good": 1, "bad": 2, "x": 3}, unk_token="x"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", pad_token="</s>")
    folder = small_model(tmp_path / "base", tokenizer=tokenizer, pad_token_id=0)
    scorer, rows = Scorer.load(folder, lora=lora), [Rollout(Prompt("a", "good"), " bad good"), Rollout(Prompt("b", "bad"), " good")]
    assert scorer.model.config.pad_token_id == 4
    scorer.save(tmp_path / "out")
    torch.testing.assert_close(usual(tmp_path / "out", scorer, rows), raw(scorer, rows).detach(), rtol=0, atol=1e-5)
    if lora:
        torch.testing.assert_close(Scorer.load(tmp_path / "out" / "adapter").score(rows), scorer.score(rows), rtol=0, atol=1e-5)


def test_adapter_without_its_head(base, tmp_path):
    policy = TextPolicy.load(base, lora=Lora(r=2))
    policy.save(tmp_path)
    with pytest.raises(UserError, match=r"saved without its score head.*\nhint: .*modules_to_save"):
        Scorer.load(tmp_path / "adapter")


def test_a_reward_model_without_its_head(base, tmp_path):
    from safetensors.torch import load_file, save_file

    Scorer.load(base).save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["score.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 weights .*score\.weight.*would start random"):
        Scorer.load(tmp_path)


def test_other_numbers_of_labels_are_refused(base, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="gives 3 numbers"):
        Scorer.load(tmp_path)


def test_state_and_frozen_reference(base):
    scorer, other = Scorer.load(base), Scorer.load(base, key=Key(1))
    scorer.normalise(ROWS)
    frozen, start = Frozen(scorer), scorer.score(ROWS)
    other.load_state_dict(scorer.state_dict())
    assert torch.equal(other.score(ROWS), start)
    shake(scorer)
    assert not torch.equal(scorer.score(ROWS), start)
    assert torch.equal(frozen.policy.score(ROWS), start)


def test_it_learns_to_order_a_pair(base):
    scorer = Scorer.load(base)
    optimizer = torch.optim.AdamW(scorer.parameters(), 1e-2)
    for _ in range(20):
        chosen, rejected = raw(scorer, TEXT[:2])
        loss = -torch.nn.functional.logsigmoid(rejected - chosen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    chosen, rejected = scorer.score(TEXT[:2]).tolist()
    assert rejected > chosen + 1


def test_saving_what_reads_back_differently_is_refused(base, tmp_path, monkeypatch):
    scorer = Scorer.load(base)
    save = type(scorer.model).save_pretrained

    def lossy(self, place, **options):
        kept = self.score.weight.detach().clone()
        with torch.no_grad():
            self.score.weight.mul_(1.5)
        save(self, place, **options)
        with torch.no_grad():
            self.score.weight.copy_(kept)

    monkeypatch.setattr(type(scorer.model), "save_pretrained", lossy)
    with pytest.raises(RunStopped, match="read back from"):
        scorer.save(tmp_path)


def test_the_self_test_can_fail(base, monkeypatch):
    import guerdon.policies.heads as heads

    lay = heads.lay_texts
    monkeypatch.setattr(heads, "lay_texts", lambda *a: (x := lay(*a))._replace(last=x.last - 1))
    with pytest.raises(RunStopped, match="self-test"):
        Scorer.load(base)


def test_an_encoder_with_a_new_head(tmp_path):
    scorer = Scorer.load(small_encoder(tmp_path / "bert"), key=Key(4))
    alone = torch.cat([raw(scorer, [r]) for r in TEXT])
    torch.testing.assert_close(raw(scorer, TEXT), alone, rtol=0, atol=1e-5)
    assert len({round(x, 3) for x in alone.tolist()}) == 3
    scorer.save(tmp_path / "out")
    assert torch.equal(Scorer.load(tmp_path / "out").score(TEXT), scorer.score(TEXT))
    model, tokenizer = (a.from_pretrained(tmp_path / "out") for a in (AutoModelForSequenceClassification, AutoTokenizer))
    given = tokenizer([r.prompt.content for r in TEXT], [r.content for r in TEXT], padding=True, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(model(**given).logits[:, 0], scorer.score(TEXT), rtol=0, atol=1e-5)
    with pytest.raises(UserError, match="for causal models"):
        Scorer.load(tmp_path / "out", layout="packed")


def test_errors_that_show_the_way(base):
    scorer = Scorer.load(base, max_length=30)
    with pytest.raises(UserError, match="'score'"):
        scorer.forward(scorer.collate(TEXT[:2]), frozenset({"logp"}))
    with pytest.raises(UserError, match=r"prompt 'b' and its completion have \d+ tokens: more than the limit of 30"):
        scorer.collate(TEXT)
    with pytest.raises(UserError, match="no rollouts"):
        scorer.collate([])
    with pytest.raises(UserError, match="did you mean 'padded'"):
        Scorer.load(base, layout="paded")
    assert scorer.score([]).shape == (0,)
