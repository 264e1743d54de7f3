"""vLLM's engine core on a thread, in the place of a process."""

from __future__ import annotations

import asyncio
import logging
import queue
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, EngineCoreRequest, FinishReason
from vllm.v1.engine import core as core_module
from vllm.v1.engine.core import EngineCore
from vllm.v1.engine.core_client import InprocClient
from vllm.v1.engine.exceptions import EngineDeadError as VLLMEngineDeadError

from agent.engines.base import StageCallback
from agent.engines.inprocess.arrivals import Arrivals
from agent.engines.memory import Trimming

logger = logging.getLogger(__name__)

_STOP = object()

GATHERING = 0.05
"""Seconds that an idle core waits at most for requests that are on their way when the first one arrives."""

_LOOK = 0.001  # seconds between two looks whether any are still on their way

_CORES: set[Any] = set()
_CORES_LOCK = threading.Lock()


class _StagedCore(EngineCore):  # type: ignore[misc]  # vLLM is untyped for mypy
    """vLLM's engine core, which says when the weights are loaded and the warm-up begins."""

    on_stage: StageCallback = staticmethod(lambda stage: None)

    def _initialize_kv_caches(self, vllm_config: Any) -> Any:
        self.on_stage("warming up")
        return super()._initialize_kv_caches(vllm_config)

    def shutdown(self) -> None:
        """Free this core's memory; only the last core ends what vLLM shares by process."""
        with _CORES_LOCK:
            _CORES.discard(self)
            if not _CORES:
                super().shutdown()
                return
            with patch.object(core_module, "cleanup_dist_env_and_memory", lambda: None):
                super().shutdown()


class ThreadCoreClient(InprocClient):  # type: ignore[misc]  # vLLM is untyped for mypy
    """The engine core on a thread, with the asynchronous client interface that ``AsyncLLM`` uses.

    Everything that touches the core is a closure in one queue, run by the thread between two steps, so the
    core needs no locks. Results go back to the front's loop.

    Attributes:
        arrivals: What an idle core waits a little for, so that calls made together start together.
    """

    engine_ranks_managed = (0,)

    def __init__(
        self, vllm_config: Any, executor_class: Any, log_stats: bool, on_stage: StageCallback
    ) -> None:
        self.resources = SimpleNamespace(engine_dead=False)
        self._loop = asyncio.get_running_loop()
        self._outputs: asyncio.Queue[EngineCoreOutputs | Exception] = asyncio.Queue()
        self._work: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._calls: set[asyncio.Future[Any]] = set()
        self.arrivals = Arrivals()
        ready = threading.Event()
        failure: list[BaseException] = []

        def serve() -> None:
            # With several cards the core has worker processes, which inherit this: Ctrl-C is for the caller.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            # The core is built on the thread that steps it: OpenMP teams belong to the thread that made them.
            try:
                core_class = type("EngineCore", (_StagedCore,), {"on_stage": staticmethod(on_stage)})
                self.engine_core = core_class(vllm_config, executor_class, log_stats)
                with _CORES_LOCK:
                    _CORES.add(self.engine_core)
                self.engine_core.model_executor.register_failure_callback(self._executor_failed)
            except BaseException as error:  # carried to the caller's thread whole
                failure.append(error)
                return
            finally:
                ready.set()
            self._serve()

        self._thread = threading.Thread(target=serve, name="vllm-core", daemon=True)
        self._thread.start()
        ready.wait()
        if failure:
            raise failure[0]

    def _executor_failed(self) -> None:
        """A worker process has ended: learn of it now, and not with the next request."""

        def fail() -> None:
            msg = "a worker process ended"
            raise RuntimeError(msg)

        self._work.put(fail)

    def _serve(self) -> None:
        trimming = Trimming()
        try:
            while self._do_work():
                if self._busy:
                    self._step()
                    trimming.at_work()
        except Exception as error:  # any failure of a step means that the engine is dead
            logger.exception("vLLM's engine core failed")
            self.resources.engine_dead = True
            self._post(VLLMEngineDeadError(), cause=error)
        finally:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._end_calls)
            self.engine_core.shutdown()

    def _end_calls(self) -> None:
        """Tell those who wait for a job that nobody does it any more."""
        for future in self._calls:
            if not future.done():
                future.set_exception(VLLMEngineDeadError())

    @property
    def _busy(self) -> bool:
        return bool(self.engine_core.scheduler.has_requests() or self.engine_core.batch_queue)

    def _do_work(self) -> bool:
        """Do what the queue holds; return whether to go on. An idle core waits for something to do."""
        idle = not self._busy
        job = self._work.get() if idle else self._next_job(until=0.0)
        until = time.monotonic() + GATHERING if idle else 0.0
        while job is not None:
            if job is _STOP:
                return False
            job()
            job = self._next_job(until=until)
        return True

    def _next_job(self, *, until: float) -> Any:
        """Return the next job; None where there is none and, till ``until``, none is on its way."""
        while True:
            with suppress(queue.Empty):
                return self._work.get_nowait()
            if not self.arrivals or time.monotonic() >= until:
                return None
            with suppress(queue.Empty):
                return self._work.get(timeout=_LOOK)

    def _step(self) -> None:
        outputs, executed = self.engine_core.step_fn()
        for output in (outputs or {}).values():
            self._post(output)
        self.engine_core.post_step(model_executed=executed)
        if not executed and self.engine_core.scheduler.has_requests():
            time.sleep(0.001)  # waiting for a grammar to compile on another thread

    def _post(self, output: EngineCoreOutputs | Exception, cause: Exception | None = None) -> None:
        if cause is not None and isinstance(output, Exception):
            output.__cause__ = cause
        if isinstance(output, EngineCoreOutputs) and not (output.outputs or output.scheduler_stats):
            return
        try:
            self._loop.call_soon_threadsafe(self._outputs.put_nowait, output)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self.resources.engine_dead = True

    # -- what AsyncLLM calls --------------------------------------------------------------------------------

    async def get_output_async(self) -> EngineCoreOutputs:
        """Wait for the results of the next step."""
        output = await self._outputs.get()
        if isinstance(output, Exception):
            raise output
        return output

    async def add_request_async(self, request: EngineCoreRequest) -> None:
        """Hand a request to the core."""
        self.arrivals.arrived()
        if self.resources.engine_dead:
            raise VLLMEngineDeadError

        def add() -> None:
            try:
                self.add_request(request)
            except Exception:  # one bad request must not take the engine down
                failed = EngineCoreOutput(request.request_id, [], finish_reason=FinishReason.ERROR)
                self._post(EngineCoreOutputs(outputs=[failed]))

        self._work.put(add)

    async def abort_requests_async(self, request_ids: list[str]) -> None:
        """Free the slots of these requests."""
        if request_ids and not self.resources.engine_dead:
            self._work.put(lambda: self.engine_core.abort_requests(request_ids))

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run ``function`` on the core's thread between two steps and return its result."""
        if self.resources.engine_dead:
            raise VLLMEngineDeadError
        future: asyncio.Future[Any] = self._loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def job() -> None:
            try:
                result, error = function(*args), None
            except Exception as caught:  # carried to the caller
                result, error = None, caught
            self._loop.call_soon_threadsafe(settle, result, error)

        self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        self._work.put(job)
        return await future

    async def get_supported_tasks_async(self) -> Any:
        """Return what the model can do: generate, embed, …"""
        return await self.call(self.engine_core.get_supported_tasks)

    async def reset_mm_cache_async(self) -> None:
        """Forget cached images."""
        await self.call(self.engine_core.reset_mm_cache)

    async def reset_prefix_cache_async(self, *args: Any) -> bool:
        """Forget cached prompts."""
        return bool(await self.call(self.engine_core.reset_prefix_cache, *args))

    def shutdown(self, timeout: float | None = None) -> None:
        """Stop the thread and free the core's memory."""
        self.resources.engine_dead = True
        self._work.put(_STOP)
        if threading.current_thread() is not self._thread:
            # Freeing takes two seconds of processor time, which are many on a busy machine.
            self._thread.join(timeout=timeout or 30)
