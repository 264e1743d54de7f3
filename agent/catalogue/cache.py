"""Directories in the user's cache that are either complete or not there.

A model that takes seconds to make is made once and found again by every later process. Three things could go
wrong with that, and this module is where they are prevented:

- a process is killed halfway: the work happens in a directory beside the target, whose manifest is written
  last, and which is renamed to its real name only when everything is on the disk;
- two processes make the same thing: the maker holds a file lock, which the system releases when it dies;
- files rot, or somebody cuts them short: the manifest holds sizes and hashes, and :meth:`CacheEntry.problem`
  compares them. That has to be cheap, because it happens at every start: large files are hashed only when
  their time of modification changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_dir

from agent.catalogue.progress import Progress, no_progress

MANIFEST = "manifest.json"
_ALWAYS_HASHED = 8 * 2**20
"""Bytes up to which a file is hashed at every check; this takes some milliseconds."""


def cache_root() -> Path:
    """The directory that all cached models share: ``$VLLM_AGENT_CACHE``, or the user's cache directory."""
    chosen = os.environ.get("VLLM_AGENT_CACHE")
    return Path(chosen or user_cache_dir("vllm-agent")).expanduser().absolute()


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One directory in the cache, and what it has to be made from."""

    directory: Path
    """Where the finished files are."""
    source: str
    """Identifies the origin and the way of making; an entry made from anything else is out of date."""

    def problem(
        self, *, verify: bool = False, only_look: bool = False, progress: Progress = no_progress
    ) -> str | None:
        """Say what is wrong with the entry, or None if it is complete.

        Args:
            verify: Hash every file, however large.
            only_look: Change nothing, and take milliseconds: a large file that was touched is hashed with
                ``verify`` alone, and its new time is not taken back.
            progress: Told about the hashing of large files.
        """
        try:
            manifest = json.loads((self.directory / MANIFEST).read_bytes())
            files, source = manifest["files"].items(), manifest["source"]
        except (FileNotFoundError, NotADirectoryError):
            return "it is not there" if not self.directory.is_dir() else "its manifest is missing"
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return "its manifest is damaged"
        if source != self.source:
            return "it was made by another version"
        for name, expected in files:
            path = self.directory / name
            if found := _file_problem(path, expected, verify=verify, only_look=only_look, progress=progress):
                return found
        return None

    def make(self, fill: Callable[[Path], None]) -> None:
        """Let ``fill`` write the files into an empty directory, then put that in place of what is there.

        The caller holds :func:`exclusive` for this directory.
        """
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        staging = self._beside("making")
        for leftover in (*self._leftovers("making"), *self._leftovers("old")):
            remove(leftover)
        try:
            staging.mkdir()
            fill(staging)
            _write_manifest(staging, self.source)
            self._publish(staging)
        finally:
            remove(staging)

    def _publish(self, staging: Path) -> None:
        # A directory cannot be renamed over one that has files in it.
        old = self._beside("old")
        if self.directory.exists() or self.directory.is_symlink():
            self.directory.rename(old)
        staging.rename(self.directory)
        _sync(self.directory.parent)
        remove(old)

    def _beside(self, role: str) -> Path:
        return self.directory.with_name(f".{self.directory.name}.{role}-{os.getpid()}")

    def _leftovers(self, role: str) -> Iterator[Path]:
        return self.directory.parent.glob(f".{self.directory.name}.{role}-*")


@contextlib.contextmanager
def exclusive(directory: Path, *, progress: Progress = no_progress) -> Iterator[None]:
    """Hold the lock of ``directory``; wait for whoever has it, and tell ``progress`` who that is."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    owner = directory.with_name(f".{directory.name}.owner")
    lock = FileLock(directory.with_name(f".{directory.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        # The name of the owner is a courtesy: it may be read while it is being written.
        with contextlib.suppress(OSError):
            pid = owner.read_text() or "?"
            progress(f"Waiting for process {pid}, which is making {directory.name}", 0, 0)
        lock.acquire()
    try:
        owner.write_text(str(os.getpid()))
        yield
    finally:
        lock.release()


def sha256_of(path: Path, *, progress: Progress = no_progress, stage: str = "Checking") -> str:
    """The SHA-256 of a file, in hexadecimal."""
    total, done, digest = path.stat().st_size, 0, hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(4 * 2**20):
            digest.update(block)
            done += len(block)
            progress(stage, done, total)
    return digest.hexdigest()


def place(file: Path, target: Path) -> None:
    """Move a finished file to its name, durably; both are on one file system."""
    _sync(file)
    file.replace(target)
    _sync(target.parent)


def remove(path: Path) -> None:
    """Delete a file or a tree, whether or not it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _file_problem(
    path: Path, expected: dict[str, object], *, verify: bool, only_look: bool, progress: Progress
) -> str | None:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return f"{path.name} is missing"
    if found.st_size != expected.get("size"):
        return f"{path.name} has {found.st_size} bytes instead of {expected.get('size')}"
    mtime = expected.get("mtime_ns")
    touched = found.st_mtime_ns != mtime
    if not (verify or (touched and not only_look) or found.st_size <= _ALWAYS_HASHED):
        return None
    # Small files are done before a bar could be seen.
    report = progress if found.st_size > _ALWAYS_HASHED else no_progress
    if sha256_of(path, progress=report, stage=f"Checking {path.name}") != expected.get("sha256"):
        return f"{path.name} has other contents than when it was made"
    if touched and isinstance(mtime, int) and not only_look:
        # A copied cache is hashed once, not at every start. On a read-only disk it stays correct, and slow.
        with contextlib.suppress(OSError):
            os.utime(path, ns=(found.st_atime_ns, mtime))
    return None


def _write_manifest(directory: Path, source: str) -> None:
    files = {}
    for path in sorted(directory.rglob("*")):
        _sync(path)
        if path.is_dir():
            continue
        found = path.stat()
        files[path.relative_to(directory).as_posix()] = {
            "size": found.st_size,
            "sha256": sha256_of(path),
            "mtime_ns": found.st_mtime_ns,
        }
    manifest = directory / MANIFEST
    manifest.write_text(json.dumps({"source": source, "files": files}, indent=2) + "\n")
    _sync(manifest)
    _sync(directory)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
