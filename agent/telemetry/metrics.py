"""Activities as Prometheus metrics, named ``vllm_agent_…``; the units are those of their names."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from agent.errors import ConfigurationError
from agent.telemetry.activities import Activity

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

INSTALL = 'pip install "vllm-agent[telemetry]"'

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_WRITES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)


class Metrics:
    """Counts and times activities.

    ===============================================  =========  =========================
    metric                                           type       labels
    ===============================================  =========  =========================
    ``vllm_agent_running``                           gauge      ``kind``
    ``vllm_agent_run_seconds``                       histogram  ``graph``, ``outcome``
    ``vllm_agent_step_seconds``                      histogram  ``graph``, ``node``, ``outcome``
    ``vllm_agent_model_call_seconds``                histogram  ``model``, ``outcome``
    ``vllm_agent_model_first_token_seconds``         histogram  ``model`` (streamed answers alone)
    ``vllm_agent_model_tokens_total``                counter    ``model``, ``kind``: input, cached, output
    ``vllm_agent_tool_call_seconds``                 histogram  ``tool``, ``outcome``
    ``vllm_agent_checkpoint_write_seconds``          histogram  ``method``, ``outcome``
    ===============================================  =========  =========================

    Args:
        registry: Where they are registered; by default Prometheus's own, where vLLM has its metrics too.

    Raises:
        ConfigurationError: ``prometheus_client`` is not installed.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        try:
            from prometheus_client import REGISTRY
        except ImportError as error:
            raise ConfigurationError(f"metrics need prometheus_client: {INSTALL}") from error
        self._of = _instruments(registry or REGISTRY)

    def begin(self, activity: Activity) -> None:
        """One more is running."""
        self._of["running"].labels(activity.kind).inc()

    def end(self, activity: Activity) -> None:
        """One less is; how long it took, and what it used."""
        self._of["running"].labels(activity.kind).dec()
        labels = [activity.name, activity.outcome]
        if activity.kind == "step":
            labels.insert(0, _graph(activity))
        self._of[activity.kind].labels(*labels).observe(activity.seconds)
        if activity.kind == "model":
            self._count(activity)

    def _count(self, activity: Activity) -> None:
        if activity.first_token is not None:
            waited = (activity.first_token - activity.started) / 1e9
            self._of["first_token"].labels(activity.name).observe(waited)
        used = {
            "input": activity.input_tokens,
            "cached": activity.cached_tokens,
            "output": activity.output_tokens,
        }
        for kind, number in used.items():
            self._of["tokens"].labels(activity.name, kind).inc(number)


def _graph(activity: Activity) -> str:
    """The graph that a step belongs to: the innermost run or step around it that is a graph."""
    return activity.parent.name if activity.parent is not None else ""


_LOCK = threading.Lock()
_MADE: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()


def _instruments(registry: CollectorRegistry) -> dict[str, Any]:
    """The metrics of a registry, which takes each name once."""
    with _LOCK:
        if registry not in _MADE:
            _MADE[registry] = _make(registry)
        return _MADE[registry]


def _make(registry: CollectorRegistry) -> dict[str, Any]:
    from prometheus_client import Counter, Gauge, Histogram

    def seconds(
        name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...] = _SECONDS
    ) -> Histogram:
        return Histogram(f"vllm_agent_{name}_seconds", text, labels, registry=registry, buckets=buckets)

    return {
        "running": Gauge("vllm_agent_running", "Activities under way.", ("kind",), registry=registry),
        "run": seconds("run", "Runs of a graph.", ("graph", "outcome")),
        "step": seconds("step", "Steps of a graph: one node each.", ("graph", "node", "outcome")),
        "model": seconds("model_call", "Calls of a model.", ("model", "outcome")),
        "first_token": seconds("model_first_token", "Until a streamed answer begins.", ("model",)),
        "tokens": Counter(
            "vllm_agent_model_tokens",
            "Tokens by kind; cached ones are part of the input.",
            ("model", "kind"),
            registry=registry,
        ),
        "tool": seconds("tool_call", "Attempts to run a tool.", ("tool", "outcome")),
        "checkpoint": seconds(
            "checkpoint_write", "Writes of the saver.", ("method", "outcome"), buckets=_WRITES
        ),
    }
