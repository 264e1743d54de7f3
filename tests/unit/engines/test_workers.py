"""The worker processes of an engine on several cards import the caller's script again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import multiprocessing
from agent.engines import EngineConfig, LocalEngine

def work():
    print("worked")

def start():
    engine = LocalEngine(EngineConfig.create({model!r}))
    engine.loop.run(engine.start())

if __name__ in {names!r}:
    start()
if __name__ == "__main__":
    worker = multiprocessing.get_context("spawn").Process(target=work)
    worker.start()
    worker.join()
    raise SystemExit(worker.exitcode)
"""


def run(tmp_path: Path, *names: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "config.json").write_text("{}")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(model=str(tmp_path), names=names))
    return subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)


def test_a_script_without_a_guard_is_told_so_by_its_workers(tmp_path: Path) -> None:
    done = run(tmp_path, "__mp_main__")  # the name under which a worker imports it
    assert done.returncode == 1
    assert 'if __name__ == "__main__":' in done.stderr
    assert done.stderr.rstrip().splitlines()[-1].startswith("agent.errors.ConfigurationError")


def test_a_script_with_a_guard_has_workers(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.returncode, done.stdout) == (0, "worked\n"), done.stderr
