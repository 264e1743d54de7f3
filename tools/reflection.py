"""What LangChain asks of a tool's functions at every call, found out once.

At each call it reads the signatures and the type hints of a tool's body and of the function behind it, to see
whether they take a config or callbacks, and evaluates hints that are written as text: half of the time that a
small tool takes. A function that stands for another here has the answers ready.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool, Tool, create_schema_from_function


class _Answers(NamedTuple):
    signature: inspect.Signature
    hints: dict[str, Any]
    """Of parameters that take the config; LangChain looks for no other."""


_of_functions: WeakKeyDictionary[Callable[..., Any], _Answers] = WeakKeyDictionary()
_of_methods: WeakKeyDictionary[Callable[..., Any], _Answers] = WeakKeyDictionary()


def hide_config(tool: BaseTool) -> None:
    """Keep the config that a tool's own body takes out of what a model is asked for.

    LangChain passes it in at each call, and yet lists it as an argument where it makes the schema itself.
    """
    if tool.args_schema is None and not isinstance(tool, StructuredTool | Tool):
        answers = _answers(tool._run)
        if answers is not None and answers.hints:
            hidden = ["run_manager", "callbacks", *answers.hints]
            tool.args_schema = create_schema_from_function(tool.name, tool._run, filter_args=hidden)


def ready(tool: BaseTool) -> BaseTool:
    """A copy of ``tool`` that has its answers ready."""
    if isinstance(tool, StructuredTool):
        _ = tool._injected_args_keys  # it is kept where it was once asked for, and copies take it along
    copy = tool.model_copy()
    function = getattr(copy, "func", None)
    if function is not None and _answers(function) is not None:

        @stands_for(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        copy.__dict__["func"] = run
    return copy


def stands_for(body: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``functools.wraps``, with the answers."""

    def decorate(wrapper: Callable[..., Any]) -> Callable[..., Any]:
        functools.update_wrapper(wrapper, body)
        answers = _answers(body)
        if answers is not None:
            wrapper.__signature__ = answers.signature  # type: ignore[attr-defined]
            wrapper.__annotations__ = answers.hints
            del wrapper.__wrapped__  # type: ignore[attr-defined]  # or it is asked in the wrapper's place
        return wrapper

    return decorate


def _answers(body: Callable[..., Any]) -> _Answers | None:
    """``None`` for other callables than functions and methods, and for hints that name nothing known."""
    known, function = _of_functions, body
    if inspect.ismethod(body):
        known, function = _of_methods, body.__func__
    if not inspect.isfunction(function):
        return None
    answers = known.get(function)
    if answers is None:
        try:
            hints = typing.get_type_hints(body)
        except Exception:  # hints are any code; LangChain passes over such errors as well
            return None
        taken = {name: hint for name, hint in hints.items() if hint is RunnableConfig}
        answers = known[function] = _Answers(inspect.signature(body), taken)
    return answers
