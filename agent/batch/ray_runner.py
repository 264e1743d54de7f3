"""The same batch on a Ray cluster: one worker per node, each with an engine or a server of its own.

A worker is an actor that holds an open agent and answers many tasks at once, as the runner of one process
does. What a lost worker was doing is given to another one: conversations are in PostgreSQL, so the other one
goes on where the first was, and its journal of tool calls keeps what has finished from running again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from agent.batch.answering import COMMON_TROUBLE, Outcome
from agent.batch.asyncio_runner import conversations
from agent.batch.jobs import Task
from agent.errors import AgentError, ConfigurationError
from agent.settings import Settings

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from agent.batch.answering import Answerer

INSTALL = 'pip install "vllm-agent[ray]"'

_START_SECONDS = 900.0
"""In which a worker has to be ready: a large model loads for minutes, and a lost node may come back."""
_KNOCK_SECONDS = 5.0
_PAUSE_SECONDS = 0.5
_LONGEST = 300
"""Characters of an error of Ray's that are shown."""
_LOSSES = 3
"""Workers that may be lost over one conversation before it is taken for the cause."""
_RESTARTS = 10
"""How often Ray starts a worker again."""


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Be a client of a Ray cluster.

    Args:
        address: As ``ray.init`` takes it: ``auto``, ``host:6379``, or ``ray://host:10001``.

    Raises:
        ConfigurationError: There is no such cluster, it has another version, or Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigurationError(f"--ray needs Ray: {INSTALL}") from error
    _knock(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_cluster(address, error) from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """See whether anybody is there: Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and port.isdecimal()):
        return  # "auto", or something that Ray will refuse
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_SECONDS).close()
    except OSError as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"there is no Ray cluster at {address!r} ({_first_line(error)}); start one with: ray start --head"
    )


@dataclass
class _Work:
    """What is left to do, and who is doing it."""

    waiting: deque[deque[Task]]
    unfinished: int
    """Conversations, those under way included."""

    done: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when none is left."""

    new: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a conversation has come back."""

    losses: Counter[int] = field(default_factory=Counter)
    """Workers lost over a conversation, by the line of its first task."""

    def conclude(self) -> None:
        """One conversation less."""
        self.unfinished -= 1
        if not self.unfinished:
            self.done.set()
            self.new.set()

    def give_back(self, tasks: deque[Task]) -> None:
        """A conversation is to be gone on with by another worker."""
        self.waiting.appendleft(tasks)
        self.new.set()


@dataclass
class _Loss:
    """Whether a worker is lost, as all of its slots see it."""

    reason: str = ""
    """Empty if it is not."""


class RayRunner:
    """Runs tasks on workers of the cluster that this process is connected to.

    Args:
        settings: Of the agent; its database must be PostgreSQL, which every node reaches.
        batch: Names the batch.
        workers: How many at most; ``None`` for one on each node.
        concurrency: Tasks at once, at most, over all workers.
        on_event: Told in a line when a worker is ready, or lost.

    Raises:
        ConfigurationError: The database is a file, which other nodes would not see.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        batch: str,
        workers: int | None = None,
        concurrency: int,
        on_event: Callable[[str], None] = lambda _: None,
    ) -> None:
        check_database(settings)
        self._settings = settings
        self._batch = batch
        self._count = min(workers or len(_nodes()), concurrency)
        self._per_worker = concurrency // self._count
        self._on_event = on_event

    async def run(self, tasks: Iterable[Task], *, finished: Callable[[Outcome], None]) -> None:
        """Run tasks; those of one conversation one after the other.

        Args:
            tasks: What to run.
            finished: Called with each outcome, in this thread.

        Raises:
            AgentError: Something is wrong that is no task's fault, or no worker is left.
        """
        waiting = deque(deque(each) for each in conversations(tasks))
        if not waiting:
            return
        work = _Work(waiting=waiting, unfinished=len(waiting))
        workers = [self._worker() for _ in range(min(self._count, len(waiting)))]
        served = [asyncio.create_task(self._serve(worker, work, finished)) for worker in workers]
        try:
            await self._until_done(work, served)
        finally:
            for each in served:
                each.cancel()
            await asyncio.gather(*served, return_exceptions=True)
            _end(workers)

    async def _until_done(self, work: _Work, served: list[asyncio.Task[None]]) -> None:
        done = asyncio.create_task(work.done.wait())
        pending: set[asyncio.Task[Any]] = set(served)
        try:
            while pending and not done.done():
                ended, _ = await asyncio.wait({*pending, done}, return_when=asyncio.FIRST_COMPLETED)
                pending -= ended
                for each in ended - {done}:
                    each.result()
        finally:
            done.cancel()
        if work.unfinished:
            raise AgentError(
                f"all workers are lost, and {work.unfinished} conversations are not finished; look at "
                "`ray status`, then run the same command again"
            )

    async def _serve(self, worker: ActorHandle, work: _Work, finished: Callable[[Outcome], None]) -> None:
        """Keep a worker busy for as long as it can be had."""
        import ray

        while not work.done.is_set():
            try:
                where = await asyncio.wait_for(_ready(worker), _START_SECONDS)
            except (ray.exceptions.RayActorError, TimeoutError) as error:
                self._on_event(f"a worker cannot be had any more: {_first_line(error)}")
                return
            self._on_event(f"worker ready on {where}")
            lost = _Loss()
            slots = [self._slot(worker, work, finished, lost) for _ in range(self._per_worker)]
            try:
                async with asyncio.TaskGroup() as group:
                    for slot in slots:
                        group.create_task(slot)
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None  # the others have it from the same cause
            if lost.reason:
                self._on_event(
                    f"the worker on {where} is lost ({lost.reason}); others go on with what it was doing"
                )

    async def _slot(
        self,
        worker: ActorHandle,
        work: _Work,
        finished: Callable[[Outcome], None],
        lost: _Loss,
    ) -> None:
        """Answer one conversation after the other, until there are none, or the worker is lost."""
        import ray

        while not (work.done.is_set() or lost.reason):
            if not work.waiting:
                work.new.clear()
                await work.new.wait()
                continue
            tasks = work.waiting.popleft()
            try:
                while tasks:
                    finished(await _answered(worker, tasks[0]))
                    tasks.popleft()
            except (ray.exceptions.RayActorError, ray.exceptions.NodeDiedError) as error:
                lost.reason = lost.reason or _first_line(error)
                work.new.set()  # the other slots of this worker look up, too
                self._lose(tasks, work, finished)
            else:
                work.conclude()

    def _lose(self, tasks: deque[Task], work: _Work, finished: Callable[[Outcome], None]) -> None:
        line = tasks[0].line
        work.losses[line] += 1
        if work.losses[line] < _LOSSES:
            work.give_back(tasks)
            return
        task = tasks.popleft()
        message = f"{_LOSSES} workers were lost while they answered this line; it is left out"
        error = {"type": "WorkerLost", "message": message}
        finished(Outcome(task=task, thread_id=task.thread_id(self._batch), error=error))
        if tasks:
            work.give_back(tasks)
        else:
            work.conclude()

    def _worker(self) -> ActorHandle:
        import ray

        needs = _needs(self._settings)
        made = ray.remote(_Worker).options(
            **needs,
            max_restarts=_RESTARTS,
            max_concurrency=self._per_worker + 1,  # one more, for the question whether it is ready
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": _passed_on()},
        )
        return made.remote(_plain(self._settings), self._batch)


class _Worker:
    """Runs on a node: an agent that is open for as long as the worker lives."""

    def __init__(self, settings: Mapping[str, Any], batch: str) -> None:
        # Nothing is opened yet: an error here would look like the loss of the worker.
        self._settings = settings
        self._batch = batch
        self._stack = contextlib.ExitStack()
        self._answer: Answerer | None = None
        self._opening = asyncio.Lock()

    async def ready(self) -> str:
        """Open the agent, start the engine, and say where."""
        import ray

        async with self._opening:  # asked again where the first question was lost on its way
            if self._answer is None:
                self._answer = await asyncio.to_thread(self._open)
        return str(ray.util.get_node_ip_address())

    def _open(self) -> Answerer:
        from agent.app import open_app
        from agent.batch.answering import Answerer

        with contextlib.ExitStack() as stack:
            app = stack.enter_context(open_app(Settings(**self._settings)))
            app.start()
            self._stack = stack.pop_all()
        return Answerer(app, batch=self._batch)

    async def answer(self, task: Task) -> Outcome:
        """Answer a task, or go on where another worker was lost."""
        assert self._answer is not None, "it is asked only when it is ready"
        return await self._answer(task)


async def _ready(worker: ActorHandle) -> str:
    """Wait until a worker is ready, also while Ray is starting it again."""
    import ray

    while True:
        try:
            return str(await _translated(worker.ready.remote()))
        except ray.exceptions.ActorUnavailableError:
            await asyncio.sleep(_PAUSE_SECONDS)


async def _answered(worker: ActorHandle, task: Task) -> Outcome:
    outcome = await _translated(worker.answer.remote(task))
    assert isinstance(outcome, Outcome)
    return outcome


async def _translated(reference: Any) -> Any:
    """What a worker answers; what it raises of ours is raised as itself, not in Ray's wrapping."""
    import ray

    try:
        return await reference
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, (*COMMON_TROUBLE, AgentError)):
            raise cause from None
        raise AgentError(f"a worker has failed: {_first_line(error)}") from error


def check_database(settings: Settings) -> None:
    """Refuse a database that only one node sees.

    Raises:
        ConfigurationError: It is no PostgreSQL.
    """
    if not str(settings.database or "").startswith("postgresql"):
        raise ConfigurationError(
            "--ray needs conversations in PostgreSQL, which every node reaches: "
            "--database postgresql://user@host/name, or the same in VLLM_AGENT_DATABASE"
        )


def _needs(settings: Settings) -> dict[str, Any]:
    """What a worker takes of a node.

    With a server, a core for its graphs. With an engine of its own, the cards that its tensors are split
    over; on nodes without cards, every core, since two engines on one CPU share its memory bandwidth.
    """
    if settings.base_url is not None:
        return {"num_cpus": 1}
    nodes = _nodes()
    if any(node["Resources"].get("GPU") for node in nodes):
        return {"num_gpus": int(settings.vllm.get("tensor_parallel_size", 1)), "num_cpus": 1}
    return {"num_cpus": max(1, int(min(node["Resources"].get("CPU", 1) for node in nodes)))}


def _nodes() -> list[dict[str, Any]]:
    """The nodes that can take workers."""
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    return [node for node in alive if node["Resources"].get("CPU")] or alive


def _plain(settings: Settings) -> dict[str, Any]:
    """Settings as they travel. The page of metrics stays away: two workers on a node have one port."""
    there = replace(settings, metrics_port=None)
    values = {each.name: getattr(there, each.name) for each in fields(there)}
    return values | {"vllm": dict(settings.vllm)}


def _passed_on() -> dict[str, str]:
    """The environment that a worker needs to find models and settings as this process does."""
    names = ("HF_HOME", "HF_HUB_OFFLINE", "HF_TOKEN", "PYTHONPATH", "VLLM_AGENT_CACHE")
    return {name: os.environ[name] for name in names if name in os.environ}


def _end(workers: Iterable[ActorHandle]) -> None:
    import ray

    for worker in workers:
        with contextlib.suppress(Exception):  # it may be gone, with its node or the whole cluster
            ray.kill(worker, no_restart=True)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:_LONGEST]
