"""Go's gob encoding, as far as closest proofs need it.

The encoder writes the constant type definitions of a fresh process. The decoder follows whatever definitions a stream
states, matching fields by name as Go does, and raises DecodingError on the rest. Source: docs/protocol/smst.md, section
4.2.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pocket.errors import DecodingError

COMPACT_PROOF_TYPES: Final = bytes.fromhex(
    "ff877f0301011f537061727365436f6d706163744d65726b6c65436c6f7365737450726f6f6601ff80000106010450617468010a00010b466c69707065644269"
    "747301ff820001054465707468010a00010b436c6f7365737450617468010a000110436c6f7365737456616c756548617368010a00010c436c6f736573745072"
    "6f6f6601ff8400000017ff81020101095b5d5b5d75696e743801ff8200010a00007cff8303010118537061727365436f6d706163744d65726b6c6550726f6f66"
    "01ff840001050109536964654e6f64657301ff820001154e6f6e4d656d626572736869704c65616644617461010a0001074269744d61736b010a00010c4e756d"
    "536964654e6f646573010400010b5369626c696e6744617461010a000000"
)
_BYTES_TYPE: Final = 5
_INT_TYPE: Final = 2


def unsigned(value: int) -> bytes:
    """Gob's unsigned integer."""
    if value < 128:
        return bytes((value,))
    raw = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes((256 - len(raw),)) + raw


def _signed(value: int) -> bytes:
    return unsigned(2 * value)  # a proof has no negative number


def byte_string(value: bytes) -> bytes | None:
    """Encode a byte string field, or return None for an empty one."""
    return unsigned(len(value)) + value if value else None


def signed(value: int) -> bytes | None:
    """Encode a signed field, or return None for zero."""
    return _signed(value) if value else None


def bytes_list(values: Sequence[bytes]) -> bytes | None:
    """Encode a list of byte strings, or return None for an empty list.

    Empty elements are sent.
    """
    if not values:
        return None
    return unsigned(len(values)) + b"".join(unsigned(len(v)) + v for v in values)


def struct_value(fields: Sequence[bytes | None]) -> bytes:
    """Encode a struct from its encoded fields in order and omit None fields."""
    out = []
    previous = -1
    for index, encoded in enumerate(fields):
        if encoded is not None:
            out += [unsigned(index - previous), encoded]
            previous = index
    return b"".join(out) + b"\x00"


def value_message(type_id: int, content: bytes) -> bytes:
    """Encode a value message of a struct type."""
    body = _signed(type_id) + content
    return unsigned(len(body)) + body


@dataclass(slots=True)
class _Reader:
    data: bytes
    at: int
    end: int

    def take(self, size: int) -> bytes:
        if size > self.end - self.at:
            raise DecodingError("gob: cut off")
        piece = self.data[self.at : self.at + size]
        self.at += size
        return piece

    def unsigned(self) -> int:
        first = self.take(1)[0]
        if first < 128:
            return first
        size = 256 - first
        if size > 8:
            raise DecodingError("gob: number longer than eight bytes")
        return int.from_bytes(self.take(size), "big")

    def signed(self) -> int:
        raw = self.unsigned()
        return -(raw >> 1) - 1 if raw & 1 else raw >> 1

    def byte_string(self) -> bytes:
        return self.take(self.unsigned())

    def fields(self, readers: Sequence[Callable[[], Any]]) -> dict[int, Any]:
        """Read a struct whose field types are `readers` into index → value."""
        out: dict[int, Any] = {}
        index = -1
        while delta := self.unsigned():
            index += delta
            if index >= len(readers):
                raise DecodingError("gob: a field that its type does not have")
            out[index] = readers[index]()
        return out

    def items(self, reader: Callable[[], Any]) -> list[Any]:
        count = self.unsigned()
        if count > self.end - self.at:
            raise DecodingError("gob: a list longer than the data")
        return [reader() for _ in range(count)]


@dataclass(frozen=True, slots=True)
class _Slice:
    element: int


@dataclass(frozen=True, slots=True)
class _Struct:
    fields: tuple[tuple[str, int], ...]


@dataclass(slots=True)
class _Types:
    known: dict[int, _Slice | _Struct] = field(default_factory=dict)

    def define(self, type_id: int, reader: _Reader) -> None:
        if type_id in self.known or len(self.known) >= 64:
            raise DecodingError("gob: a type defined twice, or too many types")

        def common() -> dict[int, Any]:
            return reader.fields([lambda: reader.byte_string().decode("utf-8", "replace"), reader.signed])

        def field_type() -> tuple[str, int]:
            got = reader.fields([lambda: reader.byte_string().decode("utf-8", "replace"), reader.signed])
            return got.get(0, ""), got.get(1, 0)

        def unsupported() -> None:
            raise DecodingError("gob: a type that proofs do not use")

        wire = reader.fields(
            [
                unsupported,
                lambda: _Slice(reader.fields([common, reader.signed]).get(1, 0)),
                lambda: _Struct(tuple(reader.fields([common, lambda: reader.items(field_type)]).get(1, ()))),
                unsupported,
                unsupported,
                unsupported,
                unsupported,
            ]
        )
        for definition in wire.values():
            self.known[type_id] = definition

    def value(self, type_id: int, reader: _Reader, depth: int = 0) -> Any:
        if depth > 8:
            raise DecodingError("gob: types nested too deep")
        if type_id == _BYTES_TYPE:
            return reader.byte_string()
        if type_id == _INT_TYPE:
            return reader.signed()
        definition = self.known.get(type_id)
        if isinstance(definition, _Slice):
            return reader.items(lambda: self.value(definition.element, reader, depth + 1))
        if isinstance(definition, _Struct):
            readers = [(lambda kind=kind: self.value(kind, reader, depth + 1)) for _, kind in definition.fields]
            got = reader.fields(readers)
            return {definition.fields[index][0]: value for index, value in got.items()}
        raise DecodingError("gob: a value of a type that was not defined or that proofs do not use")


def decode_struct(data: bytes) -> Mapping[str, Any]:
    """Decode the first value of a stream into field name → value.

    Bytes after it are ignored. Raises DecodingError.
    """
    types = _Types()
    outer = _Reader(data, 0, len(data))
    while True:
        length = outer.unsigned()
        reader = _Reader(data, outer.at, outer.at + length)
        outer.take(length)
        type_id = reader.signed()
        if type_id < 0:
            types.define(-type_id, reader)
            continue
        if not isinstance(types.known.get(type_id), _Struct):
            raise DecodingError("gob: the value is not a struct")
        value: Mapping[str, Any] = types.value(type_id, reader)
        return value
