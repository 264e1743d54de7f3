"""``batch``: many questions from a file, many answers into another."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.app import App, check_settings, open_app
from agent.batch.jobs import BadLine, Task, read_tasks
from agent.cli.batch_view import BatchProgress
from agent.cli.console import note, print_json, printable, stages, warn
from agent.cli.debugging import show_requests
from agent.cli.options import JSON, SETTINGS, agent_options
from agent.cli.session import describe, prepare_model
from agent.errors import AgentError
from agent.settings import Settings
from tools.errors import ToolError

if TYPE_CHECKING:
    from agent.batch.answering import Outcome
    from agent.batch.asyncio_runner import Runner
    from agent.batch.output import Entry, Output
    from agent.cli.console import Stages

_SHOWN = 20
"""Lines whose errors are shown; all are in the output."""
_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What is to be done."""

    lines: int
    finished: int
    """Lines that earlier runs have dealt with."""

    tasks: Sequence[Task]
    bad: Sequence[BadLine]
    later: int
    """Lines that ``--limit`` leaves for another run."""


@click.command(epilog=SETTINGS)
@click.argument("tasks", metavar="TASKS.jsonl", type=click.Path(path_type=Path, allow_dash=True))
@click.argument("output", metavar="OUT.jsonl", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--concurrency",
    "-c",
    default=_AT_ONCE,
    show_default=True,
    type=click.IntRange(1),
    help="Lines at once at most; vLLM batches what they ask.",
)
@click.option(
    "--order",
    default="input",
    show_default=True,
    type=click.Choice(["input", "completed"]),
    help="Of the answers at the end. Until then they stand as they were completed.",
)
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="Run so many lines now; the next run goes on."
)
@click.option("--retry-failed", is_flag=True, help="Run lines again that have failed.")
@click.option(
    "--ray",
    "ray_address",
    metavar="ADDRESS",
    help="Run on a Ray cluster: auto, host:6379, ray://host:10001. Needs --database postgresql://…",
)
@click.option(
    "--ray-workers",
    type=click.IntRange(1),
    metavar="N",
    help="Workers on the cluster, each with an engine of its own unless there is --base-url. "
    "[default: one a node]",
)
@click.option("--dry-run", is_flag=True, help="Check every line and say what would run; no engine starts.")
@agent_options
@JSON
def batch(
    tasks: Path,
    output: Path,
    concurrency: int,
    order: str,
    limit: int | None,
    retry_failed: bool,
    ray_address: str | None,
    ray_workers: int | None,
    dry_run: bool,
    settings: Settings,
    as_json: bool,
) -> None:
    """Answer the questions of a file, many at once.

    TASKS.jsonl ("-" for stdin) has a JSON object a line:

    \b
      {"id": "a", "question": "What is 15 * 23?"}
      {"id": "b", "question": "What time is it?", "tools": ["current_time"]}

    "question" is needed; "id" is the line's number if it has none; "system", "graph", "tools" (a list) and
    "thread" (a conversation to go on with) stand in the place of the options below, for that line. OUT.jsonl
    gets an object for each: line, id, thread_id, answer, messages, usage (tokens), error. A line that is
    wrong or fails has its error there, and does not stop the others.

    The same command goes on where it was stopped, by Ctrl-C or by kill -9: each answer is on the disk when it
    is counted, lines that have one are not run again, and of one that was cut off no tool call that had ended
    is. Lines may be added to the input in between. Each line is a conversation ("vllm-agent threads show").

    Exit code 1 if lines have failed, now or before.

    \b
    Examples:
      vllm-agent batch tasks.jsonl out.jsonl --dry-run
      vllm-agent batch tasks.jsonl out.jsonl --limit 10
      vllm-agent batch tasks.jsonl out.jsonl --model Qwen/Qwen3-4B --concurrency 128
      vllm-agent batch tasks.jsonl out.jsonl --retry-failed --json
      vllm-agent batch tasks.jsonl out.jsonl --ray auto --database postgresql://user@host/name
    """
    if ray_workers is not None and ray_address is None:
        raise click.UsageError("--ray-workers needs --ray.")
    if ray_address is not None:
        from agent.batch.ray_runner import check_database

        check_database(settings)
    lines = _read(tasks, output)
    run = _Run(lines, str(tasks), output, limit=limit, retry_failed=retry_failed, in_order=order == "input")
    with stages("starting the engine") as shown, open_app(settings, on_stage=shown) as app:
        if dry_run:
            summary = run.rehearse(app)
        else:
            where = _Cluster(ray_address, ray_workers) if ray_address is not None else None
            summary = run.perform(app, shown, concurrency=concurrency, cluster=where)
    if as_json:
        print_json(summary)
    if summary["failed"]:
        raise click.exceptions.Exit(1)


@dataclass(frozen=True)
class _Cluster:
    """Where a batch runs that does not run here."""

    address: str
    workers: int | None


class _Run:
    """One run of the command."""

    def __init__(
        self,
        lines: Sequence[Task | BadLine],
        source: str,
        path: Path,
        *,
        limit: int | None,
        retry_failed: bool,
        in_order: bool,
    ) -> None:
        self._lines = lines
        self._source = source
        self._path = path
        self._limit = limit
        self._retry_failed = retry_failed
        self._in_order = in_order
        self._digests = {each.line: each.digest for each in lines}

    def rehearse(self, app: App) -> dict[str, Any]:
        """Say what would be done."""
        from agent.batch.output import read_output

        earlier = read_output(self._path, digests=self._digests, retry_failed=self._retry_failed).entries
        plan = self._plan(app, earlier)
        self._report(plan)
        failed = sum(entry.failed for entry in earlier) + len(plan.bad)
        note(f"would run {len(plan.tasks)} of {plan.lines} lines{_beside(plan)}")
        return _summary(plan, self._path, failed=failed, seconds=0.0) | {"to_run": len(plan.tasks)}

    def perform(
        self, app: App, shown: Stages, *, concurrency: int, cluster: _Cluster | None
    ) -> dict[str, Any]:
        """Do it."""
        from agent.batch.output import Output

        started = time.monotonic()
        with Output(self._path, digests=self._digests, retry_failed=self._retry_failed) as output:
            plan = self._plan(app, output.earlier)
            self._report(plan)
            for each in plan.bad:
                output.append(_bad_record(each))
            usage: dict[str, int] = {}
            if plan.tasks:
                if cluster is None:
                    _start(app, shown)
                else:
                    shown.stop()
                started = time.monotonic()
                usage = self._answer(app, output, plan, concurrency=concurrency, cluster=cluster)
            output.settle(in_order=self._in_order, complete=not plan.later)
            failed = output.failed
        seconds = time.monotonic() - started
        tokens = f", {usage['output_tokens']:,} tokens written" if usage else ""
        note(
            f"ran {len(plan.tasks)} of {plan.lines} lines in {seconds:.1f} s{tokens}{_beside(plan)}; "
            f"{failed} failed · {self._path}"
        )
        return _summary(plan, self._path, failed=failed, seconds=seconds) | {"usage": usage or None}

    def _answer(
        self, app: App, output: Output, plan: _Plan, *, concurrency: int, cluster: _Cluster | None
    ) -> dict[str, int]:
        import asyncio

        dealt_with = plan.finished + len(plan.bad)
        with ExitStack() as stack:
            runner = stack.enter_context(_runner(app, output, concurrency=concurrency, cluster=cluster))
            progress = stack.enter_context(BatchProgress(total=plan.lines - plan.later, done=dealt_with))
            write = _writer(output, progress, self._source)
            try:
                stack.enter_context(asyncio.Runner()).run(runner.run(plan.tasks, finished=write))
            except (KeyboardInterrupt, AgentError) as error:
                progress.stop()
                how = "interrupted" if isinstance(error, KeyboardInterrupt) else "stopped"
                left = f"{progress.done} of {plan.lines} lines are in {self._path}"
                note(f"{how}; {left}, and the same command goes on")
                raise
            return dict(progress.usage)

    def _plan(self, app: App, earlier: Sequence[Entry]) -> _Plan:
        known = {entry.line for entry in earlier}
        tasks: list[Task] = []
        bad: list[BadLine] = []
        check = _checker(app)
        for each in self._lines:
            if each.line in known:
                continue
            found: Task | BadLine = check(each)
            if isinstance(found, BadLine):
                bad.append(found)
            else:
                tasks.append(found)
        now = tasks if self._limit is None else tasks[: self._limit]
        return _Plan(
            lines=len(self._lines), finished=len(known), tasks=now, bad=bad, later=len(tasks) - len(now)
        )

    def _report(self, plan: _Plan) -> None:
        for each in plan.bad[:_SHOWN]:
            warn(printable(f"{self._source}:{each.line}: {each.problem}"))
        if len(plan.bad) > _SHOWN:
            warn(f"and {len(plan.bad) - _SHOWN} more lines that are wrong")


@contextmanager
def _runner(app: App, output: Output, *, concurrency: int, cluster: _Cluster | None) -> Iterator[Runner]:
    """What runs the tasks: this process, or a cluster."""
    if cluster is None:
        from agent.batch.answering import Answerer
        from agent.batch.asyncio_runner import AsyncioRunner

        yield AsyncioRunner(Answerer(app, batch=output.batch), concurrency=concurrency)
        return
    from agent.batch.ray_runner import RayRunner, connected

    with connected(cluster.address):
        yield RayRunner(
            app.settings,
            batch=output.batch,
            workers=cluster.workers,
            concurrency=concurrency,
            on_event=note,
        )


def _read(source: Path, output: Path) -> Sequence[Task | BadLine]:
    if str(source) != "-":
        if not os.path.isfile(source):
            raise click.BadParameter(f"there is no file {str(source)!r}.", param_hint="TASKS.jsonl")
        if os.path.exists(output) and source.samefile(output):
            raise click.UsageError("The tasks and the output are the same file.")
    try:
        with click.open_file(str(source), "rb") as file:
            lines = list(read_tasks(file))
    except OSError as error:
        msg = f"{str(source)!r} cannot be read: {error}"
        raise click.BadParameter(msg, param_hint="TASKS.jsonl") from error
    if not lines:
        raise click.BadParameter(f"{str(source)!r} has no lines.", param_hint="TASKS.jsonl")
    return lines


def _checker(app: App) -> Callable[[Task | BadLine], Task | BadLine]:
    """Make a bad line of one whose graph or tools there are not."""
    from agent.batch.answering import settings_of

    known: dict[tuple[Any, ...], str | None] = {}

    def check(each: Task | BadLine) -> Task | BadLine:
        if isinstance(each, BadLine):
            return each
        key = (each.graph, each.tools)
        if key not in known:
            try:
                check_settings(settings_of(each, app.settings), registry=app.registry)
                known[key] = None
            except (AgentError, ToolError) as error:
                known[key] = str(error)
        problem = known[key]
        if problem is None:
            return each
        return BadLine(line=each.line, digest=each.digest, id=each.id, problem=problem)

    return check


def _start(app: App, shown: Stages) -> None:
    prepare_model(app.settings, in_process=True)
    shown("preparing")
    info = app.start()
    show_requests()
    shown.stop()
    note(f"{describe(info, app)}, ready in {shown.seconds:.0f} s")


def _writer(output: Output, progress: BatchProgress, source: str) -> Callable[[Outcome], None]:
    failures = 0

    def write(outcome: Outcome) -> None:
        nonlocal failures
        output.append(_record(outcome))
        progress.advance(outcome.usage)
        if outcome.error is not None:
            failures += 1
            if failures <= _SHOWN:
                progress.say(f"{source}:{outcome.task.line}: {outcome.error['message']}")
            if failures == _SHOWN:
                progress.say("further errors are in the output")

    return write


def _record(outcome: Outcome) -> dict[str, Any]:
    from agent.cli.view import message_record

    return {
        "line": outcome.task.line,
        "id": outcome.task.id,
        "thread_id": outcome.thread_id,
        "answer": outcome.answer,
        "messages": [message_record(message) for message in outcome.messages],
        "usage": outcome.usage,
        "error": outcome.error,
        "input": outcome.task.digest,
    }


def _bad_record(bad: BadLine) -> dict[str, Any]:
    return {
        "line": bad.line,
        "id": bad.id,
        "thread_id": None,
        "answer": None,
        "messages": [],
        "usage": None,
        "error": {"type": "BadLine", "message": bad.problem},
        "input": bad.digest,
    }


def _beside(plan: _Plan) -> str:
    parts = [
        (plan.finished, "finished before"),
        (len(plan.bad), "wrong"),
        (plan.later, "left for later"),
    ]
    return "".join(f", {count} {what}" for count, what in parts if count)


def _summary(plan: _Plan, path: Path, *, failed: int, seconds: float) -> dict[str, Any]:
    return {
        "output": str(path),
        "lines": plan.lines,
        "finished_before": plan.finished,
        "ran": len(plan.tasks),
        "bad": len(plan.bad),
        "failed": failed,
        "left": plan.later,
        "seconds": round(seconds, 3),
    }
