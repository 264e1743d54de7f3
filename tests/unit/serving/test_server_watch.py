"""Inside the server: who it is, how busy, and its end when it is idle."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from typing import Any

import pytest

from agent.serving.watch import PATH, Watch, finish_requests


async def ask(watch: Watch, method: str, path: str, **scope: Any) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    await watch({"type": "http", "method": method, "path": path, **scope}, receive, send)
    return sent


async def told(watch: Watch) -> Any:
    return json.loads((await ask(watch, "GET", PATH))[1]["body"])


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_AGENT_SERVER_ID", "abcd")
    monkeypatch.delenv("VLLM_AGENT_SERVER_IDLE_SECONDS", raising=False)


async def test_it_says_who_it_is_and_how_busy() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        entered.set()
        await leave.wait()

    began = time.monotonic()
    watch = Watch(app)
    first = await told(watch)
    assert (first["id"], first["running"]) == ("abcd", 0)
    assert 0 <= first["idle_seconds"] <= time.monotonic() - began + 0.001  # it is rounded
    request = asyncio.create_task(ask(watch, "POST", "/v1/chat/completions"))
    await entered.wait()
    assert await told(watch) == {"id": "abcd", "running": 1, "idle_seconds": 0.0}
    leave.set()
    await request
    assert (await told(watch))["running"] == 0


async def test_it_answers_below_a_root_path_too() -> None:
    watch = Watch(lambda *_: asyncio.sleep(0))
    assert await ask(watch, "GET", f"/below{PATH}", root_path="/below")


async def test_a_request_that_fails_is_over() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError

    watch = Watch(app)
    with pytest.raises(RuntimeError):
        await ask(watch, "POST", "/v1/completions")
    assert (await told(watch))["running"] == 0


async def test_it_ends_its_process_when_nobody_has_asked_for_long_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[tuple[int, int, float]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number, time.monotonic())))
    monkeypatch.setenv("VLLM_AGENT_SERVER_IDLE_SECONDS", "0.5")
    began = time.monotonic()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(1.0 if scope["method"] == "POST" else 0)

    watch = Watch(app)
    await ask(watch, "POST", "/v1/chat/completions")  # longer than the time that it may be idle
    assert not sent
    deadline = time.monotonic() + 60
    while not sent and time.monotonic() < deadline:  # looks at it are no use of it
        await ask(watch, "GET", "/metrics")
        await told(watch)
        await asyncio.sleep(0.05)
    [(pid, number, at)] = sent
    assert (pid, number) == (os.getpid(), signal.SIGTERM)
    assert at - began >= 1.5


async def test_a_websocket_and_the_start_of_the_server_pass_through() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    watch = Watch(app)
    for kind in ("lifespan", "websocket"):
        await watch({"type": kind}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan", "websocket"]


async def test_at_the_end_it_answers_what_runs_and_refuses_what_comes() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        entered.set()
        await leave.wait()
        await send({"type": "http.response.start", "status": 200})

    watch = Watch(app)
    request = asyncio.create_task(ask(watch, "POST", "/v1/completions"))
    await entered.wait()
    ending = asyncio.create_task(asyncio.to_thread(finish_requests, 600))
    sent: list[Any] = []
    while not sent:  # until it takes no more
        late = asyncio.create_task(ask(watch, "POST", "/v1/completions"))
        await asyncio.wait({late}, timeout=0.05)
        sent = late.result() if late.done() else []
    assert sent[0]["status"] == 503
    assert "is being stopped" in json.loads(sent[1]["body"])["error"]["message"]
    assert not ending.done()
    leave.set()
    assert (await request)[0]["status"] == 200
    await ending


async def test_the_end_does_not_wait_for_ever() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    watch = Watch(app)
    request = asyncio.create_task(ask(watch, "POST", "/v1/completions"))
    await asyncio.sleep(0)
    await asyncio.to_thread(finish_requests, 0.1)
    assert (await told(watch))["running"] == 1
    request.cancel()
    await asyncio.wait({request})
