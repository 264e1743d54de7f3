"""``ChatVLLM`` on real vLLM with the embedded model: both protocols, all ways to choose a tool, streaming."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool

from agent import ChatVLLM, create_vllm_chat_model
from agent.catalogue.embedded import embedded_model
from agent.errors import EngineClosedError, RequestError
from tools import default_registry

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def tools() -> list[BaseTool]:
    return list(default_registry())


def called(message: BaseMessage) -> list[tuple[str, dict[str, Any]]]:
    assert isinstance(message, AIMessage)
    assert not message.invalid_tool_calls
    return [(call["name"], call["args"]) for call in message.tool_calls]


def test_it_answers_and_counts_tokens(real_model: ChatVLLM) -> None:
    answer = real_model.invoke("Hello!")
    assert answer.text.strip()
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_tokens"] == real_model.get_num_tokens_from_messages(
        [HumanMessage("Hello!")]
    )
    assert answer.response_metadata["finish_reason"] in ("stop", "length")
    assert real_model.protocol == "text"


def test_tokens_of_a_text(real_model: ChatVLLM) -> None:
    once, twice = real_model.get_token_ids("hello"), real_model.get_token_ids("hello hello")
    assert len(once) == 1
    assert len(twice) == 2
    assert twice[0] == once[0]


@pytest.mark.parametrize(
    ("question", "calls"),
    [
        ("What is 15 * 23?", [("calculator", {"expression": "15 * 23"})]),
        ("What time is it in Tokyo?", [("current_time", {"place": "Tokyo"})]),
        ("Hello!", []),
        ("Who are you?", []),
        ("Write a poem about the sea", []),
    ],
)
def test_auto_calls_the_right_tool_or_answers(
    real_model: ChatVLLM, tools: list[BaseTool], question: str, calls: list[tuple[str, dict[str, Any]]]
) -> None:
    message = real_model.bind_tools(tools).invoke(question)
    assert called(message) == calls
    assert bool(message.text) is not bool(calls)


def test_several_calls_in_one_answer(real_model: ChatVLLM, tools: list[BaseTool]) -> None:
    message = real_model.bind_tools(tools).invoke("What is 15 * 23 and what time is it in Tokyo?")
    assert [name for name, _ in called(message)] == ["calculator", "current_time"]
    assert len({call["id"] for call in message.tool_calls}) == 2


def test_parallel_tool_calls_can_be_refused(real_model: ChatVLLM, tools: list[BaseTool]) -> None:
    bound = real_model.bind_tools(tools, parallel_tool_calls=False)
    assert len(called(bound.invoke("What is 15 * 23 and what time is it in Tokyo?"))) == 1


@pytest.mark.parametrize(
    ("choice", "names"),
    [("required", {"calculator"}), ("any", {"calculator"}), ("read_file", {"read_file"}), ("none", set())],
)
def test_tool_choice(real_model: ChatVLLM, tools: list[BaseTool], choice: str, names: set[str]) -> None:
    message = real_model.bind_tools(tools, tool_choice=choice).invoke("What is 15 * 23?")
    assert {name for name, _ in called(message)} == names


def test_required_calls_even_where_nothing_fits(real_model: ChatVLLM, tools: list[BaseTool]) -> None:
    message = real_model.bind_tools(tools, tool_choice="required").invoke("Hello!")
    assert isinstance(message, AIMessage)
    assert message.tool_calls or message.invalid_tool_calls  # it may run into the token limit


def test_a_result_is_used_in_the_answer(real_model: ChatVLLM, tools: list[BaseTool]) -> None:
    bound = real_model.bind_tools(tools)
    question = HumanMessage("What is 15 * 23?")
    call = bound.invoke([question])
    result = ToolMessage("15 * 23 = 345", tool_call_id=call.tool_calls[0]["id"], name="calculator")
    answer = bound.invoke([question, call, result])
    assert not called(answer)
    assert "345" in answer.text


def test_a_streamed_call_comes_in_deltas_and_is_the_same(real_model: ChatVLLM, tools: list[BaseTool]) -> None:
    bound = real_model.bind_tools(tools)
    chunks = [chunk for chunk in bound.stream("What is 15 * 23?") if isinstance(chunk, AIMessageChunk)]
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert sum(bool(chunk.tool_call_chunks) for chunk in chunks) > 3
    assert called(whole) == [("calculator", {"expression": "15 * 23"})]
    assert whole.response_metadata["finish_reason"] == "tool_calls"
    assert whole.usage_metadata is not None


async def test_streamed_text_equals_the_whole(real_model: ChatVLLM) -> None:
    whole = real_model.invoke("Name three fruits.").text
    assert "".join([chunk.text for chunk in real_model.stream("Name three fruits.")]) == whole
    assert "".join([chunk.text async for chunk in real_model.astream("Name three fruits.")]) == whole
    assert (await real_model.ainvoke("Name three fruits.")).text == whole


def test_a_batch_gives_each_its_own_answer(real_model: ChatVLLM) -> None:
    numbers = (17, 23, 42, 58, 64, 91)  # sums differ in the last bits with the batch, so not the same words
    answers = real_model.batch([f"Repeat the number {number}." for number in numbers])
    assert [
        number for number, answer in zip(numbers, answers, strict=True) if str(number) in answer.text
    ] == [*numbers]


def test_a_call_that_is_cut_off_is_invalid_and_not_executed(
    real_model: ChatVLLM, tools: list[BaseTool]
) -> None:
    bound = real_model.bind_tools(tools, tool_choice="calculator", max_tokens=18)
    for message in (bound.invoke("What is 15 * 23?"), _merged(bound.stream("What is 15 * 23?"))):
        assert not message.tool_calls
        assert len(message.invalid_tool_calls) == 1
        assert message.response_metadata["finish_reason"] == "length"


def _merged(chunks: Iterator[Any]) -> Any:
    whole = next(chunks)
    for chunk in chunks:
        whole += chunk
    return whole


def test_an_earlier_turn_comes_from_the_prefix_cache(real_model: ChatVLLM) -> None:
    first = [HumanMessage("Tell me about the history of the city of Rome, in a few sentences, please.")]
    answer = real_model.invoke(first)
    again = real_model.invoke([*first, answer, HumanMessage("And of Athens?")])
    assert again.usage_metadata is not None
    assert again.usage_metadata["input_token_details"]["cache_read"] >= 32


def test_a_prompt_that_is_too_long_says_so(real_model: ChatVLLM) -> None:
    with pytest.raises(RequestError, match="8192"):
        real_model.invoke("word " * 9000)


def test_a_closed_model_says_so() -> None:
    model = create_vllm_chat_model()
    model.close()
    with pytest.raises(EngineClosedError, match="closed"):
        model.invoke("Hello!")


# The embedded model's own template with tools in the form of Hermes, which vLLM's "hermes" parser reads.
HERMES = """{%- if tools %}<|im_start|>system
You may call these tools:
<tools>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
</tools>
For each call write <tool_call>{"name": "...", "arguments": {...}}</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}
{%- for call in message.tool_calls or [] %}
<tool_call>{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments }}}</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


@pytest.fixture(scope="module")
def native_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatVLLM]:
    directory = tmp_path_factory.mktemp("native")
    for file in embedded_model().iterdir():
        (directory / file.name).symlink_to(file)
    (directory / "chat_template.jinja").unlink()
    (directory / "chat_template.jinja").write_text(HERMES)
    config = json.loads((directory / "tokenizer_config.json").read_text())
    assert "chat_template" not in config
    model = ChatVLLM(
        model=str(directory),
        dtype="float32",
        temperature=0.0,
        max_tokens=192,
        max_model_len=2048,
    )
    with model:
        yield model


def multiply(a: int, b: int) -> int:
    """Multiply two whole numbers."""
    return a * b


class TestNativeProtocol:
    """The model's own template and vLLM's own parser, found from the template."""

    def test_it_is_chosen_from_the_template(self, native_model: ChatVLLM) -> None:
        assert native_model.protocol == "native"
        assert native_model.start().tool_parser == "hermes"

    @pytest.mark.parametrize("choice", ["required", "multiply"])
    def test_a_call_is_made_under_its_schema(self, native_model: ChatVLLM, choice: str) -> None:
        bound = native_model.bind_tools([multiply], tool_choice=choice)
        message = bound.invoke("What is 15 * 23?")
        calls = called(message)
        assert calls
        for name, arguments in calls:
            assert name == "multiply"
            assert [type(arguments[key]) for key in ("a", "b")] == [int, int]
        streamed = _merged(bound.stream("What is 15 * 23?"))
        assert called(streamed) == called(message)

    def test_results_go_back(self, native_model: ChatVLLM, tools: list[BaseTool]) -> None:
        call = AIMessage("", tool_calls=[{"name": "calculator", "args": {"expression": "1 + 1"}, "id": "a"}])
        result = ToolMessage("1 + 1 = 2", tool_call_id="a", name="calculator")
        answer = native_model.bind_tools(tools).invoke([HumanMessage("What is 1 + 1?"), call, result])
        assert isinstance(answer, AIMessage)
        assert answer.response_metadata["finish_reason"]


def test_closing_one_engine_leaves_the_others(real_model: ChatVLLM) -> None:
    engine = real_model._session.engine()
    with ChatVLLM(temperature=0.0, max_tokens=4, max_model_len=512) as other:
        assert other.invoke("Hello!").text
        assert other._session.engine() is not engine
    assert real_model.invoke("Hello!", max_tokens=4).text
    assert real_model._session.engine() is engine
    assert not engine.closed
