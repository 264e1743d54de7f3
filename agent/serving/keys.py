"""API keys of a server: where they come from, and how they stay out of the list of processes."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from agent.errors import ConfigurationError

FLAG = "--api-key"
_ARGUMENTS = slice(47, 49)
"""``arg_start`` and ``arg_end`` among the fields of ``/proc/PID/stat`` (proc(5))."""


def read_key_file(path: Path) -> tuple[str, ...]:
    """The keys in a file, one a line.

    Raises:
        ConfigurationError: It cannot be read, or holds none.
    """
    try:
        keys = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the file of API keys {path} cannot be read: {error}") from error
    if not keys:
        raise ConfigurationError(f"the file {path} holds no API key; write one a line")
    return keys


def readable_by_others(path: Path) -> bool:
    """Whether other users of this machine can read a file of keys."""
    return bool(path.stat().st_mode & 0o044)


def keys_in(arguments: Sequence[str]) -> list[str]:
    """The keys that stand in a command line."""
    found = [word.partition("=")[2] for word in arguments if word.startswith(f"{FLAG}=")]
    found += [after for word, after in pairwise(arguments) if word == FLAG]
    return [key for key in found if key]


def hide(keys: Iterable[str]) -> bool:
    """Overwrite keys in this process's command line, as others see it.

    What ``ps`` shows is the memory in which the kernel put the arguments of the program; Python works on a
    copy of it. Its place stands in ``/proc/self/stat``.

    Returns:
        Whether nothing is to be seen any more; False on systems other than Linux.
    """
    words = [key.encode() for key in keys if key]
    if not words:
        return True
    if sys.platform != "linux":
        return False
    try:
        # The name of the program stands in brackets, and may hold spaces.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = (int(each) for each in (["", "", *fields])[_ARGUMENTS])
        line = ctypes.string_at(start, end - start)
        for word in words:
            place = line.find(word)
            while place >= 0:
                ctypes.memset(start + place, ord("*"), len(word))
                place = line.find(word, place + len(word))
        seen = Path("/proc/self/cmdline").read_bytes()
    except (OSError, ValueError):
        return False
    return not any(word in seen for word in words)
