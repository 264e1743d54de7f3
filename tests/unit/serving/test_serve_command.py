"""The command `serve`, with a child that behaves as a server does."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import psutil
import pytest
from click.testing import CliRunner, Result

from agent.cli.main import cli
from agent.cli.serve import _keys, _model
from agent.serving import life
from agent.serving.records import ServerDirectory
from agent.settings import Settings

Run = Callable[..., Result]


@pytest.fixture
def run(directory: ServerDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `serve`; its servers are those of ``directory``."""
    for name in ("VLLM_API_KEY", "VLLM_AGENT_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VLLM_AGENT_HOME", str(directory.path.parent))
    monkeypatch.setenv("VLLM_AGENT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VLLM_AGENT_CONFIG", os.devnull)

    def serve(*words: str, code: int = 0) -> Result:
        result = CliRunner().invoke(cli, ["serve", *words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return serve


def test_a_server_in_the_background_is_started_shown_and_stopped(run: Run, model: str) -> None:
    started = run(model, "--seed", "3", "--background", "--force")
    [server] = json.loads(run("status", "--json").stdout)
    assert started.stdout == f"{server['url']}/v1\n"
    assert (server["model"], server["state"], server["key_needed"]) == (model, "ready", False)
    assert f"vllm-agent serve stop {server['id']}" in started.stderr
    shown = run("status").stdout
    assert "tiny" in shown
    assert server["url"] in shown
    assert server["id"] in run("stop").stderr
    assert not psutil.pid_exists(server["pid"])
    assert json.loads(run("status", "--json").stdout) == []


@pytest.mark.parametrize("key", ["", " ", "a\nb", "a\n"])
def test_a_key_that_would_leave_the_server_open_is_refused(run: Run, model: str, key: str) -> None:
    assert "An API key is empty" in run(model, "--api-key", key, "--background", "--force", code=2).stderr
    assert json.loads(run("status", "--json").stdout) == []


def test_a_server_on_a_socket_says_nothing_of_a_port(
    run: Run, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life, "wait_until_ready", lambda *_, **__: None)
    started = run(model, "--uds", str(tmp_path / "s"), "--background", "--force")
    assert started.stdout.startswith("http+unix://")
    assert "is taken" not in started.stderr


def test_a_key_in_the_environment_does_not_count_beside_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "a\n")
    file = tmp_path / "keys"
    file.write_text("b\n")
    assert _keys((), file, Settings()) == ("b",)
    with pytest.raises(click.UsageError, match="not one line"):
        _keys((), None, Settings())


def test_of_several_one_is_named(run: Run, model: str) -> None:
    for _ in range(2):
        run(model, "--background", "--force")
    first, second = json.loads(run("status", "--json").stdout)
    assert first["url"] != second["url"]  # the usual port was taken
    said = run("stop", code=2).stderr
    assert first["id"] in said
    assert second["id"] in said
    assert "there are: " in run("stop", "nothing", code=1).stderr
    run("stop", first["url"].rpartition(":")[2])
    assert [each["id"] for each in json.loads(run("status", "--json").stdout)] == [second["id"]]
    run("stop", "--all")
    assert "no server of yours runs here" in run("stop", code=1).stderr


def test_a_key_is_in_no_output_and_a_flag_is_warned_of(
    run: Run, model: str, directory: ServerDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = run(model, "--api-key", "very-secret", "--background", "--force", "--json")
    assert "shell's history" in said.stderr
    assert "very-secret" not in said.output
    assert json.loads(said.stdout)["key_needed"] is True
    [record] = directory.records()
    assert record.keys == ("very-secret",)
    assert "very-secret" not in run("status").output + run("status", "--json").output
    run("stop")
    monkeypatch.setenv("VLLM_API_KEY", "from-environment")
    run(model, "--background", "--force")
    [record] = directory.records()
    assert record.keys == ("from-environment",)


def test_a_file_of_keys_that_others_can_read_is_warned_of(
    run: Run, model: str, tmp_path: Path, directory: ServerDirectory
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("one\ntwo\n")
    keys.chmod(0o644)
    said = run(model, "--api-key-file", str(keys), "--background", "--force").stderr
    assert f"chmod 600 {keys}" in said
    [record] = directory.records()
    assert record.keys == ("one", "two")


def test_a_server_that_does_not_start_says_why(
    run: Run, model: str, directory: ServerDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SERVER", "fails")
    said = run(model, "--background", "--force", code=1).stderr
    assert "no such quantization" in said
    assert directory.records() == []


def test_a_server_of_the_command_ends_with_its_idle_time(run: Run, model: str) -> None:
    said = run(model, "--force", "--idle-minutes", "0.05").stderr
    assert "not asked anything for 0.05 minutes" in said
    assert json.loads(run("status", "--json").stdout) == []


def test_a_server_that_another_command_stops_has_not_failed(
    run: Run, model: str, directory: ServerDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SERVER", "several")
    seen, wait = threading.Event(), life.wait_until_ready

    def wait_and_tell(*args: Any, **options: Any) -> None:
        wait(*args, **options)
        seen.set()

    monkeypatch.setattr(life, "wait_until_ready", wait_and_tell)

    def stop() -> None:
        assert seen.wait(60), "the command in the foreground has not seen that it is ready"
        [record] = directory.records()
        life.stop(record, directory)

    other = threading.Thread(target=stop)
    other.start()
    assert "the server has ended: it was stopped" in run(model, "--force").stderr
    other.join()


@pytest.mark.parametrize(("words", "model"), [(("",), None), (("", "--seed", "1"), None), ((), "")])
def test_an_empty_model_is_not_the_embedded_one(words: tuple[str, ...], model: str | None) -> None:
    with pytest.raises(click.UsageError, match="MODEL is empty"):
        _model(words, model)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seed", "1", "MODEL", "--port", "99999"], "99999"),
        (["MODEL", "--model", "other"], "Two models are named"),
        (["MODEL", "--api_key", "secret"], "write --api_key in full, as --api-key"),
        (["--config", "vllm.yaml"], "Beside --config, name MODEL"),
        (["stop", "x", "--all"], "contradict"),
    ],
)
def test_wrong_usage_is_told(run: Run, words: list[str], message: str) -> None:
    result = run(*words, code=2)
    assert message in result.stderr
    assert "secret" not in result.output


def test_the_help_teaches_all_words(run: Run) -> None:
    shown = run("--help").stdout
    assert shown.startswith("Usage: vllm-agent serve [MODEL] [OPTIONS]")
    for word in ("status", "stop", "--background", "--api-key-file", "vllm-agent serve Qwen/Qwen3-8B"):
        assert word in shown
