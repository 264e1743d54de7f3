# ruff: noqa: T201, S603
"""How set-up runs a command that takes a while, and shows how far it is."""

import os
import shutil
import subprocess
import sys
import threading
import time


class SetupError(Exception):
    """One line for the user: what is missing and what to do."""


class Stage:
    """A long command: its output goes into a log, and one line tells what it is doing.

    On a terminal that line is rewritten every second; elsewhere a new one is printed every 20 seconds.
    """

    def __init__(self, title: str, directory: str) -> None:
        """Name what is done for people; the log and temporary files go into ``directory``."""
        self.title = title
        self.doing = ""
        self.fetched = 0
        self.started = time.monotonic()
        self.live = sys.stderr.isatty()
        self.directory = directory
        self.log = os.path.join(directory, "setup.log")
        # Downloads land in TMPDIR. Here there is room for them, which /tmp often has not, and their sizes
        # are a progress that works with every version of pip.
        self.temporary = os.path.join(directory, "setup.tmp")

    def run(self, command: list) -> None:
        """Run it to its end; if it fails, raise SetupError with its own last words."""
        shutil.rmtree(self.temporary, ignore_errors=True)
        os.makedirs(self.temporary)
        if not self.live:
            print(f"  {self.title} …", file=sys.stderr, flush=True)
        ended = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(ended,), daemon=True)
        ticker.start()
        try:
            status, tail = self._follow(command)
        finally:
            ended.set()
            ticker.join()
        self._paint("failed" if status else "done", last=True)
        shutil.rmtree(self.temporary, ignore_errors=True)
        if status:
            raise SetupError(f"{self.title} failed: {last_words(tail)} (everything it said is in {self.log})")

    def _follow(self, command: list) -> tuple:
        """Exit status and last lines of the command."""
        tail = []
        process = subprocess.Popen(
            command,
            cwd=os.path.dirname(self.directory),
            env=dict(os.environ, TMPDIR=self.temporary, PYTHONUNBUFFERED="1"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # It inherits the lock, and so keeps it if set-up itself is killed.
            close_fds=False,
        )
        try:
            with open(self.log, "ab") as log:
                log.write("\n$ {}\n".format(" ".join(command)).encode())
                for line in process.stdout:
                    log.write(line)
                    text = line.decode(errors="replace").strip()
                    tail = [*tail[-40:], text] if text else tail
                    self._notice(text)
            return process.wait(), tail
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def _notice(self, line: str) -> None:
        """Take from a line of pip's output what it is doing now."""
        words = line.split()
        if line.startswith(("Collecting", "Downloading", "Processing")) and len(words) > 1:
            self.doing = os.path.basename(words[1]).split("-cp3")[0].split("-py3")[0]
        elif line.startswith("Installing collected packages"):
            self.doing = "unpacking {} packages".format(line.count(",") + 1)

    def _tick(self, ended: threading.Event) -> None:
        """Show it again and again until the command has ended."""
        while not ended.wait(1 if self.live else 20):
            self._paint(self.doing)

    def _paint(self, doing: str, last: bool = False) -> None:
        """Write the line."""
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        # pip moves files about, so what lies there now may be less than what came.
        self.fetched = max(self.fetched, megabytes_in(self.temporary))
        fetched = f"{self.fetched} MB fetched" if self.fetched else ""
        parts = [self.title, doing, fetched, f"{minutes}:{seconds:02d}"]
        text = "  " + " · ".join([part for part in parts if part])
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            print("\r\033[K" + text[:width], end="\n" if last else "", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)


def last_words(lines: list) -> str:
    """What a command said about its failure: pip's last error, or uv's error and its first cause."""
    starts = [number for number, line in enumerate(lines) if line.lower().startswith("error")]
    return "; ".join(lines[starts[-1] : starts[-1] + 2] if starts else lines[-1:]) or "it said nothing"


def megabytes_in(directory: str) -> int:
    """How much lies in a directory that another process is writing to."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                continue
    return total // 1_000_000
