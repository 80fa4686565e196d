"""OpenTelemetry: one span a relay, with its stages as events, and `traceparent` for the backend.

It is on where the extra `tracing` is installed and OTEL_EXPORTER_OTLP_ENDPOINT names a collector (OTEL_TRACES_SAMPLER
and the other variables of the SDK hold, too); else every hook is empty. Attributes name service, transport, supplier
and session: no payload, no key.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from pocket_relayer.pipeline.relay import AdmissibleRelay
from pocket_relayer.rejection import Rejected

_LOG = logging.getLogger("pocket_relayer.pipeline.tracing")


class Span(Protocol):
    """What the pipeline says of a relay."""

    def stage(self, name: str) -> None:
        """A stage is over: proven, answered, recorded."""

    def headers(self) -> Mapping[str, str]:
        """For the backend, so that its spans join."""


class Tracing(Protocol):
    """Makes spans."""

    def relay(self, relay: AdmissibleRelay) -> AbstractContextManager[Span]:
        """The span of one relay; a refusal that leaves it is its status."""

    def close(self) -> None:
        """Exports what is left."""


class _Nothing:
    """Costs next to nothing."""

    def stage(self, name: str) -> None:
        """Nothing."""

    def headers(self) -> Mapping[str, str]:
        """None."""
        return {}

    def relay(self, _: AdmissibleRelay) -> "_Nothing":
        """Itself."""
        return self

    def close(self) -> None:
        """Nothing."""

    def __enter__(self) -> "_Nothing":
        return self

    def __exit__(self, *_: object) -> None:
        return None


NO_TRACING: Tracing = _Nothing()


class _Span:
    def __init__(self, span: Any, inject: Callable[[dict[str, str]], None]) -> None:
        self._span = span
        self._inject = inject

    def stage(self, name: str) -> None:
        """As Span."""
        self._span.add_event(name)

    def headers(self) -> Mapping[str, str]:
        """As Span."""
        found: dict[str, str] = {}
        self._inject(found)
        return found


class OpenTelemetry:
    """As Tracing, over a tracer provider of the SDK."""

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
        """As Tracing; a gateway's own `traceparent` is the parent."""
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
        """As Tracing."""
        self._provider.shutdown()


def tracing_from(environment: Mapping[str, str], worker: int) -> Tracing:
    """By the environment; says why where it is asked for and not there."""
    if not (environment.get("OTEL_EXPORTER_OTLP_ENDPOINT") or environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")):
        return NO_TRACING
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an optional extra
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an optional extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - an optional extra
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - an optional extra
    except ImportError:
        _LOG.warning("a collector is named, and this image has no OpenTelemetry: install the extra tracing")
        return NO_TRACING
    name = environment.get("OTEL_SERVICE_NAME", "relayer")
    resource = Resource.create({"service.name": name, "pocket.worker": worker})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return OpenTelemetry(provider)
