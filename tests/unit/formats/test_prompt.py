"""The two prompts of the text protocol, word for word where a model's behaviour hangs on it."""

from __future__ import annotations

from typing import Any

import pytest

from agent.formats.spans import content_span
from agent.formats.text.prompt import answer_prompt, call_prompt

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add\n two numbers.",
        "parameters": {
            "type": "object",
            "properties": {
                "a": {"type": "integer", "description": "The first."},
                "b": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                "unit": {"enum": ["m", "km"]},
                "list": {"type": "array", "items": {"type": "number"}},
            },
            "required": ["a", "b"],
        },
    },
}
SEARCH = {
    "type": "function",
    "function": {
        "name": "search",
        "parameters": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    },
}
CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a":1,"b":2}'}}
CONVERSATION: list[dict[str, Any]] = [
    {"role": "user", "content": "What is 1 + 2?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]},
    {"role": "tool", "name": "add", "tool_call_id": "1", "content": "3"},
    {"role": "tool", "name": "add", "tool_call_id": "2", "content": [{"type": "text", "text": "three"}]},
    {"role": "assistant", "content": "It is 3."},
    {"role": "user", "content": "Thanks!"},
]


def test_tools_are_listed_with_their_parameters() -> None:
    [system] = call_prompt([], [ADD])
    assert system["role"] == "system"
    assert system["content"].startswith(
        "AVAILABLE TOOLS:\n- add: Add two numbers.\n"
        '  Parameters: a (integer): The first.; b (integer or null); unit (one of "m", "km", optional);'
        " list (array of number, optional)\n\nINSTRUCTIONS:\n"
    )


def test_a_conversation_with_calls_takes_turns() -> None:
    line = 'TOOL_CALL: {"name": "add", "arguments": {"a": 1, "b": 2}}'
    assert call_prompt(CONVERSATION, [ADD])[1:] == [
        {"role": "user", "content": "What is 1 + 2?"},
        {"role": "assistant", "content": f"{line}\n{line}"},
        {"role": "user", "content": "Tool Result (add): 3\nTool Result (add): three"},
        {"role": "assistant", "content": "It is 3."},
        {"role": "user", "content": "Thanks!"},
    ]


def test_answers_see_results_and_no_calls() -> None:
    now = "Answer the question with the tool result."
    assert answer_prompt(CONVERSATION) == [
        {
            "role": "user",
            "content": f"What is 1 + 2?\n\nTool Result (add): 3\nTool Result (add): three\n\n{now}",
        },
        {"role": "assistant", "content": "It is 3."},
        {"role": "user", "content": "Thanks!"},
    ]


def test_a_result_leaves_the_image_of_the_question() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    result = {"role": "tool", "name": "add", "tool_call_id": "1", "content": "3"}
    call = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    asked = {"type": "text", "text": "How many?"}
    first, last = (
        [{"role": "user", "content": blocks}, call, result] for blocks in ([image, asked], [image])
    )
    now = "Answer the question with the tool result."
    assert answer_prompt(first)[0]["content"] == [
        image,
        {"type": "text", "text": f"How many?\n\nTool Result (add): 3\n\n{now}"},
    ]
    assert answer_prompt(last)[0]["content"] == [
        image,
        {"type": "text", "text": f"Tool Result (add): 3\n\n{now}"},
    ]
    later = [*first, {"role": "assistant", "content": "3"}, {"role": "user", "content": [image, asked]}, call]
    assert answer_prompt([*later, result])[-1]["content"][0] == image
    assert first[0]["content"] == [image, asked]  # the conversation itself is not changed


def test_every_turn_begins_with_the_turn_before() -> None:
    for prompt in (lambda messages: call_prompt(messages, [ADD, SEARCH]), answer_prompt):
        later = prompt(CONVERSATION)
        assert later[: len(prompt(CONVERSATION[:5]))] == prompt(CONVERSATION[:5])


def test_examples_are_shown_where_a_tool_takes_one_text() -> None:
    assert len(call_prompt([], [ADD])) == 1
    examples = call_prompt([], [ADD, SEARCH])[1:]
    assert [message["role"] for message in examples] == ["user", "assistant"] * 3
    assert all("TOOL_CALL: {" in message["content"] for message in examples[1::2])


@pytest.mark.parametrize("arguments", ['{"a": 1', pytest.param("[" * 100_000, id="deep")])
def test_a_broken_call_is_shown_as_it_was(arguments: str) -> None:
    broken = {"id": "1", "type": "function", "function": {"name": "add", "arguments": arguments}}
    [_, message] = call_prompt([{"role": "assistant", "content": "Well.", "tool_calls": [broken]}], [ADD])
    assert message["content"] == f'Well.\nTOOL_CALL: {{"name": "add", "arguments": {arguments}}}'


def test_the_span_of_a_content() -> None:
    assert content_span([1, 2, 7, 8, 9, 3], [1, 2, 3]) == slice(2, 5)
    assert content_span([1, 2, 3], [1, 2, 3]) == slice(3, 3)
    assert content_span([1, 2, 2, 3], [1, 2, 3]) == slice(2, 3)
    assert content_span([5, 5, 5], [5]) == slice(1, 3)
