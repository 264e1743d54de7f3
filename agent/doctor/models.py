"""The models that are on this disk."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from agent.catalogue.cache import cache_root
from agent.catalogue.embedded import SMOLLM2, EmbeddedModel
from agent.doctor.findings import Finding
from agent.settings import Settings

_GIB = 2**30
_SHOWN = 20


def check_models(settings: Settings, *, deep: bool, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Look at the embedded model, at the model in the settings and at the hub's cache.

    Args:
        settings: What a command would have.
        deep: Hash the embedded model whole.
        environment: Says where the hub keeps its cache.
    """
    used = settings.model is None and settings.base_url is None
    yield embedded(cache_root(), used=used, verify=deep)
    cache = hub_cache(environment)
    if settings.model is not None and settings.base_url is None:
        yield chosen(settings.model, cache)
    yield from in_hub_cache(cache)


def embedded(root: Path, *, used: bool, verify: bool = False, model: EmbeddedModel = SMOLLM2) -> Finding:
    """The model that comes with the package; a look does not make it.

    Args:
        root: Of the cache.
        used: Whether commands would use it.
        verify: Hash all of it, in the place of comparing sizes.
        model: Which one.
    """
    entry, name = model.entry(root), "models.embedded"
    mend = shlex.join([sys.executable, "-m", "agent.catalogue.embedded", *(["--verify"] if verify else [])])
    try:
        problem = entry.problem(verify=verify, only_look=True)
    except OSError as error:
        what = f"{model.name} in {entry.directory} cannot be read: {error.strerror or error}"
        return Finding(
            name, "problem" if used else "warning", what, shlex.join(["ls", "-la", str(entry.directory)])
        )
    if problem is None:
        return Finding(name, "ok", f"{model.name} in {entry.directory} ({_size(entry.directory)})")
    if not entry.directory.exists():
        fetched = (root / "wheels" / model.wheel.filename).is_file()
        how = (
            "made from the wheel in the cache"
            if fetched
            else f"a download of {model.wheel.size / 1e6:.0f} MB"
        )
        return Finding(
            name, "not used", f"{model.name} is not there yet; the first use makes it ({how})", mend
        )
    what = f"{model.name} in {entry.directory} is damaged: {problem}; the next use makes it anew"
    return Finding(name, "warning", what, mend)


def hub_cache(environment: Mapping[str, str]) -> Path:
    """Where the hub's client keeps its downloads, by its own rules."""
    if chosen := environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE"):
        return Path(chosen).expanduser()
    cache = environment.get("XDG_CACHE_HOME") or "~/.cache"
    home = environment.get("HF_HOME") or f"{cache}/huggingface"
    return Path(home).expanduser() / "hub"


def chosen(model: str, cache: Path) -> Finding:
    """The model in the settings: a directory, or an id that is in the hub's cache or not."""
    directory = Path(model).expanduser()
    if directory.is_dir():
        if any((directory / mark).is_file() for mark in ("config.json", "params.json")):
            return Finding("models.chosen", "ok", f"{model} ({_size(directory)})")
        mend = f"ls {shlex.quote(model)}  # give the directory that has config.json"
        return Finding("models.chosen", "problem", f"{model} is a directory without config.json", mend)
    if model.startswith(("/", "./", "../", "~")):
        mend = "correct model in the settings, or give --model"
        return Finding("models.chosen", "problem", f"there is no directory {model}", mend)
    if _repository(cache, model).is_dir():
        return Finding("models.chosen", "ok", f"{model} is in the hub's cache")
    mend = shlex.join(["hf", "download", model])
    return Finding("models.chosen", "not used", f"{model} is not there yet; the first use downloads it", mend)


def in_hub_cache(cache: Path) -> Iterator[Finding]:
    """The models in the hub's cache with their sizes, and downloads that were cut off."""
    try:
        found = sorted(each for each in cache.glob("models--*") if each.is_dir())
    except OSError as error:
        yield Finding(
            "models.hub", "warning", f"{cache} cannot be read: {error}", f"ls -la {shlex.quote(str(cache))}"
        )
        return
    if not found:
        yield Finding("models.hub", "not used", f"no models of the hub in {cache}")
        return
    names = [each.name.removeprefix("models--").replace("--", "/") for each in found]
    sizes = [f"{name} ({_size(path)})" for name, path in zip(names, found, strict=True)]
    more = f" and {len(sizes) - _SHOWN} more" if len(sizes) > _SHOWN else ""
    yield Finding("models.hub", "ok", f"in {cache}: {', '.join(sizes[:_SHOWN])}{more}")
    for name, path in zip(names, found, strict=True):
        if any(path.glob("blobs/*.incomplete")):
            what = f"the download of {name} was cut off"
            yield Finding("models.download", "warning", what, shlex.join(["hf", "download", name]))


def _repository(cache: Path, model: str) -> Path:
    return cache / f"models--{model.replace('/', '--')}"


def _size(directory: Path) -> str:
    """Bytes below a directory; links are not followed, as the hub's snapshots are links to its blobs."""
    total = 0
    for folder, _, files in os.walk(directory):
        for name in files:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                continue  # gone in between
    return f"{total / _GIB:.2f} GiB"
