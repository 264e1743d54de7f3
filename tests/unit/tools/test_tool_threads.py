"""Threads of sync tools: used again, stopped without harm to others, the same for sync and async callers."""

import asyncio
import subprocess
import sys
import threading
import time
from collections import deque

import pytest

from tools import ToolOutcome, ToolPolicy, ToolTimeoutError, acall, call, tool
from tools.errors import ToolExitError
from tools.private_loop import PRIVATE_LOOP, at_once
from tools.threads import _MOST_IDLE, StoppableThread, Stopped, _idle

BRIEF = 0.5  # seconds: less may be over on a busy machine before the tool's body has begun


def outcome_of(of, way, **arguments) -> ToolOutcome:
    asked = {"name": of.name, "args": arguments, "id": "1", "type": "tool_call"}
    return call(of, asked) if way == "sync" else asyncio.run(acall(of, asked))


@pytest.fixture(autouse=True, scope="module")
def warm():
    """LangChain imports a part of itself at the first call of a tool, which must not count for a timeout."""

    @tool
    def nothing() -> None:
        """Do nothing."""

    assert outcome_of(nothing, "sync").ok


both_ways = pytest.mark.parametrize("way", ["sync", "async"])


@both_ways
def test_a_stuck_tool_is_given_up_on(way):
    release = threading.Event()

    @tool(policy=ToolPolicy(timeout=BRIEF))
    def stuck() -> None:
        """Wait."""
        release.wait(60)

    outcome = outcome_of(stuck, way)
    release.set()
    assert isinstance(outcome.error, ToolTimeoutError)
    assert "may still be running" in str(outcome.error)


@both_ways
def test_a_tool_in_python_code_is_stopped(way, monkeypatch):
    monkeypatch.setattr("tools.attempt._THREAD_GRACE", 60.0)  # all the time it needs for that
    cleaned = threading.Event()

    @tool(policy=ToolPolicy(timeout=BRIEF))
    def spin() -> None:
        """Spin."""
        try:
            while True:
                time.sleep(0.001)
        finally:
            cleaned.set()

    outcome = outcome_of(spin, way)
    assert "it was stopped" in str(outcome.error)
    assert cleaned.wait(60)


@both_ways
def test_a_failing_tool_is_tried_again(way):
    tried = []

    @tool(policy=ToolPolicy(retries=2, retry_on=(OSError,), backoff=0.01))
    def shaky() -> str:
        """Fail twice."""
        tried.append(1)
        if len(tried) < 3:
            raise OSError("no")
        return "yes"

    outcome = outcome_of(shaky, way)
    assert outcome.ok
    assert outcome.attempts == 3


@both_ways
def test_the_end_of_the_program_stays_in_the_tool(way):
    @tool
    def leave() -> None:
        """Leave."""
        raise SystemExit(3)

    assert isinstance(outcome_of(leave, way).error, ToolExitError)


@both_ways
@pytest.mark.parametrize("policy", [ToolPolicy(), ToolPolicy(timeout=None), ToolPolicy(concurrency=1)])
def test_a_sync_tool_never_runs_on_the_thread_of_its_caller(way, policy):
    @tool(policy=policy)
    def where() -> int:
        """Say where."""
        return threading.get_ident()

    assert str(threading.get_ident()) != outcome_of(where, way).message.content


def test_a_sync_call_of_a_sync_tool_needs_no_event_loop(monkeypatch):
    @tool
    def add(a: int) -> int:
        """Add."""
        return a + 1

    monkeypatch.setattr(PRIVATE_LOOP, "run", lambda work: pytest.fail("went through the loop"))
    assert outcome_of(add, "sync", a=1).message.content == "2"


def test_an_interrupted_caller_stops_the_tool(monkeypatch):
    began, stopped = threading.Event(), threading.Event()

    @tool
    def spin() -> None:
        """Spin."""
        try:
            while True:
                began.set()
                time.sleep(0.001)
        finally:
            stopped.set()

    class Interrupted:
        def put(self, item):
            pass

        def get(self, timeout):
            began.wait(60)
            raise KeyboardInterrupt

    monkeypatch.setattr("tools.attempt.SimpleQueue", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        outcome_of(spin, "sync")
    assert stopped.wait(60)


def test_a_thread_is_used_again_and_few_wait_for_more():
    def one_after_the_other(seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            ended, at = threading.Event(), []
            StoppableThread(
                lambda at=at: at.append(threading.current_thread()), lambda _, e=ended: e.set(), name="x"
            )
            assert ended.wait(60)
            yield at[0]
            time.sleep(0.005)  # so that it is among those that wait, as a rule

    seen = set()
    for thread in one_after_the_other(60):
        if thread in seen:
            break
        seen.add(thread)
    else:
        pytest.fail("no thread was used again")
    gate, ended = threading.Event(), threading.Semaphore(0)
    for _ in range(3 * _MOST_IDLE):
        StoppableThread(lambda: gate.wait(60), lambda _: ended.release(), name="y")
    gate.set()
    assert all(ended.acquire(timeout=60) for _ in range(3 * _MOST_IDLE))
    time.sleep(0.2)
    assert len(_idle) <= _MOST_IDLE + 2  # counted without a lock


def test_what_is_stopped_before_it_begins_leaves_the_work_before_it_alone(monkeypatch):
    # Apart from the threads of other tests: this one is given work that it did not wait for.
    apart: deque = deque()
    monkeypatch.setattr("tools.threads._idle", apart)
    delivering, release, results = threading.Event(), threading.Event(), []

    def deliver_slowly(result):
        delivering.set()
        release.wait(60)
        results.append(result)

    first = StoppableThread(lambda: "first", deliver_slowly, name="first")
    assert delivering.wait(60)
    monkeypatch.setattr("tools.threads._worker", lambda: first._worker)
    ended = threading.Event()

    def deliver(result):
        results.append(result)
        ended.set()

    second = StoppableThread(lambda: "second", deliver, name="second")
    second.stop()
    release.set()
    assert ended.wait(60)
    assert results[0] == ("first", None)
    assert isinstance(results[1][1], Stopped)
    while len(apart) < 2:  # it is through with both
        time.sleep(0.001)


def test_a_body_that_waits_for_a_loop_is_refused_without_one():
    async def waits():
        await Never()

    class Never:
        def __await__(self):
            yield

    with pytest.raises(RuntimeError, match="without one"):
        at_once(waits())


FOLLOWED = """
import sys, time
from tools import ToolPolicy, call, tool

@tool
def double(a: int) -> int:
    '''Double it.

    Args:
        a: The number.
    '''
    return 2 * a

@tool
def hang() -> None:
    '''Wait in small steps.'''
    while True:
        time.sleep(0.01)

def asked(name, **arguments):
    return {"name": name, "args": arguments, "id": "1", "type": "tool_call"}

assert call(double, asked("double", a=2)).ok
assert not call(hang, asked("hang"), policy=ToolPolicy(timeout=0.1)).ok
seen = []
sys.setprofile(lambda frame, event, arg: seen.append(event))
double.invoke({"a": 3})
sys.setprofile(None)
print("came out of it", len(seen) > 10)
"""


def test_calls_can_be_followed_after_a_tool_has_run():
    # Under Python 3.11 an exception taken back from a thread leaves the interpreter looking for it at every
    # call: all of the process slower, and no debugger, profiler or coverage coming out of it.
    done = subprocess.run(
        [sys.executable, "-c", FOLLOWED], capture_output=True, text=True, timeout=180, check=False
    )
    assert done.stdout == "came out of it True\n", done.stderr


def test_a_result_that_is_there_when_the_thread_is_stopped_is_not_lost(monkeypatch):
    ended, results = threading.Event(), []

    def deliver(result):
        results.append(result)
        ended.set()

    stopping = threading.Event()
    monkeypatch.setattr("tools.threads._let_strike", lambda: (_ for _ in ()).throw(Stopped()))
    thread = StoppableThread(lambda: stopping.wait(60) and "done", deliver, name="late")
    stopping.set()
    assert ended.wait(60)
    assert results == [("done", None)]
    thread.stop()
