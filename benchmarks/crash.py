"""kill -9 at random moments of a run: what is lost, what runs twice, what the conversation says in the end.

    python -m benchmarks.crash                   # 200 kills on SQLite, some minutes
    python -m benchmarks.crash --postgres        # the same on a PostgreSQL that is started for it
    python -m benchmarks.crash --kills 10 --json

A conversation calls tools in parallel: ones that act on the world once, slow ones, one that fails, and one
that waits for an approval. Its process is killed at a random moment and another one resumes it, until it has
come to its end. Then it is compared with one that nobody disturbed.

A call whose process died inside it has an outcome that nobody knows. Where the tool may be repeated, it is;
elsewhere the conversation says so in the place of the result, which is the one difference that is allowed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from langgraph.types import Command, interrupt

from agent import ChatVLLM
from agent.engines import Reply, ScriptedEngine
from agent.persistence import ConversationStore, open_checkpointer
from graphs import build_react_graph
from tools import ToolPolicy, tool

THREAD: Any = {"configurable": {"thread_id": "t"}}
REPEATABLE = {"look-1", "look-2", "fail-1"}
PATIENCE = 120.0
UNKNOWN = "is unknown"


def note(what: str) -> None:
    """Leave a trace that no crash takes back."""
    file = os.open("effects.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{what}\n".encode())
    os.close(file)


@tool
def pay(number: int) -> str:
    """Act on the world, once."""
    note(f"pay-{number}")
    time.sleep(0.03)
    return f"paid {number}"


@tool(policy=ToolPolicy(idempotent=True))
def look(number: int) -> str:
    """Take long, and be harmless to repeat."""
    note(f"look-{number}")
    time.sleep(0.2)
    return f"seen {number}"


@tool(policy=ToolPolicy(idempotent=True))
def fail(number: int) -> str:
    """Fail, every time in the same way."""
    note(f"fail-{number}")
    raise ValueError(f"no such thing as {number}")


@tool
def transfer(number: int) -> str:
    """Act on the world once somebody has approved it."""
    if interrupt(f"transfer {number}?") != "yes":
        return "refused"
    note(f"transfer-{number}")
    time.sleep(0.03)
    return f"transferred {number}"


STEPS = (
    ("pay-1", "look-1", "fail-1"),
    ("transfer-1", "pay-2"),
    ("pay-3", "look-2", "pay-4", "transfer-2"),
)
CALLS = [call for step in STEPS for call in step]


def reply(request: Any) -> Reply:
    """What the model says next: the calls of the next step, then the answer."""
    done = sum(message["role"] == "assistant" for message in request["messages"])
    if done == len(STEPS):
        return Reply("All done.")
    calls = [(call, *call.split("-")) for call in STEPS[done]]
    return Reply(
        tool_calls=[{"id": i, "name": name, "arguments": {"number": int(n)}} for i, name, n in calls]
    )


def live(database: str, begun: int) -> None:
    """One life of the agent: begin or resume the conversation and go on to its end."""
    logging.disable()  # tools that fail say so
    model = ChatVLLM(engine=ScriptedEngine([reply], repeat=True))
    with open_checkpointer(database) as saver:
        graph = build_react_graph(model=model, tools=[pay, look, fail, transfer], checkpointer=saver)
        os.write(begun, b"!")
        while True:
            state = graph.get_state(THREAD)
            # Not ``state.next``: it leaves out tasks that have a result which no step has applied yet.
            if not state.values.get("messages") and not state.tasks:
                given: Any = {"messages": [("user", "go")]}
            elif state.interrupts:
                given = Command(resume={each.id: "yes" for each in state.interrupts})
            elif state.tasks:
                given = None
            else:
                return
            graph.invoke(given, THREAD, durability="sync")


def transcript(database: str) -> list[tuple[str, str, str]]:
    """What was said: role, text, and which call is answered or made. Sound, or an error."""
    with open_checkpointer(database) as saver:
        store = ConversationStore(saver)
        wrong = [problem for problem in store.doctor() if problem.is_wrong]
        assert not wrong, wrong
        found = store.get("t")
    return [
        (
            message.type,
            str(message.text),
            getattr(message, "tool_call_id", "")
            or " ".join(c["id"] for c in getattr(message, "tool_calls", ())),
        )
        for message in found.messages
    ]


@dataclass
class Figures:
    """What came of it, over all conversations."""

    kills: int = 0
    """Processes that were killed in the run proper."""
    conversations: int = 0
    """Conversations that came to their end."""
    calls: int = 0
    """Tool calls in them."""
    repeated: int = 0
    """Runs of repeatable tools beyond the first, their process having died inside."""
    reported: int = 0
    """Calls whose outcome the conversation says to be unknown."""
    ran_twice: list[str] = field(default_factory=list)
    """Calls that ran again though they were finished, or may not be repeated. There must be none."""
    different: list[str] = field(default_factory=list)
    """Other differences to the undisturbed conversation. There must be none."""


class Conversation:
    """A conversation in a directory of its own, and the processes that have worked on it."""

    def __init__(self, directory: Path, database: str) -> None:
        self.directory = directory
        self.database = database
        self.finished: dict[str, int] = {}
        """Calls that the journal has had as finished, with how often they had run by then."""

    def start(self) -> tuple[int, float]:
        """Fork a process that works on it; its id, and when its run began."""
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            code = 1
            try:
                os.close(reading)
                os.chdir(self.directory)
                live(self.database, writing)
                code = 0
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            finally:
                os._exit(code)
        os.close(writing)
        os.read(reading, 1)
        os.close(reading)
        return process, time.monotonic()

    def wait(self, process: int, until: float) -> bool:
        """Whether the process came to its end by then."""
        while time.monotonic() < until:
            if os.waitpid(process, os.WNOHANG)[0]:
                return True
            time.sleep(0.001)
        return False

    def runs(self) -> Counter[str]:
        """How often each call has run."""
        file = self.directory / "effects.txt"
        return Counter(file.read_text().split()) if file.exists() else Counter()

    def look_at_journal(self) -> None:
        """Remember what is finished."""
        runs = self.runs()
        for call in self._journal():
            self.finished.setdefault(call, runs[call])

    def ran_twice(self) -> list[str]:
        """Calls that ran again and must not have."""
        runs = self.runs()
        again = [call for call, count in self.finished.items() if runs[call] != count]
        return again + [call for call in runs if call not in REPEATABLE and runs[call] > 1]

    def _journal(self) -> list[str]:
        # A call that waits for an approval is in the journal as paused, and starts again by right.
        query = "SELECT call_id, result FROM {}tool_calls WHERE status = 'finished'"
        if self.database.startswith("postgresql"):
            import psycopg

            with psycopg.connect(self.database) as connection:
                if connection.execute("SELECT to_regclass('vllm_agent.tool_calls')").fetchone() == (None,):
                    return []
                rows = connection.execute(query.format("vllm_agent.")).fetchall()
        else:
            with closing(sqlite3.connect(self.database)) as file:
                if not file.execute("SELECT 1 FROM sqlite_master WHERE name = 'tool_calls'").fetchone():
                    return []
                rows = file.execute(query.format("")).fetchall()
        return [key.rpartition(":")[0] for key, result in rows if b"paused" not in bytes(result)]


def undisturbed(conversation: Conversation) -> tuple[float, list[tuple[str, str, str]]]:
    """How long the run takes when nobody kills it, and what it says."""
    process, begin = conversation.start()
    assert conversation.wait(process, begin + PATIENCE), "it did not come to its end"
    seconds = time.monotonic() - begin
    assert conversation.runs() == Counter(CALLS)
    return seconds, transcript(conversation.database)


def disturb(
    conversation: Conversation,
    figures: Figures,
    *,
    seconds: float,
    kills: int,
    chance: random.Random,
    expected: list[tuple[str, str, str]],
) -> None:
    """Kill and resume one conversation until it is at its end, and compare it."""
    while True:
        process, begin = conversation.start()
        moment = chance.uniform(0, seconds) if figures.kills < kills else PATIENCE
        if conversation.wait(process, begin + moment):
            break
        assert figures.kills < kills, "it did not come to its end"
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        figures.kills += 1
        conversation.look_at_journal()
    conversation.look_at_journal()
    runs = conversation.runs()
    figures.conversations += 1
    figures.calls += len(CALLS)
    figures.ran_twice += conversation.ran_twice()
    figures.repeated += sum(max(0, runs[call] - 1) for call in REPEATABLE)
    compare(conversation, figures, expected)


def compare(conversation: Conversation, figures: Figures, expected: list[tuple[str, str, str]]) -> None:
    """Count what is different from the undisturbed conversation."""
    said = transcript(conversation.database)
    if len(said) != len(expected):
        figures.different.append(f"{len(said)} messages in the place of {len(expected)}: {said}")
        return
    for found, wanted in zip(said, expected, strict=True):
        call = found[2]
        if found == wanted:
            continue
        unknown = found[0] == "tool" and UNKNOWN in found[1] and call not in REPEATABLE
        if unknown and found[2] == wanted[2]:
            figures.reported += 1
        else:
            figures.different.append(f"{found} in the place of {wanted}")


def measure(*, kills: int, seed: int, new_database: Callable[[Path], str]) -> Figures:
    """Kill so many processes."""
    figures = Figures()
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        numbers = iter(range(10**6))

        def conversation() -> Conversation:
            directory = Path(name) / str(next(numbers))
            directory.mkdir()
            return Conversation(directory, new_database(directory))

        undisturbed(conversation())  # the first one imports what is imported late
        seconds, expected = undisturbed(conversation())
        while figures.kills < kills:
            disturb(conversation(), figures, seconds=seconds, kills=kills, chance=chance, expected=expected)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200, help="processes to kill (200)")
    parser.add_argument("--seed", type=int, default=1, help="of the random moments (1)")
    parser.add_argument("--postgres", action="store_true", help="on a PostgreSQL that is started for it")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with ExitStack() as stack:
        new_database: Callable[[Path], str] = lambda directory: str(directory / "c.sqlite")  # noqa: E731
        if options.postgres:
            from tests.postgres_server import serve

            server = stack.enter_context(serve())
            new_database = lambda _: server.new_database()  # noqa: E731
        figures = measure(kills=options.kills, seed=options.seed, new_database=new_database)
    if options.json:
        print(json.dumps(asdict(figures), indent=2))
    else:
        for name, value in asdict(figures).items():
            print(f"{name:14}{len(value) if isinstance(value, list) else value:>6}")
        for each in [*figures.ran_twice, *figures.different]:
            print(each)
    sys.exit(1 if figures.ran_twice or figures.different else 0)


if __name__ == "__main__":
    main()
