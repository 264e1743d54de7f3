"""A real PostgreSQL on loopback for tests and benchmarks: made, started, restarted and removed by us.

PostgreSQL refuses to run as root; there, it runs as the user ``postgres``, whom its package makes.
"""

from __future__ import annotations

import functools
import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

USER = "agent"
PASSWORD = "p@ss:w/rd 1"  # what has to be quoted in a URL, and must be in no message
_START_SECONDS = 120

MISSING = (
    "PostgreSQL is not installed, which these tests run for themselves: "
    "apt-get install postgresql (or put initdb and pg_ctl on the PATH)"
)


@functools.cache
def programs() -> Path | None:
    """The directory of ``initdb`` and ``pg_ctl``; the newest version's."""
    installed = Path("/usr/lib/postgresql").glob("*/bin")
    by_version = sorted(installed, key=lambda path: float(path.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    candidates = [*by_version, *([Path(on_path).parent] if on_path else [])]
    return next((path for path in candidates if (path / "pg_ctl").exists()), None)


@dataclass
class PostgresServer:
    """A running server."""

    port: int
    folder: Path
    user: str | None
    options: str
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def url(self, database: str = "postgres", *, password: str = PASSWORD, user: str = USER) -> str:
        """The address of a database."""
        return f"postgresql://{user}:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The address of a new empty database."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, statement: str, *, url: str | None = None) -> list[tuple[object, ...]]:
        """Run a statement as the superuser, outside of a transaction."""
        import psycopg

        with psycopg.connect(url or self.url(), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        self._control("start", "-o", self.options, "-l", str(self.folder / "log"))

    def stop(self) -> None:
        """Stop it as a power cut would: without asking anybody. Then nobody listens on its port."""
        self._control("stop", "-m", "immediate")
        # pg_ctl waits for a file of the server's to go, not for the last process that has its socket.
        deadline = time.monotonic() + _START_SECONDS
        while _listens(self.port):
            if time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL is stopped, and port {self.port} still takes connections")
            time.sleep(0.05)

    def restart(self) -> None:
        """Take it away from everybody in the middle of their work, and start it again."""
        self._control("restart", "-m", "immediate", "-o", self.options, "-l", str(self.folder / "log"))

    def _control(self, verb: str, *arguments: str) -> None:
        self.run("pg_ctl", verb, "-w", "-t", str(_START_SECONDS), "-D", str(self.folder / "data"), *arguments)

    def run(self, program: str, *arguments: str) -> None:
        directory = programs()
        assert directory is not None
        output = self.folder / f"{program}.log"  # a pipe would stay open for as long as the server runs
        with output.open("wb") as log:
            done = subprocess.run(
                [directory / program, *arguments],
                cwd=self.folder,
                user=self.user,
                group=None if self.user is None else pwd.getpwnam(self.user).pw_gid,
                extra_groups=None if self.user is None else [],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
                timeout=2 * _START_SECONDS,
                check=False,
            )
        if done.returncode:
            server = self.folder / "log"
            details = output.read_text() + (server.read_text()[-2000:] if server.exists() else "")
            raise RuntimeError(f"{program} {' '.join(arguments)} failed:\n{details}")


@contextmanager
def serve(*, durable: bool = False) -> Iterator[PostgresServer]:
    """Make a cluster, start it, and remove it with everything in it.

    Args:
        durable: Whether commits wait for the disk, as they do in earnest. Tests that kill the server do not
            need it: what the system has in its cache outlives a process.
    """
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    held = _held_port()
    server = PostgresServer(port=held.getsockname()[1], folder=folder, user=_unprivileged(), options="")
    try:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": server.port,
            "unix_socket_directories": folder,
            "fsync": "on" if durable else "off",
        }
        server.options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        password = folder / "password"
        password.write_text(PASSWORD)
        if server.user is not None:
            for path in (folder, password):
                shutil.chown(path, server.user)
        server.run(
            "initdb", "-D", str(folder / "data"), "-U", USER, "-A", "scram-sha-256", "-E", "UTF8",
            "--locale=C.UTF-8", "--no-sync", f"--pwfile={password}",
        )  # fmt: skip
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        held.close()
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged() -> str | None:
    """Who to run as: nobody else unless this is root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        pass  # somebody is there, and busy or leaving
    return True


def _held_port() -> socket.socket:
    """A port that nobody else is given while the server is away, not even as the near end of a connection.

    Clients that look for a server on a port of theirs may otherwise come to talk to themselves there.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held
