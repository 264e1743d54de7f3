"""Many conversations at once, and what becomes of them: none lost, none mixed up, memory flat.

    python -m benchmarks.load                     # 200 conversations for 10 minutes, in this process
    python -m benchmarks.load --server --kill     # on a server that is killed and started again
    python -m benchmarks.load --conversations 12 --seconds 20 --json

Each conversation asks sums that no other one asks, so that an answer, or a tool's result, in the wrong place
is seen. At the end every conversation is read from the database again. One that met an error (a server that
was killed) is resumed; what it had asked must have an answer then.

The command fails if a conversation is lost, mixed up, or not ended.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from langchain_core.messages import BaseMessage

from agent import ChatVLLM, open_checkpointer
from agent.catalogue.embedded import embedded_model
from agent.errors import AgentError
from graphs import build_react_graph
from graphs.turn import is_unfinished
from tools import default_registry

TOKENS = 24
_SUM = re.compile(r"(\d+) \* (\d+)")


@dataclass
class Findings:
    """What happened."""

    turns: int = 0
    seconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    resumed: int = 0
    asked: dict[str, list[str]] = field(default_factory=dict)
    """The questions of each conversation, in order."""


class Server:
    """A vLLM server that can be killed as a power cut would, and started again on the same port."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--model", str(embedded_model()), "--served-model-name", "smol"]
        command += ["--enforce-eager", "--dtype", "float32", "--max-num-seqs", "64"]
        environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health", trust_env=False).is_success:
                    return
            time.sleep(0.5)
        raise RuntimeError("the server did not start")

    def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


async def converse(graph: Any, thread: str, numbers: Iterator[int], until: float, found: Findings) -> None:
    """Ask sums of one's own until the time is over; after an error, go on with what was begun."""
    config = {"configurable": {"thread_id": thread}}
    asked = found.asked.setdefault(thread, [])
    while time.monotonic() < until:
        question = f"What is {next(numbers)} * {next(numbers)}?"
        started = time.monotonic()
        try:
            await graph.ainvoke({"messages": question}, config, durability="sync")
        except AgentError as error:
            found.errors[type(error).__name__] += 1
            if not await resumed(graph, config, question, found):
                return  # the question is not in the conversation, so nothing of it is lost
        asked.append(question)
        found.turns += 1
        found.seconds.append(time.monotonic() - started)


async def resumed(graph: Any, config: Any, question: str, found: Findings) -> bool:
    """Go on where an error struck, for as long as it takes; whether the question is answered then."""
    for _ in range(600):
        try:
            state = await graph.aget_state(config)
            if not is_unfinished(state):
                return any(message.text == question for message in state.values.get("messages", []))
            await graph.ainvoke(None, config, durability="sync")
            found.resumed += 1
            return True
        except AgentError:
            await asyncio.sleep(0.5)
    return False


def wrong(messages: list[BaseMessage], asked: list[str]) -> list[str]:
    """What is not as it should be in a conversation."""
    questions = [message.text for message in messages if message.type == "human"]
    problems = [] if questions == asked else [f"asked {len(asked)}, holds {len(questions)}"]
    own = {pair for question in asked for pair in _SUM.findall(question)}
    for message in messages:
        if message.type != "tool":
            continue
        # The model may have written other numbers, even foreign ones; what it wrote is in its call.
        for pair in _SUM.findall(message.text):
            called = any(
                f"{pair[0]} * {pair[1]}" in str(call["args"])
                for other in messages
                for call in getattr(other, "tool_calls", ())
            )
            if pair not in own and not called:
                problems.append(f"a result of another conversation: {message.text}")
    if questions and messages[-1].type != "ai":
        problems.append("it does not end with an answer")
    return problems


async def slow_reader(graph: Any, until: float) -> int:
    """Read a stream of one's own, and take one's time with each part."""
    parts = 0
    for number in itertools.count():
        config = {"configurable": {"thread_id": f"slow-{number}"}}
        with contextlib.suppress(AgentError):
            async for _ in graph.astream({"messages": "Count to ten."}, config, stream_mode="messages"):
                parts += 1
                await asyncio.sleep(0.5)
                if time.monotonic() > until:
                    return parts
        if time.monotonic() > until:
            return parts
    return parts


async def load(options: argparse.Namespace, database: str, server: Server | None) -> dict[str, Any]:
    found = Findings()
    where = {"base_url": server.url} if server is not None else {}
    memory: list[int] = []
    async with open_checkpointer(database) as saver:
        with ChatVLLM(temperature=0, max_tokens=TOKENS, **where) as model:
            graph = build_react_graph(
                model=model, tools=default_registry().select(["calculator"]), checkpointer=saver
            )
            await asyncio.to_thread(model.start)
            until = time.monotonic() + options.seconds
            talks = [
                converse(graph, f"t{number}", itertools.count(10_000 * number + 11), until, found)
                for number in range(options.conversations)
            ]
            tasks = [asyncio.create_task(each) for each in talks]
            beside = [asyncio.create_task(slow_reader(graph, until))]
            beside.append(asyncio.create_task(watch(memory, until)))
            if options.kill and server is not None:
                await asyncio.sleep(options.seconds * 0.4)
                server.kill()
                await asyncio.sleep(min(5, options.seconds * 0.1))
                await asyncio.to_thread(server.start)
            await asyncio.gather(*tasks)
            parts, _ = await asyncio.gather(*beside)
            problems = {}
            for thread, asked in found.asked.items():
                state = await graph.aget_state({"configurable": {"thread_id": thread}})
                if trouble := wrong(state.values.get("messages", []), asked):
                    problems[thread] = trouble
    warm = memory[len(memory) // 3 :] or memory or [1]
    return {
        "conversations": options.conversations,
        "turns": found.turns,
        "turns_per_second": round(found.turns / options.seconds, 2),
        "seconds_per_turn_median": round(statistics.median(found.seconds), 2) if found.seconds else None,
        "errors": dict(found.errors),
        "resumed": found.resumed,
        "wrong": problems,
        "parts_read_slowly": parts,
        "memory_end_over_warm": round(warm[-1] / warm[0], 3),
    }


async def watch(memory: list[int], until: float) -> None:
    """Note the resident memory of this process from time to time."""
    process = psutil.Process()
    while time.monotonic() < until:
        memory.append(process.memory_info().rss)
        await asyncio.sleep(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--conversations", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--database", help="PostgreSQL in the place of a SQLite file")
    parser.add_argument("--server", action="store_true", help="on a vLLM server, not in this process")
    parser.add_argument("--kill", action="store_true", help="kill the server in the middle, start it again")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.kill and not options.server:
        parser.error("--kill needs --server")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        server = Server() if options.server else None
        if server is not None:
            stack.callback(server.kill)
            server.start()
        database = options.database or str(Path(folder) / "load.sqlite")
        result = asyncio.run(load(options, database, server))
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name}: {value}")
    sys.exit(1 if result["wrong"] else 0)


if __name__ == "__main__":
    main()
