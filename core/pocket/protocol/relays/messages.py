"""Hold relay requests, responses and relays with their canonical bytes.

They are immutable values. Text is stored as `str` decoded with surrogateescape, so bytes that are not UTF-8 pass
unchanged. Sources: docs/protocol/ring-signatures.md, section 6, and docs/protocol/messages.md, sections 0 and 1.
"""

import hashlib
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pocket.errors import DecodingError, InvalidRelay
from pocket.fast_init import fast_init
from pocket.protocol.crypto.addresses import is_address
from pocket.protocol.relays import wire
from pocket.protocol.relays.wire import bytes_field, int_field

_SHORT_HEADER = 512
"""Bytes up to which a header is cached.

Unauthenticated clients send headers, too, and may make them as long as a body.
"""
_SERVICE_ID = re.compile(r"[a-zA-Z0-9_-]{1,42}")


def is_service_id(text: str) -> bool:
    """Return whether the chain accepts the text as a service identifier."""
    return _SERVICE_ID.fullmatch(text) is not None


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _optional(number: int, value: bytes) -> bytes:
    return bytes_field(number, value) if value else b""


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


@dataclass(frozen=True, slots=True)
class SessionHeader:
    """The header that names one session. The end height is inclusive."""

    application_address: str
    service_id: str
    session_id: str
    session_start_block_height: int
    session_end_block_height: int
    _encoding: bytes = field(default=b"", init=False, repr=False, compare=False)
    _field: bytes = field(default=b"", init=False, repr=False, compare=False)
    _problem: str | None = field(default=None, init=False, repr=False, compare=False)
    """Result of the basic validation, None before it."""

    def encode(self) -> bytes:
        """Canonical bytes."""
        if not self._encoding:
            object.__setattr__(self, "_encoding", _encode_header(self))
        return self._encoding

    def encode_field(self) -> bytes:
        """Canonical bytes as field 1 of a request's or response's metadata."""
        if not self._field:
            object.__setattr__(self, "_field", bytes_field(1, self.encode()))
        return self._field

    def problem(self) -> str | None:
        """Return the first failed basic validation, or None.

        Source: docs/protocol/messages.md, section 1.
        """
        if self._problem is None:
            object.__setattr__(self, "_problem", _header_problem(self) or "")
        return self._problem or None


def _encode_header(header: SessionHeader) -> bytes:
    return (
        _optional(1, _raw(header.application_address))
        + _optional(2, _raw(header.service_id))
        + _optional(3, _raw(header.session_id))
        + int_field(4, header.session_start_block_height)
        + int_field(5, header.session_end_block_height)
    )


def _header_problem(header: SessionHeader) -> str | None:
    if not is_address(header.application_address):
        return "the application address is not a pokt address"
    if not header.session_id:
        return "the session id is empty"
    if not is_service_id(header.service_id):
        return "the service id must be 1 to 42 letters, digits, '_' or '-'"
    if header.session_start_block_height <= 0:
        return "the session start height must be at least 1"
    if header.session_end_block_height <= header.session_start_block_height:
        return "the session end height must be above its start height"
    return None


@fast_init
@dataclass(frozen=True, slots=True)
class RelayRequest:
    """A gateway's request.

    `payload` is a POKTHTTPRequest or a raw WebSocket frame.
    """

    header: SessionHeader | None
    signature: bytes
    supplier_operator_address: str
    payload: bytes
    _encoding: bytes = field(default=b"", init=False, repr=False, compare=False)
    """The bytes that it was decoded from, if these are canonical."""
    _cuts: tuple[int, int, int, int] = field(default=(0, 0, 0, 0), init=False, repr=False, compare=False)
    """Where in them the metadata begins, the header ends, the signature ends, and the metadata ends."""

    def encode(self) -> bytes:
        """Canonical bytes."""
        return self._encoding or self._encode(self.signature)

    def signable_bytes(self) -> bytes:
        """Canonical bytes without the signature."""
        data = self._encoding
        if not data:
            return self._encode(b"")
        meta, header_end, signature_end, meta_end = self._cuts
        size = wire.varint(header_end - meta + meta_end - signature_end)
        return b"".join((b"\x0a", size, data[meta:header_end], data[signature_end:meta_end], data[meta_end:]))

    def signable_hash(self) -> bytes:
        """Return the 32 bytes that the ring signs."""
        return hashlib.sha256(self.signable_bytes()).digest()

    def _encode(self, signature: bytes) -> bytes:
        meta = (
            (b"" if self.header is None else self.header.encode_field())
            + _optional(2, signature)
            + _optional(3, _raw(self.supplier_operator_address))
        )
        return bytes_field(1, meta) + _optional(2, self.payload)

    def problem(self) -> str | None:
        """Return the first failed basic validation, or None."""
        if self.header is None:
            return "the session header is missing"
        if problem := self.header.problem():
            return problem
        if not self.signature:
            return "the ring signature is missing"
        if not self.supplier_operator_address:
            return "the supplier operator address is missing"
        return None


@dataclass(frozen=True, slots=True)
class RelayMinerError:
    """An error that travels inside a signed response."""

    codespace: str = ""
    code: int = 0
    description: str = ""
    message: str = ""

    def encode(self) -> bytes:
        """Canonical bytes."""
        return (
            _optional(1, _raw(self.codespace))
            + int_field(2, self.code)
            + _optional(3, _raw(self.description))
            + _optional(4, _raw(self.message))
        )


@fast_init
@dataclass(frozen=True, slots=True)
class RelayResponse:
    """A supplier's response.

    `payload_hash` is None if the field is absent and b"" if it was sent empty.
    """

    header: SessionHeader | None
    supplier_operator_signature: bytes
    payload: bytes
    payload_hash: bytes | None = None
    relay_miner_error: RelayMinerError | None = None

    def encode(self) -> bytes:
        """Canonical bytes, as served."""
        return self._encode(self.supplier_operator_signature, self.payload)

    def signable_bytes(self) -> bytes:
        """Return the canonical bytes that are signed.

        They are without the signature, and without the payload if a payload hash is present.
        """
        return self._encode(b"", self.payload if self.payload_hash is None else b"")

    def signable_hash(self) -> bytes:
        """Return SHA-256 of the signable bytes, which the supplier's key signs."""
        return hashlib.sha256(self.signable_bytes()).digest()

    def encode_without_payload(self) -> bytes:
        """Canonical bytes of the copy that is mined."""
        return self._encode(self.supplier_operator_signature, b"")

    def without_payload(self) -> "RelayResponse":
        """Return the copy that is mined."""
        return RelayResponse(
            self.header, self.supplier_operator_signature, b"", self.payload_hash, self.relay_miner_error
        )

    def _encode(self, signature: bytes, payload: bytes) -> bytes:
        return encode_response(self.header, signature, payload, self.payload_hash, self.relay_miner_error)

    def problem(self) -> str | None:
        """Return the first failed basic validation, or None.

        The payload hash is optional.
        """
        if self.header is None:
            return "the session header is missing"
        if problem := self.header.problem():
            return problem
        if not self.supplier_operator_signature:
            return "the supplier's signature is missing"
        return None


def encode_response(
    header: SessionHeader | None,
    signature: bytes,
    payload: bytes,
    payload_hash: bytes | None,
    error: RelayMinerError | None = None,
) -> bytes:
    """Return the canonical bytes of a response with these parts."""
    meta = b"" if header is None else header.encode_field()
    if signature:
        meta += bytes_field(2, signature)
    fields = [bytes_field(1, meta)]
    if payload:
        fields.append(bytes_field(2, payload))
    if error is not None:
        fields.append(bytes_field(3, error.encode()))
    if payload_hash:
        fields.append(bytes_field(4, payload_hash))
    return b"".join(fields)


@dataclass(frozen=True, slots=True)
class Relay:
    """A request with its response. In a leaf, the response has no payload."""

    request: RelayRequest | None
    response: RelayResponse | None

    def encode(self) -> bytes:
        """Canonical bytes."""
        return (b"" if self.request is None else bytes_field(1, self.request.encode())) + (
            b"" if self.response is None else bytes_field(2, self.response.encode())
        )


def relay_hash(relay_bytes: bytes) -> bytes:
    """Return SHA-256 of an encoded relay whose response has no payload.

    It is the SMST key and the difficulty sample.
    """
    return hashlib.sha256(relay_bytes).digest()


def _header(fields: dict[str, Any] | None) -> SessionHeader | None:
    if fields is None:
        return None
    return SessionHeader(
        _text(fields.get("application_address", b"")),
        _text(fields.get("service_id", b"")),
        _text(fields.get("session_id", b"")),
        _signed(fields.get("session_start_block_height", 0)),
        _signed(fields.get("session_end_block_height", 0)),
    )


def _request(fields: dict[str, Any]) -> RelayRequest:
    meta = fields.get("meta", {})
    return RelayRequest(
        _header(meta.get("session_header")),
        meta.get("signature", b""),
        _text(meta.get("supplier_operator_address", b"")),
        fields.get("payload", b""),
    )


def _response(fields: dict[str, Any]) -> RelayResponse:
    meta = fields.get("meta", {})
    error = fields.get("relay_miner_error")
    return RelayResponse(
        _header(meta.get("session_header")),
        meta.get("supplier_operator_signature", b""),
        fields.get("payload", b""),
        fields.get("payload_hash"),
        None
        if error is None
        else RelayMinerError(
            _text(error.get("codespace", b"")),
            error.get("code", 0),
            _text(error.get("description", b"")),
            _text(error.get("message", b"")),
        ),
    )


def decode_relay_request(data: bytes) -> RelayRequest:
    """Decode a request as received. Raises DecodingError.

    Ordinary requests are sliced. All other input goes through the exact decoder.
    """
    return _sliced_request(data) or _request(wire.decode(wire.REQUEST, data))


def _sliced_request(data: bytes) -> RelayRequest | None:
    """Return a request whose canonical encoding is `data`, or None.

    It has every part.
    """
    try:
        meta, meta_end = _slice(data, 0, 0x0A)
        at, header_end = _slice(data, meta, 0x0A)
        header = _known_header(data[at:header_end]) if header_end - at <= _SHORT_HEADER else None
        signature, signature_end = _slice(data, header_end, 0x12)
        supplier, supplier_end = _slice(data, signature_end, 0x1A)
        payload, payload_end = _slice(data, meta_end, 0x12)
    except (IndexError, DecodingError):
        return None
    if header is None or supplier_end != meta_end or payload_end != len(data):
        return None
    request = RelayRequest(
        header, data[signature:signature_end], _text(data[supplier:supplier_end]), data[payload:payload_end]
    )
    object.__setattr__(request, "_encoding", data)
    object.__setattr__(request, "_cuts", (meta, header_end, signature_end, meta_end))
    return request


def _slice(data: bytes, at: int, tag: int) -> tuple[int, int]:
    """Return where the content of a field begins and ends.

    Raises DecodingError or IndexError if it is not the field of this tag at `at`, not canonical or empty.
    """
    size, start = data[at + 1], at + 2
    if size >= 0x80:
        second = data[at + 2]
        if 0 < second < 0x80:
            size, start = size & 0x7F | second << 7, at + 3
        else:
            size, start = wire.read_varint(data, at + 1)
            if data[at + 1 : start] != wire.varint(size):
                raise DecodingError("protobuf: a length is not in its shortest form")
    if data[at] != tag or not size:
        raise DecodingError("protobuf: not the expected field")
    return start, start + size


@lru_cache(maxsize=8192)
def _known_header(data: bytes) -> SessionHeader | None:
    """Return the header whose canonical encoding is `data`, or None.

    Headers repeat for a whole session.
    """
    try:
        header = _header(wire.decode(wire.HEADER, data))
    except DecodingError:
        return None
    return header if header is not None and header.encode() == data else None


def decode_relay_response(data: bytes) -> RelayResponse:
    """Decode a response as received. Raises DecodingError."""
    return _response(wire.decode(wire.RESPONSE, data))


def decode_relay(data: bytes) -> Relay:
    """Decode a relay from a leaf's value. Raises DecodingError."""
    fields = wire.decode(wire.RELAY, data)
    return Relay(
        _request(fields["req"]) if "req" in fields else None,
        _response(fields["res"]) if "res" in fields else None,
    )


def decode_mined_relay(data: bytes) -> tuple[Relay, RelayRequest, RelayResponse, SessionHeader]:
    """Decode a leaf's value that has both parts and a session header.

    Raises InvalidRelay or DecodingError.
    """
    relay = decode_relay(data)
    if relay.request is None or relay.response is None:
        raise InvalidRelay("the relay lacks its request or its response")
    for name, part in (("request", relay.request), ("response", relay.response)):
        if problem := part.problem():
            raise InvalidRelay(f"relay {name}: {problem}")
    if relay.request.header is None:
        raise DecodingError("the session header is missing")
    return relay, relay.request, relay.response, relay.request.header
