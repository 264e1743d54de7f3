"""``langgraph dev`` on our ``langgraph.json``, for real: what LangGraph Studio sees and does.

The server runs the embedded model in its own process. The command line works on the same conversations.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_sync_client
from ports import held_port

from graphs import GRAPHS

ROOT = Path(__file__).parents[2]
CLI_CHILD = ROOT / "tests" / "unit" / "cli" / "cli_child.py"
PATIENCE = 500.0
QUESTION = "What is 15 * 23?"
CALL = {"tool_calls": [{"name": "calculator", "arguments": {"expression": "20 + 1"}, "id": "call-1"}]}


@dataclass
class Studio:
    """A running server, and the command line beside it."""

    process: subprocess.Popen[str]
    url: str
    log: Path
    environment: dict[str, str]

    def __post_init__(self) -> None:
        self.client = get_sync_client(url=self.url, timeout=PATIENCE)

    def cli(self, script: list[Any], *arguments: str) -> dict[str, Any]:
        """What ``vllm-agent`` prints as JSON, on a scripted model and the server's conversations."""
        command = [sys.executable, str(CLI_CHILD), json.dumps(script), *arguments]
        done = subprocess.run(
            [*command, "--model", "scripted", "--json"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        printed: dict[str, Any] = json.loads(done.stdout)
        return printed

    def run(self, thread: str, graph: str, question: str | None = None, **options: Any) -> dict[str, Any]:
        """Run a graph to its end or to its next interrupt, and return the state's values."""
        given = None if question is None else {"messages": [{"role": "user", "content": question}]}
        self.client.runs.wait(thread, graph, input=given, durability="sync", **options)
        return self.values(thread)

    def values(self, thread: str) -> dict[str, Any]:
        """The thread's state."""
        values: dict[str, Any] = self.client.threads.get_state(thread)["values"]
        return values


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with held_port() as port:
        yield port


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Studio]:
    """``langgraph dev``, cut off from the network."""
    home = tmp_path_factory.mktemp("studio")
    nowhere = "http://127.0.0.1:9"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("VLLM_AGENT_")},
        "VLLM_AGENT_CACHE": os.environ.get("VLLM_AGENT_CACHE", ""),
        "VLLM_AGENT_HOME": str(home),
        "VLLM_AGENT_TOOLS": "calculator,current_time",
        "VLLM_AGENT_MAX_TOKENS": "48",
        "XDG_CONFIG_HOME": str(home / "config"),
        "LANGGRAPH_CLI_NO_ANALYTICS": "1",
        "LANGGRAPH_DISABLE_FILE_PERSISTENCE": "true",
        "LANGSMITH_API_KEY": "",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "HTTPS_PROXY": nowhere,
        "HTTP_PROXY": nowhere,
        "NO_PROXY": "127.0.0.1,localhost",
        "NO_COLOR": "1",
    }
    log = home / "server.log"
    command = [sys.executable, "-m", "langgraph_cli", "dev", "--no-browser", "--no-reload"]
    with log.open("w") as sink:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=ROOT,
            env=environment,
            stdout=sink,
            stderr=subprocess.STDOUT,
            text=True,
        )
    opened = Studio(process, f"http://127.0.0.1:{port}", log, environment)
    try:
        wait_until_ready(opened)
        yield opened
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(studio: Studio) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert studio.process.poll() is None, studio.log.read_text()
        try:
            if httpx.get(f"{studio.url}/ok", timeout=5).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    pytest.fail(f"langgraph dev did not start: {studio.log.read_text()}")


def texts(values: dict[str, Any], kind: str) -> list[str]:
    return [message["content"] for message in values["messages"] if message["type"] == kind]


def has_torch(process: subprocess.Popen[str]) -> bool:
    return "libtorch" in Path(f"/proc/{process.pid}/maps").read_text()


def new_thread(studio: Studio, graph: str) -> str:
    return str(studio.client.threads.create(graph_id=graph)["thread_id"])


def test_all_graphs_are_there_drawn_and_described_before_any_model_is_loaded(studio: Studio) -> None:
    found = {each["graph_id"]: each for each in studio.client.assistants.search()}
    assert found.keys() == GRAPHS.keys()
    for name, assistant in found.items():
        assert assistant["description"] == GRAPHS[name].description
        drawn = studio.client.assistants.get_graph(assistant["assistant_id"], xray=True)
        assert {"__start__", "__end__"} <= {node["id"] for node in drawn["nodes"]}
        assert len(drawn["nodes"]) > 3
        schemas = studio.client.assistants.get_schemas(assistant["assistant_id"])
        assert "messages" in schemas["input_schema"]["properties"]
        assert "messages" in schemas["state_schema"]["properties"]
    assert not has_torch(studio.process)


@pytest.mark.engine
def test_a_run_is_streamed_token_by_token_with_its_tool_calls(studio: Studio) -> None:
    thread = new_thread(studio, "react")
    tokens, events = [], []
    for part in studio.client.runs.stream(
        thread,
        "react",
        input={"messages": [{"role": "user", "content": QUESTION}]},
        stream_mode=["messages-tuple", "custom"],
    ):
        assert part.event != "error", part.data
        if part.event == "messages" and part.data[0]["type"] == "AIMessageChunk" and part.data[0]["content"]:
            tokens.append(part.data[0]["content"])
        elif part.event == "custom":
            events.append(part.data["type"])
    assert has_torch(studio.process)
    assert events[:2] == ["tool_started", "tool_finished"]
    values = studio.values(thread)
    assert texts(values, "tool")[0] == "15 * 23 = 345"
    assert len(tokens) > 1
    assert texts(values, "ai")[-1] in "".join(tokens)


@pytest.mark.engine
def test_a_call_waits_is_edited_and_runs(studio: Studio) -> None:
    thread = new_thread(studio, "approval")
    values = studio.run(thread, "approval", QUESTION)
    assert texts(values, "tool") == []
    assert studio.client.threads.get(thread)["status"] == "interrupted"
    [task] = studio.client.threads.get_state(thread)["tasks"]
    [call] = task["interrupts"][0]["value"]["calls"]
    assert (call["name"], call["args"]) == ("calculator", {"expression": "15 * 23"})
    # As Studio sends what is typed: plain JSON, by the id that it shows.
    values = studio.run(
        thread,
        "approval",
        command={"resume": {call["id"]: {"type": "edit", "args": {"expression": "2 + 2"}}}},
    )
    assert texts(values, "tool")[0] == "2 + 2 = 4"


@pytest.mark.engine
def test_a_state_is_edited_and_a_conversation_forked(studio: Studio) -> None:
    thread = new_thread(studio, "react")
    studio.run(thread, "react", QUESTION)
    before = next(
        state for state in studio.client.threads.get_history(thread, limit=20) if state["next"] == ["tools"]
    )
    answer = before["values"]["messages"][-1]
    answer["tool_calls"][0]["args"] = {"expression": "7 * 6"}
    fork = studio.client.threads.update_state(
        thread, {"messages": [answer]}, as_node="model", checkpoint=before["checkpoint"]
    )
    values = studio.run(thread, "react", checkpoint=fork["checkpoint"])
    assert texts(values, "tool")[0] == "7 * 6 = 42"
    assert texts(values, "human") == [QUESTION]
    first = [
        state["values"].get("messages", []) for state in studio.client.threads.get_history(thread, limit=20)
    ]
    assert any("15 * 23 = 345" in [m["content"] for m in messages] for messages in first), "it is kept"


@pytest.mark.engine
def test_a_conversation_begun_here_goes_on_at_the_command_line(studio: Studio) -> None:
    thread = new_thread(studio, "react")
    studio.run(thread, "react", QUESTION)
    printed = studio.cli(["It was 345."], "resume", thread, "What was it?")
    assert [message["content"] for message in printed["messages"] if message["role"] == "user"] == [
        QUESTION,
        "What was it?",
    ]
    assert texts(studio.values(thread), "ai")[-1] == "It was 345."


@pytest.mark.engine
def test_a_conversation_begun_at_the_command_line_goes_on_here(studio: Studio) -> None:
    thread = studio.cli([CALL, "It is 21."], "run", "What is 20 + 1?")["thread_id"]
    studio.client.threads.create(thread_id=thread, graph_id="react")
    assert texts(studio.values(thread), "ai")[-1] == "It is 21."
    values = studio.run(thread, "react", QUESTION)
    assert texts(values, "human") == ["What is 20 + 1?", QUESTION]
    assert len(texts(values, "ai")) > 2


@pytest.mark.engine
def test_what_waits_at_the_command_line_is_decided_here_and_the_other_way_round(studio: Studio) -> None:
    waiting = studio.cli([CALL], "run", "What is 20 + 1?", "--graph", "approval")
    thread = waiting["thread_id"]
    studio.client.threads.create(thread_id=thread, graph_id="approval")
    values = studio.run(thread, "approval", command={"resume": {"call-1": "approve"}})
    assert texts(values, "tool") == ["20 + 1 = 21"]

    thread = new_thread(studio, "approval")
    studio.run(thread, "approval", QUESTION)
    printed = studio.cli(["As you like."], "resume", thread, "--graph", "approval", "--reject", "all=not now")
    [result] = [message for message in printed["messages"] if message["role"] == "tool"]
    assert "not now" in result["content"]
    assert printed["answer"] == "As you like."


@pytest.mark.engine
def test_nothing_blocked_or_broke_the_server(studio: Studio) -> None:
    """Runs last: the log of everything above.

    A call that the model made wrongly is a warning there, and no fault of the server's.
    """
    thread = new_thread(studio, "react")
    studio.run(thread, "react", "Hello.")
    log = re.sub(r"\x1b\[[\d;]*m", "", studio.log.read_text())
    assert re.search(r"\[info +\]", log)
    wrong = r"^.*(?:[Bb]locking call|BlockingError|Traceback|\[(?:error|critical) *\]).*$"
    assert re.findall(wrong, log, flags=re.MULTILINE) == []
