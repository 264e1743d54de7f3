"""Executing one tool call: whatever the tool does, an outcome comes back.

A graph's tool node calls :func:`acall` (or :func:`call` from sync code) once per tool call. The tool is any
LangChain tool; its policy decides about time, retries, approval and the size of the result. A failure becomes
a message from which a model can mend its call. Tracebacks go to the log, never to the model.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.messages.tool import ToolOutputMixin
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, ToolException

from tools.arguments import check_arguments, closest
from tools.attempt import Attempt, Escape
from tools.errors import (
    ToolApprovalError,
    ToolError,
    ToolExitError,
    ToolInputError,
    ToolTimeoutError,
    UnknownToolError,
)
from tools.policy import ToolPolicy, always_asks, policy_of
from tools.private_loop import PRIVATE_LOOP, at_once
from tools.reflection import hide_config
from tools.rendering import clean, cut, render, storable

logger = logging.getLogger(__name__)

_LONGEST_BACKOFF = 30.0  # seconds
_ERROR_TEXT = 2000  # characters of an error that the model sees
_WHOLE, _OWN = "whole_output", "artifact"  # keys of the artifact of a message whose content was cut


@dataclass(frozen=True, kw_only=True)
class ToolOutcome:
    """What became of one tool call."""

    outputs: tuple[Any, ...]
    """What a graph node writes: one ``ToolMessage``, or the LangGraph commands that the tool returned."""

    error: BaseException | None = None
    """Why it failed, ``None`` if it did not. The message for the model is in ``outputs`` in both cases."""

    attempts: int = 1
    """How often the tool was run; 0 if it never was (bad arguments, no approval, no such tool)."""

    seconds: float = 0.0
    """Time from the call to its outcome, retries and waiting included."""

    @property
    def ok(self) -> bool:
        """Whether the tool did what was asked."""
        return self.error is None

    @property
    def message(self) -> ToolMessage | None:
        """The message that answers the call; ``None`` if the tool answered with commands alone."""
        return next((output for output in self.outputs if isinstance(output, ToolMessage)), None)


async def acall(
    tool: BaseTool,
    call: ToolCall,
    *,
    policy: ToolPolicy | None = None,
    config: RunnableConfig | None = None,
    injected: Mapping[str, Any] | None = None,
    approved: bool = False,
    propagate: tuple[type[BaseException], ...] = (),
) -> ToolOutcome:
    """Run one tool call under its policy.

    Args:
        tool: Any LangChain tool. Async tools run in the caller's loop, sync ones in a thread of their own
            with the caller's context variables.
        call: The model's call; its arguments are checked against the tool's schema and never changed.
        policy: In the place of the tool's own.
        config: The runnable config for callbacks and for tools that ask for it.
        injected: Values for arguments that the tool's schema hides from the model.
        approved: Whether a person approved this call; counts only where the policy asks for it.
        propagate: Exceptions that are not failures and pass through, such as LangGraph's ``GraphBubbleUp``.

    Returns:
        The outcome, also for every failure of the tool.

    Raises:
        asyncio.CancelledError: The calling task was cancelled; an async tool is then cancelled too.
        BaseException: One of ``propagate``, as the tool raised it.
    """
    return await _run(
        tool, call, policy or policy_of(tool), config, injected, approved=approved, propagate=propagate
    )


async def _run(
    tool: BaseTool,
    call: ToolCall,
    policy: ToolPolicy,
    config: RunnableConfig | None,
    injected: Mapping[str, Any] | None,
    *,
    approved: bool,
    propagate: tuple[type[BaseException], ...],
    blocking: bool = False,
) -> ToolOutcome:
    started = time.monotonic()
    attempts = 0
    try:
        _admit(tool, call, policy, approved)
        while True:
            attempts += 1
            payload = _payload(tool, call, injected)
            try:
                result = await Attempt(tool, policy).run(payload, config, blocking=blocking)
                return _finished(_outputs(result, payload, policy), attempts, started)
            except Exception as error:
                if isinstance(error, propagate) or not _worth_a_retry(error, policy, attempts):
                    raise
                logger.info("tool %s, attempt %d of %d: %r", tool.name, attempts, policy.retries + 1, error)
            pause = min(policy.backoff * 2 ** (attempts - 1), _LONGEST_BACKOFF)
            if blocking:
                time.sleep(pause)  # noqa: ASYNC251  # there is no loop to hold up
            else:
                await asyncio.sleep(pause)
    except Exception as error:
        cause = error.original if isinstance(error, Escape) else error
        if isinstance(cause, propagate):
            raise cause from cause.__cause__
        return _failed(call, _translated(cause, tool), attempts, started)


def call(
    tool: BaseTool,
    call: ToolCall,
    *,
    policy: ToolPolicy | None = None,
    config: RunnableConfig | None = None,
    injected: Mapping[str, Any] | None = None,
    approved: bool = False,
    propagate: tuple[type[BaseException], ...] = (),
) -> ToolOutcome:
    """Run one tool call from sync code; see :func:`acall` for everything else.

    A sync tool runs in a thread, as there, for which the calling one waits. All others run on one private
    event loop, so that a connection which an async tool keeps stays usable from call to call, and so that
    this also works where a loop is already running, as in a notebook.

    Raises:
        ToolError: Called from that loop itself, which would wait for itself; an async tool uses ``acall``.
    """
    policy = policy or policy_of(tool)
    blocking = not Attempt(tool, policy).needs_loop
    if blocking:
        PRIVATE_LOOP.refuse_itself()
    work = _run(
        tool,
        call,
        policy,
        config,
        injected,
        approved=approved,
        propagate=propagate,
        blocking=blocking,
    )
    return at_once(work) if blocking else PRIVATE_LOOP.run(work)


def unknown_tool(call: ToolCall, known: Iterable[str]) -> ToolOutcome:
    """The outcome of a call of a tool that does not exist."""
    names = sorted(known)
    there_are = f"Tools: {', '.join(names)}." if names else "There are no tools at all."
    error = UnknownToolError(f"There is no tool {call['name']!r}.{closest(call['name'], names)} {there_are}")
    return _failed(call, error, 0, time.monotonic())


def whole_output(message: ToolMessage) -> Any:
    """The content of a tool message before it was cut to the policy's ``max_output``."""
    artifact = message.artifact
    cut_off = isinstance(artifact, dict) and artifact.keys() == {_WHOLE, _OWN}
    return artifact[_WHOLE] if cut_off else message.content


def _admit(tool: BaseTool, call: ToolCall, policy: ToolPolicy, approved: bool) -> None:
    hide_config(tool)
    check_arguments(tool, call["args"])
    if (policy.approval or always_asks(tool)) and not approved:
        raise ToolApprovalError(
            f"{tool.name} was not run: it needs a person's approval, and nobody approved this call."
        )


def _worth_a_retry(error: Exception, policy: ToolPolicy, attempts: int) -> bool:
    if attempts > policy.retries or isinstance(error, Escape | ToolInputError):
        return False
    if isinstance(error, ToolTimeoutError) and not policy.idempotent:
        return False
    return isinstance(error, policy.retry_on)


def _payload(tool: BaseTool, call: ToolCall, injected: Mapping[str, Any] | None) -> ToolCall:
    """The call as the tool gets it: a tool that changes its arguments must not change the conversation."""
    arguments = copy.deepcopy(call["args"]) | dict(injected or {})
    # LangChain takes a call without an id for a plain dictionary of arguments.
    return ToolCall(name=tool.name, args=arguments, id=call.get("id") or "", type="tool_call")


def _outputs(result: Any, call: ToolCall, policy: ToolPolicy) -> tuple[Any, ...]:
    """What the graph gets: commands as they are, messages made safe and tied to the call that they answer."""
    several = (
        isinstance(result, list) and result and all(isinstance(item, ToolOutputMixin) for item in result)
    )
    return tuple(
        item
        if isinstance(item, ToolOutputMixin) and not isinstance(item, ToolMessage)
        else _safe_message(item, call, policy)
        for item in (result if several else [result])
    )


def _safe_message(result: Any, call: ToolCall, policy: ToolPolicy) -> ToolMessage:
    is_message = isinstance(result, ToolMessage)
    content = render(result.content if is_message else result)
    artifact = storable(result.artifact) if is_message else None
    shorter = cut(content, policy.max_output)
    if shorter is not None:
        content, artifact = shorter, {_WHOLE: content, _OWN: artifact}
    changes = {"content": content, "artifact": artifact, "tool_call_id": call["id"], "name": call["name"]}
    return result.model_copy(update=changes) if is_message else ToolMessage(**changes)


def _finished(outputs: tuple[Any, ...], attempts: int, started: float) -> ToolOutcome:
    """The outcome of a tool that returned; it may still have reported an error of its own."""
    reported = next(
        (item for item in outputs if isinstance(item, ToolMessage) and item.status == "error"), None
    )
    error = ToolError(reported.text) if reported is not None else None
    return ToolOutcome(outputs=outputs, error=error, attempts=attempts, seconds=time.monotonic() - started)


def _failed(call: ToolCall, error: BaseException, attempts: int, started: float) -> ToolOutcome:
    name = call["name"]
    expected = isinstance(error, ToolError | ToolException)
    if expected:
        logger.info("tool %s: %s", name, error)
    else:
        logger.warning("tool %s failed", name, exc_info=error)
    text = clean(
        _message_of(error) if isinstance(error, ToolError) else f"{name} failed: {_message_of(error)}"
    )
    if len(text) > _ERROR_TEXT:
        text = text[: _ERROR_TEXT - 1] + "…"
    message = ToolMessage(text, tool_call_id=call.get("id") or "", name=name, status="error")
    return ToolOutcome(outputs=(message,), error=error, attempts=attempts, seconds=time.monotonic() - started)


def _translated(error: BaseException, tool: BaseTool) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]  # the group that a TaskGroup puts around the one error that matters
    if isinstance(error, SystemExit | KeyboardInterrupt):
        translated: ToolError = ToolExitError(f"{tool.name} failed: it tried to end the program ({error!r}).")
    elif isinstance(error, asyncio.CancelledError):
        translated = ToolError(f"{tool.name} failed: it cancelled itself.")
    else:
        return error
    translated.__cause__ = error
    return translated


def _message_of(error: BaseException) -> str:
    """The error in words for a model: its type tells what went wrong where the message is only a key."""
    try:
        text = str(error)
    except Exception:  # a __str__ that fails must not hide the first error
        text = ""
    kind = type(error).__name__
    if isinstance(error, ToolError | ToolException):
        return text or kind
    return f"{kind}: {text}" if text else kind
