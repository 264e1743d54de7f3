"""``--debug``: what the packages log, and the exact prompt of every request."""

from __future__ import annotations

import logging

_OURS = ("agent", "graphs", "tools")
_VLLM_REQUESTS = "vllm.entrypoints.serve.utils.request_logger"
"""Where vLLM logs requests when its engine argument ``enable_log_requests`` is set."""


def show_debugging() -> None:
    """Log everything of ours on stderr."""
    for name in _OURS:
        _show(name)


def debugging() -> bool:
    """Whether :func:`show_debugging` was called."""
    return logging.getLogger(_OURS[0]).level == logging.DEBUG


def show_requests() -> None:
    """Log the requests of an engine that has started; vLLM resets its loggers while it is imported."""
    if debugging():
        _show(_VLLM_REQUESTS).addFilter(_readable)


def _readable(record: logging.LogRecord) -> bool:
    """Turn vLLM's record of a prompt into the prompt as the model sees it; leave out repetitions of it."""
    if "JSON body" in record.msg:
        return False
    if "details: prompt" in record.msg and isinstance(record.args, tuple):
        identity, prompt, tokens, _ = record.args
        record.msg, record.args = "prompt of request %s:\n%s", (identity, prompt or tokens)
    return True


def _show(name: str) -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.handlers[:] = [handler]
    return handler
