"""Python code in a sandbox: a child process that can do little but compute.

What is enforced where: see the table in :mod:`tools.launcher`. On Linux the code can open no file but those
of its own temporary directory and Python's own, makes no socket, starts no process and signals none; it runs
with a memory, processor and wall-clock limit, in an empty environment, and with ``-I``, so that nothing of
the user's is imported. Each call starts anew and leaves nothing behind.

What is not: a whole disk is not protected against many files within the time limit, and a fault in the kernel
is no limit. Where the system cannot limit files, network and processes, a person is asked before each call,
and no policy can take that back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from langchain_core.tools import BaseTool

from tools.builtin.options import several
from tools.builtin.shell import shown, unenforced
from tools.decorator import tool
from tools.errors import ToolRegistrationError
from tools.policy import ToolPolicy, asking_always
from tools.processes import Limits, run_process

_PARTS = ("files", "network", "processes")
_LIBRARIES = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/urandom", sys.prefix, sys.base_prefix)
_OPEN_FILES = 64

# Runs the code that stands on stdin, and shows the value of a last expression as an interactive Python does.
_RUNNER = """
import ast, linecache, sys
code = sys.stdin.buffer.read().decode()
linecache.cache["<code>"] = (len(code), None, code.splitlines(True), "<code>")
tree = ast.parse(code, "<code>")
last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
scope = {"__name__": "__main__"}
exec(compile(tree, "<code>", "exec"), scope)
if last is not None:
    value = eval(compile(ast.Expression(last.value), "<code>", "eval"), scope)
    if value is not None:
        print(repr(value))
"""


def build_python_tools(
    *,
    timeout: float = 30.0,
    cpu_seconds: int = 20,
    memory_mb: int = 1024,
    file_mb: int = 16,
    readable: Sequence[str] = (),
    max_output: int = 100_000,
) -> list[BaseTool]:
    """A tool that runs Python code.

    Args:
        timeout: Seconds that the code may take.
        cpu_seconds: Seconds of processor time that it may take.
        memory_mb: Megabytes of memory that it may ask for.
        file_mb: Megabytes of the largest file that it may write.
        readable: Files and directories of the user's that it may read.
        max_output: Bytes of output that are kept.

    Raises:
        ToolRegistrationError: This system has no way to limit a process.
    """
    if os.name != "posix":
        raise ToolRegistrationError("the Python tool needs a POSIX system, where processes can be limited")
    folders = tuple(os.fspath(Path(each).expanduser().absolute()) for each in several(readable))
    missing = unenforced(*_PARTS)

    @tool(
        "run_python",
        policy=ToolPolicy(timeout=timeout + 10, idempotent=True, approval=bool(missing)),
        description=f"Run Python code and return what it prints.{missing}",
    )
    async def run_python(code: str) -> str:
        """Run code.

        Args:
            code: Python 3 code. Print results; nothing is kept for the next call.
        """
        async with _folder() as folder:
            ended = await run_process(
                [sys.executable, "-I", "-B", "-X", "utf8", "-c", _RUNNER],
                limits=Limits(
                    memory=memory_mb << 20,
                    cpu=cpu_seconds,
                    file_size=file_mb << 20,
                    open_files=_OPEN_FILES,
                    network=False,
                    children=False,
                    readable=(*_LIBRARIES, *folders),
                    writable=(folder,),
                ),
                cwd=folder,
                env={"HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"},
                stdin=code.encode("utf-8", "replace"),
                seconds=timeout,
                max_output=max_output,
            )
        return shown(ended, timeout)

    return [asking_always(run_python) if missing else run_python]


@contextlib.asynccontextmanager
async def _folder() -> AsyncIterator[str]:
    """A temporary directory, made and removed on a thread: the loop of others must not wait for a disk."""
    made = await asyncio.to_thread(
        lambda: tempfile.TemporaryDirectory(prefix="python-tool-", ignore_cleanup_errors=True)
    )
    try:
        yield made.name
    finally:
        await asyncio.shield(asyncio.to_thread(made.cleanup))
