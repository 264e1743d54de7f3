"""HTTP to one server: addresses, the key, retries where they are safe, and what went wrong in plain terms.

What a failure means for a caller is decided one level up, in :mod:`agent.engines.remote.engine`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Mapping
from functools import cached_property
from typing import Any

import httpx
from pydantic import SecretStr

from agent.bearer import bearer_token
from agent.engines.remote.sse import EventDecoder
from agent.errors import ConfigurationError, RequestError

CHAT = "chat/completions"
"""Path of the one route that every such server has."""

COMPLETIONS = "completions"
"""Path of the route that continues plain texts."""

_CONNECT_SECONDS = 10.0
_LONGEST_WAIT = 60.0  # a server that asks for more patience is reported instead
_IDLE_SECONDS = 3.0  # vLLM drops idle connections after 5: one that it is just dropping is never used
_AT_ONCE = 1.0  # seconds in which a connection shows that it was dropped before it was taken up
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class ConnectionFailure(Exception):
    """A call that did not succeed; ``str()`` says why, without the key."""


class UnreachableError(ConnectionFailure):
    """No connection could be made, so nothing was sent."""


class LostError(ConnectionFailure):
    """The connection broke, or stayed silent for too long, after the request was sent."""


class RefusedError(ConnectionFailure):
    """The server answered with an error status.

    Args:
        status: The HTTP status.
        said: The server's own message.
    """

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


class Connection:
    """A pool of connections to one server. Must be used on one event loop.

    Args:
        base_url: ``http://host:port``, with or without the API's path (``/v1`` where none is given).
        api_key: Sent as a bearer token.
        timeout: Seconds that the server may stay silent.
        max_retries: How often a call is tried again when it is certain that the server did no work for it.
        headers: Further headers of each request.

    Raises:
        ConfigurationError: ``base_url`` is no address of a server, or ``api_key`` no key.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: SecretStr | None,
        timeout: float,
        max_retries: int,
        headers: Mapping[str, str],
    ) -> None:
        url = _checked(base_url)
        self._api = url.copy_with(path=url.path.rstrip("/") or "/v1")
        self._root = self._api.copy_with(path=self._api.path.removesuffix("/v1") or "/")
        self.address = str(url.copy_with(username=None, password=None)).rstrip("/")
        key = api_key.get_secret_value() if api_key else ""
        self._key = bearer_token(key, named="the key that api_key= or VLLM_API_KEY gives")
        self._timeout = timeout
        self._max_retries = max_retries
        authorization = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._headers = {**authorization, **headers}
        self._proxied = url.host not in _LOOPBACK  # no proxy leads to this machine

    @cached_property
    def _client(self) -> httpx.AsyncClient:
        """Made with the first call: it reads all certificates, and most models are built without a call.

        Raises:
            ConfigurationError: The environment names a proxy or certificates that cannot be used.
        """
        try:
            return httpx.AsyncClient(
                headers=self._headers,
                timeout=httpx.Timeout(self._timeout, connect=min(self._timeout, _CONNECT_SECONDS)),
                # Batching is the server's work: it must see all requests at once.
                limits=httpx.Limits(max_connections=None, keepalive_expiry=_IDLE_SECONDS),
                trust_env=self._proxied,
            )
        except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:  # the first for SOCKS
            msg = (
                f"{self.address} cannot be connected to with the proxy and the certificates that the "
                f"environment names ({error}); see HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and SSL_CERT_FILE"
            )
            raise ConfigurationError(msg) from error

    async def json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Make one call and return the JSON of the answer.

        Args:
            method: ``"GET"`` or ``"POST"``.
            path: Below the API's path, or from the server's root with a slash in front.
            body: The JSON object to send.

        Raises:
            ConnectionFailure: It did not succeed.
        """
        response = await self._send(method, path, body)
        try:
            await response.aread()
            return response.json() if response.content else None
        except httpx.HTTPError as error:
            raise self._lost(error) from error
        except (ValueError, RecursionError) as error:
            raise RefusedError(response.status_code, f"no JSON but {_short(response.text)!r}") from error
        finally:
            await response.aclose()

    async def events(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[str]:
        """Make one call and yield the data of the events that answer it; closing ends the connection.

        Raises:
            ConnectionFailure: It did not succeed.
        """
        response = await self._send("POST", path, body)
        decoder = EventDecoder()
        try:
            async for part in response.aiter_bytes():
                for event in decoder.feed(part):
                    yield event
            for event in decoder.finish():
                yield event
        except httpx.HTTPError as error:
            raise self._lost(error) from error
        finally:
            await response.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        if "_client" in self.__dict__:
            await self._client.aclose()

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        base = self._root if path.startswith("/") else self._api
        url = base.copy_with(path=f"{base.path.rstrip('/')}/{path.lstrip('/')}")
        for attempt in itertools.count():
            last = attempt >= self._max_retries
            try:
                response = await self._sent(method, url, body)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:  # nothing was sent
                if last:
                    raise UnreachableError(str(error) or type(error).__name__) from error
                await asyncio.sleep(_pause(attempt))
                continue
            except httpx.HTTPError as error:
                raise self._lost(error) from error
            if response.is_success:
                return response
            failure = await self._refused(response)
            wait = _retry_after(response)
            if last or wait is None:
                raise failure
            await asyncio.sleep(max(wait, _pause(attempt)))
        raise AssertionError

    async def _sent(self, method: str, url: httpx.URL, body: Mapping[str, Any] | None) -> httpx.Response:
        """Send a request; once more where the server dropped an idle connection just as it was taken up.

        A server that lives takes the second one, on a connection of its own. One that ended over the first
        does not, and then the first is what counts. Whoever breaks off later has worked on the request.
        """
        dropped: httpx.HTTPError | None = None
        while True:
            if self._client.is_closed:  # meanwhile, by ourselves
                raise LostError("it was closed")
            request, made = self._built(method, url, body), _Made()
            request.extensions["trace"] = made.trace
            late = time.monotonic() + _AT_ONCE
            try:
                return await self._client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if dropped is not None:
                    raise dropped from None
                raise
            except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
                if made.connection or time.monotonic() > late:
                    raise
                dropped = error

    def _built(self, method: str, url: httpx.URL, body: Mapping[str, Any] | None) -> httpx.Request:
        client = self._client
        try:
            return client.build_request(method, url, json=body)
        except (TypeError, ValueError) as error:  # an object, a number that is none, half a character
            raise RequestError(f"the request cannot be sent, as it is no JSON: {error}") from error

    async def _refused(self, response: httpx.Response) -> RefusedError:
        try:
            await response.aread()
        except httpx.HTTPError as error:
            raise self._lost(error) from error
        finally:
            await response.aclose()
        return RefusedError(response.status_code, self._without_key(_said(response)))

    def _lost(self, error: httpx.HTTPError) -> LostError:
        if isinstance(error, httpx.TimeoutException):
            return LostError(f"it said nothing for {self._timeout:g} s")
        return LostError(self._without_key(str(error)) or type(error).__name__)

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


class _Made:
    """Whether a connection was made for a request; where not, one that was idle served it."""

    connection = False

    async def trace(self, event: str, _: Mapping[str, Any]) -> None:
        """Called by httpcore with each step of a request (its "trace" extension)."""
        self.connection = self.connection or event.startswith("connection.connect_")


def _checked(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
        possible = url.scheme in ("http", "https") and url.host and not (url.query or url.fragment)
    except (httpx.InvalidURL, TypeError, ValueError) as error:  # the last for a host name that is none
        msg = f"base_url must be an address such as http://localhost:8000/v1, got {base_url!r} ({error})"
        raise ConfigurationError(msg) from error
    if not possible or not 0 < (url.port or 80) < 1 << 16:
        msg = f"base_url must be an address such as http://localhost:8000/v1, got {base_url!r}"
        raise ConfigurationError(msg)
    return url


def _pause(attempt: int) -> float:
    """Seconds before the next attempt: 0.25, 0.5, 1, 2, …"""
    return float(min(0.25 * 2**attempt, _LONGEST_WAIT))


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds after which a server that was too busy wants to be asked again; None where it does not say."""
    if response.status_code not in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE):
        return None
    try:
        seconds = float(response.headers["Retry-After"])
    except (KeyError, ValueError):  # absent, or a date, which no model server sends
        return None
    return seconds if 0 <= seconds <= _LONGEST_WAIT else None


def _said(response: httpx.Response) -> str:
    """Find the message in an error's body: servers put it in several places."""
    try:
        body: Any = response.json()
    except (ValueError, RecursionError):
        return _short(response.text) or response.reason_phrase
    for key in ("error", "message", "detail"):
        if isinstance(body, dict) and body.get(key):
            body = body[key]
    return body if isinstance(body, str) else _short(str(body))


def _short(text: str) -> str:
    return text if len(text) <= 500 else f"{text[:500]}…"
