"""Our saver beside LangGraph's ``AsyncSqliteSaver``, measured in the same run on the same machine.

    python -m benchmarks.persistence            # about a minute
    python -m benchmarks.persistence --full     # 5,000 turns, 10,000 threads: a quarter of an hour
    python -m benchmarks.persistence --full --only load
    python -m benchmarks.persistence --json

A turn is a question and an answer of 200 characters each, through a graph with one node. Times contain
LangGraph's own work, which is the same for both; each is the best of several, taken in turns. Figures called
``cpu`` are processor time of all threads, which other work on the machine changes less. The disk is the
one that holds the temporary directory.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import random
import statistics
import string
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import _messages_delta_reducer, add_messages

from agent.persistence import ConversationStore, open_checkpointer

TEXT = "0123456789" * 20
ROUNDS = 3
_RANDOM = random.Random(1)
_WORDS = ["".join(_RANDOM.choices(string.ascii_lowercase, k=_RANDOM.randint(2, 9))) for _ in range(3000)]


def text() -> str:
    """200 characters that no other message has: PostgreSQL compresses what is said again and again."""
    return " ".join(_RANDOM.choices(_WORDS, k=80))[:200]


class Whole(TypedDict):
    """State whose messages every step hands to the saver whole."""

    messages: Annotated[list[AnyMessage], add_messages]


class Delta(TypedDict):
    """State whose messages LangGraph rebuilds from the steps' writes, with its own way of joining them."""

    messages: Annotated[list[AnyMessage], DeltaChannel(_messages_delta_reducer)]


@asynccontextmanager
async def official(path: Path) -> AsyncIterator[Any]:
    async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
        yield saver


Opener = Callable[[Path], AbstractAsyncContextManager[Any]]
SAVERS: dict[str, Opener] = {"ours": open_checkpointer, "official": official}


def build(saver: Any, state: type) -> Any:
    async def answer(_: Any) -> dict[str, Any]:
        return {"messages": [AIMessage(text())]}

    builder = StateGraph(state)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    return builder.compile(checkpointer=saver)


async def converse(graph: Any, thread_id: str, turns: int) -> None:
    for _ in range(turns):
        await graph.ainvoke({"messages": [HumanMessage(text())]}, {"configurable": {"thread_id": thread_id}})


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e6


async def conversation(opener: Opener, state: type, turns: int) -> dict[str, float]:
    """One long conversation: time a turn, size of the files, time to list its checkpoints."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with opener(folder / "c.sqlite") as saver:
            graph = build(saver, state)
            await converse(graph, "warm", 2)
            begin, worked = time.perf_counter(), time.process_time()
            await converse(graph, "t", turns)
            each, processor = (time.perf_counter() - begin) / turns, (time.process_time() - worked) / turns
            begin = time.perf_counter()
            listed = [found async for found in saver.alist({"configurable": {"thread_id": "t"}}, limit=100)]
            listing = time.perf_counter() - begin
            assert len(listed) == 100
        # Closed: the write-ahead log is gone.
        return {
            "ms_per_turn": each * 1e3,
            "cpu_ms_per_turn": processor * 1e3,
            "megabytes": megabytes(folder),
            "list_100_ms": listing * 1e3,
        }


async def concurrent(opener: Opener, turns: int) -> dict[str, float]:
    """32 conversations at once; a turn is three checkpoints, here called steps."""
    with tempfile.TemporaryDirectory() as name:
        async with opener(Path(name) / "c.sqlite") as saver:
            graph = build(saver, Whole)
            await converse(graph, "warm", 2)
            begin, worked = time.perf_counter(), time.process_time()
            await asyncio.gather(*(converse(graph, f"t{n}", turns) for n in range(32)))
            steps = 32 * turns * 3
            return {
                "steps_per_s": steps / (time.perf_counter() - begin),
                "cpu_ms_per_step": (time.process_time() - worked) / steps * 1e3,
            }


async def growth(lengths: list[int]) -> dict[str, Any]:
    """Size of one growing conversation at several lengths, and the exponent that fits it (1 is linear).

    Its turns go to the saver as LangGraph hands them over, three checkpoints and two writes a turn, but
    without LangGraph, whose own work on a long state would take most of the time.
    """
    sizes: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with open_checkpointer(folder / "c.sqlite") as saver:
            said: list[AnyMessage] = []
            config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
            done, worked = 0, time.process_time()
            for length in lengths:
                for turn in range(done, length):
                    config = await store_turn(saver, config, said, turn)
                done = length
                saver.database.outside_transaction("PRAGMA wal_checkpoint(TRUNCATE)")
                sizes.append(megabytes(folder))
            spent = time.process_time() - worked
    exponent = statistics.linear_regression([*map(math.log, lengths)], [*map(math.log, sizes)]).slope
    return {"turns": lengths, "megabytes": sizes, "exponent": exponent, "cpu_s": spent}


async def store_turn(saver: Any, config: Any, said: list[AnyMessage], turn: int) -> Any:
    """Store a turn as the graph of :func:`build` does, and add its messages to those that were said."""
    question, answer = HumanMessage(TEXT, id=f"h{turn}"), AIMessage(TEXT, id=f"a{turn}")
    seen: dict[str, Any] = {}
    steps: list[tuple[str, list[AnyMessage], dict[str, Any], list[tuple[str, Any]]]] = [
        (
            "input",
            [],
            {"__start__": {"messages": [question]}},
            [("messages", [question]), ("branch:to:answer", None)],
        ),
        ("loop", [question], {"branch:to:answer": None}, [("messages", [answer])]),
        ("loop", [answer], {}, []),
    ]
    for number, (source, added, values, writes) in enumerate(steps):
        said.extend(added)
        version = f"{3 * turn + number + 1:032}.{0:010}"
        seen = {**seen, **dict.fromkeys(("messages", *values), version)}
        checkpoint = {
            **empty_checkpoint(),
            "channel_values": {**values, **({"messages": said} if said else {})},
            "channel_versions": seen,
            "versions_seen": {"__input__": {}, "__start__": {"__start__": version}},
            "updated_channels": [*values, *(["messages"] if added else [])],
        }
        changed = dict.fromkeys((*values, *(["messages"] if added else [])), version)
        metadata = {"source": source, "step": 3 * turn + number - 1, "parents": {}}
        config = await saver.aput(config, checkpoint, metadata, changed)
        if writes:
            await saver.aput_writes(config, writes, f"task-{turn}-{number}", "~__pregel_pull, answer")
    return config


async def loading(opener: Opener, turns: int, threads: int) -> dict[str, float]:
    """The latest state of one long conversation among many short ones: the median of nine loads."""
    said = [
        message
        for n in range(turns)
        for message in (HumanMessage(TEXT, id=f"h{n}"), AIMessage(TEXT, id=f"a{n}"))
    ]
    with tempfile.TemporaryDirectory() as name:
        async with opener(Path(name) / "c.sqlite") as saver:
            for n in range(threads):
                checkpoint = empty_checkpoint()
                version = saver.get_next_version(None, None)
                checkpoint["channel_values"] = {"messages": said if n == threads // 2 else said[:2]}
                checkpoint["channel_versions"] = {"messages": version}
                config = {"configurable": {"thread_id": f"t{n}", "checkpoint_ns": ""}}
                await saver.aput(config, checkpoint, {"source": "loop", "step": 0}, {"messages": version})
            times, worked = [], []
            for _ in range(9):
                gc.collect()
                begin, processor = time.perf_counter(), time.process_time()
                found = await saver.aget_tuple({"configurable": {"thread_id": f"t{threads // 2}"}})
                times.append(time.perf_counter() - begin)
                worked.append(time.process_time() - processor)
                assert len(found.checkpoint["channel_values"]["messages"]) == 2 * turns
                del found
            result = {
                "load_ms": statistics.median(times) * 1e3,
                "best_load_ms": min(times) * 1e3,
                "cpu_load_ms": min(worked) * 1e3,
            }
            if opener is open_checkpointer:
                begin = time.perf_counter()
                assert len(ConversationStore(saver).list(limit=50)) == min(50, threads)
                result["list_50_threads_ms"] = (time.perf_counter() - begin) * 1e3
            return result


def best(known: dict[str, float], new: dict[str, float]) -> dict[str, float]:
    """The better figure of each: what disturbs a measurement only makes it worse."""
    better = {name: max if name.endswith("per_s") else min for name in new}
    return {name: better[name](value, known.get(name, value)) for name, value in new.items()}


async def measure(*, full: bool, only: str = "") -> dict[str, Any]:
    """All figures, or those of the groups whose names begin so, by name and saver."""
    turns, threads = (5000, 10_000) if full else (500, 500)
    measurements: dict[str, Callable[[Opener], Awaitable[dict[str, float]]]] = {
        "whole_200": lambda opener: conversation(opener, Whole, 200),
        "delta_200": lambda opener: conversation(opener, Delta, 200),
        "concurrent_32": lambda opener: concurrent(opener, 10),
        f"load_{turns}_turns_among_{threads}": lambda opener: loading(opener, turns, threads),
    }
    figures: dict[str, Any] = {name: {} for name in SAVERS}
    for group, run in measurements.items():
        if not group.startswith(only):
            continue
        for _ in range(1 if group.startswith("load") else ROUNDS):
            for name, opener in SAVERS.items():
                figures[name][group] = best(figures[name].get(group, {}), await run(opener))
    if "growth".startswith(only):
        figures["ours"]["growth"] = await growth([100, 500, 2000, 5000] if full else [50, 100, 200, 400])
    return figures


def show(figures: dict[str, Any]) -> None:
    """Print the figures side by side, and how many times better ours are."""
    print(f"{'':48}{'ours':>10}{'official':>10}{'better':>8}")
    for group, values in figures["official"].items():
        for name, theirs in values.items():
            ours = figures["ours"][group][name]
            better = ours / theirs if name.endswith("per_s") else theirs / ours
            print(f"{group + ' ' + name:48}{ours:10.2f}{theirs:10.2f}{better:8.2f}")
    for group in figures["ours"]:
        for name in figures["ours"][group].keys() - figures["official"].get(group, {}).keys():
            print(f"{group + ' ' + name:48}  {figures['ours'][group][name]}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="5,000 turns and 10,000 threads")
    parser.add_argument("--only", default="", help="whole, delta, concurrent, load or growth (all)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    figures = asyncio.run(measure(full=options.full, only=options.only))
    if options.json:
        print(json.dumps(figures, indent=2))
    else:
        show(figures)


if __name__ == "__main__":
    main()
