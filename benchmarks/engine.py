"""The in-process engine beside its peers in the same run, as ratios.

* Seconds from the start of the process to the first token, over those of ``vllm.LLM`` (at most 1.15).
* Tokens per second of 16 and of 64 concurrent ``ChatVLLM`` calls of 128 tokens, over the same work through
  ``vllm.LLM.chat`` (at least 0.9) and through ``ChatOpenAI`` on ``vllm serve`` (at least 1.0); and of
  ``ChatVLLM`` with an address over ``ChatOpenAI`` on the same server.
* Processor time per streamed token of ``ChatVLLM.astream`` beyond that of vLLM's ``AsyncLLM`` below it.
* Memory after ``close()``, over that before the engine was opened, vLLM being imported (at most 1.1); and
  after three times of opening and closing, over that after the first: what grows there is lost.

Each way to use the model has processes of its own, which take turns; all have the same engine arguments and
the same environment, and the medians of the rounds count. ``langchain_community.VLLM`` called concurrently is
measured by ``text.py``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROLES = ("ours", "plain", "served")


def measure(role: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one role in a process of its own."""
    options = {"model": arguments.model, "calls": arguments.calls, "tokens": arguments.tokens}
    command = [sys.executable, str(Path(__file__).with_name("engine_roles.py")), role]
    command.append(json.dumps({**options, "born": time.time()}))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{role} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def row(
    rounds: list[dict[str, Any]],
    name: str,
    target: str,
    ours: Callable[[dict[str, Any]], float],
    peer: Callable[[dict[str, Any]], float],
) -> dict[str, Any]:
    """One line of the table: medians, and the median of the rounds' ratios."""
    ratios = [ours(one) / peer(one) for one in rounds]
    return {
        "figure": name,
        "ours": statistics.median(ours(one) for one in rounds),
        "peer": statistics.median(peer(one) for one in rounds),
        "ratio": statistics.median(ratios),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "target": target,
    }


def speed(role: str, calls: int) -> Callable[[dict[str, Any]], float]:
    def of(one: dict[str, Any]) -> float:
        figures = one["served"][role] if role in ("openai", "remote") else one[role]
        value: float = figures["tokens_per_s"][str(calls)]
        return value

    return of


def table(rounds: list[dict[str, Any]], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All lines that the measured roles allow."""
    rows = []
    if "plain" in arguments.roles:
        rows.append(
            row(
                rounds,
                "seconds to the first token / vllm.LLM",
                "at most 1.15",
                lambda one: one["ours"]["first_token_s"],
                lambda one: one["plain"]["first_token_s"],
            )
        )
    for calls in arguments.calls:
        if "plain" in arguments.roles:
            name = f"tokens/s, {calls} calls / vllm.LLM"
            rows.append(row(rounds, name, "at least 0.9", speed("ours", calls), speed("plain", calls)))
        if "served" in arguments.roles:
            name = f"tokens/s, {calls} calls / ChatOpenAI on vllm serve"
            rows.append(row(rounds, name, "at least 1.0", speed("ours", calls), speed("openai", calls)))
            name = f"tokens/s, {calls} calls over HTTP / ChatOpenAI there"
            rows.append(row(rounds, name, "", speed("remote", calls), speed("openai", calls)))
    for streams in rounds[0]["ours"]["stream"]:
        costs = [one["ours"]["stream"][streams] for one in rounds]
        over = statistics.median(cost["overhead_us"] for cost in costs)
        rows.append(
            row(
                rounds,
                f"processor us/token, {streams} streams / AsyncLLM (+{over:.0f} us)",
                "",
                lambda one, streams=streams: one["ours"]["stream"][streams]["ours_us"],  # type: ignore[misc]
                lambda one, streams=streams: one["ours"]["stream"][streams]["bare_us"],  # type: ignore[misc]
            )
        )
    memory = [
        ("MB after the first close() / before opening", "before", 0),
        ("MB after the third close() / after the first", "closed", -1),
    ]
    for name, base, which in memory:
        rows.append(
            row(
                rounds,
                name,
                "at most 1.1",
                lambda one, which=which: one["ours"]["memory_mb"]["closed"][which],  # type: ignore[misc]
                lambda one, base=base: (  # type: ignore[misc]
                    one["ours"]["memory_mb"]["before"]
                    if base == "before"
                    else one["ours"]["memory_mb"]["closed"][0]
                ),
            )
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--calls", type=int, nargs="+", default=[16, 64], help="concurrent calls (16 64)")
    parser.add_argument("--tokens", type=int, default=128, help="tokens per call (default 128)")
    parser.add_argument("--rounds", type=int, default=3, help="how often all are measured (default 3)")
    parser.add_argument("--roles", nargs="+", choices=ROLES, default=list(ROLES), help="default: all")
    parser.add_argument("--model", help="model directory (default: the embedded model)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    if "ours" not in arguments.roles:
        parser.error("--roles must name ours, which the others are compared with")
    from agent.catalogue.embedded import embedded_model

    arguments.model = arguments.model or str(embedded_model())
    rounds: list[dict[str, Any]] = []
    for number in range(arguments.rounds):
        order = arguments.roles if number % 2 == 0 else arguments.roles[::-1]
        rounds.append({})
        for role in order:
            rounds[-1][role] = measure(role, arguments)
            print(f"round {number + 1}: {json.dumps({role: rounds[-1][role]})}", file=sys.stderr, flush=True)
    rows = table(rounds, arguments)
    if arguments.json:
        print(json.dumps(rows))
        return
    for one in rows:
        target = f"target {one['target']}; " if one["target"] else ""
        print(
            f"{one['figure']:56} ours {one['ours']:8.1f}   peer {one['peer']:8.1f}   "
            f"ratio {one['ratio']:.2f} ({target}rounds {one['ratios']})"
        )


if __name__ == "__main__":
    main()
