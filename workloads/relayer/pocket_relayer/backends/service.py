"""All backends of one service."""

import asyncio
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace

import aiohttp
import grpc

from pocket.api.services import Backend, RequestBackend, ServiceSpec
from pocket.errors import ConfigurationError
from pocket.protocol.relays.envelope import HttpRequest, HttpResponse
from pocket_relayer.backends.connection_slots import ConnectionSlots
from pocket_relayer.backends.credentials import Credentials
from pocket_relayer.backends.grpc_calls import call_grpc, channel_to
from pocket_relayer.backends.header_fields import request_headers
from pocket_relayer.backends.http_calls import Clients, ask_http
from pocket_relayer.backends.paths import grpc_method, public_place
from pocket_relayer.backends.pools import BackendEndpoint, Pool
from pocket_relayer.backends.responses import BackendResponse, BackendStream, RetryableBackendError
from pocket_relayer.memory_budget import MemoryReservation
from pocket_relayer.rejection import Rejected, RejectionReason

WEB_SOCKET_MESSAGE_BYTES = 15 * 1024 * 1024
_CALLS_AT_ONCE = 1000  # to one gRPC endpoint


class ServiceBackends:
    """Pools of one service, with connections of their own."""

    def __init__(
        self, service: ServiceSpec, clock: Callable[[], float], credentials: Credentials | None = None,
        http: Callable[[int], Clients] = Clients.open,
    ) -> None:  # fmt: skip
        self.service = service
        self._clock = clock
        self._credentials = credentials or Credentials(None)
        self.pools = {name: Pool(backend) for name, backend in service.backends.by_type().items()}
        limits = [b.max_connections for b in service.backends.by_type().values() if isinstance(b, Backend)]
        self.http = http(max(limits, default=500))
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._slots: dict[str, ConnectionSlots] = {}
        self.in_flight = 0

    @contextmanager
    def used(self) -> Iterator[None]:
        """Keeps the connections open, though the configuration may replace these backends meanwhile."""
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    async def close(self) -> None:
        """Closes connections."""
        await self.http.close()
        for channel in self._channels.values():
            await channel.close(None)

    def pool(self, rpc_type: str) -> Pool:
        """The pool of a transport; no other one stands in. Raises Rejected."""
        pool = self.pools.get(rpc_type)
        if pool is None:
            raise Rejected(RejectionReason.BACKEND_MISSING, f"service {self.service.id} has no {rpc_type} backend")
        if not pool.healthy(self._clock()):
            raise Rejected(RejectionReason.BACKEND_UNHEALTHY, "backend unhealthy")
        return pool

    def configured_headers(self, pool: Pool) -> dict[str, str]:
        """Headers of the configuration, authentication included; raises Rejected."""
        try:
            return self._credentials.headers(pool.backend)
        except ConfigurationError as error:
            raise Rejected(RejectionReason.BACKEND_UNHEALTHY, str(error)) from error

    def slots(self, backend: RequestBackend, url: str) -> ConnectionSlots:
        """What is shared of an endpoint's connections."""
        found = self._slots.get(url)
        if found is None:
            size = backend.max_connections if isinstance(backend, Backend) else _CALLS_AT_ONCE
            found = self._slots[url] = ConnectionSlots(size)
        return found

    async def forward(
        self,
        rpc_type: str,
        request: HttpRequest,
        outer: Mapping[str, str],
        extra: Mapping[str, str],
        share: str = "",
        hold: MemoryReservation | None = None,
    ) -> BackendResponse | BackendStream:
        """The backend's answer below 500; raises Rejected. Retries share one deadline.

        Those with the same `share` have one part of each endpoint's connections; to wait for one is none of the
        backend's time. What is read of the answer is counted by `hold`.
        """
        pool = self.pool(rpc_type)
        backend = pool.backend
        assert isinstance(backend, RequestBackend)  # noqa: S101 - WebSocket pools are dialled, never asked
        configured = self.configured_headers(pool)
        seconds, loop = backend.timeout_seconds, asyncio.get_running_loop()
        left = seconds
        tried: set[str] = set()
        last = Rejected(RejectionReason.BACKEND_UNHEALTHY, "backend unhealthy")
        for attempt in range(backend.max_retries + 1):
            endpoint = pool.choose(self._clock(), tried)
            if endpoint is None:
                break
            tried.add(endpoint.url)
            slots = self.slots(backend, endpoint.url)
            await slots.take(share)
            begun, kept = loop.time(), False
            try:
                async with asyncio.timeout(left):
                    answer = await self._ask(backend, endpoint, request, outer, extra, configured, begun + left, hold)
                endpoint.succeeded()
                if not isinstance(answer, BackendStream):
                    return BackendResponse(answer, attempt)
                kept = True
                return _until_closed(answer, functools.partial(slots.free, share))
            except RetryableBackendError as failure:
                endpoint.failed(self._clock())
                last = failure.rejected
            except TimeoutError:
                raise Rejected(RejectionReason.BACKEND_TIMEOUT, f"no answer within {seconds:g} s") from None
            finally:
                if not kept:
                    slots.free(share)
            left -= loop.time() - begun
        raise last

    async def _ask(
        self,
        backend: RequestBackend,
        endpoint: BackendEndpoint,
        request: HttpRequest,
        outer: Mapping[str, str],
        extra: Mapping[str, str],
        configured: Mapping[str, str],
        deadline: float,
        hold: MemoryReservation | None,
    ) -> HttpResponse | BackendStream:
        limit = self.service.max_body_bytes
        if isinstance(backend, Backend):
            headers = request_headers(request, outer, extra, configured)
            return await ask_http(self.http, backend, endpoint.url, request, headers, limit, deadline, hold)
        channel = self._channels.get(endpoint.url)
        if channel is None:
            dial = backend.dial_timeout_seconds
            channel = self._channels[endpoint.url] = channel_to(endpoint.url, dial, limit + 1024)
        seconds = max(0.001, deadline - asyncio.get_running_loop().time())
        try:
            method = grpc_method(request.url)
        except ValueError as error:
            raise Rejected(RejectionReason.INVALID_REQUEST, f"the payload's URL cannot be sent: {error}") from error
        return await call_grpc(channel, method, request, {**extra, **configured}, seconds, limit)

    async def dial(self, extra: Mapping[str, str]) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket to a healthy endpoint; raises Rejected."""
        pool = self.pool("webSocket")
        headers = {**extra, **self.configured_headers(pool)}
        tried: set[str] = set()
        for _ in range(2):
            endpoint = pool.choose(self._clock(), tried)
            if endpoint is None:
                break
            tried.add(endpoint.url)
            try:
                async with asyncio.timeout(pool.backend.dial_timeout_seconds):
                    socket = await self.http.kept.ws_connect(
                        endpoint.url, headers=headers, max_msg_size=WEB_SOCKET_MESSAGE_BYTES, autoclose=False,
                        heartbeat=27.0, compress=0,
                    )  # fmt: skip
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
                endpoint.failed(self._clock())
                continue
            endpoint.succeeded()
            return socket
        raise Rejected(RejectionReason.BACKEND_FAILED, "the backend's WebSocket cannot be reached")

    def state(self) -> dict[str, int]:
        """How many endpoints there are, and how many of them may be asked: nothing of where they are."""
        now = self._clock()
        endpoints = [endpoint for pool in self.pools.values() for endpoint in pool.endpoints]
        return {"total": len(endpoints), "healthy": sum(endpoint.available(now) for endpoint in endpoints)}

    def endpoints(self) -> list[dict[str, object]]:
        """Every endpoint by place and transport, and why it gets no relays; for operators, without keys."""
        now = self._clock()
        return [
            {
                "service": self.service.id, "transport": kind, "endpoint": public_place(endpoint.url),
                "healthy": endpoint.available(now), "problem": endpoint.down,
            }
            for kind, pool in self.pools.items()
            for endpoint in pool.endpoints
        ]  # fmt: skip


def _until_closed(answer: BackendStream, free: Callable[[], None]) -> BackendStream:
    """A stream whose connection is given back, once, when it is closed."""
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
    """For backends that nobody uses any more."""
    with suppress(OSError, aiohttp.ClientError):
        await backends.close()
