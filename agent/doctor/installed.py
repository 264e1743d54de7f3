"""What the metadata of installed packages says, without importing any of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import InvalidRequirement, Requirement

_CUDA_FILES = ("libcudart", "libnvjpeg", "_cuda.")
"""Parts of the names of files that only builds for CUDA bring along."""


@dataclass(frozen=True)
class Package:
    """One installed package."""

    name: str
    """As it was asked for."""
    version: str
    """With the local part, for example ``2.13.0+cpu``."""
    requirements: tuple[Requirement, ...]
    """What it needs, those of its extras included."""
    build: str | None
    """``cpu``, ``cu128``, ``rocm…``; ``None`` where nothing tells."""

    def needs(self, other: str) -> Requirement | None:
        """What it wants of another package on this machine, without extras."""
        found = (each for each in self.requirements if each.name == other and applies(each))
        return next(found, None)


def find(name: str) -> Package | None:
    """The installed package of this name, or ``None``."""
    try:
        found = distribution(name)
        version: str | None = found.version
    except (PackageNotFoundError, KeyError):
        return None
    if not version:  # a directory that an interrupted pip left behind
        return None
    return Package(name, version, tuple(_requirements(found)), _build(found, version))


def applies(requirement: Requirement, *, extra: str = "") -> bool:
    """Whether a requirement holds on this machine, for this extra or for none."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def fits(version: str, requirement: Requirement) -> bool:
    """Whether a version is one that is asked for."""
    return requirement.specifier.contains(version, prereleases=True)


def _requirements(found: Distribution) -> list[Requirement]:
    requirements = []
    for text in found.requires or ():
        try:
            requirements.append(Requirement(text))
        except InvalidRequirement:  # an old package's; nothing of ours depends on it
            continue
    return requirements


def _build(found: Distribution, version: str) -> str | None:
    local = version.partition("+")[2]
    if local:
        return local
    name = found.metadata["Name"]
    try:
        # What comes from PyPI has no local part, and is for CUDA on most machines. The file is read, not run.
        text = open_text(found, f"{name}/version.py")
    except OSError:
        text = ""
    if match := re.search(r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE):
        return f"cu{match[1].replace('.', '')}"
    if any(part in file.name for file in found.files or () for part in _CUDA_FILES):
        return "cuda"
    return None


def open_text(found: Distribution, name: str) -> str:
    """The text of one of its files.

    Raises:
        OSError: There is none.
    """
    with open(str(found.locate_file(name)), encoding="utf-8", errors="replace") as file:
        return file.read()
