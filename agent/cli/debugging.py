"""``--debug`` and ``--log-format``: what the packages log, and the exact prompt of every request."""

from __future__ import annotations

import logging
import sys

_OURS = ("agent", "graphs", "tools")
_VLLM_REQUESTS = "vllm.entrypoints.serve.utils.request_logger"
"""Where vLLM logs requests when its engine argument ``enable_log_requests`` is set."""


class _JsonHandler(logging.StreamHandler):  # type: ignore[type-arg]  # of whatever stderr is
    """Writes an object a line."""


def show_logs(*, debug: bool, log_format: str | None) -> None:
    """Log on stderr.

    Args:
        debug: Everything of ours; else what runs, model calls and tool calls came to.
        log_format: ``text``, or ``json`` for one object a line.
    """
    as_json = log_format == "json"
    formatter = _formatter(as_json=as_json)
    for name in _OURS:
        _show(name, logging.DEBUG if debug else logging.INFO, formatter, as_json=as_json)


def read_by_programs() -> bool:
    """Whether stderr is a log in JSON: what is for people has no place there, above all what was said."""
    handlers = logging.getLogger(_OURS[0]).handlers
    return any(isinstance(each, _JsonHandler) for each in handlers) and not sys.stderr.isatty()


def debugging() -> bool:
    """Whether everything is logged."""
    return logging.getLogger(_OURS[0]).level == logging.DEBUG


def show_requests() -> None:
    """Log the requests of an engine that has started; vLLM resets its loggers while it is imported."""
    if debugging():
        [handler] = logging.getLogger(_OURS[0]).handlers
        as_json = isinstance(handler, _JsonHandler)
        _show(_VLLM_REQUESTS, logging.DEBUG, handler.formatter, as_json=as_json).addFilter(_readable)


def _readable(record: logging.LogRecord) -> bool:
    """Turn vLLM's record of a prompt into the prompt as the model sees it; leave out repetitions of it."""
    if "JSON body" in record.msg:
        return False
    if "details: prompt" in record.msg and isinstance(record.args, tuple):
        identity, prompt, tokens, _ = record.args
        record.msg, record.args = "prompt of request %s:\n%s", (identity, prompt or tokens)
    return True


def _show(name: str, level: int, formatter: logging.Formatter | None, *, as_json: bool) -> logging.Handler:
    handler = _JsonHandler() if as_json else logging.StreamHandler()
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
