"""Options of the built-in tools that are lists."""

from __future__ import annotations

import os
from collections.abc import Sequence


def several(given: str | Sequence[str]) -> list[str]:
    """A list as it is, and one name or path as a list of it.

    Taken letter by letter, the path ``/data`` would be one of all files, and the host ``*.org`` all hosts.
    """
    return [os.fspath(given)] if isinstance(given, str | os.PathLike) else list(given)
