"""From the wire to LangChain: whole answers and streams give the same message."""

from __future__ import annotations

import json
from functools import reduce
from operator import add
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk

from agent.chat.chunks import ChunkConverter, mismatched_ending
from agent.chat.expected import Expected
from agent.chat.responses import chat_result, parse_call, usage_metadata

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def wire_call(arguments: str, name: str = "add", identity: str = "c1") -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def whole(finish: str = "stop", expected: Expected | None = None, **message: Any) -> AIMessage:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    result = chat_result({"id": "r1", "model": "m", "choices": [choice], "usage": USAGE}, expected)
    message_ = result.generations[0].message
    assert isinstance(message_, AIMessage)
    return message_


def streamed(
    deltas: list[dict[str, Any]], finish: str | None = "stop", expected: Expected | None = None
) -> AIMessageChunk:
    converter = ChunkConverter(expected)
    chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    chunks.append({"choices": [], "usage": USAGE})
    messages = [one.message for c in chunks for one in converter.convert({"id": "r1", "model": "m", **c})]
    total = reduce(add, messages)
    assert isinstance(total, AIMessageChunk)
    return total


def call_deltas(arguments: str, size: int) -> list[dict[str, Any]]:
    head = {**wire_call(""), "index": 0}
    pieces = [arguments[i : i + size] for i in range(0, len(arguments), size)]
    rest = [{"index": 0, "function": {"arguments": piece}} for piece in pieces]
    return [{"tool_calls": [call]} for call in [head, *rest]]


def test_a_text() -> None:
    message = whole(content="Hello")
    assert (message.content, message.id, message.tool_calls) == ("Hello", "r1", [])
    assert message.response_metadata["finish_reason"] == "stop"
    assert message.response_metadata["model_name"] == "m"
    assert message.usage_metadata == {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}


def test_an_empty_answer() -> None:
    assert whole(content=None).content == ""


def test_several_answers_share_one_usage() -> None:
    choices = [{"index": i, "message": {"content": f"{i}"}, "finish_reason": "stop"} for i in range(3)]
    result = chat_result({"id": "r", "choices": choices, "usage": USAGE})
    messages = [generation.message for generation in result.generations]
    assert [message.content for message in messages] == ["0", "1", "2"]
    assert [bool(message.usage_metadata) for message in messages] == [True, False, False]  # type: ignore[attr-defined]


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content"])
def test_reasoning_is_a_block_of_its_own(key: str) -> None:
    for message in (
        whole(content="42", **{key: "Hm."}),
        streamed([{key: "H"}, {key: "m."}, {"content": "42"}]),
    ):
        assert [block["type"] for block in message.content_blocks] == ["reasoning", "text"]
        assert message.content_blocks[0]["reasoning"] == "Hm."
        assert message.text == "42"


def test_calls() -> None:
    message = whole("tool_calls", content="", tool_calls=[wire_call('{"a": 1}'), wire_call("", "now", "c2")])
    assert [(call["name"], call["args"], call["id"]) for call in message.tool_calls] == [
        ("add", {"a": 1}, "c1"),
        ("now", {}, "c2"),
    ]


@pytest.mark.parametrize(
    ("arguments", "finish", "says"),
    [
        ('{"a": 1', "stop", "no valid JSON"),
        ('{"a": 1', "length", "cut off at its token limit"),
        ("[1]", "stop", "must be a JSON object"),
        ('"text"', "stop", "must be a JSON object"),
        ("a=1", "stop", "no valid JSON"),
        (f'{{"a": {"[" * 300}{"]" * 300}}}', "stop", "nested too deeply"),
    ],
)
def test_a_call_that_is_none_is_never_executed(arguments: str, finish: str, says: str) -> None:
    message = whole(finish, content="", tool_calls=[wire_call(arguments)])
    assert message.tool_calls == []
    [invalid] = message.invalid_tool_calls
    assert (invalid["name"], invalid["args"], invalid["id"]) == ("add", arguments, "c1")
    assert says in (invalid["error"] or "")


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_a_streamed_call_is_the_whole_one(size: int) -> None:
    arguments = '{"a": [1, {"b": "}]\\""}], "c": "ü"}'
    message = streamed(call_deltas(arguments, size), "tool_calls")
    expected = whole("tool_calls", content="", tool_calls=[wire_call(arguments)])
    assert message.tool_calls == expected.tool_calls
    assert message.invalid_tool_calls == []
    assert message.response_metadata == expected.response_metadata
    assert message.usage_metadata == expected.usage_metadata


ARGUMENTS = '{"path": "a\\\\b \\"c\\"", "lines": [1, [2, {"x": null}]], "deep": {"y": {"z": "}]"}}}'


@pytest.mark.parametrize("end", range(1, len(ARGUMENTS)))
def test_a_streamed_call_that_was_cut_off_is_invalid(end: int) -> None:
    message = streamed(call_deltas(ARGUMENTS[:end], 3), "length")
    assert message.tool_calls == []
    assert [call["name"] for call in message.invalid_tool_calls] == ["add"]


def test_a_call_that_no_saver_could_store_is_invalid_however_it_comes() -> None:
    deep = f'{{"a": {"[" * 300}{"]" * 300}}}'
    text = f'TOOL_CALL: {{"name": "add", "arguments": {deep}}}'
    expected = Expected([{"function": {"name": "add", "parameters": {"type": "object"}}}])
    for message in (
        streamed(call_deltas(deep, 50), "tool_calls"),
        streamed([{"content": text}], "stop", expected),
        whole(content=text, expected=expected),
    ):
        assert message.tool_calls == []
        assert [call["name"] for call in message.invalid_tool_calls] == ["add"]
    shallow = f'{{"a": [{", ".join(["[[[]]]"] * 100)}], "b": "{"[" * 300}"}}'
    assert whole(content="", tool_calls=[wire_call(shallow)]).tool_calls


def test_only_the_open_one_of_two_streamed_calls_is_invalid() -> None:
    second = [{"tool_calls": [{**wire_call('{"a', "late", "c2"), "index": 1}]}]
    message = streamed([*call_deltas('{"a": 1}', 4), *second], "length")
    assert [call["name"] for call in message.tool_calls] == ["add"]
    assert [call["name"] for call in message.invalid_tool_calls] == ["late"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), values, min_size=1, max_size=3), st.data())
def test_any_call_survives_any_split_and_no_cut_is_executed(
    value: dict[str, Any], data: st.DataObject
) -> None:
    text = json.dumps(value, ensure_ascii=data.draw(st.booleans()))
    size = data.draw(st.integers(1, len(text)))
    assert streamed(call_deltas(text, size), "tool_calls").tool_calls[0]["args"] == value
    assert mismatched_ending(text) == ""
    cut = text[: data.draw(st.integers(1, len(text) - 1))]
    assert streamed(call_deltas(cut, size), "length").tool_calls == []


def test_chunks_that_say_nothing_are_left_out() -> None:
    assert (
        ChunkConverter().convert({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        == []
    )
    assert ChunkConverter().convert({"choices": []}) == []


def test_logprobs_are_kept() -> None:
    logprobs = {"content": [{"token": "Hi", "logprob": -0.1, "top_logprobs": []}]}
    choice = {"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop", "logprobs": logprobs}
    result = chat_result({"choices": [choice]})
    assert result.generations[0].message.response_metadata["logprobs"] == logprobs
    [chunk] = ChunkConverter().convert({"choices": [{**choice, "delta": {"content": "Hi"}}]})
    assert chunk.message.response_metadata["logprobs"] == logprobs


def test_cached_and_reasoning_tokens() -> None:
    usage = {
        **USAGE,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    metadata = usage_metadata(usage)
    assert metadata is not None
    assert metadata["input_token_details"] == {"cache_read": 4}
    assert metadata["output_token_details"] == {"reasoning": 2}
    assert usage_metadata(None) is None
    assert usage_metadata({**USAGE, "prompt_tokens_details": None}) == usage_metadata(USAGE)


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -1, None, "7", [7]])
@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens", "total_tokens"])
def test_counts_that_are_none_cost_no_answer(name: str, broken: Any) -> None:
    choice = {"index": 0, "message": {"content": "Hi"}, "delta": {"content": "Hi"}, "finish_reason": "stop"}
    answer = {"id": "r", "choices": [choice], "usage": {**USAGE, name: broken}}
    whole = chat_result(answer).generations[0].message
    [chunk] = ChunkConverter().convert(answer)
    assert whole.text == chunk.message.text == "Hi"
    known = usage_metadata(USAGE) if name == "total_tokens" else None  # which is the sum of the others
    assert whole.usage_metadata == chunk.message.usage_metadata == known  # type: ignore[attr-defined]
    assert usage_metadata({**USAGE, "prompt_tokens_details": {"cached_tokens": broken}}) == (
        usage_metadata(USAGE)
    )


@pytest.mark.parametrize("arguments", ["{}", "{"])
def test_the_number_of_a_call_is_its_id(arguments: str) -> None:
    call = {**wire_call(arguments), "id": 7, "index": 0}
    [whole] = chat_result({"choices": [{"message": {"tool_calls": [call]}}]}).generations
    [chunk] = ChunkConverter().convert({"choices": [{"delta": {"tool_calls": [call]}}]})
    assert isinstance(whole.message, AIMessage)
    assert [one["id"] for one in (*whole.message.tool_calls, *whole.message.invalid_tool_calls)] == ["7"]
    assert [one["id"] for one in chunk.message.tool_call_chunks] == ["7"]  # type: ignore[attr-defined]


def test_parse_call_takes_no_arguments_for_an_empty_object() -> None:
    assert parse_call(wire_call(""), truncated=False)["args"] == {}


def test_several_answers_have_ids_of_their_own() -> None:
    choices = [{"index": i, "message": {"content": f"{i}"}, "finish_reason": "stop"} for i in range(3)]
    result = chat_result({"id": "r", "choices": choices, "usage": USAGE})
    assert [generation.message.id for generation in result.generations] == ["r", "r-1", "r-2"]


@pytest.mark.parametrize(
    ("finish", "calls", "told"),
    [
        ("stop", [], "stop"),
        ("tool_calls", [], "stop"),  # a server may say so of an answer that holds none
        ("stop", ["{}"], "tool_calls"),  # as vLLM does where one tool was named
        ("tool_calls", ["{}"], "tool_calls"),
        ("length", [], "length"),
        ("length", ["{}"], "length"),
    ],
)
def test_why_an_answer_ended(finish: str, calls: list[str], told: str) -> None:
    message = whole(finish, content="", tool_calls=[wire_call(arguments) for arguments in calls])
    deltas = [delta for arguments in calls for delta in call_deltas(arguments, 1)]
    for one in (message, streamed(deltas, finish)):
        assert one.response_metadata["finish_reason"] == told


def test_log_probabilities_of_a_stream_are_those_of_the_whole() -> None:
    tokens = [{"token": word, "logprob": -0.5, "top_logprobs": []} for word in ("a", "b", "c")]
    converter = ChunkConverter()
    chunks: list[dict[str, Any]] = [
        {"delta": {"content": one["token"]}, "logprobs": {"content": [one]}, "index": 0} for one in tokens[:2]
    ]
    chunks.append({"delta": {}, "logprobs": {"content": tokens[2:]}, "finish_reason": "length", "index": 0})
    message = reduce(add, [one.message for c in chunks for one in converter.convert({"choices": [c]})])
    assert message.response_metadata["logprobs"] == {"content": tokens}
    assert message.response_metadata["finish_reason"] == "length"


# -- calls that the parser missed ---------------------------------------------------------------------------

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
ADD_TOOL = {"type": "function", "function": {"name": "add", "parameters": SCHEMA}}
OTHER_TOOL = {"type": "function", "function": {"name": "other", "parameters": SCHEMA}}
CALL = '{"name": "add", "arguments": {"a": 1}}'
AUTO = Expected([ADD_TOOL, OTHER_TOOL])


def both(
    content: str = "", reasoning: str = "", finish: str = "stop", expected: Expected = AUTO, size: int = 3
) -> tuple[AIMessage, AIMessageChunk]:
    pieces = [{"reasoning": reasoning[i : i + size]} for i in range(0, len(reasoning), size)]
    pieces += [{"content": content[i : i + size]} for i in range(0, len(content), size)]
    return whole(finish, expected, content=content, reasoning=reasoning), streamed(pieces, finish, expected)


def summary(message: AIMessage) -> Any:
    calls = [(call["name"], call["args"]) for call in message.tool_calls]
    broken = [call["name"] for call in message.invalid_tool_calls]
    reasoning = [block for block in message.content_blocks if block["type"] == "reasoning"]
    return message.content, calls, broken, message.response_metadata["finish_reason"], reasoning


@pytest.mark.parametrize(
    ("content", "reasoning", "finish", "left", "calls", "broken", "told"),
    [
        (CALL, "", "stop", "", 1, 0, "tool_calls"),
        (f"So:\n```json\n{CALL}\n```", "", "stop", "So:", 1, 0, "tool_calls"),
        ("", f"Hm.\n{CALL}", "stop", "", 1, 0, "tool_calls"),
        ("Yes.", f"Hm.\n{CALL}", "stop", "Yes.", 0, 0, "stop"),
        (CALL, f"Hm.\n{CALL}", "stop", "", 1, 0, "tool_calls"),
        (CALL[:-4], "", "length", "", 0, 1, "length"),
        ('{"name": "add", "arguments": {"a": "x"}}', "", "stop", "", 0, 1, "tool_calls"),
        (
            '{"name": "subtract", "arguments": {}}',
            "",
            "stop",
            '{"name": "subtract", "arguments": {}}',
            0,
            0,
            "stop",
        ),
        ("Just words.", "", "stop", "Just words.", 0, 0, "stop"),
    ],
)
def test_missed_calls_are_recovered_whole_and_streamed(
    content: str, reasoning: str, finish: str, left: str, calls: int, broken: int, told: str
) -> None:
    for size in (1, 4, 1000):
        message, chunk = both(content, reasoning, finish, size=size)
        assert summary(message) == summary(chunk)
        assert (message.content, len(message.tool_calls), len(message.invalid_tool_calls)) == (
            left,
            calls,
            broken,
        )
        assert message.response_metadata["finish_reason"] == told
        assert all(call["id"] for call in [*message.tool_calls, *message.invalid_tool_calls])


@given(
    st.text(max_size=6),
    st.sampled_from([CALL, CALL[:-3], f"<tool_call>{CALL}", ""]),
    st.text(max_size=6),
    st.integers(1, 9),
)
def test_streams_and_whole_answers_always_agree(before: str, call: str, after: str, size: int) -> None:
    message, chunk = both(f"{before}\n{call}\n{after}", before, size=size)
    assert summary(message) == summary(chunk)


def test_the_parsers_own_calls_come_first() -> None:
    native = wire_call('{"a": 2}')
    message = whole("tool_calls", AUTO, content=f"{CALL}\n", tool_calls=[native])
    head, *rest = call_deltas('{"a": 2}', 3)
    chunk = streamed([{"content": CALL}, {"content": "\n"}, head, *rest], "tool_calls", AUTO)
    assert summary(message) == summary(chunk)
    assert [call["args"] for call in message.tool_calls] == [{"a": 2}]
    assert message.content == f"{CALL}\n"


def test_nothing_is_recovered_where_no_call_was_asked_for() -> None:
    for request in ({"messages": []}, {"tools": [ADD_TOOL], "tool_choice": "none"}):
        message, chunk = both(CALL, expected=Expected.of(request))
        assert message.content == chunk.content == CALL


def test_only_the_named_tool_and_only_so_many_calls() -> None:
    named = {"type": "function", "function": {"name": "other"}}
    expected = Expected.of({"tools": [ADD_TOOL, OTHER_TOOL], "tool_choice": named})
    message, _ = both(CALL, expected=expected)
    assert message.tool_calls == []
    single = Expected.of({"tools": [ADD_TOOL], "parallel_tool_calls": False})
    for one in both(f"{CALL}\n{CALL}", expected=single):
        assert len(one.tool_calls) == 1


@pytest.mark.parametrize(("finish", "says"), [("length", "cut off"), ("stop", "holds none")])
def test_a_call_that_was_required_and_is_not_there_is_invalid(finish: str, says: str) -> None:
    expected = Expected.of({"tools": [ADD_TOOL], "tool_choice": "required"})
    message, chunk = both("", "I think and think", finish, expected)
    assert summary(message)[:3] == summary(chunk)[:3] == ("", [], ["add"])
    assert says in str(message.invalid_tool_calls[0]["error"])
    several = Expected.of({"tools": [ADD_TOOL, OTHER_TOOL], "tool_choice": "required"})
    message, chunk = both("No.", "", "stop", several)
    assert summary(message)[:3] == summary(chunk)[:3] == ("No.", [], [None])


def test_a_call_that_a_parser_swallowed_when_it_was_cut_off_is_not_silence() -> None:
    message, chunk = both("", "", "length")
    assert summary(message)[:3] == summary(chunk)[:3] == ("", [], [None])
    assert message.response_metadata["finish_reason"] == "length"
