from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.serving import life
from agent.serving.command import server_command
from agent.serving.order import ServerOrder
from agent.serving.records import ServerDirectory

FAKE = Path(__file__).with_name("fake_server.py")


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "models" / "tiny"
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"architectures": ["No"], "max_position_embeddings": 64}))
    return str(path.resolve())


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerDirectory]:
    """Where servers are noted, whose processes are fakes; all of them are stopped at the end."""

    def command(order: ServerOrder, **options: Any) -> list[str]:
        whole = server_command(order, **options)
        return [sys.executable, str(FAKE), *whole[whole.index("--facts") :]]

    monkeypatch.setattr(life, "server_command", command)
    found = ServerDirectory(tmp_path / "home" / "servers")
    yield found
    for record in found.records():
        life.stop(record, found, grace=0)
