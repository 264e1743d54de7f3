"""The text protocol as a tool parser of vLLM, for ``vllm serve --tool-parser-plugin``.

It reads calls with the reader of the in-process protocol, and gives the server the same grammars: a call that
is required is decoded under the grammar of its tools. With ``tool_choice="auto"`` a model writes freely, and
once it has written the marker of a call, the rest of the line is held to a bound tool and its schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from vllm.entrypoints.generate.base.protocol import (
    DeltaFunctionCall,
    DeltaMessage,
    DeltaToolCall,
    ExtractedToolCallInformation,
    FunctionCall,
    ToolCall,
)
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.sampling_params import StructuredOutputsParams
from vllm.tool_parsers import ToolParser, ToolParserManager

from agent.formats.text.grammar import call_grammar
from agent.formats.text.reader import CallReader, Delta
from agent.formats.text.unaided import call_tags


@ToolParserManager.register_module(["vllm_agent_text"])
class TextToolParser(ToolParser):  # type: ignore[misc]  # vLLM is untyped for mypy
    """Reads ``TOOL_CALL:`` lines, whole and streamed."""

    supports_required_and_named = False  # they are read from lines too, not from vLLM's own JSON list
    engine_based_streaming = True  # it keeps its own state, and is told when an answer is over

    def __init__(self, tokenizer: Any, tools: list[Any] | None = None) -> None:
        super().__init__(tokenizer, tools)
        self._reader = CallReader()

    def adjust_request(self, request: Any) -> Any:
        """Put the grammar of the tools on a request that must call, and hold calls to it in one that may."""
        request = super().adjust_request(request)
        tools, choice = wire(request.tools or ()), request.tool_choice
        if not tools or choice == "none" or not isinstance(request, ChatCompletionRequest):
            return request
        if request.structured_outputs is not None or request.response_format is not None:
            return request
        several = request.parallel_tool_calls is not False
        calls: Literal["one", "any"] = "any" if several else "one"
        if choice == "required":
            request.structured_outputs = StructuredOutputsParams(grammar=call_grammar(tools, calls=calls))
        elif choice in (None, "auto"):
            request.structured_outputs = StructuredOutputsParams(
                structural_tag=call_tags(tools, several=several)
            )
        else:
            named = [tool for tool in tools if tool["function"]["name"] == choice.function.name]
            request.structured_outputs = StructuredOutputsParams(grammar=call_grammar(named, calls="one"))
        return request

    def extract_tool_calls(self, model_output: str, request: Any) -> ExtractedToolCallInformation:
        """Read a whole answer."""
        if request.tool_choice == "none":  # whatever it looks like, it is the answer
            return ExtractedToolCallInformation(tools_called=False, tool_calls=[], content=model_output)
        reader = CallReader()
        content, calls = "", list[dict[str, str]]()
        for delta in [*reader.feed(model_output), *reader.finish()]:
            content += delta.get("content", "")
            for call in delta.get("tool_calls", ()):
                if "id" in call:
                    calls.append({"id": call["id"], "name": call["function"]["name"], "arguments": ""})
                calls[-1]["arguments"] += call["function"]["arguments"]
        return ExtractedToolCallInformation(
            tools_called=bool(calls),
            tool_calls=[
                ToolCall(id=one["id"], function=FunctionCall(name=one["name"], arguments=one["arguments"]))
                for one in calls
            ],
            content=content or None,
        )

    def extract_tool_calls_streaming(
        self,
        previous_text: str,
        current_text: str,
        delta_text: str,
        previous_token_ids: Sequence[int],
        current_token_ids: Sequence[int],
        delta_token_ids: Sequence[int],
        request: Any,
    ) -> DeltaMessage | None:
        """Read the next piece of an answer."""
        if request.tool_choice == "none":
            return DeltaMessage(content=delta_text) if delta_text else None
        return self._message(self._reader.feed(delta_text))

    def finish_streaming(self) -> DeltaMessage | None:
        """Give what is left when the answer is over."""
        return self._message(self._reader.finish())

    def _message(self, deltas: Iterable[Delta]) -> DeltaMessage | None:
        content = ""
        calls: dict[int, DeltaToolCall] = {}
        for delta in deltas:
            content += delta.get("content", "")
            for call in delta.get("tool_calls", ()):
                known = calls.get(call["index"])
                if known is None:
                    calls[call["index"]] = DeltaToolCall(
                        index=call["index"],
                        id=call.get("id"),
                        type=call.get("type"),
                        function=DeltaFunctionCall(
                            name=call["function"].get("name"), arguments=call["function"]["arguments"]
                        ),
                    )
                else:
                    known.function.arguments += call["function"]["arguments"]
        if not content and not calls:
            return None
        message = DeltaMessage(tool_calls=list(calls.values())) if calls else DeltaMessage()
        message.content = content or None
        return message


def wire(tools: Iterable[Any]) -> list[dict[str, Any]]:
    """Return vLLM's records of tools in wire form."""
    return [{"type": "function", "function": tool.function.model_dump(exclude_none=True)} for tool in tools]
