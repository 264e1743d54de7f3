"""Inside the server: who it is, when it was last used, and its end when nobody uses it.

An ASGI middleware that vLLM's server loads (``--middleware``). It counts requests that ask something (POST),
not looks at health or metrics, and answers one path of its own. When no request has run for the time it was
given, it sends its process SIGTERM, which ends the server in good order: what runs is answered first.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

PATH = "/vllm-agent/server"
"""Where the server says who it is and how busy."""

ID = "VLLM_AGENT_SERVER_ID"
IDLE = "VLLM_AGENT_SERVER_IDLE_SECONDS"
"""Environment variables of the server."""

_LOOK = 0.05
_STOPPING = {
    "message": "this server is being stopped, and takes no further requests",
    "type": "ServiceUnavailableError",
    "param": None,
    "code": 503,
}

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]
_App: TypeAlias = Callable[[_Message, _Receive, _Send], Awaitable[None]]


class Watch:
    """Watches the requests of one server.

    Args:
        app: What answers them.
    """

    def __init__(self, app: _App) -> None:
        self._app = app
        self._id = os.environ.get(ID, "")
        self._running = 0
        self._last = time.monotonic()
        self._closed = False
        _watches.add(self)
        if idle := float(os.environ.get(IDLE) or 0):
            threading.Thread(target=self._end_when_idle, args=(idle,), name="idle-watch", daemon=True).start()

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer one request, or have it answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"].removeprefix(scope.get("root_path", "")) == PATH:
            await self._tell(send)
        elif scope["method"] != "POST":
            await self._app(scope, receive, send)
        else:
            self._running += 1  # before the look: what is not refused is waited for
            refused = self._closed
            try:
                if not refused:
                    await self._app(scope, receive, send)
            finally:
                self._running -= 1
                self._last = time.monotonic()
            if refused:  # nobody waits for this
                await _answer(send, 503, {"error": _STOPPING})

    async def _tell(self, send: _Send) -> None:
        idle = 0.0 if self._running else time.monotonic() - self._last
        told = {"id": self._id, "running": self._running, "idle_seconds": round(idle, 3)}
        await _answer(send, 200, told)

    def finish(self, deadline: float) -> None:
        """Refuse further requests, and wait until those that run are answered; from another thread."""
        self._closed = True
        while self._running and time.monotonic() < deadline:
            time.sleep(_LOOK)

    def _end_when_idle(self, seconds: float) -> None:
        while True:
            left = self._last + seconds - time.monotonic()
            if left <= 0 and not self._running:
                os.kill(os.getpid(), signal.SIGTERM)
                return
            time.sleep(max(left, seconds / 100, _LOOK))


_watches: weakref.WeakSet[Watch] = weakref.WeakSet()


def finish_requests(seconds: float) -> None:
    """Have this process's server take no further requests and answer those that it has.

    Args:
        seconds: How long it may take.
    """
    deadline = time.monotonic() + seconds
    for watch in list(_watches):
        watch.finish(deadline)


async def _answer(send: _Send, status: int, value: Any) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})
