"""A server's life: started, waited for, stopped. What it says goes to a log that only its user can read."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import agent.errors
from agent.engines.failures import refused_by_hub
from agent.errors import AgentError, ConfigurationError, DoesNotFitError, EngineDeadError, EngineStartError
from agent.serving.command import server_command, server_environment
from agent.serving.flags import flags_file
from agent.serving.http import activity, healthy
from agent.serving.order import DEFAULT_PORT, ServerOrder, free_port
from agent.serving.output import Stage, StartReader, failure, plain
from agent.serving.records import ServerDirectory, ServerRecord, process_birth, this_machine

StageShown = Callable[[Stage], None]
"""Called with each stage of a start."""

GRACE = 30.0
"""Seconds that a server gets to end in good order."""

_LOOK = 0.1
_TAIL = 200_000
_SILENT_SECONDS = 60.0
_LOGS_KEPT = 7 * 86_400
_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}
"""Servers that this process started; they are asked how they ended."""


def start(order: ServerOrder, directory: ServerDirectory, *, cache: Path) -> ServerRecord:
    """Start a server and note it; it loads for a while after that (:func:`wait_until_ready`).

    Args:
        order: What is wanted; it has been checked.
        directory: Where it is noted.
        cache: The directory of this package's caches.

    Raises:
        ConfigurationError: The port is taken, or the directory cannot be used.
    """
    root = directory.open()
    directory.remove_old_logs(before=time.time() - _LOGS_KEPT)
    port = _port(order, directory) if order.http else 0
    identity = secrets.token_hex(4)
    record = ServerRecord(
        id=identity,
        model=order.model,
        arguments=dict(order.arguments),
        url=order.url(port),
        pid=0,
        created=0.0,
        machine=this_machine(),
        started=datetime.now(UTC).isoformat(timespec="milliseconds"),
        version=build(),
        warm=order.warm,
        idle_minutes=order.idle_minutes,
        one_process=order.one_process,
        http=order.http,
        keys=order.keys,
    )
    command = server_command(
        order,
        port=port,
        facts=root / directory.facts(record).name,
        flags=flags_file(cache),
        parent=os.getpid() if order.attached else None,
    )
    log = os.open(directory.log(identity), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(  # noqa: S603 - our own program
            command,
            env=server_environment(order, identity=identity),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C in the terminal is for us
        )
    finally:
        os.close(log)
    _CHILDREN[process.pid] = process
    record = replace(record, pid=process.pid, created=process_birth(process.pid) or 0.0)
    try:
        directory.write(record)
    except BaseException as error:
        process.kill()  # nobody would find it again
        process.wait()
        directory.remove(record)
        if isinstance(error, OSError):
            raise ConfigurationError(
                f"{root}, where servers are noted, cannot be written: {error}"
            ) from error
        raise
    return record


def _port(order: ServerOrder, directory: ServerDirectory) -> int:
    """A port that is free, and that no server of this user will take once it has loaded so far."""
    here = urlsplit(order.url(0)).hostname
    servers = [(each, urlsplit(each.url)) for each in directory.records()]
    coming = {url.port: each for each, url in servers if url.hostname == here}
    if order.port is not None and (other := coming.get(order.port)) is not None:
        msg = f"port {order.port} is that of your server {other.id}, which may still be loading"
        raise ConfigurationError(f"{msg}: give another --port, or stop it")
    usual = None if order.warm or DEFAULT_PORT in coming else DEFAULT_PORT
    return free_port(order.host, order.port, usual=usual)


def wait_until_ready(record: ServerRecord, directory: ServerDirectory, *, shown: StageShown) -> None:
    """Wait until a server answers; several processes may wait for the same one.

    Args:
        record: The server.
        directory: Where it is noted.
        shown: Told each stage of its start.

    Raises:
        DoesNotFitError: It ran out of memory; the message says what would fit.
        EngineStartError: It ended, and why; or it loaded and does not answer.
    """
    reader, lines = StartReader(), new_lines(directory.log(record.id))
    loaded: float | None = None
    begun = False
    while True:
        if not running(record):
            directory.bury(record)
            raise start_failure(record, directory)
        if not record.http or (activity(record.url, record.id) is not None and healthy(record.url)):
            return
        changed = [reader.feed(line) for line in next(lines)]
        if any(changed) or not begun:
            begun = True
            shown(reader.stage)
        if directory.facts(record).exists():  # it is loaded
            loaded = loaded or time.monotonic()
            if time.monotonic() - loaded > _SILENT_SECONDS:
                msg = (
                    f"the server {record.id} is loaded and does not answer at {record.url}: stop it with "
                    f"`vllm-agent serve stop {record.id}` and try again (its log: {directory.log(record.id)})"
                )
                raise EngineStartError(msg)
        time.sleep(_LOOK)


def running(record: ServerRecord) -> bool:
    """Whether the server's process lives."""
    child = _CHILDREN.get(record.pid)
    if child is not None and child.poll() is not None:
        return False
    return record.alive


def ended_well(record: ServerRecord) -> bool:
    """Whether a server that this process started has ended, in good order."""
    child = _CHILDREN.get(record.pid)
    return child is not None and child.poll() == 0


def stop(record: ServerRecord, directory: ServerDirectory, *, grace: float = GRACE) -> bool:
    """Stop a server, and everything that it started.

    Args:
        record: The server.
        directory: Where it is noted.
        grace: Seconds that it gets to end in good order.

    Returns:
        Whether it did so; else it was killed.
    """
    import psutil

    directory.remove(record)  # first: from now on nobody is to find it
    family: list[psutil.Process] = []
    if running(record):
        with suppress(psutil.Error):
            leader = psutil.Process(record.pid)
            family = [leader, *leader.children(recursive=True)]
            leader.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + grace
    while running(record) and time.monotonic() < deadline:
        time.sleep(_LOOK)
    graceful = not running(record)
    for process in family:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(family, timeout=10)
    directory.bury(record)
    running(record)  # a child of ours is asked for its end, so that nothing of it is left
    return graceful


def start_failure(record: ServerRecord, directory: ServerDirectory, *, ran: bool = False) -> AgentError:
    """Say why a server ended, as one of our errors.

    Args:
        record: The server.
        directory: Where it was noted.
        ran: Whether it had started.
    """
    from agent.catalogue.preflight import memory_advice

    log = directory.log(record.id)
    lines = _tail(log)
    found = failure(lines)
    child = _CHILDREN.get(record.pid)
    ended = child.poll() if child is not None else None  # it may have been seen dead before it was asked
    killed = ended == -signal.SIGKILL
    where = f"(its log: {log})"
    arguments = {"model": record.model, **record.arguments}
    trouble = "out of memory" if killed else "\n".join((found.message if found else "", *lines[-200:]))
    if advice := memory_advice(trouble, arguments, as_flags=not record.warm):
        told = found.message if found else "the system killed it"
        return DoesNotFitError(f"vLLM ran out of memory: {advice} ({told}) {where}")
    if found is None:
        last = next((text for line in reversed(lines) if (text := plain(line))), "")
        how = f"; its last words: {last}" if last else ""
        code = f" with exit code {ended}" if ended is not None else ""
        return EngineStartError(f"the server of {record.model!r} ended{code}{how} {where}")
    kind = getattr(agent.errors, found.kind, EngineStartError)
    if (refused := refused_by_hub(record.model, found.message)) is not None:
        return refused
    if not (isinstance(kind, type) and issubclass(kind, AgentError)) or kind is EngineStartError:
        if ran:
            return EngineDeadError(f"the server of {record.model!r} died: {found.message} {where}")
        return EngineStartError(f"vLLM could not start with model {record.model!r}: {found.message} {where}")
    return kind(found.message)


def build() -> str:
    """What wrote a server's facts; another version of it may have written others."""
    from agent.serving.flags import vllm_version

    return f"{agent.__version__} {vllm_version()}"


def _tail(log: Path) -> list[str]:
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        return file.read().decode("utf-8", errors="replace").replace("\r", "\n").splitlines()
    return []


def new_lines(log: Path) -> Iterator[list[str]]:
    """Give, whenever it is asked, the lines that a file has got since; a redrawn bar is many lines."""
    rest = ""
    with log.open("r", encoding="utf-8", errors="replace", newline="") as file:
        while True:
            *whole, rest = (rest + file.read()).replace("\r", "\n").split("\n")
            yield whole
