"""What a command pays on a server that is kept warm, beside a bare HTTP client on the same server.

    python -m benchmarks.warm [--rounds 12] [--words 200] [--tools]

The time to the first token of an answer, in pairs on the same server: ours is a whole turn of
``vllm-agent run`` (graph, database, protocol; every step durable) from the question on, the peer an ``httpx``
client that streams the same message. Both keep their connection. Every question is new to the server, so that
both pay for its prompt. With ``--tools`` ours may call tools, which the peer cannot: to decide whether to
call takes requests of its own.

Then whole commands, from the start of the process to the first byte of the answer: ``vllm-agent run`` on the
warm server, the same with ``--in-process``, and ``python`` with ``httpx``.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import random
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import httpx

from agent.cli.session import Session, open_session
from agent.cli.view import TerminalView
from agent.serving import life
from agent.serving.records import ServerDirectory, ServerRecord
from agent.settings import Settings

WORDS = [
    "river",
    "stone",
    "letter",
    "garden",
    "winter",
    "market",
    "engine",
    "music",
    "window",
    "paper",
    "silver",
    "harbour",
    "mountain",
    "bread",
]
BARE = """
import json, sys, httpx
url, key, model, question = sys.argv[1:]
body = {"model": model, "messages": [{"role": "user", "content": question}], "stream": True, "max_tokens": 4,
        "temperature": 0}
with httpx.Client(trust_env=False, timeout=600) as client, client.stream(
        "POST", url, json=body, headers={"Authorization": f"Bearer {key}"}) as answer:
    for line in answer.iter_lines():
        if line.startswith("data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
            print("first", flush=True)
            break
"""


class Watching(TerminalView):
    """Notes when the first piece of an answer comes."""

    def __init__(self) -> None:
        super().__init__(stream=False)
        self.first: float | None = None

    def wait(self, doing: str = "thinking") -> None:
        """Show nothing."""

    def token(self, text: str) -> None:
        """Note the time of the first one."""
        self.first = self.first or time.perf_counter()


def question(words: int) -> str:
    return f"Write about {' '.join(random.choices(WORDS, k=words))}, number {random.random()}."


def ours(session: Session, text: str) -> float:
    view = session.view = Watching()
    start = time.perf_counter()
    session.ask(str(uuid.uuid4()), text)
    assert view.first is not None, "it answered nothing"
    return view.first - start


def bare(client: httpx.Client, model: str, text: str) -> float:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 4}
    body |= {"stream": True, "temperature": 0}
    start = time.perf_counter()
    first = None
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        for line in answer.iter_lines():
            if not line.startswith("data: {") or first is not None:
                continue
            if any(each["delta"].get("content") for each in json.loads(line[6:])["choices"]):
                first = time.perf_counter()
    assert first is not None
    return first - start


def command(arguments: list[str], environment: dict[str, str]) -> float:
    """Seconds to the first byte on a terminal."""
    reading, writing = pty.openpty()
    start = time.perf_counter()
    process = subprocess.Popen(arguments, stdout=writing, stderr=subprocess.DEVNULL, env=environment)
    os.close(writing)
    os.read(reading, 1)
    seconds = time.perf_counter() - start
    try:
        while os.read(reading, 1024):
            pass
    except OSError:  # how a terminal says that nobody writes any more
        pass
    process.wait()
    os.close(reading)
    return seconds


def commands(
    record: ServerRecord, model: str, home: Path, *, rounds: int, words: int
) -> dict[str, list[float]]:
    environment = {**os.environ, "VLLM_AGENT_HOME": str(home), "VLLM_AGENT_WARM_MINUTES": "15"}
    run = [sys.executable, "-m", "agent", "run", "--no-tools", "--max-tokens", "4"]
    client = [sys.executable, "-c", BARE, f"{record.url}/v1/chat/completions", record.keys[0], model]
    times: dict[str, list[float]] = {"run": [], "bare client": [], "run --in-process": []}
    for _ in range(rounds):
        times["run"].append(command([*run, question(words)], environment))
        times["bare client"].append(command([*client, question(words)], environment))
    times["run --in-process"].append(command([*run, "--in-process", question(words)], environment))
    return times


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Both kinds of figures, on one server."""
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        directory = ServerDirectory(home / "servers")
        tools = None if arguments.tools else ()
        settings = Settings(home=home, tools=tools, max_tokens=4, warm_minutes=15)
        try:
            with open_session(settings, stream=False) as session:
                info = session.app.start()
                [record] = directory.records()
                headers = {"Authorization": f"Bearer {record.keys[0]}"}
                turns: dict[str, list[float]] = {"ours": [], "bare client": []}
                with httpx.Client(
                    base_url=record.url, headers=headers, trust_env=False, timeout=600
                ) as client:
                    for number in range(arguments.rounds + 2):  # the first two warm everything up
                        pair = {
                            "ours": lambda: ours(session, question(arguments.words)),
                            "bare client": lambda: bare(client, info.model, question(arguments.words)),
                        }
                        for who in random.sample(list(pair), 2):
                            seconds = pair[who]()
                            if number >= 2:
                                turns[who].append(seconds)
            whole = commands(record, info.model, home, rounds=arguments.commands, words=arguments.words)
        finally:
            for each in directory.records():
                life.stop(each, directory)
    ratios = [one / other for one, other in zip(turns["ours"], turns["bare client"], strict=True)]
    return {"turns": turns, "commands": whole, "ratio": statistics.median(ratios)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12, help="pairs of turns (default 12)")
    parser.add_argument("--commands", type=int, default=4, help="pairs of whole commands (default 4)")
    parser.add_argument("--words", type=int, default=200, help="words in a question (default 200)")
    parser.add_argument("--tools", action="store_true", help="let ours call tools")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    figures = measure(arguments)
    if arguments.json:
        print(json.dumps(figures))
        return
    for title, times in (("a turn", figures["turns"]), ("a whole command", figures["commands"])):
        for who, seconds in times.items():
            middle = statistics.median(seconds)
            print(f"{title:16} {who:17} first token after {middle * 1000:7.0f} ms (median of {len(seconds)})")
    turns = figures["turns"]
    medians = statistics.median(turns["ours"]) / statistics.median(turns["bare client"])
    print(
        f"first token after {figures['ratio']:.2f} of a bare client's time (pairs), {medians:.2f} (medians)"
    )


if __name__ == "__main__":
    main()
