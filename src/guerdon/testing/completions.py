"""A small server that speaks the part of vLLM's JSON that rollouts and weight updates need, with a real policy behind it: to try
`--engine http://...` without vLLM, and for tests. `python -m guerdon.testing.completions FOLDER` serves the model in a folder."""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from guerdon.core.rng import Key
from guerdon.policies.engines.handover import FILE
from guerdon.policies.engines.plain import Plain
from guerdon.policies.generate import Drawn, Sampler
from guerdon.policies.text import TextPolicy


class Completions:
    """The answers of the server; a method for each path. Every one takes the body of the request and gives that of the answer.

    A request that cannot be answered raises ValueError. dev: serve `/server_info`, `/collective_rpc` and `/reset_prefix_cache`.
    key: the bearer token that is asked for, "" for none.
    """

    mode = "processed_logprobs"

    def __init__(self, policy: TextPolicy, *, dev: bool = True, key: str = "") -> None:
        self.policy, self.dev, self.key = policy, dev, key
        self.engine, self.lock = Plain(), threading.Lock()
        self.engine.sync(policy)
        self.requests: list[Mapping[str, Any]] = []

    def routes(self) -> dict[str, Any]:
        found = {"/v1/models": self.models, "/v1/completions": self.complete, "/tokenize": self.tokenize}
        dev = {"/server_info": self.info, "/collective_rpc": self.rpc, "/reset_prefix_cache": lambda body: {"success": True}}
        return found | (dev if self.dev else {})

    def models(self, body: Mapping[str, Any]) -> Any:
        return {"data": [{"id": self.policy.name, "max_model_len": self.policy.max_length}]}

    def info(self, body: Mapping[str, Any]) -> Any:
        return {"vllm_config": {"model_config": {"dtype": str(self.policy.dtype), "logprobs_mode": self.mode}}}

    def tokenize(self, body: Mapping[str, Any]) -> Any:
        return {"tokens": self.policy.tokenizer(body["prompt"], add_special_tokens=body["add_special_tokens"]).input_ids}

    def rpc(self, body: Mapping[str, Any]) -> Any:
        """`reload_weights` from a folder."""
        from safetensors.torch import load_file

        if body["method"] != "reload_weights":
            raise ValueError(f"unknown method {body['method']}")
        path = Path(body["kwargs"]["weights_path"]) / FILE
        if not path.exists():
            raise ValueError(f"cannot read {path}")
        self.policy.model.load_state_dict(load_file(path))
        return {"results": [None]}

    def complete(self, body: Mapping[str, Any]) -> Any:
        self.requests.append(body)
        if body["model"] != self.policy.name:
            raise ValueError(f"the model {body['model']!r} does not exist")
        sampler = Sampler(body["temperature"], body["top_p"], body["top_k"])
        key, stop = Key(body["seed"]), frozenset(body["stop_token_ids"])
        drawn = self.engine.draw([body["prompt"]], body["n"], key, sampler, [body["max_tokens"]], stop)
        return {"choices": [self.choice(i, one) for i, one in enumerate(drawn)]}

    def choice(self, index: int, one: Drawn) -> dict[str, Any]:
        """One completion."""
        reason = "stop" if one.stopped else "length"
        return {"index": index, "finish_reason": reason, "token_ids": one.ids.tolist(), "logprobs": {"token_logprobs": one.logp.tolist()}}

    def answer(self, path: str, body: Mapping[str, Any], key: str) -> tuple[int, Any]:
        """Status and body."""
        if self.key and key != f"Bearer {self.key}":
            return 401, {"error": "Unauthorized"}
        route = self.routes().get(path.partition("?")[0])
        if route is None:
            return 404, {"detail": "Not Found"}
        try:
            with self.lock:
                return 200, route(body)
        except (ValueError, KeyError, RuntimeError) as error:
            return 400, {"error": {"message": str(error)}}


def server(answers: Completions, port: int = 0) -> ThreadingHTTPServer:
    """An HTTP server of these answers on this machine; port 0 picks a free one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send({})

        def do_POST(self) -> None:
            self._send(json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}"))

        def _send(self, body: Mapping[str, Any]) -> None:
            status, found = answers.answer(self.path, body, self.headers.get("Authorization", ""))
            text = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


@contextmanager
def serving(answers: Completions) -> Iterator[str]:
    """Serve in a thread while inside; gives the address."""
    made = server(answers)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{made.server_port}"
    finally:
        made.shutdown()
        made.server_close()
        thread.join()


def main() -> None:
    """Serve the model in a folder until interrupted; the first line printed is the address."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--port", type=int, default=0)
    args = parser.parse_args()
    made = server(Completions(TextPolicy.load(args.folder)), args.port)
    print(f"http://127.0.0.1:{made.server_port}", flush=True)
    made.serve_forever()


if __name__ == "__main__":
    main()
