"""The few questions that are asked of a server on this machine, without an HTTP library."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from agent.serving.watch import PATH

_SECONDS = 20.0
"""For how long a server may be busy before it counts as silent; one that is not there is known at once."""


@dataclass(frozen=True)
class Activity:
    """How busy a server is."""

    running: int
    """Requests that it works on."""

    idle_seconds: float
    """Since the last of them ended; 0 while one runs."""


def activity(url: str, identity: str) -> Activity | None:
    """Ask a server who it is and how busy.

    Args:
        url: Its address.
        identity: Its id.

    Returns:
        None where nothing answers, or another one does.
    """
    body = _get(url, PATH)
    try:
        told = json.loads(body or b"")
        return Activity(told["running"], told["idle_seconds"]) if told["id"] == identity else None
    except (ValueError, KeyError, TypeError):
        return None


def healthy(url: str) -> bool:
    """Whether vLLM's engine behind the server lives."""
    return _get(url, "/health") is not None


def _get(url: str, path: str) -> bytes | None:
    """The body of a successful answer."""
    connection = _connection(url)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        return body if 200 <= answer.status < 300 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _connection(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme == "http+unix":
        return _UnixConnection(unquote(parts.netloc))
    assert parts.hostname is not None
    if parts.scheme == "https":
        # Our own process on this machine: what its certificate says about names is for others.
        context = ssl._create_unverified_context()  # noqa: S323
        return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=_SECONDS, context=context)
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=_SECONDS)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP on a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
