"""A server kept warm, as an engine: found or started with the first call, and again whenever it has gone."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.catalogue.cache import cache_root
from agent.engines.base import EngineInfo, Explained, Request, Response, StageCallback
from agent.engines.loop import EngineLoop
from agent.engines.remote import RemoteEngine
from agent.engines.remote.connection import UnreachableError
from agent.errors import EngineClosedError, EngineDeadError
from agent.serving import life, warm
from agent.serving.flags import check_arguments, flags_file
from agent.serving.order import OWN_NAMES, ServerOrder, order_from_arguments
from agent.serving.records import ServerDirectory, ServerRecord

KIND = "warm"
"""``EngineInfo.kind`` of this engine."""


class WarmEngine:
    """vLLM in a process of its own, which outlives this one and serves the next.

    It answers as :class:`~agent.engines.local.LocalEngine` does. A server that has stopped since the last
    call, or was killed, is started again; a call that it was working on is an error, since nobody knows how
    far it was.

    Args:
        order: The server that is wanted.
        directory: Where this user's servers are noted.
        cache: The directory of this package's caches.
        on_stage: Told about each stage of a start.
    """

    def __init__(
        self,
        order: ServerOrder,
        directory: ServerDirectory,
        *,
        cache: Path,
        on_stage: StageCallback | None = None,
    ) -> None:
        self.order = order
        self.loop = EngineLoop("vllm-warm")
        self._directory = directory
        self._cache = cache
        self._on_stage = on_stage or (lambda stage: None)
        self._lock: asyncio.Lock | None = None
        self._record: ServerRecord | None = None
        self._remote: RemoteEngine | None = None
        self._info: EngineInfo | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    @property
    def record(self) -> ServerRecord | None:
        """The server, once it was found."""
        return self._record

    async def start(self) -> EngineInfo:
        """Find the server or start it; later calls return at once while it lives.

        Raises:
            DoesNotFitError: The model needs more memory than there is.
            EngineStartError: The server ended, and why.
            EngineClosedError: The engine was closed.
        """
        await self._ready()
        assert self._info is not None
        return self._info

    async def chat(self, request: Request) -> Response:
        """Answer one request whole; see :class:`agent.engines.base.Engine`."""
        return await self._whole("chat", request)

    async def complete(self, request: Request) -> Response:
        """Continue one text whole; see :class:`agent.engines.base.Engine`."""
        return await self._whole("complete", request)

    async def stream_chat(self, request: Request) -> AsyncIterator[Response]:
        """Answer one request in chunks; see :class:`agent.engines.base.Engine`."""
        async with aclosing(self._streamed("stream_chat", request)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def stream_complete(self, request: Request) -> AsyncIterator[Response]:
        """Continue one text in chunks; see :class:`agent.engines.base.Engine`."""
        async with aclosing(self._streamed("stream_complete", request)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def render(self, request: Request) -> list[int]:
        """Return the token ids of the prompt; see :class:`agent.engines.base.Engine`."""
        return await (await self._ready()).render(request)

    async def explain(self, request: Request) -> Explained:
        """Return what would be given to the model; see :class:`agent.engines.base.ExplainingEngine`."""
        return await (await self._ready()).explain(request)

    def close(self) -> None:
        """Let the server go; it runs on for others, until it is idle for long enough."""
        self._closed = True
        if self._remote is not None:
            self._remote.close()
        self.loop.stop()

    # -- the server -----------------------------------------------------------------------------------------

    async def _ready(self) -> RemoteEngine:
        self._lock = self._lock or asyncio.Lock()
        async with self._lock:
            self._check_open()
            if self._remote is not None and self._record is not None and life.running(self._record):
                return self._remote
            await self._drop()
            self._record = await self._found()
            self._check_open()
            info = warm.facts(self._record, self._directory)
            self._remote = RemoteEngine(
                self._record.url,
                api_key=self._record.keys[0] if self._record.keys else None,
                info=info,
                loop=self.loop,
            )
            self._info = replace(info or await self._remote.start(), kind=KIND)
            return self._remote

    async def _found(self) -> ServerRecord:
        """Find or start the server on a thread that nobody waits for at the end of the process."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[ServerRecord] = loop.create_future()

        def work() -> None:
            try:
                found = warm.ensure(
                    self.order,
                    self._directory,
                    cache=self._cache,
                    shown=lambda stage: self._on_stage(str(stage)),
                )
            except BaseException as error:  # carried to the loop
                _settle(loop, future, None, error)
            else:
                _settle(loop, future, found, None)

        threading.Thread(target=work, name="server-start", daemon=True).start()
        return await future

    async def _whole(self, name: str, request: Request) -> Response:
        remote = None
        try:
            remote = await self._ready()
            answer: Response = await getattr(remote, name)(request)
        except EngineDeadError as error:
            answer = await getattr(await self._again(error, of=remote), name)(request)
        return answer

    async def _streamed(self, name: str, request: Request) -> AsyncGenerator[Response]:
        begun, remote = False, None
        try:
            remote = await self._ready()
            async with aclosing(getattr(remote, name)(request)) as chunks:
                async for chunk in chunks:
                    begun = True
                    yield chunk
            return
        except EngineDeadError as error:
            if begun:
                raise self._died(error) from error
            remote = await self._again(error, of=remote)
        async with aclosing(getattr(remote, name)(request)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _again(self, error: EngineDeadError, *, of: RemoteEngine | None) -> RemoteEngine:
        """The server once more, where it is certain that it never saw the request."""
        if of is None or of is self._remote:  # else others work on a new one already
            await self._drop()
        if not isinstance(error.__cause__, UnreachableError):
            raise self._died(error) from error
        return await self._ready()

    async def _drop(self) -> None:
        remote, self._remote = self._remote, None
        if remote is not None:
            await remote.aclose()

    def _died(self, error: EngineDeadError) -> EngineDeadError:
        log = self._directory.log(self._record.id) if self._record else ""
        return EngineDeadError(
            f"the server died while this request was running; the next call starts a fresh one "
            f"({error.__cause__ or error}; its log: {log})"
        )

    def _check_open(self) -> None:
        if self._closed:
            raise EngineClosedError("this engine was closed; build a new model to go on")


def warm_engine(
    model: str | None,
    arguments: Mapping[str, Any],
    *,
    idle_minutes: float,
    directory: ServerDirectory,
    on_stage: StageCallback | None = None,
) -> WarmEngine:
    """The engine of a command that keeps its model warm.

    Args:
        model: Directory or hub id; None for the embedded model.
        arguments: Engine arguments, as of :meth:`~agent.engines.config.EngineConfig.create`.
        idle_minutes: For how long a server that is started here stays without being asked anything.
        directory: Where this user's servers are noted.
        on_stage: Told about each stage of a start.

    Raises:
        ConfigurationError: vLLM has no such argument.
        ModelNotFoundError: ``model`` is neither a directory nor a possible hub id.
    """
    if model is None:
        from agent.catalogue.embedded import embedded_model

        model, arguments = str(embedded_model()), {"dtype": "float32", **arguments}  # as in this process
    check_arguments((name for name in arguments if name not in OWN_NAMES), flags_file(cache_root()))
    order = order_from_arguments(
        model,
        arguments,
        warm=True,
        idle_minutes=idle_minutes,
        keys=(secrets.token_urlsafe(),),  # other users of this machine cannot ask it
    )
    return WarmEngine(order, directory, cache=cache_root(), on_stage=on_stage)


def _settle(
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[ServerRecord],
    found: ServerRecord | None,
    error: BaseException | None,
) -> None:
    def settle() -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        elif found is not None:
            future.set_result(found)

    with suppress(RuntimeError):  # the loop was closed: nobody waits any more
        loop.call_soon_threadsafe(settle)
