"""``doctor`` as a command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli_doubles import Terminal

import agent.doctor.versions


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VLLM_AGENT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


def test_it_looks_at_every_part_and_makes_nothing(terminal: Terminal, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    findings = json.loads(terminal.run("doctor", "--json").stdout)
    parts = {each["name"].partition(".")[0] for each in findings}
    assert parts == {"settings", "versions", "device", "engine", "models", "database", "tools", "studio"}
    assert all(set(each) == {"name", "verdict", "what", "mend"} for each in findings)
    assert all(each["mend"] for each in findings if each["verdict"] in ("warning", "problem"))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_broken_config_is_said_and_the_rest_looked_at(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("temperature = 'hot'\n")
    monkeypatch.setenv("VLLM_AGENT_CONFIG", str(config))
    result = terminal.run("doctor")
    assert result.exit_code == 1
    assert "✗ values" in result.stdout
    assert f"→ ${{EDITOR:-vi}} {config}" in result.stdout
    assert "tools" in result.stdout.splitlines()
    assert "problem" in result.stderr


def test_a_check_that_fails_costs_only_itself(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(agent.doctor.versions, "check_versions", fail)
    result = terminal.run("doctor", "--json")
    found = {each["name"]: each for each in json.loads(result.stdout)}
    assert result.exit_code == 1
    assert "the disk is gone" in found["versions.check"]["what"]
    assert "device.cpu" in found


def test_it_imports_neither_torch_nor_vllm() -> None:
    code = (
        "import sys\n"
        "from agent.doctor.examination import examine\n"
        "examine()\n"
        "print(sorted({'torch', 'vllm', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
