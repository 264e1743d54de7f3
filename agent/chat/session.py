"""A model's hold on its engine: opened on first use, shared, given back once.

All copies of a model (``bind_tools``, ``with_config``, …) share one session.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from agent.engines.base import Engine, EngineInfo
from agent.engines.local import LocalEngine, release_engine
from agent.engines.loop import EngineLoop
from agent.errors import ConfigurationError, EngineClosedError, EngineDeadError
from agent.formats.content import ContentAsData
from agent.formats.text.engine import TextToolEngine
from agent.formats.text.unaided import needs_help

Opener: TypeAlias = Callable[[], Engine]


class Session:
    """Opens an engine on first use, puts the model's tool protocol on it, and gives it back.

    Args:
        opener: Returns an engine; called again after the engine died.
        protocol: ``"native"``, ``"text"`` or ``"auto"``.
        given: Whether the engine is the caller's, who may go on with it when the model is collected.
    """

    def __init__(self, opener: Opener, protocol: str, *, given: bool = False) -> None:
        self._opener = opener
        self._protocol = protocol
        self._given = given
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._closed = False
        self._release: Callable[[], object] | None = None

    def engine(self) -> Engine:
        """Return the engine, opened (but perhaps not yet started).

        Raises:
            EngineClosedError: :meth:`close` was called.
        """
        with self._lock:
            if self._closed:
                msg = "this model was closed; build a new one to go on"
                raise EngineClosedError(msg)
            if self._engine is None or (self._engine.closed and isinstance(self._engine, LocalEngine)):
                self._engine = self._opener()
                self._release = self._releasing(self._engine)
            return self._engine

    def _releasing(self, engine: Engine) -> Callable[[], object]:
        if self._given:
            return partial(_give_back, engine)
        release = weakref.finalize(self, _give_back, engine)
        release.atexit = False  # engines close themselves at exit
        return release

    @property
    def loop(self) -> EngineLoop:
        """The engine's own loop."""
        return self.engine().loop

    async def loop_from_afar(self) -> EngineLoop:
        """The engine's own loop, for a caller on another one, which must not wait while an engine is opened.

        Opening one reads files, fetches a model that is missing, and frees an engine that has died.
        """
        known = self._engine
        if known is None or known.closed:
            return (await asyncio.to_thread(self.engine)).loop
        return self.loop

    async def started(self) -> tuple[Engine, EngineInfo]:
        """Start the engine and return it with what is known of it. Must run on the engine's loop."""
        engine = self.engine()
        if not engine.loop.is_current:
            msg = "the engine died while this call was on its way; the next call starts a fresh one"
            raise EngineDeadError(msg)
        return engine, await engine.start()

    async def ready(self) -> tuple[Engine, EngineInfo, str]:
        """Start the engine and return it with tool calling, what is known of it, and the protocol's name.

        Must run on the engine's loop.
        """
        engine, info = await self.started()
        protocol = self._protocol
        if protocol == "auto":
            protocol = "native" if info.tool_parser else "text"
        elif protocol == "native" and info.kind in ("in-process", "warm") and not info.tool_parser:
            msg = (
                "protocol='native' needs a chat template that takes tools in a known format, and "
                f"{info.model} has none; use protocol='text', or give chat_template= and tool_parser="
            )
            if info.tool_problem:
                msg = f"protocol='native' cannot be used with {info.model}: {info.tool_problem}"
            raise ConfigurationError(msg)
        safe = ContentAsData(engine, info)
        if protocol == "text":
            return TextToolEngine(safe, helped=needs_help(info.parameters)), info, protocol
        return safe, info, protocol

    def close(self) -> None:
        """Give the engine back; the last model on it frees its memory. May be called twice."""
        with self._lock:
            self._closed = True
            if self._release is not None:
                self._release()
            self._engine = None


def _give_back(engine: Engine) -> None:
    if isinstance(engine, LocalEngine):
        release_engine(engine)
    else:
        engine.close()
