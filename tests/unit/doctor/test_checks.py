"""Broken set-ups of everything but packages."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from agent import open_checkpointer
from agent.catalogue.embedded import SMOLLM2
from agent.doctor.configuration import read_settings
from agent.doctor.database import check_database
from agent.doctor.findings import Finding
from agent.doctor.models import chosen, embedded, hub_cache, in_hub_cache
from agent.doctor.studio import check_studio, file_problems
from agent.doctor.tools import check_tools
from agent.settings import Settings

AS_ROOT = os.geteuid() == 0


def by_name(findings) -> dict[str, Finding]:
    return {each.name.partition(".")[2]: each for each in findings}


# The database


def database(path, **settings) -> dict[str, Finding]:
    return by_name(check_database(Settings(database=str(path), **settings), deep=False))


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    files = [each for each in folder.rglob("*") if each.is_file()]
    return {str(each): (each.stat().st_mtime_ns, each.stat().st_mode, each.read_bytes()) for each in files}


@pytest.fixture
def conversations(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "conversations.sqlite"
    with open_checkpointer(path):
        pass
    return path


def test_no_database_is_made(tmp_path: Path):
    path = tmp_path / "new" / "conversations.sqlite"
    assert database(path)["place"].verdict == "not used"
    assert list(tmp_path.iterdir()) == []


def test_a_sound_database_is_left_as_it_is(conversations: Path):
    before = snapshot(conversations.parent)
    found = database(conversations)
    assert {each.verdict for each in found.values()} == {"ok"}
    assert found["schema"].what == "schema 0003"
    assert snapshot(conversations.parent) == before


def test_a_database_that_is_being_written(conversations: Path):
    with open_checkpointer(conversations) as saver:
        saver.database.outside_transaction("CREATE TABLE later (x)")
        names = sorted(each.name for each in conversations.parent.iterdir())
        assert database(conversations)["integrity"].verdict == "ok"
        assert sorted(each.name for each in conversations.parent.iterdir()) == names


def test_rubbish(tmp_path: Path):
    path = tmp_path / "a file.sqlite"
    path.write_bytes(b"no database at all" * 100)
    path.chmod(0o600)
    found = database(path)["place"]
    assert found.verdict == "problem"
    assert f"mv '{path}'" in found.mend


def test_a_damaged_database(conversations: Path):
    # Every page but the first: the list of tables is there, and what they hold is not.
    content = bytearray(conversations.read_bytes())
    content[3 * 4096 :] = b"\xff" * (len(content) - 3 * 4096)
    conversations.write_bytes(content)
    found = database(conversations)
    problems = [each for each in found.values() if each.verdict == "problem"]
    assert problems
    assert all(each.mend for each in problems)


def test_a_newer_database(conversations: Path):
    with sqlite3.connect(conversations) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    found = database(conversations)["schema"]
    assert found.verdict == "problem"
    assert "pip install --upgrade vllm-agent" in found.mend


def test_an_older_database_is_not_migrated(conversations: Path):
    with sqlite3.connect(conversations) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    connection.close()
    before = snapshot(conversations.parent)
    assert database(conversations)["schema"].verdict == "warning"
    assert snapshot(conversations.parent) == before


def test_another_programs_database(tmp_path: Path):
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE checkpoints (x)")
    connection.close()
    assert "checkpoints" in database(path)["schema"].what


def test_who_else_can_read_it(conversations: Path):
    conversations.chmod(0o644)
    found = database(conversations)["permissions"]
    assert (found.verdict, found.mend) == ("warning", f"chmod 600 {conversations}")


@pytest.mark.skipif(AS_ROOT, reason="root may read everything")
def test_an_unreadable_database(conversations: Path):
    conversations.chmod(0)
    assert database(conversations)["place"].verdict == "problem"


def test_an_unreadable_database_as_the_system_says_it(conversations: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "access", lambda path, mode, **_: Path(path) != conversations)
    found = database(conversations)
    assert list(found) == ["place"]
    assert "chmod u+rw" in found["place"].mend


def test_a_directory_and_a_wrong_address(tmp_path: Path):
    # A directory gets the default name of the file, which is one here too.
    (tmp_path / "conversations.sqlite").mkdir()
    assert "is a directory" in database(tmp_path)["place"].what
    found = database("postgresql+nonsense://user:secret@host/name")["place"]
    assert found.verdict == "problem"
    assert "secret" not in repr(found)


def test_a_postgres_that_is_not_there():
    pytest.importorskip("psycopg")
    found = database("postgresql://me:secret@127.0.0.1:1/name")["place"]
    assert found.verdict == "problem"
    assert "is the server running" in found.what
    assert "secret" not in repr(found)


def test_a_key_of_the_wrong_length(tmp_path: Path, install):
    found = database(tmp_path / "x", encryption_key="short-secret")["encryption"]
    assert "pip install 'vllm-agent[encryption]'" in found.mend
    install("pycryptodome", "3.23")
    found = database(tmp_path / "x", encryption_key="short-secret")["encryption"]
    assert "12 bytes" in found.what
    assert "short-secret" not in repr(found)


# Models


def test_the_embedded_model_before_it_is_there(tmp_path: Path):
    found = embedded(tmp_path, used=True)
    assert found.verdict == "not used"
    assert found.mend.endswith("-m agent.catalogue.embedded")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_embedded_model(tmp_path: Path):
    entry = SMOLLM2.entry(tmp_path)
    entry.make(lambda staging: (staging / "model.safetensors").write_bytes(b"x" * 100) and None)
    assert embedded(tmp_path, used=True).verdict == "ok"
    (entry.directory / "model.safetensors").write_bytes(b"x" * 50)
    before = snapshot(tmp_path)
    found = embedded(tmp_path, used=True)
    assert found.verdict == "warning"
    assert "has 50 bytes instead of 100" in found.what
    assert snapshot(tmp_path) == before


def test_a_large_file_that_was_touched_is_neither_hashed_nor_changed(tmp_path: Path):
    entry = SMOLLM2.entry(tmp_path)
    entry.make(lambda staging: (staging / "model.safetensors").write_bytes(bytes(9 * 2**20)) and None)
    file = entry.directory / "model.safetensors"
    file.write_bytes(b"y" + bytes(9 * 2**20 - 1))
    os.utime(file, ns=(1, 1))
    assert embedded(tmp_path, used=True).verdict == "ok"
    assert embedded(tmp_path, used=True, verify=True).verdict == "warning"
    assert file.stat().st_mtime_ns == 1


def test_the_hubs_cache(tmp_path: Path):
    assert next(in_hub_cache(tmp_path)).verdict == "not used"
    blobs = tmp_path / "models--Qwen--Qwen3-8B" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "abc.incomplete").write_bytes(b"x")
    listed, cut = in_hub_cache(tmp_path)
    assert "Qwen/Qwen3-8B (0.00 GiB)" in listed.what
    assert (cut.verdict, cut.mend) == ("warning", "hf download Qwen/Qwen3-8B")
    assert chosen("Qwen/Qwen3-8B", tmp_path).verdict == "ok"
    assert chosen("Qwen/Other", tmp_path).mend == "hf download Qwen/Other"
    assert chosen(str(tmp_path), tmp_path).verdict == "problem"
    assert chosen("/not/there", tmp_path).verdict == "problem"


def test_where_the_hubs_cache_is():
    assert hub_cache({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}) == Path("/a")
    assert hub_cache({"HF_HOME": "/b"}) == Path("/b/hub")
    assert hub_cache({"XDG_CACHE_HOME": "/c"}) == Path("/c/huggingface/hub")


# Tools


def tools(tmp_path: Path, text: str, **settings) -> dict[str, Finding]:
    file = tmp_path / "tools.toml"
    file.write_text(text)
    return by_name(check_tools(Settings(tools_config=file, **settings), deep=False))


def test_a_broken_tools_file(tmp_path: Path):
    assert "is no TOML" in tools(tmp_path, "modules = [")["file"].what
    found = tools(tmp_path, 'modulos = ["x"]')["file"]
    assert (found.verdict, "modules" in found.what) == ("problem", True)
    assert str(tmp_path / "tools.toml") in found.mend
    missing = by_name(check_tools(Settings(tools_config=tmp_path / "none.toml"), deep=False))
    assert missing["file"].verdict == "problem"


def test_mcp_servers_are_not_started(tmp_path: Path, install):
    mark = tmp_path / "started"
    text = f'[mcp.a]\ncommand = "touch"\nargs = ["{mark}"]\n[mcp.b]\ncommand = "no-such-server"\n'
    assert "vllm-agent[mcp]" in tools(tmp_path, text)["mcp.a"].mend
    install("mcp", "2.4.0")
    found = tools(tmp_path, text, tools=("a_tool", "nothing"))
    assert (found["mcp.a"].verdict, found["mcp.b"].verdict) == ("ok", "problem")
    assert "'nothing'" in found["chosen"].what
    assert not mark.exists()


# Studio


def test_the_studio_file_of_this_repository_is_valid():
    assert list(file_problems(Path(__file__).parents[3] / "langgraph.json")) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("{}", "names no graphs"),
        ('{"graphs": {"a": "./graph.py:nothing"}}', "defines no 'nothing'"),
        ('{"graphs": {"a": {"path": "./none.py:x"}}}', "none.py cannot be read"),
        ('{"graphs": {"a": 5}}', "not of the form"),
    ],
)
def test_a_broken_studio_file(tmp_path: Path, install, text, said):
    (tmp_path / "graph.py").write_text("def graph(): ...\n")
    (tmp_path / "langgraph.json").write_text(text)
    found = by_name(check_studio(tmp_path))
    assert found["server"].verdict == "not used"
    assert (found["file"].verdict, said in found["file"].what) == ("problem", True), found["file"]


# Settings


def test_broken_settings_are_left_out(tmp_path: Path):
    config = tmp_path / "config.toml"
    config.write_text("model = [")
    settings, found = read_settings(
        {}, environment={"VLLM_AGENT_CONFIG": str(config), "VLLM_AGENT_MODEL": "mine"}
    )
    assert settings.model == "mine"
    problem = by_name(found)["values"]
    assert (problem.verdict, str(config) in problem.mend) == ("problem", True)


def test_a_wrong_variable(tmp_path: Path):
    environment = {"VLLM_AGENT_CONFIG": os.devnull, "VLLM_AGENT_MAX_STEPS": "none", "VLLM_AGENT_MODLE": "x"}
    _, found = read_settings({}, environment=environment)
    assert by_name(found)["values"].mend == "unset VLLM_AGENT_MAX_STEPS"
    assert "did you mean VLLM_AGENT_MODEL?" in by_name(found)["variable"].what


def test_secrets_are_not_shown(tmp_path: Path):
    config = tmp_path / "config.toml"
    config.write_text("api_key = 12345678\n")
    config.chmod(0o644)
    environment = {"VLLM_AGENT_CONFIG": str(config), "VLLM_AGENT_ENCRYPTION_KEY": "hidden"}
    _, found = read_settings({}, environment=environment)
    assert "12345678" not in repr(found)
    assert "hidden" not in repr(found)
    assert by_name(found)["file"].mend == f"chmod 600 {config}"
