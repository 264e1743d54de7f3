"""Speed and start-up of the in-process engine, as ratios to plain ``vllm.LLM`` in the same run.

Two figures:

* tokens per second of 16 concurrent ``ChatVLLM`` calls of 128 tokens each, over the same work through
  ``vllm.LLM.chat`` (target: at least 0.85);
* seconds from the start of the process to the first token, over those of ``vllm.LLM`` (target: at most 1.15).

Each measurement is a process of its own, ours and the peer's take turns, both have the same engine
arguments and the same environment, and the median of the pairs' ratios counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

ENGINE: dict[str, Any] = {"max_model_len": 2048, "enable_prefix_caching": True}
CPU_ENGINE: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "block_size": 32,
    "kv_cache_memory_bytes": 1 << 30,
}


def conversations(calls: int) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": f"Tell me a story about the number {i}."}] for i in range(calls)]


def ours(model: str | None, calls: int, tokens: int, born: float) -> dict[str, float]:
    from agent import ChatVLLM

    chat = ChatVLLM(
        model=model,
        dtype="float32",
        temperature=0.0,
        ignore_eos=True,
        max_tokens=tokens,
        max_model_len=ENGINE["max_model_len"],
        vllm_kwargs={
            k: v for k, v in {**ENGINE, **CPU_ENGINE}.items() if k not in ("max_model_len", "dtype")
        },
    )
    next(iter(chat.stream("Hello!", max_tokens=4)))
    first = time.time() - born

    async def work() -> int:
        answers = await asyncio.gather(*(chat.ainvoke(messages) for messages in conversations(calls)))
        return sum(answer.usage_metadata["output_tokens"] for answer in answers if answer.usage_metadata)

    asyncio.run(work())  # warm: both sides have run the work once before the clock starts
    started = time.perf_counter()
    made = asyncio.run(work())
    seconds = time.perf_counter() - started
    chat.close()
    return {"first_token_s": first, "tokens_per_s": made / seconds}


def plain(model: str, calls: int, tokens: int, born: float) -> dict[str, float]:
    from agent.engines.local import ENVIRONMENT

    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from vllm import LLM, SamplingParams

    llm = LLM(model=model, **ENGINE, **CPU_ENGINE)
    llm.chat([[{"role": "user", "content": "Hello!"}]], SamplingParams(max_tokens=1), use_tqdm=False)
    first = time.time() - born
    params = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
    llm.chat(conversations(calls), params, use_tqdm=False)
    started = time.perf_counter()
    outputs = llm.chat(conversations(calls), params, use_tqdm=False)
    seconds = time.perf_counter() - started
    made = sum(len(output.outputs[0].token_ids) for output in outputs)
    return {"first_token_s": first, "tokens_per_s": made / seconds}


def measure(role: str, model: str, arguments: argparse.Namespace) -> dict[str, float]:
    command = [
        *(sys.executable, __file__, "--role", role, "--model", model, "--born", repr(time.time())),
        *("--calls", str(arguments.calls), "--tokens", str(arguments.tokens)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{role} failed:\n{done.stderr[-3000:]}")
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--calls", type=int, default=16, help="concurrent calls (default 16)")
    parser.add_argument("--tokens", type=int, default=128, help="tokens per call (default 128)")
    parser.add_argument("--pairs", type=int, default=3, help="how often both are measured (default 3)")
    parser.add_argument("--model", help="model directory (default: the embedded model)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--role", choices=["ours", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--born", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        run = ours if arguments.role == "ours" else plain
        print(json.dumps(run(arguments.model, arguments.calls, arguments.tokens, arguments.born)))
        return
    from agent.catalogue.embedded import embedded_model

    model = arguments.model or str(embedded_model())
    pairs = []
    for number in range(arguments.pairs):
        order = ("ours", "plain") if number % 2 == 0 else ("plain", "ours")
        pairs.append({role: measure(role, model, arguments) for role in order})
        print(f"pair {number + 1}: {json.dumps(pairs[-1])}", file=sys.stderr)
    figures = {}
    for name in ("tokens_per_s", "first_token_s"):
        ratios = [pair["ours"][name] / pair["plain"][name] for pair in pairs]
        figures[name] = {
            "ours": statistics.median(pair["ours"][name] for pair in pairs),
            "plain": statistics.median(pair["plain"][name] for pair in pairs),
            "ratio": statistics.median(ratios),
            "ratios": [round(ratio, 3) for ratio in ratios],
        }
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, limit in (("tokens_per_s", "at least 0.85"), ("first_token_s", "at most 1.15")):
        row = figures[name]
        print(
            f"{name:14} ours {row['ours']:8.1f}   vllm.LLM {row['plain']:8.1f}   "
            f"ratio {row['ratio']:.2f} (target {limit}; pairs {row['ratios']})"
        )


if __name__ == "__main__":
    main()
