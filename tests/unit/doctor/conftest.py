from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import pytest

Install = Callable[..., Path]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at a database, a second long for a person who waits, may take as long as it needs."""
    monkeypatch.setattr("agent.doctor.database._SECONDS", 60.0)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes an environment of packages that are metadata alone, in the place of the real one."""
    site = tmp_path / "site-packages"
    site.mkdir()
    found = importlib.metadata.Distribution.discover
    monkeypatch.setattr(
        importlib.metadata.Distribution,
        "discover",
        lambda **given: found(**{**given, "path": [str(site)]}),
    )

    def add(name: str, version: str, *requires: str, files: dict[str, str] | None = None) -> Path:
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        lines = [f"Requires-Dist: {each}" for each in requires]
        head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines]
        (info / "METADATA").write_text("\n".join(head) + "\n")
        for path, text in (files or {}).items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_text(text)
        (info / "RECORD").write_text("".join(f"{path},,\n" for path in files or ()))
        return info

    return add
