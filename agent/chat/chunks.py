"""From the wire to LangChain: the chunks of a stream, which add up to the message of the whole answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessageChunk, ToolCallChunk
from langchain_core.messages.ai import UsageMetadata, subtract_usage
from langchain_core.outputs import ChatGenerationChunk

from agent.chat.candidates import FoundCall
from agent.chat.expected import Expected
from agent.chat.responses import identity_of, metadata, reasoning_of, usage_metadata
from agent.engines.base import Response
from agent.formats.json_text import JsonScanner, too_deep
from agent.formats.text.reader import new_call_id


class ChunkConverter:
    """Converts the chunks of one stream, which has one answer.

    It remembers the arguments of calls that are still open, for one reason: LangChain closes incomplete
    JSON by itself when it merges chunks, so a call that was cut off at the token limit would look whole and
    be executed. Such a call is ended with a bracket that does not match, which makes it invalid.

    Args:
        expected: What the answer may hold; by default no calls beside those that the parser finds.
    """

    def __init__(self, expected: Expected | None = None) -> None:
        self._expected = expected or Expected()
        self._recovery = self._expected.recovery()
        self._arguments: dict[int, str] = {}
        self._told: dict[int, dict[str, str]] = {}  # the names and ids of calls
        self._places: dict[int, int] = {}  # the numbers that the server's ones stand for
        self._content = self._reasoning = ""
        self._usage: UsageMetadata | None = None
        self._ended = False

    def convert(self, chunk: Response) -> list[ChatGenerationChunk]:
        """Convert one chunk; one that says nothing gives an empty list."""
        usage = self._added(chunk.get("usage"))
        if not chunk.get("choices"):
            return [_wrap(chunk, AIMessageChunk(content="", usage_metadata=usage))] if usage else []
        converted = []
        for given in chunk["choices"]:
            # A second reason for the end would be joined to the first.
            choice = {**given, "finish_reason": None} if self._ended else given
            delta, finish = choice.get("delta") or {}, choice.get("finish_reason")
            reasoning = reasoning_of(delta)
            self._reasoning += reasoning
            content, calls = self._read(delta)
            if finish:
                self._ended = True
                more, recovered = self._finish(calls, finish)
                content += more
                calls += recovered
            if not (content or reasoning or calls or finish or usage or choice.get("logprobs")):
                continue
            found = metadata(choice, chunk, calls=bool(self._arguments))
            message = AIMessageChunk(
                content=content,
                additional_kwargs={"reasoning_content": reasoning} if reasoning else {},
                tool_call_chunks=calls,
                response_metadata=found,
                usage_metadata=usage,
            )
            converted.append(_wrap(chunk, message, found.get("finish_reason")))
        return converted

    def end(self) -> list[ChatGenerationChunk]:
        """End a stream of which no chunk said that it was the last: what was held back, and open calls."""
        if self._ended:
            return []
        calls: list[ToolCallChunk] = []
        content, recovered = self._finish(calls, "")
        calls += recovered
        return (
            [_wrap({}, AIMessageChunk(content=content, tool_call_chunks=calls))] if content or calls else []
        )

    def _added(self, usage: Any) -> UsageMetadata | None:
        """Return what a count adds to the one before: LangChain sums them up, and some servers send many."""
        counts = usage_metadata(usage)
        if counts is None or counts == self._usage:
            return None
        added = subtract_usage(counts, self._usage) if self._usage else counts
        self._usage = counts
        return added

    def _read(self, delta: Mapping[str, Any]) -> tuple[str, list[ToolCallChunk]]:
        text, content = delta.get("content") or "", ""
        if delta.get("tool_calls") and not self._arguments:  # the parser finds them: what was held is text
            content = self._recovery.release()
        self._content += text
        calls = [self._call(call) for call in delta.get("tool_calls") or ()]
        return content + self._recovery.feed(text), calls

    def _call(self, call: Mapping[str, Any]) -> ToolCallChunk:
        function, index = call.get("function") or {}, self._place(call)
        arguments, heads = function.get("arguments"), {"name": function.get("name"), "id": identity_of(call)}
        self._arguments[index] = self._arguments.get(index, "") + (arguments or "")
        told = self._told.setdefault(index, {})
        # LangChain would join what is said again.
        said = {key: value for key, value in heads.items() if value and key not in told}
        told |= said
        return ToolCallChunk(
            type="tool_call_chunk", name=said.get("name"), args=arguments, id=said.get("id"), index=index
        )

    def _place(self, call: Mapping[str, Any]) -> int:
        """Return the number of the call that a piece belongs to: some servers give the same to all calls."""
        index, heads = (
            call["index"],
            {"id": identity_of(call), "name": (call.get("function") or {}).get("name")},
        )
        place = self._places.setdefault(index, index)
        told = self._told.get(place, {})
        other = {key for key, value in heads.items() if value and told.get(key, value) != value}
        # Another id alone does not tell: some servers draw a new one for each piece of a call.
        if other == {"id", "name"} or (other == {"id"} and self._is_whole(place)):
            place = self._places[index] = max(self._arguments) + 1
        return place

    def _is_whole(self, place: int) -> bool:
        text = self._arguments[place]
        return bool(text) and not mismatched_ending(text)

    def _finish(self, calls: list[ToolCallChunk], finish: str) -> tuple[str, list[ToolCallChunk]]:
        """End the answer: return what was held back of its text, and the calls in it."""
        if self._arguments:
            self._end(calls)
            return "", []
        content, found = self._recovery.finish()
        found = self._expected.allowed(found) or self._expected.instead(
            content=self._content, reasoning=self._reasoning, finish=finish
        )
        return content, [self._recovered(index, call) for index, call in enumerate(found)]

    def _recovered(self, index: int, call: FoundCall) -> ToolCallChunk:
        arguments = call.arguments
        if call.error or call.name is None:
            arguments += mismatched_ending(arguments) or "]"
        self._arguments[index] = arguments
        return ToolCallChunk(
            type="tool_call_chunk", name=call.name, args=arguments, id=new_call_id(), index=index
        )

    def _end(self, calls: list[ToolCallChunk]) -> None:
        """Make calls that are still open invalid: in their last chunk, or in one of their own."""
        for index, text in self._arguments.items():
            if not (ending := mismatched_ending(text) or ("]" if too_deep(text) else "")):
                continue
            # LangChain does not merge the chunks of one message with each other.
            last = next((call for call in calls if call["index"] == index), None)
            if last is not None:
                last["args"] = (last["args"] or "") + ending
            else:
                calls.append(
                    ToolCallChunk(type="tool_call_chunk", name=None, args=ending, id=None, index=index)
                )


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
    except (ValueError, RecursionError):
        pass
    else:
        return ""
    scanner = JsonScanner()
    while (end := scanner.scan(text)) is not None:  # more stands behind the first value
        text = text[end:]
    close_string = ('\\"' if scanner.escaped else '"') if scanner.inside_string else ""
    return close_string + ("}" if scanner.open.endswith("[") else "]")
