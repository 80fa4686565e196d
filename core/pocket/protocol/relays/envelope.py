"""Encode and decode the HTTP payload, POKTHTTPRequest and POKTHTTPResponse.

Source: docs/protocol/messages.md, section 2.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import quote

from google.protobuf.message import DecodeError

from pocket.errors import DecodingError
from pocket.fast_init import fast_init
from pocket.protocol.pb import sdk_types_pb2 as pb
from pocket.protocol.relays import wire

JSON_RPC: Final = 3
REST: Final = 4
UNKNOWN_RPC: Final = 0
MOST_HEADER_BYTES: Final = 128 * 1024
"""Limit for names and values of a request envelope, which is decoded before it is authenticated."""
_SMALL: Final = 16 * 1024
_SHORT_NAME: Final = 64  # characters of a header's name up to which it is cached ...
_SHORT_FIELD: Final = 128  # ... and of a whole header
_URL_AND_BODY: Final = frozenset({3, 4})
_SHORT_HEAD: Final = 1024  # bytes of an envelope without its body up to which they are cached
_BODY: Final = 0x22  # tag of a request's body
_BEFORE_BODY: Final = (0x0A, 0x12, 0x1A)  # tags of method, headers and URL
STREAM_DELIMITER: Final = b"||POKT_STREAM||"
"""Follows each signed response of a streamed answer (docs/protocol/relay-lifecycle.md, section 9)."""


def canonical_header_name(name: str) -> str:
    """Return a header name in canonical case, such as `Content-Type`.

    A name that is no HTTP token is returned unchanged.
    """
    return _known_name(name) if len(name) <= _SHORT_NAME else _canonical_name(name)


def _canonical_name(name: str) -> str:
    if not name or any(not (c.isascii() and (c.isalnum() or c in "!#$%&'*+-.^_`|~")) for c in name):
        return name
    return "-".join(part[:1].upper() + part[1:].lower() for part in name.split("-"))


_known_name = lru_cache(maxsize=4096)(_canonical_name)


def url_text(url: str) -> str:
    """Percent-encode characters that are not printable ASCII, as gateways do.

    They are encoded as UTF-8. The rest of the URL stays unchanged.
    """
    return quote(url, safe="".join(chr(c) for c in range(33, 127)))


Headers = Mapping[str, tuple[str, ...]]


def canonical_headers(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Canonical name → values in their order."""
    out: dict[str, tuple[str, ...]] = {}
    for name, value in pairs:
        key = canonical_header_name(name)
        out[key] = (*out.get(key, ()), value)
    return out


@fast_init
@dataclass(frozen=True, slots=True)
class HttpRequest:
    """The HTTP request for the backend. Only path and query of `url` are used."""

    method: str
    url: str
    headers: Headers
    body: bytes

    def encode(self) -> bytes:
        """Deterministic bytes, header map by ascending key."""
        message = pb.POKTHTTPRequest(method=self.method, url=self.url, body_bz=self.body)
        for name, values in self.headers.items():
            message.header[name].key = name
            message.header[name].values.extend(values)
        return message.SerializeToString(deterministic=True)

    def rpc_type(self) -> int:
        """Return the RPC type for error formatting: JSON_RPC, REST or UNKNOWN_RPC."""
        if "application/json" in self.headers.get("Content-Type", ()) and self._is_json_rpc():
            return JSON_RPC
        return REST if self.url else UNKNOWN_RPC

    def _is_json_rpc(self) -> bool:
        try:
            body = json.loads(self.body)
        except (ValueError, RecursionError):
            return False
        if not isinstance(body, dict):
            return False
        number, version, method = body.get("id"), body.get("jsonrpc"), body.get("method")
        return (
            isinstance(number, int)
            and not isinstance(number, bool)
            and number > 0
            and isinstance(version, str)
            and version != ""
            and isinstance(method, str)
            and method != ""
        )


@fast_init
@dataclass(frozen=True, slots=True)
class HttpResponse:
    """The backend's HTTP response with a decompressed body."""

    status: int
    headers: Headers
    body: bytes

    def encode(self) -> bytes:
        """Deterministic bytes, header map by ascending key."""
        key = (self.status, *self.headers.items())
        head = _known_heads.get(key)
        if head is None:
            head = _encode_response_head(self.status, self.headers)
            if len(head) <= _SHORT_HEAD:
                if len(_known_heads) >= _MOST_HEADS:
                    _known_heads.clear()
                _known_heads[key] = head
        return head + wire.bytes_field(3, self.body) if self.body else head


def _encode_response_head(status: int, headers: Headers) -> bytes:
    return wire.int_field(1, status) + b"".join(_header_field(name, headers[name]) for name in sorted(headers))


_MOST_HEADS: Final = 512
_known_heads: Final[dict[tuple[object, ...], bytes]] = {}
"""Encoded status and headers of responses: those of one second are alike."""


def _header_field(name: str, values: tuple[str, ...]) -> bytes:
    """Return the map entry of a header, field 2 of an envelope."""
    if len(values) == 1 and len(name) + len(values[0]) <= _SHORT_FIELD:
        return _known_header_field(name, values)
    return _encode_header_field(name, values)


def _encode_header_field(name: str, values: tuple[str, ...]) -> bytes:
    key = wire.bytes_field(1, name.encode())
    header = (key if name else b"") + b"".join(wire.bytes_field(2, value.encode()) for value in values)
    return wire.bytes_field(2, key + wire.bytes_field(2, header))


_known_header_field = lru_cache(maxsize=4096)(_encode_header_field)


def decode_http_request(data: bytes) -> HttpRequest:
    """Decode the request envelope of a payload. Raises DecodingError."""
    body_at, content_at = _find_body(data)
    if 0 < body_at <= _SHORT_HEAD:
        head = _known_request(data[:body_at])
        return HttpRequest(head.method, head.url, head.headers, data[content_at:])
    return _decode_http_request(data)


def _find_body(data: bytes) -> tuple[int, int]:
    """Return where the body's field and its content begin.

    Returns (0, 0) if it is not the last of ordinary fields.
    """
    at, end = 0, len(data)
    try:
        while at < end:
            tag, size, start = data[at], data[at + 1], at + 2
            if size >= 0x80:
                size, start = wire.read_varint(data, at + 1)
            if tag == _BODY:
                return (at, start) if start + size == end else (0, 0)
            if tag not in _BEFORE_BODY:
                break
            at = start + size
    except (IndexError, DecodingError):
        pass
    return 0, 0


def _decode_http_request(data: bytes) -> HttpRequest:
    if len(data) > _SMALL and wire.other_bytes(data, _URL_AND_BODY) > MOST_HEADER_BYTES:
        raise DecodingError(f"the payload's headers take more than {MOST_HEADER_BYTES} bytes")
    message = pb.POKTHTTPRequest()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise DecodingError("the payload is not a POKTHTTPRequest") from error
    headers = {name: tuple(header.values) for name, header in message.header.items()}
    return HttpRequest(message.method, message.url, headers, message.body_bz)


_known_request = lru_cache(maxsize=1024)(_decode_http_request)
"""Requests without their bodies: those of an application are alike."""


def decode_http_response(data: bytes) -> HttpResponse:
    """Decode the response envelope of a payload. Raises DecodingError."""
    message = pb.POKTHTTPResponse()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise DecodingError("the payload is not a POKTHTTPResponse") from error
    headers = {name: tuple(header.values) for name, header in message.header.items()}
    return HttpResponse(message.status_code, headers, message.body_bz)
