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


def test_a_database_in_the_home_directory(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    connection = sqlite3.connect(home / "shop.db")
    connection.execute("CREATE TABLE goods(name TEXT)")
    connection.close()
    schema = load_registry(write(tmp_path, '[builtin.sql]\nurl = "sqlite:///~/shop.db"\n')).get("sql_schema")
    assert schema.invoke({}) == "goods(name TEXT)"


def test_a_module_in_the_home_directory(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    (home / "mine.py").write_text(TOOL.format(name="mine"))
    assert "mine" in load_registry(write(tmp_path, "modules = ['~/mine.py']\n")).names


def test_a_name_that_begins_like_the_home_of_a_user(tmp_path, monkeypatch):
    (tmp_path / "~no-such-user.py").write_text(TOOL.format(name="mine"))
    connection = sqlite3.connect(tmp_path / "~no-such-user.db")
    connection.execute("CREATE TABLE towns(name)")
    connection.close()
    (tmp_path / "~no-such-user").mkdir()
    write(
        tmp_path,
        "modules = ['~no-such-user.py']\n[builtin.sql]\nurl = 'sqlite:///~no-such-user.db'\n"
        "[builtin.shell]\ndirectory = '~no-such-user'\n",
    )
    monkeypatch.chdir(tmp_path)
    registry = load_registry("tools.toml")
    assert {"mine", "run_command"} <= set(registry.names)
    assert "towns" in registry.get("sql_schema").invoke({})


def test_options_of_a_file_by_the_name_that_it_is_listed_under(tmp_path):
    (tmp_path / "made.py").write_text(
        "from tools import tool\n"
        "def build_tools(*, word):\n"
        "    @tool\n"
        "    def say() -> str:\n"
        "        'Say the word.'\n"
        "        return word\n"
        "    return [say]\n"
    )
    for name in ("made.py", "./made.py"):
        file = write(tmp_path, f'modules = ["{name}"]\n[options."{name}"]\nword = "hello"\n')
        assert load_registry(file).get("say").invoke({}) == "hello"


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
        (
            "[policies.write_fil]\napproval = true",
            r"policies\.write_fil: there is no tool 'write_fil'\. Did you mean write_file",
        ),
        ("[options.bultin]\nfiles_root = 'x'", r"options\.bultin: .*Did you mean builtin"),
        ("modules = ['a.py']\n[options.'b.py']\nword = 'x'", r"options\.b\.py"),
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


@pytest.mark.parametrize(
    "text",
    [
        "exclude = ['builtin']\n[policies.calculator]\napproval = true\n[options.builtin]\n",
        "[mcp.a]\nurl = 'http://127.0.0.1:9/mcp'\n[policies.a_search]\napproval = true\n",
    ],
)
def test_policies_and_options_of_what_is_not_there_now(tmp_path, text, caplog):
    assert "a_search" not in load_registry(write(tmp_path, text), servers=False).names
    assert "there is no tool" in caplog.text


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
        (
            "[builtin.shell]\ndirectory = '.'\nnetwork = 'false'",
            r"builtin\.shell: network='false' must be true or false",
        ),
        ("[builtin.python]\nmemory_mb = 0.5", r"memory_mb=0\.5 must be a whole number"),
        ("[builtin.files]\nmax_bytes = true", r"max_bytes=True must be a whole number"),
        ("[builtin.web]\ntimeout = '20'", r"timeout='20' must be a number"),
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
