"""The one tree of errors that callers of ``tools`` catch.

A tool that fails while a model uses it raises nothing: :func:`tools.execution.acall` turns every failure
into a message for the model. These errors are for those who write, register and configure tools, and for
tools themselves: the text of a :class:`ToolError` that a tool raises is shown to the model as it stands.

::

    ToolError
    ├── ToolRegistrationError (also ValueError)   it cannot be registered: clash, bad schema, broken module
    ├── ToolPolicyError (also ValueError)         a policy contradicts itself
    ├── UnknownToolError (also LookupError)       no tool has that name
    ├── ToolInputError (also ValueError)          the arguments of a call do not fit the tool
    ├── ToolTimeoutError (also TimeoutError)      a call took longer than its policy allows
    ├── ToolBusyError                             no slot became free within the timeout
    ├── ToolApprovalError                         a call needs a person's approval and has none
    └── ToolExitError                             a tool tried to end the process
"""

from __future__ import annotations


class ToolError(Exception):
    """Base of every error that this package raises on purpose; tools may raise it for the model to read."""


class ToolRegistrationError(ToolError, ValueError):
    """A tool cannot be registered; the message names the tool and where it comes from."""


class ToolPolicyError(ToolError, ValueError):
    """A policy contradicts itself; the message names the fields and their values."""


class UnknownToolError(ToolError, LookupError):
    """No tool has that name; the message names close ones."""


class ToolInputError(ToolError, ValueError):
    """The arguments of a call do not fit the tool; the message says which, and what is expected."""


class ToolTimeoutError(ToolError, TimeoutError):
    """A call took longer than its policy allows."""


class ToolBusyError(ToolError):
    """As many calls of this tool are running as its policy allows, and none ended in time."""


class ToolApprovalError(ToolError):
    """The policy of this tool asks for a person's approval, and nobody approved this call."""


class ToolExitError(ToolError):
    """The tool tried to end the process (``sys.exit``, ``KeyboardInterrupt``); the process goes on."""
