"""A shell in one directory. It is not there unless it was allowed, and a person approves every command.

The approval is the protection; the rest limits what a mistake can cost. A command sees a small environment
without this process's secrets, and ends with all that it started. Where the system can enforce it
(:func:`tools.processes.enforceable`), it opens no files outside its directory but those of the system, and no
sockets unless ``network`` is set. The description of the tool says what is not enforced.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from langchain_core.tools import BaseTool

from tools.builtin.options import several
from tools.decorator import tool
from tools.errors import ToolError, ToolRegistrationError
from tools.policy import ToolPolicy, asking_always
from tools.processes import Limits, ProcessResult, enforceable, run_process

SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/etc",
    "/opt",
    "/proc",
    "/dev",
    sys.prefix,
    sys.base_prefix,
)
"""Where programs, their libraries and the system's settings are."""

_PASSED = ("PATH", "LANG", "LC_ALL", "TZ")


def build_shell_tools(
    directory: str | os.PathLike[str],
    *,
    environment: Sequence[str] = (),
    readable: Sequence[str] = (),
    network: bool = False,
    timeout: float = 60.0,
    memory_mb: int = 4096,
    max_output: int = 100_000,
) -> list[BaseTool]:
    """A tool that runs a command; no policy can take back that each call asks.

    Args:
        directory: Where commands run, and where they may read and write files.
        environment: Names of variables that commands see beside ``PATH``, the language and the time zone.
        readable: Further files and directories that may be read.
        network: Whether commands may use the network.
        timeout: Seconds that a command may take.
        memory_mb: Megabytes of memory that each of its processes may ask for.
        max_output: Bytes of output that are kept.

    Raises:
        ToolRegistrationError: There is no such directory, or no shell on this system.
    """
    seen = (*_PASSED, *several(environment))
    home = Path(directory).expanduser().absolute()
    if os.name != "posix":
        raise ToolRegistrationError("the shell needs a POSIX system")
    if not home.is_dir():
        raise ToolRegistrationError(f"the shell's directory {str(home)!r} does not exist")
    limits = Limits(
        memory=memory_mb << 20,
        network=network,
        readable=(*SYSTEM, *(os.fspath(Path(each).expanduser().absolute()) for each in several(readable))),
        writable=(os.fspath(home),),
    )

    @tool(
        "run_command",
        policy=ToolPolicy(timeout=timeout + 10, approval=True),
        description=f"Run a shell command.{unenforced('files', *(() if network else ('network',)))}",
    )
    async def run_command(command: str) -> str:
        """Run a command.

        Args:
            command: One line for /bin/sh; it starts in the working directory each time.
        """
        if "\0" in command:
            raise ToolError("a command cannot have a NUL character in it")
        passed = {name: os.environ[name] for name in seen if name in os.environ}
        ended = await run_process(
            ["/bin/sh", "-c", command],
            limits=limits,
            cwd=os.fspath(home),
            env={
                "PATH": os.defpath,
                **passed,
                "HOME": os.fspath(home),
                "TMPDIR": os.fspath(home),
                "TERM": "dumb",
            },
            seconds=timeout,
            max_output=max_output,
        )
        return shown(ended, timeout)

    return [asking_always(run_command)]


def unenforced(*parts: str) -> str:
    """A sentence about what of ``parts`` this system cannot limit; empty if there is nothing."""
    missing = sorted(set(parts) - enforceable())
    return f" This system cannot limit its access to: {', '.join(missing)}." if missing else ""


def shown(ended: ProcessResult, seconds: float) -> str:
    """How a command ended, for the model."""
    text = ended.output.decode("utf-8", "replace").rstrip()
    notes = []
    if ended.written > len(ended.output):
        notes.append(f"[Only the first {len(ended.output):,} of {ended.written:,} bytes are kept.]")
    if ended.status is None:
        notes.append(f"[It took longer than {seconds:g} s and was stopped.]")
    elif ended.status:
        notes.append(f"[It ended with status {ended.status}.]")
    return "\n".join([text, *notes] if text else notes) or "(It printed nothing.)"
