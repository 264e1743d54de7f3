"""``--debug`` and ``--log-format``: what the packages log, and the exact prompt of every request."""

from __future__ import annotations

import logging

_OURS = ("agent", "graphs", "tools")
_VLLM_REQUESTS = "vllm.entrypoints.serve.utils.request_logger"
"""Where vLLM logs requests when its engine argument ``enable_log_requests`` is set."""


def show_logs(*, debug: bool, log_format: str | None) -> None:
    """Log on stderr.

    Args:
        debug: Everything of ours; else what runs, model calls and tool calls came to.
        log_format: ``text``, or ``json`` for one object a line.
    """
    formatter = _formatter(as_json=log_format == "json")
    for name in _OURS:
        _show(name, logging.DEBUG if debug else logging.INFO, formatter)


def debugging() -> bool:
    """Whether everything is logged."""
    return logging.getLogger(_OURS[0]).level == logging.DEBUG


def show_requests() -> None:
    """Log the requests of an engine that has started; vLLM resets its loggers while it is imported."""
    if debugging():
        formatter = logging.getLogger(_OURS[0]).handlers[0].formatter
        _show(_VLLM_REQUESTS, logging.DEBUG, formatter).addFilter(_readable)


def _readable(record: logging.LogRecord) -> bool:
    """Turn vLLM's record of a prompt into the prompt as the model sees it; leave out repetitions of it."""
    if "JSON body" in record.msg:
        return False
    if "details: prompt" in record.msg and isinstance(record.args, tuple):
        identity, prompt, tokens, _ = record.args
        record.msg, record.args = "prompt of request %s:\n%s", (identity, prompt or tokens)
    return True


def _show(name: str, level: int, formatter: logging.Formatter | None) -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logger = logging.getLogger(name)
    logger.setLevel(level)
    logger.handlers[:] = [handler]
    return handler


def _formatter(*, as_json: bool) -> logging.Formatter:
    if as_json:
        from agent.telemetry.logs import JsonFormatter

        return JsonFormatter()
    return logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S")
