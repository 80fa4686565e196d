"""OpenTelemetry tracing: a span per relay, and `traceparent` for the backend.

It is on if the extra `tracing` is installed and OTEL_EXPORTER_OTLP_ENDPOINT names a collector. OTEL_TRACES_SAMPLER and
the other variables of the SDK apply too. Otherwise every hook is empty. Attributes name service, transport, supplier
and session, but no payload and no key.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import structlog
from structlog.typing import FilteringBoundLogger

from pocket_relayer.limits.rejection import Rejected
from pocket_relayer.pipeline.relay import AdmissibleRelay

_LOG: FilteringBoundLogger = structlog.get_logger()


class Span(Protocol):
    """Span of one relay."""

    def stage(self, name: str) -> None:
        """Add the event that a stage has ended: admitted, answered, recorded."""

    def headers(self) -> Mapping[str, str]:
        """Return the headers by which the backend's spans join."""


class Tracing(Protocol):
    """Creates spans."""

    def relay(self, relay: AdmissibleRelay) -> AbstractContextManager[Span]:
        """Return the span of one relay. A rejection that leaves it becomes its status."""

    def close(self) -> None:
        """Export what is left."""


class _NoTracing:
    """Tracing that does nothing."""

    def stage(self, name: str) -> None:
        """Do nothing."""

    def headers(self) -> Mapping[str, str]:
        """Return no headers."""
        return {}

    def relay(self, _: AdmissibleRelay) -> "_NoTracing":
        """Return the span that does nothing."""
        return self

    def close(self) -> None:
        """Do nothing."""

    def __enter__(self) -> "_NoTracing":
        return self

    def __exit__(self, *_: object) -> None:
        return None


NO_TRACING: Tracing = _NoTracing()


class _Span:
    def __init__(self, span: Any, inject: Callable[[dict[str, str]], None]) -> None:
        self._span = span
        self._inject = inject

    def stage(self, name: str) -> None:
        """Add the event that a stage has ended."""
        self._span.add_event(name)

    def headers(self) -> Mapping[str, str]:
        """Return the headers by which the backend's spans join."""
        headers: dict[str, str] = {}
        self._inject(headers)
        return headers


class OpenTelemetry:
    """Tracing through a tracer provider of the SDK."""

    def __init__(self, provider: Any) -> None:
        from opentelemetry.trace import StatusCode  # noqa: PLC0415 - an optional extra
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415 - an optional extra
            TraceContextTextMapPropagator,
        )

        self._provider = provider
        self._tracer = provider.get_tracer("pocket.relayer")
        self._error = StatusCode.ERROR
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def relay(self, relay: AdmissibleRelay) -> Iterator[Span]:
        """Return the span of one relay, a child of the gateway's own `traceparent`."""
        parent = self._propagator.extract({name.lower(): value for name, value in relay.caller.headers.items()})
        attributes = {
            "pocket.service": relay.service.id, "pocket.rpc_type": relay.rpc_type, "pocket.supplier": relay.supplier,
            "pocket.transport": relay.caller.transport.value, "pocket.session": relay.header.session_id,
            "pocket.simulated": bool(relay.simulated),
        }  # fmt: skip
        with self._tracer.start_as_current_span(
            "relay", context=parent, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield _Span(span, self._propagator.inject)
            except Rejected as rejected:
                span.set_attribute("pocket.reason", rejected.reason.label)
                span.set_status(self._error, rejected.reason.label)
                raise

    def close(self) -> None:
        """Export what is left."""
        self._provider.shutdown()


def tracing_from(environment: Mapping[str, str], worker: int) -> Tracing:
    """Return the tracing that the environment asks for.

    Logs why if it is asked for and not available.
    """
    if not (environment.get("OTEL_EXPORTER_OTLP_ENDPOINT") or environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")):
        return NO_TRACING
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an optional extra
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an optional extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - an optional extra
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - an optional extra
    except ImportError:
        _LOG.warning("tracing is off: OpenTelemetry is not installed. Install the extra 'tracing'")
        return NO_TRACING
    name = environment.get("OTEL_SERVICE_NAME", "relayer")
    resource = Resource.create({"service.name": name, "pocket.worker": worker})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return OpenTelemetry(provider)
