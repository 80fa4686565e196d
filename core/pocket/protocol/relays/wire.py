"""Encode and decode relay messages exactly as the chain does.

The Python protobuf runtime takes a wrong wire type for an unknown field, the chain rejects it. This decoder is
therefore the norm. `messages` uses the runtime's fast decoder only if re-encoding proves that nothing was lost. Source:
docs/protocol/ring-signatures.md, section 6.1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pocket.errors import DecodingError

VARINT: Final = 0
BYTES: Final = 2
_MAX_64: Final = (1 << 64) - 1
MOST_FIELDS: Final = 4096
"""Limit of fields in one message, nested messages included.

Relays have about twenty. Decoding one takes about a microsecond.
"""


@dataclass(frozen=True, slots=True)
class Field:
    """A known field: its name, wire type, and width in bits or schema."""

    name: str
    wire_type: int
    bits: int = 0
    message: "Mapping[int, Field] | None" = None


HEADER: Final = {
    1: Field("application_address", BYTES),
    2: Field("service_id", BYTES),
    3: Field("session_id", BYTES),
    4: Field("session_start_block_height", VARINT, 64),
    5: Field("session_end_block_height", VARINT, 64),
}
REQUEST_META: Final = {
    1: Field("session_header", BYTES, message=HEADER),
    2: Field("signature", BYTES),
    3: Field("supplier_operator_address", BYTES),
}
REQUEST: Final = {1: Field("meta", BYTES, message=REQUEST_META), 2: Field("payload", BYTES)}
RESPONSE_META: Final = {
    1: Field("session_header", BYTES, message=HEADER),
    2: Field("supplier_operator_signature", BYTES),
}
MINER_ERROR: Final = {
    1: Field("codespace", BYTES),
    2: Field("code", VARINT, 32),
    3: Field("description", BYTES),
    4: Field("message", BYTES),
}
RESPONSE: Final = {
    1: Field("meta", BYTES, message=RESPONSE_META),
    2: Field("payload", BYTES),
    3: Field("relay_miner_error", BYTES, message=MINER_ERROR),
    4: Field("payload_hash", BYTES),
}
RELAY: Final = {1: Field("req", BYTES, message=REQUEST), 2: Field("res", BYTES, message=RESPONSE)}


def varint(value: int) -> bytes:
    """Return the shortest varint. Negative int64 values take ten bytes."""
    value &= _MAX_64
    if value < 0x80:
        return bytes((value,))
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_SHORT_HEADS: Final = tuple(tuple(bytes((number << 3 | BYTES, size)) for size in range(0x80)) for number in range(16))
"""Tag and length of short fields by number and length."""


def bytes_field(number: int, value: bytes) -> bytes:
    """Encode a length-delimited field, also an empty one (numbers up to 15)."""
    size = len(value)
    if size < 0x80:
        return _SHORT_HEADS[number][size] + value
    if size < 0x4000:
        return bytes((number << 3 | BYTES, size & 0x7F | 0x80, size >> 7)) + value
    return bytes((number << 3 | BYTES,)) + varint(size) + value


def int_field(number: int, value: int) -> bytes:
    """Encode a varint field, or nothing for zero."""
    return bytes((number << 3,)) + varint(value) if value else b""


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return (value mod 2^64, position after it).

    Raises DecodingError for a number that is cut off or longer than ten bytes.
    """
    value = shift = 0
    while True:
        if at >= len(data):
            raise DecodingError("protobuf: cut off inside a number")
        if shift >= 64:
            raise DecodingError("protobuf: number longer than ten bytes")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MAX_64, at
        shift += 7


def _skip(data: bytes, at: int, wire_type: int, allowance: "_Allowance") -> int:
    """Return the position after an unknown field whose tag was read.

    Groups nest without recursion.
    """
    depth = 0
    while True:
        match wire_type:
            case 0:
                _, at = read_varint(data, at)
            case 1:
                at += 8
            case 2:
                length, at = read_varint(data, at)
                at += length
            case 3:
                depth += 1
            case 4:
                if depth == 0:
                    raise DecodingError("protobuf: end of a group that was not begun")
                depth -= 1
            case 5:
                at += 4
            case _:
                raise DecodingError(f"protobuf: wire type {wire_type} does not exist")
        if at > len(data):
            raise DecodingError("protobuf: cut off inside a field")
        if depth == 0:
            return at
        allowance.take()
        tag, at = read_varint(data, at)
        wire_type = tag & 7


@dataclass(slots=True)
class _Allowance:
    """A limit of fields, so that no body can keep its reader busy for seconds."""

    left: int = MOST_FIELDS

    def take(self) -> None:
        """Count one field. Raises DecodingError above the limit."""
        self.left -= 1
        if self.left < 0:
            raise DecodingError(f"protobuf: more than {MOST_FIELDS} fields")


def decode(schema: Mapping[int, Field], data: bytes) -> dict[str, Any]:
    """Decode the known fields of a message by name.

    Repeated scalars keep the last value, repeated sub-messages are merged, and unknown fields are dropped.

    Absent fields are absent from the result, so presence is visible. Raises DecodingError, also for more fields than
    any message has.
    """
    return _decode(schema, data, {}, _Allowance())


def other_bytes(data: bytes, but: frozenset[int]) -> int:
    """Return the encoded size of all fields except `but`, in bytes.

    Raises DecodingError.
    """
    allowance, at, unread = _Allowance(), 0, 0
    while at < len(data):
        allowance.take()
        begin = at
        tag, at = read_varint(data, at)
        at = _skip(data, at, tag & 7, allowance)
        if tag >> 3 not in but:
            unread += at - begin
    return unread


def _decode(schema: Mapping[int, Field], data: bytes, out: dict[str, Any], allowance: _Allowance) -> dict[str, Any]:
    at = 0
    while at < len(data):
        allowance.take()
        tag, at = read_varint(data, at)
        wire_type = tag & 7
        number = (tag >> 3) & 0xFFFFFFFF
        if number >= 0x80000000:
            number -= 0x100000000
        if wire_type == 4 or number <= 0:
            raise DecodingError("protobuf: impossible field number or wire type")
        field = schema.get(number)
        if field is None:
            at = _skip(data, at, wire_type, allowance)
            continue
        if wire_type != field.wire_type:
            raise DecodingError(f"protobuf: field {field.name} has wire type {wire_type}, expected {field.wire_type}")
        value, at = read_varint(data, at)
        if field.wire_type == VARINT:
            out[field.name] = value & ((1 << field.bits) - 1)
            continue
        if value > len(data) - at:
            raise DecodingError(f"protobuf: field {field.name} is cut off")
        content = data[at : at + value]
        at += value
        if field.message is None:
            out[field.name] = content
        else:
            out[field.name] = _decode(field.message, content, out.get(field.name, {}), allowance)
    return out
