"""Rollout engines: the same tokens from `generate`, a server's completions and weights, and every way in which they can be wrong."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch

import guerdon
from guerdon import cli
from guerdon.core.rng import Key
from guerdon.errors import RunStopped, UserError
from guerdon.policies.engines import base, contract
from guerdon.policies.lora import Lora
from guerdon.policies.text import TextPolicy
from guerdon.testing.completions import Completions, serving
from guerdon.testing.models import small_model, small_tokenizer
from guerdon.types import Prompt, Rollout

PROMPTS = [Prompt("a", "The movie was"), Prompt("b", "Hi"), Prompt("c", "What is 12 plus 30? The answer is 42, and 4 times 7 makes")]
VLLM = importlib.util.find_spec("vllm") is not None


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Small models whose samples often stop: every letter is a stop token."""
    made = {}
    for kind in ("llama", "qwen2", "gpt2", "gemma3_text"):
        folder = tmp_path_factory.mktemp(kind)
        policy = TextPolicy.load(small_model(tmp_path_factory.mktemp("plain"), kind), stop=[*"abcdefghijklmnopqrstuvwxyz"])
        policy.save(folder)
        made[kind] = str(folder)
    return made


def ids(rollouts):
    return [r.actions.tolist() for r in rollouts]


def nudge(policy, seed=0, size=0.1):
    """Another set of weights, as an update makes it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * size * (float(p.std()) or 1.0))
    policy.version += 1


def agrees(policy, rollouts, within=1e-5):
    batch = policy.collate(rollouts)
    torch.testing.assert_close(policy.forward(batch).logp, batch.old_logp, rtol=0, atol=within)


# ---------------------------------------------------------------- transformers


@pytest.mark.parametrize("how", [{}, {"temperature": 0.6, "top_p": 0.8}, {"top_k": 4}, {"temperature": 0.0}], ids=str)
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "gemma3_text"])
def test_generate_draws_what_the_own_decoder_draws(kind, how, folders):
    """Another cache, another loop, the padding of `generate`: the same tokens with the same log-probabilities."""
    own = TextPolicy.load(folders[kind], max_new=16)
    other = TextPolicy.load(folders[kind], max_new=16, engine="transformers")
    a, b = (p.sample(PROMPTS, 4, Key(3), **how) for p in (own, other))
    assert ids(a) == ids(b)
    assert [r.end for r in a] == [r.end for r in b]
    assert {r.end for r in a} == {"stop", "length"} or how
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x.logp, y.logp, rtol=0, atol=1e-4)
        assert (x.content, x.group, x.origin) == (y.content, y.group, y.origin)


def test_generate_follows_the_weights_and_adapters(folders):
    own, other = (TextPolicy.load(folders["llama"], max_new=10, engine=e, lora=Lora(r=2)) for e in ("own", "transformers"))
    before = other.sample(PROMPTS, 2, Key(0))
    for policy in (own, other):
        nudge(policy, size=2.0)
    after = other.sample(PROMPTS, 2, Key(0))
    assert ids(after) != ids(before)
    assert ids(after) == ids(own.sample(PROMPTS, 2, Key(0)))
    agrees(other, after)


def test_generate_leaves_the_models_own_habits_out(folders):
    """A repetition penalty in the model's generation settings would change the distribution; it is still there afterwards."""
    own, other = (TextPolicy.load(folders["llama"], max_new=12, engine=e) for e in ("own", "transformers"))
    other.model.generation_config.repetition_penalty = 5.0
    other.model.generation_config.top_k = 1
    assert ids(other.sample(PROMPTS, 3, Key(0))) == ids(own.sample(PROMPTS, 3, Key(0)))
    assert other.model.generation_config.repetition_penalty == 5.0


def test_generate_stays_within_the_models_context(folders):
    """A prompt near the limit has a budget of its own; learnt positions have no row beyond it."""
    policy = TextPolicy.load(folders["gpt2"], max_new=100, engine="transformers")
    text = Prompt("long", "12 plus 30 " * 17)
    room = policy.max_length - policy.lengths(Rollout(text, ""))[0]
    assert 0 < room < 30
    rollouts = policy.sample([text, PROMPTS[0]], 3, Key(1))
    assert max(map(len, rollouts[:3])) <= room
    agrees(policy, rollouts)


def test_draws_of_generate_do_not_depend_on_the_company(folders):
    policy = TextPolicy.load(folders["llama"], max_new=12, engine="transformers")
    few = TextPolicy.load(folders["llama"], max_new=12, engine="transformers", sample_rows=2)
    both = policy.sample(PROMPTS, 3, Key(7))
    assert ids(both[:2]) == ids(policy.sample(PROMPTS[:1], 2, Key(7)))
    assert ids(both) == ids(few.sample(PROMPTS, 3, Key(7)))
    assert ids(both) != ids(policy.sample(PROMPTS, 3, Key(8)))
    assert policy.sample([], 3, Key(0)) == policy.sample(PROMPTS, 0, Key(0)) == []


def test_a_copy_shares_the_engine_and_draws_by_its_own_weights(folders):
    """A lagged copy that judges or samples must not be served the weights of the original."""
    from guerdon.policies.refs import Lagged

    policy = TextPolicy.load(folders["llama"], max_new=8, engine="transformers")
    lagged = Lagged(policy, every=10).policy
    assert lagged.engine is policy.engine
    before = policy.sample(PROMPTS, 2, Key(0))
    nudge(policy)
    assert ids(policy.sample(PROMPTS, 2, Key(0))) != ids(before)
    assert ids(lagged.sample(PROMPTS, 2, Key(0))) == ids(before)
    agrees(policy, policy.sample(PROMPTS, 2, Key(0)))


# ---------------------------------------------------------------- a server


def test_a_server_in_a_process_of_its_own(folders):
    """The whole way: a process with the model, completions by id, log-probabilities, an update that arrives there."""
    command = [sys.executable, "-m", "guerdon.testing.completions", folders["llama"]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().strip()
            policy = TextPolicy.load(folders["llama"], max_new=12, engine=address)
            before = policy.sample(PROMPTS, 4, Key(0))
            agrees(policy, before)
            assert {r.end for r in before} == {"stop", "length"}
            assert all((r.actions[-1].item() in policy.codec.stop_ids) == (r.end == "stop") for r in before)
            assert ids(before) == ids(policy.sample(PROMPTS, 4, Key(0)))
            assert ids(before) != ids(policy.sample(PROMPTS, 4, Key(1)))
            nudge(policy)
            after = policy.sample(PROMPTS, 4, Key(0))
            agrees(policy, after)
            assert ids(after) != ids(before)
        finally:
            process.terminate()
            process.wait(20)
    policy.engine.engine.wire = dataclasses.replace(policy.engine.engine.wire, pauses=(0.01,))
    with pytest.raises(RunStopped, match="no longer answers") as error:
        policy.sample(PROMPTS, 4, Key(0))
    assert "guerdon resume" in str(error.value)
    with pytest.raises(UserError, match=f"no server answers at {address}") as error:
        base.open_engine(address)
    assert "vllm serve" in str(error.value)


@contextmanager
def served(folder, kind=Completions, options="", dev=True, key="", load=None, **policy):
    """A policy and the server that it draws from; each has its own copy of the model."""
    answers = kind(TextPolicy.load(load or folder), dev=dev, key=key)
    with serving(answers) as address:
        yield TextPolicy.load(folder, max_new=12, engine=address + options, **policy), answers


def test_what_a_request_says(folders):
    """Everything that a server might have a default for, the exact stop tokens, and a seed for each prompt."""
    with served(folders["llama"], temperature=0.7, top_p=0.9, top_k=5) as (policy, answers):
        policy.sample(PROMPTS, 3, Key(5))
        sent = {tuple(r["prompt"]): r for r in answers.requests}
        assert list(sent) and len(answers.requests) == 3
        for i, prompt in enumerate(PROMPTS):
            body = sent[tuple(policy.codec.prompt_ids(prompt))]
            assert (body["n"], body["temperature"], body["top_p"], body["top_k"], body["max_tokens"]) == (3, 0.7, 0.9, 5, 12)
            assert body["stop_token_ids"] == sorted(policy.codec.stop_ids)
            assert (body["ignore_eos"], body["logprobs"], body["return_token_ids"]) == (True, 0, True)
            assert (body["min_p"], body["repetition_penalty"], body["presence_penalty"], body["frequency_penalty"]) == (0, 1, 0, 0)
            assert body["seed"] == Key(5).fold(i, 0).number >> 1
            assert body["seed"] + 10**6 < 2**63
        assert len({r["seed"] for r in answers.requests}) == 3


def test_greedy_completions_are_those_of_the_own_decoder(folders):
    with served(folders["llama"]) as (policy, answers):
        got = policy.sample(PROMPTS, 2, Key(0), temperature=0)
        assert all(r["n"] == 1 for r in answers.requests), "vLLM refuses n > 1 when greedy"
    want = TextPolicy.load(folders["llama"], max_new=12).sample(PROMPTS, 2, Key(0), temperature=0)
    assert ids(got) == ids(want)
    assert not any(r.logp.any() for r in got)


@pytest.mark.parametrize("how", [{"temperature": 0.5}, {"top_p": 0.6}, {"top_k": 3, "temperature": 1.4}], ids=str)
def test_the_check_knows_temperature_and_truncation(how, folders):
    with served(folders["llama"]) as (policy, _):
        policy.sample(PROMPTS, 3, Key(0), **how)
        assert policy.engine.checks == contract.CHECKS - 1
        found = contract.compare(policy, policy.sample(PROMPTS, 3, Key(1), **how))
        assert found.gap < 1e-5
        assert found.outside == 0
        assert found.raw > 0.05


def test_weights_are_handed_over_when_they_change_and_only_then(folders):
    class Counting(Completions):
        loads = 0

        def rpc(self, body):
            self.loads += 1
            return super().rpc(body)

    with served(folders["qwen2"], Counting, lora=Lora(r=2)) as (policy, answers):  # qwen2: a tied head
        for _ in range(2):
            policy.sample(PROMPTS, 2, Key(0))
        assert answers.loads == 1
        state = policy.state_dict()
        nudge(policy, size=2.0)
        agrees(policy, policy.sample(PROMPTS, 2, Key(0)), within=1e-3)  # adapters there merged, here beside the weights
        assert answers.loads == 2
        policy.load_state_dict(state)  # a checkpoint: the old version number, and older weights
        agrees(policy, policy.sample(PROMPTS, 2, Key(0)))
        assert answers.loads == 3


def test_a_server_is_brought_to_the_policys_weights_before_the_first_draw(folders, tmp_path):
    """It may still have those of an earlier run."""
    stale = TextPolicy.load(folders["llama"])
    nudge(stale)
    stale.save(tmp_path / "stale")
    with served(folders["llama"], load=tmp_path / "stale") as (policy, _):
        agrees(policy, policy.sample(PROMPTS, 2, Key(0)))


def test_a_server_with_a_key(folders, monkeypatch):
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    with pytest.raises(UserError, match="refuses to list its models") as error, served(folders["llama"], key="secret"):
        pass
    assert "VLLM_API_KEY" in str(error.value)
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    with served(folders["llama"], key="secret") as (policy, _):
        agrees(policy, policy.sample(PROMPTS, 1, Key(0)))


# ---------------------------------------------------------------- what can be wrong


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("vlm", "unknown engine 'vlm'", "did you mean 'vllm'"),
        ("host:8000", "unknown engine 'host:8000'", "http://host:8000"),
        ("own?x=1", "takes no options", "--engine own"),
        ("http://127.0.0.1:9", "no server answers at http://127.0.0.1:9", "VLLM_SERVER_DEV_MODE=1 vllm serve"),
        ("http://127.0.0.1:9?foldr=/x", "unknown option 'foldr'", "did you mean 'folder'"),
    ],
)
def test_engines_that_cannot_be_opened(text, message, hint):
    with pytest.raises(UserError, match=message) as error:
        base.open_engine(text)
    assert hint in str(error.value)


def test_options_are_read_as_what_they_look_like():
    spec = base.Spec.parse("vllm?gpu_memory_utilization=0.4&max_model_len=2048&enforce_eager=true&kv_cache_dtype=fp8")
    assert spec.options == {"gpu_memory_utilization": 0.4, "max_model_len": 2048, "enforce_eager": True, "kv_cache_dtype": "fp8"}
    assert base.Spec.parse("http://host:8000/v1/?sync=false") == base.Spec("http", "http://host:8000", {"sync": False})
    assert base.open_engine("own") is None


@pytest.mark.skipif(VLLM, reason="vllm is installed")
def test_vllm_is_not_installed(folders):
    with pytest.raises(UserError, match="not installed") as error:
        TextPolicy.load(folders["llama"], engine="vllm")
    assert "pip install 'guerdon[vllm]'" in str(error.value)


def test_a_server_of_something_else():
    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"data": "a web page"}' if self.path == "/v1/models" else b"<html>")

        def log_message(self, *_):
            pass

    made = HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        address = f"http://127.0.0.1:{made.server_port}"
        with pytest.raises(UserError, match="is no vLLM server"):
            base.open_engine(address)
        with pytest.raises(UserError, match="the answer is not JSON"):
            base.open_engine(address + "/elsewhere")
    finally:
        made.shutdown()
        made.server_close()
        thread.join()


def test_a_server_outside_its_development_mode(folders):
    with pytest.raises(UserError, match="does not let its weights be changed") as error, served(folders["llama"], dev=False):
        pass
    assert "VLLM_SERVER_DEV_MODE=1" in str(error.value)
    with served(folders["llama"], dev=False, options="?sync=false") as (policy, _):
        agrees(policy, policy.sample(PROMPTS, 2, Key(0)))
        nudge(policy)
        with pytest.raises(RunStopped, match="must keep its own"):
            policy.sample(PROMPTS, 2, Key(0))


class Raw(Completions):
    """Log-probabilities of the model, whatever the temperature; says so, or not."""

    mode = "raw_logprobs"

    def complete(self, body):
        found = super().complete(body)
        for choice in found["choices"]:
            row = torch.tensor([[*body["prompt"], *choice["token_ids"]]])
            with torch.no_grad():
                logp = torch.log_softmax(self.policy.model(row).logits[0], -1)
            at = range(len(body["prompt"]) - 1, row.shape[1] - 1)
            choice["logprobs"] = {"token_logprobs": [float(logp[t, row[0, t + 1]]) for t in at]}
        return found


class Silent(Raw):
    def info(self, body):
        return {"vllm_config": "text, as older versions give it"}


def test_a_server_that_reports_raw_log_probabilities(folders):
    with pytest.raises(UserError, match="reports raw_logprobs, expected processed_logprobs"), served(folders["llama"], Raw):
        pass
    with served(folders["llama"], Silent, temperature=0.5) as (policy, _):
        with pytest.raises(RunStopped, match="are not the policy's") as error:
            policy.sample(PROMPTS, 4, Key(0))
        assert "--logprobs-mode processed_logprobs" in str(error.value)
        assert "allowed are 0.05" in str(error.value)  # a server that does not say its number format
    with served(folders["llama"], Silent) as (policy, _):
        policy.sample(PROMPTS, 4, Key(0))  # at temperature 1 there is no difference


class Deaf(Completions):
    """Takes the first weights and forgets all others."""

    def rpc(self, body):
        self.rpc = lambda body: {"results": [None]}
        return super().rpc(body)


def test_an_update_that_does_not_arrive_is_found_out(folders):
    with served(folders["llama"], Deaf) as (policy, _):
        policy.sample(PROMPTS, 4, Key(0))
        nudge(policy, size=0.02)
        with pytest.raises(RunStopped, match=r"over \d+ tokens they differ by 0\.\d+ nats .* allowed are 0\.001") as error:
            policy.sample(PROMPTS, 4, Key(0))
        assert "did not take over an update" in str(error.value)


def test_the_tolerance_can_be_set(folders):
    with served(folders["llama"], Deaf, options="?tolerance=5") as (policy, _):
        policy.sample(PROMPTS, 4, Key(0))
        nudge(policy, size=0.02)
        policy.sample(PROMPTS, 4, Key(0))


def test_tolerances_follow_the_number_formats(folders):
    exact, coarse = TextPolicy.load(folders["llama"]), TextPolicy.load(folders["llama"], compute="bfloat16")
    assert contract.tolerance(torch.float32, exact) == 1e-3
    assert contract.tolerance(torch.bfloat16, exact) == contract.tolerance(None, exact) == 0.05
    assert contract.tolerance(torch.float32, coarse) == 0.05
    assert base.number_format(exact) == torch.float32
    assert base.number_format(coarse) == base.number_format(TextPolicy.load(folders["llama"], dtype="bfloat16")) == torch.bfloat16


def test_a_server_of_another_model(folders, tmp_path):
    other = small_model(tmp_path, "llama", tokenizer=small_tokenizer(bos=True), seed=1)
    with served(folders["llama"], load=folders["gpt2"], options="?sync=false") as (policy, _), pytest.raises(RunStopped) as error:
        policy.sample(PROMPTS, 4, Key(0))
    assert "runs another model" in str(error.value)
    with served(folders["llama"], load=folders["gpt2"]) as (policy, _), pytest.raises(RunStopped, match="did not take over the weights"):
        policy.sample(PROMPTS, 4, Key(0))

    class Reads(Completions):
        def tokenize(self, body):
            return {"tokens": [1, 2, 3]}

    with (
        served(folders["llama"], Reads, load=other) as (policy, _),
        pytest.raises(UserError, match="whose tokenizer is not") as error,
    ):
        policy.sample(PROMPTS, 4, Key(0))
    assert "vllm serve " + folders["llama"] in str(error.value)
    with pytest.raises(UserError, match="does not serve 'nobody'"), served(folders["llama"], options="?model=nobody"):
        pass


def test_weights_the_server_cannot_see(folders, tmp_path):
    class Elsewhere(Completions):
        def rpc(self, body):
            raise ValueError("no such folder")

    with served(folders["llama"], Elsewhere) as (policy, _), pytest.raises(RunStopped, match="no such folder") as error:
        policy.sample(PROMPTS, 1, Key(0))
    assert "?folder=/a/shared/folder" in str(error.value)
    with pytest.raises(UserError, match="is not there"), served(folders["llama"], options="?folder=/nowhere/at/all"):
        pass

    class Looks(Completions):
        def rpc(self, body):
            self.found = list(tmp_path.glob("guerdon-weights-*/model.safetensors"))
            return super().rpc(body)

    with served(folders["llama"], Looks, options=f"?folder={tmp_path}") as (policy, answers):
        policy.sample(PROMPTS, 1, Key(0))
        assert len(answers.found) == 1
        assert not list(tmp_path.iterdir())


def test_a_context_that_is_too_short(folders):
    class Short(Completions):
        def models(self, body):
            return {"data": [{"id": self.policy.name, "max_model_len": 16}]}

    with served(folders["llama"], Short) as (policy, _), pytest.raises(UserError, match="has room for 16") as error:
        policy.sample(PROMPTS, 1, Key(0))
    assert "max_model_len" in str(error.value)


def changed(**changes):
    """A server whose completions have these fields changed."""

    class Changed(Completions):
        def complete(self, body):
            found = super().complete(body)
            for choice in found["choices"]:
                choice |= {name: change(choice) if callable(change) else change for name, change in changes.items()}
            return found

    return Changed


def cut(choice):
    return choice["token_ids"][:2]


def cut_logp(choice):
    return {"token_logprobs": choice["logprobs"]["token_logprobs"][:2]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_ids": None}, "gave no token ids"),
        ({"logprobs": None}, "gave no log-probabilities"),
        ({"finish_reason": "abort"}, "ended a completion with 'abort'"),
        ({"logprobs": cut_logp, "token_ids": cut, "finish_reason": "length"}, "cut a completion at 2 tokens, and 12 were allowed"),
        ({"finish_reason": "stop"}, "did not stop where it should"),
        ({"finish_reason": "length"}, "did not stop where it should"),
        ({"logprobs": cut_logp}, "2 log-probabilities for"),
        ({"token_ids": lambda c: [99999] * len(c["token_ids"])}, "gave token 99999"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_completions_that_are_not_what_was_asked_for(changes, message, folders):
    with served(folders["llama"], changed(**changes)) as (policy, _), pytest.raises(RunStopped, match=message):
        policy.sample(PROMPTS, 6, Key(0))


def test_a_server_that_gives_too_few_completions(folders):
    class Lazy(Completions):
        def complete(self, body):
            return {"choices": super().complete(body)["choices"][:2]}

    with served(folders["llama"], Lazy) as (policy, _), pytest.raises(RunStopped, match="gave 6 completions, expected 9"):
        policy.sample(PROMPTS, 3, Key(0))


def test_a_refused_request_says_why(folders):
    class Full(Completions):
        def complete(self, body):
            raise ValueError("out of memory")

    with served(folders["llama"], Full) as (policy, _), pytest.raises(RunStopped, match=r"refused .* out of memory \(status 400\)"):
        policy.sample(PROMPTS, 3, Key(0))


# ---------------------------------------------------------------- in a run


def test_a_run_draws_with_the_engine_of_its_settings(tmp_path, folders):
    """`model.generate` draws the own decoder's tokens, so the whole run comes out alike."""
    rows = [{"prompt": p.content} for p in PROMPTS]
    settings = {"data": rows, "reward": lambda text: float(len(text)), "batch": 2, "n": 3, "max_new": 8, "steps": 2, "progress": False}
    runs = [
        guerdon.train("grpo", model=folders["llama"], engine=engine, out=tmp_path / engine, **settings)
        for engine in ("own", "transformers")
    ]
    assert runs[0].metrics["reward"] == runs[1].metrics["reward"]
    assert json.loads((tmp_path / "transformers" / "config.json").read_text())["config"]["run"]["engine"] == "transformers"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["check", "grpo", "--engine", "vlm"], "run.engine: got 'vlm', expected own, transformers, vllm, or the address of a vLLM server"),
        (["check", "grpo", "--engine", "http://127.0.0.1:9"], "no server answers at http://127.0.0.1:9"),
        (["check", "bradley_terry", "--engine", "transformers"], "this method has none"),
        (["check", "reinforce", "--engine", "transformers"], "this method has none"),
    ],
)
def test_settings_that_cannot_work(argv, message, capsys):
    assert cli.main(argv) == 2
    assert message in capsys.readouterr().err


def test_a_policy_made_in_python_brings_its_own_engine(folders):
    with pytest.raises(UserError, match="made in Python") as error:
        guerdon.train("grpo", model=TextPolicy.load(folders["llama"]), engine="transformers", data=[{"prompt": "Hi"}], reward="vader")
    assert "TextPolicy.load(..., engine='transformers')" in str(error.value)


# ---------------------------------------------------------------- vLLM itself


SCRIPT = """
import sys, torch
from guerdon.core.rng import Key
from guerdon.policies.text import TextPolicy
from guerdon.types import Prompt

prompts = [Prompt("a", "The movie was"), Prompt("b", "I think")]
policy = TextPolicy.load("tiny", max_new=24, engine="vllm?gpu_memory_utilization=0.1")
seen = []
for update in range(3):
    rollouts = policy.sample(prompts, 8, Key(0))
    batch = policy.collate(rollouts)
    with torch.no_grad():
        gap = (policy.forward(batch).logp - batch.old_logp)[batch.mask].abs()
    assert gap.max() < 1e-3, gap.max()
    assert {r.end for r in rollouts} == {"stop", "length"}
    assert [r.actions.tolist() for r in policy.sample(prompts, 8, Key(0))] == [r.actions.tolist() for r in rollouts]
    seen.append([r.actions.tolist() for r in rollouts])
    with torch.no_grad():
        for p in policy.parameters():
            p.mul_(1.02)
    policy.version += 1
assert seen[0] != seen[1] != seen[2]
print("all well")
"""


@pytest.mark.slow
@pytest.mark.timeout(400)  # half a minute on a quiet machine, most of it vLLM's start
@pytest.mark.skipif(not VLLM, reason="vllm is not installed")
def test_vllm_in_this_process():
    """In a process of its own, which vLLM leaves in another state than it found it in."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=380, check=False)
    assert "all well" in done.stdout, done.stderr[-2000:]
