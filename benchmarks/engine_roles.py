"""What each process of ``engine.py`` does: use the model in one way, and print figures as lines of JSON.

The first line comes when the model answers; then one for each line that the process is sent; the last one
when it is sent no more.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil

COMMON: dict[str, Any] = {
    "max_model_len": 2048,
    "dtype": "float32",
    "enforce_eager": True,
    "enable_prefix_caching": True,
    "block_size": 32,
    "kv_cache_memory_bytes": 1 << 30,
}
"""Engine arguments of every process."""

STREAMS = (1, 16)
CYCLES = 3  # how often an engine is opened and closed: what is left behind each time is lost


def conversations(calls: int) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": f"Tell me a story about the number {i}."}] for i in range(calls)]


def ours(*, model: str, tokens: int, born: float) -> None:
    """``ChatVLLM`` in this process: start, speed, then streams and memory."""
    from agent import ChatVLLM

    others = {name: value for name, value in COMMON.items() if name not in ("max_model_len", "dtype")}
    memory: dict[str, Any] = {"imported": None, "closed": []}

    def loading(stage: str) -> None:
        if stage == "loading" and memory["imported"] is None:
            memory["imported"] = resident()

    def opened() -> Any:
        return ChatVLLM(
            model=model,
            dtype=COMMON["dtype"],
            max_model_len=COMMON["max_model_len"],
            temperature=0.0,
            ignore_eos=True,
            max_tokens=tokens,
            vllm_kwargs=others,
            on_stage=loading,
        )

    chat = opened()
    next(iter(chat.stream("Hello!", max_tokens=4)))
    say(first_token_s=time.time() - born)
    take_turns({"ours": chats(chat)})
    streams = {str(count): stream_costs(chat, count, max(2, tokens // 2)) for count in STREAMS}
    for again in range(CYCLES):
        if again:
            chat = opened()
            asyncio.run(chats(chat)(16))
        chat.close()
        del chat
        memory["closed"].append(resident())
    say(stream=streams, memory_mb=memory)


def plain(*, model: str, tokens: int, born: float) -> None:
    """``vllm.LLM``: start and speed."""
    from agent.engines.local import ENVIRONMENT

    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from vllm import LLM, SamplingParams

    llm = LLM(model=model, **COMMON)
    llm.chat(conversations(1), SamplingParams(max_tokens=1), use_tqdm=False)
    say(first_token_s=time.time() - born)
    params = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)

    async def work(count: int) -> int:
        outputs = llm.chat(conversations(count), params, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    take_turns({"plain": work})
    say()


def served(*, model: str, tokens: int, born: float) -> None:
    """``ChatOpenAI``, and ``ChatVLLM`` with an address, on one ``vllm serve``."""
    from langchain_openai import ChatOpenAI

    from agent import ChatVLLM

    del born
    from benchmarks.server import KEY, NAME, open_server

    with open_server(model, **COMMON) as server:
        openai: Any = ChatOpenAI(
            model=NAME,
            base_url=server.base_url,
            api_key=KEY,  # type: ignore[arg-type]  # pydantic makes a secret of it
            temperature=0.0,
            max_completion_tokens=tokens,
            extra_body={"ignore_eos": True},
        )
        remote = ChatVLLM(
            base_url=server.base_url, api_key=KEY, temperature=0.0, ignore_eos=True, max_tokens=tokens
        )
        with remote:
            say()
            take_turns({"openai": chats(openai), "remote": chats(remote)})
    say()


# -- measuring ----------------------------------------------------------------------------------------------


def say(**figures: Any) -> None:
    print(json.dumps(figures), flush=True)


def take_turns(works: dict[str, Callable[[int], Awaitable[int]]]) -> None:
    """Do what each line of the standard input asks for, ``NAME CALLS``, and say how fast it was.

    All on one event loop, to which clients over HTTP are bound. Processor time is that of this process.
    """

    async def turns() -> None:
        for line in sys.stdin:
            name, calls = line.split()
            started, busy = time.perf_counter(), time.process_time()
            made = await works[name](int(calls))
            busy, took = time.process_time() - busy, time.perf_counter() - started
            say(tokens_per_s=made / took, processor_us=busy / made * 1e6)

    asyncio.run(turns())


def chats(chat: Any) -> Callable[[int], Awaitable[int]]:
    async def work(count: int) -> int:
        answers = await asyncio.gather(*(chat.ainvoke(messages) for messages in conversations(count)))
        return sum(answer.usage_metadata["output_tokens"] for answer in answers)

    return work


def stream_costs(chat: Any, streams: int, tokens: int) -> dict[str, float]:
    """Processor time per token, of ``astream`` and of vLLM's ``AsyncLLM`` below it, in microseconds.

    Processor time of the whole process, because wall time on a shared machine says little, and because it
    counts what two threads do at once.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    engine = chat._session.engine()
    llm = engine._server._llm
    params = SamplingParams(
        temperature=0.0, max_tokens=tokens, ignore_eos=True, output_kind=RequestOutputKind.DELTA
    )

    async def below(number: int) -> None:
        prompt = {"prompt_token_ids": await engine.render({"messages": conversations(streams)[number]})}
        async for _ in llm.generate(prompt, params, f"below-{number}-{time.time()}"):
            pass

    async def above(number: int) -> None:
        async for _ in chat.astream(conversations(streams)[number], max_tokens=tokens):
            pass

    async def all_at_once(one: Callable[[int], Awaitable[None]]) -> None:
        await asyncio.gather(*(one(number) for number in range(streams)))

    def cost(run: Callable[[], object]) -> float:
        before = time.process_time()
        run()
        return (time.process_time() - before) / (streams * tokens) * 1e6

    costs = [
        (
            cost(lambda: asyncio.run(all_at_once(above))),
            cost(lambda: engine.loop.run(all_at_once(below))),
        )
        for _ in range(3)
    ]
    ours, bare = (statistics.median(column) for column in zip(*costs, strict=True))
    return {"ours_us": ours, "bare_us": bare, "overhead_us": statistics.median(a - b for a, b in costs)}


def resident() -> float:
    gc.collect()
    return psutil.Process().memory_info().rss / 2**20


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    role, arguments = sys.argv[1], json.loads(sys.argv[2])
    {"ours": ours, "plain": plain, "served": served}[role](**arguments)
