"""What ``python -m agent.formats.serving`` writes, and where."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from agent.formats.serving.__main__ import main


def model(directory: Path, template: str) -> str:
    directory.mkdir(parents=True)
    (directory / "config.json").write_text("{}")
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    return str(directory)


def test_models_in_directories_of_one_name_have_templates_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    models = [model(tmp_path / name / "model", f"{{{{ messages }}}} {name}") for name in "ab"]
    templates = []
    for each in models:
        assert main([each]) == 0
        templates.append(Path(shlex.split(capsys.readouterr().out)[1]))
    assert [template.read_text()[-1] for template in templates] == ["a", "b"]


def test_a_template_that_cannot_be_written_or_read_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = model(tmp_path / "model", "{{ messages }}")
    for case in ("written", "read"):
        if case == "read":
            (tmp_path / "model" / "chat_template.jinja").write_bytes(b"\xff{{")
        with pytest.raises(SystemExit) as caught:
            main([given, "--template", str(tmp_path / ("model/config.json/x" if case == "written" else "x"))])
        assert caught.value.code == 1
        assert capsys.readouterr().err.count("\n") == 1
