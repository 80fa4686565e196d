"""Asking HTTP backends (relay-lifecycle.md, section 4)."""

import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from pocket_api.services import Backend
from relayer.backends.answers import Retryable, ServedStream
from relayer.memory import Hold
from relayer.paths import backend_url
from relayer.rejection import Reason, Rejected
from shannon.relays.envelope import HttpRequest, HttpResponse, canonical_headers

STREAMED: Final = frozenset({"text/event-stream", "application/x-ndjson"})
"""Media types of answers that are passed on while they come."""
_FILLED_FROM_OUTSIDE = ("Content-Type", "Accept", "User-Agent")
# Hop-by-hop and framing headers belong to one connection; the client sets its own.
_NEVER_FORWARDED = {
    "host", "content-length", "connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade",
    "proxy-authorization", "proxy-connection", "accept-encoding", "expect",
}  # fmt: skip


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
    for name, value in outer.items():
        if name.lower().startswith("pocket-"):
            headers[name] = value
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
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        plain = decoder.decompress(body, limit + 1)
    except zlib.error:
        return headers, body
    if len(plain) > limit:
        raise Rejected(Reason.RESPONSE_TOO_LARGE, "the backend's decompressed answer is too large")
    return {name: values for name, values in headers.items() if name != "Content-Encoding"}, plain


def new_session(max_connections: int) -> aiohttp.ClientSession:
    """A connection pool of its own for one service: a slow backend cannot starve another service."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, limit_per_host=max_connections, keepalive_timeout=90),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
    )


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        while chunk := await answer.content.readany():
            yield chunk
    except (aiohttp.ClientError, OSError) as error:
        raise Rejected(Reason.BACKEND_FAILED, f"backend failed: {type(error).__name__}") from error


async def ask_http(
    http: aiohttp.ClientSession,
    backend: Backend,
    url: str,
    request: HttpRequest,
    headers: CIMultiDict[str],
    limit: int,
    deadline: float,
    hold: Hold | None = None,
) -> HttpResponse | ServedStream:
    """One attempt at one endpoint; raises Rejected or Retryable. Only answers below 500 come back."""
    timeout = aiohttp.ClientTimeout(total=None, connect=backend.dial_timeout_seconds)
    answer: aiohttp.ClientResponse | None = None
    kept = False
    try:
        answer = await http.request(
            request.method or "POST",
            URL(backend_url(url, backend.base_path, request.url), encoded=True),
            data=request.body or None,
            headers=headers,
            allow_redirects=False,
            timeout=timeout,
        )
        if answer.status >= 500:
            raise Retryable(Rejected(Reason.BACKEND_ERROR, "the backend answered with an error", answer.status))
        named = canonical_headers(answer.headers.items())
        if answer.content_type in STREAMED:
            kept = True
            return ServedStream(answer.status, named, _chunks(answer), _closing(answer), deadline)
        chunks, size = [], 0
        while size <= limit and (chunk := await answer.content.readany()):
            chunks.append(chunk)
            size += len(chunk)
            if hold is not None:
                hold.take(len(chunk))
    except (aiohttp.ClientError, OSError) as error:
        raise Retryable(Rejected(Reason.BACKEND_FAILED, f"backend failed: {type(error).__name__}")) from error
    except ValueError as error:
        raise Rejected(
            Reason.INVALID_REQUEST, f"the payload's method, URL or headers cannot be sent: {error}"
        ) from error
    finally:
        if answer is not None and not kept:
            answer.release() if answer.content.at_eof() else answer.close()
    if size > limit:
        raise Rejected(Reason.RESPONSE_TOO_LARGE, f"the backend's answer is larger than {limit} bytes")
    plain_headers, plain = plain_body(named, b"".join(chunks), limit)
    return HttpResponse(answer.status, plain_headers, plain)


def _closing(answer: aiohttp.ClientResponse) -> Callable[[], Awaitable[None]]:
    async def close() -> None:
        answer.close()

    return close
