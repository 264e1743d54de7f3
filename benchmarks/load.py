"""Many conversations at once, and what becomes of them: none lost, none mixed up, memory flat.

    python -m benchmarks.load                     # 200 conversations for 10 minutes, in this process
    python -m benchmarks.load --server --kill     # on a server that is killed and started again
    python -m benchmarks.load --postgres --restart      # on a PostgreSQL that is restarted
    python -m benchmarks.load --conversations 12 --seconds 20 --json

Each conversation asks sums that no other one asks, so that an answer, or a tool's result, in the wrong place
is seen. At the end every conversation is read from the database again. One that met an error (a server that
was killed) is resumed; what it had asked must have an answer then. A reader who takes half a second for each
part of a stream is there all the time.

The command fails if a conversation is lost, mixed up, or not ended.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from langchain_core.messages import BaseMessage

from agent import ChatVLLM, open_checkpointer
from agent.catalogue.embedded import embedded_model
from agent.errors import AgentError
from benchmarks.server import KEY, Server
from graphs import build_react_graph
from graphs.turn import is_unfinished
from tests import postgres_server
from tools import default_registry

TOKENS = 24
ENGINE: dict[str, Any] = {
    "enforce_eager": True,
    "max_num_seqs": 64,
    "kv_cache_memory_bytes": 1 << 30,
}
"""Engine arguments, in this process and on the server."""
_SUM = re.compile(r"(\d+) \* (\d+)")


@dataclass
class Findings:
    """What happened."""

    turns: int = 0
    seconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    """What callers were told, by its kind and its first words."""
    resumed: int = 0
    not_asked: int = 0
    """Questions that an error kept out of the conversation, so that another one was asked."""
    given_up: list[str] = field(default_factory=list)
    """Conversations that could not be gone on with."""
    asked: dict[str, list[str]] = field(default_factory=dict)
    """The questions of each conversation, in order."""


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
            found.errors[f"{type(error).__name__}: {str(error)[:120]}"] += 1
            if not await resumed(graph, config, thread, question, found):
                continue
        asked.append(question)
        found.turns += 1
        found.seconds.append(time.monotonic() - started)


async def resumed(graph: Any, config: Any, thread: str, question: str, found: Findings) -> bool:
    """Go on where an error struck, for as long as it takes; whether the question is answered then."""
    for _ in range(600):
        try:
            state = await graph.aget_state(config)
            if not is_unfinished(state):
                known = any(message.text == question for message in state.values.get("messages", []))
                found.not_asked += not known
                return known
            await graph.ainvoke(None, config, durability="sync")
            found.resumed += 1
            return True
        except AgentError:
            await asyncio.sleep(0.5)
    found.given_up.append(thread)
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


Fault = Callable[[], None]


async def load(
    options: argparse.Namespace, database: str, server: Server | None, faults: Sequence[Fault]
) -> dict[str, Any]:
    """Keep all conversations going for the given time, and look at them afterwards.

    Args:
        options: Of the command line.
        database: A file, or an address.
        server: Where the model runs; None for this process.
        faults: What is done in the middle, one after the other.
    """
    where: dict[str, Any] = {"dtype": "float32", "vllm_kwargs": ENGINE}
    if server is not None:
        where = {"base_url": server.base_url, "api_key": KEY}
    async with open_checkpointer(database, timeout=60) as saver:
        with ChatVLLM(temperature=0, max_tokens=TOKENS, **where) as model:
            await asyncio.to_thread(model.start)
            return await under_load(model, saver, options, faults)


async def under_load(
    model: ChatVLLM, saver: Any, options: argparse.Namespace, faults: Sequence[Fault] = ()
) -> dict[str, Any]:
    """The same on a model and a saver that are open."""
    found = Findings()
    memory: list[int] = []
    graph = build_react_graph(
        model=model, tools=default_registry().select(["calculator"]), checkpointer=saver
    )
    started = time.monotonic()
    until = started + options.seconds
    talks = [
        converse(graph, f"t{number}", itertools.count(10_000 * number + 11), until, found)
        for number in range(options.conversations)
    ]
    tasks = [asyncio.create_task(each) for each in talks]
    beside = [asyncio.create_task(slow_reader(graph, until))]
    beside.append(asyncio.create_task(watch(memory, until)))
    for number, fault in enumerate(faults):
        moment = started + options.seconds * 0.4 + min(5.0, options.seconds * 0.1) * number
        await asyncio.sleep(moment - time.monotonic())
        await asyncio.to_thread(fault)
    await asyncio.gather(*tasks)
    took = time.monotonic() - started
    parts, _ = await asyncio.gather(*beside)
    problems = {thread: ["it could not be gone on with"] for thread in found.given_up}
    for thread, asked in found.asked.items():
        state = await graph.aget_state({"configurable": {"thread_id": thread}})
        if trouble := wrong(state.values.get("messages", []), asked):
            problems[thread] = problems.get(thread, []) + trouble
    return {
        "conversations": options.conversations,
        "seconds": round(took, 1),
        "turns": found.turns,
        "turns_per_second": round(found.turns / took, 2),
        "seconds_per_turn_median": round(statistics.median(found.seconds), 2) if found.seconds else None,
        "seconds_per_turn_most": round(max(found.seconds, default=0), 2),
        "fewest_turns_of_a_conversation": min(map(len, found.asked.values())),
        "errors": dict(found.errors),
        "resumed": found.resumed,
        "not_asked": found.not_asked,
        "wrong": problems,
        "parts_read_slowly": parts,
        **resident(memory),
    }


def resident(memory: Sequence[int]) -> dict[str, Any]:
    """What the samples say: whether memory that is kept grows, and how much is needed for moments.

    The engine computes on batches of different sizes, whose tensors come and go: the least of a tenth of the
    time is what is kept.
    """
    part = max(1, len(memory) // 10)
    least = [min(memory[begin : begin + part]) for begin in range(0, len(memory) - part + 1, part)]
    return {
        "memory_mb_least_of_each_tenth": [round(each / 2**20) for each in least],
        "memory_mb_most": round(max(memory) / 2**20),
        "memory_end_over_half": round(least[-1] / least[len(least) // 2], 3),
    }


async def watch(memory: list[int], until: float) -> None:
    """Note the resident memory of this process from time to time."""
    process = psutil.Process()
    memory.append(process.memory_info().rss)
    while time.monotonic() < until:
        await asyncio.sleep(1)
        memory.append(process.memory_info().rss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--conversations", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--database", help="PostgreSQL in the place of a SQLite file")
    parser.add_argument("--postgres", action="store_true", help="on a PostgreSQL that is started for it")
    parser.add_argument("--restart", action="store_true", help="restart that PostgreSQL in the middle")
    parser.add_argument("--server", action="store_true", help="on a vLLM server, not in this process")
    parser.add_argument("--kill", action="store_true", help="kill the server in the middle, start it again")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.kill and not options.server:
        parser.error("--kill needs --server")
    if options.restart and not options.postgres:
        parser.error("--restart needs --postgres")
    result = run(options)
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name}: {value}")
    sys.exit(1 if result["wrong"] else 0)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Start what is asked for, and load it."""
    faults: list[Fault] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        database, server = options.database or str(Path(folder) / "load.sqlite"), None
        if options.postgres:
            postgres = stack.enter_context(postgres_server.serve())
            database = postgres.new_database()
            faults += [postgres.restart] * options.restart
        if options.server:
            server = Server(embedded_model(), Path(folder), dtype="float32", **ENGINE)
            stack.callback(server.stop)
            server.start()
            faults += [server.kill, server.start] if options.kill else []
        return asyncio.run(load(options, database, server, faults))


if __name__ == "__main__":
    main()
