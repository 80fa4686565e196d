"""Backend pools: choice, circuit breaker, retries, limits (relay-lifecycle.md, section 4)."""

import asyncio
import gzip
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from pocket_api.relayminer import Backend, Service
from relayer.paths import backend_url
from relayer.rejection import Reason, Rejected
from shannon.relays.envelope import HttpRequest, HttpResponse, canonical_headers

_FILLED_FROM_OUTSIDE = ("Content-Type", "Accept", "User-Agent")
# Hop-by-hop and framing headers belong to one connection; the client sets its own.
_NEVER_FORWARDED = {
    "host", "content-length", "connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade",
    "proxy-authorization", "proxy-connection", "accept-encoding", "expect",
}  # fmt: skip


@dataclass(slots=True)
class Endpoint:
    """One URL with its breaker: `threshold` failures in a row open it for `recovery` seconds (0 = for ever)."""

    url: str
    threshold: int
    recovery_seconds: float
    failures: int = 0
    open_since: float | None = None

    def available(self, now: float) -> bool:
        """Whether it may be asked."""
        if self.open_since is None:
            return True
        return self.recovery_seconds > 0 and now - self.open_since >= self.recovery_seconds

    def succeeded(self) -> None:
        """Closes the breaker."""
        self.failures = 0
        self.open_since = None

    def failed(self, now: float) -> None:
        """Counts a hard failure: connection, TLS, DNS, read error or 5xx."""
        self.failures += 1
        if self.failures >= self.threshold:
            self.open_since = now


class _Retryable(Exception):
    """A hard failure of one endpoint."""

    def __init__(self, rejected: Rejected) -> None:
        super().__init__(rejected.message)
        self.rejected = rejected


@dataclass(slots=True)
class Pool:
    """Endpoints of one service and transport."""

    backend: Backend
    endpoints: list[Endpoint] = field(default_factory=list)
    _turn: int = 0

    def __post_init__(self) -> None:
        self.endpoints = [
            Endpoint(url, self.backend.unhealthy_threshold, self.backend.recovery_seconds) for url in self.backend.urls
        ]

    def choose(self, now: float, tried: set[str]) -> Endpoint | None:
        """The next healthy endpoint that was not tried for this request."""
        strategy = self.backend.strategy or ("first_healthy" if len(self.endpoints) == 1 else "round_robin")
        order = self.endpoints
        if strategy == "round_robin":
            self._turn += 1
            start = self._turn % len(order)
            order = order[start:] + order[:start]
        return next((e for e in order if e.url not in tried and e.available(now)), None)

    def healthy(self, now: float) -> int:
        """Number of endpoints that may be asked."""
        return sum(endpoint.available(now) for endpoint in self.endpoints)


@dataclass(frozen=True, slots=True)
class Served:
    """A backend's answer with the number of extra attempts."""

    response: HttpResponse
    retries: int


def request_headers(
    request: HttpRequest, outer: Mapping[str, str], extra: Mapping[str, str], configured: Mapping[str, str]
) -> CIMultiDict[str]:
    """Headers for the backend: envelope first, gaps from outside, Pocket-* and configured ones on top."""
    headers: CIMultiDict[str] = CIMultiDict()
    for name, values in request.headers.items():
        if name.lower() not in _NEVER_FORWARDED:
            for value in values:
                headers.add(name, value)
    for name in _FILLED_FROM_OUTSIDE:
        if name not in headers and name in outer:
            headers[name] = outer[name]
    headers.update(extra)
    headers.update(configured)
    headers["Accept-Encoding"] = "identity"
    return headers


def plain_body(
    headers: Mapping[str, tuple[str, ...]], body: bytes, limit: int
) -> tuple[Mapping[str, tuple[str, ...]], bytes]:
    """Gzip removed, recognised by header or magic bytes; kept as it is when it cannot be decoded within the limit."""
    if headers.get("Content-Encoding", ("",))[0].lower() != "gzip" and not body.startswith(b"\x1f\x8b"):
        return headers, body
    decoder = zlib.decompressobj(wbits=gzip.zlib.MAX_WBITS | 16)  # type: ignore[attr-defined]  # re-export of zlib
    try:
        plain = decoder.decompress(body, limit + 1)
    except zlib.error:
        return headers, body
    if len(plain) > limit:
        raise Rejected(Reason.RESPONSE_TOO_LARGE, "the backend's decompressed answer is too large")
    return {name: values for name, values in headers.items() if name != "Content-Encoding"}, plain


class ServiceBackends:
    """All pools of one service, with a connection pool of their own."""

    def __init__(self, service: Service, clock: Callable[[], float]) -> None:
        self._service = service
        self._clock = clock
        named = {
            "jsonRpc": service.backends.json_rpc,
            "rest": service.backends.rest,
            "cometBft": service.backends.comet_bft,
        }
        self.pools = {name: Pool(backend) for name, backend in named.items() if backend}
        limit = max(pool.backend.max_connections for pool in self.pools.values())
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, limit_per_host=limit, keepalive_timeout=90),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
        )

    async def close(self) -> None:
        """Closes connections."""
        await self._http.close()

    def pool(self, rpc_type: str) -> Pool:
        """The pool of a transport; no other one stands in. Raises Rejected."""
        pool = self.pools.get(rpc_type)
        if pool is None:
            raise Rejected(Reason.BACKEND_MISSING, f"service {self._service.id} has no {rpc_type} backend")
        if not pool.healthy(self._clock()):
            raise Rejected(Reason.BACKEND_UNHEALTHY, "backend unhealthy")
        return pool

    async def forward(
        self, pool: Pool, request: HttpRequest, outer: Mapping[str, str], extra: Mapping[str, str]
    ) -> Served:
        """The backend's answer below 500; raises Rejected. Retries share one deadline."""
        headers = request_headers(request, outer, extra, pool.backend.headers)
        tried: set[str] = set()
        last = Rejected(Reason.BACKEND_UNHEALTHY, "backend unhealthy")
        try:
            async with asyncio.timeout(pool.backend.timeout_seconds):
                for attempt in range(pool.backend.max_retries + 1):
                    endpoint = pool.choose(self._clock(), tried)
                    if endpoint is None:
                        break
                    tried.add(endpoint.url)
                    try:
                        response = await self._ask(pool, endpoint, request, headers)
                    except _Retryable as failure:
                        endpoint.failed(self._clock())
                        last = failure.rejected
                        continue
                    endpoint.succeeded()
                    return Served(response, attempt)
        except TimeoutError:
            raise Rejected(Reason.BACKEND_TIMEOUT, f"no answer within {pool.backend.timeout_seconds:g} s") from None
        raise last

    async def _ask(
        self, pool: Pool, endpoint: Endpoint, request: HttpRequest, headers: CIMultiDict[str]
    ) -> HttpResponse:
        limit = self._service.max_body_bytes
        url = URL(backend_url(endpoint.url, pool.backend.base_path, request.url), encoded=True)
        timeout = aiohttp.ClientTimeout(total=None, connect=pool.backend.dial_timeout_seconds)
        try:
            async with self._http.request(
                request.method or "POST",
                url,
                data=request.body or None,
                headers=headers,
                allow_redirects=False,
                timeout=timeout,
            ) as answer:
                chunks, size = [], 0
                while size <= limit and (chunk := await answer.content.readany()):
                    chunks.append(chunk)
                    size += len(chunk)
                body = b"".join(chunks)
        except (aiohttp.ClientError, OSError) as error:
            rejected = Rejected(Reason.BACKEND_FAILED, f"backend failed: {type(error).__name__}")
            raise _Retryable(rejected) from error
        except ValueError as error:
            raise Rejected(
                Reason.INVALID_REQUEST, f"the payload's method, URL or headers cannot be sent: {error}"
            ) from error
        if answer.status >= 500:
            raise _Retryable(Rejected(Reason.BACKEND_ERROR, "the backend answered with an error", answer.status))
        if len(body) > limit:
            raise Rejected(Reason.RESPONSE_TOO_LARGE, f"the backend's answer is larger than {limit} bytes")
        kept, plain = plain_body(canonical_headers(answer.headers.items()), body, limit)
        return HttpResponse(answer.status, kept, plain)
