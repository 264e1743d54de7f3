"""From the wire to LangChain: answers and chunks as messages. Pure functions, shared by all call forms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, InvalidToolCall, ToolCall, ToolCallChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from agent.engines.base import Response

PROVIDER = "vllm"


def chat_result(response: Response) -> ChatResult:
    """Convert a whole answer; every choice becomes a generation, the usage goes to the first."""
    usage = usage_metadata(response.get("usage"))
    generations: list[ChatGeneration] = []
    for choice in response["choices"]:
        message = _message(choice, response, usage if not generations else None)
        generations.append(
            ChatGeneration(message=message, generation_info={"finish_reason": choice.get("finish_reason")})
        )
    output = {"model_name": response.get("model"), "token_usage": response.get("usage")}
    return ChatResult(generations=generations, llm_output=output)


def _message(choice: Mapping[str, Any], response: Response, usage: UsageMetadata | None) -> AIMessage:
    wire = choice["message"]
    valid: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for call in wire.get("tool_calls") or ():
        parsed = parse_call(call, truncated=choice.get("finish_reason") == "length")
        if parsed["type"] == "tool_call":
            valid.append(parsed)
        else:
            invalid.append(parsed)
    return AIMessage(
        id=response.get("id"),
        content=wire.get("content") or "",
        additional_kwargs=_reasoning(wire),
        tool_calls=valid,
        invalid_tool_calls=invalid,
        usage_metadata=usage,
        response_metadata=_metadata(choice, response),
    )


def parse_call(call: Mapping[str, Any], *, truncated: bool) -> ToolCall | InvalidToolCall:
    """Read one call strictly: arguments must be a JSON object, or the call is invalid and not executed.

    Args:
        call: The call in wire form.
        truncated: Whether the answer was cut off at its token limit, which the error then says.
    """
    name, text = call["function"]["name"], call["function"]["arguments"]
    try:
        arguments = json.loads(text or "{}")
        problem = "" if isinstance(arguments, dict) else f"arguments must be a JSON object, got {text}"
    except ValueError as error:
        problem = f"arguments are no valid JSON ({error})"
        if truncated:
            problem = f"the answer was cut off at its token limit: {problem}"
    if problem:
        return InvalidToolCall(
            type="invalid_tool_call", name=name, args=text, id=call.get("id"), error=problem
        )
    return ToolCall(type="tool_call", name=name, args=arguments, id=call.get("id"))


class ChunkConverter:
    """Converts the chunks of one stream.

    It remembers the arguments of calls that are still open, for one reason: LangChain closes incomplete
    JSON by itself when it merges chunks, so a call that was cut off at the token limit would look whole and
    be executed. Such a call is ended with a bracket that does not match, which makes it invalid.
    """

    def __init__(self) -> None:
        self._arguments: dict[int, str] = {}

    def convert(self, chunk: Response) -> list[ChatGenerationChunk]:
        """Convert one chunk; one that says nothing gives an empty list."""
        usage = usage_metadata(chunk.get("usage"))
        if not chunk.get("choices"):
            return [self._wrap(chunk, AIMessageChunk(content="", usage_metadata=usage))] if usage else []
        converted = []
        for choice in chunk["choices"]:
            delta, finish = choice.get("delta") or {}, choice.get("finish_reason")
            calls = [self._call(call) for call in delta.get("tool_calls") or ()]
            if finish:
                self._end(calls)
            content, extra = delta.get("content") or "", _reasoning(delta)
            if not (content or extra or calls or finish or choice.get("logprobs")):
                continue
            metadata = _metadata(choice, chunk) if finish or choice.get("logprobs") else {}
            message = AIMessageChunk(
                content=content,
                additional_kwargs=extra,
                tool_call_chunks=calls,
                response_metadata=metadata,
                usage_metadata=usage,
            )
            converted.append(self._wrap(chunk, message, finish))
        return converted

    def _call(self, call: Mapping[str, Any]) -> ToolCallChunk:
        index, function = call["index"], call.get("function") or {}
        arguments = function.get("arguments")
        self._arguments[index] = self._arguments.get(index, "") + (arguments or "")
        return ToolCallChunk(
            type="tool_call_chunk",
            name=function.get("name"),
            args=arguments,
            id=call.get("id"),
            index=index,
        )

    def _end(self, calls: list[ToolCallChunk]) -> None:
        """Make calls that are still open invalid: in their last chunk, or in one of their own."""
        for index, text in self._arguments.items():
            if not (ending := mismatched_ending(text)):
                continue
            # LangChain does not merge the chunks of one message with each other.
            last = next((call for call in calls if call["index"] == index), None)
            if last is not None:
                last["args"] = (last["args"] or "") + ending
            else:
                calls.append(
                    ToolCallChunk(type="tool_call_chunk", name=None, args=ending, id=None, index=index)
                )

    @staticmethod
    def _wrap(chunk: Response, message: AIMessageChunk, finish: str | None = None) -> ChatGenerationChunk:
        message.id = chunk.get("id")
        info = {"finish_reason": finish} if finish else None
        return ChatGenerationChunk(message=message, generation_info=info)


def mismatched_ending(text: str) -> str:
    """Return what makes incomplete JSON unreadable even to a lenient parser; "" for complete JSON."""
    if not text:
        return ""
    try:
        json.loads(text)
    except ValueError:
        pass
    else:
        return ""
    inside, escaped, stack = False, False, []
    for character in text:
        if inside:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                inside = False
        elif character == '"':
            inside = True
        elif character in "{[":
            stack.append(character)
        elif character in "}]" and stack:
            stack.pop()
    close_string = ('\\"' if escaped else '"') if inside else ""
    return close_string + ("}" if stack and stack[-1] == "[" else "]")


def usage_metadata(usage: Mapping[str, Any] | None) -> UsageMetadata | None:
    """Convert token counts, with the tokens that came from the prefix cache."""
    if not usage:
        return None
    prompt, completion = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    metadata = UsageMetadata(
        input_tokens=prompt,
        output_tokens=completion,
        total_tokens=usage.get("total_tokens") or prompt + completion,
    )
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    if cached is not None:
        metadata["input_token_details"] = {"cache_read": cached}
    reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
    if reasoning is not None:
        metadata["output_token_details"] = {"reasoning": reasoning}
    return metadata


def _reasoning(wire: Mapping[str, Any]) -> dict[str, Any]:
    # LangChain turns this key into a reasoning content block. vLLM says "reasoning"; older servers and
    # other software say "reasoning_content".
    text = wire.get("reasoning") or wire.get("reasoning_content")
    return {"reasoning_content": text} if text else {}


def _metadata(choice: Mapping[str, Any], response: Response) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    if finish := choice.get("finish_reason"):
        metadata["finish_reason"] = finish
        metadata["model_name"] = response.get("model")
        metadata["model_provider"] = PROVIDER
    if choice.get("logprobs"):
        metadata["logprobs"] = choice["logprobs"]
    return metadata
