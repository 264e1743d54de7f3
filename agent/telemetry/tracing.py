"""Activities as OpenTelemetry spans, with the names of its conventions for generative AI.

Source of the names: opentelemetry.io, semantic conventions, «GenAI spans» and «GenAI agent spans».
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.errors import ConfigurationError
from agent.telemetry.activities import Activity
from agent.telemetry.metrics import INSTALL

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

_NOTE = "span"


class Tracing:
    """Makes a span of each activity, under the span of what it is a part of.

    A run becomes a part of the span that is current where the graph is called, so that it stands in the trace
    of a web request, for example.

    Args:
        provider: Makes the tracer; by default OpenTelemetry's global one.

    Raises:
        ConfigurationError: OpenTelemetry is not installed.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        try:
            from opentelemetry import trace
        except ImportError as error:
            raise ConfigurationError(f"traces need opentelemetry-sdk: {INSTALL}") from error
        self._trace = trace
        self._tracer = trace.get_tracer("vllm_agent", tracer_provider=provider)

    def begin(self, activity: Activity) -> None:
        """Start its span."""
        around = activity.parent.notes.get(_NOTE) if activity.parent is not None else None
        activity.notes[_NOTE] = self._tracer.start_span(
            _title(activity),
            context=None if around is None else self._trace.set_span_in_context(around),
            kind=self._trace.SpanKind.CLIENT if activity.kind == "model" else self._trace.SpanKind.INTERNAL,
            start_time=activity.started,
            attributes=_known_at_begin(activity),
        )

    def end(self, activity: Activity) -> None:
        """End it."""
        span = activity.notes.pop(_NOTE)
        span.set_attributes(_known_at_end(activity))
        if activity.outcome == "error":
            span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, activity.error))
        span.end(end_time=activity.ended)


def _title(activity: Activity) -> str:
    match activity.kind:
        case "run":
            return f"invoke_agent {activity.name}"
        case "model":
            return f"chat {activity.name}"
        case "tool":
            return f"execute_tool {activity.name}"
        case "checkpoint":
            return f"checkpoint {activity.name}"
        case "step":
            return f"step {activity.name}"


def _known_at_begin(activity: Activity) -> dict[str, Any]:
    known: dict[str, Any] = {}
    if activity.thread_id is not None:
        known["gen_ai.conversation.id"] = activity.thread_id
    match activity.kind:
        case "run":
            known |= {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": activity.name}
        case "step":
            known["langgraph.node"] = activity.name
        case "model":
            known |= {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "vllm",
                "gen_ai.request.model": activity.name,
            }
        case "tool":
            known |= {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": activity.name}
            if activity.call_id:
                known["gen_ai.tool.call.id"] = activity.call_id
        case "checkpoint":
            pass
    return known


def _known_at_end(activity: Activity) -> dict[str, Any]:
    known: dict[str, Any] = {}
    if activity.kind == "model" and activity.outcome == "ok":
        known = {
            "gen_ai.usage.input_tokens": activity.input_tokens,
            "gen_ai.usage.output_tokens": activity.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": activity.cached_tokens,
        }
        if activity.finish_reason:
            known["gen_ai.response.finish_reasons"] = [activity.finish_reason]
        if activity.first_token is not None:
            waited = (activity.first_token - activity.started) / 1e9
            known["gen_ai.response.time_to_first_chunk"] = waited
    if activity.outcome == "interrupted":
        known["vllm_agent.interrupted"] = True
    if activity.error is not None:
        known["error.type"] = activity.error
    return known
