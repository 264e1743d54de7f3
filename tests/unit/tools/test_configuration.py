"""The TOML file of tools: all sources, and errors that name the place."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
from pathlib import Path

import pytest

from tools import ToolRegistrationError, load_registry, policy_of

CHILD = str(Path(__file__).with_name("mcp_child.py"))
TOOL = 'from tools import tool\n@tool\ndef {name}() -> str:\n    "Say it."\n    return "{name}"\n'
TOOLKIT = (
    "from langchain_core.tools import BaseToolkit, tool\n"
    "class Kit(BaseToolkit):\n"
    "    word: str\n"
    "    def get_tools(self):\n"
    "        def say() -> str:\n"
    "            'Say the word.'\n"
    "            return self.word\n"
    "        return [tool(say)]\n"
)


def write(folder: Path, text: str) -> Path:
    file = folder / "tools.toml"
    file.write_text(text)
    return file


def test_all_sources_in_one_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.py").write_text(TOOL.format(name="mine"))
    (tmp_path / "kit_module_of_test.py").write_text(TOOLKIT)
    file = write(
        tmp_path,
        'modules = ["./mine.py"]\n'
        '[toolkits."kit_module_of_test:Kit"]\nword = "hello"\n'
        f'[mcp.it]\ncommand = "{sys.executable}"\nargs = ["{CHILD}", "stdio"]\n'
        "[policies.mine]\ntimeout = 3\nretries = 1\napproval = true\n"
        "retry_on = ['ConnectionError', 'json.JSONDecodeError']\n"
        "[policies.it_add]\ntimeout = 7\n",
    )
    registry = load_registry(file)
    try:
        assert {"mine", "say", "it_add", "calculator"} <= set(registry.names)
        assert registry.get("say").invoke({}) == "hello"
        assert policy_of(registry.get("mine")).retry_on == (ConnectionError, json.JSONDecodeError)
        assert policy_of(registry.get("it_add")).timeout == 7
        assert registry.describe("say").source == "toolkit kit_module_of_test:Kit"
    finally:
        registry.close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("modules = 3 4", "line 1, column"),
        ("modles = []", r"unknown key 'modles'\. Did you mean modules"),
        ("modules = 'x'", "modules must be a list"),
        ("modules = ['nothing_like_it']", "modules: module nothing_like_it"),
        ("[policies]\ncalculator = 3", r"policies\.calculator must be a table"),
        ("[policies.calculator]\ntimout = 3", r"policies\.calculator: unknown key 'timout'"),
        ("[policies.calculator]\ntimeout = -1", r"policies\.calculator: timeout=-1"),
        ("[policies.calculator]\ntimeout = 'x'", r"policies\.calculator: "),
        ("[policies.calculator]\nretry_on = ['Nothing']\nretries = 1", "'Nothing'"),
        ("[policies.calculator]\nretry_on = ['no_such.Error']\nretries = 1", "cannot be imported"),
        ("[policies.calculator]\nretry_on = 'OSError'\nretries = 1", "must be a list"),
        ("[policies.calculator]\nretry_on = ['json.loads']\nretries = 1", "is no exception"),
        ("[mcp.a]\nurl = 3", r"mcp\.a: url must be a text"),
        ("[mcp.a]\ncommand = 'x'\nargs = 'y'", "args must be a list"),
        ("[mcp.a]\ncommand = 'x'\ntimeout = 'y'", r"mcp\.a: "),
        ("[mcp.a]\n", "either command or url"),
        ("[toolkits.nonsense]\n", "package.module:Class"),
        ('[toolkits."nothing_like_it:Kit"]\n', "needs the module 'nothing_like_it'"),
    ],
)
def test_errors_name_the_file_and_the_key(tmp_path, text, words):
    file = write(tmp_path, text)
    with pytest.raises(ToolRegistrationError, match=words) as caught:
        load_registry(file)
    assert str(file) in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(ToolRegistrationError, match=r"nothing\.toml"):
        load_registry(tmp_path / "nothing.toml")


def test_built_in_tools_that_reach_further_are_there_when_they_are_configured(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("Elephants.")
    sqlite3.connect(tmp_path / "shop.db").execute("create table town(name text)").connection.close()
    further = {"sql_query", "sql_schema", "fetch_page", "run_command", "run_python", "search_documents"}
    plain = load_registry(write(tmp_path, ""))
    assert not further & set(plain.names)
    file = write(
        tmp_path,
        '[builtin.sql]\nurl = "sqlite:///shop.db"\n[builtin.web]\n[builtin.python]\n'
        '[builtin.shell]\ndirectory = "."\n[builtin.documents]\nfolder = "docs"\n'
        '[builtin.files]\nroot = "docs"\n'
        "[policies.run_command]\napproval = false\ntimeout = 3\n",
    )
    registry = load_registry(file)
    assert further <= set(registry.names)
    assert (
        registry.get("sql_schema").invoke({}) == "town(name TEXT)"
    )  # relative to the file, as all paths in it
    assert registry.get("list_files").invoke({}) == "a.md (10 bytes)"
    assert registry.describe("run_command").policy.approval
    assert registry.describe("run_command").policy.timeout == 3
    assert "builtin" in registry.describe("run_python").source


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[builtin.sqll]\nurl = 'sqlite:///a'", "sqll"),
        ("[builtin.sql]\nurll = 'sqlite:///a'", r"builtin\.sql: unknown option 'urll'\. Did you mean url"),
        ("[builtin.sql]\n", r"builtin\.sql: .*url"),
        ("[builtin.sql]\nurl = 'nonsense'", r"builtin\.sql: .*no address"),
        ("[builtin.shell]\ndirectory = 'none'", r"builtin\.shell: .*does not exist"),
        ("[builtin.documents]\nfolder = 'none'", r"builtin\.documents: .*does not exist"),
        ("[builtin.web]\ntimeout = 'x'", r"builtin\.web: "),
        ("exclude = ['builtin']\n[builtin.web]", "excluded"),
        ("builtin = 3", "builtin must be a table"),
    ],
)
def test_a_built_in_tool_that_is_configured_wrong_is_an_error(tmp_path, text, words):
    file = write(tmp_path, text)
    with pytest.raises(ToolRegistrationError, match=words) as caught:
        load_registry(file)
    assert str(file) in str(caught.value)


def test_the_file_that_the_readme_shows(tmp_path):
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    (text,) = re.findall(r"```toml\n(.*?)```", readme, flags=re.DOTALL)
    started = f'command = "{sys.executable}"\nargs = ["{CHILD}", "stdio"] #'
    file = write(tmp_path, text.replace('command = "search-server"', started))
    for folder in ("docs", "work"):
        (tmp_path / folder).mkdir()
    (tmp_path / "my_tools.py").write_text(TOOL.format(name="mine"))
    registry = load_registry(file)
    try:
        shown = {
            "mine",
            "search_add",
            "sql_query",
            "fetch_page",
            "search_documents",
            "run_python",
            "run_command",
        }
        assert shown <= set(registry.names)
        assert registry.describe("calculator").policy.timeout == 5
        assert registry.problems == ()
    finally:
        registry.close()
