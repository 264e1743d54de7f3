"""What servers this user has on this machine: one small file each, readable by nobody else.

The file holds the server's key, so its directory is closed to others (0700), and so is the file (0600). A
file outlives its server where that was killed; it counts only as long as the very process lives that it
names, which the time of the process's start tells from a later one with the same number.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from agent.errors import ConfigurationError
from agent.serving.watch import ID

_SUFFIX = ".json"
_FACTS = ".facts"
_LOG = ".log"


@dataclass(frozen=True, kw_only=True)
class ServerRecord:
    """One server."""

    id: str
    """Its name among this user's servers; it answers with it, so that nobody else's is taken for it."""

    model: str
    """Directory or hub id of the model."""

    arguments: Mapping[str, Any]
    """The engine arguments that were chosen for it, as ``vllm.EngineArgs`` names them."""

    url: str
    """``http://host:port``, as it is reached from this machine."""

    pid: int
    """Of its process, which leads a session of its own."""

    created: float
    """When that process began, as :func:`process_birth` says it."""

    machine: str
    """Where it runs: a home directory may be shared."""

    started: str
    """When it was started, in ISO 8601."""

    version: str
    """Of this package and of vLLM, when it was started."""

    warm: bool = False
    """Whether it was started by a command on its own account, and may make place for another one."""

    idle_minutes: float | None = None
    """It stops when nobody has asked it anything for so long; None for never."""

    one_process: bool = True
    """Whether its engine runs in the process itself. Engines of their own may outlive one that is killed."""

    http: bool = True
    """Whether it answers by HTTP at all."""

    keys: tuple[str, ...] = field(default=(), repr=False)
    """The API keys that it takes; none where it asks for none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", tuple(self.keys))

    @property
    def alive(self) -> bool:
        """Whether its process lives."""
        return self.machine == this_machine() and process_birth(self.pid) == self.created


class ServerDirectory:
    """The files of this user's servers.

    Args:
        path: The directory; it is made when it is needed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> Path:
        """Make the directory, closed to others, and return it.

        Raises:
            ConfigurationError: It cannot be made, or belongs to somebody else.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.path.stat()
            if found.st_uid != os.getuid():
                msg = f"{self.path} belongs to another user, who could read the keys of your servers there"
                raise ConfigurationError(f"{msg}: remove it, or set VLLM_AGENT_HOME to a directory of yours")
            if found.st_mode & 0o077:
                self.path.chmod(0o700)
        except OSError as error:
            msg = f"{self.path}, where running servers are noted, cannot be used: {error}"
            raise ConfigurationError(msg) from error
        return self.path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process at a time decide what to start; held for moments only."""
        from filelock import FileLock

        with FileLock(self.open() / "lock", mode=0o600):
            yield

    def write(self, record: ServerRecord) -> None:
        """Note a server."""
        path = self.open() / f"{record.id}{_SUFFIX}"
        part = path.with_suffix(".part")
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(asdict(record), file)
        part.replace(path)

    def holds(self, record: ServerRecord) -> bool:
        """Whether a server is still noted; one that lives and is not, is being stopped."""
        return (self.path / f"{record.id}{_SUFFIX}").exists()

    def remove(self, record: ServerRecord) -> None:
        """Forget a server; its log stays until the next look at the directory finds it old."""
        for suffix in (_SUFFIX, _FACTS):
            with suppress(OSError):
                (self.path / f"{record.id}{suffix}").unlink()

    def bury(self, record: ServerRecord) -> None:
        """Forget a server whose process has ended, and end the engines that it may have left behind."""
        if not record.one_process and record.machine == this_machine():
            _end_rest(record)
        self.remove(record)

    def records(self) -> list[ServerRecord]:
        """All servers of this machine whose process lives, the latest first; files of dead ones go."""
        found = []
        for path in self.path.glob(f"*{_SUFFIX}"):
            record = _read(path)
            if record is None or record.machine.split()[:1] != this_machine().split()[:1]:
                continue
            if record.alive:
                found.append(record)
            else:
                self.bury(record)
        return sorted(found, key=lambda record: record.started, reverse=True)

    def facts(self, record: ServerRecord) -> Path:
        """Where the server writes what it is, once it is loaded."""
        return self.path / f"{record.id}{_FACTS}"

    def log(self, identity: str) -> Path:
        """Where the output of the server of that id goes."""
        return self.path / f"{identity}{_LOG}"

    def remove_old_logs(self, *, before: float) -> None:
        """Remove logs that no server writes, and nobody has written since ``before`` (seconds since 1970)."""
        known = {record.id for record in self.records()}
        for path in self.path.glob(f"*{_LOG}"):
            with suppress(OSError):
                if path.stem not in known and path.stat().st_mtime < before:
                    path.unlink()


def _end_rest(record: ServerRecord) -> None:
    """Kill what a server started, which its id in the environment tells from all else."""
    import psutil

    left = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended, or is another user's
            if process.environ().get(ID) == record.id and process.pid != os.getpid():
                process.kill()
                left.append(process)
    psutil.wait_procs(left, timeout=10)


def process_birth(pid: int) -> float | None:
    """When a process began; None where there is none, or only what is left of one that nobody has asked for.

    On Linux in ticks since the boot, which no change of the clock moves (proc(5), field 22); elsewhere in
    seconds since 1970.
    """
    try:
        # The name of the program stands in brackets, and may hold spaces.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state == "Z" else float(fields[18])
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def this_machine() -> str:
    """A name of this machine that another one does not have, nor this one after its next start."""
    boot = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{platform.node()} {boot}".strip()


def _read(path: Path) -> ServerRecord | None:
    """The record in a file; None where it is no record of ours, or just being removed."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return ServerRecord(**{name: data[name] for name in _FIELDS if name in data})
    except (OSError, ValueError, TypeError):
        return None


_FIELDS = tuple(each.name for each in fields(ServerRecord))
