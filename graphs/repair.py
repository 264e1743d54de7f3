"""Keeping a conversation well formed: every call has a unique id and exactly one result.

A crash, a cancelled run or an edit may leave calls without results, and many models number their calls
afresh in every answer. Servers and templates refuse such conversations, and a journal keyed by call id
would mix calls up.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, RemoveMessage, ToolMessage
from langgraph.graph.message import REMOVE_ALL_MESSAGES

from graphs import prompts
from graphs.turn import Gaps, calls_of, used_call_ids

_INTERRUPT_ID = re.compile(r"[0-9a-f]{32}")


def answer_open_calls(
    messages: Sequence[BaseMessage], gaps: Gaps, results: Mapping[str, ToolMessage]
) -> tuple[list[BaseMessage], list[BaseMessage]]:
    """Give a result to every call that has none, right after the answer that made it.

    Args:
        messages: The conversation as it is stored.
        gaps: From :func:`graphs.turn.unanswered`.
        results: Results that are known after all, by call id; other calls get an error.

    Returns:
        The whole conversation, and the writes that turn the stored one into it (``add_messages`` cannot
        insert, so everything is replaced, with all ids kept).
    """
    if not gaps:
        return list(messages), []
    missing = {id(answer): calls for answer, calls in gaps}
    repaired: list[BaseMessage] = []
    waiting: list[BaseMessage] = []
    for message in messages:
        if not isinstance(message, ToolMessage):
            repaired += waiting
            waiting = []
        repaired.append(message)
        for call in missing.get(id(message), ()):
            text = prompts.unanswered_call(call["name"] or "a tool")
            known = results.get(call["id"] or "")
            waiting.append(known or error_result(call["id"], call["name"], text))
    repaired += waiting
    return repaired, [RemoveMessage(id=REMOVE_ALL_MESSAGES), *repaired]


def answer_malformed_calls(answer: AIMessage) -> list[BaseMessage]:
    """Error results for the calls in ``answer`` that could not be read."""
    return [
        error_result(call["id"], call["name"], prompts.malformed_call(call["name"], call["error"]))
        for call in answer.invalid_tool_calls
    ]


def error_result(call_id: str | None, name: str | None, text: str) -> ToolMessage:
    """A tool result that tells the model what went wrong."""
    return ToolMessage(
        content=text, tool_call_id=call_id or "", name=name or None, status="error", id=str(uuid.uuid4())
    )


def with_unique_call_ids(answer: AIMessage, earlier: Sequence[BaseMessage]) -> AIMessage:
    """``answer`` with ids for calls that have none, and new ids for those that the thread has seen before.

    Also for those that look like the id of an interrupt: LangGraph takes a mapping of such ids for answers to
    interrupts, so that decisions about the calls would reach none of them.
    """
    calls = calls_of(answer)
    taken = used_call_ids(earlier) if calls else set()
    renamed: list[tuple[str | None, str]] = []
    for call in calls:
        call_id = call["id"]
        if not call_id or call_id in taken or _INTERRUPT_ID.fullmatch(call_id):
            call_id = f"call_{uuid.uuid4().hex[:24]}"
        taken.add(call_id)
        renamed.append((call["id"], call_id))
    if all(old == new for old, new in renamed):
        return answer
    whole = len(answer.tool_calls)
    return answer.model_copy(
        update={
            "tool_calls": [
                {**call, "id": new} for call, (_, new) in zip(answer.tool_calls, renamed[:whole], strict=True)
            ],
            "invalid_tool_calls": [
                {**call, "id": new}
                for call, (_, new) in zip(answer.invalid_tool_calls, renamed[whole:], strict=True)
            ],
            "content": _renamed_blocks(answer.content, renamed),
            # Raw calls of the provider, of which tool_calls is the parsed copy: they carry the old ids.
            "additional_kwargs": {k: v for k, v in answer.additional_kwargs.items() if k != "tool_calls"},
        }
    )


def with_arguments(answer: AIMessage, changed: Mapping[str, dict[str, Any]]) -> AIMessage:
    """``answer`` with other arguments for some of its calls, by call id; everything else stays."""
    if not changed:
        return answer
    content: Any = answer.content
    if isinstance(content, list):
        content = [_with_new_arguments(block, changed) for block in content]
    return answer.model_copy(
        update={
            "tool_calls": [
                {**call, "args": changed.get(call["id"] or "", call["args"])} for call in answer.tool_calls
            ],
            "content": content,
            "additional_kwargs": {k: v for k, v in answer.additional_kwargs.items() if k != "tool_calls"},
        }
    )


def without_calls(answer: AIMessage, text: str) -> AIMessage:
    """``answer`` with its words alone, or with ``text`` where it has none."""
    content: Any = answer.content
    if isinstance(content, list):
        content = [block for block in content if not _is_call(block)]
    return answer.model_copy(
        update={
            "content": content if answer.text.strip() else text,
            "tool_calls": [],
            "invalid_tool_calls": [],
            "additional_kwargs": {k: v for k, v in answer.additional_kwargs.items() if k != "tool_calls"},
        }
    )


def _renamed_blocks(content: str | list[Any], renamed: list[tuple[str | None, str]]) -> str | list[Any]:
    """Content in which blocks that stand for calls carry the new ids; each id is used up in order."""
    if isinstance(content, str):
        return content
    left = list(renamed)
    blocks = []
    for block in content:
        pair = next((pair for pair in left if _is_call(block) and pair[0] == block.get("id")), None)
        if pair is not None:
            left.remove(pair)
            blocks.append({**block, "id": pair[1]})
        else:
            blocks.append(block)
    return blocks


def _with_new_arguments(block: Any, changed: Mapping[str, dict[str, Any]]) -> Any:
    if not _is_call(block) or block.get("id") not in changed:
        return block
    return {**block, "input" if block["type"] == "tool_use" else "args": changed[block["id"]]}


def _is_call(block: Any) -> bool:
    return isinstance(block, dict) and block.get("type") in {"tool_call", "tool_use", "invalid_tool_call"}
