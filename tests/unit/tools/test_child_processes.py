"""Commands in child processes: limits that hold, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from process_watch import gone

from tools import processes
from tools.processes import Limits, enforceable, run_process

LIBRARIES = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", sys.prefix, sys.base_prefix)
NOTHING = Limits(network=False, children=False, readable=LIBRARIES, writable=())


async def written(file: Path) -> None:
    for _ in range(2400):
        if file.exists():  # noqa: ASYNC240
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"{file} was not written")


async def python(code: str, limits: Limits, *, seconds: float = 60) -> str:
    ended = await run_process([sys.executable, "-I", "-c", code], limits=limits, seconds=seconds)
    return ended.output.decode()


async def test_output_errors_input_and_status():
    ended = await run_process(["sh", "-c", "cat; echo err >&2; exit 3"], stdin=b"in\n")
    assert (ended.output, ended.status, ended.written) == (b"in\nerr\n", 3, 7)
    killed = await run_process(["sh", "-c", "kill -9 $$"])
    assert killed.status == 128 + signal.SIGKILL
    missing = await run_process(["/nothing/like/it"])
    assert missing.status == 127
    assert b"cannot be started" in missing.output


async def test_a_command_that_does_not_read_its_input_is_no_error():
    assert (await run_process(["true"], stdin=b"x" * 10_000_000)).status == 0


async def test_much_output_is_read_to_the_end_and_kept_from_its_beginning():
    ended = await run_process(["sh", "-c", "echo begin; head -c 5000000 /dev/zero"], max_output=1000)
    assert ended.output.startswith(b"begin")
    assert (len(ended.output), ended.written, ended.status) == (1000, 5_000_006, 0)


async def test_at_its_time_all_that_was_started_is_killed():
    for seconds in (1, 5, 25):  # on a busy machine it says little in a second
        ended = await run_process(["sh", "-c", "sleep 300 & echo $!; sleep 300"], seconds=seconds)
        assert ended.status is None
        if ended.output.endswith(b"\n"):
            break
    assert await gone(int(ended.output))


async def test_what_stays_in_the_background_is_killed_when_the_command_ends():
    ended = await run_process(["sh", "-c", "sleep 300 & echo $!"])
    assert ended.status == 0
    assert await gone(int(ended.output))


async def test_what_others_open_while_a_command_ends_stays_open(monkeypatch):
    opened: list[int] = []

    async def end(*arguments: Any) -> int:
        opened.extend(os.pipe())  # gets the numbers that were free a moment ago
        return await collect(*arguments)

    collect = processes._end
    monkeypatch.setattr(processes, "_end", end)
    assert (await run_process(["true"])).status == 0
    for descriptor in opened:
        os.close(descriptor)  # an error if it is closed already


async def test_cancelling_kills(tmp_path):
    file = tmp_path / "pid"
    task = asyncio.create_task(
        run_process(["sh", "-c", f"echo $$ > {file}.new; mv {file}.new {file}; sleep 300"])
    )
    await written(file)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await gone(int(file.read_text()))


async def test_nothing_outlives_a_process_that_is_killed(tmp_path):
    file = tmp_path / "pid"
    code = (
        "import asyncio\nfrom tools.processes import run_process\n"
        f"asyncio.run(run_process(['sh', '-c', 'echo $$ > {file}.new; mv {file}.new {file}; sleep 300']))"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    try:
        await written(file)
    finally:
        parent.kill()
        await parent.wait()
    assert await gone(int(file.read_text()))


async def test_no_descriptor_and_no_process_is_left():
    await run_process(["true"])
    before = psutil.Process().num_fds()
    for _ in range(3):
        await run_process(["sh", "-c", "sleep 300 & true"], seconds=30)
    assert psutil.Process().num_fds() <= before
    assert not [each for each in psutil.Process().children(recursive=True) if each.name() == "sleep"]


async def test_memory_and_processor_time_are_limited():
    text = await python("x = bytearray(1 << 30)", Limits(memory=300 << 20))
    assert "MemoryError" in text
    ended = await run_process([sys.executable, "-c", "while True: pass"], limits=Limits(cpu=1), seconds=60)
    assert ended.status in (128 + signal.SIGXCPU, 128 + signal.SIGKILL)


async def test_files_that_grow_too_large(tmp_path):
    code = f"open({str(tmp_path / 'big')!r}, 'wb').write(bytes(10_000_000))"
    await python(code, Limits(file_size=1_000_000))
    assert (tmp_path / "big").stat().st_size <= 1_000_000


# What cannot be enforced on a system is not claimed there: each part is tested where it is claimed, and on
# Linux, where the product says that it holds, nothing may be missing.


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason="not known to the filter of calls"
)
@pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are parts of Linux")
def test_linux_enforces_what_it_has():
    assert {"network", "processes"} <= enforceable()
    if "CI" in os.environ:  # elsewhere the kernel may have been built or started without Landlock
        assert "files" in enforceable()


@pytest.mark.skipif("files" not in enforceable(), reason="this system cannot limit files")
async def test_only_named_files_can_be_opened(tmp_path):
    (tmp_path / "secret").write_text("hidden")
    (tmp_path / "link").symlink_to("/etc/passwd")
    mine = tmp_path / "mine"
    mine.mkdir()
    code = (
        "import os\n"
        "def attempt(work):\n"
        "    try: work(); print('BROKE OUT')\n"
        "    except OSError as error: print(type(error).__name__)\n"
        f"attempt(lambda: open({str(tmp_path / 'secret')!r}))\n"
        f"attempt(lambda: open({str(mine / '../secret')!r}))\n"
        f"attempt(lambda: os.listdir({str(tmp_path)!r}))\n"
        "os.symlink('/etc/passwd', 'to-passwd'); attempt(lambda: open('to-passwd'))\n"
        f"attempt(lambda: os.link({str(tmp_path / 'secret')!r}, 'hard')); attempt(lambda: open('hard'))\n"
        "attempt(lambda: open('/proc/%d/environ' % os.getppid()))\n"
        f"attempt(lambda: open({str(tmp_path / 'new')!r}, 'w'))\n"
        f"attempt(lambda: os.rename('to-passwd', {str(tmp_path / 'moved')!r}))\n"
        "open('here', 'w').write('x'); print(open('here').read())"
    )
    limits = Limits(network=False, children=False, readable=LIBRARIES, writable=(str(mine),))
    ended = await run_process([sys.executable, "-I", "-c", code], limits=limits, cwd=str(mine))
    lines = ended.output.decode().split()
    assert len(lines) == 10, ended.output
    assert "OUT" not in lines
    assert lines[-1] == "x"


@pytest.mark.skipif("network" not in enforceable(), reason="this system cannot limit the network")
@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK", "AF_PACKET"])
async def test_no_socket_can_be_made(family):
    code = f"import socket; socket.socket(socket.{family}, socket.SOCK_RAW)"
    assert "Permission denied" in await python(code, NOTHING)
    allowed = Limits(children=False)
    assert "OSError" not in await python("import socket; socket.socket()", allowed)


@pytest.mark.skipif("network" not in enforceable(), reason="this system cannot limit the network")
async def test_no_network_through_a_child_or_the_other_numbering_of_calls():
    limits = Limits(network=False)
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import socket; socket.socket()'])"
    text = await python(code, limits)
    assert "Permission denied" in text
    call = "import ctypes; libc = ctypes.CDLL(None, use_errno=True); print(libc.syscall({}, 2, 1, 0))"
    assert (await python(call.format("0x40000000 + 41"), limits)).strip() == "-1"
    assert (await python(call.format("425"), limits)).strip() == "-1"  # io_uring makes sockets by itself


@pytest.mark.skipif("processes" not in enforceable(), reason="this system cannot limit processes")
@pytest.mark.parametrize(
    "attack",
    [
        "os.fork()",
        "subprocess.run(['/bin/true'])",
        "os.kill(os.getppid(), 9)",
        "os.killpg(os.getpgid(os.getppid()), 9)",
        "os.setsid()",
        "signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 9)",
        "[os.fork() for _ in iter(int, 1)]",
    ],
)
async def test_no_process_is_started_and_none_is_signalled(attack):
    text = await python(f"import os, signal, subprocess\n{attack}\nprint('BROKE OUT')", NOTHING)
    assert "not permitted" in text
    assert "BROKE OUT" not in text


@pytest.mark.skipif("processes" not in enforceable(), reason="this system cannot limit processes")
async def test_threads_are_allowed():
    code = "import threading; t = threading.Thread(target=print, args=('ran',)); t.start(); t.join()"
    assert await python(code, NOTHING) == "ran\n"


def test_the_launcher_needs_nothing_but_the_standard_library():
    launcher = Path(__file__).parents[3] / "tools" / "launcher.py"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import runpy; runpy.run_path({str(launcher)!r})"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
