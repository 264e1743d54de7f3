"""What a remote engine makes of servers that are absent, busy, strange or broken."""

from __future__ import annotations

import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from http_double import Answer, Call, Double, serving
from ports import held_port
from pydantic import SecretStr

from agent.engines import RemoteEngine
from agent.errors import (
    AgentError,
    ConfigurationError,
    EngineClosedError,
    EngineDeadError,
    EngineError,
    EngineStartError,
    ModelNotFoundError,
    RequestError,
)

ASK = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
WHOLE = {"id": "x", "choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}]}
KEY = "sesame-open"
PATIENCE = 60.0  # seconds; on an idle machine all of this takes milliseconds


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle connections stay, and are found to be dropped, however long this process is kept waiting."""
    monkeypatch.setattr("agent.engines.remote.connection._IDLE_SECONDS", 10 * PATIENCE)
    monkeypatch.setattr("agent.engines.remote.connection._AT_ONCE", PATIENCE)


def models(*ids: str, owner: str = "somebody") -> Answer:
    return Answer({"data": [{"id": name, "owned_by": owner, "max_model_len": 4096} for name in ids]})


def chunk(content: str, finish: str | None = None) -> bytes:
    data = {"id": "x", "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish}]}
    return f"data: {json.dumps(data)}\n\n".encode()


@contextmanager
def talking(
    chat: Callable[[Call], Answer] | Answer, *, owner: str = "somebody", health: int = 200, **options: Any
) -> Iterator[tuple[RemoteEngine, Double]]:
    """An engine at a server that has one model and answers to chats as told."""

    def handler(call: Call) -> Answer:
        if call.path == "/v1/models":
            return models("only", owner=owner)
        if call.path == "/v1/chat/completions":
            return chat(call) if callable(chat) else chat
        if call.path == "/tokenize" and owner == "vllm":
            return Answer({"count": 7, "tokens": [0] * 7})  # with and without tools: it does not show them
        if call.path == "/health":
            return Answer(status=health)
        return Answer({"error": {"message": "no such route"}}, status=404)

    with serving(handler) as double:
        engine = RemoteEngine(double.address, api_key=KEY, **options)
        try:
            yield engine, double
        finally:
            engine.close()


def ask(engine: RemoteEngine, **fields: Any) -> dict[str, Any]:
    return engine.loop.run(engine.chat({**ASK, **fields}))


def stream(engine: RemoteEngine, **fields: Any) -> list[dict[str, Any]]:
    return list(engine.loop.iterate(engine.stream_chat({**ASK, **fields})))


def failure(engine: RemoteEngine, call: Callable[..., Any] = ask, **fields: Any) -> AgentError:
    with pytest.raises(AgentError) as caught:
        call(engine, **fields)
    assert KEY not in f"{caught.value} {caught.value!r} {caught.value.__cause__}"
    return caught.value


# -- addresses and arguments --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["", "localhost:8000", "ftp://host", "http://", "http://host/v1?key=1", "http://host:99999/v1", 7],
)
def test_an_address_that_is_none_is_refused(address: Any) -> None:
    with pytest.raises(ConfigurationError, match="base_url"):
        RemoteEngine(address)


@pytest.mark.parametrize(
    "options",
    [
        *({"timeout": value} for value in (0, -1, float("nan"), "5", None)),
        *({"max_retries": value} for value in (-1, 1.5, float("nan"), "5", None)),
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="timeout"):
        RemoteEngine("http://localhost", **options)


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
def test_the_path_of_the_api_may_be_left_out(path: str) -> None:
    with talking(Answer(WHOLE)) as (engine, double):
        other = RemoteEngine(double.address + path)
        assert ask(other) == WHOLE
        other.close()
        assert engine is not other
        assert [call.path for call in double.calls] == ["/v1/models", "/v1/chat/completions"]


def test_another_path_is_kept() -> None:
    with serving(lambda call: models("a") if call.method == "GET" else Answer(WHOLE)) as double:
        engine = RemoteEngine(f"{double.address}/gateway/openai/v1")
        ask(engine)
        engine.close()
        prefix = "/gateway/openai/v1"
        assert [call.path for call in double.calls] == [f"{prefix}/models", f"{prefix}/chat/completions"]


@pytest.mark.parametrize("key", [KEY, SecretStr(KEY)])
def test_the_key_and_headers_are_sent_and_never_shown(key: Any) -> None:
    with talking(Answer(WHOLE)) as (_, double):
        engine = RemoteEngine(double.address, api_key=key, headers={"X-Team": "blue"})
        ask(engine)
        engine.close()
        assert {call.headers["authorization"] for call in double.calls} == {f"Bearer {KEY}"}
        assert {call.headers["x-team"] for call in double.calls} == {"blue"}
        assert KEY not in repr(engine)


@pytest.fixture
def port() -> Iterator[int]:
    """Where nobody is."""
    with held_port() as port:
        yield port


def test_a_password_in_the_address_is_not_shown(port: int) -> None:
    engine = RemoteEngine(f"http://someone:hidden@127.0.0.1:{port}", max_retries=0)
    error = failure(engine)
    assert isinstance(error, EngineStartError)
    assert "hidden" not in f"{error} {engine!r}"
    engine.close()


def test_a_proxy_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with talking(Answer(WHOLE)) as (engine, _):
        assert ask(engine) == WHOLE


# -- start --------------------------------------------------------------------------------------------------


def test_nobody_at_the_address(port: int) -> None:
    address = f"http://127.0.0.1:{port}"
    engine = RemoteEngine(address, max_retries=1)
    error = failure(engine)
    assert isinstance(error, EngineStartError)
    assert address in str(error)
    assert "vllm serve MODEL" in str(error)
    engine.close()


def test_a_server_that_comes_late_is_found_by_the_retries(port: int) -> None:
    engine = RemoteEngine(f"http://127.0.0.1:{port}", max_retries=6)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, engine)
        time.sleep(0.3)
        with serving(lambda call: models("only") if call.method == "GET" else Answer(WHOLE), port=port):
            assert answer.result() == WHOLE
    engine.close()


def test_a_wrong_key() -> None:
    with serving(lambda call: Answer({"error": f"Incorrect API key: {KEY}"}, status=401)) as double:
        engine = RemoteEngine(double.address, api_key=KEY)
        error = failure(engine)
        assert isinstance(error, ConfigurationError)
        assert "api_key" in str(error)
        assert "VLLM_API_KEY" in str(error)
        assert "***" in str(error)
        engine.close()


def test_no_such_model() -> None:
    with serving(lambda call: models("large", "small")) as double:
        engine = RemoteEngine(double.address, model="huge")
        error = failure(engine)
        assert isinstance(error, ModelNotFoundError)
        assert "'huge'" in str(error)
        assert "large, small" in str(error)
        engine.close()


def test_several_models_and_none_named() -> None:
    with serving(lambda call: models("large", "small")) as double:
        engine = RemoteEngine(double.address)
        error = failure(engine)
        assert isinstance(error, ConfigurationError)
        assert "large, small" in str(error)
        engine.close()


def test_adapters_and_other_names_of_one_model_are_no_choice() -> None:
    cards = [
        {"id": "first", "root": "/models/a"},
        {"id": "second", "root": "/models/a"},
        {"id": "adapter", "root": "/loras/b", "parent": "first"},
    ]
    with serving(lambda call: Answer({"data": cards})) as double:
        engine = RemoteEngine(double.address)
        assert engine.loop.run(engine.start()).model == "first"
        engine.close()


def test_no_model_at_all() -> None:
    with serving(lambda call: Answer({"data": []})) as double:
        engine = RemoteEngine(double.address)
        assert isinstance(failure(engine), ModelNotFoundError)
        engine.close()


def test_a_server_without_a_list_of_models_needs_the_name() -> None:
    def handler(call: Call) -> Answer:
        return Answer(WHOLE) if call.method == "POST" else Answer({"detail": "Not Found"}, status=404)

    with serving(handler) as double:
        nameless, named = RemoteEngine(double.address), RemoteEngine(double.address, model="hidden")
        error = failure(nameless)
        assert isinstance(error, EngineStartError)
        assert "base_url" in str(error)
        assert ask(named) == WHOLE
        assert double.calls[-1].body["model"] == "hidden"
        nameless.close()
        named.close()


def test_a_page_in_the_place_of_an_api() -> None:
    with serving(lambda call: Answer(iter([b"<html>Welcome</html>"]))) as double:
        engine = RemoteEngine(double.address)
        error = failure(engine)
        assert isinstance(error, EngineStartError)
        assert "Welcome" in str(error)
        engine.close()


def test_a_start_that_failed_is_tried_again_by_the_next_call() -> None:
    answers = iter([Answer({"error": "loading"}, status=503), models("only")])
    with serving(lambda call: next(answers) if call.method == "GET" else Answer(WHOLE)) as double:
        engine = RemoteEngine(double.address)
        assert isinstance(failure(engine), EngineStartError)
        assert ask(engine) == WHOLE
        engine.close()


# -- retries ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("call", [ask, stream])
def test_a_busy_server_is_asked_again_when_it_said_when(status: int, call: Callable[..., Any]) -> None:
    busy = Answer({"error": {"message": "busy"}}, status=status, headers={"Retry-After": "0"})

    def chat(asked: Call) -> Answer:
        if len(double.asked("/v1/chat/completions")) < 3:
            return busy
        return (
            Answer(iter([chunk("Hello", "stop"), b"data: [DONE]\n\n"]))
            if asked.body["stream"]
            else Answer(WHOLE)
        )

    with talking(chat, max_retries=2) as (engine, double):
        assert call(engine)
        assert len(double.asked("/v1/chat/completions")) == 3


@pytest.mark.parametrize(
    ("headers", "status", "tries"),
    [
        ({"Retry-After": "0"}, 429, 2),
        ({}, 429, 1),
        ({"Retry-After": "3600"}, 429, 1),
        ({"Retry-After": "0"}, 500, 1),
    ],
    ids=["always busy", "does not say when", "far too long", "another error"],
)
def test_retries_end(headers: dict[str, str], status: int, tries: int) -> None:
    with talking(Answer({"error": "no"}, status=status, headers=headers), max_retries=1) as (engine, double):
        error = failure(engine)
        assert type(error) is EngineError
        assert str(status) in str(error)
        assert len(double.asked("/v1/chat/completions")) == tries


def test_a_call_that_was_sent_is_not_sent_again() -> None:
    with talking(Answer(WHOLE, cut=True), max_retries=5) as (engine, double):
        assert isinstance(failure(engine), EngineDeadError)
        assert len(double.asked("/v1/chat/completions")) == 1


@pytest.mark.parametrize("call", [ask, stream])
def test_a_call_on_a_connection_that_was_just_dropped_is_sent_on_a_new_one(call: Callable[..., Any]) -> None:
    """As servers do with idle connections; a client cannot know before it uses one."""
    seen: set[int] = set()

    def once_each(asked: Call) -> Answer:
        known = asked.client in seen
        seen.add(asked.client)
        if known:
            return Answer(dropped=True)
        return Answer(iter([chunk("Hello", "stop"), b"data: [DONE]\n\n"]) if call is stream else WHOLE)

    with talking(once_each, max_retries=0) as (engine, double):
        answers = [call(engine) for _ in range(3)]
        assert answers[0] == answers[1] == answers[2]
        assert len(double.asked("/v1/chat/completions")) == 5


def test_a_call_that_was_worked_on_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.engines.remote.connection._AT_ONCE", 0.05)

    def after_a_while(asked: Call) -> Answer:
        time.sleep(0.2)
        return Answer(dropped=True)

    with talking(after_a_while) as (engine, double):
        assert isinstance(failure(engine), EngineDeadError)
        [call] = double.asked("/v1/chat/completions")
        assert call.client in {known.client for known in double.asked("/v1/models")}


def test_a_call_that_a_new_connection_loses_too_is_not_sent_again() -> None:
    with talking(Answer(dropped=True), max_retries=5) as (engine, double):
        error = failure(engine)
        assert isinstance(error, EngineDeadError)
        assert "broke this call off" in str(error)
        used = {call.client for call in double.asked("/v1/models")}
        assert [call.client in used for call in double.asked("/v1/chat/completions")] == [True, False]


def test_a_server_that_ended_over_a_call_is_not_called_unreachable() -> None:
    """Whoever starts it again must know that it may have worked on the call."""

    def end(asked: Call) -> Answer:
        if len(double.asked(asked.path)) == 1:
            return Answer(WHOLE)
        double.end()
        return Answer(dropped=True)

    with talking(end) as (engine, double):
        ask(engine)
        error = failure(engine)
        assert isinstance(error, EngineDeadError)
        assert "broke this call off" in str(error)


# -- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [ask, stream])
@pytest.mark.parametrize(
    ("status", "body", "kind", "says"),
    [
        (400, {"error": {"message": "too long"}}, RequestError, "too long"),
        (422, {"detail": [{"msg": "wrong"}]}, RequestError, "wrong"),
        (413, None, RequestError, "Too Large"),
        (401, {"error": "Unauthorized"}, ConfigurationError, "Unauthorized"),
        (404, {"error": {"message": "no model"}}, ModelNotFoundError, "no model"),
        (500, {"message": "oops"}, EngineError, "oops"),
        (502, None, EngineError, "Bad Gateway"),
    ],
)
def test_refusals(call: Callable[..., Any], status: int, body: Any, kind: type, says: str) -> None:
    with talking(Answer(body, status=status)) as (engine, _):
        error = failure(engine, call)
        assert type(error) is kind
        assert says in str(error)


@pytest.mark.parametrize(("health", "kind"), [(200, EngineError), (503, EngineDeadError)])
def test_a_dead_vllm_is_told_from_one_that_failed_once(health: int, kind: type) -> None:
    failed = Answer({"error": {"message": "EngineCore encountered an issue"}}, status=500)
    with talking(failed, owner="vllm", health=health) as (engine, _):
        assert type(failure(engine)) is kind


def test_fields_that_only_vllm_has_are_named_when_another_server_refuses() -> None:
    refusal = Answer({"error": {"message": "Unrecognized request argument"}}, status=400)
    with talking(refusal) as (engine, _):
        error = failure(engine, top_k=5, structured_outputs={"regex": "a"}, temperature=0.5)
        assert isinstance(error, RequestError)
        assert "Unrecognized request argument" in str(error)
        assert "vLLM's own: structured_outputs, top_k" in str(error)


def test_fields_that_say_nothing_are_not_sent_to_another_server(caplog: pytest.LogCaptureFixture) -> None:
    def told() -> list[str]:
        return [record.message for record in caplog.records if record.name.startswith("agent")]

    neutral = {"top_k": -1, "min_p": 0.0, "ignore_eos": False, "repetition_penalty": 1.0}
    with talking(Answer(WHOLE)) as (engine, double), caplog.at_level(logging.WARNING):
        ask(engine, **neutral)
        assert double.calls[-1].body.keys() == {"messages", "max_tokens", "model", "stream"}
        assert not told()
        for _ in range(2):
            ask(engine, top_k=5)
        assert double.calls[-1].body["top_k"] == 5
        assert told() == [f"{double.address} is not vLLM and may ignore: top_k"]


@pytest.mark.parametrize("value", [object(), float("nan"), "half a character: \ud83d"], ids=repr)
def test_what_is_no_json_is_not_sent(value: Any) -> None:
    with talking(Answer(WHOLE)) as (engine, double):
        error = failure(engine, chat_template_kwargs={"a": value})
        assert isinstance(error, RequestError)
        assert "no JSON" in str(error)
        assert all("chat_template_kwargs" not in (call.body or {}) for call in double.calls)


def test_render_names_what_is_missing() -> None:
    with talking(Answer(WHOLE)) as (engine, _), pytest.raises(RequestError, match="/tokenize"):
        engine.loop.run(engine.render(ASK))


# -- answers that are none ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 400])
def test_an_answer_that_is_nested_too_deeply(status: int) -> None:
    with talking(lambda call: Answer(iter([b"[" * 100_000]), status=status)) as (engine, _):
        assert "[[[" in str(failure(engine))


@pytest.mark.parametrize("body", [[], {"choices": None}, {"object": "error"}, "text"])
def test_an_answer_in_no_known_form(body: Any) -> None:
    with talking(Answer(body)) as (engine, _):
        error = failure(engine)
        assert type(error) is EngineError
        assert "no known form" in str(error)


@pytest.mark.parametrize(
    ("parts", "cut", "kind"),
    [
        ([chunk("Hel")], True, EngineDeadError),
        ([chunk("Hel")], False, EngineDeadError),
        ([chunk("Hel"), b'data: {"error": {"message": "bad", "code": 400}}\n\n'], False, RequestError),
        ([chunk("Hel"), b'data: {"error": {"message": "bad", "code": 500}}\n\n'], False, EngineError),
        ([chunk("Hel"), b'data: {"error": "bad"}\n\n'], False, EngineError),
        ([chunk("Hel"), b"data: {half\n\n"], False, EngineError),
        ([chunk("Hel"), b"data: 7\n\n"], False, EngineError),
        ([chunk("Hel"), b"data: " + b"[" * 100_000 + b"\n\n"], False, EngineError),
    ],
    ids=["cut", "ended early", "refused", "failed", "plain error", "no JSON", "no object", "deep"],
)
def test_a_stream_that_breaks(parts: list[bytes], cut: bool, kind: type) -> None:
    with talking(lambda call: Answer(iter(parts), cut=cut)) as (engine, _):
        chunks = engine.loop.iterate(engine.stream_chat(ASK))
        assert next(chunks)["choices"][0]["delta"]["content"] == "Hel"
        with pytest.raises(EngineError) as caught:
            next(chunks)
        assert type(caught.value) is kind


def test_a_stream_may_end_without_its_mark() -> None:
    with talking(lambda call: Answer(iter([chunk("Hello", "stop")]))) as (engine, _):
        assert len(stream(engine)) == 1


def test_a_stream_keeps_its_connection_for_the_next_call() -> None:
    with talking(lambda call: Answer(iter([chunk("Hello", "stop"), b"data: [DONE]\n\n"]))) as (
        engine,
        double,
    ):
        for _ in range(3):
            stream(engine)
        assert len({call.client for call in double.asked("/v1/chat/completions")}) == 1


# -- silence and leaving ------------------------------------------------------------------------------------


def slow(call: Call) -> Answer:
    def parts() -> Iterator[bytes]:
        while True:
            yield chunk("word ")
            time.sleep(0.02)

    return Answer(parts())


def silent(call: Call) -> Answer:
    time.sleep(20)
    return Answer(WHOLE)


@pytest.mark.parametrize("call", [ask, stream])
def test_a_silent_server_is_given_up(call: Callable[..., Any]) -> None:
    with talking(silent) as (engine, _):
        engine.loop.run(engine.start())  # the first questions may take longer than what is tried here
        connection = engine._connection
        connection._timeout = connection._client.timeout = 0.5  # type: ignore[assignment]
        error = failure(engine, call)
        assert isinstance(error, EngineDeadError)
        assert "0.5 s" in str(error)


def test_closing_a_stream_closes_its_connection() -> None:
    with talking(slow) as (engine, double):
        chunks = engine.loop.iterate(engine.stream_chat(ASK))
        next(chunks)
        chunks.close()
        assert double.gone.wait(PATIENCE)


def test_close_ends_calls_that_wait_on_connections_that_were_used_before() -> None:
    asked, together, never = threading.Semaphore(0), threading.Barrier(3, timeout=PATIENCE), threading.Event()
    numbers = itertools.count()

    def answer(call: Call) -> Answer:
        if next(numbers) < 3:  # at once, so that each has a connection
            together.wait()
        else:
            asked.release()
            never.wait(PATIENCE)
        return Answer(WHOLE)

    with talking(answer) as (engine, _), ThreadPoolExecutor() as pool:
        for answered in [pool.submit(ask, engine) for _ in range(3)]:
            answered.result(PATIENCE)
        waiting = [pool.submit(failure, engine) for _ in range(3)]
        assert all(asked.acquire(timeout=PATIENCE) for _ in waiting)
        engine.close()
        assert [type(call.result(PATIENCE)) for call in waiting] == [EngineClosedError] * 3
        never.set()


def test_close_ends_a_stream_that_runs() -> None:
    with talking(slow) as (engine, double):
        chunks = engine.loop.iterate(engine.stream_chat(ASK))
        next(chunks)
        engine.close()
        with pytest.raises(EngineClosedError):
            list(chunks)
        assert double.gone.wait(PATIENCE)
