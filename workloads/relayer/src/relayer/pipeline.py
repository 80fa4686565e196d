"""A relay from its bytes to the signed answer: admission, backend, signing, recording."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from ledger.errors import LedgerError, LedgerFull, SessionClosed
from ledger.local_log import Record
from ledger.publisher import Publisher
from pocket_api.relayminer import Recording, Service, Validation
from relayer import metrics
from relayer.admission import Admission, Admitted, plausible_problem
from relayer.backends import Pool, Served, ServiceBackends
from relayer.rejection import Reason, Rejected
from relayer.signing import signed_response
from shannon.crypto.ecdsa import PrivateKey
from shannon.errors import DecodingError
from shannon.relays.difficulty import is_applicable
from shannon.relays.envelope import HttpRequest, decode_http_request
from shannon.relays.messages import RelayRequest, RelayResponse, SessionHeader, decode_relay_request, relay_hash
from shannon.relays.wire import bytes_field

RPC_TYPES = {"3": "jsonRpc", "4": "rest", "5": "cometBft", "json_rpc": "jsonRpc", "jsonrpc": "jsonRpc",
             "jsonRpc": "jsonRpc", "rest": "rest", "comet_bft": "cometBft", "cometbft": "cometBft",
             "cometBft": "cometBft"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back to the gateway."""

    body: bytes
    retries: int


@dataclass(frozen=True, slots=True)
class _Relay:
    request: RelayRequest
    header: SessionHeader
    envelope: HttpRequest
    rpc_type: str
    key: PrivateKey


class RelayService:
    """Everything a transport calls; holds no connection of its own."""

    def __init__(
        self,
        *,
        services: Mapping[str, Service],
        backends: Mapping[str, ServiceBackends],
        admission: Admission,
        publisher: Publisher,
        keys: Callable[[], Mapping[str, PrivateKey]],
        height: Callable[[], int],
        clock: Callable[[], float],
        recording: Recording = Recording.STRICT,
    ) -> None:
        self._services = services
        self._backends = backends
        self._admission = admission
        self._publisher = publisher
        self._keys = keys
        self._height = height
        self._clock = clock
        self._recording = recording

    @property
    def max_body_bytes(self) -> int:
        """Largest body of any service."""
        return max(service.max_body_bytes for service in self._services.values())

    async def handle(self, body: bytes, outer: Mapping[str, str]) -> Answer:
        """The signed answer; raises Rejected."""
        if self._publisher.overloaded:
            raise Rejected(Reason.OVERLOADED, "too many relays wait to be recorded, try another supplier")
        begun = self._clock()
        relay, service = self._decode(body, outer)
        metrics.RECEIVED.labels(service.id, relay.rpc_type).inc()
        pool = self._backends[service.id].pool(relay.rpc_type)
        await self._admission.check_supplier(relay.request, relay.header)
        if service.validation is Validation.EAGER:
            admitted = await self._admission.validate(relay.request, relay.header)
            served = await self._forward(relay, service, outer, pool)
        else:
            admitted, served = await self._both(
                self._admission.validate(relay.request, relay.header),
                self._forward(relay, service, outer, pool),
            )
        response = signed_response(relay.header, served.response, relay.key)
        await self._record(service.id, relay, admitted, response)
        metrics.SERVED.labels(service.id, relay.rpc_type).inc()
        metrics.LATENCY.labels(service.id).observe(self._clock() - begun)
        return Answer(response.encode(), served.retries)

    def _decode(self, body: bytes, outer: Mapping[str, str]) -> tuple[_Relay, Service]:
        try:
            request = decode_relay_request(body)
        except DecodingError as error:
            raise Rejected(Reason.INVALID_REQUEST, f"invalid relay request: {error}") from error
        header = request.header
        if header is None or not header.service_id:
            raise Rejected(Reason.INVALID_REQUEST, "invalid relay request: no session header with a service id")
        service = self._services.get(header.service_id)
        if service is None:
            name = header.service_id[:42].encode("ascii", "replace").decode()
            raise Rejected(Reason.UNKNOWN_SERVICE, f"service {name} is not served here")
        try:
            envelope = decode_http_request(request.payload)
        except DecodingError as error:
            raise Rejected(Reason.INVALID_REQUEST, f"invalid relay request: {error}") from error
        if len(body) > service.max_body_bytes:
            raise Rejected(Reason.BODY_TOO_LARGE, f"the request is larger than {service.max_body_bytes} bytes")
        asked = outer.get("Rpc-Type", "").strip()
        rpc_type = RPC_TYPES.get(asked) if asked else service.default_backend
        if rpc_type is None:
            raise Rejected(Reason.UNKNOWN_RPC_TYPE, f"Rpc-Type {asked[:20]!r} is not served over HTTP")
        if not request.supplier_operator_address:
            raise Rejected(Reason.SUPPLIER_MISSING, "the supplier operator address is missing")
        key = self._keys().get(request.supplier_operator_address)
        if key is None:
            raise Rejected(Reason.SUPPLIER_NOT_OURS, "the supplier is not served here")
        if problem := request.problem() or plausible_problem(header, self._height()):
            raise Rejected(Reason.IMPLAUSIBLE_HEIGHTS if "heights" in problem else Reason.INVALID_REQUEST, problem)
        return _Relay(request, header, envelope, rpc_type, key), service

    async def _forward(self, relay: _Relay, service: Service, outer: Mapping[str, str], pool: Pool) -> Served:
        """The backend's answer; its share of the relay is measured whatever comes of it."""
        begun = self._clock()
        try:
            return await self._backends[service.id].forward(pool, relay.envelope, outer, self._pocket_headers(relay))
        finally:
            metrics.BACKEND_LATENCY.labels(service.id).observe(self._clock() - begun)

    def _pocket_headers(self, relay: _Relay) -> dict[str, str]:
        return {
            "Pocket-Supplier": relay.request.supplier_operator_address,
            "Pocket-Service": relay.header.service_id,
            "Pocket-Application": relay.header.application_address,
        }

    @staticmethod
    async def _both(
        validation: Coroutine[Any, Any, Admitted], backend: Coroutine[Any, Any, Served]
    ) -> tuple[Admitted, Served]:
        """Optimistic mode: both run at once, nothing is answered before both are done."""
        try:
            async with asyncio.TaskGroup() as group:
                admitted = group.create_task(validation)
                served = group.create_task(backend)
        except* Rejected as failures:
            raise failures.exceptions[0] from None
        return admitted.result(), served.result()

    async def _record(self, service_id: str, relay: _Relay, admitted: Admitted, response: RelayResponse) -> None:
        """Mines exactly what is served; strict recording waits until the relay is in the ledger."""
        mined = bytes_field(1, relay.request.encode()) + bytes_field(2, response.without_payload().encode())
        if not is_applicable(relay_hash(mined), admitted.target_hash):
            metrics.NOT_APPLICABLE.labels(service_id).inc()
            return
        record = Record(relay.request.supplier_operator_address, relay.header.session_id, relay.header.encode(), mined)
        try:
            done = self._publisher.submit(record)
            # Recording outlives the client's connection: a cancelled request must not cancel it.
            if self._recording is Recording.STRICT:
                await asyncio.shield(done)
        except SessionClosed as error:
            metrics.NOT_RECORDED.labels("session_closed").inc()
            raise Rejected(Reason.SESSION_CLOSED, "the session is closed: its claim was sealed") from error
        except LedgerFull as error:
            metrics.NOT_RECORDED.labels("full").inc()
            raise Rejected(Reason.OVERLOADED, str(error)) from error
        except LedgerError as error:
            metrics.NOT_RECORDED.labels("unavailable").inc()
            raise Rejected(Reason.NOT_RECORDED, "the relay could not be recorded") from error
        metrics.MINED.labels(service_id).inc()
