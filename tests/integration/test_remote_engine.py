"""`ChatVLLM` over HTTP to a real `vllm serve`: the same as in this process."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import add
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.tools import tool
from vllm_server import KEY, VLLMServer

from agent import ChatVLLM
from agent.errors import ConfigurationError, EngineStartError, ModelNotFoundError, RequestError

pytestmark = pytest.mark.engine


@tool
def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"Sunny in {city}."


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two whole numbers."""
    return a * b


@pytest.fixture(scope="module")
def remote_model(vllm_server: VLLMServer) -> Iterator[ChatVLLM]:
    with ChatVLLM(base_url=vllm_server.base_url, api_key=KEY, temperature=0.0, max_tokens=16) as model:
        yield model


@pytest.fixture(scope="module")
def local_model(request: pytest.FixtureRequest) -> Iterator[ChatVLLM]:
    """The model in this process, with the number format of the server: others round differently."""
    from agent.engines.inprocess import with_platform_defaults

    if with_platform_defaults({}).get("dtype") == "float32":
        yield request.getfixturevalue("real_model")
        return
    small = {"kv_cache_memory_bytes": 512 << 20}
    with ChatVLLM(temperature=0.0, max_tokens=16, dtype="float32", vllm_kwargs=small) as model:
        yield model


THINGS = ["the sea", "a cat", "Paris", "the number 7", "tea", "rain", "a bridge", "snow", "music", "bread"]
CONVERSATIONS: list[tuple[Any, dict[str, Any]]] = [
    *[(f"Tell me about {thing}.", {}) for thing in THINGS],
    *[([SystemMessage("Answer in one word."), HumanMessage(f"What is {thing}?")], {}) for thing in THINGS],
    *[
        ([HumanMessage(f"I like {thing}."), AIMessage("So do I."), HumanMessage("What do I like?")], {})
        for thing in THINGS[:5]
    ],
    ("Count to ten.", {"stop": [" five", "5"]}),
    ("Count to ten.", {"max_tokens": 3}),
    ("Yes or no?", {"structured_outputs": {"choice": ["yes", "no"]}}),
    ("Give me a number.", {"structured_outputs": {"regex": "[0-9]{4}"}}),
    ("Tell me about unicode: ä, 你好, \u2028 and 🙂.", {}),
]


def facts(message: AIMessage) -> dict[str, Any]:
    usage = message.usage_metadata
    assert usage is not None
    return {
        "text": message.text,
        "calls": [(call["name"], call["args"]) for call in message.tool_calls],
        "invalid": [(call["name"], call["args"]) for call in message.invalid_tool_calls],
        "finish": message.response_metadata["finish_reason"],
        "tokens": (usage["input_tokens"], usage["output_tokens"]),
    }


def streamed(model: Any, messages: Any, **options: Any) -> AIMessage:
    total: AIMessage = reduce(add, list(model.stream(messages, **options)))
    return total


def test_it_is_told_which_server_and_which_protocol(remote_model: ChatVLLM, vllm_server: VLLMServer) -> None:
    info = remote_model.start()
    assert (info.kind, info.model) == ("remote", vllm_server.model)
    assert remote_model.protocol == "text"  # its template takes no tools


def test_there_are_thirty_conversations() -> None:
    assert len(CONVERSATIONS) == 30


@pytest.mark.parametrize(("messages", "options"), CONVERSATIONS, ids=range(len(CONVERSATIONS)))
def test_the_same_answer_in_process_and_over_http(
    local_model: ChatVLLM, remote_model: ChatVLLM, messages: Any, options: dict[str, Any]
) -> None:
    given = {"max_tokens": 16, **options}
    expected = facts(local_model.invoke(messages, **given))
    assert facts(remote_model.invoke(messages, **given)) == expected
    assert facts(streamed(remote_model, messages, **given)) == expected
    assert facts(streamed(local_model, messages, **given)) == expected


@pytest.mark.parametrize("choice", ["required", "multiply", "none", "auto"])
def test_the_same_calls_in_process_and_over_http(
    local_model: ChatVLLM, remote_model: ChatVLLM, choice: str
) -> None:
    question = "What is 6 times 7?"
    here, there = (
        model.bind_tools([get_weather, multiply], tool_choice=choice, parallel_tool_calls=False)
        for model in (local_model, remote_model)
    )
    expected = facts(here.invoke(question, max_tokens=64))
    assert facts(there.invoke(question, max_tokens=64)) == expected
    assert facts(streamed(there, question, max_tokens=64)) == expected
    assert facts(streamed(here, question, max_tokens=64)) == expected
    if choice in ("required", "multiply"):
        assert expected["calls"]
    if choice == "multiply":
        assert expected["calls"][0][0] == "multiply"
    if choice == "none":
        assert not expected["calls"]


def test_the_same_count_of_tokens(local_model: ChatVLLM, remote_model: ChatVLLM) -> None:
    messages = [HumanMessage("How many tokens are these?")]
    count = local_model.get_num_tokens_from_messages(messages)
    assert remote_model.get_num_tokens_from_messages(messages) == count
    assert remote_model.get_num_tokens_from_messages(messages, tools=[multiply]) > 30


async def test_many_calls_at_once(remote_model: ChatVLLM) -> None:
    answers = await remote_model.abatch([f"Say {number}." for number in range(24)], max_tokens=8)
    assert len(answers) == 24
    assert all(answer.text for answer in answers)


def test_a_refusal_is_the_servers_own(remote_model: ChatVLLM) -> None:
    with pytest.raises(RequestError, match="8192"):
        remote_model.invoke("word " * 9000)


def test_a_server_that_parses_no_calls_refuses_the_native_protocol(vllm_server: VLLMServer) -> None:
    with (
        ChatVLLM(base_url=vllm_server.base_url, api_key=KEY, protocol="native") as model,
        pytest.raises(RequestError, match="--tool-call-parser"),
    ):
        model.bind_tools([multiply]).invoke("What is 6 times 7?")


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"api_key": "another-key"}, ConfigurationError, "401"),
        ({"model": "another-model"}, ModelNotFoundError, "it serves: smol"),
        ({"path": "/nowhere"}, EngineStartError, "base_url"),
    ],
)
def test_what_is_wrong_is_said(
    vllm_server: VLLMServer, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    address = vllm_server.base_url + options.get("path", "")
    others = {name: value for name, value in options.items() if name != "path"}
    model = ChatVLLM(**{"base_url": address, "api_key": KEY, **others})
    with model, pytest.raises(error, match=says):
        model.invoke("Hi")
