"""``@tool``: LangChain's decorator, with a policy.

The result is an ordinary LangChain tool. Two things differ from ``langchain_core.tools.tool``: the policy,
and that Google-style docstrings are read by default, so that a model sees one plain sentence and described
parameters instead of the whole docstring.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypedDict, Unpack, cast, overload

from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.tools import tool as langchain_tool
from pydantic import BaseModel

from tools.errors import ToolRegistrationError
from tools.policy import ToolPolicy, with_policy

Function = Callable[..., Any] | Runnable[Any, Any]
Decorator = Callable[[Function], BaseTool]


class ToolOptions(TypedDict, total=False):
    """The options of ``langchain_core.tools.tool``, with the same meaning."""

    description: str | None
    return_direct: bool
    args_schema: type[BaseModel] | dict[str, Any] | None
    infer_schema: bool
    response_format: Literal["content", "content_and_artifact"]
    parse_docstring: bool
    error_on_invalid_docstring: bool
    extras: dict[str, Any] | None


@overload
def tool(
    name_or_callable: Callable[..., Any],
    /,
    *,
    policy: ToolPolicy | None = None,
    **options: Unpack[ToolOptions],
) -> BaseTool: ...
@overload
def tool(
    name_or_callable: str,
    runnable: Function,
    /,
    *,
    policy: ToolPolicy | None = None,
    **options: Unpack[ToolOptions],
) -> BaseTool: ...
@overload
def tool(
    name_or_callable: str | None = None,
    /,
    *,
    policy: ToolPolicy | None = None,
    **options: Unpack[ToolOptions],
) -> Decorator: ...
def tool(
    name_or_callable: str | Callable[..., Any] | None = None,
    runnable: Function | None = None,
    /,
    *,
    policy: ToolPolicy | None = None,
    **options: Unpack[ToolOptions],
) -> BaseTool | Decorator:
    """Turn a function or a runnable into a LangChain tool that carries a policy.

    Used bare (``@tool``), with a name (``@tool("search")``), with options
    (``@tool(policy=ToolPolicy(timeout=5))``) or as a call (``tool("search", runnable)``).

    Args:
        name_or_callable: The function, or the tool's name where the function's own will not do.
        runnable: The function or runnable, when this is a plain call and not a decoration.
        policy: Timeout, retries and the rest; the default policy if left out.
        **options: The options of ``langchain_core.tools.tool``. ``parse_docstring`` is on where the arguments
            are taken from the signature, and a docstring without an ``Args:`` section is no error.

    Returns:
        The tool, or a decorator that makes one.

    Raises:
        ToolRegistrationError: The function cannot be a tool, for example because nothing describes it.
    """

    def wrap(target: Function) -> BaseTool:
        name = name_or_callable if isinstance(name_or_callable, str) else _name_of(target)
        made = _build(name, target, options)
        return with_policy(made, policy) if policy is not None else made

    if runnable is not None:
        return wrap(runnable)
    if callable(name_or_callable):
        return wrap(name_or_callable)
    return wrap


def _build(name: str, target: Function, options: ToolOptions) -> BaseTool:
    defaults: ToolOptions = {}
    if (
        options.get("infer_schema", True)
        and options.get("args_schema") is None
        and not isinstance(target, Runnable)
    ):
        defaults = {"parse_docstring": True, "error_on_invalid_docstring": False}
    try:
        # LangChain's overloads do not list the form (name, callable, options) although it is supported.
        build = cast("Callable[..., BaseTool]", langchain_tool)
        return build(name, target, **{**defaults, **options})
    except (ValueError, TypeError, NameError) as error:  # NameError: an annotation that cannot be resolved
        raise ToolRegistrationError(f"{name!r} cannot be made a tool: {error}") from error


def _name_of(target: Function) -> str:
    if isinstance(target, Runnable):
        return target.get_name()
    name = getattr(target, "__name__", None)
    if not isinstance(name, str):
        raise ToolRegistrationError(f"{target!r} has no name: give one, as in tool('name', function)")
    return name
