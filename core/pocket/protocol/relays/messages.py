"""Relay requests, responses and relays as immutable values with their canonical bytes.

Text is stored as `str` decoded with surrogateescape, so bytes that are not UTF-8 pass unchanged.
Sources: docs/protocol/ring-signatures.md, section 6, and docs/protocol/messages.md, sections 0 and 1.
"""

import hashlib
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from google.protobuf.message import DecodeError

from pocket.errors import DecodingError, InvalidRelay
from pocket.protocol.crypto.addresses import is_address
from pocket.protocol.pb import shannon_relay_pb2 as pb
from pocket.protocol.relays import wire
from pocket.protocol.relays.wire import bytes_field, int_field

_SHORT_HEADER = 512  # characters of its three names
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

    def encode(self) -> bytes:
        """Canonical bytes."""
        return _known_encoding(self) if self._short else _encode_header(self)

    def problem(self) -> str | None:
        """Return the first failed basic validation, or None.

        Source: docs/protocol/messages.md, section 1.
        """
        return _known_problem(self) if self._short else _header_problem(self)

    @property
    def _short(self) -> bool:
        """Return whether the header is short enough to cache.

        Unauthenticated clients send headers, too, and may make them as long as a body.
        """
        return len(self.application_address) + len(self.service_id) + len(self.session_id) <= _SHORT_HEADER


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


_known_encoding = lru_cache(maxsize=8192)(_encode_header)
_known_problem = lru_cache(maxsize=8192)(_header_problem)


@dataclass(frozen=True, slots=True)
class RelayRequest:
    """A gateway's request.

    `payload` is a POKTHTTPRequest or a raw WebSocket frame.
    """

    header: SessionHeader | None
    signature: bytes
    supplier_operator_address: str
    payload: bytes

    def encode(self) -> bytes:
        """Canonical bytes."""
        return self._encode(self.signature)

    def signable_bytes(self) -> bytes:
        """Canonical bytes without the signature."""
        return self._encode(b"")

    def signable_hash(self) -> bytes:
        """Return the 32 bytes that the ring signs."""
        return hashlib.sha256(self.signable_bytes()).digest()

    def _encode(self, signature: bytes) -> bytes:
        meta = (
            (b"" if self.header is None else bytes_field(1, self.header.encode()))
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
        """Canonical bytes without the signature, and without the payload if a payload hash is present."""
        return self._encode(b"", self.payload if self.payload_hash is None else b"")

    def signable_hash(self) -> bytes:
        """Return SHA-256 of the signable bytes, which the supplier's key signs."""
        return hashlib.sha256(self.signable_bytes()).digest()

    def without_payload(self) -> "RelayResponse":
        """Return the copy that is mined."""
        return replace(self, payload=b"")

    def _encode(self, signature: bytes, payload: bytes) -> bytes:
        meta = (b"" if self.header is None else bytes_field(1, self.header.encode())) + _optional(2, signature)
        error = b"" if self.relay_miner_error is None else bytes_field(3, self.relay_miner_error.encode())
        return bytes_field(1, meta) + _optional(2, payload) + error + _optional(4, self.payload_hash or b"")

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
    """SHA-256 of the encoded relay whose response has no payload: SMST key and difficulty sample."""
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

    The protobuf runtime's decoder is used if its result re-encodes to the input, which excludes unknown fields and
    unusual orders or wire types. All other input goes through the exact decoder.
    """
    message = pb.RelayRequest()
    try:
        message.ParseFromString(data)
    except DecodeError:
        return _request(wire.decode(wire.REQUEST, data))
    meta = message.meta
    header = None
    if meta.HasField("session_header"):
        raw = meta.session_header
        header = SessionHeader(
            _text(raw.application_address),
            _text(raw.service_id),
            _text(raw.session_id),
            raw.session_start_block_height,
            raw.session_end_block_height,
        )
    request = RelayRequest(header, meta.signature, _text(meta.supplier_operator_address), message.payload)
    if request.encode() == data:
        return request
    return _request(wire.decode(wire.REQUEST, data))


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
    for what, part in (("request", relay.request), ("response", relay.response)):
        if problem := part.problem():
            raise InvalidRelay(f"relay {what}: {problem}")
    if relay.request.header is None:
        raise DecodingError("the session header is missing")
    return relay, relay.request, relay.response, relay.request.header
