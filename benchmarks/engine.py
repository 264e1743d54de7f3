"""The in-process engine beside its peers in the same run, as ratios.

* Seconds from the start of the process to the first token, over those of ``vllm.LLM`` (at most 1.15).
* Tokens per second of 16 and of 64 concurrent ``ChatVLLM`` calls of 128 tokens, over the same work through
  ``vllm.LLM.chat`` (at least 0.9) and through ``ChatOpenAI`` on ``vllm serve`` (at least 1.0); and of
  ``ChatVLLM`` with an address over ``ChatOpenAI`` on the same server. And processor time per token of these
  calls, over that of ``vllm.LLM``, which what else runs on the machine changes less.
* Processor time per streamed token of ``ChatVLLM.astream`` beyond that of vLLM's ``AsyncLLM`` below it.
* Memory after ``close()`` and all of the above, over that before the model was loaded, with what vLLM imports
  for its worker (at most 1.1); and after three times of opening and closing, over that after the first: what
  grows there is lost.

Each way to use the model is a process of its own, with the same engine arguments and the same environment.
All are started first, one after the other, and then take turns with the same work, so that each turn of ours
is held against one of the peer that was just before or after it; the medians of the turns count.
``langchain_community.VLLM`` called concurrently is measured by ``text.py``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROLES = ("ours", "plain", "served")
NAMES = {"ours": ["ours"], "plain": ["plain"], "served": ["openai", "remote"]}
"""What each role can be asked to do."""

Rows = list[dict[str, Any]]


class Side:
    """One process of ``engine_roles.py``."""

    def __init__(self, role: str, arguments: argparse.Namespace) -> None:
        self.role = role
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # as long as the process
        options = {"model": arguments.model, "tokens": arguments.tokens, "born": time.time()}
        command = [sys.executable, str(Path(__file__).with_name("engine_roles.py")), role]
        self._process = subprocess.Popen(
            [*command, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.figures = self._next()

    def turn(self, name: str, calls: int) -> dict[str, float]:
        """Do the work of so many calls once."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name} {calls}\n")
        self._process.stdin.flush()
        return self._next()

    def end(self) -> dict[str, Any]:
        """End the turns; return all figures of this side."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self.figures |= self._next()
        self._process.wait()
        return self.figures

    def kill(self) -> None:
        """End it whatever it does."""
        if self._process.poll() is None:
            assert self._process.stdin is not None
            self._process.stdin.close()  # so it ends a server that it started
            try:
                self._process.wait(timeout=120)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def _next(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                figures: dict[str, Any] = json.loads(line)
                return figures
        self._errors.seek(0)
        raise SystemExit(f"{self.role} failed:\n{self._errors.read()[-3000:]}")


def measure(arguments: argparse.Namespace, *, backwards: bool) -> dict[str, Any]:
    """One round: start all sides, let them take turns, and end them."""
    sides: list[Side] = []
    try:
        for role in arguments.roles[:: -1 if backwards else 1]:
            sides.append(Side(role, arguments))
        turns = {str(calls): take_turns(sides, calls, arguments.turns) for calls in arguments.calls}
        return {"turns": turns, **{side.role: side.end() for side in sides}}
    finally:
        for side in sides:
            side.kill()


def take_turns(sides: list[Side], calls: int, count: int) -> dict[str, list[dict[str, float]]]:
    """All sides one after the other, forth and back; the first turn of each is not counted."""
    works = [(side, name) for side in sides for name in NAMES[side.role]]
    turns: dict[str, list[dict[str, float]]] = {name: [] for _, name in works}
    for number in range(count + 1):
        for side, name in works[:: -1 if number % 2 else 1]:
            figures = side.turn(name, calls)
            print(f"{calls} calls, turn {number}, {name}: {figures}", file=sys.stderr, flush=True)
            if number:
                turns[name].append(figures)
    return turns


def row(name: str, target: str, ours: list[float], peer: list[float]) -> dict[str, Any]:
    """One line of the table: medians, and the median of the ratios of each turn or round."""
    ratios = [one / other for one, other in zip(ours, peer, strict=True)]
    return {
        "figure": name,
        "ours": statistics.median(ours),
        "peer": statistics.median(peer),
        "ratio": statistics.median(ratios),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "target": target,
    }


def speed_rows(rounds: list[dict[str, Any]], calls: int, roles: list[str]) -> Rows:
    """Tokens per second, and processor time."""

    def of(name: str, figure: str) -> list[float]:
        return [turn[figure] for one in rounds for turn in one["turns"][str(calls)][name]]

    rows, speed = [], "tokens_per_s"
    if "plain" in roles:
        name = f"tokens/s, {calls} calls / vllm.LLM"
        rows.append(row(name, "at least 0.9", of("ours", speed), of("plain", speed)))
        name, busy = f"processor us/token, {calls} calls / vllm.LLM", "processor_us"
        rows.append(row(name, "", of("ours", busy), of("plain", busy)))
    if "served" in roles:
        name = f"tokens/s, {calls} calls / ChatOpenAI on vllm serve"
        rows.append(row(name, "at least 1.0", of("ours", speed), of("openai", speed)))
        name = f"tokens/s, {calls} calls over HTTP / ChatOpenAI there"
        rows.append(row(name, "", of("remote", speed), of("openai", speed)))
    return rows


def stream_rows(rounds: list[dict[str, Any]]) -> Rows:
    """Processor time of a streamed token."""
    rows = []
    for streams in rounds[0]["ours"]["stream"]:
        costs = [one["ours"]["stream"][streams] for one in rounds]
        over = statistics.median(cost["overhead_us"] for cost in costs)
        name = f"processor us/token, {streams} streams / AsyncLLM (+{over:.0f} us)"
        rows.append(row(name, "", [one["ours_us"] for one in costs], [one["bare_us"] for one in costs]))
    return rows


def table(rounds: list[dict[str, Any]], arguments: argparse.Namespace) -> Rows:
    """All lines that the measured roles allow."""
    rows = []
    if "plain" in arguments.roles:
        first = [[one[role]["first_token_s"] for one in rounds] for role in ("ours", "plain")]
        rows.append(row("seconds to the first token / vllm.LLM", "at most 1.15", *first))
    for calls in arguments.calls:
        rows += speed_rows(rounds, calls, arguments.roles)
    rows += stream_rows(rounds)
    memory = [one["ours"]["memory_mb"] for one in rounds]
    closed = [one["closed"][0] for one in memory]
    before, third = [one["imported"] for one in memory], [one["closed"][-1] for one in memory]
    rows.append(row("MB after the first close() / before loading", "at most 1.1", closed, before))
    rows.append(row("MB after the third close() / after the first", "at most 1.1", third, closed))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--calls", type=int, nargs="+", default=[16, 64], help="concurrent calls (16 64)")
    parser.add_argument("--tokens", type=int, default=128, help="tokens per call (default 128)")
    parser.add_argument("--turns", type=int, default=5, help="turns of each side per round (default 5)")
    parser.add_argument("--rounds", type=int, default=1, help="how often all are started anew (default 1)")
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
        rounds.append(measure(arguments, backwards=number % 2 == 1))
        print(f"round {number + 1}: {json.dumps(rounds[-1])}", file=sys.stderr, flush=True)
    rows = table(rounds, arguments)
    if arguments.json:
        print(json.dumps(rows))
        return
    for one in rows:
        target = f"target {one['target']}; " if one["target"] else ""
        print(
            f"{one['figure']:56} ours {one['ours']:8.1f}   peer {one['peer']:8.1f}   "
            f"ratio {one['ratio']:.2f} ({target}each {one['ratios']})"
        )


if __name__ == "__main__":
    main()
