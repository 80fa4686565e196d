"""Call gRPC backends (relay-lifecycle.md, section 11).

The framed messages of the envelope are sent and returned unchanged, together with metadata and trailers. Unary calls
are streams of one message: the bytes on the wire are the same.
"""

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

import grpc

from pocket.errors import DecodingError
from pocket.protocol.relays.envelope import HttpRequest, HttpResponse, canonical_headers
from pocket.runtime.grpc_authorities import channel_credentials
from pocket_relayer.backends.framing import Framing, frame
from pocket_relayer.backends.header_fields import sent_fields
from pocket_relayer.backends.responses import RetryableBackendError
from pocket_relayer.limits.memory_budget import MemoryReservation
from pocket_relayer.limits.rejection import Rejected, RejectionReason

_OWN: Final = {
    "te", "content-type", "user-agent", "host", "connection", "content-length", "accept-encoding", "transfer-encoding",
    "keep-alive", "upgrade", "expect", "accept", "trailer", "proxy-connection",
}  # fmt: skip
_KEY: Final = re.compile(r"[0-9a-z_.-]+")
_VALUE: Final = re.compile(r"[ -~]*")
"""What gRPC allows as metadata."""
_SPLIT_IN_PLACE: Final = 64 * 1024
"""Bytes of a body without compressed messages up to which no thread is used."""


def channel_to(url: str, dial_seconds: float, limit: int) -> grpc.aio.Channel:
    """Return a channel to grpc://host:port, or with TLS to grpcs://host:port."""
    parts = urlsplit(url)
    options = [
        ("grpc.max_receive_message_length", limit),
        ("grpc.max_send_message_length", limit),
        # Despite its name the limit of one attempt to connect, including TLS and HTTP/2.
        ("grpc.min_reconnect_backoff_ms", max(200, int(dial_seconds * 1000))),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", max(1000, int(dial_seconds * 1000))),
        ("grpc.enable_retries", 0),
        # A backend that is back at another address is found within a second; gRPC's own pause is half a minute.
        ("grpc.dns_min_time_between_resolutions_ms", 1000),
        # The kernel gives up a connection whose other end is gone. Pings, after this time, are rare enough for servers.
        ("grpc.keepalive_time_ms", 6 * 60_000),
        ("grpc.keepalive_timeout_ms", 10_000),
    ]
    if parts.scheme == "grpcs":
        return grpc.aio.secure_channel(parts.netloc, channel_credentials(), options=options)
    return grpc.aio.insecure_channel(parts.netloc, options=options)


def metadata_of(request: HttpRequest, extra: Mapping[str, str]) -> list[tuple[str, str | bytes]]:
    """Return metadata from the envelope's headers, overridden by ours.

    Names are in lower case, binary values are decoded. Raises Rejected for what gRPC cannot send.
    """
    ours = {name.lower(): value for name, value in extra.items()}
    rows: list[tuple[str, str | bytes]] = []
    for name, value in sent_fields(request, ours):
        key = name.lower()
        if key in _OWN or key.startswith("grpc-"):
            continue
        if not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
            raise Rejected(RejectionReason.INVALID_REQUEST, f"header {name[:60]!r} is no gRPC metadata")
        if key.endswith("-bin"):
            try:
                rows.append((key, base64.b64decode(value + "=" * (-len(value) % 4), validate=True)))
            except binascii.Error as error:
                raise Rejected(RejectionReason.INVALID_REQUEST, f"header {name[:60]} is not base64") from error
        else:
            rows.append((key, value))
    return rows + list(ours.items())


async def _messages_of(request: HttpRequest, limit: int, reservation: MemoryReservation | None) -> list[bytes]:
    """Return the messages of an envelope's body, decompressed and counted.

    Raises Rejected.
    """
    encoding, body = request.headers.get("Grpc-Encoding", ("identity",))[0], request.body
    split = Framing(limit).all
    try:
        if len(body) <= _SPLIT_IN_PLACE and encoding == "identity":
            messages = split(body, encoding)
        else:
            messages = await asyncio.to_thread(split, body, encoding)
    except DecodingError as error:
        raise Rejected(RejectionReason.INVALID_REQUEST, f"the payload's body is not a gRPC message: {error}") from error
    if reservation is not None:
        reservation.acquire(sum(map(len, messages)))
    return messages


def _shown(metadata: Any) -> list[tuple[str, str]]:
    rows = []
    for key, value in metadata or ():
        text = base64.b64encode(value).decode().rstrip("=") if isinstance(value, bytes) else value
        rows.append((key, text))
    return rows


def _begin(
    channel: grpc.aio.Channel,
    path: str,
    messages: Sequence[bytes],
    metadata: list[tuple[str, str | bytes]],
    seconds: float,
) -> Any:
    """Start the call.

    A single message is sent together with the headers and the end of the stream. grpc.aio writes the messages of a
    stream after the headers. If the backend has ended the call by then (it needed no more to reject it), the failed
    write hides the backend's status: INTERNAL, "Internal error from Core".
    """
    if len(messages) == 1:
        return channel.unary_stream(path, None, None)(messages[0], metadata=metadata, timeout=seconds)

    async def sent() -> AsyncIterator[bytes]:
        for message in messages:
            yield message

    return channel.stream_stream(path, None, None)(sent(), metadata=metadata, timeout=seconds)


async def call_grpc(
    channel: grpc.aio.Channel,
    path: str,
    request: HttpRequest,
    extra: Mapping[str, str],
    seconds: float,
    limit: int,
    reservation: MemoryReservation | None = None,
) -> HttpResponse:
    """Call a backend.

    Returns its framed messages, with the trailers among the headers.

    Raises Rejected or RetryableBackendError.
    """
    metadata = metadata_of(request, extra)
    messages = await _messages_of(request, limit, reservation)
    call = _begin(channel, path, messages, metadata, seconds)
    out = bytearray()
    try:
        async for message in call:
            if reservation is not None:
                reservation.acquire(len(message))
            out += frame(message)
            if len(out) > limit:
                raise Rejected(RejectionReason.RESPONSE_TOO_LARGE, f"the backend's answer is larger than {limit} bytes")
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise Rejected(RejectionReason.BACKEND_TIMEOUT, f"no answer within {seconds:g} s") from None
        if error.code() is grpc.StatusCode.UNAVAILABLE and not out and not _shown(error.initial_metadata()):
            raise RetryableBackendError(
                Rejected(RejectionReason.BACKEND_FAILED, "backend failed: unavailable"),
                reached=channel.get_state() is grpc.ChannelConnectivity.READY,
            ) from error
    except (ValueError, TypeError) as error:
        raise Rejected(RejectionReason.INVALID_REQUEST, f"the payload's headers cannot be sent: {error}") from error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # grpc.aio ended its own call
        raise RetryableBackendError(
            Rejected(RejectionReason.BACKEND_FAILED, "backend failed: call ended"), reached=True
        ) from None
    finally:
        call.cancel()
    code = await call.code()
    headers = [
        ("Content-Type", "application/grpc"),
        *_shown(await call.initial_metadata()),
        *_shown(await call.trailing_metadata()),
        ("Grpc-Status", str(code.value[0])),
    ]
    if details := await call.details():
        headers.append(("Grpc-Message", quote(unquote(details), safe=" !#$&'()*+,/:;=?@[]~")))
    return HttpResponse(200, canonical_headers(headers), bytes(out))
