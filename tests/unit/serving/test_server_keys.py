"""API keys: where they come from, and that a list of processes does not show them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agent.errors import ConfigurationError
from agent.serving.keys import keys_in, read_key_file, readable_by_others


def test_keys_are_found_in_a_command_line() -> None:
    words = ["vllm-agent", "serve", "--api-key", "one", "--api-key=two", "--port", "1", "--api-key"]
    assert sorted(keys_in(words)) == ["one", "two"]


def test_a_file_has_one_key_a_line(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("one\n\n  two  \n")
    path.chmod(0o600)
    assert read_key_file(path) == ("one", "two")
    assert not readable_by_others(path)
    path.chmod(0o644)
    assert readable_by_others(path)


def test_a_file_without_keys_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_key_file(tmp_path / "none")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigurationError, match="holds no API key"):
        read_key_file(tmp_path / "empty")


@pytest.mark.skipif(sys.platform != "linux", reason="it writes into memory that Linux names")
def test_the_command_itself_hides_the_key_from_the_list_of_processes() -> None:
    code = (
        "import sys; sys.argv[0] = 'vllm-agent'\n"
        "import click, agent.cli.main as main\n"
        "def look(*_, **__):\n"
        "    print(open('/proc/self/cmdline').read().replace(chr(0), ' '), flush=True)\n"
        "main.cli.main = look\n"
        "try: main.main()\n"
        "except AssertionError: print(sys.argv[3])"
    )
    command = [sys.executable, "-c", code, "serve", "--api-key", "very-secret-indeed"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    shown, argument = done.stdout.rsplit("\n", 2)[:2]
    assert "very-secret-indeed" not in shown
    assert "serve --api-key ******************" in shown
    assert argument == "very-secret-indeed"  # the program itself still has it
