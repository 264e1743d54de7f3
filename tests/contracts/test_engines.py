"""What every engine promises, checked on each of them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from vllm_server import KEY, VLLMServer

from agent import ChatVLLM
from agent.engines import Engine, EngineConfig, LocalEngine, RemoteEngine, Reply, ScriptedEngine
from agent.errors import EngineClosedError, RequestError

QUESTION = {"role": "user", "content": "Name three colours."}
GREEDY = {"messages": [QUESTION], "temperature": 0.0, "max_tokens": 12}
TEXT = {"prompt": "1 2 3 4 5 6 7 8", "temperature": 0.0, "max_tokens": 8}
ENDLESS = {**GREEDY, "max_tokens": 4000, "ignore_eos": True}
PATIENCE = 60.0  # seconds; on an idle machine all of this takes milliseconds


@dataclass(frozen=True)
class Case:
    """One engine, and what a test needs to know of it from outside."""

    engine: Engine
    another: Callable[[], Engine]
    """A fresh engine of the same kind that no test has used; not started."""
    running: Callable[[], int]
    """How many requests it works on."""

    @property
    def real(self) -> bool:
        return not isinstance(self.engine, ScriptedEngine)

    def chat(self, request: dict[str, Any]) -> dict[str, Any]:
        return self.engine.loop.run(self.engine.chat(request))

    def stream(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        return list(self.engine.loop.iterate(self.engine.stream_chat(request)))

    def wait_until_idle(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.running():
            assert time.monotonic() < deadline, "the request still has its slot"
            time.sleep(0.05)


def scripted() -> ScriptedEngine:
    return ScriptedEngine([Reply("Red, green and blue.")], repeat=True)


def build(kind: str, request: pytest.FixtureRequest) -> Iterator[Case]:
    if kind == "scripted":
        double = scripted()
        yield Case(double, scripted, lambda: 0)
        double.close()
    elif kind == "local":
        model: ChatVLLM = request.getfixturevalue("real_model")
        local = model._session.engine()
        assert isinstance(local, LocalEngine)
        config = EngineConfig.create(local.config.model)
        yield Case(local, lambda: LocalEngine(config), lambda: scheduled(local))
    else:
        server: VLLMServer = request.getfixturevalue("vllm_server")
        remote = RemoteEngine(server.base_url, api_key=KEY)
        yield Case(remote, lambda: RemoteEngine(server.base_url, api_key=KEY), server.running)
        remote.close()


REAL = [pytest.param(kind, marks=pytest.mark.engine) for kind in ("local", "remote")]


@pytest.fixture(params=["scripted", *REAL])
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    """Each engine."""
    yield from build(request.param, request)


@pytest.fixture(params=REAL)
def real_case(request: pytest.FixtureRequest) -> Iterator[Case]:
    """Each engine that has tokens, limits and slots, which a script has not."""
    yield from build(request.param, request)


def scheduled(engine: LocalEngine) -> int:
    assert engine._server is not None
    assert engine._server._llm is not None
    running, waiting = engine._server._llm.engine_core.engine_core.scheduler.get_request_counts()
    return running + waiting


def text(chunks: list[dict[str, Any]]) -> str:
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])


# -- start --------------------------------------------------------------------------------------------------


def test_is_an_engine(case: Case) -> None:
    assert isinstance(case.engine, Engine)
    assert not case.engine.closed


def test_start_says_what_the_engine_is(case: Case) -> None:
    info = case.engine.loop.run(case.engine.start())
    assert (
        info.kind
        == {"Scripted": "scripted", "Local": "in-process", "Remote": "remote"}[
            type(case.engine).__name__.removesuffix("Engine")
        ]
    )
    assert info.model
    assert info.version
    assert case.engine.loop.run(case.engine.start()) == info
    if case.real:
        assert info.max_model_len == 8192
        assert "vLLM" in info.version
        assert "<|im_start|>" in (info.chat_template or "")
        assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>"} <= set(info.control_tokens)
        assert info.tool_parser is None  # this template takes no tools


# -- answers ------------------------------------------------------------------------------------------------


def test_an_answer_has_the_wire_form(case: Case) -> None:
    response = case.chat(GREEDY)
    [choice] = response["choices"]
    assert response["id"]
    assert choice["index"] == 0
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"].strip()
    assert choice["finish_reason"] in ("stop", "length")
    usage = response["usage"]
    assert usage["prompt_tokens"] > 0
    assert usage["completion_tokens"] > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_a_stream_says_what_the_answer_says(case: Case) -> None:
    whole, chunks = case.chat(GREEDY), case.stream(GREEDY)
    assert text(chunks) == whole["choices"][0]["message"]["content"]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    reasons = [c["choices"][0].get("finish_reason") for c in chunks if c["choices"]]
    assert reasons[-1] == whole["choices"][0]["finish_reason"]
    assert not any(reasons[:-1])
    counts = ("prompt_tokens", "completion_tokens", "total_tokens")
    assert [chunks[-1]["usage"][n] for n in counts] == [whole["usage"][n] for n in counts]
    assert sum(bool((chunk.get("usage") or {}).get("completion_tokens")) for chunk in chunks) == 1


def test_an_answer_at_its_limit_says_so(real_case: Case) -> None:
    response = real_case.chat({**ENDLESS, "max_tokens": 5})
    assert response["choices"][0]["finish_reason"] == "length"
    assert response["usage"]["completion_tokens"] == 5


def test_several_answers_have_an_index_each(real_case: Case) -> None:
    response = real_case.chat({**GREEDY, "temperature": 1.0, "n": 3})
    assert [choice["index"] for choice in response["choices"]] == [0, 1, 2]


def test_a_repeated_prompt_comes_from_the_cache(real_case: Case) -> None:
    long = {**GREEDY, "max_tokens": 1, "messages": [{"role": "user", "content": "All good things. " * 60}]}
    real_case.chat(long)
    assert real_case.chat(long)["usage"]["prompt_tokens_details"]["cached_tokens"] > 0


def test_render_gives_the_tokens_of_the_prompt(case: Case) -> None:
    tokens = case.engine.loop.run(case.engine.render(GREEDY))
    assert all(isinstance(token, int) for token in tokens)
    assert len(tokens) == case.chat(GREEDY)["usage"]["prompt_tokens"]


# -- plain texts --------------------------------------------------------------------------------------------


def test_a_text_is_continued(case: Case) -> None:
    response = case.engine.loop.run(case.engine.complete(TEXT))
    [choice] = response["choices"]
    assert choice["index"] == 0
    assert choice["finish_reason"] in ("stop", "length")
    assert choice.get("logprobs") is None
    usage = response["usage"]
    assert usage["prompt_tokens"] == len(case.engine.loop.run(case.engine.render(TEXT)))
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    if case.real:  # a chat template would have the model talk about the numbers
        assert choice["text"].startswith(" 9 10")
    else:
        assert choice["text"] == "Red, green and blue."


def test_a_streamed_text_is_the_whole_text(case: Case) -> None:
    whole = case.engine.loop.run(case.engine.complete(TEXT))
    chunks = list(case.engine.loop.iterate(case.engine.stream_complete(TEXT)))
    parts = [choice for chunk in chunks for choice in chunk["choices"]]
    assert len(parts) > 1  # what comes while nobody takes it may come together
    assert "".join(part["text"] for part in parts) == whole["choices"][0]["text"]
    reasons = [part.get("finish_reason") for part in parts]
    assert reasons[-1] == whole["choices"][0]["finish_reason"]
    assert not any(reasons[:-1])
    assert chunks[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]


def test_several_texts_have_their_tokens_with_likelihoods(case: Case) -> None:
    wanted = {**TEXT, "temperature": 1.0, "n": 2, "logprobs": 1}
    response = case.engine.loop.run(case.engine.complete(wanted))
    assert [choice["index"] for choice in response["choices"]] == [0, 1]
    for choice in response["choices"]:
        logprobs = choice["logprobs"]
        assert len({len(logprobs[name]) for name in ("tokens", "token_logprobs", "top_logprobs")}) == 1
        assert all(value <= 0 for value in logprobs["token_logprobs"])
        if not case.real:
            assert "".join(logprobs["tokens"]) == choice["text"]


def test_a_text_longer_than_the_context_has_tokens_and_no_continuation(real_case: Case) -> None:
    long = {**TEXT, "prompt": " word" * 9000}
    assert len(real_case.engine.loop.run(real_case.engine.render(long))) == 9000
    with pytest.raises(RequestError, match="8192"):
        real_case.engine.loop.run(real_case.engine.complete(long))
    with pytest.raises(RequestError, match="8192"):
        list(real_case.engine.loop.iterate(real_case.engine.stream_complete(long)))


def test_leaving_a_streamed_text_frees_its_slot(real_case: Case) -> None:
    endless = {**TEXT, "max_tokens": 4000, "ignore_eos": True}
    stream = real_case.engine.loop.iterate(real_case.engine.stream_complete(endless))
    next(stream)
    assert real_case.running() == 1
    stream.close()
    real_case.wait_until_idle()


async def test_cancelling_a_text_frees_its_slot(real_case: Case) -> None:
    endless = {**TEXT, "max_tokens": 4000, "ignore_eos": True}
    call = asyncio.create_task(real_case.engine.loop.arun(real_case.engine.complete(endless)))
    await wait_until_busy(real_case)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.to_thread(real_case.wait_until_idle)


# -- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"messages": [{"role": "user", "content": "word " * 9000}]}, "8192"),
        ({"max_tokens": 100_000}, "max_tokens"),
        ({"structured_outputs": {"grammar": "root ::= ("}}, "(?i)grammar"),
        ({"temperature": 9.0}, "temperature"),
        ({"messages": [{"role": "user"}, {"role": "wizard", "content": 1}]}, "messages"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "auto"}, "tool"),
    ],
    ids=["prompt too long", "answer too long", "bad grammar", "out of range", "bad messages", "no parser"],
)
def test_a_refused_request_leaves_the_engine_working(
    real_case: Case, fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(RequestError, match=says):
        real_case.chat({**GREEDY, **fields})
    with pytest.raises(RequestError, match=says):
        real_case.stream({**GREEDY, **fields})
    assert real_case.chat({**GREEDY, "max_tokens": 1})["choices"]


def test_an_error_of_the_script_is_raised() -> None:
    engine = ScriptedEngine([RequestError("too long"), "fine"])
    with pytest.raises(RequestError, match="too long"):
        engine.loop.run(engine.chat(GREEDY))
    assert engine.loop.run(engine.chat(GREEDY))["choices"][0]["message"]["content"] == "fine"
    engine.close()


# -- leaving early ------------------------------------------------------------------------------------------


def test_closing_a_stream_frees_its_slot(real_case: Case) -> None:
    stream = real_case.engine.loop.iterate(real_case.engine.stream_chat(ENDLESS))
    for _ in range(3):
        next(stream)
    assert real_case.running() == 1
    stream.close()
    real_case.wait_until_idle()


async def test_closing_a_stream_on_another_loop_frees_its_slot(real_case: Case) -> None:
    stream = real_case.engine.loop.aiterate(real_case.engine.stream_chat(ENDLESS))
    for _ in range(3):
        await anext(stream)
    assert real_case.running() == 1
    await stream.aclose()  # type: ignore[attr-defined]
    await asyncio.to_thread(real_case.wait_until_idle)


async def wait_until_busy(case: Case) -> None:
    deadline = time.monotonic() + PATIENCE
    while not await asyncio.to_thread(case.running):
        assert time.monotonic() < deadline, "the request never ran"
        await asyncio.sleep(0.02)


async def test_cancelling_a_call_frees_its_slot(real_case: Case) -> None:
    call = asyncio.create_task(real_case.engine.loop.arun(real_case.engine.chat(ENDLESS)))
    await wait_until_busy(real_case)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.to_thread(real_case.wait_until_idle)


async def test_cancelling_the_consumer_of_a_stream_frees_its_slot(real_case: Case) -> None:
    async def consume() -> None:
        async for _ in real_case.engine.loop.aiterate(real_case.engine.stream_chat(ENDLESS)):
            pass

    consumer = asyncio.create_task(consume())
    await wait_until_busy(real_case)
    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer
    await asyncio.to_thread(real_case.wait_until_idle)


# -- callers from everywhere --------------------------------------------------------------------------------


def test_threads_and_event_loops_call_at_once(case: Case) -> None:
    expected = case.chat(GREEDY)["choices"][0]["message"]["content"]

    def from_a_thread() -> list[str]:
        return [case.chat(GREEDY)["choices"][0]["message"]["content"], text(case.stream(GREEDY))]

    async def from_a_loop() -> list[str]:
        async def stream() -> str:
            return text([chunk async for chunk in case.engine.loop.aiterate(case.engine.stream_chat(GREEDY))])

        answer, streamed = await asyncio.gather(case.engine.loop.arun(case.engine.chat(GREEDY)), stream())
        return [answer["choices"][0]["message"]["content"], streamed]

    with ThreadPoolExecutor(7) as pool:
        calls = [pool.submit(from_a_thread) for _ in range(4)]
        calls += [pool.submit(lambda: asyncio.run(from_a_loop())) for _ in range(3)]
        answers = [answer for call in calls for answer in call.result()]
    # Batches of other sizes round differently, which may turn a late token; the beginning holds.
    assert len(answers) == 14
    assert {answer[:10] for answer in answers} == {expected[:10]}


# -- close --------------------------------------------------------------------------------------------------


def test_a_closed_engine_says_so(case: Case) -> None:
    engine = case.another()
    if not isinstance(engine, LocalEngine):  # starting one more takes long; see test_local_engine.py
        engine.loop.run(engine.start())
    engine.close()
    engine.close()
    assert engine.closed
    calls = (engine.start, lambda: engine.chat(GREEDY), lambda: engine.complete(TEXT))
    for call in (*calls, lambda: engine.render(GREEDY)):
        with pytest.raises(EngineClosedError):
            engine.loop.run(call())
    with pytest.raises(EngineClosedError):
        list(engine.loop.iterate(engine.stream_chat(GREEDY)))
    with pytest.raises(EngineClosedError):
        list(engine.loop.iterate(engine.stream_complete(TEXT)))
    with pytest.raises(EngineClosedError):
        asyncio.run(engine.loop.arun(engine.chat(GREEDY)))


@pytest.mark.parametrize(
    "case", ["scripted", pytest.param("remote", marks=pytest.mark.engine)], indirect=True
)
def test_close_ends_the_calls_that_wait(case: Case) -> None:
    engine = case.another() if case.real else ScriptedEngine([Reply("late", delay=PATIENCE)], repeat=True)
    outcomes: list[BaseException | None] = []

    def wait(call: Callable[[], Any]) -> None:
        try:
            call()
        except (Exception, CancelledError, asyncio.CancelledError) as error:
            outcomes.append(error)
        else:
            outcomes.append(None)

    calls = [
        lambda: engine.loop.run(engine.chat(ENDLESS)),
        lambda: list(engine.loop.iterate(engine.stream_chat(ENDLESS))),
        lambda: asyncio.run(engine.loop.arun(engine.chat(ENDLESS))),
    ]
    engine.loop.run(engine.start())
    threads = [threading.Thread(target=wait, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    if case.real:
        asyncio.run(wait_until_busy(case))
    else:
        time.sleep(0.2)
    engine.close()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert [type(outcome) for outcome in outcomes] == [EngineClosedError] * 3
