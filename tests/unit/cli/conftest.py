from __future__ import annotations

from pathlib import Path

import pytest
from cli_doubles import Terminal


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name in ("MODEL", "DATABASE", "BASE_URL", "TOOLS", "TEMPERATURE", "SYSTEM", "API_KEY"):
        monkeypatch.delenv(f"VLLM_AGENT_{name}", raising=False)
    monkeypatch.setenv("VLLM_AGENT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VLLM_AGENT_CONFIG", "")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COLUMNS", "100")
    return Terminal(tmp_path / "home", monkeypatch)
