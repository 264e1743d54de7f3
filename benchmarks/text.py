"""``VLLM`` beside ``langchain_community.VLLM``, its parent, called by several callers at once.

Each is a process of its own with the same engine arguments, and is called in three ways with the same
prompts: one ``batch``, a thread per call, and a task per call (``ainvoke``). For each way: which share of the
calls ended well, what the others said, whether the texts are those of one call after the other, and tokens
per second over those of our own calls. A way that does not end in time is ended with its process.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

ENGINE: dict[str, Any] = {
    "max_model_len": 2048,
    "enforce_eager": True,
    "block_size": 32,
    "kv_cache_memory_bytes": 1 << 30,
}
WAYS = ("batch", "threads", "tasks")


def build(role: str, model: str, tokens: int) -> Any:
    arguments: dict[str, Any] = {
        **{"model": model, "dtype": "float32", "temperature": 0.0, "ignore_eos": True},
        **{"max_new_tokens": tokens, "vllm_kwargs": ENGINE},
    }
    if role == "ours":
        from agent import VLLM

        return VLLM(**arguments)
    from agent.engines.local import ENVIRONMENT

    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from langchain_community.llms import VLLM as CommunityVLLM

    return CommunityVLLM(**arguments)


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except BaseException as error:
        return error


def work(llm: Any, way: str, prompts: list[str]) -> list[Any]:
    """Call in one way and return the texts, or the errors in their places."""
    if way == "batch":
        answers = outcome(lambda: llm.batch(prompts))
        return answers if isinstance(answers, list) else [answers] * len(prompts)
    if way == "threads":
        with ThreadPoolExecutor(len(prompts)) as pool:
            return list(pool.map(lambda prompt: outcome(lambda: llm.invoke(prompt)), prompts))

    async def tasks() -> list[Any]:
        return await asyncio.gather(*(llm.ainvoke(prompt) for prompt in prompts), return_exceptions=True)

    return asyncio.run(tasks())


def measure(role: str, way: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run in this process."""
    prompts = [f"This is the story of the number {number}." for number in range(arguments.calls)]
    llm = build(role, arguments.model, arguments.tokens)
    alone = [llm.invoke(prompt) for prompt in prompts[:4]]  # also warms both up
    started = time.perf_counter()
    answers = work(llm, way, prompts)
    seconds = time.perf_counter() - started
    good = [answer for answer in answers if isinstance(answer, str)]
    errors = collections.Counter(f"{type(e).__name__}: {e}"[:120] for e in answers if not isinstance(e, str))
    # The beginnings: batches of another size round differently, which may turn a late token.
    same = sum(isinstance(b, str) and b[:20] == a[:20] for a, b in zip(alone, answers, strict=False))
    return {
        "well": len(good) / len(answers),
        "same": same / len(alone),
        "tokens_per_s": len(good) * arguments.tokens / seconds,
        "errors": dict(errors.most_common(3)),
    }


def in_a_process(role: str, way: str, arguments: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--role", role, "--way", way, "--model", arguments.model]
    command += ["--calls", str(arguments.calls), "--tokens", str(arguments.tokens)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=arguments.timeout)
    except subprocess.TimeoutExpired:
        return _failed(f"did not end in {arguments.timeout:g} s")
    if done.returncode:
        return _failed(f"status {done.returncode}: {(done.stderr.strip().splitlines() or [''])[-1][:200]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _failed(why: str) -> dict[str, Any]:
    return {"well": 0.0, "same": 0.0, "tokens_per_s": 0.0, "errors": {why: 1}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--calls", type=int, default=16, help="calls at once (default 16)")
    parser.add_argument("--tokens", type=int, default=64, help="tokens per call (default 64)")
    parser.add_argument("--timeout", type=float, default=180, help="seconds per process (default 180)")
    parser.add_argument("--model", help="model directory (default: the embedded model)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--role", choices=["ours", "community"], help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        print(json.dumps(measure(arguments.role, arguments.way, arguments)), flush=True)
        os._exit(0)  # an engine that its callers have broken may never end by itself
    from agent.catalogue.embedded import embedded_model

    arguments.model = arguments.model or str(embedded_model())
    rows = {way: {role: in_a_process(role, way, arguments) for role in ("ours", "community")} for way in WAYS}
    if arguments.json:
        print(json.dumps(rows))
        return
    for way, row in rows.items():
        for role, figures in row.items():
            ratio = figures["tokens_per_s"] / (row["ours"]["tokens_per_s"] or 1)
            print(
                f"{way:8} {role:10} well {figures['well']:4.0%}   as alone {figures['same']:4.0%}   "
                f"speed {ratio:.2f} of ours   {figures['errors'] or ''}"
            )


if __name__ == "__main__":
    main()
