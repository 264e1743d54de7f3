"""The cards of this machine, asked of NVIDIA's management library or its command, and the memory of its CPU.

Neither loads CUDA: asking takes milliseconds and no memory on the card.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
from pathlib import Path

from agent.catalogue.cards import GIB, Card
from agent.errors import ConfigurationError

_QUERY = "name,memory.total,memory.free,compute_cap"
_SECONDS = 10
_NUMBERS = "CUDA_VISIBLE_DEVICES"
# CUDA reports less than the driver's total: what the driver keeps of a card of 16 GB.
_KEPT = 0.972


def machine_cards() -> list[Card]:
    """The NVIDIA cards of this machine that CUDA is allowed to use; none is no error."""
    return _visible(_installed())


def hidden_by() -> str:
    """What alone lets CUDA use none of the cards of this machine, as a shell says it; empty if nothing."""
    named = os.environ.get(_NUMBERS)
    found = _installed() if named is not None else []
    return f"{_NUMBERS}={named}" if found and not _visible(found) else ""


def _installed() -> list[Card]:
    found = _by_library()
    return _by_command() if found is None else found


def _visible(cards: list[Card]) -> list[Card]:
    """Those that ``CUDA_VISIBLE_DEVICES`` numbers, in its order; all where it has names in it."""
    named = os.environ.get(_NUMBERS)
    if named is None or any(word in named for word in ("GPU-", "MIG-")):
        return cards
    chosen = []
    for word in map(str.strip, named.split(",")):
        if not (word.isdecimal() and int(word) < len(cards)):
            break  # so CUDA takes it: what stands behind a wrong number is not seen
        chosen.append(cards[int(word)])
    return chosen


def this_machine(which: str) -> Card:
    """The first card (``auto``), or the CPU with its memory.

    Raises:
        ConfigurationError: There is no card.
    """
    if which == "cpu":
        return cpu()
    cards = machine_cards()
    if not cards:
        hidden = hidden_by()
        why = f"{hidden} hides them" if hidden else "neither nvidia-ml-py nor nvidia-smi finds one"
        msg = f"this machine shows no NVIDIA card ({why}): name one, or give cpu"
        raise ConfigurationError(msg)
    return cards[0]


def cpu() -> Card:
    """The CPU as a card: its memory, less what a control group allows."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = page * os.sysconf("SC_PHYS_PAGES")
    limit = _control_group_limit()
    total = min(total, limit) if limit else total
    free = min(total, _available() or page * os.sysconf("SC_AVPHYS_PAGES"))
    return Card("CPU", round(total / GIB, 2), 0, round(free / GIB, 2), seen=True, cpu=True)


def _available() -> int | None:
    """What a new process may take: free pages, and those that only hold files."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return int(found) * 1024 if found else None


def _control_group_limit() -> int | None:
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(file).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            return int(text)
    return None


def _by_library() -> list[Card] | None:
    """By NVML, where nvidia-ml-py is installed (vLLM for CUDA brings it); None where it is not."""
    try:
        import pynvml  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        cards = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
            name = pynvml.nvmlDeviceGetName(handle)
            name = name.decode() if isinstance(name, bytes) else str(name)
            cards.append(_card(name, memory.total / GIB, memory.free / GIB, major * 10 + minor))
        return cards
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _by_command() -> list[Card]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    return read_query(done.stdout)


def read_query(text: str) -> list[Card]:
    """The cards in the answer of ``nvidia-smi``; lines that say nothing are left out."""
    cards = []
    for row in csv.reader(io.StringIO(text), skipinitialspace=True):
        if len(row) != len(_QUERY.split(",")):
            continue
        name, total, free, capability = (cell.strip() for cell in row)
        try:
            major, _, minor = capability.partition(".")
            cards.append(
                _card(name, float(total) / 1024, float(free) / 1024, int(major) * 10 + int(minor or 0))
            )
        except ValueError:  # [N/A] of a card in an odd state
            continue
    return cards


def _card(name: str, total: float, free: float, capability: int) -> Card:
    usable = round(total * _KEPT, 2)
    return Card(name, usable, capability, round(min(free, usable), 2), seen=True)
