"""Counting tokens without an engine: the model's own tokenizer, read from disk.

It costs some hundredths of a second once, where starting an engine costs many seconds and gigabytes.
"""

from __future__ import annotations

import functools
import os
from typing import Protocol


class Tokenizer(Protocol):
    """What is used of ``tokenizers.Tokenizer``."""

    def encode(self, sequence: str, *, add_special_tokens: bool) -> Encoding:
        """Split a text into tokens."""
        ...


class Encoding(Protocol):
    """A text as tokens."""

    @property
    def ids(self) -> list[int]:
        """The tokens' numbers."""
        ...


@functools.lru_cache(maxsize=8)
def tokenizer_on_disk(model: str, download_dir: str | None) -> Tokenizer | None:
    """Return the tokenizer of a model, None where it is not here or not in a form that can be read alone.

    Args:
        model: A directory, or a hub id that was downloaded before. Nothing is downloaded.
        download_dir: Where weights from the hub are stored; None for the hub's own cache.
    """
    try:
        from tokenizers import Tokenizer as FastTokenizer
    except ImportError:  # it comes with vLLM
        return None
    path = _tokenizer_file(model, download_dir)
    if path is None:
        return None
    try:
        return FastTokenizer.from_file(path)
    except Exception:  # a file of another version; the library raises plain Exception
        return None


def _tokenizer_file(model: str, download_dir: str | None) -> str | None:
    if os.path.isdir(model := os.path.expanduser(model)):  # as the engine takes it
        path = os.path.join(model, "tokenizer.json")
        return path if os.path.isfile(path) else None
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    found = try_to_load_from_cache(model, "tokenizer.json", cache_dir=download_dir)
    return found if isinstance(found, str) else None
