"""Whether somebody who reads a stream slowly holds others up, as a ratio.

    python -m benchmarks.slow_reader                # in this process
    python -m benchmarks.slow_reader --server       # on vLLM's server

Some conversations are kept going while eight readers have a long answer streamed to them. In one window the
readers take every part as soon as it is there, in the next one half a second for each, so that the engine has
the same to do in both and only the reading differs. The figure is the time of a turn of the others beside
slow readers, over that beside quick ones; the windows take turns. Target: at most 1.1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import time
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver

from agent import ChatVLLM
from agent.catalogue.embedded import embedded_model
from benchmarks import plot
from benchmarks.server import KEY, open_server
from graphs import build_react_graph

READERS = 8
STREAMED = 96
"""Tokens of a reader's answer."""
SAID = 16
"""Tokens of the others' answers."""
PAUSE = 0.5


async def window(model: ChatVLLM, *, pause: float, others: int, turns: int) -> float:
    """The mean time of a turn of the others, in seconds, while the readers read.

    Args:
        model: Where both come from.
        pause: Seconds that a reader takes for each part.
        others: Conversations beside the readers.
        turns: Of each of them.
    """
    long = build_react_graph(model=_telling(model, STREAMED), checkpointer=InMemorySaver())
    short = build_react_graph(model=_telling(model, SAID), checkpointer=InMemorySaver())

    async def read(number: int) -> None:
        config: Any = {"configurable": {"thread_id": f"reader-{number}"}}
        question = {"messages": [("user", f"Tell me a long story about the number {number}.")]}
        async for _ in long.astream(question, config, stream_mode="messages"):
            await asyncio.sleep(pause)

    async def talk(number: int) -> float:
        config: Any = {"configurable": {"thread_id": f"other-{number}"}}
        started = time.perf_counter()
        for turn in range(turns):
            await short.ainvoke({"messages": [("user", f"And {number}, {turn}?")]}, config)
        return (time.perf_counter() - started) / turns

    readers = [asyncio.create_task(read(number)) for number in range(READERS)]
    try:
        return statistics.mean(await asyncio.gather(*(talk(number) for number in range(others))))
    finally:
        for reader in readers:  # those who are slow have not read half of it
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


def _telling(model: ChatVLLM, tokens: int) -> Any:
    return model.model_copy(update={"max_tokens": tokens, "ignore_eos": True})


async def measure(model: ChatVLLM, *, rounds: int, others: int, turns: int) -> dict[str, Any]:
    """Both windows in turns; the median of the rounds' ratios counts."""
    await model.ainvoke("Hello!", max_tokens=1)
    quick, slow = [], []
    for number in range(rounds):
        for times, pause in ((quick, 0.0), (slow, PAUSE))[:: 1 if number % 2 else -1]:
            times.append(await window(model, pause=pause, others=others, turns=turns))
    ratios = [a / b for a, b in zip(slow, quick, strict=True)]
    return {
        "figure": "a turn beside slow readers / beside quick ones",
        "seconds_beside_quick": round(statistics.median(quick), 3),
        "seconds_beside_slow": round(statistics.median(slow), 3),
        "ratio": round(statistics.median(ratios), 3),
        "rounds": [round(ratio, 3) for ratio in ratios],
        "target": 1.1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="pairs of windows (5)")
    parser.add_argument("--others", type=int, default=8, help="conversations beside the readers (8)")
    parser.add_argument("--turns", type=int, default=4, help="of each in a window (4)")
    parser.add_argument("--server", action="store_true", help="on a vLLM server, not in this process")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    plot.add_option(parser)
    options = parser.parse_args()
    where: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        if options.server:
            server = stack.enter_context(open_server(embedded_model(), dtype="float32", enforce_eager=True))
            where = {"base_url": server.base_url, "api_key": KEY}
        model = stack.enter_context(ChatVLLM(temperature=0.0, **where))
        figures = asyncio.run(
            measure(model, rounds=options.rounds, others=options.others, turns=options.turns)
        )
    plot.save(options.plot, "Slow readers of a stream", [figures])
    print(json.dumps(figures) if options.json else "\n".join(f"{k}: {v}" for k, v in figures.items()))


if __name__ == "__main__":
    main()
