"""What vLLM remembers of engines that are gone.

Its caches live as long as the process. Most are small and serve the next engine as well; those that are
named here hold tokenizers. One of them does so by accident: it remembers by function whether a keyword may be
given, and the functions of a renderer's tokenizer hold the two copies that it is made of, so that each engine
that is closed would leave some 40 MB behind.
"""

from __future__ import annotations

from vllm.tokenizers.registry import cached_get_tokenizer
from vllm.transformers_utils.processor import cached_get_processor
from vllm.utils.func_utils import _supports_kw

HOLDING_TOKENIZERS = (_supports_kw, cached_get_tokenizer, cached_get_processor)
"""Caches of pure functions: what is forgotten is found out again."""


def forget_tokenizers() -> None:
    """Let go of the tokenizers of closed engines; running ones hold their own."""
    for function in HOLDING_TOKENIZERS:
        function.cache_clear()
