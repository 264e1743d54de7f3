"""Commands in child processes that end when they should: in time, with the call, and with this process.

Everything that a tool starts goes through :func:`run_process`. The command runs below a small launcher
(:mod:`tools.launcher`) that holds the limits and kills whatever the command has started, also when this
process is killed and can do nothing any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

_LAUNCHER = Path(__file__).with_name("launcher.py")
_LEAVING = 5.0  # seconds that the launcher gets to kill and collect its processes
_DRAIN = 0.5  # seconds for output that is still in the pipe when the command has ended
_CHUNK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a command may do and take; see :func:`enforceable` for what this system can enforce."""

    memory: int | None = None
    """Bytes of address space of each of its processes."""

    cpu: int | None = None
    """Seconds of processor time of each of its processes."""

    file_size: int | None = None
    """Bytes of the largest file that it may write."""

    open_files: int | None = None
    """Files that each of its processes may hold open."""

    network: bool = True
    """Whether it may make sockets."""

    children: bool = True
    """Whether it may start processes and send signals."""

    readable: tuple[str, ...] | None = None
    """Files and directories that it may read and execute; ``None`` for all that its user may."""

    writable: tuple[str, ...] | None = None
    """Files and directories that it may read and change; ``None`` for as many as ``readable`` leaves: all if
    that is ``None`` too, else none."""


@dataclass(frozen=True, kw_only=True)
class ProcessResult:
    """How a command ended."""

    status: int | None
    """Its exit status, 128 and the number of the signal that killed it, or ``None`` if its time was over."""

    output: bytes
    """The beginning of what it wrote."""

    written: int
    """How many bytes it wrote altogether."""


@functools.cache
def enforceable() -> frozenset[str]:
    """Which of ``files``, ``network`` and ``processes`` can be limited on this system."""
    import runpy

    found = runpy.run_path(os.fspath(_LAUNCHER), run_name="launcher")["enforceable"]()
    return frozenset(found)


async def run_process(
    command: Sequence[str],
    *,
    limits: Limits | None = None,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    seconds: float | None = None,
    max_output: int = 1_000_000,
    merge_errors: bool = True,
) -> ProcessResult:
    """Run a command and wait for its end; nothing that it started is left when this returns or raises.

    Args:
        command: The program and its arguments; no shell reads them.
        limits: What it may do and take; all that this process may if left out.
        cwd: Its working directory.
        env: All of its environment; ``None`` for this process's own.
        stdin: What it reads.
        seconds: Time after which it is killed.
        max_output: Bytes of its output that are kept; the rest is read and thrown away.
        merge_errors: Whether what it writes to stderr counts as output; else it goes to our stderr.

    Raises:
        asyncio.CancelledError: The caller was cancelled; the command is killed before this goes on.
        OSError: The interpreter of the launcher cannot be started.
    """
    lifeline, end = os.pipe()
    # A file, since a number is another's when it is closed twice: what was opened meanwhile would be lost.
    with os.fdopen(end, "wb", buffering=0) as hold:
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", os.fspath(_LAUNCHER)),
                *(str(lifeline), json.dumps(dataclasses.asdict(limits or Limits())), *command),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT if merge_errors else None,
                cwd=cwd,
                env=env,
                pass_fds=(lifeline,),
            )
        finally:
            os.close(lifeline)
        return await _attend(process, stdin, seconds, max_output, hold)


async def _attend(
    process: asyncio.subprocess.Process,
    stdin: bytes,
    seconds: float | None,
    max_output: int,
    hold: FileIO,
) -> ProcessResult:
    output = bytearray()
    reading = asyncio.create_task(_read(process, output, max_output))
    writing = asyncio.create_task(_write(process, stdin))
    status: int | None = None
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                status = await process.wait()
    finally:
        hold.close()  # the launcher kills what is left
        ending = asyncio.create_task(_end(process, reading, writing))
        await asyncio.shield(ending)
    return ProcessResult(status=status, output=bytes(output), written=ending.result())


async def _end(
    process: asyncio.subprocess.Process, reading: asyncio.Task[int], writing: asyncio.Task[None]
) -> int:
    writing.cancel()
    try:
        await asyncio.wait_for(process.wait(), _LEAVING)
    except TimeoutError:
        process.kill()
        await process.wait()
    # A process that left the session keeps the pipe open: it is not waited for.
    await asyncio.wait({reading}, timeout=_DRAIN)
    reading.cancel()
    await asyncio.wait({reading, writing})
    return reading.result() if not reading.cancelled() else 0


async def _read(process: asyncio.subprocess.Process, output: bytearray, limit: int) -> int:
    assert process.stdout is not None
    written = 0
    with contextlib.suppress(asyncio.CancelledError):  # what was counted so far is the result
        while chunk := await process.stdout.read(_CHUNK):
            written += len(chunk)
            output += chunk[: max(limit - len(output), 0)]
    return written


async def _write(process: asyncio.subprocess.Process, data: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it does not care to read
        process.stdin.write(data)
        await process.stdin.drain()
        process.stdin.close()
