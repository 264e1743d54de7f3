"""What a conversation with tools costs its database, and what so many of them a day come to.

    python -m benchmarks.capacity [--conversations 200] [--per-day 1000000] [--card-tokens 2500]

Conversations of three turns, each with one tool call (so six model calls), run through the react graph on a
scripted engine against a PostgreSQL that waits for its disk; every step is durable. Counted by the server
itself: bytes of all tables and indexes, bytes of its log (WAL), and transactions, reads included. The rest is
arithmetic: storage and log a day, transactions a second on average and at a peak of three times that, and
cards, for the output tokens a second that one card is said to do (``--card-tokens``: measure yours with
``vllm bench serve``; nothing here measures a card).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import time
from typing import Any

from agent import ChatVLLM, open_checkpointer
from agent.engines import Reply, ScriptedEngine
from graphs import build_react_graph
from tests.postgres_server import PostgresServer, serve
from tools import default_registry

TURNS = 3
CALLS = 2 * TURNS
PEAK = 3.0
"""How much busier the busiest hour is than the mean."""
DAY = 86_400
ANSWER = "The result is 345. " * 10
"""190 characters, about 50 tokens."""
QUESTION = "Please work out what fifteen times twenty-three is, and say it in a sentence. " * 2

_SIZE = """
SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')"""
_COMMITS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
_LOG = "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"


def number(server: PostgresServer, statement: str, url: str) -> float:
    [(value,)] = server.execute(statement, url=url)
    return float(str(value))


def engine() -> ScriptedEngine:
    """Calls a tool where a question stands last, and answers where a result does."""
    ids = itertools.count()

    def answer(request: Any) -> Reply:
        if request["messages"][-1]["role"] == "tool":
            return Reply(content=ANSWER)
        call = {"name": "calculator", "arguments": {"expression": "15 * 23"}, "id": f"call_{next(ids)}"}
        return Reply(tool_calls=[call])

    return ScriptedEngine([answer], repeat=True)


async def converse(graph: Any, thread: str) -> None:
    config = {"configurable": {"thread_id": thread}}
    for _ in range(TURNS):
        state = await graph.ainvoke({"messages": [("user", QUESTION)]}, config, durability="sync")
        assert state["messages"][-1].text == ANSWER


async def measure(*, conversations: int, at_once: int) -> dict[str, float]:
    """The costs of one conversation, as the server counts them."""
    with serve(durable=True) as server:
        url = server.new_database()
        async with open_checkpointer(url) as saver:
            tools = default_registry().select(("calculator",))
            graph = build_react_graph(model=ChatVLLM(engine=engine()), tools=tools, checkpointer=saver)
            await converse(graph, "warm")
            size, log = number(server, _SIZE, url), number(server, _LOG, url)
            commits = number(server, _COMMITS, url)
            begin, worked = time.perf_counter(), time.process_time()
            waiting = iter(range(conversations))

            async def work() -> None:
                for number_ in waiting:
                    await converse(graph, f"t{number_}")

            await asyncio.gather(*(work() for _ in range(at_once)))
            seconds, processor = time.perf_counter() - begin, time.process_time() - worked
            await asyncio.sleep(1.5)  # the server counts its commits with a delay
            size, log = number(server, _SIZE, url) - size, number(server, _LOG, url) - log
            commits = number(server, _COMMITS, url) - commits
    return {
        "kilobytes": size / conversations / 1e3,
        "log_kilobytes": log / conversations / 1e3,
        "transactions": commits / conversations,
        "conversations_per_s": conversations / seconds,
        "processor_ms": processor / conversations * 1e3,
    }


def a_day(one: dict[str, float], *, per_day: int, tokens: int, card_tokens: float) -> dict[str, float]:
    """What ``per_day`` conversations a day come to."""
    per_second = per_day / DAY
    output = per_second * CALLS * tokens
    return {
        "storage_gb": one["kilobytes"] * per_day / 1e6,
        "log_gb": one["log_kilobytes"] * per_day / 1e6,
        "transactions_per_s": one["transactions"] * per_second,
        "peak_transactions_per_s": one["transactions"] * per_second * PEAK,
        "agent_cores_at_peak": one["processor_ms"] / 1e3 * per_second * PEAK,
        "output_tokens_per_s": output,
        "cards_at_peak": output * PEAK / card_tokens,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--conversations", type=int, default=200, help="measured (default 200)")
    parser.add_argument("--at-once", type=int, default=16, help="of them (default 16)")
    parser.add_argument("--per-day", type=int, default=1_000_000, help="calculated (default 1,000,000)")
    parser.add_argument("--tokens", type=int, default=100, help="that a model call writes (default 100)")
    parser.add_argument("--card-tokens", type=float, default=2500, help="a second of one card (default 2500)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    one = asyncio.run(measure(conversations=arguments.conversations, at_once=arguments.at_once))
    many = a_day(one, per_day=arguments.per_day, tokens=arguments.tokens, card_tokens=arguments.card_tokens)
    if arguments.json:
        print(json.dumps({"one": one, "a_day": many}))
        return
    for title, figures in (("one conversation", one), (f"{arguments.per_day:,} a day", many)):
        print(title)
        for name, value in figures.items():
            print(f"  {name:22} {value:12,.2f}")


if __name__ == "__main__":
    main()
