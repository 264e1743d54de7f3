"""``ChatVLLM`` on real vLLM with the embedded model: both protocols, all ways to choose a tool, streaming."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool
from pydantic import BaseModel

from agent import ChatVLLM, create_vllm_chat_model
from agent.catalogue.embedded import embedded_model
from agent.chat.requests import wire_tools
from agent.errors import (
    ConfigurationError,
    EngineClosedError,
    RequestError,
    StructuredOutputError,
    UnsupportedInputError,
)
from agent.formats.content import ContentAsData
from agent.formats.text.engine import TextToolEngine
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


def test_a_model_that_decides_by_itself_is_held_to_the_tools(
    real_model: ChatVLLM, tools: list[BaseTool]
) -> None:
    """What a larger model is asked works on vLLM; the embedded one cannot use it."""
    session, wired = real_model._session, wire_tools(tools)

    async def asked(choice: str) -> dict[str, Any]:
        engine, info = await session.started()
        unaided = TextToolEngine(ContentAsData(engine, info), helped=False)
        messages = [{"role": "user", "content": "What is 15 * 23?"}]
        settings = {"temperature": 0, "max_tokens": 48, "parallel_tool_calls": False}
        request = {"messages": messages, "tools": wired, "tool_choice": choice, **settings}
        [answer] = (await unaided.chat(request))["choices"]
        return dict(answer)

    [call] = session.loop.run(asked("required"))["message"]["tool_calls"]
    assert call["function"]["name"] in {tool.name for tool in tools}
    free = session.loop.run(asked("auto"))
    assert free["message"]["content"] or free["message"]["tool_calls"]


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
    assert sum(bool(chunk.tool_call_chunks) for chunk in chunks) > 1
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


@pytest.mark.parametrize(
    "arguments",
    [
        {"structured_outputs": {}},
        {"structured_outputs": {"regex": "a", "choice": ["a"]}},
        {"response_format": {"type": "json_schema"}},
        {"logit_bias": {"word": 1.0}},
        {"min_tokens": 5, "max_tokens": 4},
        {"seed": 10**40},
    ],
    ids=str,
)
def test_what_vllm_refuses_is_an_error_of_ours(real_model: ChatVLLM, arguments: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        real_model.invoke("Hello!", **arguments)
    with pytest.raises(RequestError):
        list(real_model.stream("Hello!", **arguments))


def test_half_characters_end_no_conversation(real_model: ChatVLLM) -> None:
    whole = [HumanMessage("What is \ufffd?"), AIMessage("A sign."), HumanMessage("Thanks.")]
    halves = [HumanMessage("What is \ud83d?"), *whole[1:]]
    assert real_model.invoke(halves, max_tokens=4).text == real_model.invoke(whole, max_tokens=4).text
    assert real_model.explain(halves).prompt == real_model.explain(whole).prompt
    assert real_model.get_num_tokens("\ud83d") == real_model.get_num_tokens("\ufffd")


def test_explaining_is_checked_as_a_call_is(real_model: ChatVLLM) -> None:
    for arguments, says in (({"tool_choice": "add"}, "no tools are bound"), ({"colour": 1}, "colour")):
        with pytest.raises(ConfigurationError, match=says):
            real_model.explain("Hello!", **arguments)


def test_a_closed_model_says_so() -> None:
    model = create_vllm_chat_model()
    model.close()
    with pytest.raises(EngineClosedError, match="closed"):
        model.invoke("Hello!")


# The embedded model's own template with tools in the form of Hermes, which vLLM's "hermes" parser reads, and
# with thinking as Qwen 3 has it.
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
{%- if message.reasoning %}
<think>{{ message.reasoning }}</think>
{%- endif %}
{{ message.content }}
{%- for call in message.tool_calls or [] %}{% set function = call.function %}
<tool_call>{"name": "{{ function.name }}", "arguments": {{ function.arguments | tojson }}}</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
<think>
{% if enable_thinking is defined and enable_thinking is false %}
</think>

{% endif %}{% endif %}"""

# Tokens that the embedded model has for something else and never writes by itself; here they frame a thought.
THINKING = {"<issue_start>": "<think>", "<issue_closed>": "</think>"}


def thinking_copy(directory: Path) -> Path:
    """Make a copy of the embedded model whose template opens a thought, and whose tokenizer can close it."""
    changed = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    for file in embedded_model().iterdir():
        if file.name not in changed:
            (directory / file.name).symlink_to(file)
    tokenizer = json.loads((embedded_model() / "tokenizer.json").read_text())
    for token in tokenizer["added_tokens"]:
        if token["content"] in THINKING:
            token.update(content=THINKING[token["content"]], special=False)
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {THINKING.get(token, token): number for token, number in vocabulary.items()}
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    (directory / "tokenizer_config.json").write_text((embedded_model() / "tokenizer_config.json").read_text())
    (directory / "chat_template.jinja").write_text(HERMES)
    return directory


@pytest.fixture(scope="module")
def thinking_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatVLLM]:
    model = ChatVLLM(
        model=str(thinking_copy(tmp_path_factory.mktemp("native"))),
        dtype="float32",
        temperature=0.0,
        max_tokens=192,
        max_model_len=2048,
        reasoning_parser="qwen3",
    )
    with model:
        yield model


@pytest.fixture(scope="module")
def native_model(thinking_model: ChatVLLM) -> ChatVLLM:
    """The same model, without thinking first."""
    return thinking_model.model_copy(update={"chat_template_kwargs": {"enable_thinking": False}})


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


class Sum(BaseModel):
    """A sum."""

    total: int
    remark: Literal["small", "large"]


class TestThinking:
    """Reasoning by vLLM's own parser; a budget makes the model end it, which it does not do by itself."""

    QUESTION = "What is 15 * 23?"

    @pytest.fixture(scope="class")
    def brief(self, thinking_model: ChatVLLM) -> Any:
        return thinking_model.bind(thinking_token_budget=8, max_tokens=64)

    def test_it_is_a_block_of_its_own_whole_and_streamed(self, brief: Any) -> None:
        whole = brief.invoke(self.QUESTION)
        chunks = list(brief.stream(self.QUESTION))
        streamed = _merged(iter(chunks))
        for message in (whole, streamed):
            kinds = [block["type"] for block in message.content_blocks]
            assert kinds == ["reasoning", "text"]
            assert "think>" not in message.text + message.content_blocks[0]["reasoning"]
            assert message.usage_metadata["output_token_details"]["reasoning"] > 0
        assert streamed.content_blocks[0]["reasoning"] == whole.content_blocks[0]["reasoning"]
        assert sum("reasoning_content" in chunk.additional_kwargs for chunk in chunks) > 1

    @pytest.mark.parametrize("choice", ["required", "multiply"])
    def test_a_forced_call_comes_after_free_thought(self, brief: Any, choice: str) -> None:
        bound = brief.bind_tools([multiply], tool_choice=choice)
        for message in (bound.invoke(self.QUESTION), _merged(bound.stream(self.QUESTION))):
            assert called(message) == [("multiply", {"a": 15, "b": 23})]
            assert message.content_blocks[0]["type"] == "reasoning"
            assert message.response_metadata["finish_reason"] == "tool_calls"

    @pytest.mark.parametrize("limit", [4, 18])  # in the thought, and in the call
    def test_a_forced_call_that_is_cut_off_is_never_silence(self, brief: Any, limit: int) -> None:
        bound = brief.bind_tools([multiply], tool_choice="required", max_tokens=limit)
        for message in (bound.invoke(self.QUESTION), _merged(bound.stream(self.QUESTION))):
            assert not message.tool_calls
            assert len(message.invalid_tool_calls) == 1
            assert message.response_metadata["finish_reason"] == "length"

    def test_a_thought_without_an_end_is_no_call(self, thinking_model: ChatVLLM) -> None:
        bound = thinking_model.bind_tools([multiply], tool_choice="required", max_tokens=32)
        for message in (bound.invoke(self.QUESTION), _merged(bound.stream(self.QUESTION))):
            assert not message.tool_calls
            assert len(message.invalid_tool_calls) == 1
            assert message.content_blocks[0]["type"] == "reasoning"
            assert message.response_metadata["finish_reason"] in ("tool_calls", "length")

    def test_a_structured_answer_comes_after_free_thought(self, brief: Any) -> None:
        result = brief.with_structured_output(Sum, include_raw=True).invoke(self.QUESTION)
        assert isinstance(result["parsed"], Sum)
        assert result["raw"].content_blocks[0]["type"] == "reasoning"

    def test_it_goes_back_to_the_template(self, thinking_model: ChatVLLM) -> None:
        thought = AIMessage("345", additional_kwargs={"reasoning_content": "Fifteen times twenty-three."})
        conversation = [HumanMessage(self.QUESTION), thought, HumanMessage("Sure?")]
        silent = [HumanMessage(self.QUESTION), AIMessage("345"), HumanMessage("Sure?")]
        more = thinking_model.get_num_tokens_from_messages(conversation)
        assert more > thinking_model.get_num_tokens_from_messages(silent) + 5

    def test_a_structured_answer_or_a_call(self, native_model: ChatVLLM) -> None:
        """Both are held by one grammar: whatever comes is one of them, whole."""
        asked = native_model.bind_tools([multiply]).with_structured_output(Sum, include_raw=True)
        result = asked.invoke(self.QUESTION, max_tokens=96)
        assert bool(result["raw"].tool_calls) is (result["parsed"] is None)
        assert result["parsing_error"] is None


class TestAnswers:
    """What is asked of an answer beside its words."""

    def test_several_answers(self, real_model: ChatVLLM) -> None:
        several = real_model.bind(n=3, temperature=1.0, seed=1, max_tokens=8)
        result = several.bound.generate([[HumanMessage("Tell me a story.")]], **several.kwargs)
        [answers] = result.generations
        assert len({answer.text for answer in answers}) == 3
        usages = [answer.message.usage_metadata for answer in answers]  # type: ignore[attr-defined]
        assert usages[1:] == [None, None]
        assert usages[0]["output_tokens"] == 24

    def test_each_sampling_field_has_its_effect(self, real_model: ChatVLLM) -> None:
        """As fields, on the engine that all tests share; each would change nothing if it were ignored."""

        def say(*, asked: dict[str, Any] | None = None, **fields: Any) -> AIMessage:
            with ChatVLLM(**{"temperature": 2.0, "max_tokens": 8, "seed": 1, **fields}) as model:
                assert model._session.engine() is real_model._session.engine()
                return model.invoke("Tell me a story.", **asked or {})

        greedy = say(temperature=0.0).text
        hot = say().text
        assert hot != greedy
        assert hot == say().text != say(seed=2).text
        for narrow in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}):
            assert say(**narrow).text == greedy, narrow
        plain = say(temperature=0.0, max_tokens=32).text
        for penalty in ({"presence_penalty": 2.0}, {"frequency_penalty": 2.0}, {"repetition_penalty": 2.0}):
            assert say(temperature=0.0, max_tokens=32, **penalty).text != plain, penalty
        word = greedy.split()[2]
        assert say(temperature=0.0, stop=[word]).text == greedy.partition(word)[0]
        assert say(max_tokens=3).usage_metadata["output_tokens"] == 3  # type: ignore[index]
        certain_end = {"logit_bias": {"2": 100.0}}
        ended, ignored = (say(ignore_eos=ignore, asked=certain_end) for ignore in (False, True))
        assert ended.response_metadata["finish_reason"] == "stop"
        assert ignored.response_metadata["finish_reason"] == "length"

    def test_log_probabilities_whole_and_streamed(self, real_model: ChatVLLM) -> None:
        asked = real_model.bind(logprobs=3, max_tokens=6)
        whole = asked.invoke("Name a colour.")
        tokens = whole.response_metadata["logprobs"]["content"]
        assert "".join(token["token"] for token in tokens) == whole.text
        assert {len(token["top_logprobs"]) for token in tokens} == {3}
        for token in tokens:  # greedy: the likeliest was taken
            assert token["logprob"] == max(one["logprob"] for one in token["top_logprobs"])
        streamed = _merged(asked.stream("Name a colour.")).response_metadata["logprobs"]["content"]
        assert [token["token"] for token in streamed] == [token["token"] for token in tokens]

    def test_why_it_ended(self, real_model: ChatVLLM) -> None:
        for limit, reason in ((2, "length"), (64, "stop")):
            asked = real_model.bind(max_tokens=limit)
            for message in (asked.invoke("Hello!"), _merged(asked.stream("Hello!"))):
                assert message.response_metadata["finish_reason"] == reason

    def test_penalties_and_min_p_of_a_call(self, real_model: ChatVLLM) -> None:
        question = "Repeat the word cat twenty times."
        plain = real_model.invoke(question, max_tokens=32).text
        assert real_model.invoke(question, max_tokens=32, repetition_penalty=1.8).text != plain
        # With min_p = 1 only the likeliest token is left, at any temperature.
        assert real_model.invoke(question, max_tokens=32, temperature=2.0, min_p=1.0).text == plain

    def test_another_model_is_refused(self, real_model: ChatVLLM) -> None:
        with pytest.raises(ConfigurationError, match="'other/model'"):
            real_model.invoke("Hello!", model="other/model")

    def test_images_are_refused_plainly(self, real_model: ChatVLLM) -> None:
        data = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
        image = {"type": "image", "base64": data, "mime_type": "image/png"}
        message = HumanMessage(content=[{"type": "text", "text": "What is it?"}, image])
        with pytest.raises(UnsupportedInputError, match="takes no image input"):
            real_model.invoke([message])
        with pytest.raises(UnsupportedInputError, match="takes no image input"):
            list(real_model.stream([message]))

    @pytest.mark.parametrize("text", ["hello", " a  b\n\nc", "ünïcödé 你好 🙂", "  x  ", ""])
    def test_tokens_from_disk_are_the_engines(self, real_model: ChatVLLM, text: str) -> None:
        engine = real_model._session.engine()
        rendered = (
            engine.loop.run(engine.render({"prompt": text, "add_special_tokens": False})) if text else []
        )
        assert real_model.get_token_ids(text) == rendered


SCHEMAS: dict[str, Any] = {
    "lookaround": {"type": "string", "pattern": "^(?=.*a)[a-z]+$"},
    "letters of all": {"type": "string", "pattern": r"^[\p{L}]+(.)\1$"},
    "unique": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True, "maxItems": 3},
    "never": {"enum": []},
    "multiple": {"type": "integer", "multipleOf": 3, "minimum": 0, "maximum": 9},
    "exactly two": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2, "maxItems": 2},
    "recursive": {"$ref": "#/$defs/node"},
    "far away": {"$ref": "https://example.com/schema"},
    "short": {"type": "string", "maxLength": 5},
}


class TestStructuredOutput:
    """By grammar: what comes is JSON that fits, or an error that says why not."""

    def test_the_schema_is_kept(self, real_model: ChatVLLM) -> None:
        assert isinstance(real_model.with_structured_output(Sum).invoke("What is 2 + 2?"), Sum)
        parts = list(real_model.with_structured_output(Sum.model_json_schema()).stream("What is 2 + 2?"))
        assert set(parts[-1]) == {"total", "remark"}

    def test_white_space_does_not_use_up_the_tokens(self, real_model: ChatVLLM) -> None:
        """Under the engine's own JSON grammar this model writes line breaks until it is cut off."""
        answer = real_model.with_structured_output(Sum, include_raw=True).invoke("Tell me about a cat.")
        assert "\n" not in answer["raw"].text
        assert answer["parsing_error"] is None

    @pytest.mark.parametrize("name", SCHEMAS)
    def test_no_schema_is_refused_by_the_engine(self, real_model: ChatVLLM, name: str) -> None:
        node = {
            "type": "object",
            "properties": {"next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}},
        }
        schema = {
            "type": "object",
            "properties": {"a": SCHEMAS[name]},
            "required": ["a"],
            "$defs": {"node": node},
        }
        result = real_model.with_structured_output(schema, include_raw=True).invoke("Hello!", max_tokens=16)
        assert result["raw"].text.startswith("{")
        if result["parsing_error"] is not None:
            assert isinstance(result["parsing_error"], StructuredOutputError)

    def test_a_cut_off_answer_says_so(self, real_model: ChatVLLM) -> None:
        with pytest.raises(StructuredOutputError, match="cut off at its token limit of 4"):
            real_model.with_structured_output(Sum).invoke("What is 2 + 2?", max_tokens=4)

    def test_beside_tools_in_the_text_protocol(self, real_model: ChatVLLM, tools: list[BaseTool]) -> None:
        asked = real_model.bind_tools(tools).with_structured_output(Sum, include_raw=True)
        called_ = asked.invoke("What is 15 * 23?")
        assert called(called_["raw"]) == [("calculator", {"expression": "15 * 23"})]
        assert isinstance(asked.invoke("Hello!")["parsed"], Sum)


def test_closing_one_engine_leaves_the_others(real_model: ChatVLLM) -> None:
    engine = real_model._session.engine()
    # As vllm.LLM takes it: a dictionary in the place of vLLM's own class.
    backend = {"structured_outputs_config": {"backend": "guidance"}}
    with ChatVLLM(temperature=0.0, max_tokens=4, max_model_len=512, vllm_kwargs=backend) as other:
        assert other.invoke("Hello!").text
        assert other.invoke("Hello!", structured_outputs={"choice": ["maroon"]}).text == "maroon"
        assert other._session.engine() is not engine
    assert real_model.invoke("Hello!", max_tokens=4).text
    assert real_model._session.engine() is engine
    assert not engine.closed
