"""A reward behind an address, with a real server in a thread."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from guerdon.errors import UserError
from guerdon.rewards.remote import RemoteReward
from guerdon.rewards.resolve import Spec, load, resolve_rewards
from guerdon.testing import check_reward, sample_rollouts


@contextmanager
def served(answer):
    """The address of a server that answers a body with `answer(body)`; an exception becomes status 500."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                status, said = 200, json.dumps(answer(body))
            except Exception as error:
                status, said = 500, str(error)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(said.encode())

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/get_reward"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def lengths(body):
    assert all(len(body[name]) == len(body["query"]) for name in ("prompts", "completions", "labels"))
    return {"rewards": [None if not c else len(c) / 10 for c in body["completions"]], "extra_logs": {"n": [1.0] * len(body["query"])}}


def test_it_is_a_reward():
    with served(lengths) as url:
        check_reward(RemoteReward(url, batch_size=5))


def test_it_is_found_by_its_address():
    rollouts = sample_rollouts(2, 2)
    with served(lengths) as url:
        reward, fact = load(Spec.parse(url))
        scores = resolve_rewards([f"{url}=2"]).reward(rollouts)
        assert fact["kind"] == "remote"
        assert [s.value for s in reward(rollouts)] == [len(r.content) / 10 for r in rollouts]
        assert [s.value for s in scores] == pytest.approx([len(r.content) / 5 for r in rollouts])


def test_a_server_that_is_down_or_confused_judges_nothing():
    rollouts = sample_rollouts(1, 1)

    def broken(body):
        raise RuntimeError("no such model")

    with served(broken) as url, pytest.raises(UserError, match="answered 500: no such model"):
        RemoteReward(url)(rollouts)
    with served(lambda body: {"rewards": [1.0, 2.0]}) as url, pytest.raises(UserError, match="2 values"):
        RemoteReward(url)(rollouts)
    with pytest.raises(UserError, match="gave no answer"):
        RemoteReward("http://127.0.0.1:9/nobody", timeout_s=2.0)(rollouts)
    with pytest.raises(UserError, match="no address"):
        RemoteReward("host:80")
