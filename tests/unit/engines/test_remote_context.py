"""A model on a server learns there how long a conversation may be, before one that is too long is sent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from http_double import Answer, Call, serving
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda

from agent import ChatVLLM
from graphs import build_plan_execute_graph, build_react_graph, build_retrieval_graph

LIMIT = 600
KEPT = 100  # for the answer


def handler(call: Call) -> Answer:
    if call.path == "/v1/models":
        return Answer({"data": [{"id": "only", "owned_by": "somebody", "max_model_len": LIMIT}]})
    if call.path == "/v1/chat/completions":
        message = {"role": "assistant", "content": "Hello"}
        return Answer({"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    return Answer({"error": {"message": "no such route"}}, status=404)


def conversation() -> dict[str, Any]:
    turns = [(HumanMessage(f"Question {n}. " + "Why? " * 20), AIMessage("So. " * 20)) for n in range(50)]
    return {"messages": [*(message for turn in turns for message in turn), HumanMessage("The last one.")]}


@pytest.mark.parametrize("build", [build_react_graph, build_plan_execute_graph, build_retrieval_graph])
async def test_a_conversation_is_cut_to_what_the_server_takes(build: Any) -> None:
    with serving(handler) as server:
        model = ChatVLLM(base_url=server.address, max_tokens=KEPT)
        options = {"retriever": RunnableLambda(lambda _: [])} if build is build_retrieval_graph else {}
        graph = build(model=model, **options)
        assert model.profile is None  # nobody has asked yet
        if build is build_react_graph:
            graph.invoke(conversation())
        else:
            await graph.ainvoke(conversation())
        assert model.profile == {"max_input_tokens": LIMIT - KEPT}
        asked = server.asked("/v1/chat/completions")
        assert asked
        for call in asked:
            texts = [message["content"] for message in call.body["messages"]]
            assert sum(map(len, texts)) < 4 * LIMIT
            assert any("The last one." in text for text in texts)
        model.close()


async def test_no_event_loop_waits_for_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(model: ChatVLLM) -> int:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return LIMIT

    monkeypatch.setattr(ChatVLLM, "max_input_tokens", ask)
    with serving(handler) as server, ChatVLLM(base_url=server.address) as model:
        await build_plan_execute_graph(model=model).ainvoke(conversation())
        searching = build_retrieval_graph(model=model, retriever=RunnableLambda(lambda _: []))
        await searching.ainvoke(conversation())


def test_a_server_that_does_not_say_sets_no_limit() -> None:
    def silent(call: Call) -> Answer:
        if call.path == "/v1/models":
            return Answer({"data": [{"id": "only", "max_model_len": "long"}]})
        return handler(call)

    with serving(silent) as server:
        model = ChatVLLM(base_url=server.address)
        assert model.max_input_tokens() is None
        build_react_graph(model=model).invoke(conversation())
        [call] = server.asked("/v1/chat/completions")
        assert len(call.body["messages"]) == 101
        model.close()
