"""What graphs report of their work, in words: for the terminal and for the page alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_STOPPED = {
    "max_steps": "the limit of model calls for one question (--max-steps) is reached",
    "recursion_limit": "the limit of steps is reached",
    "repeated_calls": "the model repeats the same call with the same result",
    "malformed_calls": "the model's tool calls cannot be read",
}


def progress_lines(event: Mapping[str, Any]) -> list[str]:
    """What graphs that plan, delegate or search tell of their work, line by line.

    Args:
        event: One of :mod:`graphs.events`, or anything else that was written to the custom stream.
    """
    match event:
        case {"type": "planned", "steps": [_, *_] as steps}:
            return [f"{number}. {step}" for number, step in enumerate(steps, start=1)]
        case {"type": "step_started", "step": step}:
            return [f"now: {step}"]
        case {"type": "worker_started", "name": name, "task": task}:
            return [f"{name}: {task}"]
        case {"type": "retrieved", "query": query, "found": found}:
            return [f"searched for {query!r}: {found} found"]
        case {"type": "graded", "kept": kept, "dropped": dropped}:
            return [f"{kept} of {kept + dropped} help"]
    return []


def warning_line(event: Mapping[str, Any]) -> str | None:
    """What a reader should know of beside the answer; ``None`` if this event is nothing of the kind."""
    match event:
        case {"type": "turn_closing", "reason": reason}:
            return f"{_STOPPED.get(str(reason), reason)}: asking for a last answer"
        case {"type": "calls_repaired", "ids": ids}:
            return f"{len(ids)} tool call(s) of an earlier run had no result; the model is told so"
        case {"type": "context_trimmed", "dropped": dropped, "shortened": shortened}:
            return (
                f"the context is full: {dropped} old message(s) left out, "
                f"{shortened} tool result(s) shortened"
            )
        case {"type": "context_summarised", "covered": covered}:
            return f"the context is full: {covered} old message(s) were summarised"
    return None
