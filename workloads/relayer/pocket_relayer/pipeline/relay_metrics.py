"""Prometheus metrics per relay, separate for simulated relays.

Source: relay-lifecycle.md, section 12.
"""

import functools
from abc import ABC, abstractmethod

from pocket_relayer import relayer_metrics
from pocket_relayer.limits.rejection import Rejected
from pocket_relayer.metric_batches import BatchedCounter, BatchedHistogram
from pocket_relayer.pipeline.relay import AdmissibleRelay, TransportInfo
from pocket_relayer.pipeline.sliding_window import SlidingWindowStats, is_our_failure


class RelayMetrics(ABC):
    """Records the metrics of one kind of relay."""

    def __init__(self, recent: SlidingWindowStats) -> None:
        self.recent = recent

    @abstractmethod
    def received(self, relay: AdmissibleRelay) -> None:
        """Count a decoded relay."""

    @abstractmethod
    def _rejected(self, rejected: Rejected, caller: TransportInfo, service_id: str, supplier: str) -> None: ...

    @abstractmethod
    def _served(self, relay: AdmissibleRelay, seconds: float | None) -> None: ...

    @abstractmethod
    def answered(self, relay: AdmissibleRelay, seconds: float, outcome: str, retries: int) -> None:
        """Record the backend's share of a relay.

        `outcome` is success, client_error or the reason of a rejection.
        """

    @abstractmethod
    def stage(self, name: str, seconds: float) -> None:
        """Record the duration of a stage in seconds."""

    def rejected(self, rejected: Rejected, caller: TransportInfo, relay: AdmissibleRelay | None) -> None:
        """Count a rejected relay, once, where it leaves the pipeline."""
        if is_our_failure(rejected):
            self.recent.failed()
        service_id, supplier = (relay.service.id, relay.supplier) if relay else (rejected.service_id, "")
        self._rejected(rejected, caller, service_id, supplier)

    def served(self, relay: AdmissibleRelay, seconds: float | None = None) -> None:
        """Count a signed response. A response over a WebSocket has no duration."""
        self.recent.served(seconds)
        self._served(relay, seconds)


# One batch for each series: services and transports are those of the configuration, so these are few.
@functools.cache
def _latency(service_id: str) -> BatchedHistogram:
    return BatchedHistogram(relayer_metrics.LATENCY.labels(service_id))


@functools.cache
def _backend_latency(service_id: str) -> BatchedHistogram:
    return BatchedHistogram(relayer_metrics.BACKEND_LATENCY.labels(service_id))


@functools.cache
def _stage(name: str) -> BatchedHistogram:
    return BatchedHistogram(relayer_metrics.STAGES.labels(name))


@functools.cache
def _answer(service_id: str, outcome: str) -> BatchedCounter:
    return BatchedCounter(relayer_metrics.ANSWERS.labels(service_id, outcome))


@functools.cache
def mined_series(service_id: str) -> BatchedCounter:
    """Return the counter of a service's relays that were recorded."""
    return BatchedCounter(relayer_metrics.MINED.labels(service_id))


class _ServiceSeries:
    """The series of one service and transport, looked up once."""

    def __init__(self, service_id: str, rpc_type: str) -> None:
        self.received = BatchedCounter(relayer_metrics.RECEIVED.labels(service_id, rpc_type))
        self.served = BatchedCounter(relayer_metrics.SERVED.labels(service_id, rpc_type))
        self.latency = _latency(service_id)
        self.backend_latency = _backend_latency(service_id)


_series_of = functools.cache(_ServiceSeries)


class PaidRelayMetrics(RelayMetrics):
    """Records the metrics of relays that are charged and mined."""

    def received(self, relay: AdmissibleRelay) -> None:
        """Count a decoded relay."""
        _series_of(relay.service.id, relay.rpc_type).received.inc()

    def _rejected(self, rejected: Rejected, caller: TransportInfo, service_id: str, supplier: str) -> None:
        relayer_metrics.REJECTED.labels(service_id, caller.transport.value, rejected.reason.label).inc()

    def _served(self, relay: AdmissibleRelay, seconds: float | None) -> None:
        series = _series_of(relay.service.id, relay.rpc_type)
        series.served.inc()
        if seconds is not None:
            series.latency.observe(seconds)

    def answered(self, relay: AdmissibleRelay, seconds: float, outcome: str, retries: int) -> None:
        """Record the backend's share of a relay."""
        service_id = relay.service.id
        _series_of(service_id, relay.rpc_type).backend_latency.observe(seconds)
        _answer(service_id, outcome).inc()
        if retries:
            relayer_metrics.RETRIES.labels(service_id).inc(retries)

    def stage(self, name: str, seconds: float) -> None:
        """Record the duration of a stage in seconds."""
        _stage(name).observe(seconds)


class SimulatedRelayMetrics(RelayMetrics):
    """Records the metrics of simulated relays in their own families."""

    def received(self, relay: AdmissibleRelay) -> None:
        """Count nothing: a simulated relay is counted by its result only."""

    def _rejected(self, rejected: Rejected, caller: TransportInfo, service_id: str, supplier: str) -> None:
        relayer_metrics.SIMULATED.labels(service_id, caller.transport.value, supplier, rejected.reason.label).inc()

    def _served(self, relay: AdmissibleRelay, seconds: float | None) -> None:
        relayer_metrics.SIMULATED.labels(relay.service.id, relay.caller.transport.value, relay.supplier, "served").inc()
        if seconds is not None:
            relayer_metrics.SIMULATED_LATENCY.labels(relay.service.id, relay.caller.transport.value).observe(seconds)

    def answered(self, relay: AdmissibleRelay, seconds: float, outcome: str, retries: int) -> None:
        """Count nothing: it would mix with real traffic."""

    def stage(self, name: str, seconds: float) -> None:
        """Count nothing."""
