"""MCP servers as a source: real servers, over stdio and HTTP, that are killed, hang and come back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.messages import ToolCall
from mcp_types import CallToolResult, PromptListChangedNotification, ToolListChangedNotification
from ports import held_port

from tools import McpServer, ToolRegistrationError, ToolRegistry, acall, call, tool
from tools.sources import mcp as source

CHILD = str(Path(__file__).with_name("mcp_child.py"))


def ask(registry: ToolRegistry, name: str, **arguments: Any) -> Any:
    return call(registry.get(name), ToolCall(name=name, args=arguments, id="1", type="tool_call"))


def stdio(name: str = "it", **options: Any) -> McpServer:
    given = {"name": name, "command": sys.executable, "args": (CHILD, "stdio"), "timeout": 120, **options}
    return McpServer(**given)


@pytest.fixture
def port() -> Iterator[int]:
    with held_port() as port:
        yield port


@contextlib.contextmanager
def http_server(port: int) -> Iterator[None]:
    child = subprocess.Popen([sys.executable, CHILD, str(port)], stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: socket.create_connection(("127.0.0.1", port), timeout=1).close() or True)
        yield
    finally:
        child.kill()
        child.wait()


def eventually(check: Callable[[], Any]) -> None:
    end = time.monotonic() + 180
    while True:
        try:
            if check():
                return
        except OSError:
            pass
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.1)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture
def registry() -> Iterator[ToolRegistry]:
    made = ToolRegistry()
    yield made
    made.close()


async def test_tools_of_a_server_over_stdio(registry):
    registry.add_mcp(stdio())
    assert registry.names == ("it_add", "it_fail", "it_grow", "it_pid")
    assert "MCP server 'it'" in registry.describe("it_add").source
    assert registry.describe("it_add").parameters["required"] == ["a", "b"]
    assert ask(registry, "it_add", a=2, b=3, config="!").message.text == "5!"
    request = ToolCall(name="it_add", args={"a": 1, "b": 1}, id="1", type="tool_call")
    assert (await acall(registry.get("it_add"), request)).message.text == "2"  # from another loop
    outcome = ask(registry, "it_fail")
    assert not outcome.ok
    assert "the pipe is cold" in outcome.message.text
    assert ask(registry, "it_pid").message.text == ask(registry, "it_pid").message.text  # one session


def test_a_killed_server_costs_only_its_own_tools_and_comes_back(registry):
    @tool
    def own() -> str:
        """Say own."""
        return "own"

    registry.add(own)
    registry.add_mcp(stdio())
    first = int(ask(registry, "it_pid").message.text)
    os.kill(first, signal.SIGKILL)
    assert ask(registry, "own").message.text == "own"
    eventually(lambda: ask(registry, "it_pid").ok)
    assert int(ask(registry, "it_pid").message.text) != first


def test_a_stopped_server_is_given_up_on_and_replaced(registry):
    patient = stdio(health_interval=600)
    registry.add_mcp(patient)
    (connection,) = registry._connections
    first = int(ask(registry, "it_pid").message.text)
    os.kill(first, signal.SIGSTOP)
    connection.server = replace(patient, timeout=2)  # from now on: a start may take longer
    outcome = ask(registry, "it_pid")
    assert not outcome.ok
    assert "did not answer within 2 s" in outcome.message.text
    eventually(lambda: not connection.healthy)
    connection.server = patient
    eventually(lambda: ask(registry, "it_pid").ok)
    assert int(ask(registry, "it_pid").message.text) != first
    eventually(lambda: gone(first))


def test_closing_leaves_no_process_and_says_so(registry):
    registry.add_mcp(stdio())
    process = int(ask(registry, "it_pid").message.text)
    registry.close()
    eventually(lambda: gone(process))
    assert "was closed" in ask(registry, "it_pid").message.text


def test_lists_are_read_again(registry, tmp_path):
    late = tmp_path / "late"
    registry.add_mcp(stdio(env={"EXTRA_FILE": str(late)}))
    assert "it_extra" not in registry
    late.touch()
    process = int(ask(registry, "it_pid").message.text)
    os.kill(process, signal.SIGKILL)
    eventually(lambda: ask(registry, "it_pid").ok)
    registry.refresh()
    assert ask(registry, "it_extra").message.text == "extra"


def test_a_list_that_changes_is_taken_over_without_being_asked_for(registry):
    registry.add_mcp(stdio(health_interval=600))
    assert ask(registry, "it_grow").message.text == "done"
    eventually(lambda: "it_grown" in registry)
    assert ask(registry, "it_grown").message.text == "grown"
    assert registry.describe("it_grown").source == registry.describe("it_add").source


async def test_servers_of_the_older_protocol_send_their_changes_unasked():
    connection = source.McpConnection(stdio())
    await connection._heard(PromptListChangedNotification())
    assert not connection._check.is_set()
    await connection._heard(ToolListChangedNotification())
    assert connection._check.is_set()
    connection.close()


def test_a_call_that_was_never_sent_is_not_said_to_have_taken_effect(registry, port):
    with http_server(port):
        registry.add_mcp(McpServer(name="web", url=f"http://127.0.0.1:{port}/mcp", timeout=60))
        assert ask(registry, "web_add", a=2, b=3).ok
    ask(registry, "web_add", a=2, b=3)  # finds out that the server is gone
    said = ask(registry, "web_add", a=2, b=3).message.text
    assert "was not asked" in said
    registry.close()
    closed = ask(registry, "web_add", a=2, b=3).message.text
    assert "was not asked: the connection was closed" in closed
    assert "effect" not in said + closed


class Changing:
    """A client of a server whose list changes once more while it is on its way."""

    def __init__(self, heard: Any) -> None:
        self.names, self.heard = iter(["first", "second", "third", "third"]), heard

    async def __aenter__(self) -> Changing:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def list_tools(self, cursor: str | None) -> SimpleNamespace:
        name = next(self.names)
        if name == "second":
            await self.heard(ToolListChangedNotification())
        listed = SimpleNamespace(name=name, description="Do it.", input_schema={"type": "object"})
        return SimpleNamespace(tools=[listed], next_cursor=None)


def test_a_change_that_is_told_while_the_list_is_read_is_not_lost(registry, monkeypatch):
    made: list[Changing] = []

    async def client(server: McpServer, stack: Any, heard: Any) -> Changing:
        made.append(Changing(heard))
        return made[-1]

    monkeypatch.setattr(source, "_client", client)
    registry.add_mcp(stdio(health_interval=600))
    asyncio.run_coroutine_threadsafe(
        made[0].heard(ToolListChangedNotification()), source._loop.started()
    ).result()
    eventually(lambda: registry.names == ("it_third",))


def test_a_result_that_is_only_structured_is_shown():
    said = CallToolResult(content=[], structured_content={"towns": ["Köln"]})
    assert source._text(said) == '{"towns": ["Köln"]}'


def test_a_server_that_starts_late_is_found_by_itself(registry, port):
    registry.add_mcp(
        McpServer(name="late", url=f"http://127.0.0.1:{port}/mcp", timeout=60, health_interval=0.3)
    )
    assert "does not answer" in str(registry.problems[0].error)
    with http_server(port):
        eventually(lambda: "late_add" in registry)
        eventually(lambda: registry.problems == ())
        assert ask(registry, "late_add", a=2, b=3).message.text == "5"
    eventually(lambda: registry.problems)  # the next look at its health
    assert "late_add" in registry  # it may come back
    with http_server(port):
        eventually(lambda: registry.problems == ())


def test_a_killed_server_is_started_again_by_itself(registry):
    registry.add_mcp(stdio(health_interval=0.3))
    first = int(ask(registry, "it_pid").message.text)
    (connection,) = registry._connections
    owner = connection._owner
    os.kill(first, signal.SIGKILL)
    eventually(lambda: gone(first))
    eventually(lambda: connection.healthy and connection._owner is not owner)
    assert int(ask(registry, "it_pid").message.text) != first


def test_a_clash_that_comes_later_is_a_problem_and_the_old_tools_stay(registry):
    @tool("it_grown")
    def mine() -> str:
        """Clash."""
        return "mine"

    registry.add(mine)
    registry.add_mcp(stdio(health_interval=600))
    ask(registry, "it_grow")
    eventually(lambda: registry.problems)
    assert "'it_grown': one from" in str(registry.problems[0].error)
    assert ask(registry, "it_grown").message.text == "mine"
    assert ask(registry, "it_add", a=1, b=1).message.text == "2"
    with pytest.raises(ToolRegistrationError, match="it_grown"):
        registry.refresh()


def test_a_server_over_http_that_restarts(registry, port):
    registry.add_mcp(McpServer(name="web", url=f"http://127.0.0.1:{port}/mcp", timeout=60))
    assert "does not answer" in str(registry.problems[0].error)
    assert registry.names == ()
    with http_server(port):
        registry.refresh()
        assert registry.problems == ()
        assert ask(registry, "web_add", a=2, b=3).message.text == "5"
    assert not ask(registry, "web_add", a=2, b=3).ok
    with http_server(port):
        eventually(lambda: ask(registry, "web_add", a=2, b=3).ok)


def test_a_server_that_cannot_start_is_a_problem_and_no_error(registry):
    registry.add_mcp(McpServer(name="none", command="/nothing/like/it"))
    assert registry.names == ()
    assert "MCP server 'none'" in str(registry.problems[0].error)


def test_a_clash_names_both_sources(registry):
    @tool("it_add")
    def mine() -> str:
        """Clash."""
        return ""

    registry.add(mine)
    with pytest.raises(ToolRegistrationError, match=r"'it_add': one from .*mine, one from MCP server 'it'"):
        registry.add_mcp(stdio())


def test_a_missing_extra_names_itself(monkeypatch):
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(ToolRegistrationError, match=r"vllm-agent\[mcp\]"):
        source.McpConnection(stdio()).tools()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "a b", "command": "x"}, "'a b'"),
        ({"name": "a"}, "either command or url"),
        ({"name": "a", "command": "x", "url": "http://x"}, "either command or url"),
        ({"name": "a", "url": "ftp://x"}, "ftp://x"),
        ({"name": "a", "command": "x", "timeout": 0}, "timeout=0"),
    ],
)
def test_a_server_that_contradicts_itself_is_refused(fields, words):
    with pytest.raises(ToolRegistrationError, match=words):
        McpServer(**fields)


def test_a_server_that_was_never_there_is_not_called_lost(caplog: pytest.LogCaptureFixture) -> None:
    with contextlib.closing(ToolRegistry()) as registry:
        registry.add_mcp(McpServer(name="gone", command="no-such-command"))
    ours = [each for each in caplog.records if each.name.startswith("tools")]
    [told] = [each.getMessage() for each in ours if each.levelname == "WARNING"]
    assert told.startswith("no tools from MCP server 'gone' (no-such-command) does not answer")
