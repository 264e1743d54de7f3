"""What vLLM understands in a request, and other servers of OpenAI's API do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

VLLM_FIELDS: Mapping[str, Any] = {
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "ignore_eos": False,
    "structured_outputs": None,
    "chat_template_kwargs": None,
    "prompt_logprobs": None,
    "use_beam_search": False,
    "length_penalty": None,
    "min_tokens": 0,
    "stop_token_ids": None,
    "bad_words": None,
    "skip_special_tokens": True,
    "include_stop_str_in_output": False,
    "add_special_tokens": True,
    "allowed_token_ids": None,
    "thinking_token_budget": None,
    "include_reasoning": True,
    "priority": 0,
    "cache_salt": None,
    "truncate_prompt_tokens": None,
    "use_activation": None,
    "endianness": "little",
}
"""Fields that only vLLM has, with the value that means "as if it were not there"."""
