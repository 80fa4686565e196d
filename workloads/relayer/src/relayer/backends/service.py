"""All backends of one service."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

import aiohttp
import grpc

from pocket_api.services import Backend, RequestBackend, Service
from relayer.backends.answers import Retryable, Served, ServedStream
from relayer.backends.credentials import Credentials
from relayer.backends.grpc_calls import call_grpc, channel_to
from relayer.backends.http import ask_http, new_session, request_headers
from relayer.backends.pools import Endpoint, Pool
from relayer.paths import grpc_method
from relayer.rejection import Reason, Rejected
from shannon.errors import ConfigurationError
from shannon.relays.envelope import HttpRequest, HttpResponse

WEB_SOCKET_MESSAGE_BYTES = 15 * 1024 * 1024


class ServiceBackends:
    """Pools of one service, with connections of their own."""

    def __init__(
        self, service: Service, clock: Callable[[], float], credentials: Credentials | None = None,
        http: Callable[[int], aiohttp.ClientSession] = new_session,
    ) -> None:  # fmt: skip
        self.service = service
        self._clock = clock
        self._credentials = credentials or Credentials(None)
        self.pools = {name: Pool(backend) for name, backend in service.backends.by_type().items()}
        limits = [b.max_connections for b in service.backends.by_type().values() if isinstance(b, Backend)]
        self.http = http(max(limits, default=500))
        self._channels: dict[str, grpc.aio.Channel] = {}
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
            raise Rejected(Reason.BACKEND_MISSING, f"service {self.service.id} has no {rpc_type} backend")
        if not pool.healthy(self._clock()):
            raise Rejected(Reason.BACKEND_UNHEALTHY, "backend unhealthy")
        return pool

    def configured_headers(self, pool: Pool) -> dict[str, str]:
        """Headers of the configuration, authentication included; raises Rejected."""
        try:
            return self._credentials.headers(pool.backend)
        except ConfigurationError as error:
            raise Rejected(Reason.BACKEND_UNHEALTHY, str(error)) from error

    async def forward(
        self, rpc_type: str, request: HttpRequest, outer: Mapping[str, str], extra: Mapping[str, str]
    ) -> Served | ServedStream:
        """The backend's answer below 500; raises Rejected. Retries share one deadline."""
        pool = self.pool(rpc_type)
        backend = pool.backend
        assert isinstance(backend, RequestBackend)  # noqa: S101 - WebSocket pools are dialled, never asked
        configured = self.configured_headers(pool)
        seconds = backend.timeout_seconds
        deadline = asyncio.get_running_loop().time() + seconds
        tried: set[str] = set()
        last = Rejected(Reason.BACKEND_UNHEALTHY, "backend unhealthy")
        try:
            async with asyncio.timeout_at(deadline):
                for attempt in range(backend.max_retries + 1):
                    endpoint = pool.choose(self._clock(), tried)
                    if endpoint is None:
                        break
                    tried.add(endpoint.url)
                    try:
                        answer = await self._ask(backend, endpoint, request, outer, extra, configured, deadline)
                    except Retryable as failure:
                        endpoint.failed(self._clock())
                        last = failure.rejected
                        continue
                    endpoint.succeeded()
                    return answer if isinstance(answer, ServedStream) else Served(answer, attempt)
        except TimeoutError:
            raise Rejected(Reason.BACKEND_TIMEOUT, f"no answer within {seconds:g} s") from None
        raise last

    async def _ask(
        self,
        backend: RequestBackend,
        endpoint: Endpoint,
        request: HttpRequest,
        outer: Mapping[str, str],
        extra: Mapping[str, str],
        configured: Mapping[str, str],
        deadline: float,
    ) -> HttpResponse | ServedStream:
        limit = self.service.max_body_bytes
        if isinstance(backend, Backend):
            headers = request_headers(request, outer, extra, configured)
            return await ask_http(self.http, backend, endpoint.url, request, headers, limit, deadline)
        channel = self._channels.get(endpoint.url)
        if channel is None:
            dial = backend.dial_timeout_seconds
            channel = self._channels[endpoint.url] = channel_to(endpoint.url, dial, limit + 1024)
        seconds = max(0.001, deadline - asyncio.get_running_loop().time())
        try:
            method = grpc_method(request.url)
        except ValueError as error:
            raise Rejected(Reason.INVALID_REQUEST, f"the payload's URL cannot be sent: {error}") from error
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
                    socket = await self.http.ws_connect(
                        endpoint.url, headers=headers, max_msg_size=WEB_SOCKET_MESSAGE_BYTES, autoclose=False,
                        heartbeat=27.0, compress=0,
                    )  # fmt: skip
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
                endpoint.failed(self._clock())
                continue
            endpoint.succeeded()
            return socket
        raise Rejected(Reason.BACKEND_FAILED, "the backend's WebSocket cannot be reached")

    def state(self) -> dict[str, object]:
        """Number of endpoints, those that may be asked, and why others may not."""
        now = self._clock()
        endpoints = [e for pool in self.pools.values() for e in pool.endpoints]
        rows = [
            {"url": e.url, "healthy": e.available(now), **({"problem": e.down} if e.down else {})} for e in endpoints
        ]
        return {"total": len(rows), "healthy": sum(e.available(now) for e in endpoints), "endpoints": rows}


async def close_quietly(backends: ServiceBackends) -> None:
    """For backends that nobody uses any more."""
    with suppress(OSError, aiohttp.ClientError):
        await backends.close()
