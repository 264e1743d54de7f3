"""Python in its sandbox, and the usual ways out of one."""

from __future__ import annotations

import os
import tempfile
import threading

import pytest
from langchain_core.messages import ToolCall

from tools import ToolPolicy, acall, policy_of
from tools.builtin import build_python_tools, build_tools
from tools.processes import enforceable

WHOLE = enforceable() >= {"files", "network", "processes"}


async def text(code, **options):
    (tool,) = build_python_tools(**options)
    request = ToolCall(name="run_python", args={"code": code}, id="1", type="tool_call")
    return (await acall(tool, request, approved=True)).message.text


async def test_output_and_the_value_of_a_last_expression():
    assert await text("print(6 * 7)") == "42"
    assert await text("import math\nx = math.sqrt(16)\nx") == "4.0"
    assert await text("x = 1") == "(It printed nothing.)"
    assert await text("'Zürich 日本'") == "'Zürich 日本'"


async def test_errors_are_shown_with_their_line():
    shown = await text("a = 1\nb = a / 0")
    assert 'File "<code>", line 2' in shown
    assert "ZeroDivisionError" in shown
    assert shown.endswith("[It ended with status 1.]")
    assert "SyntaxError" in await text("def f(:")
    assert "EOFError" in await text("input()")
    assert await text("import sys; sys.exit(3)") == "[It ended with status 3.]"
    assert "status" in await text("half = '\ud83d'; 1 / 0")


async def test_nothing_stays_between_two_calls():
    await text("x = 1; open('kept', 'w').write('x')")
    assert "NameError" in await text("x")
    assert await text("import os; os.listdir()") == "[]"
    assert not [name for name in os.listdir(tempfile.gettempdir()) if name.startswith("python-tool-")]


async def test_the_event_loop_never_waits_for_the_disk(monkeypatch):
    threads = []
    for name in ("mkdir", "rmdir"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, real=real, **k: (threads.append(threading.get_ident()), real(*a, **k))[1]
        )
    await text("1")
    assert len(threads) == 2
    assert threading.get_ident() not in threads


@pytest.mark.skipif(not WHOLE, reason="where the system enforces less, the tool asks first (tested below)")
@pytest.mark.parametrize(
    "attack",
    [
        "open('/etc/passwd').read()",
        "open(__import__('os').path.expanduser('~root/.ssh/id_rsa'))",
        "open('/proc/%d/environ' % os.getppid())",
        "open('/proc/1/environ')",
        "open('/proc/%d/mem' % os.getppid(), 'r+b')",
        "os.listdir('/home')",
        "os.symlink('/etc/passwd', 'p'); open('p')",
        "open('/tmp/evil', 'w')",
        "open('/dev/shm/evil', 'w')",
        "os.chroot('.')",
        "os.mknod('disk', 0o60600, os.makedev(8, 0))",
        "os.setuid(1) or os.setuid(0)",
        "os.sethostname('evil')",
        "os.nice(-10)",
        "socket.create_connection(('127.0.0.1', 22))",
        "socket.socket(socket.AF_UNIX)",
        "socket.socketpair()[0].connect('/var/run/docker.sock')",
        "subprocess.run(['/bin/sh', '-c', 'true'])",
        "os.fork()",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.kill(os.getppid(), 9)",
        "os.kill(-1, 9)",
        "ctypes.CDLL(None, use_errno=True).ptrace(16, os.getppid(), 0, 0) < 0 and 1/0",
        "__builtins__.__import__('os').system('true') and 1/0",
        "().__class__.__base__.__subclasses__() and open('/etc/hostname')",
        "resource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6))",
    ],
)
async def test_ways_out_of_a_sandbox(attack):
    code = f"import ctypes, os, resource, socket, subprocess\n{attack}\nprint('BROKE ' + 'OUT')"
    shown = await text(code)
    assert "BROKE OUT" not in shown
    assert "[It ended with status" in shown


async def test_no_secret_and_no_working_directory_is_in_its_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "hunter2")
    monkeypatch.chdir(tmp_path)
    shown = await text("import os, sys\nprint(dict(os.environ), sys.path, sys.argv)")
    assert "hunter2" not in shown
    assert str(tmp_path) not in shown


async def test_modules_of_the_user_are_not_imported(tmp_path, monkeypatch):
    (tmp_path / "math.py").write_text("print('HIJACKED')")
    (tmp_path / "usercustomize.py").write_text("print('HIJACKED')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "math.py"))
    monkeypatch.chdir(tmp_path)
    assert await text("import math; math.floor(2.5)") == "2"


async def test_time_memory_and_output_are_limited():
    assert "longer than 1 s" in await text("import time; time.sleep(300)", timeout=1)
    assert "[It ended with status" in await text("while True: pass", cpu_seconds=1)
    assert "MemoryError" in await text("x = bytearray(10**9)", memory_mb=300)
    assert "MemoryError" in await text("x = 'a'\nwhile True: x += x", memory_mb=300)
    assert "are kept.]" in await text("while True: print('x' * 1000)", cpu_seconds=1, max_output=1000)
    assert "[It ended with" in await text("open('big', 'wb').write(bytes(10**7))", file_mb=1)
    assert "OSError" in await text("files = [open('/dev/null') for _ in range(100)]")


async def test_data_of_the_user_may_be_read_and_not_changed(tmp_path):
    (tmp_path / "data.csv").write_text("1,2")
    read = f"open({str(tmp_path / 'data.csv')!r}).read()"
    assert await text(read, readable=[str(tmp_path)]) == "'1,2'"
    if WHOLE:
        assert "PermissionError" in await text(read)
        write = f"open({str(tmp_path / 'data.csv')!r}, 'w')"
        assert "PermissionError" in await text(write, readable=[str(tmp_path)])
        (tmp_path / "other").mkdir()
        assert "PermissionError" in await text(
            read, readable=str(tmp_path / "other")
        )  # no list, but one path


async def test_where_less_is_enforced_it_asks_first_and_says_why(monkeypatch):
    (whole,) = build_python_tools()
    assert policy_of(whole).approval is not WHOLE
    monkeypatch.setattr("tools.builtin.shell.enforceable", lambda: frozenset({"processes"}))
    (tool,) = build_python_tools()
    assert "cannot limit its access to: files, network." in tool.description
    assert policy_of(tool).approval
    request = ToolCall(name="run_python", args={"code": "1"}, id="1", type="tool_call")
    assert "approval" in (await acall(tool, request, policy=ToolPolicy())).message.text


def test_it_is_there_when_it_is_configured(tmp_path):
    assert "run_python" not in {tool.name for tool in build_tools(files_root=tmp_path)}
    assert "run_python" in {tool.name for tool in build_tools(files_root=tmp_path, python={})}
