"""How many bytes a quantised weight takes, and whether vLLM runs the method on a card.

Bytes are those of the stored integers with their scales and zero points, spread over the weights.
Embeddings, the output head, norms and towers stay as they are unless a checkpoint says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.catalogue.tensors import Role
from agent.errors import ConfigurationError, FitError

_DENSE = frozenset({Role.LINEAR, Role.EXPERT})
_PROJECTIONS = frozenset({Role.LINEAR, Role.EXPERT, Role.STATE})


@dataclass(frozen=True, slots=True)
class Quantization:
    """One way to store weights."""

    name: str
    """As a person asks for it."""
    bytes_per_weight: float
    roles: frozenset[Role] = _PROJECTIONS
    """Which tensors it touches."""
    capability: int = 75
    """The least compute capability, times ten (``get_min_capability`` of vLLM's own classes)."""
    plugin: str | None = None
    """A package that vLLM 0.32 needs beside itself."""
    argument: str | None = None
    """The value of ``--quantization`` that makes vLLM quantise an unquantised checkpoint while it loads."""
    cache_dtype: str | None = None
    """The cache type that the checkpoint forces."""

    def width(self, role: Role, native: int) -> float:
        """Bytes of one weight."""
        return self.bytes_per_weight if role in self.roles else native


def _four_bits(group: int, *, zero_points: bool) -> float:
    """4 bits, a 16-bit scale for each group, and with them a 4-bit zero point."""
    return 0.5 + 2 / group + (0.5 / group if zero_points else 0)


_BITSANDBYTES = "vllm-bnb-plugin"
_GGUF = "vllm-gguf-plugin"
KNOWN = {
    known.name: known
    for known in (
        Quantization("awq", _four_bits(128, zero_points=True)),
        Quantization("gptq", _four_bits(128, zero_points=True), capability=60),
        Quantization("w4a16", _four_bits(128, zero_points=False), capability=70),
        Quantization("fp8", 1.0, argument="fp8"),
        Quantization("int8", 1.0, capability=75),
        Quantization("nvfp4", 0.5 + 1 / 16, capability=75),
        Quantization("mxfp4", 0.5 + 1 / 32, roles=frozenset({Role.EXPERT}), capability=80),
        Quantization("mxfp8", 1 + 1 / 32, capability=80, argument="mxfp8"),
        Quantization(
            "bitsandbytes", 0.5 + 4 / 64, plugin=_BITSANDBYTES, argument="bitsandbytes", capability=70
        ),
        Quantization(
            "gguf", 4.85 / 8, roles=frozenset({*_PROJECTIONS, Role.EMBEDDING, Role.HEAD}), plugin=_GGUF
        ),
    )
}
_OTHER_NAMES = {
    **dict.fromkeys(("auto_awq", "awq_marlin"), "awq"),
    **dict.fromkeys(("auto_gptq", "gptq_marlin"), "gptq"),
    **dict.fromkeys(("modelopt_fp4", "nvfp4_per_token"), "nvfp4"),
    **dict.fromkeys(("fp8_per_tensor", "fp8_per_block", "fbgemm_fp8", "modelopt"), "fp8"),
    **dict.fromkeys(("experts_int8", "int8_per_channel_weight_only"), "int8"),
    **dict.fromkeys(("gpt_oss_mxfp4",), "mxfp4"),
    **dict.fromkeys(("modelopt_mxfp8",), "mxfp8"),
    **dict.fromkeys(("bnb", "bitsandbytes-4bit"), "bitsandbytes"),
    **dict.fromkeys(("int4",), "w4a16"),
}


def named(name: str) -> Quantization:
    """The method that a person means.

    Raises:
        ConfigurationError: There is none of that name.
    """
    found = KNOWN.get(_OTHER_NAMES.get(name.lower(), name.lower()))
    if found is None:
        msg = f"quantization {name!r} is not known here; known are {', '.join(sorted(KNOWN))}"
        raise ConfigurationError(msg)
    return found


def of_checkpoint(config: Mapping[str, Any]) -> Quantization | None:
    """The method that a checkpoint's configuration names; None for an unquantised one.

    Raises:
        FitError: The method is not known here, or its numbers are missing.
    """
    given = config.get("quantization_config") or config.get("compression_config")
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise FitError("`quantization_config` in config.json is no object")
    method = str(given.get("quant_method") or given.get("quant_algo") or "").lower()
    readers: dict[str, Callable[[Mapping[str, Any]], Quantization]] = {
        "awq": _integers,
        "gptq": _integers,
        "fp8": _floats,
        "fbgemm_fp8": _floats,
        "compressed-tensors": _compressed,
        "bitsandbytes": _bitsandbytes,
        "mxfp4": lambda given: KNOWN["mxfp4"],
        "gguf": lambda given: KNOWN["gguf"],
    }
    if method in readers:
        return readers[method](given)
    if method.startswith(("modelopt", "nvfp4")) or method == "fp8":
        return _modelopt(given)
    msg = f"the quantisation {method or 'without a name'!r} in config.json is not known here"
    raise FitError(msg)


def _integers(given: Mapping[str, Any]) -> Quantization:
    method = str(given["quant_method"]).lower()
    bits, group = (
        given.get("bits") or given.get("w_bit"),
        given.get("group_size") or given.get("q_group_size"),
    )
    if not isinstance(bits, int) or not isinstance(group, int) or bits < 1:
        raise FitError(f"the {method} quantisation in config.json needs `bits` and `group_size`")
    zeros = bits / 8 / group if group > 0 and not given.get("sym", False) else 0
    per_weight = bits / 8 + (2 / group + zeros if group > 0 else 0)
    return Quantization(method, per_weight, capability=KNOWN[method].capability, roles=_roles(given))


def _floats(given: Mapping[str, Any]) -> Quantization:
    block = given.get("weight_block_size")
    sizes = block if isinstance(block, list) and len(block) == 2 else [0, 0]
    scales = 4 / (sizes[0] * sizes[1]) if all(isinstance(each, int) and each > 0 for each in sizes) else 0.0
    return Quantization("fp8", 1 + scales, roles=_roles(given))


def _compressed(given: Mapping[str, Any]) -> Quantization:
    """compressed-tensors: any number of groups of layers; the first says how weights are stored."""
    groups = given.get("config_groups")
    kinds = list(groups.values()) if isinstance(groups, Mapping) else []
    weights = next((group.get("weights") for group in kinds if isinstance(group, Mapping)), None)
    bits = weights.get("num_bits") if isinstance(weights, Mapping) else None
    if not isinstance(weights, Mapping) or not isinstance(bits, int) or bits < 1:
        raise FitError(
            "`quantization_config` says compressed-tensors, but no `config_groups` with `num_bits`"
        )
    group = weights.get("group_size")
    group = group if isinstance(group, int) and group > 0 else None
    cache = given.get("kv_cache_scheme")
    forced = "fp8" if isinstance(cache, Mapping) and cache.get("num_bits") == 8 else None
    if weights.get("type") == "float" and bits == 4:
        per_weight, name = KNOWN["nvfp4"].bytes_per_weight, "nvfp4"
    else:
        zeros = 0.0 if weights.get("symmetric", True) else bits / 8 / (group or 1)
        per_weight = bits / 8 + (2 / group + zeros if group else 0)
        name = (
            f"w{bits}a16"
            if given.get("format") == "pack-quantized"
            else ("fp8" if bits == 8 else f"int{bits}")
        )
    return Quantization(name, per_weight, capability=70, roles=_roles(given), cache_dtype=forced)


def _bitsandbytes(given: Mapping[str, Any]) -> Quantization:
    if given.get("load_in_8bit"):
        return Quantization("bitsandbytes", 1.0, plugin=_BITSANDBYTES, capability=70)
    return KNOWN["bitsandbytes"]


def _modelopt(given: Mapping[str, Any]) -> Quantization:
    algorithm = str(given.get("quant_algo") or given.get("quantization", {}).get("quant_algo") or "").upper()
    known = {"FP8": "fp8", "NVFP4": "nvfp4", "MXFP8": "mxfp8"}.get(algorithm)
    if known is None:
        raise FitError(
            f"the modelopt quantisation in config.json has the algorithm {algorithm!r}, not known here"
        )
    cache = "fp8" if str(given.get("kv_cache_quant_algo") or "").upper() == "FP8" else None
    base = KNOWN[known]
    return Quantization(base.name, base.bytes_per_weight, _roles(given), base.capability, cache_dtype=cache)


def _roles(given: Mapping[str, Any]) -> frozenset[Role]:
    """What the checkpoint quantises, without what it lists as left out."""
    listed = given.get("ignore") or given.get("modules_to_not_convert")
    left_out = " ".join(map(str, listed if isinstance(listed, list) else ()))
    roles = set(_PROJECTIONS)
    if "linear_attn" in left_out or "mamba" in left_out:
        roles.discard(Role.STATE)
    if given.get("lm_head"):
        roles.add(Role.HEAD)
    return frozenset(roles)
