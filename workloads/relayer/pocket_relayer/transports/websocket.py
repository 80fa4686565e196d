"""WebSocket: every frame a relay, every answer signed and recorded in its order (relay-lifecycle.md, section 10)."""

import asyncio
import base64
import binascii
import json
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

import aiohttp
from aiohttp import WSMsgType, web

from pocket.protocol.relays.envelope import HttpResponse
from pocket.protocol.relays.messages import RelayMinerError, RelayRequest, RelayResponse, SessionHeader
from pocket_relayer import relayer_metrics
from pocket_relayer.backends.service import WEB_SOCKET_MESSAGE_BYTES, ServiceBackends
from pocket_relayer.pipeline.admission import Admitted, plausible_problem
from pocket_relayer.pipeline.metering import Metered
from pocket_relayer.pipeline.pipeline import RelayPipeline
from pocket_relayer.pipeline.relay import AdmissibleRelay, Transport, TransportInfo, pocket_headers
from pocket_relayer.pipeline.signing import signed_payload
from pocket_relayer.pipeline.simulated_relays import CONNECTION_SECONDS
from pocket_relayer.rejection import Rejected, RejectionReason
from pocket_relayer.traceback_frames import clear_frames_of
from pocket_relayer.transports.client_connections import Connection
from pocket_relayer.transports.client_timeouts import ClientTimeouts
from pocket_relayer.transports.http1_connection import Http1Connection
from pocket_relayer.transports.websocket_frames import IncomingMessages

_LOG = logging.getLogger("relayer.websocket")
SESSION_EXPIRED, VALIDATION_FAILED, LIMIT_REACHED, BACKEND_FAILED = 4000, 4001, 4002, 4003
_BACKEND_CODES: Final = {SESSION_EXPIRED: 1001, VALIDATION_FAILED: 1008, LIMIT_REACHED: 1013, BACKEND_FAILED: 1011}
_NEVER_SENT: Final = {1004: 1001, 1005: 1000, 1006: 1001, 1015: 1001}
_UNANSWERED: Final = 1000  # requests of a connection that wait for an answer
_CODES: Final = {
    RejectionReason.OVER_BUDGET: LIMIT_REACHED,
    RejectionReason.RATE_LIMITED: LIMIT_REACHED,
    RejectionReason.SESSION_EXPIRED: SESSION_EXPIRED,
    RejectionReason.SESSION_CLOSED: SESSION_EXPIRED,
    RejectionReason.BACKEND_FAILED: BACKEND_FAILED,
    RejectionReason.BACKEND_MISSING: BACKEND_FAILED,
    RejectionReason.BACKEND_UNHEALTHY: BACKEND_FAILED,
    RejectionReason.BACKEND_ERROR: BACKEND_FAILED,
    RejectionReason.BACKEND_TIMEOUT: BACKEND_FAILED,
    RejectionReason.DRAINING: 1001,
    RejectionReason.OVERLOADED: 1013,
    RejectionReason.CHAIN_UNAVAILABLE: 1013,
    RejectionReason.METER_UNAVAILABLE: 1013,
    RejectionReason.NOT_RECORDED: 1013,
    RejectionReason.BODY_TOO_LARGE: 1009,
    RejectionReason.INTERNAL: 1011,
}


def close_code(reason: RejectionReason) -> int:
    """The code that tells a gateway why; whatever is wrong with a relay itself is 4001."""
    return _CODES.get(reason, VALIDATION_FAILED)


class _Closed(Exception):
    """The bridge ends with a code for the gateway."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = _NEVER_SENT.get(code, code)
        self.text = text.encode()[:120].decode("utf-8", "ignore")


def service_of(request: web.Request) -> str:
    """The service id of a handshake; empty if it names none."""
    for name in ("Target-Service-Id", "Pocket-Service-Id", "X-Forwarded-Host"):
        if value := request.headers.get(name, "").strip():
            return value.partition(".")[0] if name == "X-Forwarded-Host" else value
    return request.path.strip("/").partition("/")[0]


def handshake_request(request: web.Request, service_id: str) -> RelayRequest | None:
    """The signed handshake as a relay request without payload; None where it is not signed. Raises Rejected."""
    headers = request.headers
    signature = headers.get("Pocket-Signature")
    if not signature:
        return None
    try:
        header = SessionHeader(
            headers.get("App-Address", ""), service_id, headers.get("Pocket-Session-Id", ""),
            int(headers.get("Pocket-Session-Start-Height", "")), int(headers.get("Pocket-Session-End-Height", "")),
        )  # fmt: skip
        raw = base64.b64decode(signature, validate=True)
    except (ValueError, binascii.Error) as error:
        raise Rejected(RejectionReason.INVALID_REQUEST, "the signed handshake cannot be read") from error
    return RelayRequest(header, raw, headers.get("Pocket-Supplier-Address", ""), b"")


@dataclass(slots=True)
class _Current:
    """The latest request of a connection: all answers belong to it."""

    relay: AdmissibleRelay
    admitted: Admitted
    paid: bool


class WebSockets:
    """All bridges of one worker."""

    def __init__(
        self,
        pipeline: RelayPipeline,
        draining: Callable[[], bool],
        *,
        enforce_handshake: bool = False,
        look_seconds: float = 2.0,
        timeouts: ClientTimeouts | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._draining = draining
        self._enforce = enforce_handshake
        self._look_seconds = look_seconds
        self._timeouts = timeouts or ClientTimeouts()
        self._bridges: set[Bridge] = set()

    async def bridge(self, request: web.Request, connection: Http1Connection) -> web.StreamResponse:
        """Serves one connection to its end; raises Rejected before the upgrade."""
        caller = TransportInfo(Transport.WEB_SOCKET, request.headers, connection.connection.memory.address)
        service_id = service_of(request)
        slot = ExitStack()
        try:
            offer = await self._admitted(request, caller, service_id)
            slot.enter_context(self._pipeline.simulations.slot(caller))
        except Rejected as rejected:
            known = self._pipeline.catalog.get(service_id)
            rejected.service_id = service_id if known else ""
            self._pipeline.refused(rejected, caller)
            raise
        gateway = web.WebSocketResponse(
            compress=False, max_msg_size=WEB_SOCKET_MESSAGE_BYTES, heartbeat=27.0, autoclose=False, decode_text=False,
            timeout=1.0,
        )  # fmt: skip
        with slot, offer.used():
            await gateway.prepare(request)
            incoming = connection.incoming
            if incoming is None:
                raise TypeError("an upgraded connection counts its frames")
            bridge = Bridge(
                self._pipeline,
                offer,
                caller,
                gateway,
                self._look_seconds,
                connection.connection,
                incoming,
                self._timeouts,
            )
            connection.refuse = incoming.hold.drop = bridge.crowded_out
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

    async def _admitted(self, request: web.Request, caller: TransportInfo, service_id: str) -> ServiceBackends:
        if self._draining():
            raise Rejected(RejectionReason.DRAINING, "this relayer ends: connect again")
        if not service_id:
            raise Rejected(RejectionReason.INVALID_REQUEST, "the handshake names no service: send Target-Service-Id")
        offer = self._pipeline.catalog.get(service_id)
        if offer is None:
            raise Rejected(RejectionReason.UNKNOWN_SERVICE, f"service {service_id[:42]} is not served here")
        offer.pool("webSocket")
        try:
            signed = None if self._pipeline.simulations.wanted(caller) else handshake_request(request, service_id)
            if signed is not None and signed.header is not None:
                if problem := plausible_problem(signed.header, self._pipeline.height()):
                    raise Rejected(RejectionReason.IMPLAUSIBLE_HEIGHTS, problem)
                await self._pipeline.admission.validate(signed, signed.header, caller.address)
        except Rejected as rejected:
            if self._enforce:
                raise
            _LOG.info("handshake: %s", rejected.message)
        return offer

    def leave(self) -> None:
        """Tells all clients to connect elsewhere."""
        for bridge in list(self._bridges):
            bridge.end(1001, "this relayer ends: connect again")


@dataclass(eq=False)
class Bridge:
    """One gateway connection and, once a relay is admitted, one to the backend."""

    pipeline: RelayPipeline
    offer: ServiceBackends
    caller: TransportInfo
    gateway: web.WebSocketResponse
    look_seconds: float
    connection: Connection
    incoming: IncomingMessages
    timeouts: ClientTimeouts
    backend: aiohttp.ClientWebSocketResponse | None = None
    current: _Current | None = None
    charges: "deque[Metered]" = field(default_factory=deque)
    in_flight: ExitStack = field(default_factory=ExitStack)
    _ended: "asyncio.Future[_Closed]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def end(self, code: int, text: str) -> None:
        """Ends the bridge from outside."""
        if not self._ended.done():
            self._ended.set_result(_Closed(code, text))

    def crowded_out(self) -> None:
        """Ends the bridge at once, because what it sends finds no room."""
        self.end(1013, "too much is being read here, try another supplier")
        self.connection.abort()

    async def run(self) -> None:
        """Serves until either side, the session or the relayer ends it."""
        closed = _Closed(1001, "")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._guarded(self._from_gateway(group)))
                group.create_task(self._guarded(self._watch_session()))
                closed = await self._ended
                raise _Done
        except* _Done:
            pass
        finally:
            self.in_flight.close()
            while self.charges:
                self.pipeline.refund(self.charges.popleft())
            await self._close(closed)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """What ends a direction ends the bridge, with a code that says why."""
        try:
            await work
        except _Closed as closed:
            self.end(closed.code, closed.text)
        except Rejected as rejected:
            rejected.service_id = self.offer.service.id
            self.pipeline.refused(rejected, self.caller)
            if close_code(rejected.reason) == SESSION_EXPIRED:
                await self._advise()
            self.end(close_code(rejected.reason), rejected.within(120))
        except (OSError, aiohttp.ClientError) as error:
            self.end(1001, type(error).__name__)
        except Exception:  # noqa: BLE001 - the border of one connection: logged, the process goes on
            _LOG.exception("WebSocket failed")
            self.end(1011, "internal error")

    async def _from_gateway(self, group: asyncio.TaskGroup) -> None:
        while True:
            message = await self.gateway.receive()
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                raise _closing(message, self.gateway.close_code, 1001)
            relay = self.pipeline.decode(message.data, self.caller)
            with self.pipeline.in_flight.relay_of(relay.supplier):
                await self._take(relay, message.type, group)
            self.connection.prove()
            self.incoming.served()

    async def _take(self, relay: AdmissibleRelay, kind: WSMsgType, group: asyncio.TaskGroup) -> None:
        """A request of the gateway; raises Rejected and what the backend's connection raises."""
        if relay.offer.service.id != self.offer.service.id:
            raise Rejected(RejectionReason.SESSION_MISMATCH, "the relay is for another service than the connection")
        relay = replace(relay, offer=self.offer)
        admitted, metered = await self.pipeline.admit(relay)
        self.charges.append(metered)
        if len(self.charges) > _UNANSWERED:
            raise Rejected(RejectionReason.OVERLOADED, "too many requests of this connection wait for an answer")
        if self.backend is None:
            self.backend = await self.offer.dial(pocket_headers(relay.supplier, relay.service.id))
            group.create_task(self._guarded(self._from_backend(self.backend)))
        self._answers_belong_to(_Current(relay, admitted, metered.paid))
        async with asyncio.timeout(10):
            await self.backend.send_frame(relay.request.payload, kind)

    def _answers_belong_to(self, current: _Current) -> None:
        before, self.in_flight = self.in_flight, ExitStack()
        self.in_flight.enter_context(self.pipeline.in_flight.relay_of(current.relay.supplier))
        before.close()
        self.current = current

    async def _from_backend(self, backend: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            message = await backend.receive()
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                raise _closing(message, backend.close_code, 1011)
            payload = message.data if isinstance(message.data, bytes) else message.data.encode()
            current = self.current
            if current is None:
                continue
            hold = self.connection.memory.hold()
            try:
                hold.take(len(payload))
                response = await self._recorded(current, payload)
                hold.drop = self.connection.abort
                async with asyncio.timeout(10):
                    await self.gateway.send_frame(response.encode(), message.type)
            finally:
                hold.close()

    async def _recorded(self, current: _Current, payload: bytes) -> RelayResponse:
        """An answer or event, charged, signed and recorded; raises Rejected."""
        if self.charges:
            metered = self.charges.popleft()
        elif current.paid:
            metered = await self.pipeline.charge_event(current.relay)
        else:
            metered = Metered(None, paid=False)
        return await self.pipeline.record_event(current.relay, current.admitted, metered, payload)

    async def _watch_session(self) -> None:
        """Ends the connection after its own session and grace period, or once its supplier is not served any more."""
        looked = 0.0
        while True:
            await asyncio.sleep(self.look_seconds)
            looked += self.look_seconds
            if looked > CONNECTION_SECONDS and self.pipeline.simulations.wanted(self.caller):
                raise _Closed(1000, "a simulated connection is a probe: it ends now")
            unfinished = self.incoming.unfinished
            if unfinished is not None and unfinished[1] > self.timeouts.to_read(unfinished[0]):
                raise _Closed(1008, "the message did not come in time")
            if self.current is None:
                if looked > self.timeouts.idle_seconds:
                    raise _Closed(1008, "no relay came in time")
                continue
            if self.current.admitted.over(self.pipeline.height()):
                await self._advise()
                raise _Closed(SESSION_EXPIRED, "session expired")
            if not self.pipeline.serves(self.current.relay.supplier):
                raise Rejected(RejectionReason.SUPPLIER_NOT_OURS, "the supplier is not served here any more")

    async def _advise(self) -> None:
        """The signed advice by which gateways move to the next session."""
        if self.current is None:
            return
        relay = self.current.relay
        body = json.dumps({"error": "session expired"}).encode()
        payload = HttpResponse(410, {"Content-Type": ("application/json",)}, body).encode()
        advice = signed_payload(
            relay.header, payload, relay.key, RelayMinerError("relayer", 410, "session expired", "session expired")
        )
        with suppress(OSError, aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(5):
                await self.gateway.send_frame(advice.encode(), WSMsgType.BINARY)

    async def _close(self, closed: _Closed) -> None:
        with suppress(OSError, aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(5):
                await self.gateway.close(code=closed.code, message=closed.text.encode())
        if self.backend is not None:
            code = _BACKEND_CODES.get(closed.code, closed.code if closed.code < 3000 else 1000)
            with suppress(OSError, aiohttp.ClientError, TimeoutError):
                async with asyncio.timeout(5):
                    await self.backend.close(code=code, message=closed.text.encode())


class _Done(Exception):
    """Ends the group of a bridge."""


def _closing(message: aiohttp.WSMessage, code: int | None, without: int) -> _Closed:
    """How the other side is told: the same code and text; a peer that is gone without a word is `without`."""
    if message.type is WSMsgType.CLOSE:
        return _Closed(message.data or 1000, message.extra or "")
    if message.type is WSMsgType.ERROR and isinstance(message.data, aiohttp.WebSocketError):
        return _Closed(int(message.data.code), str(message.data))
    return _Closed(code or without, "")
