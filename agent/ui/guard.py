"""Who may use the page: whoever has the token, from a browser that was told our own address.

Everything that reaches this port can run tools, and a port on loopback can be reached by every program and
every web page of the machine. So there are three locks, on every request and on every WebSocket:

- the *token*, in the printed address; it becomes a cookie at once, so that it stays in no history;
- the *Host* must be ours. A page of another site whose name was made to mean 127.0.0.1 (DNS rebinding)
  counts as the same origin for its browser, but sends its own name;
- the *Origin*, where there is one, must be ours: browsers let every site open WebSockets to every other.

The answers forbid the page to fetch anything from elsewhere: a model's answer may name a picture on
another server, and fetching it would tell that server what the model was made to write in its address.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlencode

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

_POLICY_VIOLATION = 1008
_CONTENT_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self' {sockets}; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The widget library compiles its templates in the browser, hence ``unsafe-eval``; all of it is from here."""


class Guard:
    """Puts the locks around an ASGI application.

    Args:
        app: What is guarded.
        token: The secret.
        port: Where it is served, on loopback.
    """

    def __init__(self, app: Application, *, token: str, port: int) -> None:
        self.app = app
        self._token = token
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        if port == 80:
            self._hosts |= {"127.0.0.1", "localhost"}
        self._origins = {f"http://{host}" for host in self._hosts}
        # Cookies know no ports: two of these servers on one machine must not overwrite each other's.
        self._cookie = f"vllm_agent_ui_{port}"
        sockets = " ".join(sorted(f"ws://{host}" for host in self._hosts))
        self._headers = [
            (b"content-security-policy", _CONTENT_POLICY.format(sockets=sockets).encode()),
            (b"referrer-policy", b"no-referrer"),
            (b"x-content-type-options", b"nosniff"),
        ]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass on what may pass."""
        if scope["type"] not in ("http", "websocket"):  # the application's own start and end
            await self.app(scope, receive, send)
            return
        headers = _headers_of(scope)
        if headers.get("host", "").lower() not in self._hosts:
            await _refuse(scope, receive, send, 421, "This address is not served here.")
        elif "origin" in headers and headers["origin"].lower() not in self._origins:
            await _refuse(scope, receive, send, 403, "Another site may not use this page.")
        elif self._matches(self._cookie_of(headers)):
            await self._serve(scope, receive, send)
        elif scope["type"] == "http" and self._matches(_query(scope).get("token")):
            await self._let_in(scope, send)
        else:
            text = "Open the address that `vllm-agent ui` has printed: it has the token in it."
            await _refuse(scope, receive, send, 401, text)

    async def _serve(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and "token" in _query(scope):
            await self._let_in(
                scope, send
            )  # with a cookie from before; the token leaves the address all the same
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._headers]
            await send(message)

        await self.app(scope, receive, with_headers)

    async def _let_in(self, scope: Message, send: Send) -> None:
        """Give the cookie, and the same address without the token."""
        given = _query(scope)
        rest = urlencode({name: value for name, value in given.items() if name != "token"})
        headers = [(b"location", f"{scope['path']}{'?' if rest else ''}{rest}".encode()), *self._headers]
        if self._matches(given["token"]):
            cookie = f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/"
            headers.append((b"set-cookie", cookie.encode()))
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    def _cookie_of(self, headers: dict[str, str]) -> str | None:
        # Not `http.cookies`, which gives up all cookies for one that it cannot read: cookies know no ports,
        # so those of every other program on this machine come along.
        pairs = (pair.strip().partition("=") for pair in headers.get("cookie", "").split(";"))
        return next((value for name, _, value in pairs if name == self._cookie), None)

    def _matches(self, given: str | None) -> bool:
        return given is not None and hmac.compare_digest(given.encode(), self._token.encode())


def _headers_of(scope: Message) -> dict[str, str]:
    pairs: Iterable[tuple[bytes, bytes]] = scope["headers"]
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in pairs}


def _query(scope: Message) -> dict[str, str]:
    return dict(parse_qsl(scope.get("query_string", b"").decode("latin-1")))


async def _refuse(scope: Message, receive: Receive, send: Send, status: int, text: str) -> None:
    if scope["type"] == "websocket":
        await receive()  # the handshake has to be taken before it can be refused
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": text})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{text}\n".encode()})
