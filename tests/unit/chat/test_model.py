"""`ChatVLLM` on the scripted engine: everything between a caller and an engine."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_core.tools import tool
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from agent import ChatVLLM, create_vllm_chat_model
from agent.engines import RemoteEngine, Reply, ScriptedEngine
from agent.engines.loop import EngineLoop
from agent.errors import (
    ConfigurationError,
    EngineClosedError,
    EngineDeadError,
    ModelNotFoundError,
    UnsupportedInputError,
)


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def now() -> str:
    """Tell the time."""
    return "noon"


def build(*script: Any, **options: Any) -> tuple[ChatVLLM, ScriptedEngine]:
    engine = ScriptedEngine(list(script), repeat=True)
    return ChatVLLM(engine=engine, **options), engine


CALLS = Reply(
    "Let me see.",
    tool_calls=[{"name": "add", "arguments": {"a": 1, "b": 2}}, {"name": "now"}],
)


# -- calls --------------------------------------------------------------------------------------------------


async def test_all_ways_to_call_give_the_same_message() -> None:
    model, _ = build(CALLS)
    messages = [
        await asyncio.to_thread(model.invoke, "Hi"),
        await model.ainvoke("Hi"),
        (await asyncio.to_thread(model.batch, ["Hi", "Hi"]))[1],
        (await model.abatch(["Hi", "Hi"]))[1],
    ]
    for stream in (
        await asyncio.to_thread(lambda: list(model.stream("Hi"))),
        [c async for c in model.astream("Hi")],
    ):
        total = stream[0]
        for chunk in stream[1:]:
            total += chunk
        assert len(stream) > 5
        messages.append(total)
    for message in messages:
        assert message.text == "Let me see."
        assert [(call["name"], call["args"]) for call in message.tool_calls] == [
            ("add", {"a": 1, "b": 2}),
            ("now", {}),
        ]
        assert message.response_metadata["finish_reason"] == "tool_calls"
        assert message.usage_metadata["output_tokens"] == 3
    model.close()


def test_every_call_runs_on_the_engines_own_loop() -> None:
    threads = set()

    def note(request: Any) -> str:
        threads.add(threading.current_thread().name)
        return "Hi"

    model, _ = build(note)
    model.invoke("a")
    asyncio.run(model.ainvoke("b"))
    asyncio.run(model.ainvoke("c"))  # a second loop: nothing of the first may be left in the engine
    list(model.stream("d"))
    assert threads == {"scripted-engine"}
    model.close()


def test_fields_and_arguments_of_a_call_reach_the_request() -> None:
    model, engine = build("Hi", temperature=0.5, top_k=7, stop=["END"], seed=3)
    model.invoke("Hi", temperature=0.1, max_new_tokens=9, stop=["STOP"])
    request = engine.requests[0]
    assert (request["temperature"], request["top_k"], request["max_tokens"]) == (0.1, 7, 9)
    assert (request["seed"], request["stop"]) == (3, ["END", "STOP"])
    assert "tools" not in request
    model.close()


def test_an_unknown_argument_of_a_call_is_refused() -> None:
    model, engine = build("Hi")
    with pytest.raises(ConfigurationError, match="'temprature'"):
        model.invoke("Hi", temprature=0.1)
    assert engine.requests == []
    model.close()


def test_callbacks_see_each_token() -> None:
    class Listener(BaseCallbackHandler):
        def __init__(self) -> None:
            self.tokens: list[str] = []

        def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            self.tokens.append(token)

    model, _ = build("one two three")
    listener = Listener()
    list(model.stream("Hi", config={"callbacks": [listener]}))
    assert "".join(listener.tokens) == "one two three"
    assert len([token for token in listener.tokens if token]) == 3
    listener.tokens.clear()
    model.invoke("Hi", config={"callbacks": [listener]})
    assert listener.tokens == []
    loud, _ = build("one two three", streaming=True)
    assert loud.invoke("Hi", config={"callbacks": [listener]}).text == "one two three"
    assert "".join(listener.tokens) == "one two three"


async def test_events_carry_the_tokens() -> None:
    model, _ = build("one two three")
    events = [event async for event in model.astream_events("Hi", version="v2")]
    streamed = [event["data"]["chunk"].text for event in events if event["event"] == "on_chat_model_stream"]
    assert "".join(streamed) == "one two three"
    model.close()


def test_a_stream_that_is_left_early_is_closed() -> None:
    model, engine = build("one two three four five")
    for chunk in model.stream("Hi"):
        assert isinstance(chunk, AIMessageChunk)
        break
    assert model.invoke("Hi").text == "one two three four five"
    assert len(engine.requests) == 2
    model.close()


def test_a_call_cut_off_in_a_stream_is_invalid() -> None:
    cut = Reply(tool_calls=[{"name": "add", "arguments": '{"a": 1, "b": '}], finish_reason="length")
    model, _ = build(cut)
    stream = model.stream("Hi")
    total = next(stream)
    for chunk in stream:
        total += chunk
    assert total.tool_calls == []
    [invalid] = total.invalid_tool_calls
    assert invalid["name"] == "add"
    message = model.invoke("Hi")
    assert message.tool_calls == []
    assert "token limit" in (message.invalid_tool_calls[0]["error"] or "")
    model.close()


def test_errors_of_the_engine_come_through() -> None:
    model, _ = build(EngineDeadError("died"))
    with pytest.raises(EngineDeadError, match="died"):
        model.invoke("Hi")
    with pytest.raises(EngineDeadError, match="died"):
        list(model.stream("Hi"))
    with pytest.raises(EngineDeadError, match="died"):
        asyncio.run(model.ainvoke("Hi"))
    model.close()


# -- tools --------------------------------------------------------------------------------------------------


def test_tools_reach_the_request() -> None:
    model, engine = build("Hi")
    model.bind_tools([add, now], tool_choice="add", parallel_tool_calls=False).invoke("Hi")
    request = engine.requests[0]
    assert [tool["function"]["name"] for tool in request["tools"]] == ["add", "now"]
    assert request["tool_choice"] == {"type": "function", "function": {"name": "add"}}
    assert request["parallel_tool_calls"] is False
    model.close()


def test_no_tools_are_no_tools() -> None:
    model, engine = build("Hi")
    model.bind_tools([]).invoke("Hi")
    assert "tools" not in engine.requests[0]
    model.close()


def test_a_choice_of_an_unknown_tool_is_refused_when_it_is_bound() -> None:
    model, _ = build("Hi")
    with pytest.raises(ConfigurationError, match="subtract"):
        model.bind_tools([add], tool_choice="subtract")
    model.close()


def test_a_conversation_with_results_goes_back() -> None:
    model, engine = build(CALLS, "It is 3.")
    bound = model.bind_tools([add, now])
    question = HumanMessage("1 + 2?")
    answer = bound.invoke([question])
    results = [add.invoke(answer.tool_calls[0]), now.invoke(answer.tool_calls[1])]
    assert bound.invoke([question, answer, *results]).text == "It is 3."
    sent = engine.requests[1]["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool"]
    assert [call["id"] for call in sent[1]["tool_calls"]] == [message["tool_call_id"] for message in sent[2:]]
    assert json.loads(sent[1]["tool_calls"][0]["function"]["arguments"]) == {"a": 1, "b": 2}
    model.close()


# -- arguments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"temperature": 3}, "temperature=3"),
        ({"top_p": 0}, "top_p=0"),
        ({"top_k": -2}, "top_k=-2"),
        ({"max_tokens": 0}, "max_(new_)?tokens=0"),
        ({"n": 0}, "n=0"),
        ({"n": 2, "temperature": 0}, "all n=2 answers would be one"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization=1.5"),
        ({"temprature": 1}, "temprature"),
        ({"engine": ScriptedEngine(["Hi"]), "model": "some/model"}, "either model= or engine="),
        ({"engine": ScriptedEngine(["Hi"]), "base_url": "http://localhost"}, "either base_url= or engine="),
        ({"base_url": "localhost:8000"}, "base_url must be an address"),
        (
            {"base_url": "http://localhost", "gpu_memory_utilization": 0.5},
            "gpu_memory_utilization is decided",
        ),
        (
            {"base_url": "http://localhost", "max_model_len": 9, "dtype": "float16"},
            "dtype, max_model_len is decided",
        ),
        ({"base_url": "http://localhost", "vllm_kwargs": {"seed": 1}}, "vllm_kwargs is decided"),
        ({"base_url": "http://localhost", "timeout": 0}, "timeout=0"),
        ({"api_key": "secret-key"}, "give base_url= too"),
        ({"base_url": "http://localhost", "api_key": ["secret-key"]}, r"api_key=\*\*\*"),
        ({"max_retries": 1}, "max_retries goes to a server"),
        ({"model": "a/b", "vllm_kwargs": {"model": "c/d"}}, "give model= directly"),
    ],
)
def test_contradictions_are_refused_before_anything_starts(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        ChatVLLM(**arguments)
    assert "secret-key" not in str(caught.value)


def test_a_model_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ModelNotFoundError, match="/no/such/model"):
        ChatVLLM(model="/no/such/model")


def test_arguments_of_a_call_are_checked_like_the_fields() -> None:
    model, engine = build("Hi")
    for arguments, says in (
        ({"temperature": 3}, "this call is refused: temperature=3"),
        ({"top_p": 0}, "top_p=0"),
        ({"best_of": 3}, "a chat model has none"),
        ({"tool_choice": "required"}, "no tools are bound"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens is given twice, as 3 and as 4"),
        ({"stop": 5}, "stop.0=5"),
        ({"n": "many"}, "n='many'"),
        ({"logit_bias": {"5": float("nan")}}, "logit_bias.5=nan"),
        ({"tools": 5}, "tools must be a list of tools, got 5"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            model.invoke("Hi", **arguments)
        with pytest.raises(ConfigurationError, match=says):
            list(model.stream("Hi", **arguments))
    assert engine.requests == []
    model.invoke("Hi", temperature=None, min_p=0.1, repetition_penalty=1.2, thinking_token_budget=5)
    request = engine.requests[0]
    assert request["temperature"] == 1.0
    assert (request["min_p"], request["repetition_penalty"]) == (0.1, 1.2)
    assert request["thinking_token_budget"] == 5
    model.close()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (5, "^5 is no input of a chat model .*int"),
        ([5], "int"),
        ([("nobody", "Hi")], "nobody.*Use one of"),
        ([{"role": "user"}], "must contain 'role' and 'content'"),
        ([{"role": "tool", "content": "4"}], "it has no 'tool_call_id'"),
        ([{"role": "assistant", "content": "", "tool_calls": "add"}], "is no input of a chat model"),
    ],
    ids=str,
)
def test_what_is_no_message_is_refused_however_it_is_given(asked: Any, says: str) -> None:
    model, engine = build("Hi")
    for call in (
        lambda: model.invoke(asked),
        lambda: list(model.stream(asked)),
        lambda: model.batch(["Hi", asked]),
        lambda: asyncio.run(model.ainvoke(asked)),
        lambda: model.explain(asked),
        lambda: model.bind(n=1).invoke(asked),
    ):
        with pytest.raises(ConfigurationError, match=says):
            call()
    assert len(engine.requests) <= 1  # of the batch, the one that is well
    model.close()


def test_data_without_a_type_is_taken_for_what_it_begins_with() -> None:
    model, engine = build("a picture")
    picture = {"type": "image", "base64": "R0lGODdhAQAB"}
    asked = HumanMessage([{"type": "text", "text": "What is it?"}, picture])
    assert model.invoke([asked]).text == "a picture"
    assert "".join(chunk.text for chunk in model.stream([asked])) == "a picture"
    for request in engine.requests:
        _, part = request["messages"][0]["content"]
        assert part["image_url"]["url"] == "data:image/gif;base64,R0lGODdhAQAB"
    assert asked.content[1] == picture  # the caller's own message is as it was
    with pytest.raises(UnsupportedInputError, match="of no known format; give its mime_type"):
        model.invoke([HumanMessage([{"type": "image", "base64": "abcd"}])])
    model.close()


def test_a_stop_text_that_stands_alone_is_one_text_and_not_its_letters() -> None:
    model, engine = build("Hi")
    alone: Any = "END"
    model.invoke("Hi", stop=alone)
    assert engine.requests[0]["stop"] == ["END"]
    model.close()


def test_another_model_of_a_call_is_asked_for() -> None:
    model, engine = build("Hi")
    assert model.invoke("Hi", model="other").response_metadata["model_name"] == "other"
    assert engine.requests[0]["model"] == "other"
    model.close()


# -- several answers, log-probabilities ---------------------------------------------------------------------


def test_several_answers_to_one_call() -> None:
    model, engine = build("one", "two", "three four", n=3)
    result = model.generate([[HumanMessage("Hi")]])
    [answers] = result.generations
    assert [answer.text for answer in answers] == ["one", "two", "three four"]
    assert len({answer.message.id for answer in answers}) == 3  # type: ignore[attr-defined]
    usages = [answer.message.usage_metadata for answer in answers]  # type: ignore[attr-defined]
    assert [usage and usage["output_tokens"] for usage in usages] == [4, None, None]
    assert len(engine.requests) == 1
    model.close()


async def test_a_stream_shows_one_answer() -> None:
    model, engine = build("one", n=3)
    with pytest.raises(ConfigurationError, match="n=3"):
        await asyncio.to_thread(lambda: list(model.stream("Hi")))
    with pytest.raises(ConfigurationError, match="n=3"):
        _ = [chunk async for chunk in model.astream("Hi")]
    with pytest.raises(ConfigurationError, match="n=2"):
        ChatVLLM(engine=engine, n=2, streaming=True)
    assert engine.requests == []
    assert "one" in [chunk.text async for chunk in model.astream("Hi", n=1)]
    model.close()


def test_a_listener_does_not_make_several_answers_a_stream() -> None:
    model, _ = build("one", "two", n=2, streaming=False)
    loud, _ = build("one", "two", streaming=True)
    for one, arguments in ((model, {}), (loud, {"n": 2})):
        assert len(one.generate([[HumanMessage("Hi")]], **arguments).generations[0]) == 2
        one.close()


async def test_log_probabilities_whole_and_streamed() -> None:
    model, engine = build("one two", logprobs=2)
    whole = (await model.ainvoke("Hi")).response_metadata["logprobs"]
    assert [token["token"] for token in whole["content"]] == ["one", " two"]
    total = None
    async for chunk in model.astream("Hi"):
        total = chunk if total is None else total + chunk
    assert total is not None
    assert total.response_metadata["logprobs"] == whole
    assert (engine.requests[0]["logprobs"], engine.requests[0]["top_logprobs"]) == (True, 2)
    model.close()


# -- reasoning ----------------------------------------------------------------------------------------------


async def test_reasoning_is_a_standard_block_and_goes_back() -> None:
    thought = Reply("It is 4.", reasoning="Two and two.")
    for version in (None, "v1"):
        model, engine = build(thought, output_version=version)
        total = None
        async for chunk in model.astream("2 + 2?"):
            total = chunk if total is None else total + chunk
        assert total is not None
        whole = await model.ainvoke("2 + 2?")
        for message in (whole, total):
            kinds = [(block["type"], block.get(block["type"])) for block in message.content_blocks]
            assert kinds == [("reasoning", "Two and two."), ("text", "It is 4.")]
        await model.ainvoke([HumanMessage("2 + 2?"), whole, HumanMessage("Sure?")])
        sent = engine.requests[-1]["messages"][1]
        assert sent == {"role": "assistant", "content": "It is 4.", "reasoning": "Two and two."}
        model.close()


def test_a_call_with_reasoning_goes_back_with_it() -> None:
    model, engine = build(
        Reply(reasoning="A sum.", tool_calls=[{"name": "add", "arguments": {"a": 1, "b": 2}}])
    )
    answer = model.bind_tools([add]).invoke("1 + 2?")
    model.invoke([HumanMessage("1 + 2?"), answer, add.invoke(answer.tool_calls[0])])
    sent = engine.requests[-1]["messages"][1]
    assert sent["reasoning"] == "A sum."
    assert sent["tool_calls"][0]["function"]["name"] == "add"
    model.close()


def test_a_missed_call_is_a_call() -> None:
    model, _ = build('I add them.\n{"name": "add", "arguments": {"a": 1, "b": 2}}')
    bound = model.bind_tools([add])
    total = None
    for chunk in bound.stream("1 + 2?"):
        total = chunk if total is None else total + chunk
    assert total is not None
    for message in (bound.invoke("1 + 2?"), total):
        assert (message.text, message.tool_calls[0]["args"]) == ("I add them.", {"a": 1, "b": 2})
        assert add.invoke(message.tool_calls[0]).content == "3"
    assert model.invoke("1 + 2?").tool_calls == []
    model.close()


# -- copies -------------------------------------------------------------------------------------------------


def test_a_model_is_stored_without_its_secret_and_built_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ChatVLLM(base_url="http://localhost:1/v1", api_key="secret-key", temperature=0.1, protocol="text")
    stored = dumps(model)
    assert "secret-key" not in stored
    monkeypatch.setenv("VLLM_API_KEY", "another-key")
    options: dict[str, Any] = {"allowed_objects": [ChatVLLM], "valid_namespaces": ["agent"]}
    built = loads(stored, secrets_from_env=True, **options)
    assert isinstance(built, ChatVLLM)
    assert (built.temperature, built.protocol_choice, built.base_url) == (
        0.1,
        "text",
        "http://localhost:1/v1",
    )
    assert built.api_key is not None
    assert built.api_key.get_secret_value() == "another-key"
    assert "ChatBinding" not in dumps(model.bind(stop=["a"]))
    assert ChatVLLM.lc_id() == ["agent", "chat", "model", "ChatVLLM"]


def test_a_model_on_a_given_engine_is_not_stored_as_another() -> None:
    model, _ = build("Hi")
    assert json.loads(dumps(model))["type"] == "not_implemented"
    with pytest.raises(TypeError, match="given engine"):
        pickle.dumps(model)
    model.close()


def test_a_pickled_model_is_the_same_again() -> None:
    model = ChatVLLM(base_url="http://localhost:1/v1", api_key="secret-key", max_tokens=7, protocol="native")
    copied = pickle.loads(pickle.dumps(model))
    assert (copied.max_tokens, copied.protocol_choice, copied.api_key) == (7, "native", model.api_key)


def test_copies_share_the_engine() -> None:
    model, engine = build("Hi")
    for twin in (
        copy.copy(model),
        copy.deepcopy(model),
        model.model_copy(update={"temperature": 0.1}),
    ):
        assert twin.invoke("Hi").text == "Hi"
    assert len(engine.requests) == 3
    model.close()


# -- counting -----------------------------------------------------------------------------------------------


def test_counting_words_starts_no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = Tokenizer(WordLevel({"hello": 0, "world": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = WhitespaceSplit()
    words.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text("{}")
    model = ChatVLLM(model=str(tmp_path))
    monkeypatch.setattr(EngineLoop, "submit", lambda *_: pytest.fail("the engine was asked"))
    assert model.get_token_ids("hello big world") == [0, 2, 1]
    assert model.get_num_tokens("hello hello") == 2
    assert model.get_num_tokens("") == 0


def test_a_given_engine_counts_itself() -> None:
    model, _ = build("Hi")
    assert model.get_num_tokens("one two three") == 3
    model.close()


# -- servers ------------------------------------------------------------------------------------------------


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("VLLM_API_KEY", "from-the-environment")
    return "from-the-environment"


def engine_of(model: ChatVLLM) -> RemoteEngine:
    engine = model._session.engine()
    assert isinstance(engine, RemoteEngine)
    return engine


def test_an_address_makes_a_remote_engine() -> None:
    model = ChatVLLM(base_url="http://localhost:1/v1", model="served", api_key="secret-key", max_retries=0)
    assert engine_of(model).address == "http://localhost:1/v1"
    assert not model.profile  # how much fits is the server's to know
    assert "secret-key" not in f"{model!r} {model} {model._identifying_params} {model.model_dump()}"
    assert "secret-key" not in repr(engine_of(model))
    model.close()
    with pytest.raises(EngineClosedError):
        model.invoke("Hi")


def test_the_key_comes_from_the_environment(key: str) -> None:
    model = ChatVLLM(base_url="http://localhost:1")
    assert model.api_key is not None
    assert model.api_key.get_secret_value() == key
    assert key not in repr(model)
    model.close()


def test_a_key_in_the_environment_is_no_contradiction(key: str) -> None:
    model, _ = build("Hi")
    assert model.invoke("Hi").text == "Hi"
    model.close()


def test_the_short_way_has_the_settings_that_it_promises() -> None:
    settings: dict[str, Any] = {
        "gpu_memory_utilization": 0.8,
        "max_model_len": 8192,
        "top_k": 5,
        "max_tokens": 512,
        "temperature": 0.7,
    }
    plain = create_vllm_chat_model()
    assert {name: getattr(plain, name) for name in settings} == settings
    assert (plain.model, plain.download_dir) == (None, None)
    others = {
        **{"download_dir": "/weights", "gpu_memory_utilization": 0.5, "max_model_len": 64},
        **{"top_k": 1, "max_tokens": 9, "temperature": 0.1, "model": "owner/name", "seed": 3},
    }
    changed = create_vllm_chat_model(**others)
    assert {name: getattr(changed, name) for name in others} == others
    given = create_vllm_chat_model("/weights", 0.5, 64, 1, 9, 0.1, "owner/name")  # the order counts too
    assert given._identifying_params | {"seed": 3} == changed._identifying_params


def test_the_short_way_takes_an_address_too() -> None:
    model = create_vllm_chat_model(base_url="http://localhost:1")
    assert (model.temperature, model.top_k, model.max_model_len) == (0.7, 5, None)
    model.close()


# -- life ---------------------------------------------------------------------------------------------------


def test_a_closed_model_says_so() -> None:
    model, engine = build("Hi")
    bound = model.bind_tools([add])
    with model:
        assert bound.invoke("Hi").text == "Hi"
    model.close()
    assert engine.closed
    with pytest.raises(EngineClosedError, match="closed"):
        bound.invoke("Hi")


async def test_a_model_is_an_asynchronous_context_too() -> None:
    model, engine = build("Hi")
    async with model:
        assert (await model.ainvoke("Hi")).text == "Hi"
    assert engine.closed


def test_the_protocol_is_visible() -> None:
    model, _ = build("Hi")
    assert model.protocol == "native"
    assert model.start().kind == "scripted"
    model.close()
    forced, _ = build("Hi", protocol="text")
    assert forced.protocol == "text"
    forced.close()
