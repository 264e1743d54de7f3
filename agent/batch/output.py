"""The file of answers: appended line by line, and gone on with after any crash.

Each record is on the disk before the next one is written, so that a killed process leaves whole lines and at
most the beginning of one, which is dropped. A record holds the number and the digest of the line it answers:
that is how a later run knows what is finished, and that the file belongs to its input. The name of the batch,
from which conversations get their ids, is in every record, and in a small file beside the output until there
are all of them, so that it is known before the first.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from agent.errors import AgentError, ConfigurationError

_BEGINNING = b'{"line": '
"""How every record begins; what does not is none of ours, and is not touched."""
_SUFFIX = ".batch"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One record of an output, without its answer."""

    line: int
    digest: str
    batch: str
    failed: bool
    start: int
    length: int
    """Where it stands in the file, in bytes, its line feed included."""


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """What earlier runs have left."""

    entries: Sequence[Entry] = ()
    batch: str | None = None
    """The name in the records, those that are left out included."""


def read_output(path: Path, *, digests: Mapping[int, str], retry_failed: bool = False) -> Earlier:
    """Read what earlier runs have left; nothing is changed.

    Args:
        path: The output; it need not exist.
        digests: Of the lines of the input, by number.
        retry_failed: Leave out what has failed.

    Raises:
        ConfigurationError: It is no output of a batch, or that of another input.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return Earlier()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    entries: list[Entry] = []
    batch, start = None, 0
    with file:
        for number, raw in enumerate(file, start=1):
            whole = raw.endswith(b"\n")
            if not whole and not _is_whole(raw):
                if not (raw.startswith(_BEGINNING) or _BEGINNING.startswith(raw)):
                    raise _foreign(path, number)
                break  # it was being written
            entry = _entry(path, number, raw, start=start)
            batch, start = entry.batch, start + entry.length
            if not (retry_failed and entry.failed):
                _check(path, entry, digests)
                entries.append(entry)
    return Earlier(entries=entries, batch=batch)


def _is_whole(raw: bytes) -> bool:
    try:
        return isinstance(json.loads(raw), dict)
    except (ValueError, RecursionError):
        return False


def _entry(path: Path, number: int, raw: bytes, *, start: int) -> Entry:
    try:
        record = json.loads(raw)
        return Entry(
            line=int(record["line"]),
            digest=str(record["input"]),
            batch=str(uuid.UUID(record["batch"])),
            failed=record["error"] is not None,
            start=start,
            length=len(raw),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _foreign(path, number) from error


def _foreign(path: Path, number: int) -> ConfigurationError:
    return ConfigurationError(
        f"{path} is no output of vllm-agent batch (its line {number} is no record of one), and is left as it "
        "is; name another file"
    )


def _check(path: Path, entry: Entry, digests: Mapping[int, str]) -> None:
    if digests.get(entry.line) == entry.digest:
        return
    hint = "; --retry-failed drops records of lines that have failed" if entry.failed else ""
    raise ConfigurationError(
        f"{path} was made for another input: it answers a line {entry.line} that is another one here "
        f"(lines may only be added at the end{hint}). Name another output"
    )


class Output:
    """An output that is being written; one process at a time holds it.

    Args:
        path: The file; made if there is none.
        digests: Of the lines of the input, by number.
        retry_failed: Drop the records of lines that have failed.

    Raises:
        ConfigurationError: It cannot be written, is being written by another process, is no output of a
            batch, or that of another input.
    """

    def __init__(self, path: Path, *, digests: Mapping[int, str], retry_failed: bool = False) -> None:
        self.path = path
        self._beside = path.with_name(f"{path.name}{_SUFFIX}")
        existed = os.path.exists(path)
        self._file = _locked(path)
        try:
            found = read_output(path, digests=digests, retry_failed=retry_failed)
            self.earlier = found.entries
            """The records that were there and are kept."""
            self.batch = self._name(found, existed=existed)
            """Names the batch, for the ids of its conversations."""
            self._entries = list(found.entries)
            self._write_again()
        except BaseException as error:
            self._file.close()
            if isinstance(error, OSError):
                raise ConfigurationError(f"{path} cannot be written: {error}") from error
            raise

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # each record was on the disk, or `append` has said so
            self._file.close()

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a record, and return when it is on the disk.

        Args:
            record: With ``line``, ``input`` (the line's digest) and ``error``, and what else there is.
        """
        ordered = {"line": record["line"], **record, "batch": self.batch}
        raw = f"{json.dumps(ordered, ensure_ascii=False, default=str)}\n".encode(errors="backslashreplace")
        try:
            start = self._file.seek(0, os.SEEK_END)
            self._file.write(raw)
            _sync(self._file)
        except OSError as error:
            raise self._failure(error) from error
        entry = Entry(
            line=record["line"],
            digest=record["input"],
            batch=self.batch,
            failed=record["error"] is not None,
            start=start,
            length=len(raw),
        )
        self._entries.append(entry)

    @property
    def failed(self) -> int:
        """How many of the records say that a line failed."""
        return sum(entry.failed for entry in self._entries)

    def settle(self, *, in_order: bool, complete: bool) -> None:
        """End a run.

        Args:
            in_order: Put the records in the order of the input.
            complete: There is a record for every line.

        Raises:
            AgentError: The file cannot be written anew; all records are in it.
        """
        try:
            if in_order:
                ordered = sorted(self._entries, key=lambda entry: entry.line)
                if ordered != self._entries:
                    self._entries = ordered
                    self._replace()
            if complete:
                self._beside.unlink(missing_ok=True)
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> AgentError:
        return AgentError(
            f"{self.path} cannot be written: {error}; what it holds is kept, and the same command goes on"
        )

    def _name(self, found: Earlier, *, existed: bool) -> str:
        if found.batch is not None:
            return found.batch
        if existed:
            try:
                return str(uuid.UUID(json.loads(self._beside.read_text(encoding="utf-8"))["batch"]))
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
                pass
        batch = str(uuid.uuid4())
        with _new(self._beside) as file:
            file.write(f"{json.dumps({'batch': batch})}\n".encode())
            _sync(file)
        return batch

    def _write_again(self) -> None:
        """Leave in the file what is kept, and nothing else."""
        kept = sum(entry.length for entry in self._entries)
        last = self._entries[-1] if self._entries else None
        if last is not None and (last.start + last.length != kept or not self._ends_a_line(kept)):
            self._replace()
        elif os.fstat(self._file.fileno()).st_size != kept:
            self._file.truncate(kept)
            _sync(self._file)

    def _ends_a_line(self, size: int) -> bool:
        self._file.seek(size - 1)
        return self._file.read(1) == b"\n"

    def _replace(self) -> None:
        """Put a file of :attr:`_entries`, in their order, in the place of the one there is, at one stroke."""
        target = self.path.resolve()  # a link to it stays one
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        fresh = _new(temporary)
        try:
            fcntl.flock(fresh, fcntl.LOCK_EX | fcntl.LOCK_NB)
            moved = []
            for entry in self._entries:
                self._file.seek(entry.start)
                raw = self._file.read(entry.length).removesuffix(b"\n") + b"\n"
                moved.append(replace(entry, start=fresh.tell(), length=len(raw)))
                fresh.write(raw)
            _sync(fresh)
            os.fchmod(fresh.fileno(), os.fstat(self._file.fileno()).st_mode & 0o777)
            temporary.replace(target)
        except BaseException:
            fresh.close()
            temporary.unlink(missing_ok=True)
            raise
        _sync_directory(target.parent)
        self._file.close()
        self._file, self._entries = fresh, moved


def _locked(path: Path) -> BinaryIO:
    """Open the output, with a lock that ends with the process."""
    busy = ConfigurationError(f"another batch is writing {path}; wait for it, or name another file")
    try:
        file = path.open("a+b")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        same = os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError as error:
        file.close()
        raise busy from error
    if not same:  # the other one has just put a new file in its place
        file.close()
        raise busy
    return file


def _new(path: Path) -> BinaryIO:
    return path.open("w+b")


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    """Make a rename last."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
