"""The relay pipeline of all transports.

A relay is parsed, gets its session's context (all chain reads), is authorized (pure), charged, forwarded, signed and
recorded.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import ExitStack, aclosing, suppress
from dataclasses import dataclass
from typing import Any, Final

from pocket.api.services import Validation
from pocket.fast_init import fast_init
from pocket.keys.remote_signer import SigningKey
from pocket.protocol.relays.envelope import STREAM_DELIMITER, Headers, HttpResponse
from pocket.protocol.relays.messages import RelayResponse
from pocket_relayer.backends.responses import BackendResponse, BackendStream
from pocket_relayer.backends.service_registry import ServiceRegistry
from pocket_relayer.limits.rejection import Rejected, RejectionReason, first_rejected
from pocket_relayer.pipeline.admission import Admission
from pocket_relayer.pipeline.authorization import Admitted
from pocket_relayer.pipeline.in_flight import InFlight
from pocket_relayer.pipeline.metering import Meter, Metered
from pocket_relayer.pipeline.recording import RelayRecording
from pocket_relayer.pipeline.relay import AdmissibleRelay, TransportInfo, parse_relay
from pocket_relayer.pipeline.relay_metrics import PaidRelayMetrics, RelayMetrics, SimulatedRelayMetrics
from pocket_relayer.pipeline.signing import sign_payload
from pocket_relayer.pipeline.simulated_relays import SimulatedRelayAdmission
from pocket_relayer.pipeline.sliding_window import SlidingWindowStats
from pocket_relayer.pipeline.streaming import batches, collect
from pocket_relayer.pipeline.tracing import NO_TRACING, Span, Tracing

_LIMITS: Final = frozenset(
    {RejectionReason.BACKEND_TIMEOUT, RejectionReason.RESPONSE_TOO_LARGE, RejectionReason.OVERLOADED}
)
"""Limits of ours that end a stream. A refund would make every stream up to them free."""


@fast_init
@dataclass(frozen=True, slots=True)
class RelayResult:
    """The signed response for the gateway."""

    body: bytes
    retries: int = 0


@dataclass(frozen=True, slots=True)
class StreamedResult:
    """Signed responses for the gateway as they come, each followed by the delimiter.

    A relay whose iteration fails was not mined: its connection must be closed without an end.
    """

    status: int
    headers: Headers
    pieces: AsyncGenerator[bytes, None]


class RelayPipeline:
    """The pipeline that every transport calls. It has no connections of its own."""

    def __init__(
        self,
        *,
        registry: ServiceRegistry,
        admission: Admission,
        meter: Meter,
        recording: RelayRecording,
        simulations: SimulatedRelayAdmission,
        keys: Callable[[], Mapping[str, SigningKey]],
        height: Callable[[], int],
        clock: Callable[[], float],
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self.registry = registry
        self.height = height
        self.admission = admission
        self._meter = meter
        self._recording = recording
        self.simulations = simulations
        self._keys = keys
        self._clock = clock
        self._tracing = tracing
        self.recent = SlidingWindowStats(clock)
        self.in_flight = InFlight()
        self._paid, self._simulated = PaidRelayMetrics(self.recent), SimulatedRelayMetrics(self.recent)

    def serves(self, supplier: str) -> bool:
        """Return True if the supplier's key is loaded."""
        return supplier in self._keys()

    def parse(self, body: bytes, caller: TransportInfo) -> AdmissibleRelay:
        """Parse the relay of a body.

        Raises Rejected.
        """
        if self._recording.recorder.overloaded:
            raise Rejected(RejectionReason.OVERLOADED, "too many relays wait to be recorded, try another supplier")
        relay = parse_relay(body, caller, self.registry, self._keys(), self.height, self.simulations.key_id(caller))
        self._metrics_of(relay).received(relay)
        return relay

    def _metrics_of(self, relay: AdmissibleRelay) -> RelayMetrics:
        return self._simulated if relay.simulated else self._paid

    def count_rejection(self, rejected: Rejected, caller: TransportInfo, relay: AdmissibleRelay | None = None) -> None:
        """Count a rejection, once, where it leaves the pipeline."""
        simulated = relay.simulated if relay else self.simulations.key_id(caller)
        (self._simulated if simulated else self._paid).rejected(rejected, caller, relay)

    async def admit(self, relay: AdmissibleRelay) -> tuple[Admitted, Metered]:
        """Authenticate the request, then charge the session's budget.

        A request that is not authenticated is never charged. Raises Rejected.
        """
        if not relay.simulated:
            await self.admission.check_supplier(relay.request, relay.header, relay.rpc_type)
        return await self._authorize_and_charge(relay)

    async def _authorize_and_charge(self, relay: AdmissibleRelay) -> tuple[Admitted, Metered]:
        if relay.simulated:
            return await self.simulations.admit(relay)
        admitted = await self.admission.validate(relay.request, relay.header, relay.caller.address)
        metered = await self._meter.charge(relay.service, relay.header, relay.supplier, admitted.identity)
        if metered.paid and relay.caller.on_charged is not None:
            relay.caller.on_charged()
        return admitted, metered

    async def charge_event(self, relay: AdmissibleRelay) -> Metered:
        """Charge a further response to a request that was charged before.

        Raises Rejected.
        """
        return await self._meter.charge(relay.service, relay.header, relay.supplier, b"")

    def budgets(self) -> list[dict[str, object]]:
        """Return the budgets of the applications that were charged last."""
        return self._meter.limits.rows()

    def refund(self, metered: Metered) -> None:
        """Refund a relay that was charged and not served."""
        self._meter.refund(metered)

    async def handle(
        self, body: bytes, caller: TransportInfo, *, streams: bool = False
    ) -> RelayResult | StreamedResult:
        """Return the signed response. Without `streams` a stream is collected first.

        Raises Rejected.
        """
        relay: AdmissibleRelay | None = None
        try:
            relay = self.parse(body, caller)
            in_flight = self.in_flight.relay_of(relay.supplier)
            used = relay.service_backends.used()
            with in_flight, used, self.simulations.limit(relay.simulated), self._tracing.relay(relay) as span:
                return await self._handle(relay, span, streams=streams)
        except Rejected as rejected:
            self.count_rejection(rejected, caller, relay)
            raise

    async def _handle(self, relay: AdmissibleRelay, span: Span, *, streams: bool) -> RelayResult | StreamedResult:
        begun, metrics = self._clock(), self._metrics_of(relay)
        relay.service_backends.pool(relay.rpc_type)
        if not relay.simulated:
            await self.admission.check_supplier(relay.request, relay.header, relay.rpc_type)
        if relay.simulated or relay.service.validation is Validation.EAGER or relay.over_grpc:
            proof = await self._authorize_and_charge(relay)
            span.stage("admitted")
            metrics.stage("admitted", self._clock() - begun)
            try:
                served = await self._forward(relay, span)
            except BaseException:
                self.refund(proof[1])
                raise
        else:
            proof, served = await self._authorize_while_forwarding(relay, span)
        span.stage("answered")
        admitted, metered = proof
        if isinstance(served, BackendStream) and streams:
            pieces = self._stream(relay, admitted, metered, served, begun)
            await anext(pieces)  # closing a generator that never started would not refund
            return StreamedResult(served.status, served.headers, pieces)
        try:
            if isinstance(served, BackendStream):
                served = await collect(served, relay.service.max_body_bytes, relay.caller.reservation)
            response = await sign_payload(relay.header, served.response.encode(), relay.key)
        except BaseException:
            self.refund(metered)
            raise
        retries = served.retries
        del served  # hold the response once while it is recorded
        recording = self._clock()
        await self._recording.record(relay, admitted, metered, response)
        span.stage("recorded")
        ended = self._clock()
        metrics.stage("recorded", ended - recording)
        metrics.served(relay, ended - begun)
        return RelayResult(response.encode(), retries)

    async def _forward(self, relay: AdmissibleRelay, span: Span) -> BackendResponse | BackendStream:
        """Return the backend's response, and measure its share of the relay in any case."""
        begun, outcome, retries = self._clock(), "aborted", 0
        try:
            served = await relay.service_backends.forward(
                relay.rpc_type,
                relay.envelope,
                relay.caller.headers,
                {**relay.pocket_headers(), **span.headers()},
                relay.fairness_key,
                relay.caller.reservation,
            )
            outcome = "success" if served.status < 400 else "client_error"
            retries = served.retries
            return served
        except Rejected as rejected:
            outcome = rejected.reason.label
            raise
        finally:
            self._metrics_of(relay).answered(relay, self._clock() - begun, outcome, retries)

    async def _authorize_while_forwarding(
        self, relay: AdmissibleRelay, span: Span
    ) -> tuple[tuple[Admitted, Metered], BackendResponse | BackendStream]:
        """Authorize and forward at the same time (optimistic mode)."""
        proof: asyncio.Task[tuple[Admitted, Metered]] | None = None
        served: asyncio.Task[BackendResponse | BackendStream] | None = None
        try:
            async with asyncio.TaskGroup() as group:
                proof = group.create_task(self._authorize_and_charge(relay))
                served = group.create_task(self._forward(relay, span))
            return proof.result(), served.result()
        except BaseException as failure:  # noqa: BLE001 - raised again: nothing may stay charged or open
            if proof is not None and _succeeded(proof):
                self.refund(proof.result()[1])
            if served is not None and _succeeded(served) and isinstance(answer := served.result(), BackendStream):
                await answer.close()
            raise first_rejected(failure) from None

    async def _stream(
        self, relay: AdmissibleRelay, admitted: Admitted, metered: Metered, served: BackendStream, begun: float
    ) -> AsyncGenerator[bytes, None]:
        """Sign and forward every batch of a stream as it comes.

        The whole stream is one relay, and its last piece waits until it is recorded. If the client leaves earlier, or
        a limit of ours ends the stream, the relay is what was forwarded. The first piece is empty: it starts the
        generator.
        """
        body, complete, reservation = bytearray(), False, relay.caller.reservation
        limit = relay.service.max_body_bytes
        in_flight = ExitStack()
        in_flight.enter_context(self.in_flight.relay_of(relay.supplier))
        in_flight.enter_context(relay.service_backends.used())
        try:
            yield b""
            with self.simulations.limit(relay.simulated):
                async with aclosing(batches(served.chunks, served.deadline)) as line_batches:
                    async for lines in line_batches:
                        if len(body) + len(lines) > limit:
                            raise Rejected(
                                RejectionReason.RESPONSE_TOO_LARGE, f"the stream is larger than {limit} bytes"
                            )
                        if reservation is not None:
                            reservation.acquire(len(lines))
                        piece = HttpResponse(served.status, {}, lines).encode()
                        response = await sign_payload(relay.header, piece, relay.key)
                        body += lines
                        yield response.encode() + STREAM_DELIMITER
                complete = True
                whole = HttpResponse(served.status, {}, bytes(body)).encode()
                await self._sign_and_record(relay, admitted, metered, whole)
                self._metrics_of(relay).served(relay, self._clock() - begun)
        except (GeneratorExit, asyncio.CancelledError, Rejected) as error:
            rejected = error if isinstance(error, Rejected) else None
            if not complete and (rejected is None or (body and rejected.reason in _LIMITS)):
                complete = True  # the client keeps what it received, and that is mined, also if it left before anything
                whole = HttpResponse(served.status, {}, bytes(body)).encode()
                with suppress(Rejected):
                    await self._sign_and_record(relay, admitted, metered, whole)
            if rejected is not None:
                self.count_rejection(rejected, relay.caller, relay)
            raise
        finally:
            in_flight.close()
            if not complete:
                self.refund(metered)
            await served.close()

    async def _sign_and_record(
        self, relay: AdmissibleRelay, admitted: Admitted, metered: Metered, payload: bytes
    ) -> RelayResponse:
        """Sign a response and record the relay, which is refunded if that fails.

        Raises Rejected.
        """
        try:
            response = await sign_payload(relay.header, payload, relay.key)
        except BaseException:
            self.refund(metered)
            raise
        await self._recording.record(relay, admitted, metered, response)
        return response

    async def record_event(
        self, relay: AdmissibleRelay, admitted: Admitted, metered: Metered, payload: bytes
    ) -> RelayResponse:
        """Sign and record a response over a WebSocket.

        Raises Rejected.
        """
        response = await self._sign_and_record(relay, admitted, metered, payload)
        self._metrics_of(relay).served(relay)
        return response


def _succeeded(task: "asyncio.Task[Any]") -> bool:
    return task.done() and not task.cancelled() and task.exception() is None
