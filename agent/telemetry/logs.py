"""Activities as log records, and log records as JSON lines."""

from __future__ import annotations

import datetime
import json
import logging
from typing import Any

from agent.telemetry.activities import Activity

logger = logging.getLogger("agent.telemetry")

_FIELDS = "activity"
"""The attribute of a record that carries its fields."""


class ActivityLog:
    """Logs what has ended on ``agent.telemetry``: at INFO, or at WARNING if it failed.

    Single writes of the saver are logged at DEBUG, since there are several a step.
    """

    def begin(self, activity: Activity) -> None:
        """Say nothing yet."""

    def end(self, activity: Activity) -> None:
        """Log it."""
        level = logging.DEBUG if activity.kind == "checkpoint" else logging.INFO
        if activity.outcome == "error":
            level = logging.WARNING
        if logger.isEnabledFor(level):
            fields = _fields(activity)
            logger.log(
                level,
                "%s %s: %s after %.3f s",
                activity.kind,
                activity.name,
                activity.error or activity.outcome,
                activity.seconds,
                extra={_FIELDS: fields},
            )


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time`` (UTC, ISO 8601), ``level``, ``logger``, ``message``, and the fields of
    an activity (``kind``, ``name``, ``thread_id``, ``seconds``, ``outcome``, …)."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line of a record."""
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _fields(activity: Activity) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "kind": activity.kind,
        "name": activity.name,
        "graph": activity.run.name if activity.run.kind == "run" else None,
        "thread_id": activity.thread_id,
        "call_id": activity.call_id,
        "seconds": round(activity.seconds, 6),
        "outcome": activity.outcome,
        "error": activity.error,
    }
    if activity.kind == "model":
        fields |= {
            "input_tokens": activity.input_tokens,
            "cached_tokens": activity.cached_tokens,
            "output_tokens": activity.output_tokens,
            "finish_reason": activity.finish_reason,
        }
    return {name: value for name, value in fields.items() if value is not None}
