"""Our saver on PostgreSQL beside LangGraph's ``AsyncPostgresSaver``, in the same run on the same server.

    python -m benchmarks.postgres

The server is started for it, with PostgreSQL's defaults: commits wait for the disk. Both savers are opened as
their documentation shows first; ``official_pool`` is the other one with as many connections as ours. Each
figure is the median of several rounds, in which the savers take turns. Those called ``cpu`` are processor
time, of this process and of the server together, which other work and the disk change less.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import psutil
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from agent.persistence import open_checkpointer
from benchmarks.persistence import Delta, Whole, build, converse
from tests.postgres_server import PostgresServer, serve

CONNECTIONS = 8
ROUNDS = 5


@asynccontextmanager
async def official(url: str) -> AsyncIterator[Any]:
    async with AsyncPostgresSaver.from_conn_string(url) as saver:
        await saver.setup()
        yield saver


@asynccontextmanager
async def official_pool(url: str) -> AsyncIterator[Any]:
    settings = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(url, min_size=CONNECTIONS, max_size=CONNECTIONS, kwargs=settings) as pool:
        saver = AsyncPostgresSaver(pool)  # type: ignore[arg-type]
        await saver.setup()
        yield saver


Opener = Callable[[str], AbstractAsyncContextManager[Any]]
SAVERS: dict[str, Opener] = {
    "ours": lambda url: open_checkpointer(url, connections=CONNECTIONS),
    "official": official,
    "official_pool": official_pool,
}
_SIZE = (
    "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE c.relkind = 'r' AND n.nspname IN ('public', 'vllm_agent')"
)


def processor(server: PostgresServer) -> float:
    """Seconds that this process and the server have computed so far."""
    postmaster = psutil.Process(int((server.folder / "data" / "postmaster.pid").read_text().split()[0]))
    spent = postmaster.cpu_times()
    total = time.process_time() + spent.user + spent.system + spent.children_user + spent.children_system
    for backend in postmaster.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            spent = backend.cpu_times()
            total += spent.user + spent.system
    return total


async def conversation(server: PostgresServer, opener: Opener, state: type, turns: int) -> dict[str, float]:
    """One long conversation: time a turn, size of its tables, time to load and to list."""
    url = server.new_database()
    async with opener(url) as saver:
        graph = build(saver, state)
        await converse(graph, "warm", 2)
        begin, worked = time.perf_counter(), processor(server)
        await converse(graph, "t", turns)
        each, computed = (time.perf_counter() - begin) / turns, (processor(server) - worked) / turns
        begin = time.perf_counter()
        listed = [found async for found in saver.alist({"configurable": {"thread_id": "t"}}, limit=100)]
        listing = time.perf_counter() - begin
        assert len(listed) == min(100, 3 * turns)
        begin = time.perf_counter()
        for _ in range(5):
            await graph.aget_state({"configurable": {"thread_id": "t"}})
        loading = (time.perf_counter() - begin) / 5
    [(size,)] = server.execute(_SIZE, url=url)
    return {
        "ms_per_turn": each * 1e3,
        "cpu_ms_per_turn": computed * 1e3,
        "megabytes": float(str(size)) / 1e6,
        "list_100_ms": listing * 1e3,
        "load_ms": loading * 1e3,
    }


async def concurrent(server: PostgresServer, opener: Opener, turns: int) -> dict[str, float]:
    """32 conversations at once; a turn is three checkpoints, here called steps."""
    async with opener(server.new_database()) as saver:
        graph = build(saver, Whole)
        await converse(graph, "warm", 2)
        begin, worked = time.perf_counter(), processor(server)
        await asyncio.gather(*(converse(graph, f"t{n}", turns) for n in range(32)))
        steps = 32 * turns * 3
        return {
            "steps_per_s": steps / (time.perf_counter() - begin),
            "cpu_ms_per_step": (processor(server) - worked) / steps * 1e3,
        }


async def measure(*, turns: int = 200, rounds: int = ROUNDS) -> dict[str, Any]:
    """All figures, by name and saver."""
    figures: dict[str, Any] = {name: {} for name in SAVERS}
    with serve(durable=True) as server:
        measurements: dict[str, Callable[[Opener], Awaitable[dict[str, float]]]] = {
            f"whole_{turns}": lambda opener: conversation(server, opener, Whole, turns),
            f"delta_{turns}": lambda opener: conversation(server, opener, Delta, turns),
            "concurrent_32": lambda opener: concurrent(server, opener, max(1, turns // 20)),
        }
        for group, run in measurements.items():
            found: dict[str, list[dict[str, float]]] = {name: [] for name in SAVERS}
            for number in range(rounds):
                for name in [*SAVERS][number % len(SAVERS) :] + [*SAVERS][: number % len(SAVERS)]:
                    found[name].append(await run(SAVERS[name]))
            for name, each in found.items():
                figures[name][group] = {key: statistics.median(one[key] for one in each) for key in each[0]}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=200, help="turns of the long conversation (200)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"their median counts ({ROUNDS})")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    figures = asyncio.run(measure(turns=arguments.turns, rounds=arguments.rounds))
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    for group in figures["ours"]:
        print(group)
        for figure in figures["ours"][group]:
            values = "  ".join(f"{name} {figures[name][group][figure]:10.2f}" for name in SAVERS)
            print(f"  {figure:16} {values}")


if __name__ == "__main__":
    main()
