"""How a tool may be run, as one frozen record per tool.

The record says what is allowed; :mod:`tools.execution` makes it so. A policy travels with its tool in the
tool's ``metadata``, so that it survives copies and works for any LangChain tool, whoever wrote it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from langchain_core.tools import BaseTool

from tools.errors import ToolPolicyError, ToolTimeoutError

_METADATA_KEY = "tool_policy"
_ALWAYS_ASKS = "tool_always_asks"
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "timeout": ((int, float, type(None)), "seconds, or None for no limit"),
    "retries": ((int,), "a whole number"),
    "backoff": ((int, float), "seconds"),
    "idempotent": ((bool,), "true or false"),  # the text "false" would count as true
    "approval": ((bool,), "true or false"),
    "concurrency": ((int, type(None)), "a whole number, or None for no limit"),
    "max_output": ((int,), "a whole number"),
}


@dataclass(frozen=True, kw_only=True)
class ToolPolicy:
    """Limits and permissions of one tool.

    Raises:
        ToolPolicyError: A value is out of range, or two fields contradict each other.
    """

    timeout: float | None = 60.0
    """Seconds that one attempt may take; ``None`` for no limit. Async tools are cancelled; tools in a process
    of their own are killed with all that they started. A thread is stopped at its next step in Python code;
    one that waits inside a call cannot be, is given up on, and never blocks the end of the process."""

    isolation: Literal["none", "process"] = "none"
    """``"process"`` runs each call in a new process, which can be stopped whatever it does and cannot take
    this one down. That costs a second or so, and function, arguments and result must be such that they can
    be pickled."""

    retries: int = 0
    """How often a failed call is tried again, when it failed with one of ``retry_on``."""

    retry_on: tuple[type[Exception], ...] = ()
    """The errors after which trying again makes sense, for example ``(ConnectionError,)``. An attempt that
    ran into ``timeout`` is tried again only where the tool is idempotent, since it may still take effect."""

    backoff: float = 0.5
    """Seconds before the first retry; each further one waits twice as long, 30 s at most."""

    idempotent: bool = False
    """Whether running the same call twice does no harm. After a crash, a call whose outcome is unknown is run
    again only if this is true."""

    approval: bool = False
    """Whether a person must approve each call. A call that nobody approved is refused, never run."""

    concurrency: int | None = None
    """How many calls of tools of this name may run at once in this process; ``None`` for no limit. A sync
    call that was given up on keeps its place until its thread has really ended."""

    max_output: int = 10_000
    """Characters of a result that the model sees. What is cut off is kept in the message's artifact."""

    def __post_init__(self) -> None:
        for name, (kinds, words) in _KINDS.items():
            if not isinstance(getattr(self, name), kinds):
                raise ToolPolicyError(f"{name}={getattr(self, name)!r}: must be {words}")
        if self.timeout is not None and not (self.timeout > 0 and math.isfinite(self.timeout)):
            raise ToolPolicyError(f"timeout={self.timeout!r}: must be positive seconds, or None for no limit")
        if self.retries < 0:
            raise ToolPolicyError(f"retries={self.retries!r}: must be 0 or more")
        if not (self.backoff >= 0 and math.isfinite(self.backoff)):
            raise ToolPolicyError(f"backoff={self.backoff!r}: must be 0 or more seconds")
        if self.concurrency is not None and self.concurrency < 1:
            raise ToolPolicyError(
                f"concurrency={self.concurrency!r}: must be 1 or more, or None for no limit"
            )
        if self.isolation not in ("none", "process"):
            raise ToolPolicyError(f"isolation={self.isolation!r}: must be 'none' or 'process'")
        if self.max_output < 200:
            raise ToolPolicyError(f"max_output={self.max_output!r}: must leave room for a note, at least 200")
        self._check_retries()

    def _check_retries(self) -> None:
        for error in self.retry_on:
            if not (isinstance(error, type) and issubclass(error, Exception)):
                raise ToolPolicyError(f"retry_on holds {error!r}: must be exception classes")
        if self.retries and not self.retry_on:
            raise ToolPolicyError(
                f"retries={self.retries} without retry_on: name the errors that are worth a retry"
            )
        if self.retry_on and not self.retries:
            raise ToolPolicyError(
                "retry_on without retries: say how often to try again, for example retries=2"
            )
        if ToolTimeoutError in self.retry_on and not self.idempotent:
            raise ToolPolicyError(
                "retry_on holds ToolTimeoutError, but the tool is not idempotent: the first attempt may "
                "still take effect. Set idempotent=True if that does no harm"
            )

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values; errors are given by name."""
        return asdict(self) | {"retry_on": [error.__name__ for error in self.retry_on]}


DEFAULT_POLICY = ToolPolicy()
"""What holds for a tool that says nothing about itself."""


def policy_of(tool: BaseTool) -> ToolPolicy:
    """The policy that travels with ``tool``; the default policy if it has none."""
    policy = (tool.metadata or {}).get(_METADATA_KEY)
    found = policy if isinstance(policy, ToolPolicy) else DEFAULT_POLICY
    return replace(found, approval=True) if always_asks(tool) and not found.approval else found


def asking_always(tool: BaseTool) -> BaseTool:
    """A copy of ``tool`` for whose calls approval is needed whatever any policy says."""
    return tool.model_copy(update={"metadata": {**(tool.metadata or {}), _ALWAYS_ASKS: True}})


def always_asks(tool: BaseTool) -> bool:
    """Whether no policy can take back that a person must approve each call."""
    return (tool.metadata or {}).get(_ALWAYS_ASKS) is True


def with_policy(tool: BaseTool, policy: ToolPolicy) -> BaseTool:
    """A copy of any LangChain tool that carries ``policy``; the original is left as it is."""
    return tool.model_copy(update={"metadata": {**(tool.metadata or {}), _METADATA_KEY: policy}})
