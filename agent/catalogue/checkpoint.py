"""What is stored in a checkpoint: names, types and shapes of its tensors, read without reading a weight.

A safetensors file begins with eight bytes that say how long its header is, and the header is JSON.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import FitError

INDEX = "model.safetensors.index.json"
_LONGEST_HEADER = 100_000_000  # the format's own limit
_WIDTHS = {
    **dict.fromkeys(("F64", "I64", "U64"), 8.0),
    **dict.fromkeys(("F32", "I32", "U32"), 4.0),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2.0),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL"), 1.0),
    "F4": 0.5,
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a checkpoint."""

    name: str
    shape: tuple[int, ...]
    width: float
    """Bytes of one element."""
    integer: bool
    """Whether the elements are not floating-point numbers of 16 or more bits: packed weights, scales, ids."""


def header_length(first: bytes) -> int:
    """Bytes of the header of a safetensors file, from the file's first eight.

    Raises:
        FitError: This is no safetensors file.
    """
    length = struct.unpack("<Q", first)[0] if len(first) == 8 else 0
    if not 2 <= length <= _LONGEST_HEADER:
        raise FitError("this is no safetensors file: its first bytes are not the length of a header")
    return int(length)


def read_header(header: bytes) -> list[StoredTensor]:
    """The tensors that a header lists.

    Raises:
        FitError: The header is broken, or has a type that is not known here.
    """
    try:
        entries = json.loads(header)
        return [_tensor(name, entry) for name, entry in entries.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FitError(f"the header of a safetensors file is broken: {error}") from error


def _tensor(name: str, entry: Mapping[str, Any]) -> StoredTensor:
    kind = str(entry["dtype"])
    if kind not in _WIDTHS:
        raise FitError(f"the tensor {name} has the type {kind}, which is not known here")
    return StoredTensor(name, tuple(entry["shape"]), _WIDTHS[kind], kind not in ("F64", "F32", "F16", "BF16"))


def local_tensors(directory: Path) -> list[StoredTensor] | None:
    """The tensors of all safetensors files of a directory; None where there are none.

    Raises:
        FitError: A file is broken, or one that the index names is missing.
    """
    files = sorted(directory.glob("*.safetensors"))
    index = directory / INDEX
    if index.is_file():
        named = {directory / name for name in index_files(index.read_bytes())}
        missing = sorted(path.name for path in named if not path.is_file())
        if missing and files:
            raise FitError(f"{directory} lacks {', '.join(missing)}, which its index names")
        files = sorted(named) if not missing else []
    return [tensor for file in files for tensor in _file_tensors(file)] if files else None


def _file_tensors(path: Path) -> list[StoredTensor]:
    try:
        with path.open("rb") as file:
            return read_header(file.read(header_length(file.read(8))))
    except OSError as error:
        raise FitError(f"{path} cannot be read: {error}") from error
    except FitError as error:
        raise FitError(f"{path}: {error}") from error


def index_files(index: bytes) -> list[str]:
    """The files that an index names.

    Raises:
        FitError: The index is broken.
    """
    try:
        return sorted(set(json.loads(index)["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FitError(f"{INDEX} is broken: {error!r}") from error


def index_total(index: bytes) -> int | None:
    """Bytes of all tensors, as the index says."""
    try:
        total = json.loads(index)["metadata"]["total_size"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return int(total) if isinstance(total, int | float) and total > 0 else None
