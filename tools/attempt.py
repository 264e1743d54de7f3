"""One attempt to run a tool: where it runs, how long it may, and what cannot get out of it.

The body of the tool is run inside a guard, on a copy of the tool that lives for one attempt. The guard is
needed because LangChain runs an async body in a task of its own: a ``SystemExit`` there would tear down the
event loop of the whole process. It also gets hold of the result before LangChain has turned it into text.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import threading
from collections.abc import Awaitable, Callable
from queue import Empty, SimpleQueue
from typing import Any

from langchain_core.messages import ToolCall
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool, Tool
from pydantic import ValidationError

from tools.arguments import input_error, validation_problems
from tools.errors import ToolBusyError, ToolTimeoutError
from tools.isolation import isolated
from tools.policy import ToolPolicy
from tools.reflection import ready, stands_for
from tools.rendering import render
from tools.slots import slots_of
from tools.threads import Result, StoppableThread

logger = logging.getLogger(__name__)

_GRACE = 2.0  # seconds that a cancelled tool gets to clean up
_THREAD_GRACE = 0.5  # seconds in which a thread that can be stopped does

_abandoned: set[asyncio.Task[Any]] = set()  # a task that nobody refers to may be collected while it runs


class Escape(Exception):
    """Carries something that is not an ``Exception`` (``SystemExit``, …) past the event loop."""

    def __init__(self, original: BaseException) -> None:
        super().__init__(repr(original))
        self.original = original


class Attempt:
    """Runs a tool once."""

    def __init__(self, tool: BaseTool, policy: ToolPolicy) -> None:
        self._tool = tool
        self._policy = policy
        self._isolated = policy.isolation == "process"
        self._entered = False  # whether the tool's body was reached, or only its arguments were validated

    @property
    def needs_loop(self) -> bool:
        """Whether the tool, or the queue for its slots, can only be awaited."""
        return self._isolated or _is_async(self._tool) or self._policy.concurrency is not None

    async def run(self, call: ToolCall, config: RunnableConfig | None, *, blocking: bool = False) -> Any:
        """Run the tool and give back what its ``invoke`` does.

        Args:
            call: What the tool is given.
            config: For callbacks.
            blocking: Hold the calling thread up in the place of awaiting; not where :attr:`needs_loop`.

        Raises:
            ToolTimeoutError: The policy's time is over.
            ToolBusyError: No slot became free in that time.
            ToolInputError: The tool's own validators refused the arguments.
            Escape: The tool raised something that is not an ``Exception``.
            Exception: Whatever else the tool raised.
        """
        try:
            if blocking:
                return self._blocking(self._guarded(), call, config)
            guarded = self._guarded()
            release = await self._take_slot()
            in_loop = self._isolated or _is_async(self._tool)
            run = self._in_loop if in_loop else self._in_thread
            return await run(guarded, call, config, release)
        except ValidationError as error:
            if self._entered:
                raise
            raise input_error(self._tool, validation_problems(error)) from error

    async def _take_slot(self) -> Callable[[], None]:
        limit = self._policy.concurrency
        if limit is None:
            return lambda: None
        slots = slots_of(self._tool.name)
        try:
            async with asyncio.timeout(self._policy.timeout):
                await slots.acquire(limit)
        except TimeoutError:
            raise ToolBusyError(
                f"{self._tool.name} was not run: {limit} of its calls are running, which is all that is "
                f"allowed, and none ended within {self._policy.timeout:g} s. Try again later."
            ) from None
        return slots.release

    async def _in_loop(
        self, tool: BaseTool, call: ToolCall, config: RunnableConfig | None, release: Callable[[], None]
    ) -> Any:
        task = asyncio.create_task(tool.ainvoke(call, config))
        task.add_done_callback(lambda _: release())
        try:
            done, _ = await asyncio.wait({task}, timeout=self._policy.timeout)
            if not done:
                task.cancel()
                await asyncio.wait({task}, timeout=_GRACE)
        except asyncio.CancelledError:
            task.cancel()
            _abandon(task)
            raise
        if done:
            return _result_of(task)
        if task.done():
            if not task.cancelled() and task.exception() is None:
                return task.result()  # in the last moment: what it did is done
            _abandon(task)
            raise ToolTimeoutError(self._late("it was stopped"))
        _abandon(task)
        raise ToolTimeoutError(self._late("it ignores being cancelled, so it may still be running"))

    async def _in_thread(
        self, tool: BaseTool, call: ToolCall, config: RunnableConfig | None, release: Callable[[], None]
    ) -> Any:
        loop = asyncio.get_running_loop()
        finished: asyncio.Future[Result] = loop.create_future()

        def settle(result: Result) -> None:
            if not finished.done():
                finished.set_result(result)

        def deliver(result: Result) -> None:
            release()
            try:
                loop.call_soon_threadsafe(settle, result)
            except RuntimeError:
                logger.debug("tool %s ended after its event loop was closed", self._tool.name)

        try:
            thread = self._thread(tool, call, config, deliver)
        except RuntimeError:  # the system has no thread left
            release()
            raise
        try:
            done, _ = await asyncio.wait({finished}, timeout=self._policy.timeout)
            if not done:
                thread.stop()
                await asyncio.wait({finished}, timeout=_THREAD_GRACE)
        except asyncio.CancelledError:
            thread.stop()
            raise
        if not finished.done():
            finished.cancel()
            raise self._stuck()
        return self._settled(finished.result(), stopped=not done)

    def _blocking(self, tool: BaseTool, call: ToolCall, config: RunnableConfig | None) -> Any:
        ended: SimpleQueue[Result] = SimpleQueue()
        thread = self._thread(tool, call, config, ended.put)
        timeout = self._policy.timeout
        stopped = False
        try:
            try:
                result = ended.get(timeout=None if timeout is None else min(timeout, threading.TIMEOUT_MAX))
            except Empty:
                stopped = True
                thread.stop()
                result = ended.get(timeout=_THREAD_GRACE)
        except Empty:
            raise self._stuck() from None
        except BaseException:  # Ctrl-C while waiting: the tool must not go on unseen
            thread.stop()
            raise
        return self._settled(result, stopped=stopped)

    def _thread(
        self,
        tool: BaseTool,
        call: ToolCall,
        config: RunnableConfig | None,
        deliver: Callable[[Result], None],
    ) -> StoppableThread:
        # Not an executor: its threads are joined when the process ends, and a hanging tool would stop that.
        work = functools.partial(contextvars.copy_context().run, tool.invoke, call, config)
        return StoppableThread(work, deliver, name=f"tool-{tool.name}")

    def _settled(self, result: Result, *, stopped: bool) -> Any:
        value, error = result
        if error is None:  # perhaps in the last moment: what it did is done
            return value
        if stopped:
            raise ToolTimeoutError(self._late("it was stopped"))
        raise error if isinstance(error, Exception) else Escape(error)

    def _stuck(self) -> ToolTimeoutError:
        return ToolTimeoutError(
            self._late(
                "it waits for something and cannot be stopped, so it may still be running and take effect"
            )
        )

    def _late(self, fate: str) -> str:
        return f"{self._tool.name} did not finish within {self._policy.timeout:g} s; {fate}."

    def _guarded(self) -> BaseTool:
        """A copy whose body runs inside the guard; the methods of the copy go before those of its class."""
        guarded = ready(self._tool)
        # A body of the tool's own may keep something in the tool, which a copy would lose.
        of_langchain = type(self._tool)._run in (StructuredTool._run, Tool._run)
        guarded.__dict__["_run"] = self._guard((guarded if of_langchain else self._tool)._run)
        body = isolated(self._tool) if self._isolated else self._tool._arun
        guarded.__dict__["_arun"] = self._aguard(body)
        if self._isolated and isinstance(guarded, StructuredTool | Tool):
            guarded.__dict__["coroutine"] = body  # without one, LangChain takes the other way
        return guarded

    def _guard(self, body: Callable[..., Any]) -> Callable[..., Any]:
        @stands_for(body)
        def run(*args: Any, **kwargs: Any) -> Any:
            self._entered = True
            try:
                return self._render(body(*args, **kwargs))
            except Exception:
                raise
            except BaseException as error:
                raise Escape(error) from error

        return run

    def _aguard(self, body: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @stands_for(body)
        async def run(*args: Any, **kwargs: Any) -> Any:
            self._entered = True
            try:
                return self._render(await body(*args, **kwargs))
            except (Exception, asyncio.CancelledError, GeneratorExit):
                raise
            except BaseException as error:
                raise Escape(error) from error

        return run

    def _render(self, result: Any) -> Any:
        if self._tool.response_format == "content":
            return render(result)
        if isinstance(result, tuple) and len(result) == 2:
            return render(result[0]), result[1]
        return result  # LangChain says what is wrong with it


def _is_async(tool: BaseTool) -> bool:
    """Whether the tool has an async body of its own, and not only the default that uses a thread."""
    if isinstance(tool, StructuredTool | Tool) and type(tool)._arun in (StructuredTool._arun, Tool._arun):
        return tool.coroutine is not None
    return type(tool)._arun is not BaseTool._arun


def _result_of(task: asyncio.Task[Any]) -> Any:
    try:
        return task.result()
    except asyncio.CancelledError as error:  # by the tool itself: nobody cancelled the caller
        raise Escape(error) from error


def _abandon(task: asyncio.Task[Any]) -> None:
    """Keep a task until it ends, and look at its error, or asyncio complains that nobody did."""
    _abandoned.add(task)
    task.add_done_callback(_forget)


def _forget(task: asyncio.Task[Any]) -> None:
    _abandoned.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.debug("a cancelled tool ended with %r", error)
