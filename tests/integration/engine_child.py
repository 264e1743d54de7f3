"""Runs an engine in a process of its own, which `test_local_engine.py` ends in every way there is.

What it finds out is printed as one line of JSON per finding.
"""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from agent import ChatVLLM
from agent.catalogue.embedded import embedded_model
from agent.engines import EngineConfig, LocalEngine

# vLLM imports Ray where that is installed, whose exit hook makes Python forget that Ctrl-C has ended it.
sys.modules["ray"] = None  # as where it is not installed

SMALL = {"max_model_len": 1024, "kv_cache_memory_bytes": 64 << 20, "max_num_seqs": 16}
LONG = {"max_tokens": 900, "ignore_eos": True}


def say(**findings: Any) -> None:
    print(json.dumps(findings), flush=True)


def build(on_stage: Callable[[str], None] | None = None) -> ChatVLLM:
    others = {name: value for name, value in SMALL.items() if name != "max_model_len"}
    return ChatVLLM(
        dtype="float32",  # what the weights take is told from it
        temperature=0.0,
        max_tokens=8,
        max_model_len=SMALL["max_model_len"],
        vllm_kwargs=others,
        on_stage=on_stage,
    )


def outcome(call: Callable[[], Any]) -> list[Any]:
    """Name and message of the error that a call ends with."""
    try:
        call()
    except BaseException as error:
        return [type(error).__name__, str(error)]
    return ["", ""]


def ending(how: str) -> None:
    """Start, answer, and end; the parent sends the signals."""
    workers: dict[str, bool] = {}  # whether what computes is imported when a stage begins
    model = build(lambda stage: workers.setdefault(stage, "vllm.v1.worker.cpu_worker" in sys.modules))
    say(answer=model.invoke("Hi").text, children=len(psutil.Process().children(recursive=True)))
    say(workers=workers)
    busy = threading.Event()

    def stream() -> None:
        for _ in model.bind(**LONG).stream("Tell me a story."):
            busy.set()

    if how == "end":  # with a request that is never finished, and without close()
        threading.Thread(target=lambda: outcome(stream), daemon=True).start()
        busy.wait()
    elif how == "raise":
        raise RuntimeError("on purpose")
    elif how == "exit":
        model.close()
        sys.exit(3)
    else:
        threading.Thread(target=lambda: (busy.wait(), say(ready=True))).start()
        while True:
            stream()


def start(model: str, **arguments: Any) -> list[Any]:
    """What comes of an engine with such arguments."""

    def attempt() -> None:
        engine = LocalEngine(EngineConfig.create(model, **arguments))
        try:
            engine.loop.run(engine.start())
        finally:
            engine.close()

    return outcome(attempt)


def failures(scratch: Path) -> None:
    """Starts that fail; a good one must still work after them."""
    good = embedded_model()
    no_weights, cut, no_json, strange = (scratch / n for n in ("no_weights", "cut", "no_json", "strange"))
    for copy in (no_weights, cut, no_json, strange):
        shutil.copytree(good, copy, ignore=shutil.ignore_patterns("*.safetensors", "manifest.json"))
    (cut / "model.safetensors").write_bytes((good / "model.safetensors").read_bytes()[:100_000])
    (no_json / "config.json").write_text("{")
    config = json.loads((good / "config.json").read_text())
    (strange / "config.json").write_text(json.dumps({**config, "architectures": ["NoSuchModel"]}))
    say(
        first_import=start(str(good), gpu_memory_utilisation=0.5),
        unknown_argument=start(str(good), gpu_memory_utilisation=0.5),
        no_directory=start("/no/such/model"),
        no_config=start(str(scratch)),
        unknown_id=start("nobody-at-all/no-such-model-exists"),
        no_weights=start(str(no_weights), **SMALL),
        cut=start(str(cut), **SMALL),
        no_json=start(str(no_json), **SMALL),
        strange=start(str(strange), **SMALL),
        too_long=start(str(good), **{**SMALL, "max_model_len": 1 << 20}),
        parallel=start(str(good), **SMALL, tensor_parallel_size=8),
    )


def core(model: ChatVLLM) -> Any:
    engine = model._session.engine()
    assert isinstance(engine, LocalEngine)
    assert engine._server is not None
    assert engine._server._llm is not None
    return engine._server._llm.engine_core


def busy_callers(model: ChatVLLM, end: Callable[[], None]) -> list[str]:
    """How four callers end, who wait in four ways when `end` is called."""
    long = model.bind(**LONG)

    async def later() -> None:
        await long.ainvoke("Tell me a story.")

    async def later_stream() -> None:
        async for _ in long.astream("Tell me a story."):
            pass

    calls: list[Callable[[], Any]] = [
        lambda: long.invoke("Tell me a story."),
        lambda: list(long.stream("Tell me a story.")),
        lambda: asyncio.run(later()),
        lambda: asyncio.run(later_stream()),
    ]
    scheduler = core(model).engine_core.scheduler
    with ThreadPoolExecutor(len(calls)) as pool:
        waiting = [pool.submit(outcome, call) for call in calls]
        while sum(scheduler.get_request_counts()) < len(calls):
            time.sleep(0.01)
        end()
        return [result.result()[0] for result in waiting]


def batching(model: ChatVLLM) -> None:
    scheduler = core(model).engine_core.scheduler
    most, done = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, scheduler.get_request_counts()[0])
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    bound = model.bind(max_tokens=48, ignore_eos=True)
    answers = bound.batch(
        [f"Tell me about the number {i}." for i in range(16)], config={"max_concurrency": 16}
    )
    done.set()
    watcher.join()
    say(most_running=most, answers=[answer.usage_metadata["output_tokens"] for answer in answers])


def life(scratch: Path) -> None:
    failures(scratch)
    gc.collect()
    memory = [psutil.Process().memory_info().rss]
    stages: list[str] = []
    model = build(stages.append)
    texts = [model.invoke("Hi").text]
    memory.append(psutil.Process().memory_info().rss)
    say(stages=stages, threads=sorted(thread.name for thread in threading.enumerate()))
    batching(model)

    def die() -> None:
        def step() -> Any:
            raise MemoryError("on purpose")

        core(model).engine_core.step_fn = step

    died = busy_callers(model, die)
    texts.append(model.invoke("Hi").text)
    closed = busy_callers(model, model.close)
    after = outcome(lambda: model.invoke("Hi"))
    gc.collect()
    memory.append(psutil.Process().memory_info().rss)
    names = sorted(thread.name for thread in threading.enumerate())
    say(died=died, closed=closed, after=after, texts=texts, memory=memory, threads_after=names)


if __name__ == "__main__":
    if sys.argv[1] == "life":
        life(Path(sys.argv[2]))
    else:
        ending(sys.argv[1])
