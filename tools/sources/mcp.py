"""MCP servers over stdio and streamable HTTP as a source of tools, with the official client.

Each server has one long-lived session, owned by one task on an event loop of its own, so that it can be used
from every loop and thread. A server that dies or hangs loses its session; another one is opened by the next
call, and without one after a while, so that a server which starts late or comes back is found. Its list of
tools is read again at each health check, and at once where the server tells that it has changed. A call is
never repeated: what was sent may have taken effect.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from langchain_core.tools import BaseTool
from pydantic import PrivateAttr

from tools.errors import ToolError, ToolRegistrationError
from tools.policy import ToolPolicy, with_policy
from tools.private_loop import PrivateLoop

logger = logging.getLogger(__name__)

_EMPTY: Mapping[str, str] = MappingProxyType({})
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")
_PAGES = 100  # of a list of tools: a server that never ends its list must not hang us
_LONGEST_PAUSE = 300.0  # seconds between two attempts to reach a server that is gone
_LEAVING = 6.0  # seconds: the client itself waits a while for a server to leave before it kills it
_loop = PrivateLoop()


@dataclass(frozen=True, kw_only=True)
class McpServer:
    """How to reach one MCP server.

    Raises:
        ToolRegistrationError: The fields contradict each other.
    """

    name: str
    """Stands before the names of its tools: ``NAME_tool``."""

    command: str | None = None
    """The program that is started and spoken to over stdio."""

    args: tuple[str, ...] = ()
    """Its arguments."""

    env: Mapping[str, str] = field(default_factory=lambda: _EMPTY, repr=False)
    """Variables beside the few (``PATH``, ``HOME``, …) that the client passes on by itself."""

    cwd: str | None = None
    """Its working directory."""

    url: str | None = None
    """Address of a server that speaks streamable HTTP, in the place of ``command``."""

    headers: Mapping[str, str] = field(default_factory=lambda: _EMPTY, repr=False)
    """HTTP headers, for example for authorization."""

    timeout: float = 30.0
    """Seconds for opening the session, for a list, and for a call."""

    health_interval: float = 30.0
    """Seconds between two looks whether the server still answers; its list is read again then."""

    def __post_init__(self) -> None:
        if not self.name or _NOT_IN_NAMES.search(self.name):
            raise ToolRegistrationError(f"MCP server name {self.name!r}: use letters, digits, '_' or '-'")
        if (self.command is None) == (self.url is None):
            raise ToolRegistrationError(f"MCP server {self.name!r} needs either command or url")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ToolRegistrationError(f"MCP server {self.name!r}: url={self.url!r} is no http(s) address")
        for key in ("timeout", "health_interval"):
            value = getattr(self, key)
            if not (value > 0 and math.isfinite(value)):
                raise ToolRegistrationError(f"MCP server {self.name!r}: {key}={value!r} must be above 0 s")


class McpConnection:
    """The session with one server; opened when needed, and again after it was lost."""

    def __init__(self, server: McpServer) -> None:
        self.server = server
        self.source = f"MCP server {server.name!r} ({server.url or server.command})"
        self._owner: asyncio.Task[None] | None = None
        self._client: asyncio.Future[Any] | None = None
        self._check = asyncio.Event()
        self._revival: asyncio.Task[None] | None = None
        self._closed = False
        self._healthy = False
        self._error: str | None = None
        self._listed: list[Any] = []
        self._changes = 0
        atexit.register(self.close)

    @property
    def healthy(self) -> bool:
        """Whether the server answered when it was last spoken to."""
        return self._healthy

    @property
    def error(self) -> str | None:
        """Why it does not answer; ``None`` if it does, or was not spoken to yet."""
        return None if self._healthy else self._error

    @property
    def changes(self) -> int:
        """Counts the times that the server's list of tools has changed since the first one was read."""
        return self._changes

    def latest_tools(self) -> list[BaseTool]:
        """The tools of the list that was read last; nothing is asked."""
        policy = ToolPolicy(timeout=self.server.timeout + 1)  # our own timeout says which server it was
        return [with_policy(_tool(self, each), policy) for each in self._listed]

    def tools(self) -> list[BaseTool]:
        """Ask the server for its tools.

        Raises:
            ToolRegistrationError: The ``mcp`` extra is missing, or the server does not answer in time.
        """
        try:
            import mcp  # noqa: F401
        except ImportError as error:
            raise ToolRegistrationError(
                f"{self.source} needs the MCP client: pip install 'vllm-agent[mcp]'"
            ) from error
        try:
            _loop.run(self._list())
        except Exception as error:  # the client's own errors, the system's, and groups of both
            self._error = _words(error)
            raise ToolRegistrationError(f"{self.source} does not answer: {self._error}") from error
        return self.latest_tools()

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Call a tool by the server's own name for it, from any event loop.

        Raises:
            ToolError: The tool failed, or the server was lost or did not answer in time.
        """
        work = asyncio.run_coroutine_threadsafe(self._call(name, arguments), _loop.started())
        return await asyncio.wrap_future(work)

    def close(self) -> None:
        """End the session, and the server if it was started here."""
        atexit.unregister(self.close)
        self._closed = True
        if self._owner is not None or self._revival is not None:
            with contextlib.suppress(Exception):
                _loop.run(self._drop())

    async def _call(self, name: str, arguments: dict[str, Any]) -> str:
        from mcp import MCPError

        try:
            async with asyncio.timeout(self.server.timeout):
                client = await self._session()
                result = await client.call_tool(name, arguments)
        except TimeoutError:
            self._check.set()  # one slow call, or the whole server? The owner looks
            raise ToolError(
                f"{self.source} did not answer within {self.server.timeout:g} s; "
                "the call may still take effect"
            ) from None
        except MCPError as error:
            self._check.set()
            raise ToolError(f"{self.source}: {error}") from error
        except ToolError as error:  # there is no session, so nothing was sent
            raise ToolError(f"{self.source} was not asked: {error}") from error
        except Exception as error:
            await self._drop()
            raise ToolError(
                f"{self.source} was lost: {_words(error)}. The call may have taken effect; "
                "the next one connects again"
            ) from error
        text = _text(result)
        if result.is_error:
            raise ToolError(text)
        return text

    async def _list(self) -> None:
        async with asyncio.timeout(self.server.timeout):
            try:
                await self._read_list(await self._session())
            except (
                Exception
            ):  # the session may be one that the server has forgotten: once more, with a new one
                await self._drop()
                await self._read_list(await self._session())

    async def _read_list(self, client: Any) -> None:
        listed = await _all_tools(client)
        if listed != self._listed:
            self._listed = listed
            self._changes += 1

    async def _session(self) -> Any:
        if self._closed:
            raise ToolError("the connection was closed")
        if self._owner is None or self._owner.done():
            self._client = asyncio.get_running_loop().create_future()
            self._owner = asyncio.create_task(self._own(self._client))
        assert self._client is not None
        return await asyncio.shield(self._client)

    async def _drop(self) -> None:
        owner, self._owner, self._healthy = self._owner, None, False
        if self._closed:
            if self._revival is not None:
                self._revival.cancel()
        else:
            self._revive_later()
        if owner is not None and not owner.done():
            owner.cancel()
            await asyncio.wait({owner}, timeout=_LEAVING)

    def _revive_later(self) -> None:
        if self._revival is None or self._revival.done():
            self._revival = asyncio.create_task(self._revive())

    async def _revive(self) -> None:
        """Look for a server that is gone, ever more seldom, until it answers."""
        pause = self.server.health_interval
        while not self._healthy:
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            with contextlib.suppress(Exception):  # why not is logged by the owner, and kept
                async with asyncio.timeout(self.server.timeout):
                    await self._read_list(await self._session())

    async def _own(self, opened: asyncio.Future[Any]) -> None:
        """Hold one session: the client's context must be left in the task that entered it."""
        try:
            async with contextlib.AsyncExitStack() as stack:
                async with asyncio.timeout(self.server.timeout):
                    client = await stack.enter_async_context(await _client(self.server, stack, self._heard))
                self._healthy, self._error = True, None
                opened.set_result(client)
                listening = asyncio.create_task(self._listen(client))
                stack.callback(listening.cancel)
                while True:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._check.wait(), self.server.health_interval)
                    self._check.clear()  # before it is read: what changes meanwhile is told once more
                    async with asyncio.timeout(self.server.timeout):
                        await self._read_list(client)
        except asyncio.CancelledError:
            opened.cancel()
            raise
        except Exception as error:
            self._error = _words(error)
            if opened.done():
                logger.warning("%s was lost: %s", self.source, self._error)
            else:  # whoever asked for it says so
                logger.info("%s does not answer: %s", self.source, self._error)
                opened.set_exception(ToolError(self._error))
                opened.exception()  # looked at, also where nobody waits any more
            self._healthy = False
            if not self._closed:
                self._revive_later()
        finally:
            self._healthy = False

    async def _listen(self, client: Any) -> None:
        """Have the list read again when a server of the newer protocol says that it has changed."""
        with contextlib.suppress(
            Exception
        ):  # not every server offers it: the health check reads the list too
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self._check.set()

    async def _heard(self, message: Any) -> None:
        """The same for servers of the older protocol, which send it unasked."""
        if type(message).__name__ == "ToolListChangedNotification":
            self._check.set()


class McpTool(BaseTool):
    """One tool of an MCP server. A class of its own: no argument's name is taken by the function's."""

    _connection: McpConnection = PrivateAttr()
    _remote_name: str = PrivateAttr()

    def _run(self, /, **arguments: Any) -> str:
        return _loop.run(self._connection._call(self._remote_name, arguments))

    async def _arun(self, /, **arguments: Any) -> str:
        return await self._connection.call(self._remote_name, arguments)


def _tool(connection: McpConnection, listed: Any) -> BaseTool:
    name = _NOT_IN_NAMES.sub("_", f"{connection.server.name}_{listed.name}")
    description = listed.description or listed.title or listed.name
    tool = McpTool(name=name, description=description, args_schema=listed.input_schema)
    tool._connection, tool._remote_name = connection, listed.name
    return tool


async def _client(server: McpServer, stack: contextlib.AsyncExitStack, heard: Any) -> Any:
    from mcp import Client, StdioServerParameters
    from mcp.client.streamable_http import streamable_http_client

    if server.url is None:
        assert server.command is not None
        parameters = StdioServerParameters(
            command=server.command, args=list(server.args), env=dict(server.env) or None, cwd=server.cwd
        )
        return Client(parameters, cache=None, message_handler=heard)
    import httpx2

    http = httpx2.AsyncClient(headers=dict(server.headers), timeout=server.timeout)
    await stack.enter_async_context(http)
    return Client(streamable_http_client(server.url, http_client=http), cache=None, message_handler=heard)


async def _all_tools(client: Any) -> list[Any]:
    found, cursor = [], None
    for _ in range(_PAGES):
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        cursor = page.next_cursor
        if cursor is None:
            return found
    raise ToolError(f"its list of tools does not end after {_PAGES} pages")


def _text(result: Any) -> str:
    parts = []
    for block in result.content:
        text = getattr(block, "text", None) or getattr(getattr(block, "resource", None), "text", None)
        parts.append(text if text is not None else f"({block.type} content, not shown)")
    structured = getattr(result, "structured_content", None)
    if not parts and structured is not None:  # servers should give it as text as well, and not all do
        parts.append(json.dumps(structured, ensure_ascii=False))
    return "\n".join(parts) or "Done. The tool returned no value."


def _words(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):  # what the client's task groups make of one error
        error = error.exceptions[0]
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
