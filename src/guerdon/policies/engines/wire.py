"""JSON over HTTP with the standard library: a request, its answer, and errors in plain words."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class Refused(Exception):
    """The server answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{message} (status {status})")
        self.status = status


class Unreachable(Exception):
    """No answer: no server, a broken connection, or nothing within the time."""


@dataclass(frozen=True)
class Wire:
    """A server's address. key: sent as a bearer token. seconds: longest wait for an answer. pauses: before a request that found
    nobody is sent again; every request here may arrive twice, since its seed goes with it."""

    url: str
    key: str = ""
    seconds: float = 3600.0
    pauses: Sequence[float] = (1.0, 4.0)

    def get(self, path: str) -> Any:
        return self._send(path, None, ())

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._send(path, json.dumps(body).encode(), self.pauses)

    def _send(self, path: str, body: bytes | None, pauses: Sequence[float]) -> Any:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        for pause in (*pauses, None):
            try:
                request = urllib.request.Request(self.url + path, data=body, headers=headers)
                with urllib.request.urlopen(request, timeout=self.seconds) as answer:
                    text = answer.read()
                return json.loads(text) if text.strip() else {}
            except urllib.error.HTTPError as error:
                with error:
                    raise Refused(error.code, message(error.read())) from None
            except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
                if pause is None:
                    raise Unreachable(str(getattr(error, "reason", "") or error) or type(error).__name__) from None
                time.sleep(pause)
            except ValueError:
                raise Refused(200, "the answer is not JSON") from None
        raise AssertionError


def message(body: bytes) -> str:
    """The words in an error answer, whatever its shape."""
    text = body.decode("utf-8", "replace").strip()
    try:
        found = json.loads(text)
    except ValueError:
        found = text
    for name in ("error", "message", "detail"):
        if isinstance(found, Mapping) and name in found:
            found = found[name]
    return str(found)[:500] or "no reason given"
