"""The one way of a relay: admission, metering, backend, signing, recording, whatever its transport."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from typing import Any

from pocket.api.relayminer import Recording
from pocket.api.services import Validation
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.protocol.relays.difficulty import is_applicable
from pocket.protocol.relays.envelope import STREAM_DELIMITER, Headers, HttpResponse
from pocket.protocol.relays.messages import RelayResponse, relay_hash
from pocket.protocol.relays.wire import bytes_field
from pocket.protocol.transactions.batches import MAX_TRANSACTION_BYTES, largest_leaf
from pocket.redis_store.relay_recorder import RelayRecorder
from pocket.redis_store.store_errors import QueueFull, RedisStoreError, SessionClosed
from pocket.redis_store.write_ahead_log import WalRecord
from pocket_relayer import relayer_metrics
from pocket_relayer.backends.catalog import ServiceRegistry
from pocket_relayer.backends.responses import BackendResponse, BackendStream
from pocket_relayer.pipeline.admission import Admission, Admitted
from pocket_relayer.pipeline.in_flight import InFlight
from pocket_relayer.pipeline.metering import Meter, Metered
from pocket_relayer.pipeline.relay import AdmissibleRelay, TransportInfo, decode
from pocket_relayer.pipeline.relay_metrics import PaidRelayMetrics, RelayMetrics, SimulatedRelayMetrics
from pocket_relayer.pipeline.signing import signed_payload, signed_response
from pocket_relayer.pipeline.simulated_relays import SimulatedRelayAdmission
from pocket_relayer.pipeline.sliding_window import SlidingWindowStats
from pocket_relayer.pipeline.streaming import batches
from pocket_relayer.pipeline.tracing import NO_TRACING, Span, Tracing
from pocket_relayer.rejection import Rejected, RejectionReason

_LATELY = 50_000  # mined relays that are remembered to notice equal ones


@dataclass(frozen=True, slots=True)
class RelayResult:
    """What goes back to the gateway."""

    body: bytes
    retries: int = 0


@dataclass(frozen=True, slots=True)
class StreamedResult:
    """What goes back piece by piece: signed responses, each followed by the delimiter.

    An iteration that fails was not mined: the connection must be closed without an end.
    """

    status: int
    headers: Headers
    pieces: AsyncGenerator[bytes, None]


LARGEST_LEAF = largest_leaf(MAX_TRANSACTION_BYTES)


class RelayPipeline:
    """Everything a transport calls; holds no connection of its own."""

    def __init__(
        self,
        *,
        catalog: ServiceRegistry,
        admission: Admission,
        meter: Meter,
        publisher: RelayRecorder,
        simulations: SimulatedRelayAdmission,
        keys: Callable[[], Mapping[str, PrivateKey]],
        height: Callable[[], int],
        clock: Callable[[], float],
        recording: Recording = Recording.STRICT,
        tracing: Tracing = NO_TRACING,
        largest_leaf: int = LARGEST_LEAF,
    ) -> None:
        self.catalog = catalog
        self.height = height
        self.admission = admission
        self._meter = meter
        self._publisher = publisher
        self.simulations = simulations
        self._keys = keys
        self._clock = clock
        self._recording = recording
        self._largest_leaf = largest_leaf
        self._tracing = tracing
        self.recent = SlidingWindowStats(clock)
        self.in_flight = InFlight()
        self._paid, self._simulated = PaidRelayMetrics(self.recent), SimulatedRelayMetrics(self.recent)
        self._lately: OrderedDict[bytes, None] = OrderedDict()

    def serves(self, supplier: str) -> bool:
        """Whether the supplier's key is loaded."""
        return supplier in self._keys()

    def decode(self, body: bytes, caller: TransportInfo) -> AdmissibleRelay:
        """The relay of a body; raises Rejected."""
        if self._publisher.overloaded:
            raise Rejected(RejectionReason.OVERLOADED, "too many relays wait to be recorded, try another supplier")
        relay = decode(body, caller, self.catalog, self._keys(), self.height, self.simulations.wanted(caller))
        self._accounts(relay).received(relay)
        return relay

    def _accounts(self, relay: AdmissibleRelay) -> RelayMetrics:
        return self._simulated if relay.simulated else self._paid

    def refused(self, rejected: Rejected, caller: TransportInfo, relay: AdmissibleRelay | None = None) -> None:
        """Counts a refusal, once, where it leaves the pipeline."""
        simulated = relay.simulated if relay else self.simulations.wanted(caller)
        (self._simulated if simulated else self._paid).refused(rejected, caller, relay)

    async def admit(self, relay: AdmissibleRelay) -> tuple[Admitted, Metered]:
        """Validates, then charges: who is not proven charges nobody. Raises Rejected."""
        if relay.simulated:
            return await self.simulations.admit(relay)
        await self.admission.check_supplier(relay.request, relay.header, relay.rpc_type)
        return await self._prove(relay)

    async def _prove(self, relay: AdmissibleRelay) -> tuple[Admitted, Metered]:
        admitted = await self.admission.validate(relay.request, relay.header, relay.caller.address)
        metered = await self._meter.charge(relay.service, relay.header, relay.supplier, admitted.identity)
        return admitted, metered

    async def charge_event(self, relay: AdmissibleRelay) -> Metered:
        """Charges a further answer to a request that was charged before; raises Rejected."""
        return await self._meter.charge(relay.service, relay.header, relay.supplier, b"")

    def refund(self, metered: Metered) -> None:
        """Takes back what was charged and not served."""
        self._meter.refund(metered)

    async def handle(
        self, body: bytes, caller: TransportInfo, *, streams: bool = False
    ) -> RelayResult | StreamedResult:
        """The signed answer; raises Rejected. Without `streams` a stream is collected first."""
        relay: AdmissibleRelay | None = None
        try:
            relay = self.decode(body, caller)
            in_flight = self.in_flight.relay_of(relay.supplier)
            with in_flight, self.simulations.slot(caller), self._tracing.relay(relay) as span:
                return await self._handle(relay, span, streams=streams)
        except Rejected as rejected:
            self.refused(rejected, caller, relay)
            raise

    async def _handle(self, relay: AdmissibleRelay, span: Span, *, streams: bool) -> RelayResult | StreamedResult:
        begun, accounts = self._clock(), self._accounts(relay)
        relay.offer.pool(relay.rpc_type)
        if relay.simulated or relay.service.validation is Validation.EAGER:
            proof = await self.admit(relay)
            span.stage("proven")
            accounts.stage("proven", self._clock() - begun)
            try:
                served = await self._forward(relay, span)
            except BaseException:
                self.refund(proof[1])
                raise
        else:
            await self.admission.check_supplier(relay.request, relay.header, relay.rpc_type)
            proof, served = await self._both(relay, span)
        span.stage("answered")
        admitted, metered = proof
        if isinstance(served, BackendStream) and streams:
            pieces = self._streamed(relay, admitted, metered, served, begun)
            await anext(pieces)  # a generator that never began would not take back the charge when it is closed
            return StreamedResult(served.status, served.headers, pieces)
        try:
            if isinstance(served, BackendStream):
                served = await self._collected(served, relay.service.max_body_bytes)
            response = signed_response(relay.header, served.response, relay.key)
            body, retries = response.encode(), served.retries
        except BaseException:
            self.refund(metered)
            raise
        del served  # while it is recorded, the answer is held once
        response = response.without_payload()
        recording = self._clock()
        await self.record(relay, admitted, metered, response)
        span.stage("recorded")
        ended = self._clock()
        accounts.stage("recorded", ended - recording)
        accounts.served(relay, ended - begun)
        return RelayResult(body, retries)

    async def _forward(self, relay: AdmissibleRelay, span: Span) -> BackendResponse | BackendStream:
        """The backend's answer; its share of the relay is measured whatever comes of it."""
        begun, outcome, retries = self._clock(), "aborted", 0
        try:
            with relay.offer.used():
                served = await relay.offer.forward(
                    relay.rpc_type,
                    relay.envelope,
                    relay.caller.headers,
                    {**relay.pocket_headers(), **span.headers()},
                    relay.share,
                    relay.caller.hold,
                )
            outcome = "success" if served.status < 400 else "client_error"
            retries = served.retries
            return served
        except Rejected as rejected:
            outcome = rejected.reason.label
            raise
        finally:
            self._accounts(relay).answered(relay, self._clock() - begun, outcome, retries)

    async def _both(
        self, relay: AdmissibleRelay, span: Span
    ) -> tuple[tuple[Admitted, Metered], BackendResponse | BackendStream]:
        """Optimistic mode: both run at once, nothing is answered before both are done."""
        proof: asyncio.Task[tuple[Admitted, Metered]] | None = None
        served: asyncio.Task[BackendResponse | BackendStream] | None = None
        try:
            async with asyncio.TaskGroup() as group:
                proof = group.create_task(self._prove(relay))
                served = group.create_task(self._forward(relay, span))
        except BaseException as failure:  # noqa: BLE001 - raised again: nothing may stay charged or open
            if proof is not None and _succeeded(proof):
                self.refund(proof.result()[1])
            if served is not None and _succeeded(served) and isinstance(answer := served.result(), BackendStream):
                await answer.close()
            raise _first_rejected(failure) from None
        return proof.result(), served.result()

    async def _streamed(
        self, relay: AdmissibleRelay, admitted: Admitted, metered: Metered, served: BackendStream, begun: float
    ) -> AsyncGenerator[bytes, None]:
        """One relay: every batch is signed and passed on as it comes; the end waits until the whole is recorded.

        Begins with one empty piece, by which the generator is started.
        """
        whole, complete, hold = bytearray(), False, relay.caller.hold
        limit = relay.service.max_body_bytes
        in_flight = ExitStack()
        in_flight.enter_context(self.in_flight.relay_of(relay.supplier))
        try:
            yield b""
            with self.simulations.slot(relay.caller), relay.offer.used():
                async with aclosing(batches(served.chunks, served.deadline)) as rows:
                    async for lines in rows:
                        whole += lines
                        if len(whole) > limit:
                            raise Rejected(
                                RejectionReason.RESPONSE_TOO_LARGE, f"the stream is larger than {limit} bytes"
                            )
                        if hold is not None:
                            hold.take(len(lines))
                        response = signed_response(relay.header, HttpResponse(served.status, {}, lines), relay.key)
                        yield response.encode() + STREAM_DELIMITER
                entire = signed_response(relay.header, HttpResponse(served.status, {}, bytes(whole)), relay.key)
                complete = True
                await self.record(relay, admitted, metered, entire)
                self._accounts(relay).served(relay, self._clock() - begun)
        except Rejected as rejected:
            self.refused(rejected, relay.caller, relay)
            raise
        finally:
            in_flight.close()
            if not complete:
                self.refund(metered)
            await served.close()

    @staticmethod
    async def _collected(served: BackendStream, limit: int) -> BackendResponse:
        """A stream as one answer, for transports that cannot pass it on."""
        whole = bytearray()
        try:
            async with aclosing(batches(served.chunks, served.deadline)) as rows:
                async for lines in rows:
                    whole += lines
                    if len(whole) > limit:
                        raise Rejected(RejectionReason.RESPONSE_TOO_LARGE, f"the stream is larger than {limit} bytes")
        finally:
            await served.close()
        return BackendResponse(HttpResponse(served.status, served.headers, bytes(whole)), served.retries)

    async def record(
        self, relay: AdmissibleRelay, admitted: Admitted, metered: Metered, response: RelayResponse
    ) -> None:
        """Mines exactly what is served; strict recording waits until the relay is in the ledger. Raises Rejected.

        What is refused here is taken back, unless it may yet be mined: from the local log, or because only the waiting
        was cancelled. Such a request must not be paid a second time.
        """
        if not metered.paid:
            return
        mined = bytes_field(1, relay.request.encode()) + bytes_field(2, response.without_payload().encode())
        if len(mined) > self._largest_leaf:
            # A leaf that cannot be proven earns a penalty where it should earn a price.
            relayer_metrics.UNPROVABLE.labels(relay.service.id).inc()
            self.refund(metered)
            return
        try:
            await self._record(relay, admitted, mined)
        except Rejected as rejected:
            if rejected.reason is not RejectionReason.NOT_RECORDED:
                self.refund(metered)
            raise

    async def _record(self, relay: AdmissibleRelay, admitted: Admitted, mined: bytes) -> None:
        service_id = relay.service.id
        found = relay_hash(mined)
        if not is_applicable(found, admitted.target_hash):
            relayer_metrics.NOT_APPLICABLE.labels(service_id).inc()
            return
        header = relay.header
        record = WalRecord(relay.supplier, header.session_id, header.encode(), mined, header.session_end_block_height)
        try:
            done = self._publisher.submit(record)
            # Recording outlives the client's connection: a cancelled request must not cancel it.
            done.add_done_callback(lambda end: self._counted(end, service_id, found))
            if self._recording is Recording.STRICT:
                await asyncio.shield(done)
        except SessionClosed as error:
            raise Rejected(
                RejectionReason.SESSION_CLOSED, "the session is closed: it is too late to claim this relay"
            ) from error
        except QueueFull as error:
            relayer_metrics.NOT_RECORDED.labels("full").inc()
            raise Rejected(RejectionReason.OVERLOADED, str(error)) from error
        except RedisStoreError as error:
            raise Rejected(RejectionReason.NOT_RECORDED, "the relay could not be recorded") from error

    def _counted(self, end: "asyncio.Future[None]", service_id: str, found: bytes) -> None:
        """What became of a relay in the ledger, whether or not anybody still waits for it: fast recording does not."""
        error = None if end.cancelled() else end.exception()
        if end.cancelled() or error is not None:
            closed = isinstance(error, SessionClosed)
            relayer_metrics.NOT_RECORDED.labels("session_closed" if closed else "unavailable").inc()
            return
        relayer_metrics.MINED.labels(service_id).inc()
        if self._mined_lately(found):
            relayer_metrics.DUPLICATES.labels(service_id).inc()

    def _mined_lately(self, found: bytes) -> bool:
        """Whether this worker mined the very same relay: the trie holds it once (docs/relaying.md)."""
        key = found[:16]
        if key in self._lately:
            return True
        self._lately[key] = None
        if len(self._lately) > _LATELY:
            self._lately.popitem(last=False)
        return False

    async def record_event(
        self, relay: AdmissibleRelay, admitted: Admitted, metered: Metered, payload: bytes
    ) -> RelayResponse:
        """A WebSocket answer, signed and recorded; raises Rejected."""
        try:
            response = signed_payload(relay.header, payload, relay.key)
        except BaseException:
            self.refund(metered)
            raise
        await self.record(relay, admitted, metered, response)
        self._accounts(relay).served(relay)
        return response


def _succeeded(task: "asyncio.Task[Any]") -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _first_rejected(failure: BaseException) -> BaseException:
    """The refusal in a group of failures; anything else as it is."""
    if not isinstance(failure, BaseExceptionGroup):
        return failure
    return next((found for part in failure.exceptions if isinstance(found := _first_rejected(part), Rejected)), failure)
