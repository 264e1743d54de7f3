"""Which tools a question is about, on an engine whose likelihoods are written down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agent.engines import Reply, ScriptedEngine
from agent.formats.text.decision import FURTHER, THRESHOLD, tools_asked_for
from agent.formats.text.engine import TextToolEngine


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": f"The tool {name}."}}


TOOLS = [tool("add"), tool("read"), tool("write"), tool("clock")]


class Likely(ScriptedEngine):
    """A token per character; a question is as likely as its entry says for the tools that are named."""

    def __init__(self, likelihoods: Mapping[str, float], *script: Any) -> None:
        super().__init__(list(script))
        self.likelihoods = likelihoods

    async def render(self, request: Mapping[str, Any]) -> list[int]:
        return [ord(character) for message in request["messages"] for character in message["content"]]

    async def chat(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if "prompt_logprobs" not in request:
            return await super().chat(request)
        prompt = request["messages"][-1]["content"]
        frame, question = prompt.rsplit("REQUEST: ", 1)
        named = "+".join(t["function"]["name"] for t in TOOLS if f"- {t['function']['name']}(" in frame)
        each = self.likelihoods.get(named, 0.0) / len(question)
        positions: list[Any] = [None, *({str(ord(c)): {"logprob": -9.0}} for c in prompt[1:])]
        for place in range(len(prompt) - len(question), len(prompt)):
            positions[place] = {str(ord(prompt[place])): {"logprob": each}}
        return {"prompt_logprobs": positions}


async def asked(likelihoods: Mapping[str, float], question: str = "How?", **options: Any) -> list[str]:
    messages = [{"role": "user", "content": question}]
    tools = await tools_asked_for(Likely(likelihoods), messages, TOOLS, **options)
    return [one["function"]["name"] for one in tools]


ENOUGH, TOO_LITTLE = THRESHOLD + 0.1, THRESHOLD - 0.1


async def test_the_likeliest_tool_is_taken_if_it_says_enough() -> None:
    assert await asked({"add": ENOUGH}) == ["add"]
    assert await asked({"add": TOO_LITTLE}) == []
    assert await asked({"read": 7.0, "write": 5.0}) == ["read"]


async def test_what_is_said_without_a_tool_counts_against_it() -> None:
    assert await asked({"": 3.0, "add": 3.0 + TOO_LITTLE, "read": 3.0, "write": 3.0, "clock": 3.0}) == []
    assert await asked({"": 3.0, "add": 3.0 + ENOUGH, "read": 3.0, "write": 3.0, "clock": 3.0}) == ["add"]


async def test_a_question_that_any_tool_makes_likelier_is_about_none() -> None:
    assert await asked({"add": 4.0, "read": 4.5, "write": 4.2, "clock": 4.3}) == []


async def test_a_required_call_takes_the_best_tool_whatever_it_says() -> None:
    assert await asked({"add": -5.0, "read": -3.0, "write": -4.0, "clock": -9.0}, least=1) == ["read"]


async def test_a_second_tool_must_explain_more() -> None:
    both = {"add": 5.0, "clock": 3.0}
    assert await asked({**both, "add+clock": 5.0 + FURTHER + 0.1}, most=2) == ["add", "clock"]
    assert await asked({**both, "add+clock": 5.0 + FURTHER - 0.1}, most=2) == ["add"]
    assert await asked({**both, "add+clock": 9.0}, most=1) == ["add"]
    assert await asked({"add": 5.0, "clock": TOO_LITTLE, "add+clock": 9.0}, most=2) == ["add"]


@pytest.mark.parametrize(
    "messages", [[], [{"role": "tool", "content": "12"}], [{"role": "user", "content": " "}]]
)
async def test_without_a_question_no_tool_is_asked_for(messages: list[Any]) -> None:
    assert await tools_asked_for(Likely({"add": 9.0}), messages, TOOLS) == []


class TestTextToolEngine:
    """Tools in the request, calls in the answer, on an engine that only writes text."""

    LINE = 'TOOL_CALL: {"name": "add", "arguments": {"a": 1}}'

    @staticmethod
    def request(choice: Any = "auto", **more: Any) -> dict[str, Any]:
        messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "How?"}]
        return {"messages": messages, "tools": TOOLS, "tool_choice": choice, **more}

    async def test_a_call_is_read_from_the_text(self) -> None:
        inner = Likely({"add": 5.0}, self.LINE)
        response = await TextToolEngine(inner).chat(self.request())
        [choice] = response["choices"]
        [call] = choice["message"]["tool_calls"]
        assert call["function"] == {"name": "add", "arguments": '{"a": 1}'}
        assert (choice["message"]["content"], choice["finish_reason"]) == ("", "tool_calls")
        [sent] = inner.requests
        assert "tools" not in sent
        assert "root ::= call_" in sent["structured_outputs"]["grammar"]
        assert sent["messages"][0]["content"].startswith("Be kind.\n\nAVAILABLE TOOLS:\n- add: The tool add.")

    async def test_a_stream_gives_the_same_call(self) -> None:
        chunks = [
            chunk
            async for chunk in TextToolEngine(Likely({"add": 5.0}, self.LINE)).stream_chat(self.request())
        ]
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        calls = [call for choice in choices for call in choice["delta"].get("tool_calls", ())]
        assert calls[0]["function"]["name"] == "add"
        assert "".join(call["function"]["arguments"] for call in calls) == '{"a": 1}'
        assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["tool_calls"]
        assert not any(choice["delta"].get("content") for choice in choices)
        assert chunks[-1]["usage"]

    async def test_an_answer_is_asked_for_without_tools_or_calls(self) -> None:
        inner = Likely({}, "Fine.")
        response = await TextToolEngine(inner).chat(self.request())
        assert response["choices"][0]["message"]["content"] == "Fine."
        [sent] = inner.requests
        assert "AVAILABLE TOOLS" not in str(sent["messages"])
        assert "structured_outputs" not in sent
        assert sent["bad_words"] == ["TOOL_CALL"]

    @pytest.mark.parametrize(
        ("choice", "more", "grammar"),
        [
            ("required", {}, ["read"]),
            ("required", {"parallel_tool_calls": True}, ["read"]),
            ({"type": "function", "function": {"name": "clock"}}, {}, ["clock"]),
        ],
    )
    async def test_choices(self, choice: Any, more: dict[str, Any], grammar: list[str]) -> None:
        inner = Likely({"read": -1.0, "add": -5.0, "write": -5.0, "clock": -5.0}, self.LINE)
        await TextToolEngine(inner).chat(self.request(choice, **more))
        text = inner.requests[0]["structured_outputs"]["grammar"]
        assert [t["function"]["name"] for t in TOOLS if f'\\"{t["function"]["name"]}\\"' in text] == grammar
        assert (")*" in text.splitlines()[0]) is bool(more)

    async def test_none_never_calls(self) -> None:
        inner = Likely({"add": 9.0}, Reply("No."))
        response = await TextToolEngine(inner).chat(self.request("none"))
        assert "tool_calls" not in response["choices"][0]["message"]

    async def test_a_call_with_texts_is_written_freely_and_from_the_conversation(self) -> None:
        parameters = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
        ask = {"type": "function", "function": {"name": "ask", "parameters": parameters}}
        line = 'TOOL_CALL: {"name": "ask", "arguments": {"text": "How"}}'
        for more, copying in (
            ({"parallel_tool_calls": False}, [False, True]),
            ({}, [True, False, True]),  # how often, then both ways
            ({"parallel_tool_calls": True}, [True, False, True]),
            ({"n": 2}, [False]),
            ({"logprobs": True}, [False]),
        ):
            inner = Likely({}, *[line] * 3)
            request = self.request("required", **more) | {"tools": [ask]}
            response = await TextToolEngine(inner).chat(request)
            [call] = response["choices"][0]["message"]["tool_calls"]
            assert call["function"] == {"name": "ask", "arguments": '{"text": "How"}'}
            grammars = [sent["structured_outputs"]["grammar"] for sent in inner.requests]
            assert ["said_0 ::=" in grammar for grammar in grammars] == copying, more
            assert len({str(sent["messages"]) for sent in inner.requests}) == 1  # one prompt for the cache

    async def test_only_the_question_says_how_often_a_tool_is_called(self) -> None:
        parameters = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        double = {"type": "function", "function": {"name": "double", "parameters": parameters}}
        calls = [f'TOOL_CALL: {{"name": "double", "arguments": {{"n": {n}}}}}' for n in (7, 5, 7, 5)]
        written = ["\n".join(calls[:2]), "\n".join(calls), "\n".join(calls[:2])]
        earlier = [{"role": "user", "content": "Double 5."}, {"role": "assistant", "content": "10"}]
        for messages, count in (
            ([{"role": "user", "content": "Double 7 and 5."}], 2),
            ([*earlier, {"role": "user", "content": "Double 7."}], 1),
        ):
            inner = Likely({}, *written)
            request = {"messages": messages, "tools": [double], "tool_choice": "required"}
            await TextToolEngine(inner).chat(request)
            root = inner.requests[-1]["structured_outputs"]["grammar"].split("\n")[0]
            assert root.count("call_") == count
