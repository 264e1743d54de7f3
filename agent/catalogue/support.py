"""Whether vLLM runs an architecture, by a copy of its registry (``architectures.toml``)."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, slots=True)
class Support:
    """What vLLM says about one architecture."""

    runs: bool
    """Whether it runs it as it is."""
    told: str = ""
    """Why not, or how."""


@cache
def registry() -> Mapping[str, Any]:
    """The copy: ``version``, ``supported``, ``removed``, ``plugins``."""
    return tomllib.loads(files("agent.catalogue").joinpath("architectures.toml").read_text("utf-8"))


def support_of(architecture: str) -> Support:
    """Look an architecture up."""
    known = registry()
    version = known["version"]
    if architecture in known["removed"]:
        last = known["removed"][architecture]
        return Support(False, f"vLLM ran {architecture} up to {last}, and {version} no longer does")
    if architecture in known["plugins"]:
        return Support(
            False, f"vLLM {version} runs {architecture} with a plugin only: {known['plugins'][architecture]}"
        )
    names = {name for group in known["supported"].values() for name in group}
    if architecture in names:
        backend = architecture in known["supported"]["transformers"]
        return Support(True, "run by vLLM's Transformers backend" if backend else "")
    # vLLM makes a classifier or a reward model out of any generator (`as_seq_cls_model`).
    for ending in ("ForSequenceClassification", "ForRewardModel", "ForTokenClassification"):
        if architecture.endswith(ending) and f"{architecture.removesuffix(ending)}ForCausalLM" in names:
            return Support(True, "made a classifier by vLLM")
    close = difflib.get_close_matches(architecture, names, n=1, cutoff=0.8)
    hint = f" (it runs {close[0]})" if close else ""
    return Support(False, f"vLLM {version} knows no architecture {architecture}{hint}")
