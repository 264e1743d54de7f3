"""Where settings come from, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.errors import ConfigurationError
from agent.settings import load_settings


def write(path: Path, text: str) -> dict[str, str]:
    """An environment that names a file with this text."""
    (path / "config.toml").write_text(text)
    return {"VLLM_AGENT_CONFIG": str(path / "config.toml")}


def test_flags_go_over_the_environment_and_the_environment_over_the_file(tmp_path: Path) -> None:
    environment = write(tmp_path, 'model = "file"\nmax_steps = 3\ndatabase = "file.db"')
    environment |= {"VLLM_AGENT_MODEL": "env", "VLLM_AGENT_MAX_STEPS": "4"}
    settings = load_settings({"model": "flag", "max_steps": None}, environment=environment)
    assert (settings.model, settings.max_steps, settings.database) == ("flag", 4, "file.db")


def test_without_anything_the_embedded_model_and_all_tools_are_meant(tmp_path: Path) -> None:
    settings = load_settings(environment={"XDG_CONFIG_HOME": str(tmp_path)})
    assert (settings.model, settings.tools, settings.graph) == (None, None, "react")


def test_tools_are_a_list_in_the_file_and_names_with_commas_elsewhere(tmp_path: Path) -> None:
    in_file = load_settings(environment=write(tmp_path, 'tools = ["a", "b"]'))
    in_environment = load_settings(environment=write(tmp_path, "") | {"VLLM_AGENT_TOOLS": "a, b"})
    assert in_file.tools == in_environment.tools == ("a", "b")


def test_engine_arguments_of_flags_are_added_to_those_of_the_file(tmp_path: Path) -> None:
    environment = write(tmp_path, "[vllm]\nmax_model_len = 1024\nseed = 1")
    settings = load_settings({"vllm": {"seed": 2}}, environment=environment)
    assert dict(settings.vllm) == {"max_model_len": 1024, "seed": 2}


def test_an_empty_variable_is_not_set(tmp_path: Path) -> None:
    assert load_settings(environment=write(tmp_path, "") | {"VLLM_AGENT_MODEL": ""}).model is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('modle = "x"', ["config.toml", "'modle'", "did you mean 'model'"]),
        ('temperature = "hot"', ["config.toml: temperature", "'hot'", "0 to 2"]),
        ("max_tokens = 0", ["max_tokens", "1 or more"]),
        ("max_steps = true", ["max_steps", "1 or more"]),
        ('protocol = "xml"', ["protocol", "auto, native, text"]),
        ("metrics_port = 65536", ["metrics_port", "1 to 65535"]),
        ("tools = 3", ["tools", "list of names"]),
        ("vllm = 3", ["vllm", "table"]),
        ("model = ", ["config.toml", "no TOML"]),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environment=write(tmp_path, text))
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("TEMPERATURE", "3"), ("MAX_TOKENS", "many"), ("PROTOCOL", "x"), ("WARM_MINUTES", "-1")],
)
def test_a_mistake_in_the_environment_is_named(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"VLLM_AGENT_{name} = '{value}'"):
        load_settings(environment=write(tmp_path, "") | {f"VLLM_AGENT_{name}": value})


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        load_settings(environment={"VLLM_AGENT_CONFIG": str(tmp_path / "none.toml")})


@pytest.mark.parametrize("name", ["home", "documents", "tools_config"])
def test_the_home_of_a_user_who_does_not_exist_is_refused(tmp_path: Path, name: str) -> None:
    environment = write(tmp_path, f'{name} = "~nobody-is-called-so/x"')
    with pytest.raises(ConfigurationError, match=f"{name} = '~nobody-is-called-so/x': there is no such user"):
        load_settings(environment=environment)


def test_a_file_in_the_home_of_such_a_user_does_not_exist() -> None:
    with pytest.raises(ConfigurationError, match="names ~nobody-is-called-so/x, which does not exist"):
        load_settings(environment={"VLLM_AGENT_CONFIG": "~nobody-is-called-so/x"})


def test_the_key_is_not_printed_with_the_settings(tmp_path: Path) -> None:
    environment: dict[str, Any] = write(tmp_path, "") | {"VLLM_AGENT_API_KEY": "very-secret"}
    settings = load_settings(environment=environment)
    assert settings.api_key == "very-secret"
    assert "very-secret" not in repr(settings)
