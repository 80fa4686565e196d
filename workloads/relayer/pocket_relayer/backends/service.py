"""All backends of one service."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace

import aiohttp
import grpc
import structlog
from structlog.typing import FilteringBoundLogger

from pocket.api.services import Backend, BackendBase, RequestBackend, ServiceSpec, WebSocketBackend
from pocket.errors import ConfigurationError
from pocket.protocol.relays.envelope import HttpRequest, HttpResponse
from pocket.runtime.shared_deadlines import SharedDeadlines
from pocket_relayer.backends.connection_slots import ConnectionSlots
from pocket_relayer.backends.credentials import Credentials
from pocket_relayer.backends.grpc_calls import call_grpc, channel_to
from pocket_relayer.backends.header_fields import request_headers
from pocket_relayer.backends.http_calls import Clients, call_http
from pocket_relayer.backends.paths import grpc_method, public_origin
from pocket_relayer.backends.pools import BackendEndpoint, Pool
from pocket_relayer.backends.responses import BackendResponse, BackendStream, RetryableBackendError
from pocket_relayer.limits.memory_budget import MemoryReservation
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.relayer_metrics import BackendConnections

_LOG: FilteringBoundLogger = structlog.get_logger()
WEB_SOCKET_MESSAGE_BYTES = 15 * 1024 * 1024
_CONCURRENT_CALLS = 1000  # to one gRPC endpoint


class _Use:
    """Counts a relay that uses some backends."""

    __slots__ = ("_backends",)

    def __init__(self, backends: "ServiceBackends") -> None:
        self._backends = backends

    def __enter__(self) -> None:
        self._backends.in_flight += 1

    def __exit__(self, *_: object) -> None:
        self._backends.in_flight -= 1


class ServiceBackends:
    """Endpoint pools of one service, with their own connections."""

    def __init__(
        self, service: ServiceSpec, clock: Callable[[], float], credentials: Credentials | None = None,
        http: Callable[[int], Clients] = Clients.open,
    ) -> None:  # fmt: skip
        self.service = service
        self._clock = clock
        self._credentials = credentials or Credentials(None)
        self.pools = {name: Pool(backend) for name, backend in service.backends.by_type().items()}
        # Each endpoint has its slots. Several endpoints may be paths of one host, which never waits for a connection.
        backends = [one for one in service.backends.by_type().values() if isinstance(one, Backend)]
        self.http = http(sum(one.max_connections * len(one.urls) for one in backends) or 500)
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._slots: dict[str, ConnectionSlots] = {}
        self._use = _Use(self)
        self._deadlines = SharedDeadlines()
        self.in_flight = 0

    def used(self) -> "_Use":
        """Return the context that keeps the connections open while a relay uses them.

        The configuration may replace these backends in the meantime.
        """
        return self._use

    async def close(self) -> None:
        """Close all connections."""
        await self.http.close()
        for channel in self._channels.values():
            await channel.close(None)

    def connections(self) -> BackendConnections:
        """Return the connections to all endpoints."""
        slots = self._slots.values()
        idle = self.http.plain.idle if self.http.plain is not None else 0
        return BackendConnections(sum(row.used for row in slots), idle, sum(row.awaited for row in slots))

    def pool(self, rpc_type: str) -> Pool:
        """Return the pool of a transport, for which no other one stands in.

        Raises Rejected if it is not configured or has no available endpoint.
        """
        pool = self._configured_pool(rpc_type)
        if not pool.available(self._clock()):
            raise Rejected(RejectionReason.BACKEND_UNHEALTHY, "backend unhealthy")
        return pool

    def _configured_pool(self, rpc_type: str) -> Pool:
        pool = self.pools.get(rpc_type)
        if pool is None:
            raise Rejected(RejectionReason.BACKEND_MISSING, f"service {self.service.id} has no {rpc_type} backend")
        return pool

    def configured_headers(self, pool: Pool) -> dict[str, str]:
        """Return the configured headers, including authentication.

        Raises Rejected if the credentials are unavailable.
        """
        try:
            return self._credentials.headers(pool.backend)
        except ConfigurationError as error:
            _LOG.debug("no credentials", service=self.service.id, error=error)  # clients need not know the Secret
            raise Rejected(RejectionReason.BACKEND_UNHEALTHY, "the backend's credentials are unavailable") from error

    def slots(self, backend: BackendBase, url: str) -> ConnectionSlots:
        """Return the connection slots of an endpoint."""
        slots = self._slots.get(url)
        if slots is None:
            limited = (Backend, WebSocketBackend)
            size = backend.max_connections if isinstance(backend, limited) else _CONCURRENT_CALLS
            slots = self._slots[url] = ConnectionSlots(size)
        return slots

    async def forward(
        self,
        rpc_type: str,
        request: HttpRequest,
        outer: Mapping[str, str],
        extra: Mapping[str, str],
        fairness_key: str = "",
        reservation: MemoryReservation | None = None,
    ) -> BackendResponse | BackendStream:
        """Return the backend's response below status 500.

        Relays with the same `fairness_key` share one part of each endpoint's connections. The wait for a connection
        does not count as the backend's time. Retries share one deadline. `reservation` counts what is read of the
        response. Raises Rejected.
        """
        pool = self._configured_pool(rpc_type)
        backend = pool.backend
        assert isinstance(backend, RequestBackend)  # noqa: S101 - WebSocket pools are dialled, never asked
        configured = self.configured_headers(pool)
        # The application, or the address where any client can name any application: see `fairness_key` of a relay.
        client = fairness_key.rpartition(" ")[2]
        seconds, now = backend.timeout_seconds, self._deadlines.time
        left = seconds
        tried: set[str] = set()
        last: Rejected | None = None
        for attempt in range(backend.max_retries + 1):
            endpoint = pool.choose(self._clock(), tried)
            if endpoint is None:
                break
            tried.add(endpoint.url)
            slots = self.slots(backend, endpoint.url)
            await slots.acquire(fairness_key)
            begun, kept = now(), False
            try:
                with self._deadlines.within(left):
                    answer = await self._call(
                        backend, endpoint, request, outer, extra, configured, begun + left, reservation
                    )
                endpoint.succeeded(client)
                if not isinstance(answer, BackendStream):
                    return BackendResponse(answer, attempt)
                kept = True
                return _until_closed(answer, functools.partial(slots.release, fairness_key))
            except RetryableBackendError as failure:
                last = failure.rejected
                endpoint.failed(self._clock(), client if failure.reached else "")
            except TimeoutError:
                raise Rejected(RejectionReason.BACKEND_TIMEOUT, f"no answer within {seconds:g} s") from None
            finally:
                if not kept:
                    slots.release(fairness_key)
            left -= now() - begun
        raise last or Rejected(RejectionReason.BACKEND_UNHEALTHY, "backend unhealthy")

    def _call(
        self,
        backend: RequestBackend,
        endpoint: BackendEndpoint,
        request: HttpRequest,
        outer: Mapping[str, str],
        extra: Mapping[str, str],
        configured: Mapping[str, str],
        deadline: float,
        reservation: MemoryReservation | None,
    ) -> Awaitable[HttpResponse | BackendStream]:
        """Return the call of one endpoint. Raises Rejected."""
        limit = self.service.max_body_bytes
        if isinstance(backend, Backend):
            headers = request_headers(request, outer, extra, configured)
            return call_http(self.http, backend, endpoint.url, request, headers, limit, deadline, reservation)
        channel = self._channels.get(endpoint.url)
        if channel is None:
            dial = backend.dial_timeout_seconds
            channel = self._channels[endpoint.url] = channel_to(endpoint.url, dial, limit + 1024)
        seconds = max(0.001, deadline - asyncio.get_running_loop().time())
        try:
            method = grpc_method(request.url)
        except ValueError as error:
            raise Rejected(RejectionReason.INVALID_REQUEST, f"the payload's URL cannot be sent: {error}") from error
        return call_grpc(channel, method, request, {**extra, **configured}, seconds, limit, reservation)

    async def dial(
        self, extra: Mapping[str, str], fairness_key: str, held: ExitStack
    ) -> aiohttp.ClientWebSocketResponse:
        """Open a WebSocket to an available endpoint.

        It has one of the endpoint's slots until `held` is closed. The wait for a slot is no failure of the endpoint.
        Raises Rejected.
        """
        pool = self.pool("webSocket")
        headers = {**extra, **self.configured_headers(pool)}
        tried: set[str] = set()
        for _ in range(2):
            endpoint = pool.choose(self._clock(), tried)
            if endpoint is None:
                break
            tried.add(endpoint.url)
            slots = self.slots(pool.backend, endpoint.url)
            await slots.acquire(fairness_key)
            slot = held.enter_context(ExitStack())
            slot.callback(slots.release, fairness_key)
            try:
                async with asyncio.timeout(pool.backend.dial_timeout_seconds):
                    socket = await self.http.kept.ws_connect(
                        endpoint.url, headers=headers, max_msg_size=WEB_SOCKET_MESSAGE_BYTES, autoclose=False,
                        heartbeat=27.0, compress=0,
                    )  # fmt: skip
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
                slot.close()
                endpoint.failed(self._clock())
                continue
            endpoint.succeeded()
            return socket
        raise Rejected(RejectionReason.BACKEND_FAILED, "the backend's WebSocket cannot be reached")

    def state(self) -> dict[str, int]:
        """Return the number of endpoints and of available ones, without their addresses."""
        now = self._clock()
        endpoints = [endpoint for pool in self.pools.values() for endpoint in pool.endpoints]
        return {"total": len(endpoints), "healthy": sum(endpoint.available(now) for endpoint in endpoints)}

    def endpoints(self, *, only_unhealthy: bool = False) -> list[dict[str, object]]:
        """Return every endpoint, or those that are unavailable.

        Each has its transport, origin and the reason. It is meant for operators and holds no keys.
        """
        now = self._clock()
        return [
            {
                "service": self.service.id, "transport": kind, "endpoint": public_origin(endpoint.url),
                "healthy": endpoint.available(now), "problem": endpoint.failed_check,
            }
            for kind, pool in self.pools.items()
            for endpoint in pool.endpoints
            if not (only_unhealthy and endpoint.available(now))
        ]  # fmt: skip


def _until_closed(answer: BackendStream, free: Callable[[], None]) -> BackendStream:
    """Return a stream that returns its connection once, when it is closed."""
    close, given = answer.close, False

    async def closed() -> None:
        nonlocal given
        try:
            await close()
        finally:
            if not given:
                given = True
                free()

    return replace(answer, close=closed)


async def close_quietly(backends: ServiceBackends) -> None:
    """Close backends that are no longer used, ignoring errors of their connections."""
    with suppress(OSError, aiohttp.ClientError):
        await backends.close()
