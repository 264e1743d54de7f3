"""What runs of graphs do, for those who operate them: metrics, traces, structured logs. Off until asked for.

One observer (:mod:`.observer`) turns LangChain's callbacks and the saver's writes into activities
(:mod:`.activities`); each of :mod:`.metrics` (Prometheus), :mod:`.tracing` (OpenTelemetry) and :mod:`.logs`
writes them down in its own way. Nothing that was said is recorded: names, ids, times, token counts, outcomes.

In a program of one's own::

    observer = RunObserver([Metrics(), Tracing()])
    saver.observer = observer.checkpoint_write
    graph.invoke(question, {"callbacks": [observer], "configurable": {"thread_id": "t"}})

The command line does the same where the settings ``metrics_port`` or ``otlp_traces_endpoint`` are set.
"""

from agent.telemetry.activities import Activity, Sink
from agent.telemetry.logs import ActivityLog, JsonFormatter
from agent.telemetry.metrics import Metrics
from agent.telemetry.observer import RunObserver
from agent.telemetry.opening import open_telemetry
from agent.telemetry.tracing import Tracing

__all__ = [
    "Activity",
    "ActivityLog",
    "JsonFormatter",
    "Metrics",
    "RunObserver",
    "Sink",
    "Tracing",
    "open_telemetry",
]
