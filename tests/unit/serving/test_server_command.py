"""From what is wanted to the command of the server's process."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from agent.catalogue.models import CatalogueModel
from agent.errors import ConfigurationError, ModelNotFoundError
from agent.serving import order as ordering
from agent.serving.command import server_command, server_environment, vllm_flags
from agent.serving.order import ServerOrder, free_port, order_from_arguments, order_from_flags


def flags_of(order: ServerOrder) -> list[str]:
    return vllm_flags(order, port=8000)


def command_of(order: ServerOrder, parent: int | None = None) -> list[str]:
    return server_command(order, port=1, facts=Path("f"), flags=Path("g"), parent=parent)


def test_the_users_flags_come_last_and_ours_give_way(model: str, tmp_path: Path) -> None:
    order = order_from_flags(model, ["--tool-strict-level", "auto", "--seed", "3"], cache=tmp_path)
    flags = flags_of(order)
    assert flags[:2] == ["--model", model]
    assert flags[-4:] == ["--tool-strict-level", "auto", "--seed", "3"]
    assert flags.count("--tool-strict-level") == 1
    assert flags[flags.index("--served-model-name") + 1 :][:2] == ["tiny", model]
    named = order_from_flags(model, ["--served-model-name", "mine"], cache=tmp_path)
    assert flags_of(named).count("--served-model-name") == 1


@pytest.mark.parametrize("word", ["--api_key=x", "--api-k", "--port", "--host=h", "--mode", "--model"])
def test_flags_that_we_need_to_know_are_written_in_full(model: str, tmp_path: Path, word: str) -> None:
    with pytest.raises(ConfigurationError, match="in full") as caught:
        order_from_flags(model, [word, "secret"], cache=tmp_path)
    assert "secret" not in str(caught.value)


def test_a_model_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        order_from_flags("/no/such/model", [], cache=tmp_path)


def test_what_the_catalogue_knows_is_added_unless_it_was_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = CatalogueModel(
        id="owner/reranker",
        family="x",
        task="reranker",
        architecture="Qwen3ForCausalLM",
        licence="unknown",
        config={},
        hf_overrides={"architectures": ["Qwen3ForSequenceClassification"]},
    )
    monkeypatch.setattr(ordering, "catalogue", lambda: {entry.id: entry})
    order = order_from_flags(entry.id, ["--convert", "embed"], cache=tmp_path)
    assert order.arguments == {"convert": "embed", "runner": "pooling", "hf_overrides": entry.hf_overrides}
    assert "--hf-overrides" in flags_of(order)


def test_code_of_a_model_is_never_trusted_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = CatalogueModel(
        id="owner/coded",
        family="x",
        task="generate",
        architecture="X",
        licence="unknown",
        config={},
        trust_remote_code=True,
    )
    monkeypatch.setattr(ordering, "catalogue", lambda: {entry.id: entry})
    with pytest.raises(ConfigurationError, match="add --trust-remote-code"):
        order_from_flags(entry.id, [], cache=tmp_path)
    assert "--trust-remote-code" in flags_of(
        order_from_flags(entry.id, ["--trust-remote-code"], cache=tmp_path)
    )


def test_engine_arguments_of_a_command_become_flags(model: str) -> None:
    arguments = {"max_model_len": 64, "enforce_eager": True, "tool_parser": None, "force": True}
    order = order_from_arguments(model, arguments, warm=True)
    assert order.force
    assert order.wanted == {"tool_parser": None}
    assert order.words == ("--max-model-len", "64", "--enforce-eager")
    command = command_of(order)
    assert command[command.index("--wanted") + 1] == '{"tool_parser": null}'
    assert "--text-tools" not in command  # clients of ours do it better


def test_no_key_is_in_the_command_nor_left_in_the_environment(model: str, tmp_path: Path) -> None:
    order = order_from_flags(model, [], cache=tmp_path, keys=("very-secret", "other"))
    assert "very-secret" not in " ".join(command_of(order))
    assert "very-secret" not in repr(order)
    environment = server_environment(
        order, identity="i", environment={"VLLM_API_KEY": "mine", "PATH": "/bin"}
    )
    assert environment["VLLM_AGENT_SERVER_KEYS"] == "very-secret\nother"
    assert "VLLM_API_KEY" not in environment  # a server without a key is one that was asked for without
    assert environment["PATH"] == "/bin"


def test_what_the_user_set_in_the_environment_stays(model: str) -> None:
    order = order_from_arguments(model, {}, warm=True, idle_minutes=0.5)
    environment = server_environment(order, identity="i", environment={"VLLM_LOGGING_LEVEL": "DEBUG"})
    assert environment["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert environment["VLLM_AGENT_SERVER_IDLE_SECONDS"] == "30.0"
    assert environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


@pytest.mark.parametrize(
    ("words", "cpu", "warm", "expected"),
    [
        ([], True, False, True),
        ([], False, False, False),  # on a card the engine is better off alone
        ([], False, True, True),
        (["-tp", "2"], True, True, False),
        (["--data-parallel-size", "2"], True, False, False),
        (["--headless"], True, False, False),
    ],
)
def test_one_process_is_taken_where_it_is_enough(
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: Any,
    cpu: bool,
    warm: bool,
    expected: bool,
) -> None:
    monkeypatch.setattr(ordering, "on_cpu", lambda: cpu)
    order = order_from_flags(model, words, cache=tmp_path, warm=warm)
    assert order.one_process is expected
    assert ("--one-process" in command_of(order)) is expected
    environment = server_environment(order, identity="i", environment={})
    assert ("VLLM_ENABLE_V1_MULTIPROCESSING" in environment) is expected


@pytest.mark.parametrize(
    ("words", "host", "url"),
    [
        ([], "127.0.0.1", "http://127.0.0.1:9"),
        ([], "0.0.0.0", "http://127.0.0.1:9"),
        ([], "::", "http://[::1]:9"),
        (["--ssl-certfile", "c"], "example.org", "https://example.org:9"),
        (["--uds", "/run/x.sock"], "127.0.0.1", "http+unix://%2Frun%2Fx.sock"),
    ],
)
def test_a_server_is_reached_from_this_machine(
    model: str, tmp_path: Path, words: list[str], host: str, url: str
) -> None:
    assert order_from_flags(model, words, cache=tmp_path, host=host).url(9) == url


def test_a_port_that_is_taken_is_refused_or_gone_round() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {taken} of 127.0.0.1 cannot be used"):
            free_port("127.0.0.1", taken)
        assert free_port("127.0.0.1", None, usual=taken) not in (0, taken)
    assert free_port("127.0.0.1", None, usual=taken) == taken
    assert free_port("127.0.0.1", taken) == taken


def test_an_address_that_is_not_here_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"no address '192\.0\.2\.1'"):
        free_port("192.0.2.1", None)
