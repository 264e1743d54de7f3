"""What each process of ``engine.py`` does: run one way to use the model, and print its figures as JSON."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
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
PORT = 8765


def conversations(calls: int) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": f"Tell me a story about the number {i}."}] for i in range(calls)]


def ours(*, model: str, calls: list[int], tokens: int, born: float) -> dict[str, Any]:
    """``ChatVLLM`` in this process: start, speed, streams, memory."""
    from agent import ChatVLLM

    others = {name: value for name, value in COMMON.items() if name not in ("max_model_len", "dtype")}
    memory: dict[str, Any] = {"before": None, "closed": []}

    def loading(stage: str) -> None:
        if stage == "loading" and memory["before"] is None:  # what was imported stays
            memory["before"] = resident()

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
    first = time.time() - born
    figures: dict[str, Any] = {"first_token_s": first, "tokens_per_s": speeds(chats(chat), calls)}
    figures["stream"] = {str(streams): stream_costs(chat, streams, tokens // 2) for streams in STREAMS}
    memory["open"] = resident()
    for again in range(CYCLES):
        if again:
            chat = opened()
            asyncio.run(chats(chat)(16))
        chat.close()
        del chat
        memory["closed"].append(resident())
    return {**figures, "memory_mb": memory}


def plain(*, model: str, calls: list[int], tokens: int, born: float) -> dict[str, Any]:
    """``vllm.LLM``: start and speed."""
    from agent.engines.local import ENVIRONMENT

    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from vllm import LLM, SamplingParams

    llm = LLM(model=model, **COMMON)
    llm.chat(conversations(1), SamplingParams(max_tokens=1), use_tqdm=False)
    first = time.time() - born
    params = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)

    async def work(count: int) -> int:
        outputs = llm.chat(conversations(count), params, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    return {"first_token_s": first, "tokens_per_s": speeds(work, calls)}


def served(*, model: str, calls: list[int], tokens: int, born: float) -> dict[str, Any]:
    """``ChatOpenAI``, and ``ChatVLLM`` with an address, on one ``vllm serve``."""
    from langchain_openai import ChatOpenAI

    from agent import ChatVLLM

    del born
    with server(model) as address:
        openai: Any = ChatOpenAI(
            model="model",
            base_url=address,
            api_key="none",  # type: ignore[arg-type]  # pydantic makes a secret of it
            temperature=0.0,
            max_completion_tokens=tokens,
            extra_body={"ignore_eos": True},
        )
        remote = ChatVLLM(base_url=address, temperature=0.0, ignore_eos=True, max_tokens=tokens)
        with remote:
            return {
                "openai": {"tokens_per_s": speeds(chats(openai), calls)},
                "remote": {"tokens_per_s": speeds(chats(remote), calls)},
            }


# -- measuring ----------------------------------------------------------------------------------------------


async def timed(work: Callable[[int], Awaitable[int]], count: int) -> float:
    """Tokens per second; the work has been done once before the clock starts."""
    await work(count)
    started = time.perf_counter()
    made = await work(count)
    return made / (time.perf_counter() - started)


def speeds(work: Callable[[int], Awaitable[int]], calls: list[int]) -> dict[str, float]:
    """All on one event loop, to which clients over HTTP are bound."""

    async def all_counts() -> dict[str, float]:
        return {str(count): await timed(work, count) for count in calls}

    return asyncio.run(all_counts())


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


@contextmanager
def server(model: str) -> Iterator[str]:
    """A ``vllm serve`` with the common arguments, ended with all that it started."""
    flags = []
    for name, value in COMMON.items():
        flag = f"--{name.replace('_', '-')}"
        flags += [flag] if value is True else [flag, str(value)]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model, *flags]
    command += ["--served-model-name", "model", "--host", "127.0.0.1", "--port", str(PORT)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 400
        while not answers(f"http://127.0.0.1:{PORT}/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("vllm serve did not start")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{PORT}/v1"
    finally:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.terminate()
        _, left = psutil.wait_procs(family, timeout=30)
        for one in left:
            one.kill()
        process.wait()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    role, arguments = sys.argv[1], json.loads(sys.argv[2])
    print(json.dumps({"ours": ours, "plain": plain, "served": served}[role](**arguments)), flush=True)
