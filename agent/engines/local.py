"""The engine in this process: starting it, sharing it and closing it.

vLLM itself is behind :mod:`agent.engines.inprocess`, which is imported when the first engine starts: that
import takes ten seconds.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import multiprocessing
import os
import sys
import threading
import warnings
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from agent.engines.base import EngineInfo, Explained, PoolingRoute, Request, Response, StageCallback
from agent.engines.config import EngineConfig, check_names
from agent.engines.failures import start_error
from agent.engines.hub import check_hub_model
from agent.engines.loop import EngineLoop
from agent.engines.memory import freeing, large_import
from agent.errors import (
    AgentError,
    ConfigurationError,
    EngineClosedError,
    EngineDeadError,
    MissingExtraError,
)
from agent.protocols.choice import Wanted

if TYPE_CHECKING:
    from agent.engines.inprocess import InProcessServer

_LOG = logging.getLogger(__name__)

# Read by vLLM or OpenMP when they are first imported; a value that the user has set stays.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the core runs in this process: nothing can be orphaned
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # stdout is for data
    "VLLM_NO_USAGE_STATS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    # Several cards need processes, and a fork of a process with threads may wait for ever for a lock.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    # Compiled grammars are kept, and with texts to copy in it nearly every call has one of its own. xgrammar
    # counts a fifth of what they take, so vLLM's 512 would become gigabytes.
    "VLLM_XGRAMMAR_CACHE_MB": "32",
    # Spinning at OpenMP barriers makes decoding ten times slower as soon as anything else wants a core.
    "OMP_WAIT_POLICY": "PASSIVE",
}


class LocalEngine:
    """vLLM in this process, on a thread and an event loop of its own.

    Engines are shared: :func:`open_engine` gives every caller with an equal configuration the same one.

    Args:
        config: The model and the engine arguments.
        on_stage: Called with each stage of the start: importing, loading, warming up, ready.
    """

    def __init__(self, config: EngineConfig, *, on_stage: StageCallback | None = None) -> None:
        self.config = config
        self.loop = EngineLoop("vllm-front")
        self._on_stage = on_stage or (lambda stage: None)
        self._starting: asyncio.Task[EngineInfo] | None = None
        self._server: InProcessServer | None = None
        self._info: EngineInfo | None = None
        self._closed = False
        self._died = False
        _OPEN.add(self)

    @property
    def closed(self) -> bool:
        """Whether it was closed or has died, which may happen while nobody waits for an answer."""
        return self._closed or (self._server is not None and self._server.dead)

    async def start(self) -> EngineInfo:
        """Import vLLM, load the model and warm it up; later calls return at once.

        Raises:
            MissingExtraError: vLLM is not installed.
            ConfigurationError: An argument is unknown to this vLLM.
            ModelNotFoundError: There is no such model.
            DoesNotFitError: It needs more memory than there is (``force`` in the configuration overrides).
            EngineStartError: vLLM does not start; its own message follows.
            EngineClosedError: The engine was closed.
        """
        if self._closed:
            raise EngineClosedError(_CLOSED)
        if self._info is None:
            if self._starting is None or self._starting.done():
                self._starting = asyncio.create_task(self._start())
            # A caller that is cancelled does not take the start from those who wait beside it.
            return await asyncio.shield(self._starting)
        return self._info

    async def _start(self) -> EngineInfo:
        _refuse_in_a_worker()
        self._on_stage("importing")
        arguments = self.config.engine_arguments()
        wanted = Wanted(
            tool_parser=self.config.tool_parser,
            reasoning_parser=self.config.reasoning_parser,
            chat_template=self.config.chat_template,
        )
        await asyncio.to_thread(
            check_hub_model, self.config.model, download_dir=arguments.get("download_dir")
        )
        if not self.config.force:
            await asyncio.to_thread(_check_fit, arguments)
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        _quieten()
        try:
            with nullcontext() if "vllm" in sys.modules else large_import():
                from agent.engines import inprocess
        except ImportError as error:
            msg = (
                f"vLLM cannot be imported ({error}); install it with `pip install 'vllm-agent[cpu]'`, or "
                "'vllm-agent[gpu]' on a machine with an NVIDIA card"
            )
            raise MissingExtraError(msg) from error
        check_names(arguments, inprocess.engine_argument_names())
        server = inprocess.InProcessServer()
        try:
            model = server.load(arguments, wanted, self._on_stage)
            choice, problem = await server.serve(
                arguments,
                model.choice,
                {
                    "trust_request_chat_template": True,  # requests come from this process only
                    "enable_prompt_tokens_details": True,
                    "tool_strict_level": "parameter",  # arguments are decoded under their schema
                },
            )
        except Exception as error:
            server.shutdown()
            if isinstance(error, AgentError):
                raise
            raise start_error(arguments, error) from error
        except BaseException:  # closed while it was starting
            server.shutdown()
            raise
        # Exit hooks run backwards, and those of torch take away what a running engine needs.
        atexit.unregister(_close_all)
        atexit.register(_close_all)
        if problem := model.problem or problem:
            problem += _REMEDY
            _LOG.warning("%s: tools are called by the text protocol, since %s", self.config.model, problem)
        self._server = server
        self._info = EngineInfo(
            kind="in-process",
            model=self.config.model,
            max_model_len=model.max_model_len,
            parameters=await asyncio.to_thread(_parameters_of, self.config.model),
            chat_template=choice.chat_template,
            control_tokens=model.control_tokens,
            tool_parser=choice.tool_parser,
            reasoning_parser=choice.reasoning_parser,
            family=choice.family,
            tool_problem=problem,
            tasks=server.tasks,
            labels=model.labels,
            version=inprocess.version(),
        )
        self._on_stage("ready")
        return self._info

    async def chat(self, request: Request) -> Response:
        """Answer one request whole; see :class:`agent.engines.base.Engine`."""
        server = await self._ready()
        with self._watched():
            return await server.chat(request)

    async def stream_chat(self, request: Request) -> AsyncIterator[Response]:
        """Answer one request in chunks; see :class:`agent.engines.base.Engine`."""
        server = await self._ready()
        with self._watched():
            async with aclosing(server.stream_chat(request)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def complete(self, request: Request) -> Response:
        """Continue one text whole; see :class:`agent.engines.base.Engine`."""
        server = await self._ready()
        with self._watched():
            return await server.complete(request)

    async def stream_complete(self, request: Request) -> AsyncIterator[Response]:
        """Continue one text in chunks; see :class:`agent.engines.base.Engine`."""
        server = await self._ready()
        with self._watched():
            async with aclosing(server.stream_complete(request)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def render(self, request: Request) -> list[int]:
        """Return the token ids of the prompt; see :class:`agent.engines.base.Engine`."""
        return await (await self._ready()).render(request)

    async def pool(self, route: PoolingRoute, request: Request) -> Response:
        """Answer one request to a pooling model; see :class:`agent.engines.base.PoolingEngine`."""
        server = await self._ready()
        with self._watched():
            return await server.pool(route, request)

    async def explain(self, request: Request) -> Explained:
        """Return what would be given to the model; see :class:`agent.engines.base.ExplainingEngine`."""
        return await (await self._ready()).explain(request)

    def close(self) -> None:
        """Stop the engine and free its memory; callers that wait get :class:`EngineClosedError`."""
        if self._server is None:
            self._shut()
            return
        with freeing():
            server = self._shut()
        if server is not None:
            server.return_device_memory()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Notice when the engine dies, and see to it that all who wait are told so."""
        try:
            yield
        except EngineDeadError:
            self._died = self._closed = True
            raise
        except asyncio.CancelledError:
            if self._died:  # whoever was told first already opened another engine, which ended this one
                raise EngineDeadError(_DEAD) from None
            raise

    def _shut(self) -> InProcessServer | None:
        """Stop the engine; return what it was."""
        _OPEN.discard(self)
        self._closed = True
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
        self.loop.stop()
        return server

    async def _ready(self) -> InProcessServer:
        if self._server is None:
            await self.start()
        if self._closed or self._server is None:
            raise EngineClosedError(_CLOSED)
        return self._server


def _refuse_in_a_worker() -> None:
    """Stop a script that the worker processes of its own engine import from starting engines in them."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        msg = (
            "this script starts its engine as soon as it is imported, which the engine's worker processes do "
            'too: put what it does under `if __name__ == "__main__":`'
        )
        raise ConfigurationError(msg)


def _check_fit(arguments: dict[str, Any]) -> None:
    from agent.catalogue.preflight import check_fit

    check_fit(arguments)


def _parameters_of(model: str) -> int | None:
    from agent.catalogue.size import parameters_of

    return parameters_of(model)


def _quieten() -> None:
    """Keep what vLLM and torch say about themselves while they are imported off the caller's terminal."""
    logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])  # it logs before it sets this
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"vllm\b")


_REMEDY = "; give tool_parser= or chat_template= so that they fit each other, or protocol='text'"
_DEAD = "the engine died while this request was running; the next call starts a fresh one"
_CLOSED = "this engine was closed; build a new model to go on"


# -- sharing -----------------------------------------------------------------------------------------------

_OPEN: weakref.WeakSet[LocalEngine] = weakref.WeakSet()
_SHARED: dict[EngineConfig, tuple[LocalEngine, int]] = {}
_LOCK = threading.RLock()  # a model that is collected gives its engine back from wherever that happens


def open_engine(config: EngineConfig, *, on_stage: StageCallback | None = None) -> LocalEngine:
    """Return the engine of this process for ``config``, which must be given back by :func:`release_engine`.

    An engine that has died is replaced by a fresh one.
    """
    with _LOCK:
        known, _ = _SHARED.get(config, (None, 0))
        dead = _SHARED.pop(config)[0] if known is not None and known.closed else None
    if dead is not None:
        dead.close()  # frees the memory that the next one needs
    with _LOCK:
        engine, users = _SHARED.get(config) or (LocalEngine(config, on_stage=on_stage), 0)
        _SHARED[config] = (engine, users + 1)
        return engine


def release_engine(engine: LocalEngine) -> None:
    """Give an engine back; the last user closes it."""
    with _LOCK:
        shared, users = _SHARED.get(engine.config, (None, 0))
        if shared is not engine:
            return
        if users > 1:
            _SHARED[engine.config] = (engine, users - 1)
            return
        del _SHARED[engine.config]
    engine.close()


@atexit.register
def _close_all() -> None:
    for engine in list(_OPEN):
        engine._shut()


def _forget_after_fork() -> None:  # a child has none of the parent's threads, so none of its engines
    _SHARED.clear()
    _OPEN.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
