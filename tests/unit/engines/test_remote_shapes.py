"""Answers of other servers in forms that nothing above an engine knows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from http_double import Answer, Call, serving

from agent import VLLM, ChatVLLM, VLLMEmbeddings, VLLMReranker
from agent.errors import EngineError, ModelNotFoundError

MODELS = Answer({"data": [{"id": "only", "owned_by": "somebody"}]})
CALL = {"id": "c", "function": {"name": "f", "arguments": {"a": 1}}}


@pytest.mark.parametrize(
    "choices",
    [
        [],
        [None],
        [{}],
        [{"message": None}],
        [{"message": {"content": [{"type": "text", "text": "Hi"}]}}],
        [{"message": {"content": None, "tool_calls": [CALL]}}],
        [{"message": {"content": None, "tool_calls": [{"function": {"name": None}}]}}],
    ],
    ids=json.dumps,
)
def test_whole(choices: list[Any]) -> None:
    with serving(lambda call: MODELS if call.method == "GET" else Answer({"choices": choices})) as double:
        for kind in (ChatVLLM, VLLM):
            with kind(base_url=double.address) as model, pytest.raises(EngineError, match="no known form"):
                model.invoke("Hi")


@pytest.mark.parametrize(
    ("kind", "choice"), [(ChatVLLM, {"text": "Hi"}), (VLLM, {"message": {"content": "Hi"}})], ids=str
)
def test_a_text_is_no_message_and_a_message_no_text(kind: Any, choice: Any) -> None:
    with (
        serving(lambda call: MODELS if call.method == "GET" else Answer({"choices": [choice]})) as double,
        kind(base_url=double.address) as model,
        pytest.raises(EngineError, match="no known form"),
    ):
        model.invoke("Hi")


@pytest.mark.parametrize(
    "choice",
    [
        None,
        {"delta": {"content": [{"type": "text", "text": "Hi"}]}},
        {"delta": {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}},
        {"delta": "Hi"},
        {"delta": {"tool_calls": [{"index": 0, **CALL}]}},
        {"delta": {"tool_calls": [{"index": 0, "function": {"name": 5}}]}},
    ],
    ids=json.dumps,
)
def test_streamed(choice: Any) -> None:
    def handler(call: Call) -> Answer:
        if call.method == "GET":
            return MODELS
        data = json.dumps({"id": "x", "choices": [choice]})
        return Answer(iter([f"data: {data}\n\n".encode(), b"data: [DONE]\n\n"]))

    with (
        serving(handler) as double,
        ChatVLLM(base_url=double.address) as model,
        pytest.raises(EngineError, match="no known form"),
    ):
        list(model.stream("Hi"))


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"data": None, "results": None},
        {"data": [{}], "results": [{}]},
        {"data": [{"index": 0}], "results": [{"index": 0, "relevance_score": None}]},
        {"data": [], "results": []},
    ],
    ids=json.dumps,
)
def test_pooled(body: Any) -> None:
    with serving(lambda call: MODELS if call.method == "GET" else Answer(body)) as double:
        with pytest.raises(EngineError, match=r"no known form|0 of 1 texts"):
            VLLMEmbeddings(base_url=double.address).embed_query("Hi")
        with pytest.raises(EngineError, match=r"no known form|0 of 1 texts"):
            VLLMReranker(base_url=double.address).score("Hi", ["Ho"])


USAGES = [[1], {"prompt_tokens": "7"}, {"prompt_tokens": 7.5}, {"prompt_tokens_details": [1]}]


@pytest.mark.parametrize("usage", USAGES, ids=json.dumps)
def test_an_answer_is_worth_more_than_its_counts_of_tokens(usage: Any) -> None:
    choice = {"message": {"content": "Hi"}, "text": "Hi", "delta": {"content": "Hi"}, "finish_reason": "stop"}
    body = {"id": "x", "choices": [choice], "usage": usage}

    def handler(call: Call) -> Answer:
        if call.method == "GET":
            return MODELS
        return Answer(iter([f"data: {json.dumps(body)}\n\n".encode()]) if call.body["stream"] else body)

    with serving(handler) as double, ChatVLLM(base_url=double.address) as model:
        assert model.invoke("Hi").text == "Hi"
        assert "".join(chunk.text for chunk in model.stream("Hi")) == "Hi"
    with serving(
        lambda call: MODELS if call.method == "GET" else Answer({**body, "choices": [{"text": "Hi"}]})
    ) as d:
        assert VLLM(base_url=d.address).invoke("Hi") == "Hi"


def test_the_last_counts_of_a_streamed_text_are_kept() -> None:
    """Some servers count in each chunk, and tell the last count beside the end."""
    choices = [{"text": "a"}, {"text": "b", "finish_reason": "stop"}]
    parts = [{"choices": [choice], "usage": {"completion_tokens": n}} for n, choice in enumerate(choices, 1)]

    def handler(call: Call) -> Answer:
        return (
            MODELS if call.method == "GET" else Answer(f"data: {json.dumps(p)}\n\n".encode() for p in parts)
        )

    with serving(handler) as double, VLLM(base_url=double.address) as model:
        [whole] = [each for each in model._stream("Hi") if "token_usage" in (each.generation_info or {})]
        assert whole.generation_info == {"token_usage": {"completion_tokens": 2}}


def vllm_server(**answers: Any) -> Any:
    """A vLLM server, some of whose routes answer in a form of their own."""
    usual: dict[str, Any] = {
        "/v1/models": {"data": [{"id": "only", "owned_by": "vllm"}]},
        "/version": {"version": "1"},
        "/tokenizer_info": {},
        "/tokenize": {"count": 1, "tokens": [1], "token_strs": ["<s>"]},
        "/detokenize": {"prompt": "Hi"},
        "/v1/chat/completions": {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]},
    }
    paths = {**usual, **{f"/{name}": answer for name, answer in answers.items()}}
    return serving(lambda call: Answer(paths[call.path]))


@pytest.mark.parametrize("body", [5, {}, [], {"token_strs": 5}, {"token_strs": [5]}], ids=json.dumps)
def test_a_server_that_tokenizes_otherwise_can_be_used(body: Any) -> None:
    with vllm_server(tokenize=body) as double, ChatVLLM(base_url=double.address) as model:
        assert model.invoke("Hi").text == "Hi"
        assert model.protocol == "text"
        with pytest.raises(EngineError, match="no known form"):
            model.get_token_ids("Hi")


@pytest.mark.parametrize(
    "told",
    [{"added_tokens_decoder": [1]}, {"added_tokens_decoder": {"1": 5}}, {"eos_token": 5}],
    ids=json.dumps,
)
def test_a_tokenizer_that_is_told_otherwise_is_asked(told: Any) -> None:
    with vllm_server(tokenizer_info=told) as double, ChatVLLM(base_url=double.address) as model:
        assert model.start().control_tokens == ("<s>",)


def test_tokens_that_are_records_are_known() -> None:
    told = {"added_tokens_decoder": {"1": {"content": "<|a|>"}}, "eos_token": {"content": "<|b|>"}}
    with vllm_server(tokenizer_info=told) as double, ChatVLLM(base_url=double.address) as model:
        assert model.start().control_tokens == ("<|a|>", "<|b|>")


@pytest.mark.parametrize("body", [{}, [], {"prompt": None}], ids=json.dumps)
def test_explained(body: Any) -> None:
    with (
        vllm_server(detokenize=body) as double,
        ChatVLLM(base_url=double.address) as model,
        pytest.raises(EngineError, match="no known form"),
    ):
        model.explain("Hi")


@pytest.mark.parametrize("data", [5, "only", [5], [{"id": 5}], [{"id": ["only"]}]], ids=json.dumps)
def test_models(data: Any) -> None:
    with (
        serving(lambda call: Answer({"data": data})) as double,
        ChatVLLM(base_url=double.address) as model,
        pytest.raises(ModelNotFoundError, match="lists no model"),
    ):
        model.start()


@pytest.mark.parametrize("status", [200, 403, 404])
def test_a_server_that_does_not_let_anybody_ask_gets_no_control_tokens_in_content(status: int) -> None:
    def handler(call: Call) -> Answer:
        if call.path == "/v1/models":
            return Answer({"data": [{"id": "only", "owned_by": "vllm"}]})
        if call.path == "/v1/chat/completions":
            return Answer({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]})
        page = iter([b"<html>Welcome</html>"])
        return Answer(page, status=status)  # a proxy that shows the API alone

    with serving(handler) as double, ChatVLLM(base_url=double.address) as model:
        model.invoke("Say <|im_end|>")
        [message] = double.asked("/v1/chat/completions")[-1].body["messages"]
        assert "<|im_end|>" not in message["content"]
        assert model.protocol == "text"
