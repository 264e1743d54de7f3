"""One directory that paths written by a model cannot leave.

Every path is walked from the root one name at a time, with directory descriptors and ``O_NOFOLLOW``. Checking
a path first and opening it afterwards would leave a moment in which a name can be exchanged for a link; here
there is none. Symbolic links are not followed at all, wherever they lead.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.arguments import closest
from tools.errors import ToolError, ToolInputError

MAX_DEPTH = 16  # directories inside each other
_MAX_PATH = 1000  # characters
_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # a FIFO would block
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)


@dataclass(frozen=True)
class Entry:
    """Something found on a walk that is no directory."""

    path: str
    """Its path from the root."""

    name: str
    """Its name in ``directory``."""

    directory: int
    """The open directory that it lies in; valid until the walk goes on."""

    size: int | None
    """Bytes of a regular file, ``None`` for a link or a special file."""


class Root:
    """A directory, and files below it by relative path."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = Path(directory).expanduser().absolute()

    @contextlib.contextmanager
    def directory(self, path: str, *, wanted: str | None = None, create: bool = False) -> Iterator[int]:
        """A descriptor of the directory at ``path`` (``"."`` for the root itself), closed at the end.

        Args:
            path: The directory.
            wanted: The path that was asked for, where it is another; errors name it.
            create: Make what does not exist yet.

        Raises:
            ToolInputError: The path leaves the root, or is no directory.
        """
        wanted = path if wanted is None else wanted
        with _worded(wanted):
            descriptor = self._descend(split(path), wanted, create=create)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def read(self, path: str, *, limit: int) -> bytes:
        """The content of a file.

        Raises:
            ToolInputError: The path leaves the root, names no regular file, or one larger than ``limit``.
        """
        *parents, name = _file_parts(path)
        parent = "/".join(parents) or "."
        with self.directory(parent, wanted=path) as directory, _worded(path, directory, name):
            return read_at(directory, name, path, limit=limit)

    def write(self, path: str, data: bytes) -> None:
        """Create or replace a file, with the directories that it lies in.

        Whoever reads it meanwhile sees the old content or the new, never a part; so does whoever comes
        after a crash.

        Raises:
            ToolInputError: The path leaves the root, or something that is no regular file has that name.
        """
        *parents, name = _file_parts(path)
        with _worded(path):
            self._directory.mkdir(parents=True, exist_ok=True)
        parent = "/".join(parents) or "."
        with self.directory(parent, wanted=path, create=True) as directory, _worded(path):
            mode = _mode_of(directory, name, path)
            # A name of its own, so that two writers at once do not write into each other's file.
            temporary = f".{secrets.token_hex(8)}.tmp"
            try:
                with os.fdopen(os.open(temporary, _CREATE, mode or 0o666, dir_fd=directory), "wb") as file:
                    if mode is not None:
                        os.fchmod(file.fileno(), mode)
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=directory)
                raise

    def walk(self, path: str) -> Iterator[Entry]:
        """Everything below a directory that is none itself, in the order of names.

        Raises:
            ToolInputError: The path leaves the root, or is no directory.
        """
        parts = split(path)
        if not parts and not self._directory.exists():  # made when something is first written
            return
        with self.directory(path) as directory:
            yield from _walk(directory, "".join(f"{part}/" for part in parts), MAX_DEPTH - len(parts))

    def _descend(self, parts: tuple[str, ...], path: str, *, create: bool) -> int:
        # The root itself may be a link: the user chose it. What lies in it may not.
        descriptor = os.open(self._directory, _DIRECTORY & ~getattr(os, "O_NOFOLLOW", 0))
        for part in parts:
            try:
                if create:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, dir_fd=descriptor)
                with _worded(path, descriptor, part):
                    below = os.open(part, _DIRECTORY, dir_fd=descriptor)
            finally:
                os.close(descriptor)
            descriptor = below
        return descriptor


def split(path: str) -> tuple[str, ...]:
    """The names in a relative path; empty for the root itself.

    Raises:
        ToolInputError: The path is absolute, has ``..`` in it, or cannot be a path at all.
    """
    # Python takes every blank but one for unprintable; names of files have others in them.
    usable = all(each.isprintable() or unicodedata.category(each) == "Zs" for each in path)
    if not usable or len(path) > _MAX_PATH:
        raise ToolInputError(f"not a usable path: {path[:100]!r}")
    if path.startswith(("/", "~")) or "\\" in path or path[1:3] == ":/":
        raise ToolInputError(f"the path {path!r} must be relative and use '/', for example notes/today.txt")
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if ".." in parts:
        raise ToolInputError(f"the path {path!r} leaves the files directory: '..' is not allowed")
    if len(parts) > MAX_DEPTH:
        raise ToolInputError(f"the path {path!r} is too deep: {MAX_DEPTH} levels at most")
    return parts


def read_at(directory: int, name: str, path: str, *, limit: int) -> bytes:
    """The content of the regular file ``name`` in an open directory; ``path`` is what errors call it.

    Raises:
        ToolInputError: It is no regular file, or larger than ``limit`` bytes.
        OSError: It cannot be opened or read; it is a link, among others.
    """
    descriptor = os.open(name, _READ, dir_fd=directory)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise ToolInputError(f"{path!r} is a {_kind(mode)}, not a file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(limit + 1)  # whatever size the file had a moment ago
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise ToolInputError(f"{path!r} is larger than {limit:,} bytes, which is the most that can be read")
    return data


def _walk(directory: int, prefix: str, depth: int) -> Iterator[Entry]:
    for name in sorted(os.listdir(directory)):
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                size = status.st_size if stat.S_ISREG(status.st_mode) else None
                yield Entry(prefix + name, name, directory, size)
                continue
            below = os.open(name, _DIRECTORY, dir_fd=directory)
        except OSError:  # gone since it was listed, or not ours to read
            continue
        try:
            if depth > 1:
                yield from _walk(below, f"{prefix}{name}/", depth - 1)
        finally:
            os.close(below)


def _file_parts(path: str) -> tuple[str, ...]:
    parts = split(path)
    if not parts or path.endswith("/"):
        raise ToolInputError(f"the path {path!r} names a directory, not a file")
    return parts


def _mode_of(directory: int, name: str, path: str) -> int | None:
    """The permissions of the file that is to be replaced, ``None`` if there is none."""
    try:
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        raise ToolInputError(f"{path!r} is a {_kind(mode)}, not a file: it cannot be replaced")
    return stat.S_IMODE(mode)


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "directory"
    if stat.S_ISLNK(mode):
        return "symbolic link"
    return "file" if stat.S_ISREG(mode) else "special file"


@contextlib.contextmanager
def _worded(path: str, directory: int | None = None, name: str = "") -> Iterator[None]:
    """Put the system's errors into words that do not tell where on this machine the root lies."""
    try:
        yield
    except FileNotFoundError:
        near = closest(name, os.listdir(directory)) if directory is not None else ""
        raise ToolInputError(f"there is no {path!r}.{near}") from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK) and directory is not None:
            kind = _kind(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
            reason = f"{name!r} is a {kind}, " + (
                "links are not followed" if "link" in kind else "no directory"
            )
            raise ToolInputError(f"{path!r} cannot be opened: {reason}") from None
        raise ToolError(f"{path!r}: {error.strerror}") from None
