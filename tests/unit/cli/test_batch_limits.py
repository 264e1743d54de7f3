"""A batch at its limits: odd lines, odd files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli_doubles import Terminal

from agent.batch.jobs import BadLine, Task, read_tasks
from agent.batch.output import Output
from agent.batch.ray_runner import RayRunner
from agent.errors import AgentError
from agent.settings import Settings

DIGESTS = {1: "a", 2: "b"}


def record(line: int) -> dict[str, Any]:
    return {"line": line, "input": DIGESTS[line], "error": None}


def test_a_line_with_a_number_that_python_does_not_read_stops_no_other() -> None:
    bad, good = read_tasks([b'{"id": ' + b"1" * 5000 + b"}", b'{"question": "Hi"}'])
    assert isinstance(bad, BadLine)
    assert (bad.line, bad.id) == (1, None)
    assert "no JSON" in bad.problem
    assert isinstance(good, Task)


def test_names_that_are_too_long_are_wrong_usage(terminal: Terminal, tmp_path: Path) -> None:
    tasks, long = tmp_path / "tasks.jsonl", str(tmp_path / ("x" * 300))
    tasks.write_text('{"question": "Hi"}')
    assert terminal.run("batch", long, str(tmp_path / "out.jsonl")).exit_code == 2
    terminal.script("Hi.")
    refused = terminal.run("batch", str(tasks), long, "--model", "scripted")
    assert refused.exit_code == 1
    assert "cannot be written: [Errno 36] File name too long" in refused.stderr


def test_an_output_behind_a_link_stays_there(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    real, link = tmp_path / "disk" / "real.jsonl", tmp_path / "out.jsonl"
    link.symlink_to(real)
    with Output(link, digests=DIGESTS) as output:
        output.append(record(2))
        output.append(record(1))
        output.settle(in_order=True, complete=True)
    assert link.is_symlink()
    assert [line[:10] for line in real.read_text().splitlines()] == ['{"line": 1', '{"line": 2']
    assert sorted(each.name for each in tmp_path.iterdir()) == ["disk", "out.jsonl"]


def test_a_disk_that_is_full_at_the_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with Output(tmp_path / "out.jsonl", digests=DIGESTS) as output:
        output.append(record(2))
        output.append(record(1))
        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(AgentError, match=r"No space left on device.*the same command goes on"):
            output.settle(in_order=True, complete=True)
    monkeypatch.undo()
    with Output(tmp_path / "out.jsonl", digests=DIGESTS) as output:
        assert [entry.line for entry in output.earlier] == [2, 1]


@pytest.mark.parametrize(("concurrency", "workers"), [(1, 4), (3, 4), (4, 4), (9, 4), (64, 8)])
def test_no_more_lines_run_at_once_on_a_cluster_than_allowed(concurrency: int, workers: int) -> None:
    settings = Settings(database="postgresql://host/name")
    runner = RayRunner(settings, batch="b", workers=workers, concurrency=concurrency)
    assert 1 <= runner._count * runner._per_worker <= concurrency
