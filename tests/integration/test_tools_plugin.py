"""A package with tools, installed for real: found by its entry point, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = Path(__file__).with_name("plugin_package")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that pip has installed the package into."""
    source = tmp_path_factory.mktemp("source") / "weather"
    shutil.copytree(PACKAGE, source)  # building leaves files beside the source
    target = tmp_path_factory.mktemp("installed")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"),
            *("--no-index", "--no-deps", "--no-build-isolation", "--target", str(target), str(source)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


def agent(installed: Path | None, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(each) for each in (ROOT, installed) if each is not None)
    return subprocess.run(
        [sys.executable, "-m", "agent", "tools", *words],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def parsed(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_its_tools_are_listed_shown_and_called(installed):
    listed = {each["name"]: each for each in parsed(agent(installed, "list", "--json"))}
    assert listed["temperature"]["source"] == "plugin 'weather' of weather-tools 1.2 (weather_tools)"
    assert {"calculator", "current_time"} <= set(listed)
    shown = parsed(agent(installed, "show", "temperature", "--json"))
    assert shown["parameters"]["required"] == ["town"]
    assert shown["policy"]["timeout"] == 5
    called = parsed(agent(installed, "call", "temperature", '{"town": "Rome"}', "--json"))
    assert called == {"ok": True, "result": "4 °C in Rome", "attempts": 1}


def test_options_reach_it_and_it_can_be_left_out(installed, tmp_path):
    file = tmp_path / "tools.toml"
    file.write_text('[options.weather]\nunit = "K"\n')
    called = parsed(
        agent(installed, "call", "temperature", '{"town": "Rome"}', "--json", "--tools-config", str(file))
    )
    assert called["result"] == "4 K in Rome"
    file.write_text('exclude = ["weather"]\n')
    names = {each["name"] for each in parsed(agent(installed, "list", "--json", "--tools-config", str(file)))}
    assert "temperature" not in names
    assert "calculator" in names


def test_without_the_package_there_is_no_such_tool():
    done = agent(None, "show", "temperature")
    assert done.returncode == 1
    assert "no tool 'temperature'" in done.stderr


def test_a_clash_with_it_names_both_sources(installed, tmp_path):
    (tmp_path / "mine.py").write_text(
        'from tools import tool\n@tool\ndef temperature() -> str:\n    "Mine."\n    return ""\n'
    )
    file = tmp_path / "tools.toml"
    file.write_text('modules = ["./mine.py"]\n')
    done = agent(installed, "list", "--tools-config", str(file))
    assert done.returncode == 1
    assert "'temperature': one from plugin 'weather' of weather-tools 1.2" in done.stderr
    assert "mine.py" in done.stderr
