"""What the README shows is run: its Python as it stands, and its commands as the program knows them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli.main import cli

README = (Path(__file__).parents[2] / "README.md").read_text()


def run_example(mark: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the one example that has this text in it."""
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    [example] = [block for block in blocks if mark in block]
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.engine
def test_the_example_of_plain_text_runs_as_it_stands(tmp_path: Path) -> None:
    done = run_example("import VLLM, ChatVLLM", tmp_path)
    likelihoods = [float(number) for number in re.findall(r"^-\d+\.\d+", done.stdout, flags=re.MULTILINE)]
    assert len(likelihoods) == 2
    assert likelihoods == sorted(likelihoods, reverse=True)


@pytest.mark.engine
def test_the_example_of_pooling_models_runs_as_it_stands(tmp_path: Path) -> None:
    done = run_example("VLLMEmbeddings", tmp_path)
    assert re.fullmatch(r"384\n0\.\d+ A kitten sleeps on the sofa\.\n", done.stdout)


@pytest.mark.engine
def test_the_first_example_runs_as_it_stands(tmp_path: Path) -> None:
    done = run_example("build_react_graph", tmp_path)
    assert "Name: current_time" in done.stdout  # a tool was called
    assert done.stdout.count("Human Message") == 2  # the second turn has the first one
    assert (tmp_path / "conversations.sqlite").is_file()


def commands() -> list[list[str]]:
    blocks = re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL)
    lines = [line.partition("#")[0] for block in blocks for line in block.splitlines()]
    return [line.split("vllm-agent ", 1)[1].split() for line in lines if "vllm-agent " in line]


def test_there_are_commands_to_check() -> None:
    assert len(commands()) > 6


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_commands_and_their_flags_exist(words: list[str]) -> None:
    nouns = []
    for word in words:
        if not word.isalpha() or len(nouns) == 2 or (nouns and nouns[0] in ("run", "chat", "resume")):
            break
        nouns.append(word)
    shown = CliRunner().invoke(cli, [*nouns, "--help"])
    assert shown.exit_code == 0, shown.output
    for flag in (word for word in words if word.startswith("--")):
        assert flag in shown.output
