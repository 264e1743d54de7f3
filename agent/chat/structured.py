"""Structured answers: the runnable that ``with_structured_output`` returns, and the check of what comes back.

The grammar makes an answer fit its schema. Two things it cannot do: finish an answer that runs into its token
limit, and hold what no grammar can say. Both are found here, and raised as one clear error.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from operator import itemgetter
from typing import Any, Literal, TypeAlias, get_args

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.output_parsers import BaseTransformOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.json import parse_partial_json
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel, TypeAdapter, ValidationError
from typing_extensions import is_typeddict

from agent.chat.characters import whole
from agent.chat.missed import complaint, schema_problem
from agent.chat.requests import wire_tool_choice, wire_tools
from agent.chat.schemas import wire_schema
from agent.errors import ConfigurationError, StructuredOutputError

Method: TypeAlias = Literal["json_schema", "function_calling", "json_mode"]

_LONGEST = 300  # characters of an answer in an error


class StructuredParser(BaseTransformOutputParser[Any]):
    """Reads structured answers, and checks them.

    Streamed, a schema that gives dictionaries gives the dictionary as it grows; the last one is checked.
    """

    answer_type: Any = None
    """What ``with_structured_output`` was given; None for any JSON."""

    json_schema: dict[str, Any] | None = None
    """The schema that the answer must fit, with all that was left out of its grammar."""

    tool: str | None = None
    """The tool whose arguments are the answer; None where the answer is text."""

    may_call: bool = False
    """Whether the model may call tools in the place of an answer; then the result is None."""

    def parse(self, text: str) -> Any:
        """Read an answer that is known to be whole."""
        return self._checked(text)

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Read an answer.

        Raises:
            StructuredOutputError: It was cut off, does not fit, or is a call of a tool.
        """
        generation = result[0]
        message = generation.message if isinstance(generation, ChatGeneration) else AIMessage(generation.text)
        return self._read(message)

    def _read(self, message: BaseMessage) -> Any:
        if message.response_metadata.get("finish_reason") == "length":
            limit = (getattr(message, "usage_metadata", None) or {}).get("output_tokens")
            msg = (
                f"the structured answer was cut off at its token limit{f' of {limit}' if limit else ''}; "
                "give a higher max_tokens, or a repetition_penalty where it repeats itself: "
                f"{_short(message.text)}"
            )
            raise StructuredOutputError(msg)
        calls = getattr(message, "tool_calls", [])
        if self.tool is not None:
            return self._arguments(message, self.tool)
        if calls:
            if self.may_call:
                return None
            names = ", ".join(call["name"] for call in calls)
            msg = f"the model called {names} and gave no structured answer; include_raw=True shows the calls"
            raise StructuredOutputError(msg)
        return self._checked(message.text)

    def _arguments(self, message: BaseMessage, tool: str) -> Any:
        for call in getattr(message, "tool_calls", []):
            if call["name"] == tool:
                return self._checked(json.dumps(call["args"]))
        broken = getattr(message, "invalid_tool_calls", [])
        why = (
            f": {broken[0]['error'] or _short(str(broken[0]['args']))}"
            if broken
            else f": {_short(message.text)}"
        )
        msg = f"the model did not call {tool}, whose arguments are the structured answer{why}"
        raise StructuredOutputError(msg)

    def _checked(self, text: str) -> Any:
        try:
            value = json.loads(text, strict=False)
        except (ValueError, RecursionError) as error:
            msg = f"the structured answer is no JSON ({error}): {_short(text)}"
            raise StructuredOutputError(msg) from error
        if self._typed:
            return self._typed_value(value, text)
        if self.json_schema is not None and (problem := complaint(value, self.json_schema)):
            msg = f"the structured answer does not fit its schema: {problem}; it is {_short(text)}"
            raise StructuredOutputError(msg)
        return value

    @property
    def _typed(self) -> bool:
        """Whether the answer becomes an object of a type of its own."""
        kind = self.answer_type
        return kind is not None and not isinstance(kind, dict) and not is_typeddict(kind)

    def _typed_value(self, value: Any, text: str) -> Any:
        kind = self.answer_type
        try:  # as JSON: a strict type takes dates, tuples and the like from nothing else
            read = json.dumps(whole(value))
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                return kind.model_validate_json(read)
            if isinstance(kind, type) and is_basemodel_subclass(kind):  # of Pydantic 1
                return kind.parse_obj(value)  # type: ignore[attr-defined]
            return TypeAdapter(kind).validate_json(read)
        except (ValueError, RecursionError) as error:
            problem = str(error)
            if isinstance(error, ValidationError):
                problem = "; ".join(
                    f"{'.'.join(str(part) for part in one['loc']) or 'answer'}: {one['msg']}"
                    for one in error.errors()
                )
            msg = f"the structured answer does not fit {getattr(kind, '__name__', kind)}: {problem}; it is "
            raise StructuredOutputError(msg + _short(text)) from error

    # -- streams --------------------------------------------------------------------------------------------

    def _transform(self, input: Iterator[str | BaseMessage]) -> Iterator[Any]:
        growing = _Growing(self)
        for chunk in input:
            yield from growing.add(chunk)
        yield from growing.end()

    async def _atransform(self, input: AsyncIterator[str | BaseMessage]) -> AsyncIterator[Any]:
        growing = _Growing(self)
        async for chunk in input:
            for one in growing.add(chunk):
                yield one
        for one in growing.end():
            yield one

    @property
    def _type(self) -> str:
        return "vllm-structured-output"


class _Growing:
    """A structured answer that is being streamed."""

    def __init__(self, parser: StructuredParser) -> None:
        self._parser = parser
        self._whole: Any = None
        self._last: Any = None

    def add(self, chunk: str | BaseMessage) -> Iterator[Any]:
        """Take a chunk; give the answer as far as it has grown, where it has grown."""
        piece = AIMessageChunk(content=chunk) if isinstance(chunk, str) else chunk
        self._whole = piece if self._whole is None else self._whole + piece
        if self._parser._typed:
            return
        if self._parser.tool is None:
            try:
                value = parse_partial_json(self._whole.text)
            except (ValueError, RecursionError):
                return
        else:
            calls = self._whole.tool_calls
            value = calls[0]["args"] if calls else None
        if isinstance(value, dict | list) and value != self._last:
            self._last = value
            yield value

    def end(self) -> Iterator[Any]:
        """Check the whole answer, and give it where it was not given yet."""
        if self._whole is None:
            return
        value = self._parser._read(self._whole)
        if value is not None and (self._parser._typed or value != self._last):
            yield value


def ask_for_structure(
    schema: Any, *, method: Method, strict: bool | None, tools: Sequence[Any], tool_choice: Any
) -> tuple[dict[str, Any], StructuredParser]:
    """Return the arguments of a call that ask for a structured answer, and what reads it.

    The arguments are those of :meth:`agent.ChatVLLM.with_structured_output`.

    Raises:
        ConfigurationError: ``schema`` is none, or the arguments contradict each other.
    """
    _check_method(schema, method, tools)
    name, wire = wire_schema(schema) if schema is not None else ("answer", None)
    if isinstance(schema, dict) and (problem := schema_problem(wire)):
        msg = f"the answer cannot be structured by {name}: it is no JSON schema ({problem})"
        raise ConfigurationError(msg)
    known = isinstance(schema, type | dict)  # to LangChain, which shows it to who traces the call
    shown = schema if known else {"title": name, **(wire or {})}
    arguments: dict[str, Any] = {
        "ls_structured_output_format": {"kwargs": {"method": method}, "schema": shown}
    }
    if method == "function_calling":
        arguments |= _forced_call(name, wire or {})
    elif method == "json_mode":
        arguments["response_format"] = {"type": "json_object"}
    else:
        marked = {} if strict is None else {"strict": strict}
        form = {"name": name, "schema": wire, **marked}
        arguments["response_format"] = {"type": "json_schema", "json_schema": form}
    if tools:
        arguments["tools"] = wire_tools(tools)
        arguments["tool_choice"] = wire_tool_choice(tool_choice, arguments["tools"])
    forced = name if method == "function_calling" else None
    return arguments, StructuredParser(answer_type=schema, json_schema=wire, tool=forced)


def _check_method(schema: Any, method: str, tools: Sequence[Any]) -> None:
    problem = ""
    if method not in get_args(Method):
        problem = f"method={method!r} is none of {', '.join(get_args(Method))}"
    elif schema is None and method != "json_mode":
        problem = f"with_structured_output(method={method!r}) needs a schema"
    elif tools and method != "json_schema":
        problem = f"tools can be bound beside a structured answer with method='json_schema', not {method!r}"
    if problem:
        raise ConfigurationError(problem)


def _forced_call(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call that must answer by calling one tool with this schema."""
    if schema.get("type", "object") != "object":
        msg = f"method='function_calling' needs a schema of objects, and {name} is of type {schema['type']!r}"
        raise ConfigurationError(msg)
    function = {"name": name, "description": schema.get("description", ""), "parameters": schema}
    return {
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": name}},
        "parallel_tool_calls": False,
    }


def structured(
    llm: Runnable[Any, AIMessage], parser: StructuredParser, *, include_raw: bool
) -> Runnable[Any, Any]:
    """Put the parser behind the model; with ``include_raw`` its errors are in the result."""
    if not include_raw:
        return llm | parser
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    failed: Runnable[Any, Any] = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=llm) | parsed.with_fallbacks(
        [failed], exceptions_to_handle=(StructuredOutputError,), exception_key="parsing_error"
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
