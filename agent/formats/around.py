"""An engine around an engine: what the protocols are put on models with."""

from __future__ import annotations

from collections.abc import AsyncIterator

from agent.engines.base import Engine, EngineInfo, Request, Response
from agent.engines.loop import EngineLoop


class EngineAround:
    """Passes everything on to the engine below; a subclass changes what it is about.

    Args:
        engine: The engine below.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def loop(self) -> EngineLoop:
        """The loop of the engine below."""
        return self._engine.loop

    @property
    def closed(self) -> bool:
        """Whether the engine below is closed."""
        return self._engine.closed

    async def start(self) -> EngineInfo:
        """Start the engine below."""
        return await self._engine.start()

    async def chat(self, request: Request) -> Response:
        """Answer one request whole; see :class:`agent.engines.base.Engine`."""
        return await self._engine.chat(request)

    def stream_chat(self, request: Request) -> AsyncIterator[Response]:
        """Answer one request in chunks; see :class:`agent.engines.base.Engine`."""
        return self._engine.stream_chat(request)

    async def complete(self, request: Request) -> Response:
        """Continue one text whole; see :class:`agent.engines.base.Engine`."""
        return await self._engine.complete(request)

    def stream_complete(self, request: Request) -> AsyncIterator[Response]:
        """Continue one text in chunks; see :class:`agent.engines.base.Engine`."""
        return self._engine.stream_complete(request)

    async def render(self, request: Request) -> list[int]:
        """Return the token ids of the prompt; see :class:`agent.engines.base.Engine`."""
        return await self._engine.render(request)

    def close(self) -> None:
        """Close the engine below."""
        self._engine.close()
