"""Where relays are counted: real ones here, simulated ones there (relay-lifecycle.md, section 12)."""

from abc import ABC, abstractmethod

from pocket_relayer import relayer_metrics
from pocket_relayer.pipeline.relay import AdmissibleRelay, TransportInfo
from pocket_relayer.pipeline.sliding_window import SlidingWindowStats, is_our_failure
from pocket_relayer.rejection import Rejected


class RelayMetrics(ABC):
    """What is counted of a relay on its way."""

    def __init__(self, recent: SlidingWindowStats) -> None:
        self.recent = recent

    @abstractmethod
    def received(self, relay: AdmissibleRelay) -> None:
        """It was decoded."""

    @abstractmethod
    def _refused(self, rejected: Rejected, caller: TransportInfo, service_id: str, supplier: str) -> None: ...

    @abstractmethod
    def _served(self, relay: AdmissibleRelay, seconds: float | None) -> None: ...

    @abstractmethod
    def answered(self, relay: AdmissibleRelay, seconds: float, outcome: str, retries: int) -> None:
        """The backend's share, whatever came of it: success, client_error, or the reason of a refusal."""

    @abstractmethod
    def stage(self, name: str, seconds: float) -> None:
        """A part of a relay is over."""

    def refused(self, rejected: Rejected, caller: TransportInfo, relay: AdmissibleRelay | None) -> None:
        """Once, where it leaves the pipeline."""
        if is_our_failure(rejected):
            self.recent.failed()
        service_id, supplier = (relay.service.id, relay.supplier) if relay else (rejected.service_id, "")
        self._refused(rejected, caller, service_id, supplier)

    def served(self, relay: AdmissibleRelay, seconds: float | None = None) -> None:
        """A signed response went out; an answer over a WebSocket has no time of its own."""
        self.recent.served(seconds)
        self._served(relay, seconds)


class PaidRelayMetrics(RelayMetrics):
    """Of relays that are charged and mined."""

    def received(self, relay: AdmissibleRelay) -> None:
        """As Accounts."""
        relayer_metrics.RECEIVED.labels(relay.service.id, relay.rpc_type).inc()

    def _refused(self, rejected: Rejected, caller: TransportInfo, service_id: str, supplier: str) -> None:
        relayer_metrics.REJECTED.labels(service_id, caller.transport.value, rejected.reason.label).inc()

    def _served(self, relay: AdmissibleRelay, seconds: float | None) -> None:
        relayer_metrics.SERVED.labels(relay.service.id, relay.rpc_type).inc()
        if seconds is not None:
            relayer_metrics.LATENCY.labels(relay.service.id).observe(seconds)

    def answered(self, relay: AdmissibleRelay, seconds: float, outcome: str, retries: int) -> None:
        """As Accounts."""
        relayer_metrics.BACKEND_LATENCY.labels(relay.service.id).observe(seconds)
        relayer_metrics.ANSWERS.labels(relay.service.id, outcome).inc()
        if retries:
            relayer_metrics.RETRIES.labels(relay.service.id).inc(retries)

    def stage(self, name: str, seconds: float) -> None:
        """As Accounts."""
        relayer_metrics.STAGES.labels(name).observe(seconds)


class SimulatedRelayMetrics(RelayMetrics):
    """Of simulated relays: families of their own."""

    def received(self, relay: AdmissibleRelay) -> None:
        """Counted by its result only."""

    def _refused(self, rejected: Rejected, caller: TransportInfo, service_id: str, supplier: str) -> None:
        relayer_metrics.SIMULATED.labels(service_id, caller.transport.value, supplier, rejected.reason.label).inc()

    def _served(self, relay: AdmissibleRelay, seconds: float | None) -> None:
        relayer_metrics.SIMULATED.labels(relay.service.id, relay.caller.transport.value, relay.supplier, "served").inc()
        if seconds is not None:
            relayer_metrics.SIMULATED_LATENCY.labels(relay.service.id, relay.caller.transport.value).observe(seconds)

    def answered(self, relay: AdmissibleRelay, seconds: float, outcome: str, retries: int) -> None:
        """Not counted: it would mix with real traffic's."""

    def stage(self, name: str, seconds: float) -> None:
        """Not counted."""
