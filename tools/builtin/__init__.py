"""The built-in tools, as a plugin like any other: the package metadata names this module."""

from __future__ import annotations

import os
from pathlib import Path

from langchain_core.tools import BaseTool

from tools.builtin.calculator import calculator
from tools.builtin.clock import current_time
from tools.builtin.files import build_file_tools

__all__ = ["build_file_tools", "build_tools", "calculator", "current_time"]


def build_tools(*, files_root: str | os.PathLike[str] | None = None) -> list[BaseTool]:
    """The calculator, the clock and the file tools.

    Args:
        files_root: The directory that the file tools work in. Left out: the environment variable
            ``VLLM_AGENT_FILES``, else the directory ``files`` in the user's data directory, which holds
            nothing but what tools wrote or the user put there. It is made when something is first written.
    """
    tools = [calculator, current_time]
    if hasattr(os, "O_NOFOLLOW"):  # without it the file tools could be led out of their directory by a link
        tools += build_file_tools(files_root or _default_root())
    return tools


def _default_root() -> Path:
    named = os.environ.get("VLLM_AGENT_FILES")
    if named:
        return Path(named)
    import platformdirs

    return platformdirs.user_data_path("vllm-agent") / "files"
