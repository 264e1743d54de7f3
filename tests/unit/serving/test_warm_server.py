"""A server kept warm: found, shared, started once, replaced. The children are fakes, the processes real."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from agent.engines.base import EngineInfo
from agent.errors import EngineDeadError, EngineStartError
from agent.serving import life, warm
from agent.serving.engine import WarmEngine
from agent.serving.order import ServerOrder, order_from_arguments
from agent.serving.output import Stage
from agent.serving.records import ServerDirectory, ServerRecord, process_birth


def order_for(model: str, **arguments: Any) -> ServerOrder:
    return order_from_arguments(model, {**arguments, "force": True}, warm=True, idle_minutes=5, keys=("k",))


def ensure(order: ServerOrder, directory: ServerDirectory) -> tuple[ServerRecord, list[str]]:
    seen: list[Stage] = []
    found = warm.ensure(order, directory, cache=directory.path, shown=seen.append)
    return found, [each.name for each in seen]


def test_the_second_finds_what_the_first_started(model: str, directory: ServerDirectory) -> None:
    first, stages = ensure(order_for(model), directory)
    assert stages
    second, stages = ensure(order_for(model), directory)
    assert (second, stages) == (first, [])


def test_a_server_with_more_settings_serves_those_who_leave_them_open(
    model: str, directory: ServerDirectory
) -> None:
    first, _ = ensure(order_for(model, seed=3, enforce_eager=True), directory)
    assert ensure(order_for(model), directory)[0] == first
    assert ensure(order_for(model, seed=3), directory)[0] == first
    assert warm.find(order_for(model, seed=4), directory) is None
    assert warm.find(order_for(model, dtype="float32"), directory) is None


def test_a_server_for_others_is_used_and_never_stopped_to_make_place(
    model: str, directory: ServerDirectory
) -> None:
    served = life.start(replace(order_for(model), warm=False), directory, cache=directory.path)
    life.wait_until_ready(served, directory, shown=lambda _: None)
    assert ensure(order_for(model), directory)[0] == served
    other, _ = ensure(order_for(model, seed=4), directory)
    assert {each.id for each in directory.records()} == {served.id, other.id}


def test_a_warm_server_that_rests_makes_place_for_another(model: str, directory: ServerDirectory) -> None:
    first, _ = ensure(order_for(model), directory)
    second, _ = ensure(order_for(model, seed=4), directory)
    assert directory.records() == [second]
    assert not life.running(first)


def test_two_at_once_start_one(
    model: str, directory: ServerDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SERVER", "slow")
    found: list[ServerRecord] = []
    threads = [
        threading.Thread(target=lambda: found.append(ensure(order_for(model), directory)[0]))
        for _ in range(6)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 6
    assert len({each.id for each in found}) == 1
    assert len(directory.records()) == 1


def test_all_who_wait_are_told_why_it_does_not_start(
    model: str, directory: ServerDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SERVER", "fails")
    with pytest.raises(EngineStartError, match="no such quantization"):
        ensure(order_for(model), directory)
    monkeypatch.setenv("FAKE_SERVER", "well")
    assert ensure(order_for(model), directory)


def test_another_server_on_the_port_of_one_that_was_killed_is_not_used(
    model: str, directory: ServerDirectory
) -> None:
    first, _ = ensure(order_for(model), directory)
    os.kill(first.pid, signal.SIGKILL)
    life._CHILDREN[first.pid].wait()
    with another_server(int(first.url.rpartition(":")[2])):
        second, stages = ensure(order_for(model), directory)
    assert second.id != first.id
    assert second.url != first.url
    assert stages


def test_a_process_that_lives_without_its_port_is_not_used(model: str, directory: ServerDirectory) -> None:
    """It answers with another id, for example: then it is not the server that the file speaks of."""
    first, _ = ensure(order_for(model), directory)
    directory.remove(first)
    odd = replace(first, id="0000")
    directory.write(odd)
    directory.facts(odd).write_text("{}")
    os.utime(directory.facts(odd), (1000, 1000))  # loaded long ago
    second, _ = ensure(order_for(model), directory)
    assert second.id not in (first.id, "0000")
    life.stop(first, directory)


def test_a_server_of_another_version_is_not_used(model: str, directory: ServerDirectory) -> None:
    first, _ = ensure(order_for(model), directory)
    directory.write(replace(first, version="0.0"))
    assert warm.find(order_for(model), directory) is None


def test_an_engine_on_it_knows_what_it_is_without_asking(model: str, directory: ServerDirectory) -> None:
    engine = WarmEngine(order_for(model), directory, cache=directory.path)
    info = engine.loop.run(engine.start())
    assert info == EngineInfo(
        kind="warm", model="fake", max_model_len=64, control_tokens=("<x>",), version="vLLM fake"
    )
    assert engine.record is not None
    os.kill(engine.record.pid, signal.SIGKILL)
    life._CHILDREN[engine.record.pid].wait()
    before = engine.record
    engine.loop.run(engine.start())  # it has gone, so it is started again
    assert engine.record != before
    engine.close()
    assert len(directory.records()) == 1  # closing lets it go, and does not stop it


def test_a_call_that_died_with_its_server_leaves_the_next_server_alone(
    model: str, directory: ServerDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    died, asked = asyncio.Event(), [asyncio.Event(), asyncio.Event()]
    made: list[Remote] = []

    class Remote:
        """Answers once the first of its kind has died."""

        def __init__(self, *_: Any, **__: Any) -> None:
            made.append(self)
            self.closed = False

        async def chat(self, request: Any) -> Any:
            asked[made.index(self)].set()
            await died.wait()
            if self is made[0]:
                raise EngineDeadError("it was killed")
            await asyncio.sleep(0.1)
            return {"closed": self.closed}

        async def aclose(self) -> None:
            self.closed = True

        def close(self) -> None:
            """Nothing is open."""

    async def talk() -> None:
        first = asyncio.create_task(engine.chat({}))
        await asked[0].wait()
        assert engine.record is not None
        os.kill(engine.record.pid, signal.SIGKILL)
        life._CHILDREN[engine.record.pid].wait()
        second = asyncio.create_task(engine.chat({}))
        await asked[1].wait()
        died.set()
        with pytest.raises(EngineDeadError, match="the server died while this request was running"):
            await first
        assert await second == {"closed": False}

    monkeypatch.setattr("agent.serving.engine.RemoteEngine", Remote)
    engine = WarmEngine(order_for(model), directory, cache=directory.path)
    engine.loop.run(talk())
    engine.close()


def test_a_server_ends_with_the_command_it_belongs_to(tmp_path: Any) -> None:
    """The kernel sees to it, also after kill -9."""
    code = (
        "import os, signal, sys, time\n"
        "sys.argv = ['x']\n"
        "from agent.serving import __main__ as server\n"
        "server._end_with(os.getppid())\n"
        "print('tied', flush=True)\n"
        "time.sleep(60)"
    )
    parent = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {code!r}], stdout=subprocess.PIPE, text=True)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
        process.wait()
    deadline = time.monotonic() + 60
    while process_birth(pid) is not None:
        assert time.monotonic() < deadline, "it runs on"
        time.sleep(0.05)


class another_server:
    """Something that answers everything, on a port."""

    def __init__(self, port: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b'{"id": "foreign", "running": 0, "idle_seconds": 1}')

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", port), Handler)

    def __enter__(self) -> None:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_what_a_server_says_of_itself_is_read_as_it_was(model: str, directory: ServerDirectory) -> None:
    record, _ = ensure(order_for(model), directory)
    info = EngineInfo(kind="remote", model="m", parameters=7, control_tokens=("<s>",), tasks=("generate",))
    directory.facts(record).write_text(json.dumps(asdict(info)))
    assert warm.facts(record, directory) == info
