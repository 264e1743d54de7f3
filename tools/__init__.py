"""Tools for agents: making them, collecting them, and running them so that nothing they do ends a run.

``@tool`` makes a LangChain tool that carries a :class:`ToolPolicy`; a :class:`ToolRegistry` collects tools
from code, modules, files and installed packages; :func:`acall` and :func:`call` run one call of one tool.

Names are loaded on first use: LangChain's tool classes take a second to import, and a command that only
prints its help should not wait for them.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tools.arguments import check_arguments
    from tools.configuration import load_registry
    from tools.decorator import tool
    from tools.errors import (
        ToolApprovalError,
        ToolBusyError,
        ToolError,
        ToolExitError,
        ToolInputError,
        ToolPolicyError,
        ToolRegistrationError,
        ToolTimeoutError,
        UnknownToolError,
    )
    from tools.execution import ToolOutcome, acall, call, unknown_tool, whole_output
    from tools.policy import ToolPolicy, policy_of, with_policy
    from tools.registry import ToolDescription, ToolProblem, ToolRegistry, default_registry
    from tools.sources.mcp import McpServer

__all__ = [
    "McpServer",
    "ToolApprovalError",
    "ToolBusyError",
    "ToolDescription",
    "ToolError",
    "ToolExitError",
    "ToolInputError",
    "ToolOutcome",
    "ToolPolicy",
    "ToolPolicyError",
    "ToolProblem",
    "ToolRegistrationError",
    "ToolRegistry",
    "ToolTimeoutError",
    "UnknownToolError",
    "acall",
    "call",
    "check_arguments",
    "default_registry",
    "load_registry",
    "policy_of",
    "tool",
    "unknown_tool",
    "whole_output",
    "with_policy",
]

_MODULE_OF = {
    "check_arguments": "arguments",
    "load_registry": "configuration",
    "tool": "decorator",
    "McpServer": "sources.mcp",
    **dict.fromkeys(("ToolOutcome", "acall", "call", "unknown_tool", "whole_output"), "execution"),
    **dict.fromkeys(("ToolPolicy", "policy_of", "with_policy"), "policy"),
    **dict.fromkeys(("ToolDescription", "ToolProblem", "ToolRegistry", "default_registry"), "registry"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'tools' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"tools.{_MODULE_OF.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
