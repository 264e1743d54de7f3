"""What `vllm-agent doctor` says of an engine: servers that do not answer, a vLLM that cannot be imported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from http_double import Answer, Call, serving
from ports import held_port

from agent.doctor.engine import check_engine, import_vllm
from agent.doctor.findings import Finding
from agent.settings import Settings


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server here has more time to answer than a person would wait."""
    monkeypatch.setattr("agent.doctor.engine._SECONDS", 60.0)


def ask(address: str, **settings) -> dict[str, Finding]:
    found = check_engine(Settings(base_url=address, **settings), deep=False)
    return {each.name.partition(".")[2]: each for each in found}


def server(call: Call) -> Answer:
    if call.path == "/health":
        return Answer()
    if call.headers.get("authorization") != "Bearer right":
        return Answer({"error": {"message": "Unauthorized"}}, status=401)
    return Answer({"data": [{"id": "a-model", "owned_by": "vllm"}]})


def test_a_server_that_answers():
    with serving(server) as double:
        found = ask(f"{double.address}/v1", api_key="right")
        assert found["models"].what == "it serves a-model"
        assert ask(double.address, api_key="right", model="b")["models"].verdict == "problem"
        assert {call.method for call in double.calls} == {"GET"}


def test_a_wrong_key_is_not_shown():
    with serving(server) as double:
        found = ask(double.address, api_key="wrong-key")["server"]
    assert found.verdict == "problem"
    assert "VLLM_AGENT_API_KEY" in found.mend
    assert "wrong-key" not in repr(found)


def test_a_server_that_is_not_there():
    with held_port() as port:
        found = ask(f"http://127.0.0.1:{port}/v1")["server"]
    assert found.verdict == "problem"
    assert "is not there" in found.what


def test_a_server_that_is_not_healthy():
    with serving(lambda call: Answer({"error": "engine dead"}, status=503)) as double:
        assert "is not healthy: engine dead" in ask(double.address)["server"].what


def test_another_programs_server():
    with serving(lambda call: Answer({"detail": "Not Found"}, status=404)) as double:
        assert "no list of models" in ask(double.address)["server"].what
    assert ask("localhost:8000")["server"].verdict == "problem"


@pytest.mark.parametrize(
    ("module", "verdict", "said"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", "problem", "torchvision::nms"),
        ("import os; os.abort()", "problem", "signal 6"),
        ("import time; time.sleep(60)", "problem", "took more than 2 s"),
        ("__version__ = '0.32.0'", "ok", "vLLM 0.32.0 on cpu, torch 2.13.0"),
    ],
    ids=["raises", "crashes", "hangs", "works"],
)
def test_importing_vllm_in_a_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module, verdict, said):
    (tmp_path / "vllm" / "platforms").mkdir(parents=True)
    (tmp_path / "vllm" / "__init__.py").write_text(module)
    platform = "class current_platform:\n    device_type = 'cpu'\n"
    (tmp_path / "vllm" / "platforms" / "__init__.py").write_text(platform)
    (tmp_path / "torch.py").write_text("__version__ = '2.13.0'")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = import_vllm(python=sys.executable, timeout=2 if "sleep" in module else 60)
    assert (found.verdict, said in found.what) == (verdict, True), found
