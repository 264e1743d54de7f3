"""Reading, writing, listing and searching text files below one directory."""

from __future__ import annotations

import os
from collections.abc import Iterator

from langchain_core.tools import BaseTool

from tools.builtin.root import Root, read_at
from tools.decorator import tool
from tools.errors import ToolError, ToolInputError
from tools.policy import ToolPolicy

_MAX_ENTRIES = 500
_MAX_MATCHES = 100
_MATCH_LINE = 200  # characters of a line that a search shows
_PROBE = 8192  # bytes in which a NUL says that a file is no text


def build_file_tools(root: str | os.PathLike[str], *, max_bytes: int = 1_000_000) -> list[BaseTool]:
    """Tools for the text files below ``root``, which no path can leave and in which no link is followed.

    Args:
        root: The directory; made when something is first written.
        max_bytes: The largest file that is read or written.
    """
    files = Root(root)

    @tool(policy=ToolPolicy(timeout=30, idempotent=True))
    def read_file(path: str, start_line: int = 1) -> str:
        """Read a text file.

        Args:
            path: Path of the file.
            start_line: Number of the first line to read.
        """
        lines = _decode(files.read(path, limit=max_bytes), path).splitlines(keepends=True)
        if start_line < 1 or start_line > max(len(lines), 1):
            raise ToolInputError(f"start_line={start_line}: {path!r} has {len(lines)} lines")
        return "".join(lines[start_line - 1 :]) or f"{path} is empty."

    @tool(policy=ToolPolicy(timeout=30, idempotent=True))
    def write_file(path: str, content: str) -> str:
        """Write a text file. An existing file is replaced.

        Args:
            path: Path of the file.
            content: The whole new text of the file.
        """
        try:
            data = content.encode()
        except UnicodeEncodeError as error:
            raise ToolInputError(f"the content cannot be written as UTF-8: {error.reason}") from None
        if len(data) > max_bytes:
            raise ToolInputError(f"the content has {len(data):,} bytes, {max_bytes:,} at most can be written")
        files.write(path, data)
        return f"Wrote {len(content):,} characters to {path}."

    @tool(policy=ToolPolicy(timeout=30, idempotent=True))
    def list_files(path: str = ".") -> str:
        """List the files in a directory and below it.

        Args:
            path: Path of the directory; leave it out for all files.
        """
        lines: list[str] = []
        for entry in files.walk(path):
            if len(lines) == _MAX_ENTRIES:
                lines.append(f"[Only the first {_MAX_ENTRIES} are shown; list a directory of its own.]")
                break
            size = f"{entry.size:,} bytes" if entry.size is not None else "link or special file"
            lines.append(f"{entry.path} ({size})")
        return "\n".join(lines) or "There are no files."

    @tool(policy=ToolPolicy(timeout=60, idempotent=True))
    def search_files(text: str, path: str = ".") -> str:
        """Search all files for a text, upper or lower case.

        Args:
            text: The text to look for.
            path: Path of the directory to search; leave it out for all files.
        """
        if not text.strip():
            raise ToolInputError("the text to look for is empty")
        lines: list[str] = []
        for line in _matches(files, path, text.casefold(), max_bytes):
            if len(lines) == _MAX_MATCHES:
                lines.append(f"[Only the first {_MAX_MATCHES} lines are shown; search for a longer text.]")
                break
            lines.append(line)
        return "\n".join(lines) or f"No file contains {text!r}."

    return [list_files, read_file, search_files, write_file]


def _decode(data: bytes, path: str) -> str:
    if b"\0" in data[:_PROBE]:
        raise ToolInputError(f"{path!r} is a binary file, not text")
    try:
        return data.decode("utf-8-sig")  # a byte-order mark is no part of the text
    except UnicodeDecodeError as error:
        raise ToolInputError(f"{path!r} is not UTF-8 text (byte {error.start:,})") from None


def _matches(files: Root, path: str, wanted: str, limit: int) -> Iterator[str]:
    """``path:line: text`` for every line with the wanted text; what is no text is passed over."""
    too_large = 0
    for entry in files.walk(path):
        if entry.size is None:
            continue
        if entry.size > limit:
            too_large += 1
            continue
        try:
            text = _decode(read_at(entry.directory, entry.name, entry.path, limit=limit), entry.path)
        except (ToolError, OSError):  # binary, not readable, or exchanged since it was listed
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if (found := line.casefold().find(wanted)) >= 0:
                begin = max(found - _MATCH_LINE // 2, 0)
                yield f"{entry.path}:{number}: {line[begin : begin + _MATCH_LINE].strip()}"
    if too_large:
        yield f"[Not searched: {too_large} files larger than {limit:,} bytes.]"
