"""From the wire to LangChain: whole answers as messages. Pure functions, shared by all call forms.

Chunks of streams are converted in :mod:`agent.chat.chunks`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage, InvalidToolCall, ToolCall
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult

from agent.chat.candidates import FoundCall
from agent.chat.expected import Expected
from agent.engines.base import Response
from agent.formats.json_text import too_deep
from agent.formats.text.reader import new_call_id

PROVIDER = "vllm"


def chat_result(response: Response, expected: Expected | None = None) -> ChatResult:
    """Convert a whole answer; every choice becomes a generation, the usage goes to the first.

    Args:
        response: The answer in wire form.
        expected: What it may hold; by default no calls beside those that the parser found.
    """
    usage = usage_metadata(response.get("usage"))
    generations: list[ChatGeneration] = []
    for position, choice in enumerate(response["choices"]):
        message = _message(choice, response, expected or Expected(), usage if not position else None)
        if position and message.id:  # each its own: conversations tell messages apart by their ids
            message.id = f"{message.id}-{position}"
        info = {"finish_reason": message.response_metadata.get("finish_reason")}
        generations.append(ChatGeneration(message=message, generation_info=info))
    output = {"model_name": response.get("model"), "token_usage": response.get("usage")}
    return ChatResult(generations=generations, llm_output=output)


def _message(
    choice: Mapping[str, Any], response: Response, expected: Expected, usage: UsageMetadata | None
) -> AIMessage:
    wire, finish = choice["message"], choice.get("finish_reason")
    content, reasoning = wire.get("content") or "", reasoning_of(wire)
    parsed = [parse_call(call, truncated=finish == "length") for call in wire.get("tool_calls") or ()]
    if not parsed:
        recovery = expected.recovery()
        shown = recovery.feed(content)
        rest, found = recovery.finish()
        found = expected.allowed(found) or expected.instead(
            content=content, reasoning=reasoning, finish=finish
        )
        content = shown + rest
        parsed = [_recovered(call, truncated=finish == "length") for call in found]
    return AIMessage(
        id=response.get("id"),
        content=content,
        additional_kwargs={"reasoning_content": reasoning} if reasoning else {},
        tool_calls=[call for call in parsed if call["type"] == "tool_call"],
        invalid_tool_calls=[call for call in parsed if call["type"] == "invalid_tool_call"],
        usage_metadata=usage,
        response_metadata=metadata(choice, response, calls=bool(parsed)),
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
        problem = "arguments are nested too deeply" if too_deep(text or "") else problem
    except (ValueError, RecursionError) as error:
        problem = f"arguments are no valid JSON ({error})"
        if truncated:
            problem = f"{_CUT}{problem}"
    if problem:
        return InvalidToolCall(
            type="invalid_tool_call", name=name, args=text, id=identity_of(call), error=problem
        )
    return ToolCall(type="tool_call", name=name, args=arguments, id=identity_of(call))


def identity_of(call: Mapping[str, Any]) -> str | None:
    """Return the id of a call: some servers number their calls."""
    identity = call.get("id")
    return identity if isinstance(identity, str | None) else str(identity)


_CUT = "the answer was cut off at its token limit: "


def _recovered(call: FoundCall, *, truncated: bool) -> ToolCall | InvalidToolCall:
    identity = new_call_id()
    if not call.error and call.name is not None:
        return ToolCall(type="tool_call", name=call.name, args=json.loads(call.arguments), id=identity)
    cut = _CUT if truncated and call.arguments and not _is_json(call.arguments) else ""
    return InvalidToolCall(
        type="invalid_tool_call",
        name=call.name,
        args=call.arguments,
        id=identity,
        error=f"{cut}{call.error}",
    )


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def usage_metadata(usage: Any) -> UsageMetadata | None:
    """Convert token counts, with the tokens that came from the prefix cache; None where they are none."""
    if not isinstance(usage, Mapping):
        return None
    read = {name: _count(usage, name) for name in ("prompt_tokens", "completion_tokens") if name in usage}
    total = _count(usage, "total_tokens")
    if None in read.values() or not (read or total):
        return None
    prompt, completion = read.get("prompt_tokens") or 0, read.get("completion_tokens") or 0
    counts = UsageMetadata(
        input_tokens=prompt, output_tokens=completion, total_tokens=total or prompt + completion
    )
    cached = _count(usage.get("prompt_tokens_details"), "cached_tokens")
    if cached is not None:
        counts["input_token_details"] = {"cache_read": cached}
    reasoning = _count(usage.get("completion_tokens_details"), "reasoning_tokens")
    if reasoning is not None:
        counts["output_token_details"] = {"reasoning": reasoning}
    return counts


def _count(counts: Any, name: str) -> int | None:
    """Return one count; None where other software has something else in its place."""
    count = counts.get(name) if isinstance(counts, Mapping) else None
    return int(count) if isinstance(count, int | float) and 0 <= count < math.inf else None


def reasoning_of(wire: Mapping[str, Any]) -> str:
    """Return the reasoning in a message or a delta.

    vLLM says "reasoning"; older servers and other software say "reasoning_content", which is also the key
    under which LangChain looks for what it shows as a reasoning block.
    """
    text = wire.get("reasoning") or wire.get("reasoning_content")
    return text if isinstance(text, str) else ""


def metadata(choice: Mapping[str, Any], response: Response, *, calls: bool) -> dict[str, Any]:
    """Return the metadata of an answer, or of a chunk: why it ended, which model it was, log-probabilities.

    Args:
        choice: One choice in wire form.
        response: The answer or chunk that it belongs to.
        calls: Whether the answer holds calls. Servers say "tool_calls" for answers without any, and "stop"
            for answers with some; only "length", that it was cut off, is theirs to know.
    """
    found: dict[str, Any] = {}
    if finish := choice.get("finish_reason"):
        if finish in ("stop", "tool_calls"):
            finish = "tool_calls" if calls else "stop"
        found["finish_reason"] = finish
        found["model_name"] = response.get("model")
        found["model_provider"] = PROVIDER
        if choice.get("stop_reason") is not None:
            found["stop_reason"] = choice["stop_reason"]
    if choice.get("logprobs"):
        found["logprobs"] = choice["logprobs"]
    return found
