"""Many tasks at once on asyncio, in this process: the engine batches what they ask it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

from agent.batch.answering import Outcome
from agent.batch.jobs import Task


class Runner(Protocol):
    """Runs tasks somewhere."""

    async def run(self, tasks: Iterable[Task], *, finished: Callable[[Outcome], None]) -> None:
        """Run every task, and hand over each outcome as soon as there is one."""


class AsyncioRunner:
    """Runs tasks in the event loop that calls it.

    Args:
        answer: Answers one task.
        concurrency: Tasks at once, at most.
    """

    def __init__(self, answer: Callable[[Task], Awaitable[Outcome]], *, concurrency: int) -> None:
        self._answer = answer
        self._concurrency = concurrency

    async def run(self, tasks: Iterable[Task], *, finished: Callable[[Outcome], None]) -> None:
        """Run tasks in their order; those of one conversation one after the other.

        Args:
            tasks: What to run.
            finished: Called with each outcome, in this thread.

        Raises:
            AgentError: Something is wrong that is no task's fault; the tasks that were running are cancelled.
        """
        waiting = deque(conversations(tasks))

        async def work() -> None:
            while waiting:
                for task in waiting.popleft():
                    finished(await self._answer(task))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._concurrency, len(waiting))):
                    group.create_task(work())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None  # the others have it from the same cause


def conversations(tasks: Iterable[Task]) -> Sequence[Sequence[Task]]:
    """Tasks by the conversation that they share, in the order of their first."""
    found: dict[object, list[Task]] = {}
    for task in tasks:
        found.setdefault(task.thread or task.line, []).append(task)
    return list(found.values())
