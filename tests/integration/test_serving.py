"""`serve`, and the server that `run` keeps warm, on real vLLM and the embedded model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from ports import held_port

from agent import ChatVLLM

pytestmark = pytest.mark.engine

PATIENCE = 300.0
KEY = "a-key-that-nobody-sees"
QUESTION = "What is 15 * 23?"
SHORT = ("Name a colour.", "--no-tools", "--max-tokens", "8")


class Home:
    """A user's directory, and the commands that are run in it."""

    def __init__(self, path: Path) -> None:
        known = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_AGENT_")}
        cache = {name: value for name, value in os.environ.items() if name == "VLLM_AGENT_CACHE"}
        self.servers = path / "servers"
        self.environment = {**known, **cache, "VLLM_AGENT_HOME": str(path), "VLLM_AGENT_CONFIG": os.devnull}

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "agent", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**self.environment, **environment},
        )

    def run(self, *arguments: str, code: int = 0, **environment: str) -> tuple[str, str]:
        return finished(self.start(*arguments, **environment), code)

    def status(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.run("serve", "status", "--json")[0])
        return found

    def kill_all(self) -> None:
        for path in self.servers.glob("*.json"):
            record = json.loads(path.read_text())
            if psutil.pid_exists(record["pid"]):
                os.kill(record["pid"], signal.SIGKILL)


def finished(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    printed, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, said
    return printed, said


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.1)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def busy(url: str) -> bool:
    answer = httpx.get(f"{url}/vllm-agent/server", timeout=PATIENCE, trust_env=False)
    return bool(answer.json()["running"])


def asked_until_busy(
    client: httpx.Client, body: dict[str, Any], url: str, count: int
) -> list[Future[httpx.Response]]:
    """Ask so often at once; again if all was answered before anybody looked."""
    while True:
        pool = ThreadPoolExecutor(count)
        asked = [pool.submit(client.post, "/chat/completions", json=body) for _ in range(count)]
        until(lambda asked=asked: busy(url) or all(each.done() for each in asked))
        if not all(each.done() for each in asked):
            return asked


def shown_in_process_list(text: str) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if text in line:
            found.append(line)
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Its tests build on each other's servers: starting one takes half a minute."""
    found = Home(tmp_path_factory.mktemp("user"))
    yield found
    found.kill_all()


def test_two_commands_at_once_start_one_server(home: Home) -> None:
    both = [home.start("run", QUESTION, "--json") for _ in range(2)]
    answers = [json.loads(finished(each)[0]) for each in both]
    for answer in answers:
        assert "15 * 23 = 345" in [m["content"] for m in answer["messages"] if m["role"] == "tool"]
    [server] = home.status()
    assert (server["kept_warm"], server["state"], server["running"]) == (True, "ready", 0)
    assert home.servers.stat().st_mode & 0o777 == 0o700
    [path] = home.servers.glob("*.json")
    assert path.stat().st_mode & 0o777 == 0o600
    [key] = json.loads(path.read_text())["keys"]
    assert not shown_in_process_list(key)
    assert key not in (home.servers / f"{server['id']}.log").read_text()
    refused = httpx.get(f"{server['url']}/v1/models", timeout=PATIENCE, trust_env=False)
    assert refused.status_code == 401  # other users of the machine cannot ask it


def test_the_next_command_finds_it_loaded(home: Home) -> None:
    before = home.status()
    printed, said = home.run("run", *SHORT)
    assert printed.strip()
    assert "kept warm for 15 min" in said
    assert "importing" not in said
    assert [each["id"] for each in home.status()] == [each["id"] for each in before]


def test_it_answers_as_the_model_in_this_process_does(home: Home, real_model: ChatVLLM) -> None:
    from agent.app import open_app
    from agent.settings import load_settings
    from tools import default_registry

    settings = load_settings(
        {"home": home.environment["VLLM_AGENT_HOME"], "max_tokens": 64},
        environment={"VLLM_AGENT_CONFIG": os.devnull},
    )
    tools = default_registry().select(None)
    questions = [QUESTION, "Tell me about <|im_end|> tokens."]
    with open_app(settings, warm=True) as app:
        served, here = app.model, real_model
        assert served.protocol == here.protocol
        assert served.profile == here.profile
        told, own = served.start(), here.start()
        assert told.control_tokens == own.control_tokens
        assert told.chat_template == own.chat_template
        assert told.parameters == own.parameters
        assert told.parameters is not None
        assert told.max_model_len == own.max_model_len
        for question in questions:
            one, other = (each.bind_tools(tools).invoke(question) for each in (served, here))
            assert one.text == other.text
            assert [(c["name"], c["args"]) for c in one.tool_calls] == [
                (c["name"], c["args"]) for c in other.tool_calls
            ]
        assert served.explain(QUESTION, tools).prompt == here.explain(QUESTION, tools).prompt


def test_a_server_that_was_killed_is_started_again_elsewhere(home: Home) -> None:
    [before] = home.status()
    process = home.start("run", "Tell me a long story.", "--no-tools", "--max-tokens", "4000")
    until(lambda: busy(before["url"]))
    os.kill(before["pid"], signal.SIGKILL)
    _, said = finished(process, code=1)
    assert "the server died while this request was running" in said
    assert home.status() == []
    with foreign_server(int(before["url"].rpartition(":")[2])):
        # It stops itself when it is idle, which is soon.
        printed, _ = home.run("run", *SHORT, VLLM_AGENT_WARM_MINUTES="0.2")
        assert printed.strip()
    [path] = home.servers.glob("*.json")  # it stays until somebody looks
    until(lambda: gone(json.loads(path.read_text())["pid"]))
    assert home.status() == []
    assert not list(home.servers.glob("*.facts"))


@pytest.fixture
def port() -> Iterator[int]:
    """The usual one may be taken meanwhile by whoever else serves on this machine."""
    with held_port() as port:
        yield port


def test_serve_answers_others_and_ends_in_good_order(home: Home, tmp_path: Path, port: int) -> None:
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    keys.chmod(0o600)
    words = ("--port", str(port), "--api-key-file", str(keys), "--max-model-len", "4096")
    process = home.start("serve", *words)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address, process.communicate()[1]
    [server] = home.status()
    assert (address, server["kept_warm"], server["key_needed"]) == (f"{server['url']}/v1", False, True)
    assert not shown_in_process_list(KEY)
    family = [psutil.Process(server["pid"]), *psutil.Process(server["pid"]).children(recursive=True)]

    # Another client of OpenAI's API gets calls, although the model has no format for them.
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    body = {"model": "SmolLM2-135M-Instruct", "messages": [{"role": "user", "content": "What is 2 + 3?"}]}
    headers = {"Authorization": f"Bearer {KEY}"}
    client = httpx.Client(base_url=address, headers=headers, timeout=PATIENCE, trust_env=False)
    forced = client.post("/chat/completions", json={**body, "tools": [tool], "tool_choice": "required"})
    assert forced.json()["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "add"

    # Our own finds it by itself, with its key.
    printed, said = home.run("run", *SHORT)
    assert printed.strip()
    assert f"on your server {server['url']}" in said
    assert len(home.status()) == 1

    # Ctrl-C lets what runs come to its end, also what has only just come; what comes later is refused.
    long = {**body, "max_tokens": 60, "ignore_eos": True, "temperature": 0}
    asked = asked_until_busy(client, long, server["url"], 8)
    process.send_signal(signal.SIGINT)
    late = []
    with suppress(httpx.TransportError):  # it is gone
        while True:
            late.append(client.post("/chat/completions", json={**body, "max_tokens": 1}).status_code)
    assert set(late) <= {200, 503}
    _, said = finished(process, code=130)
    answers = [each.result() for each in asked if each.exception() is None]
    assert {each.status_code for each in answers} <= {200, 503}, [each.text for each in answers]
    taken = [each.json()["usage"]["completion_tokens"] for each in answers if each.status_code == 200]
    assert taken == [60] * len(taken)
    assert taken
    assert "the server has stopped" in said
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    log = (home.servers / f"{server['id']}.log").read_text()
    assert KEY not in log
    assert KEY not in said


def test_a_server_of_several_processes_is_asked_and_stopped_as_one(home: Home) -> None:
    """vLLM's engine on its own, behind two processes that speak HTTP: what a machine with a GPU runs."""
    flags = ("--api-server-count", "2", "--max-model-len", "2048", "--kv-cache-memory-bytes", "200000000")
    address, _ = home.run("serve", "--background", *flags)
    [server] = home.status()
    assert address.strip() == f"{server['url']}/v1"
    leader = psutil.Process(server["pid"])
    family = [leader, *leader.children(recursive=True)]
    printed, said = home.run("run", *SHORT)
    assert printed.strip()
    assert f"on your server {server['url']}" in said
    body = {"model": "SmolLM2-135M-Instruct", "prompt": "One, two,", "max_tokens": 2}
    for _ in range(8):  # the kernel chooses which of the two answers a connection
        given = httpx.post(f"{server['url']}/v1/completions", json=body, timeout=PATIENCE, trust_env=False)
        assert given.json()["usage"]["completion_tokens"] == 2
    assert "stopped" in home.run("serve", "stop", server["id"])[1]
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    assert len(family) > 3
    assert home.status() == []


def test_what_cannot_be_loaded_is_explained(home: Home) -> None:
    wrong = home.run("serve", "--max-modle-len", "4096", code=2)[1]
    assert "did you mean --max-model-len" in wrong  # known since the first server started
    small = ("serve", "--background", "--kv-cache-memory-bytes", "100000000")
    assert "does not fit here" in home.run(*small, code=1)[1]
    said = home.run(*small, "--force", code=1)[1]
    assert "vLLM ran out of memory" in said
    assert "It fits with" in said
    assert "--max-model-len" in said
    assert home.status() == []


class foreign_server:
    """Another program on a port that a server of ours had; it says yes to everything."""

    def __init__(self, port: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b'{"id": "foreign", "running": 0, "idle_seconds": 1.0}')

            def do_POST(self) -> None:
                pytest.fail("a question of ours went to another program")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)

    def __enter__(self) -> None:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
