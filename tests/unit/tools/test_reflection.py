"""What LangChain asks of a tool's functions: the same answers as without us, and asked for once."""

from __future__ import annotations

import functools
import json
from typing import Annotated, Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler, Callbacks
from langchain_core.messages import ToolCall
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, InjectedToolArg, StructuredTool, tool
from langchain_core.utils.function_calling import convert_to_openai_tool

from graphs.toolset import prepare_tools
from tools import ToolRegistry
from tools.arguments import tool_schema
from tools.execution import call

looked_up: list[str] = []


def read() -> type:
    """A hint that tells when it is evaluated."""
    looked_up.append("once")
    return int


def takes_config(text: str, config: RunnableConfig) -> str:
    """Say it."""
    return f"{text} {config['configurable']['who']}"


def takes_callbacks(text: str, callbacks: Callbacks = None) -> str:
    """Say it."""
    return f"{text} {callbacks is not None}"


def takes_hidden(text: str, who: Annotated[str, InjectedToolArg] = "nobody") -> str:
    """Say it."""
    return f"{text} {who}"


def takes_rest(text: str, *, mark: str = "!") -> str:
    """Say it."""
    return text + mark


SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


class Speaker:
    def __init__(self, who: str) -> None:
        self.who = who

    def say(self, text: str, config: RunnableConfig) -> str:
        """Say it."""
        return f"{text} {self.who} {config['configurable']['who']}"

    def __call__(self, text: str, config: RunnableConfig) -> str:
        """Say it."""
        return self.say(text, config)


class Counting(BaseTool):
    """Keeps something in itself."""

    name: str = "counting"
    description: str = "Count."
    args_schema: Any = SCHEMA
    calls: int = 0

    def _run(self, text: str, config: RunnableConfig) -> str:
        self.calls += 1
        return f"{text} {self.calls} {config['configurable']['who']}"


class Schemaless(BaseTool):
    """Leaves its schema to LangChain, which lists the config in it."""

    name: str = "schemaless"
    description: str = "Say it."

    def _run(self, text: str, config: RunnableConfig) -> str:
        return f"{text} {config['configurable']['who']}"


class Shouting(StructuredTool):
    """Changes what LangChain's body does."""

    calls: int = 0

    def _run(self, *args: Any, config: RunnableConfig, run_manager: Any = None, **kwargs: Any) -> Any:
        self.calls += 1
        return str(super()._run(*args, config=config, run_manager=run_manager, **kwargs)).upper()


def made_of(function: Any, **options: Any) -> BaseTool:
    return StructuredTool.from_function(function, name="say", description="Say it.", **options)


class Told(BaseCallbackHandler):
    def __init__(self) -> None:
        self.inputs: list[Any] = []

    def on_tool_start(self, *_args: Any, inputs: Any = None, **_options: Any) -> None:
        self.inputs.append(inputs)


def said(outputs: Any) -> str:
    return str(outputs.content)


TOOLS = {
    "config": lambda: made_of(takes_config),
    "callbacks": lambda: made_of(takes_callbacks),
    "hidden": lambda: made_of(takes_hidden),
    "keyword": lambda: made_of(takes_rest),
    "lambda": lambda: made_of(lambda text: text, args_schema=SCHEMA),
    "method": lambda: made_of(Speaker("a").say),
    "partial": lambda: made_of(functools.partial(takes_rest, mark="?"), args_schema=SCHEMA),
    "decorated": lambda: tool(takes_config),
    "own body": Counting,
    "own body without a schema": Schemaless,
    "own body around a function": lambda: Shouting.from_function(
        takes_config, name="say", description="Say it."
    ),
}


@pytest.mark.parametrize("make", TOOLS.values(), ids=TOOLS)
def test_a_tool_is_given_what_langchain_gives_it(make: Any) -> None:
    given = ToolCall(name="say", args={"text": "hello"}, id="1", type="tool_call")
    plain, ours = Told(), Told()
    theirs = make().invoke(given, {"configurable": {"who": "b"}, "callbacks": [plain]})
    outcome = call(make(), given, config={"configurable": {"who": "b"}, "callbacks": [ours]})
    assert outcome.error is None
    assert said(outcome.message) == said(theirs)
    assert ours.inputs == plain.inputs


def test_two_methods_of_one_function_are_told_apart() -> None:
    given = ToolCall(name="say", args={"text": "x"}, id="1", type="tool_call")
    config: RunnableConfig = {"configurable": {"who": "c"}}
    answers = [said(call(made_of(Speaker(who).say), given, config=config).message) for who in ("a", "b", "a")]
    assert answers == ["x a c", "x b c", "x a c"]


def test_what_a_body_keeps_in_its_tool_stays_there() -> None:
    given = ToolCall(name="say", args={"text": "x"}, id="1", type="tool_call")
    config: RunnableConfig = {"configurable": {"who": "c"}}
    counting: Any = Counting()
    shouting: Any = TOOLS["own body around a function"]()
    for each in (counting, shouting):
        for _ in range(3):
            call(each, given, config=config)
        assert each.calls == 3


def test_hints_are_evaluated_once() -> None:
    def add(a: read(), b: int) -> int:  # type: ignore[valid-type]
        """Add.

        Args:
            a: The first.
            b: The second.
        """
        return a + b

    add.__annotations__["a"] = "read()"
    made = made_of(add, args_schema={"type": "object", "properties": {"a": {"type": "integer"}}})
    given = ToolCall(name="say", args={"a": 1, "b": 2}, id="1", type="tool_call")
    assert said(call(made, given).message) == "3"
    looked_up.clear()
    for _ in range(5):
        assert said(call(made, given).message) == "3"
    assert looked_up == []


def test_a_hint_that_names_nothing_known_is_passed_over() -> None:
    def odd(text: str, other: Nowhere = None) -> str:  # type: ignore[name-defined]  # noqa: F821
        """Say it."""
        return text

    made = made_of(odd, args_schema=SCHEMA)
    given = ToolCall(name="say", args={"text": "x"}, id="1", type="tool_call")
    assert said(call(made, given).message) == "x"


def test_a_model_is_not_asked_for_the_config() -> None:
    [prepared] = prepare_tools([Schemaless()])
    assert list(tool_schema(prepared)["properties"]) == ["text"]
    assert "config" not in json.dumps(convert_to_openai_tool(prepared))
    assert list(ToolRegistry([Schemaless()]).describe("schemaless").parameters["properties"]) == ["text"]
