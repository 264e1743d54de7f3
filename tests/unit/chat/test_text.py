"""`VLLM` on the scripted engine: what is refused, what is sent, and what is made of the answers."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator
from functools import reduce
from operator import add
from typing import Any

import pytest
from langchain_core.load import dumpd
from langchain_core.messages import HumanMessage
from langchain_core.outputs import GenerationChunk
from langchain_core.runnables import ConfigurableField

from agent import VLLM, ChatVLLM
from agent.chat.completions import generation_chunks, generations, llm_result
from agent.chat.sampling import TextSampling
from agent.engines import EngineConfig, Reply, ScriptedEngine
from agent.errors import ConfigurationError, EngineClosedError, ModelNotFoundError, RequestError


def scripted(*script: Any, **arguments: Any) -> tuple[VLLM, ScriptedEngine]:
    engine = ScriptedEngine(list(script))
    return VLLM(engine=engine, **arguments), engine


# -- what is refused before anything loads ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"best_of": 2, "n": 3}, "best_of=2"),
        ({"best_of": 0}, "best_of=0"),
        ({"n": 0}, "n=0"),
        ({"temperature": 3}, "temperature=3"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 0}, "top_p=0"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -2}, "top_k=-2"),
        ({"logprobs": -1}, "logprobs=-1"),
        ({"presence_penalty": 2.5}, "presence_penalty=2.5"),
        ({"frequency_penalty": -2.5}, "frequency_penalty=-2.5"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"stop": [""]}, "stop"),
        ({"tensor_parallel_size": 0}, "tensor_parallel_size=0"),
        ({"dtype": "float8"}, "dtype='float8'"),
        ({"max_model_len": 100}, r"vllm_kwargs=\{'max_model_len'"),
        ({"vllm_kwargs": {"dtype": "float16"}}, "dtype="),
        ({"vllm_kwargs": {"model": "other/name"}}, "give model= directly"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"vllm_kwargs": {"hf_overrides": {1, 2}}}, "JSON"),
        ({"api_key": "x"}, "base_url"),
        ({"base_url": "http://localhost:1/v1", "dtype": "float16"}, "dtype is decided by the server"),
    ],
    ids=str,
)
def test_contradictions_are_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        VLLM(**{"model": "owner/name", **arguments} if "base_url" not in arguments else arguments)


def test_a_path_that_is_no_model_is_refused(tmp_path: Any) -> None:
    for path in ("/no/such/model", str(tmp_path), "~no-such-user/model", "a\0b", "x" * 5000):
        with pytest.raises(ModelNotFoundError, match=re.escape(repr(path)[1:100].rstrip("'"))):
            VLLM(model=path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"best_of": 1, "n": 2}, "best_of=1"),
        ({"best_of": 2, "temperature": 0}, "all 2 sequences would be the same"),
        ({"temperature": 3}, "temperature=3"),
        ({"temprature": 0.5}, "did you mean temperature"),
        ({"length_penalty": 1.0}, "use_beam_search"),
        ({"length_penalty": float("nan"), "use_beam_search": True}, "length_penalty=nan"),
        ({"max_tokens": 3, "max_new_tokens": 4}, "max_new_tokens is given twice, as 3 and as 4"),
        ({"stop": 5}, "stop.0=5"),
        ({"logit_bias": {"5": float("inf")}}, "logit_bias.5=inf"),
        ({"use_beam_search": True, "structured_outputs": {"regex": "a"}}, "structured_outputs"),
    ],
    ids=str,
)
def test_a_call_is_checked_as_the_constructor_is(arguments: dict[str, Any], says: str) -> None:
    model, engine = scripted("never")
    with pytest.raises(ConfigurationError, match=says):
        model.invoke("Hi", **arguments)
    assert engine.requests == []


def test_none_is_the_default_as_in_the_parent() -> None:
    assert VLLM(model=None, best_of=None, stop=None).model == ""


# -- what is sent -------------------------------------------------------------------------------------------


def test_every_argument_is_sent() -> None:
    model, engine = scripted("one", "two", temperature=0.5, top_p=0.9, top_k=7, presence_penalty=0.1, seed=3)
    model.invoke("Hi", frequency_penalty=0.2, max_tokens=9, min_p=0.05, logit_bias={"5": 1.0})
    [sent] = engine.requests
    expected = {
        **{"prompt": "Hi", "temperature": 0.5, "top_p": 0.9, "top_k": 7, "presence_penalty": 0.1, "seed": 3},
        **{"frequency_penalty": 0.2, "max_tokens": 9, "min_p": 0.05, "logit_bias": {"5": 1.0}, "n": 1},
    }
    assert expected.items() <= sent.items()
    assert None not in sent.values()
    model.invoke([HumanMessage("Hi")])
    assert engine.requests[1]["prompt"] == "Human: Hi"


def test_both_kinds_of_stop_are_sent() -> None:
    model, engine = scripted("one", "two", stop=["a", "b"])
    model.invoke("Hi", stop=["b", "c"])
    assert engine.requests[0]["stop"] == ["a", "b", "c"]
    model.invoke("Hi")
    assert engine.requests[1]["stop"] == ["a", "b"]


def test_a_stop_text_that_stands_alone_is_one_text_and_not_its_letters() -> None:
    model, engine = scripted("one")
    alone: Any = "END"
    model.invoke("Hi", stop=alone)
    assert engine.requests[0]["stop"] == ["END"]


def test_half_characters_of_a_prompt_are_replaced() -> None:
    model, engine = scripted("one")
    model.invoke("a \ud83d b \ud83d\ude00")
    assert engine.requests[0]["prompt"] == "a \ufffd b \U0001f600"


def test_a_beam_search_sends_no_sampling_and_warns_once_for_each() -> None:
    with pytest.warns(UserWarning, match="temperature=0.5"):
        model, engine = scripted(*"abcdefgh", use_beam_search=True, temperature=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.invoke("Hi")
    [sent] = engine.requests
    assert (sent["use_beam_search"], sent["n"], sent["temperature"]) == (True, 4, 0.0)
    assert not {"top_p", "top_k", "seed", "stop"} & sent.keys()
    with pytest.warns(UserWarning, match="top_k=3"):
        model.invoke("Hi", top_k=3)


# -- what is made of the answers ----------------------------------------------------------------------------


def choice(text: str, *likelihoods: float) -> dict[str, Any]:
    tokens = list(text)
    logprobs = {
        "tokens": tokens,
        "token_logprobs": list(likelihoods),
        "top_logprobs": [{token: value, "x": -9.0} for token, value in zip(tokens, likelihoods, strict=True)],
        "text_offset": list(range(len(tokens))),
    }
    return {"index": 0, "text": text, "finish_reason": "stop", "logprobs": logprobs}


def test_the_best_sequences_return_the_best_one_first() -> None:
    answer = {"choices": [choice("ab", -3.0, -1.0), choice("cd", -0.5, -0.5), choice("e", -2.0)]}
    found = generations(answer, TextSampling(n=2, best_of=3))
    assert [(one.text, one.generation_info) for one in found] == [
        ("cd", {"finish_reason": "stop", "cumulative_logprob": -1.0}),
        ("e", {"finish_reason": "stop", "cumulative_logprob": -2.0}),
    ]


def test_without_best_of_the_order_is_the_engines() -> None:
    answer = {"choices": [choice("ab", -3.0, -1.0), choice("cd", -0.5, -0.5)]}
    assert [one.text for one in generations(answer, TextSampling(n=2))] == ["ab", "cd"]


def test_a_beam_ends_at_the_first_stop_text() -> None:
    beams = TextSampling(use_beam_search=True, stop=["d", "bc"], logprobs=0)
    [found] = generations({"choices": [choice("abcd", -1.0, -1.0, -1.0, -1.0)]}, beams)
    assert found.text == "a"
    assert found.generation_info is not None
    assert found.generation_info["stop_reason"] == "bc"
    assert found.generation_info["logprobs"]["tokens"] == ["a", "b", "c"]
    assert found.generation_info["cumulative_logprob"] == -3.0
    kept = beams.model_copy(update={"include_stop_str_in_output": True})
    assert generations({"choices": [choice("abcd", -1.0, -1.0, -1.0, -1.0)]}, kept)[0].text == "abc"


def test_the_counts_of_a_batch_are_summed_up() -> None:
    usage = {"prompt_tokens": 3, "total_tokens": 5, "prompt_tokens_details": {"cached_tokens": 2}}
    answer = {"model": "m", "choices": [choice("a", -1.0)], "usage": usage}
    output = llm_result([answer, answer], TextSampling()).llm_output
    total = {"prompt_tokens": 6, "total_tokens": 10, "prompt_tokens_details": {"cached_tokens": 4}}
    assert output == {"model_name": "m", "token_usage": total}


def test_chunks_that_say_nothing_are_left_out() -> None:
    silent = {"choices": [{"index": 0, "text": "", "finish_reason": None}]}
    assert list(generation_chunks(silent, TextSampling())) == []
    assert list(generation_chunks({"choices": [{"index": 0, "text": "a"}]}, TextSampling())) == [
        GenerationChunk(text="a")
    ]


async def test_all_ways_to_call() -> None:
    model, engine = scripted(*["Red and green."] * 6)
    assert model.invoke("Hi") == "Red and green."
    assert await model.ainvoke("Hi") == "Red and green."
    assert list(model.stream("Hi")) == ["Red", " and", " green.", "", ""]
    assert "".join([part async for part in model.astream("Hi")]) == "Red and green."
    assert model.batch(["a", "b"]) == ["Red and green."] * 2
    assert len(engine.requests) == 6


def test_an_end_that_a_stream_tells_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model, engine = scripted("Red")
    told = engine.stream_complete

    async def told_twice(request: Any) -> AsyncIterator[Any]:
        async for chunk in told(request):
            ended = [{**choice, "stop_reason": "."} for choice in chunk["choices"] if choice["finish_reason"]]
            for _ in range(2 if ended else 1):
                yield {**chunk, "choices": ended or chunk["choices"]}

    monkeypatch.setattr(engine, "stream_complete", told_twice)
    whole = reduce(add, model._stream("Hi"))
    assert whole.text == "Red"
    assert whole.generation_info is not None
    assert (whole.generation_info["finish_reason"], whole.generation_info["stop_reason"]) == ("stop", ".")


@pytest.mark.parametrize(
    "logprobs",
    [
        {"content": [{"token": "a", "logprob": -1.0}]},  # of llama.cpp
        {"tokens": ["a"], "token_logprobs": None},
        "a",
    ],
)
def test_log_probabilities_in_another_form_cost_no_answer(logprobs: Any) -> None:
    answer = {"choices": [{"index": 0, "text": "a", "finish_reason": "stop", "logprobs": logprobs}]}
    for sampling in TextSampling(logprobs=1), TextSampling(best_of=2):
        [generation] = generations(answer, sampling)
        [chunk] = generation_chunks(answer, sampling)
        assert generation.text == chunk.text == "a"
        assert generation.generation_info == chunk.generation_info == {"finish_reason": "stop"}


@pytest.mark.parametrize("alternatives", [None, 5, [None], ["a"]])
def test_alternatives_in_another_form_are_left_out(alternatives: Any) -> None:
    told = {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": alternatives}
    [generation] = generations({"choices": [{"text": "a", "logprobs": told}]}, TextSampling(logprobs=1))
    assert generation.generation_info is not None
    kept = generation.generation_info["logprobs"]["top_logprobs"]
    assert kept == ([{"a": -1.0}] if isinstance(alternatives, list) else [])


async def test_events_tell_of_the_tokens() -> None:
    model, _ = scripted("Red and green.")
    events = [event async for event in model.astream_events("Hi", version="v2")]
    assert events[0]["event"] == "on_llm_start"
    assert sum(event["event"] == "on_llm_stream" for event in events) >= 3
    assert events[-1]["event"] == "on_llm_end"


def test_an_error_of_one_prompt_is_the_error_of_the_batch() -> None:
    model, _ = scripted("a", RequestError("too long"), Reply("c", delay=30))
    with pytest.raises(RequestError, match="too long"):
        model.generate(["1", "2", "3"])


def test_a_closed_model_says_so() -> None:
    model, _ = scripted("a")
    with model:
        pass
    with pytest.raises(EngineClosedError):
        model.invoke("Hi")


# -- identity -----------------------------------------------------------------------------------------------


def test_it_can_be_pickled_with_its_arguments() -> None:
    model = VLLM(model="owner/name", temperature=0.5, stop=["a"], vllm_kwargs={"max_model_len": 64})
    copy = pickle.loads(pickle.dumps(model))
    assert copy._identifying_params == model._identifying_params
    assert copy._session is not model._session
    with pytest.raises(TypeError, match="given engine"):
        pickle.dumps(scripted("a")[0])


def test_what_changes_the_text_identifies_the_model() -> None:
    base = VLLM(model="owner/name")
    for other in ({"seed": 1}, {"best_of": 2}, {"dtype": "float16"}, {"vllm_kwargs": {"seed": 1}}):
        changed = VLLM(model="owner/name", **other)
        assert changed._identifying_params != base._identifying_params
    assert base._get_ls_params()["ls_model_name"] == "owner/name"
    assert base._get_ls_params()["ls_provider"] == "vllm"


def test_the_key_is_never_shown() -> None:
    model = VLLM(base_url="http://localhost:1/v1", api_key="a-secret-key")
    assert "a-secret-key" not in repr(model) + str(dumpd(model)) + str(model._identifying_params)
    model.close()


def test_a_configured_copy_is_the_same_model_with_another_setting() -> None:
    model, engine = scripted("one", "two")
    field = ConfigurableField(id="heat")
    configurable = model.configurable_fields(temperature=field)
    configurable.with_config(configurable={"heat": 0.25}).invoke("Hi")
    assert engine.requests[0]["temperature"] == 0.25
    remote = VLLM(base_url="http://localhost:1/v1").configurable_fields(temperature=field)
    copy, _ = remote.prepare({"configurable": {"heat": 0.25}})
    assert isinstance(copy, VLLM)
    assert (copy.temperature, copy.base_url) == (0.25, "http://localhost:1/v1")
    copy.close()


# -- with a chat model --------------------------------------------------------------------------------------


def test_a_chat_model_takes_engine_and_settings_over() -> None:
    arguments = {"max_model_len": 64, "tool_parser": "hermes", "max_num_seqs": 4}
    text = VLLM(temperature=0.5, max_new_tokens=9, stop=["a"], logprobs=2, seed=5, vllm_kwargs=arguments)
    chat = ChatVLLM(llm=text, temperature=0.1)
    assert (chat.temperature, chat.max_tokens, chat.stop, chat.logprobs, chat.seed) == (0.1, 9, ["a"], 2, 5)
    assert (chat.max_model_len, chat.tool_parser, chat.vllm_kwargs) == (64, "hermes", {"max_num_seqs": 4})


def test_their_configurations_are_equal_so_they_share() -> None:
    text = VLLM(model="owner/name", vllm_kwargs={"max_model_len": 64, "reasoning_parser": "qwen3"})
    chat = ChatVLLM(llm=text)
    configs: list[EngineConfig] = []
    for model in (text, chat):
        engine = model._session.engine()  # not started: nothing is loaded
        configs.append(engine.config)  # type: ignore[attr-defined]
        model.close()
    assert configs[0] == configs[1]
    assert configs[0].reasoning_parser == "qwen3"


def test_a_chat_model_on_a_given_engine() -> None:
    text, engine = scripted("one", "two")
    assert ChatVLLM(llm=text).invoke("Hi").text == "one"
    assert engine.requests[0]["messages"]


def test_llm_goes_with_no_other_engine() -> None:
    with pytest.raises(ConfigurationError, match="give model to the VLLM"):
        ChatVLLM(llm=VLLM(), model="owner/name")
    with pytest.raises(ConfigurationError, match=r"agent\.VLLM"):
        ChatVLLM(llm="gpt2")
    with pytest.warns(UserWarning, match="best_of"):
        ChatVLLM(llm=VLLM(best_of=3))


def test_importing_agent_does_not_import_langchain_community() -> None:
    code = "import sys, agent; agent.ChatVLLM; assert 'langchain_community' not in sys.modules; agent.VLLM"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert "sunset" not in done.stderr
    assert done.returncode == 0, done.stderr
