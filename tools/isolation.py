"""Running the body of a tool in a process of its own, which can be killed whatever it does.

The function travels by ``cloudpickle``: a decorated function cannot be found by its name, which means the
tool, and functions are often made by other functions. What it refers to travels with it or is imported
there. The process starts anew (it is no fork: a fork of a process with threads and an inference engine would
hang), has this process's ``sys.path`` and environment, and ends with the call.

Its limits are those of :mod:`tools.processes`: nothing that it starts stays behind, unless a process of its
puts itself into a session of its own (``setsid``).
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool, Tool

from tools.errors import ToolError

_MAX_RESULT = 64_000_000  # bytes
_CHILD = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from tools.isolation import child; child()"


def isolated(tool: BaseTool) -> Callable[..., Any]:
    """A coroutine function with the body's signature that runs the body of ``tool`` in a process.

    Raises:
        ToolError: The body asks for what cannot travel: the run's config or its callbacks.
    """
    body = _body(tool)
    taken = {"config", "callbacks", "run_manager"} & set(inspect.signature(body).parameters)
    if taken and isinstance(tool, StructuredTool | Tool):
        raise ToolError(
            f"{tool.name} was not run: isolation='process' cannot pass its {' and '.join(sorted(taken))}"
        )

    async def run(*args: Any, config: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        return await _run(tool.name, body, args, kwargs)

    return run


def _body(tool: BaseTool) -> Callable[..., Any]:
    if isinstance(tool, StructuredTool | Tool):
        body = tool.coroutine or tool.func
        assert body is not None
        return body
    own_async = type(tool)._arun is not BaseTool._arun
    return tool._arun if own_async else tool._run


async def _run(name: str, body: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    import json

    import cloudpickle

    from tools.processes import run_process

    try:
        work = cloudpickle.dumps((body, args, kwargs))
    except Exception as error:  # pickle, and every __reduce__ on the way, has errors of its own
        raise ToolError(
            f"{name} was not run: isolation='process', but it cannot be sent to a process ({error})"
        ) from error
    # An interpreter with options would not read the path that this one has: it is set before anything else.
    command = [sys.executable, "-c", _CHILD, json.dumps(sys.path)]
    ended = await run_process(
        command, stdin=work, max_output=_MAX_RESULT, merge_errors=False, env=dict(os.environ)
    )
    if ended.written > _MAX_RESULT:
        raise ToolError(f"{name} failed: its result has more than {_MAX_RESULT:,} bytes")
    if not ended.output:
        raise ToolError(f"{name} failed: its process ended with status {ended.status} and without a result")
    value, failure = cloudpickle.loads(ended.output)
    if failure is not None:
        raise failure
    return value


def child() -> None:
    """The other side: read the function from stdin, run it, write its result or its error to stdout."""
    import cloudpickle

    with os.fdopen(os.dup(1), "wb") as answer:
        os.dup2(2, 1)  # what the tool prints must not be taken for the answer
        result: tuple[Any, BaseException | None]
        try:
            body, args, kwargs = cloudpickle.loads(sys.stdin.buffer.read())
            value = body(*args, **kwargs)
            result = (asyncio.run(_awaited(value)) if inspect.isawaitable(value) else value, None)
        except BaseException as error:
            result = (None, error)
        answer.write(_packed(result))


async def _awaited(value: Any) -> Any:
    return await value


def _packed(result: tuple[Any, BaseException | None]) -> bytes:
    """The result pickled; what cannot be sent back goes as text, as the model would have seen it."""
    import cloudpickle

    value, error = result
    with contextlib.suppress(Exception):
        data: bytes = cloudpickle.dumps(result)
        cloudpickle.loads(data)  # exceptions often can be pickled and not read again
        return data
    if error is not None:
        text = f"{type(error).__name__}: {error}"
        return cloudpickle.dumps((None, ToolError(text)))  # type: ignore[no-any-return]
    from tools.rendering import render

    return cloudpickle.dumps((render(value), None))  # type: ignore[no-any-return]
