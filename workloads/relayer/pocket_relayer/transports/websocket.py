"""WebSocket relays: every frame is one, and responses are signed in order.

See relay-lifecycle.md, section 10.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

import aiohttp
import structlog
from aiohttp import WSMsgType, web
from structlog.typing import FilteringBoundLogger

from pocket.protocol.relays.envelope import HttpResponse
from pocket.protocol.relays.messages import RelayMinerError, RelayResponse
from pocket_relayer import relayer_metrics
from pocket_relayer.backends.service import WEB_SOCKET_MESSAGE_BYTES, ServiceBackends
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.limits.token_bucket import TokenBucket
from pocket_relayer.limits.traceback_frames import clear_frames_of
from pocket_relayer.pipeline.authorization import Admitted, plausible_problem
from pocket_relayer.pipeline.metering import Metered
from pocket_relayer.pipeline.pipeline import RelayPipeline
from pocket_relayer.pipeline.relay import AdmissibleRelay, Transport, TransportInfo, pocket_headers
from pocket_relayer.pipeline.signing import sign_payload
from pocket_relayer.pipeline.simulated_relays import CONNECTION_SECONDS
from pocket_relayer.transports.client_connections import Connection
from pocket_relayer.transports.client_timeouts import ClientTimeouts
from pocket_relayer.transports.http1_connection import Http1Connection
from pocket_relayer.transports.websocket_closes import (
    BACKEND_CODES,
    LIMIT_REACHED,
    SESSION_EXPIRED,
    VALIDATION_FAILED,
    BridgeClosed,
    close_code,
    closed_like,
)
from pocket_relayer.transports.websocket_frames import IncomingMessages
from pocket_relayer.transports.websocket_handshake import handshake_request, service_of

_LOG: FilteringBoundLogger = structlog.get_logger()
_WEB_SOCKET_BYTES: Final = 32 * 1024
"""Memory of a connection that is a WebSocket."""
_MAX_UNANSWERED: Final = 1000  # requests of a connection that wait for an answer


@dataclass(slots=True)
class _CurrentRequest:
    """The latest request of a connection, to which all responses belong."""

    relay: AdmissibleRelay
    admitted: Admitted
    paid: bool


@dataclass(slots=True)
class _Charge:
    """The charge of a request that waits for its response."""

    relay: AdmissibleRelay
    metered: Metered

    def belongs_to(self, relay: AdmissibleRelay) -> bool:
        """Return True if a response to this relay is of the budget that was charged."""
        return self.relay.supplier == relay.supplier and self.relay.header == relay.header


class WebSockets:
    """All bridges of one worker."""

    def __init__(
        self,
        pipeline: RelayPipeline,
        draining: Callable[[], bool],
        *,
        enforce_handshake: bool = False,
        poll_seconds: float = 2.0,
        timeouts: ClientTimeouts | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._draining = draining
        self._enforce = enforce_handshake
        self._poll_seconds = poll_seconds
        self._timeouts = timeouts or ClientTimeouts()
        self._bridges: set[Bridge] = set()
        self._handshake_log = TokenBucket(rate=0.1, burst=10.0)
        """Limits what any client can write into the log."""

    async def bridge(self, request: web.BaseRequest, connection: Http1Connection) -> web.StreamResponse:
        """Serve one connection to its end.

        Raises Rejected before the upgrade.
        """
        caller = TransportInfo(Transport.WEB_SOCKET, request.headers, connection.connection.memory.address)
        service_id = service_of(request)
        held = ExitStack()
        try:
            backends = self._backends_of(service_id)
            held.enter_context(backends.used())
            connection.connection.occupy(_WEB_SOCKET_BYTES)
            await self._check_handshake(request, caller, service_id)
        except BaseException as error:
            held.close()
            if isinstance(error, Rejected):
                error.service_id = service_id if self._pipeline.registry.get(service_id) else ""
                self._pipeline.count_rejection(error, caller)
            raise
        gateway = web.WebSocketResponse(
            compress=False, max_msg_size=WEB_SOCKET_MESSAGE_BYTES, heartbeat=27.0, autoclose=False, decode_text=False,
            timeout=1.0,
        )  # fmt: skip
        with held:
            await self._upgrade(gateway, request, caller)
            incoming = connection.incoming
            if incoming is None:
                raise TypeError("an upgraded connection counts its frames")
            bridge = Bridge(
                self._pipeline,
                backends,
                caller,
                gateway,
                self._poll_seconds,
                connection.connection,
                incoming,
                self._timeouts,
                held,
            )
            connection.on_overload = incoming.reservation.on_evict = bridge.abort_for_memory
            self._bridges.add(bridge)
            relayer_metrics.CONNECTIONS.labels(service_id).inc()
            try:
                await bridge.run()
            except BaseException as error:
                clear_frames_of(error)
                raise
            finally:
                incoming.close()
                self._bridges.discard(bridge)
                relayer_metrics.CONNECTIONS.labels(service_id).dec()
        return gateway

    async def _upgrade(self, gateway: web.WebSocketResponse, request: web.BaseRequest, caller: TransportInfo) -> None:
        """Answer the handshake. Raises Rejected for one that RFC 6455 does not allow."""
        try:
            await gateway.prepare(request)
        except (web.HTTPException, ValueError) as error:
            rejected = Rejected(RejectionReason.INVALID_REQUEST, "the WebSocket handshake is invalid")
            self._pipeline.count_rejection(rejected, caller)
            raise rejected from error

    def _backends_of(self, service_id: str) -> ServiceBackends:
        if self._draining():
            raise Rejected(RejectionReason.DRAINING, "this relayer is shutting down: connect again")
        if not service_id:
            raise Rejected(RejectionReason.INVALID_REQUEST, "the handshake names no service: send Target-Service-Id")
        backends = self._pipeline.registry.get(service_id)
        if backends is None:
            raise Rejected(RejectionReason.UNKNOWN_SERVICE, f"service {service_id[:42]} is not served here")
        backends.pool("webSocket")
        return backends

    async def _check_handshake(self, request: web.BaseRequest, caller: TransportInfo, service_id: str) -> None:
        try:
            simulations = self._pipeline.simulations
            simulated = simulations.knows(simulations.key_id(caller))
            signed = None if simulated else handshake_request(request, service_id)
            if signed is not None and signed.header is not None:
                if problem := plausible_problem(signed.header, self._pipeline.height()):
                    raise Rejected(RejectionReason.IMPLAUSIBLE_HEIGHTS, problem)
                await self._pipeline.admission.validate(signed, signed.header, caller.address, confirm=self._enforce)
        except Rejected as rejected:
            if self._enforce:
                raise
            if self._handshake_log.try_take(1, asyncio.get_running_loop().time()):
                _LOG.info("handshake not verified", message=rejected.message)

    def close_all(self) -> None:
        """Ask all clients to connect elsewhere."""
        for bridge in list(self._bridges):
            bridge.end(1001, "this relayer is shutting down: connect again")


@dataclass(eq=False)
class Bridge:
    """One gateway connection and, once a relay is admitted, one backend connection."""

    pipeline: RelayPipeline
    service_backends: ServiceBackends
    caller: TransportInfo
    gateway: web.WebSocketResponse
    poll_seconds: float
    connection: Connection
    incoming: IncomingMessages
    timeouts: ClientTimeouts
    held: ExitStack
    """What the connection holds until its end."""
    backend: aiohttp.ClientWebSocketResponse | None = None
    current: _CurrentRequest | None = None
    charges: deque[_Charge] = field(default_factory=deque)
    in_flight: ExitStack = field(default_factory=ExitStack)
    _ended: "asyncio.Future[BridgeClosed]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def end(self, code: int, text: str) -> None:
        """End the bridge from outside."""
        self._end(BridgeClosed(code, text))

    def _end(self, closed: BridgeClosed) -> None:
        if not self._ended.done():
            self._ended.set_result(closed)

    def abort_for_memory(self) -> None:
        """End the bridge at once, because there is no memory for its messages."""
        self.end(1013, "too much is being read here, try another supplier")
        self.connection.abort()

    async def run(self) -> None:
        """Serve until the gateway, the backend, the session or the relayer ends it."""
        closed = BridgeClosed(1001, "")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._guard(self._from_gateway(group)))
                group.create_task(self._guard(self._watch_session()))
                closed = await self._ended
                raise _Done
        except* _Done:
            pass
        finally:
            self.in_flight.close()
            while self.charges and not closed.by_client:  # else its requests would use a backend for nothing
                self.pipeline.refund(self.charges.popleft().metered)
            await self._close(closed)

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        """Run one direction. Its end ends the bridge with a code for the gateway."""
        try:
            await work
        except BridgeClosed as closed:
            self._end(closed)
        except Rejected as rejected:
            rejected.service_id = self.service_backends.service.id
            self.pipeline.count_rejection(rejected, self.caller)
            code = close_code(rejected.reason)
            if code == SESSION_EXPIRED:
                await self._send_expiry_notice()
            self._end(
                BridgeClosed(code, rejected.close_text(120), by_client=code in (VALIDATION_FAILED, LIMIT_REACHED))
            )
        except (OSError, aiohttp.ClientError) as error:
            self.end(1001, type(error).__name__)
        except Exception:  # noqa: BLE001 - the border of one connection: logged, the process goes on
            _LOG.exception("WebSocket failed", service=self.service_backends.service.id)
            self.end(1011, "internal error")

    async def _from_gateway(self, group: asyncio.TaskGroup) -> None:
        while True:
            message = await self.gateway.receive()
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                raise closed_like(message, self.gateway.close_code, 1001, by_client=True)
            relay = self.pipeline.parse(message.data, self.caller)
            with self.pipeline.in_flight.relay_of(relay.supplier):
                await self._forward_request(relay, message.type, group)
            self.connection.trust()
            self.incoming.served()

    async def _forward_request(self, relay: AdmissibleRelay, kind: WSMsgType, group: asyncio.TaskGroup) -> None:
        """Admit a request and forward it to the backend.

        Raises Rejected and errors of the backend's connection.
        """
        if relay.service_backends.service.id != self.service_backends.service.id:
            raise Rejected(RejectionReason.SESSION_MISMATCH, "the relay is for another service than the connection")
        relay = replace(relay, service_backends=self.service_backends)
        admitted, metered = await self.pipeline.admit(relay)
        self.charges.append(_Charge(relay, metered))
        if self.current is None:
            self.held.enter_context(self.pipeline.simulations.limit(relay.simulated))
        if len(self.charges) > _MAX_UNANSWERED:
            raise Rejected(RejectionReason.OVERLOADED, "too many requests of this connection wait for an answer")
        if self.backend is None:
            headers = pocket_headers(relay.supplier, relay.service.id)
            self.backend = await self.service_backends.dial(headers, relay.header.application_address, self.held)
            group.create_task(self._guard(self._from_backend(self.backend)))
        self._set_current(_CurrentRequest(relay, admitted, metered.paid))
        async with asyncio.timeout(10):
            await self.backend.send_frame(relay.request.payload, kind)

    def _set_current(self, current: _CurrentRequest) -> None:
        before, self.in_flight = self.in_flight, ExitStack()
        self.in_flight.enter_context(self.pipeline.in_flight.relay_of(current.relay.supplier))
        before.close()
        self.current = current
        while self.charges and not self.charges[0].belongs_to(current.relay):
            self.pipeline.refund(self.charges.popleft().metered)  # no response can belong to it any more

    async def _from_backend(self, backend: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            message = await backend.receive()
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                raise closed_like(message, backend.close_code, 1011)
            payload = message.data if isinstance(message.data, bytes) else message.data.encode()
            current = self.current
            if current is None:
                continue
            reservation = self.connection.memory.reserve()
            try:
                reservation.acquire(len(payload))
                response = await self._charge_and_record(current, payload)
                self.connection.trust()
                reservation.on_evict = self.connection.abort
                async with asyncio.timeout(10):
                    await self.gateway.send_frame(response.encode(), message.type)
            except (OSError, aiohttp.ClientError) as error:
                raise BridgeClosed(1001, type(error).__name__, by_client=True) from error
            finally:
                reservation.close()

    async def _charge_and_record(self, current: _CurrentRequest, payload: bytes) -> RelayResponse:
        """Charge, sign and record a response or event.

        Raises Rejected.
        """
        if self.charges and self.charges[0].belongs_to(current.relay):
            metered = self.charges.popleft().metered
        elif current.paid:
            metered = await self.pipeline.charge_event(current.relay)
        else:
            metered = Metered(None, paid=False)
        return await self.pipeline.record_event(current.relay, current.admitted, metered, payload)

    async def _watch_session(self) -> None:
        """End the connection with its session, or once its supplier is not served."""
        age_seconds = 0.0
        while True:
            await asyncio.sleep(self.poll_seconds)
            age_seconds += self.poll_seconds
            if age_seconds > CONNECTION_SECONDS and self.pipeline.simulations.key_id(self.caller):
                raise BridgeClosed(1000, "a simulated connection is a probe: it ends now")
            unfinished = self.incoming.unfinished
            if unfinished is not None and unfinished[1] > self.timeouts.to_read(unfinished[0]):
                raise BridgeClosed(1008, "the message did not come in time", by_client=True)
            if self.current is None:
                if age_seconds > self.timeouts.idle_seconds:
                    raise BridgeClosed(1008, "no relay came in time")
                continue
            if self.current.admitted.is_over(self.pipeline.height()):
                await self._send_expiry_notice()
                raise BridgeClosed(SESSION_EXPIRED, "session expired")
            if not self.pipeline.serves(self.current.relay.supplier):  # which no client caused
                gone = Rejected(RejectionReason.SUPPLIER_NOT_OURS, "the supplier is not served here any more")
                gone.service_id = self.service_backends.service.id
                self.pipeline.count_rejection(gone, self.caller)
                raise BridgeClosed(close_code(gone.reason), gone.close_text(120))

    async def _send_expiry_notice(self) -> None:
        """Send the signed notice that makes gateways move to the next session."""
        if self.current is None:
            return
        relay = self.current.relay
        body = json.dumps({"error": "session expired"}).encode()
        payload = HttpResponse(410, {"Content-Type": ("application/json",)}, body).encode()
        expired = RelayMinerError("relayer", 410, "session expired", "session expired")
        with suppress(OSError, aiohttp.ClientError, TimeoutError, Rejected):
            advice = await sign_payload(relay.header, payload, relay.key, expired)
            async with asyncio.timeout(5):
                await self.gateway.send_frame(advice.encode(), WSMsgType.BINARY)

    async def _close(self, closed: BridgeClosed) -> None:
        with suppress(OSError, aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(5):
                await self.gateway.close(code=closed.code, message=closed.text.encode())
        if self.backend is not None:
            code = BACKEND_CODES.get(closed.code, closed.code if closed.code < 3000 else 1000)
            with suppress(OSError, aiohttp.ClientError, TimeoutError):
                async with asyncio.timeout(5):
                    await self.backend.close(code=code, message=closed.text.encode())


class _Done(Exception):
    """Ends the task group of a bridge."""
