"""Streams of servers that say more than once what vLLM says once."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any

from langchain_core.messages import AIMessageChunk

from agent.chat.chunks import ChunkConverter


def chunk(content: str = "", *, finish: str | None = None, tokens: int = 0, **delta: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": content, **delta}, "finish_reason": finish}
    told = {"prompt_tokens": 7, "completion_tokens": tokens, "prompt_tokens_details": {"cached_tokens": 4}}
    return {"id": "r1", "model": "m", "choices": [choice], "usage": told if tokens else None}


def streamed(*chunks: dict[str, Any]) -> AIMessageChunk:
    converter = ChunkConverter()
    converted = [one for each in chunks for one in converter.convert(each)] + converter.end()
    message = reduce(add, (one.message for one in converted))
    assert isinstance(message, AIMessageChunk)
    return message


def test_counts_of_tokens_that_grow_with_each_chunk_are_not_summed_up() -> None:
    parts = [chunk("a", tokens=1), chunk("b", tokens=2), chunk(finish="stop", tokens=3)]
    message = streamed(*parts, {**chunk(tokens=3), "choices": []})
    usage = message.usage_metadata
    assert usage is not None
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (7, 3, 10)
    assert usage["input_token_details"] == {"cache_read": 4}


def test_a_count_of_tokens_beside_an_empty_piece_is_kept() -> None:
    message = streamed(chunk("a"), chunk(finish="stop"), chunk(tokens=3))
    assert message.usage_metadata is not None
    assert message.usage_metadata["total_tokens"] == 10


def test_an_end_that_is_told_twice_is_one() -> None:
    open_call = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a": '}}]}
    message = streamed(chunk(**open_call), chunk(finish="length"), chunk(finish="length"))
    assert message.response_metadata["finish_reason"] == "length"
    assert message.response_metadata["model_name"] == "m"
    assert [call["args"] for call in message.invalid_tool_calls] == ['{"a": ]']


def part(arguments: str, *, name: str | None = "f", identity: str | None = None, index: int = 0) -> Any:
    call = {"index": index, "id": identity, "function": {"name": name, "arguments": arguments}}
    return chunk(tool_calls=[call])


def test_calls_that_all_have_the_number_0_are_told_apart_by_their_ids() -> None:
    parts = [part('{"a": 1}', identity="x"), part('{"a": ', identity="y"), part("2}", name=None)]
    message = streamed(*parts, part('{"a": 3}', identity="z", index=1), chunk(finish="tool_calls"))
    assert [(call["id"], call["args"]) for call in message.tool_calls] == [
        ("x", {"a": 1}),
        ("y", {"a": 2}),
        ("z", {"a": 3}),
    ]


def test_calls_that_all_have_the_number_0_are_told_apart_where_one_has_no_arguments() -> None:
    parts = [part("", name="now", identity="x"), part('{"a": 1}', identity="y")]
    message = streamed(*parts, chunk(finish="tool_calls"))
    assert [(call["name"], call["args"]) for call in message.tool_calls] == [("now", {}), ("f", {"a": 1})]


def test_a_name_that_is_said_with_each_piece_is_said_once() -> None:
    for other in ("x", "y"):  # servers that draw a new id for each piece are told from those above
        message = streamed(
            part('{"a": ', identity="x"), part("1}", identity=other), chunk(finish="tool_calls")
        )
        [call] = message.tool_calls
        assert (call["name"], call["args"], call["id"]) == ("f", {"a": 1}, "x")
