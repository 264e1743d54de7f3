"""From settings to an observer: a page of metrics, an exporter of traces, a log."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from agent.errors import ConfigurationError
from agent.telemetry.activities import Sink
from agent.telemetry.logs import ActivityLog, logger
from agent.telemetry.metrics import INSTALL, Metrics
from agent.telemetry.observer import RunObserver
from agent.telemetry.tracing import Tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

_LOOPBACK = "127.0.0.1"
_LAST_SECONDS = 2.0
"""For the spans that wait at the end; a collector that is not there, or silent, would take longer."""
_SERVICE_NAME = "OTEL_SERVICE_NAME"
_PROTOCOL = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"


@contextlib.contextmanager
def open_telemetry(
    *, metrics_port: int | None = None, otlp_traces_endpoint: str | None = None
) -> Iterator[RunObserver | None]:
    """Start what is asked for, and end it in good order: spans that wait are still sent.

    Args:
        metrics_port: Prometheus finds the metrics on this port of the loopback address, under ``/metrics``.
        otlp_traces_endpoint: Where a collector takes spans, for example ``http://localhost:4318/v1/traces``.
            By OTLP over HTTP; over gRPC if the environment's ``OTEL_EXPORTER_OTLP_TRACES_PROTOCOL`` is
            ``grpc``. OpenTelemetry's other variables (headers, timeouts, certificates) count too.

    Yields:
        The observer; ``None`` if nobody would look: no argument is given, and ``agent.telemetry`` is not
        logged.

    Raises:
        ConfigurationError: The port is taken, or a library is missing.
    """
    with contextlib.ExitStack() as stack:
        sinks: list[Sink] = []
        if metrics_port is not None:
            sinks.append(Metrics())
            stack.enter_context(_page(metrics_port))
        if otlp_traces_endpoint is not None:
            sinks.append(stack.enter_context(_exported(otlp_traces_endpoint)))
        if logger.isEnabledFor(logging.INFO):
            sinks.append(ActivityLog())
        yield RunObserver(sinks) if sinks else None


@contextlib.contextmanager
def _page(port: int) -> Iterator[None]:
    from prometheus_client import start_http_server

    try:
        server, thread = start_http_server(port, addr=_LOOPBACK)
    except OSError as error:
        raise ConfigurationError(
            f"metrics_port {port} cannot be used ({error.strerror}); choose another, or leave it out"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def _exported(endpoint: str) -> Iterator[Tracing]:
    try:
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigurationError(f"traces need opentelemetry-sdk: {INSTALL}") from error
    # A name given here would count more than one in the environment.
    name = {} if _SERVICE_NAME in os.environ else {SERVICE_NAME: "vllm-agent"}
    provider = TracerProvider(resource=Resource.create(name))
    exporter = _exporter(endpoint)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield Tracing(provider)
    finally:
        sending = threading.Thread(target=provider.shutdown, name="last-spans", daemon=True)
        sending.start()
        sending.join(_LAST_SECONDS)
        if sending.is_alive():
            exporter.shutdown()  # ends its waiting for the next try


def _exporter(endpoint: str) -> SpanExporter:
    if not endpoint.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"otlp_traces_endpoint {endpoint!r} is no address; use one like http://localhost:4318/v1/traces"
        )
    try:
        if os.environ.get(_PROTOCOL) == "grpc":
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as ByGrpc

            return ByGrpc(endpoint=endpoint)
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter(endpoint=endpoint)
    except ImportError as error:
        raise ConfigurationError(f"traces need opentelemetry-exporter-otlp: {INSTALL}") from error
