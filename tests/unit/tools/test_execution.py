"""Executing one tool call: an outcome, whatever the tool does."""

import asyncio
import contextlib
import contextvars
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from typing import Annotated, Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import (
    BaseTool,
    InjectedToolArg,
    InjectedToolCallId,
    StructuredTool,
    Tool,
    ToolException,
)
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Command
from pydantic import BaseModel, TypeAdapter, field_validator

from tools import (
    ToolApprovalError,
    ToolBusyError,
    ToolError,
    ToolExitError,
    ToolInputError,
    ToolOutcome,
    ToolPolicy,
    ToolTimeoutError,
    UnknownToolError,
    acall,
    call,
    tool,
    unknown_tool,
    whole_output,
    with_policy,
)

BRIEF = 0.5  # seconds: less may be over on a busy machine before the tool's body has begun


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that can be stopped has all the time it needs for that."""
    monkeypatch.setattr("tools.attempt._THREAD_GRACE", 60.0)


def request(of: BaseTool, id: str = "call-1", **arguments: Any) -> ToolCall:
    return ToolCall(name=of.name, args=arguments, id=id, type="tool_call")


def text_of(outcome: ToolOutcome) -> str:
    assert outcome.message is not None
    return str(outcome.message.content)


@tool
def add(a: int, b: int = 1) -> int:
    """Add."""
    return a + b


@tool
async def aadd(a: int, b: int = 1) -> int:
    """Add."""
    await asyncio.sleep(0)
    return a + b


class Custom(BaseTool):
    """A tool class of somebody else's, sync only."""

    name: str = "custom"
    description: str = "Add."

    def _run(self, a: int, b: int = 1) -> int:
        return a + b


class AsyncCustom(Custom):
    name: str = "acustom"

    async def _arun(self, a: int, b: int = 1) -> int:
        return a + b


@pytest.mark.parametrize("of", [add, aadd, Custom(), AsyncCustom()], ids=lambda of: of.name)
async def test_a_call_that_works(of):
    outcome = await acall(of, request(of, a=2))
    assert outcome.ok
    assert outcome.outputs == (outcome.message,)
    assert outcome.message == ToolMessage("3", tool_call_id="call-1", name=of.name)
    assert outcome.attempts == 1


async def test_a_tool_of_one_text():
    echo = Tool(name="echo", func=lambda text: text + "!", description="Echo.")
    assert text_of(await acall(echo, request(echo, __arg1="a"))) == "a!"


async def test_bad_arguments_are_answered_and_the_tool_is_not_run():
    outcome = await acall(add, request(add, b="x"))
    assert isinstance(outcome.error, ToolInputError)
    assert outcome.attempts == 0
    assert outcome.message is not None
    assert (outcome.message.status, outcome.message.tool_call_id) == ("error", "call-1")
    assert "a: missing" in text_of(outcome)


async def test_validators_that_only_the_tool_has_are_bad_arguments_too():
    class Even(BaseModel):
        number: int

        @field_validator("number")
        @classmethod
        def even(cls, number: int) -> int:
            if number % 2:
                raise ValueError("must be even")
            return number

    half = StructuredTool.from_function(
        lambda number: number // 2, name="half", description="Halve.", args_schema=Even
    )
    outcome = await acall(half, request(half, number=3))
    assert isinstance(outcome.error, ToolInputError)
    assert "must be even" in text_of(outcome)


async def test_a_validation_error_inside_the_tool_is_not_blamed_on_the_arguments():
    @tool
    def parse() -> int:
        """Parse."""
        return TypeAdapter(int).validate_python("x")

    outcome = await acall(parse, request(parse))
    assert not isinstance(outcome.error, ToolInputError)
    assert "parse failed: ValidationError" in text_of(outcome)


async def test_arguments_that_only_the_program_passes():
    @tool
    def pay(
        amount: int, account: Annotated[str, InjectedToolArg], id: Annotated[str, InjectedToolCallId]
    ) -> str:
        """Pay."""
        return f"{amount} from {account} for {id}"

    outcome = await acall(pay, request(pay, amount=5), injected={"account": "mine"})
    assert text_of(outcome) == "5 from mine for call-1"
    forged = await acall(pay, request(pay, amount=5, account="yours"), injected={"account": "mine"})
    assert isinstance(forged.error, ToolInputError)


async def test_a_tool_cannot_change_the_models_message():
    spoil = StructuredTool.from_function(
        lambda items: items.append(1) or "done",
        name="spoil",
        description="Spoil.",
        args_schema={"type": "object", "properties": {"items": {"type": "array"}}},
    )
    asked = request(spoil, items=[])
    await acall(spoil, asked)
    assert asked["args"] == {"items": []}


async def test_a_call_without_an_id_is_answered():
    outcome = await acall(add, {"name": "add", "args": {"a": 1}, "id": None})
    assert outcome.message is not None
    assert outcome.message.tool_call_id == ""


class StrangeError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text either")


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("error", "said", "kind"),
    [
        (
            ZeroDivisionError("division by zero"),
            "fail failed: ZeroDivisionError: division by zero",
            ZeroDivisionError,
        ),
        (KeyError("town"), "fail failed: KeyError: 'town'", KeyError),
        (ValueError(), "fail failed: ValueError", ValueError),
        (ToolException("no such town"), "fail failed: no such town", ToolException),
        (ToolError("There is no such town."), "There is no such town.", ToolError),
        (StopIteration("a"), "fail failed: ", Exception),
        (StrangeError(), "fail failed: StrangeError", StrangeError),
        (
            ExceptionGroup("g", [ExceptionGroup("g", [OSError("disk")])]),
            "fail failed: OSError: disk",
            OSError,
        ),
        (SystemExit(3), "fail failed: it tried to end the program (SystemExit(3)).", ToolExitError),
        (KeyboardInterrupt(), "fail failed: it tried to end the program", ToolExitError),
        (asyncio.CancelledError(), "fail failed: it cancelled itself.", ToolError),
        (BaseException("odd"), "fail failed: BaseException: odd", BaseException),
        (ValueError("half \ud83d"), "fail failed: ValueError: half ?", ValueError),
        (ValueError("x" * 100_000), "fail failed: ValueError: xxx", ValueError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
async def test_every_way_to_raise_becomes_a_message(is_async, error, said, kind):
    def fail() -> None:
        """Fail."""
        raise error

    async def afail() -> None:
        """Fail."""
        raise error

    failing = tool("fail", afail if is_async else fail)
    outcome = await acall(failing, request(failing))
    assert isinstance(outcome.error, kind)
    assert outcome.message is not None
    assert outcome.message.status == "error"
    assert text_of(outcome).startswith(said)
    assert len(text_of(outcome)) <= 2000
    assert "Traceback" not in text_of(outcome)


async def test_an_async_class_that_exits_does_not_end_the_event_loop():
    class Exiting(AsyncCustom):
        async def _arun(self, a: int, b: int = 1) -> int:
            sys.exit(1)

    outcome = await acall(Exiting(), request(Exiting(), a=1))
    assert isinstance(outcome.error, ToolExitError)


async def test_the_traceback_goes_to_the_log(caplog):
    @tool
    def fail() -> None:
        """Fail."""
        raise RuntimeError("deep inside")

    with caplog.at_level(logging.WARNING, logger="tools"):
        await acall(fail, request(fail))
    assert "deep inside" in caplog.text
    assert "Traceback" in caplog.text


async def test_a_tool_that_handles_its_errors_itself():
    def fail() -> None:
        """Fail."""
        raise ToolException("no")

    handled = StructuredTool.from_function(fail, handle_tool_error="Ask for something else.")
    outcome = await acall(handled, request(handled))
    assert not outcome.ok
    assert text_of(outcome) == "Ask for something else."


async def test_an_async_tool_past_its_time_is_stopped():
    stopped = asyncio.Event()

    @tool(policy=ToolPolicy(timeout=BRIEF))
    async def hang() -> None:
        """Hang."""
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()

    outcome = await acall(hang, request(hang))
    assert isinstance(outcome.error, ToolTimeoutError)
    assert f"within {BRIEF} s; it was stopped" in text_of(outcome)
    assert stopped.is_set()


async def test_what_an_async_tool_has_done_when_it_is_stopped_is_not_lost():
    runs = []

    @tool(policy=ToolPolicy(timeout=0.05, retries=1, retry_on=(ToolTimeoutError,), idempotent=True))
    async def save() -> str:
        """Save."""
        runs.append(1)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return "saved the first half"

    outcome = await acall(save, request(save))
    assert (text_of(outcome), outcome.ok, len(runs)) == ("saved the first half", True, 1)


async def test_an_async_tool_that_ignores_cancellation_is_given_up_on(monkeypatch):
    monkeypatch.setattr("tools.attempt._GRACE", 0.05)
    release = asyncio.Event()

    @tool(policy=ToolPolicy(timeout=BRIEF))
    async def stubborn() -> None:
        """Hang."""
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    outcome = await acall(stubborn, request(stubborn))
    assert "may still be running" in text_of(outcome)
    release.set()


async def test_a_thread_past_its_time_is_given_up_on_and_this_is_said():
    release = threading.Event()

    @tool(policy=ToolPolicy(timeout=BRIEF))
    def hang() -> None:
        """Hang."""
        release.wait(60)

    outcome = await acall(hang, request(hang))
    release.set()
    assert isinstance(outcome.error, ToolTimeoutError)
    assert "may still be running" in text_of(outcome)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("way", ["timeout", "cancel"])
async def test_a_thread_in_python_code_is_stopped_and_cleans_up(way):
    began, cleaned, steps = threading.Event(), threading.Event(), []

    @tool(policy=ToolPolicy(timeout=BRIEF if way == "timeout" else None))
    def spin() -> None:
        """Spin."""
        try:
            while True:
                steps.append(1)
                began.set()
                time.sleep(0.001)
        finally:
            cleaned.set()

    task = asyncio.create_task(acall(spin, request(spin)))
    if way == "timeout":
        outcome = await task
        assert isinstance(outcome.error, ToolTimeoutError)
        assert "it was stopped" in text_of(outcome)
    else:
        await asyncio.to_thread(began.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await asyncio.to_thread(cleaned.wait, 30)
    count = len(steps)
    await asyncio.sleep(0.1)
    assert len(steps) == count


async def test_a_thread_that_was_given_up_on_does_nothing_more_when_its_wait_ends():
    release, ended, effects = threading.Event(), threading.Event(), []

    @tool(policy=ToolPolicy(timeout=BRIEF))
    def late() -> None:
        """Pay, late."""
        try:
            release.wait(60)
            effects.append("paid")
        finally:
            ended.set()

    assert "may still be running" in text_of(await acall(late, request(late)))
    release.set()
    assert await asyncio.to_thread(ended.wait, 30)
    assert effects == []


@pytest.mark.usefixtures("patient")
async def test_what_is_done_in_the_last_moment_counts(monkeypatch):
    monkeypatch.setattr("tools.threads.StoppableThread.stop", lambda self: release.set())
    release = threading.Event()

    @tool(policy=ToolPolicy(timeout=BRIEF))
    def just() -> str:
        """Make it."""
        release.wait(60)
        return "paid"

    assert text_of(await acall(just, request(just))) == "paid"


async def test_stopping_many_threads_at_the_moment_they_end_loses_none():
    @tool(policy=ToolPolicy(timeout=0.02))
    def brief(seconds: float) -> str:
        """Take a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
        return "done"

    outcomes = [await acall(brief, request(brief, seconds=0.015 + 0.0005 * n)) for n in range(20)]
    assert {type(each.error) for each in outcomes} <= {type(None), ToolTimeoutError}
    assert all(each.message is not None for each in outcomes)


def test_a_hanging_thread_does_not_keep_the_process_alive():
    script = textwrap.dedent("""
        import time
        from tools import ToolPolicy, call, tool

        @tool(policy=ToolPolicy(timeout=0.1))
        def hang() -> None:
            "Hang."
            time.sleep(600)

        print(call(hang, {"name": "hang", "args": {}, "id": "1"}).message.status)
    """)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "error\n"), done.stderr


async def test_cancelling_the_caller_cancels_the_tool_and_is_no_tool_error():
    started, stopped = asyncio.Event(), asyncio.Event()

    @tool
    async def hang() -> None:
        """Hang."""
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()

    task = asyncio.create_task(acall(hang, request(hang)))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(stopped.wait(), 60)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("error", [Interrupted("ask"), SystemExit(2)])
async def test_what_the_graph_needs_passes_through(is_async, error):
    def ask() -> None:
        """Ask."""
        raise error

    async def aask() -> None:
        """Ask."""
        raise error

    asking = tool(
        "ask", aask if is_async else ask, policy=ToolPolicy(retries=3, retry_on=(Exception,), backoff=0)
    )
    with pytest.raises(type(error)) as caught:
        await acall(asking, request(asking), propagate=(Interrupted, SystemExit))
    assert caught.value is error


def test_what_passes_through_the_sync_entry_does_not_end_its_loop():
    @tool
    async def leave() -> None:
        """Leave."""
        raise SystemExit(2)

    with pytest.raises(SystemExit):
        call(leave, request(leave), propagate=(SystemExit,))
    assert call(add, request(add, a=1)).ok


variable = contextvars.ContextVar("variable", default="unset")


@tool
def read_variable() -> str:
    """Read."""
    return variable.get()


@tool
async def aread_variable() -> str:
    """Read."""
    return variable.get()


@pytest.mark.parametrize("of", [read_variable, aread_variable], ids=lambda of: of.name)
async def test_context_variables_reach_the_tool(of):
    variable.set("set by the caller")
    assert text_of(await acall(of, request(of))) == "set by the caller"
    assert text_of(call(of, request(of))) == "set by the caller"


async def test_sync_tools_do_not_block_the_loop():
    @tool
    def where() -> int:
        """Where."""
        return threading.get_ident()

    assert text_of(await acall(where, request(where))) != str(threading.get_ident())


async def test_config_and_callbacks_reach_the_tool_with_the_id_of_the_call():
    seen: list[Any] = []

    class Watch(AsyncCallbackHandler):
        async def on_tool_start(self, *args: Any, **kwargs: Any) -> None:
            seen.append(kwargs["tool_call_id"])

        async def on_tool_end(self, output: Any, **kwargs: Any) -> None:
            seen.append(output.content)

    @tool
    async def whose(config: RunnableConfig) -> str:
        """Whose."""
        return str(config["configurable"]["user"])

    config: RunnableConfig = {"callbacks": [Watch()], "configurable": {"user": "ann"}}
    assert text_of(await acall(whose, request(whose), config=config)) == "ann"
    assert seen == ["call-1", "ann"]


async def test_commands_pass_untouched():
    command = Command(update={"messages": [ToolMessage("x", tool_call_id="call-1")]}, goto="elsewhere")

    @tool
    def go() -> Any:
        """Go."""
        return command

    @tool
    def go_and_say() -> Any:
        """Go."""
        return [command, ToolMessage("said", tool_call_id="another")]

    outcome = await acall(go, request(go))
    assert outcome.outputs == (command,)
    assert outcome.outputs[0] is command
    assert outcome.message is None
    assert outcome.ok
    several = await acall(go_and_say, request(go_and_say))
    assert several.outputs[0] is command
    assert several.message is not None
    assert several.message.tool_call_id == "call-1"  # or the call would stay unanswered


async def test_content_blocks_pass_through():
    blocks = [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
    ]

    @tool
    def picture() -> Any:
        """Show."""
        return blocks

    outcome = await acall(picture, request(picture))
    assert outcome.message is not None
    assert outcome.message.content == blocks


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def recursive() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    "result",
    [object(), recursive(), float("nan"), b"\xff\x00", "\ud83d", 10**5000, {1: object()}],
    ids=lambda value: type(value).__name__,
)
async def test_what_cannot_be_serialised_is_text_that_a_checkpoint_holds(result):
    @tool(response_format="content_and_artifact")
    def odd() -> Any:
        """Odd."""
        return result, result

    outcome = await acall(odd, request(odd))
    assert outcome.ok
    serializer = JsonPlusSerializer(pickle_fallback=False)
    restored = serializer.loads_typed(serializer.dumps_typed(outcome.message))
    assert restored.content == text_of(outcome)


async def test_a_result_that_breaks_while_it_is_shown_is_an_error():
    @tool
    def broken() -> Any:
        """Break."""
        return Unprintable()

    outcome = await acall(broken, request(broken))
    assert "broken failed: RuntimeError: no" in text_of(outcome)


async def test_artifacts_are_kept():
    @tool(response_format="content_and_artifact")
    def pair() -> Any:
        """Give both."""
        return "short", {"rows": [1, 2]}

    outcome = await acall(pair, request(pair))
    assert outcome.message is not None
    assert outcome.message.artifact == {"rows": [1, 2]}
    assert whole_output(outcome.message) == "short"


async def test_a_tool_that_forgets_its_artifact_is_told():
    @tool(response_format="content_and_artifact")
    def single() -> Any:
        """Give one."""
        return "alone"

    assert "two-tuple" in text_of(await acall(single, request(single)))


@pytest.mark.parametrize("size", [1_001, 5_000_000])
async def test_long_results_are_cut_for_the_model_and_kept_whole(size):
    @tool(policy=ToolPolicy(max_output=1000), response_format="content_and_artifact")
    def long() -> Any:
        """Give much."""
        return "a" * size, "own"

    outcome = await acall(long, request(long))
    assert outcome.message is not None
    assert len(text_of(outcome)) <= 1000
    assert f"{size:,} characters" in text_of(outcome)
    assert whole_output(outcome.message) == "a" * size
    assert outcome.message.artifact["artifact"] == "own"


def flaky(failures: int, error: Exception, **policy: Any) -> tuple[BaseTool, list[float]]:
    """A tool that fails so many times, and the moments of its runs."""
    runs: list[float] = []

    @tool(policy=ToolPolicy(**policy))
    def sometimes() -> str:
        """Work sometimes."""
        runs.append(time.monotonic())
        if len(runs) <= failures:
            raise error
        return "worked"

    return sometimes, runs


async def test_named_errors_are_tried_again_after_a_growing_wait():
    sometimes, runs = flaky(2, ConnectionResetError(), retries=2, retry_on=(ConnectionError,), backoff=0.05)
    outcome = await acall(sometimes, request(sometimes))
    assert text_of(outcome) == "worked"
    assert outcome.attempts == 3
    assert runs[1] - runs[0] >= 0.05
    assert runs[2] - runs[1] >= 0.1


async def test_retries_end():
    sometimes, runs = flaky(9, ConnectionError("down"), retries=2, retry_on=(ConnectionError,), backoff=0)
    outcome = await acall(sometimes, request(sometimes))
    assert "ConnectionError: down" in text_of(outcome)
    assert (outcome.attempts, len(runs)) == (3, 3)


async def test_other_errors_are_not_tried_again():
    sometimes, runs = flaky(9, ValueError("wrong"), retries=2, retry_on=(ConnectionError,), backoff=0)
    await acall(sometimes, request(sometimes))
    assert len(runs) == 1


@pytest.mark.parametrize(("idempotent", "attempts"), [(True, 3), (False, 1)])
async def test_a_timeout_is_tried_again_only_where_that_does_no_harm(idempotent, attempts):
    policy = ToolPolicy(timeout=0.05, retries=2, retry_on=(TimeoutError,), backoff=0, idempotent=idempotent)

    @tool(policy=policy)
    async def hang() -> None:
        """Hang."""
        await asyncio.sleep(60)

    assert (await acall(hang, request(hang))).attempts == attempts


async def test_a_tool_that_needs_approval_is_not_run_without():
    ran: list[int] = []

    @tool(policy=ToolPolicy(approval=True))
    def pay(amount: int) -> str:
        """Pay."""
        ran.append(amount)
        return "paid"

    refused = await acall(pay, request(pay, amount=3))
    assert isinstance(refused.error, ToolApprovalError)
    assert not ran
    assert text_of(await acall(pay, request(pay, amount=3), approved=True)) == "paid"


async def test_a_policy_given_to_the_call_goes_before_the_tools_own():
    outcome = await acall(with_policy(add, ToolPolicy()), request(add, a=1), policy=ToolPolicy(approval=True))
    assert isinstance(outcome.error, ToolApprovalError)


@pytest.mark.parametrize("is_async", [False, True])
async def test_no_more_calls_run_at_once_than_allowed(is_async):
    running, most, lock, together = 0, 0, threading.Lock(), threading.Event()

    def enter(step: int) -> None:
        nonlocal running, most
        with lock:
            running += step
            most = max(most, running)
        if most > 1:
            together.set()

    def work() -> None:
        """Work."""
        enter(1)
        together.wait(30)
        time.sleep(0.02)
        enter(-1)

    async def awork() -> None:
        """Work."""
        enter(1)
        await asyncio.sleep(0.02)
        enter(-1)

    policy = ToolPolicy(concurrency=3)
    limited = tool(f"limited_{is_async}", awork if is_async else work, policy=policy)

    async def from_another_loop() -> list[ToolOutcome]:
        return await asyncio.gather(*(asyncio.to_thread(call, limited, request(limited)) for _ in range(5)))

    own = asyncio.gather(*(acall(limited, request(limited, id=str(number))) for number in range(10)))
    outcomes = [*await own, *await from_another_loop()]
    assert all(outcome.ok for outcome in outcomes)
    assert 2 <= most <= 3


async def test_a_slot_is_given_back_after_failure_and_cancellation():
    hanging = asyncio.Event()

    @tool(policy=ToolPolicy(concurrency=1, timeout=120))
    async def one_at_a_time(mode: str) -> str:
        """Work."""
        if mode == "fail":
            raise ValueError
        if mode == "hang":
            hanging.set()
            await asyncio.sleep(600)
        return "worked"

    await acall(one_at_a_time, request(one_at_a_time, mode="fail"))
    holding = asyncio.create_task(acall(one_at_a_time, request(one_at_a_time, mode="hang")))
    await hanging.wait()
    waiting = asyncio.create_task(acall(one_at_a_time, request(one_at_a_time, mode="work")))
    queued = asyncio.create_task(acall(one_at_a_time, request(one_at_a_time, mode="work")))
    await asyncio.sleep(0)
    waiting.cancel()
    holding.cancel()
    assert text_of(await asyncio.wait_for(queued, 60)) == "worked"


async def test_a_call_that_gets_no_slot_in_time_is_told_so():
    release = threading.Event()

    @tool(policy=ToolPolicy(concurrency=1, timeout=BRIEF))
    def stuck() -> None:
        """Hang."""
        release.wait(60)

    await acall(stuck, request(stuck))  # given up on, but its thread goes on
    outcome = await acall(stuck, request(stuck))
    assert isinstance(outcome.error, ToolBusyError)
    release.set()


async def test_fifty_calls_at_once_each_get_their_own_answer():
    outcomes = await asyncio.gather(*(acall(add, request(add, id=f"c{n}", a=n)) for n in range(50)))
    answers = {
        outcome.message.tool_call_id: outcome.message.content for outcome in outcomes if outcome.message
    }
    assert answers == {f"c{n}": str(n + 1) for n in range(50)}


async def test_a_tool_that_does_not_exist():
    outcome = unknown_tool(ToolCall(name="ad", args={}, id="9", type="tool_call"), ["sub", "add"])
    assert isinstance(outcome.error, UnknownToolError)
    assert outcome.attempts == 0
    assert text_of(outcome) == "There is no tool 'ad'. Did you mean add? Tools: add, sub."
    assert "no tools at all" in text_of(
        unknown_tool(ToolCall(name="ad", args={}, id="9", type="tool_call"), [])
    )


def test_the_sync_entry():
    assert text_of(call(add, request(add, a=1))) == "2"
    assert text_of(call(aadd, request(aadd, a=1))) == "2"


async def test_the_sync_entry_works_inside_a_running_loop_and_inside_a_sync_tool():
    @tool
    def outer() -> str:
        """Call another tool."""
        return text_of(call(aadd, request(aadd, a=1)))

    assert text_of(call(aadd, request(aadd, a=1))) == "2"
    assert text_of(call(outer, request(outer))) == "2"


def test_the_sync_entry_in_an_async_tool_is_refused_before_it_waits_for_itself():
    @tool
    async def outer() -> str:
        """Call another tool."""
        return text_of(call(add, request(add, a=1)))

    assert "acall" in text_of(call(outer, request(outer)))


def test_async_tools_keep_their_loop_between_sync_calls():
    @tool
    async def where() -> str:
        """Where."""
        return str(id(asyncio.get_running_loop()))

    assert text_of(call(where, request(where))) == text_of(call(where, request(where)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_sync_entry_after_a_fork():
    script = textwrap.dedent("""
        import os
        from tools import call, tool

        @tool
        async def one() -> int:
            "One."
            return 1

        request = {"name": "one", "args": {}, "id": "1"}
        call(one, request)
        child = os.fork()
        if child == 0:
            os._exit(0 if call(one, request).ok else 1)
        print(os.waitpid(child, 0)[1])
    """)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "0\n", done.stderr
