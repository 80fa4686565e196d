"""Records of the write-ahead log as bytes.

Format of a record: length (4), CRC-32 (4), supplier length (1), supplier, session id length (2), session id, header
length (2), header, relay bytes.
"""

import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pocket.fast_init import fast_init

_HEAD = 8
_SEARCHED = 16  # times the size of a file that checksums are computed over to find a record after a damaged one
_SUPPLIER = re.compile(rb"\+pokt1[02-9ac-hj-np-z]{38}")
"""How the body of a record begins: the length of a supplier's address, and the address."""


@fast_init
@dataclass(frozen=True, slots=True)
class WalRecord:
    """A mined relay with the identity of its stream.

    `header` is the canonical session header. session_end is a height, 0 for a record read from a log: its relays are
    accepted however late they are.
    """

    supplier: str
    session_id: str
    header: bytes
    relay: bytes
    session_end: int = 0


def encode_record(record: WalRecord) -> bytes:
    """Encode a record with length and checksum."""
    supplier = record.supplier.encode()
    session = record.session_id.encode("utf-8", "surrogateescape")
    body = b"".join(
        (bytes((len(supplier),)), supplier, len(session).to_bytes(2, "big"), session,
         len(record.header).to_bytes(2, "big"), record.header, record.relay)
    )  # fmt: skip
    return len(body).to_bytes(4, "big") + zlib.crc32(body).to_bytes(4, "big") + body


def decode_records(data: bytes) -> Iterator[WalRecord | None]:
    """Yield the records, and None for each place where one or more are damaged.

    Reading ends at a torn record: a crash can cut the last write, or leave zeros in its place. Damage hides no later
    record: where its length is damaged, too, the next one is found by its supplier and its checksum.
    """
    at = 0
    while at + _HEAD <= len(data):
        body = _body_at(data, at)
        if not body and not any(data[at : at + _HEAD]):
            return
        if body is not None and (record := _decode(data, at, body)) is not None:
            yield record
            at += _HEAD + len(body)
            continue
        after = _next_record(data, at)
        if after is None:
            if body:
                yield None
            return
        yield None
        at = after


def _body_at(data: bytes, at: int) -> bytes | None:
    """Return the body of the record whose length is at this place.

    The result is None if it would end beyond the data.
    """
    length = int.from_bytes(data[at : at + 4], "big")
    return data[at + _HEAD : at + _HEAD + length] if length <= len(data) - at - _HEAD else None


def _decode(data: bytes, at: int, body: bytes) -> WalRecord | None:
    """Return the record at this place, None if its checksum differs."""
    if not body or zlib.crc32(body) != int.from_bytes(data[at + 4 : at + _HEAD], "big"):
        return None
    one = 1 + body[0]
    two = one + 2 + int.from_bytes(body[one : one + 2], "big")
    three = two + 2 + int.from_bytes(body[two : two + 2], "big")
    return WalRecord(
        body[1:one].decode(), body[one + 2 : two].decode("utf-8", "surrogateescape"), body[two + 2 : three],
        body[three:],
    )  # fmt: skip


def _next_record(data: bytes, at: int) -> int | None:
    """Return where the next whole record begins after a damaged one.

    The result is None if there is none. How many bytes are checked is bounded: relays hold whatever their senders
    wrote.
    """
    first = [start for starts in (_chain(data, at), _marked(data, at)) if (start := _first_whole(data, starts))]
    return min(first, default=None)


def _chain(data: bytes, at: int) -> Iterator[int]:
    """Yield the places to which the lengths of records lead."""
    while body := _body_at(data, at):
        at += _HEAD + len(body)
        yield at


def _marked(data: bytes, at: int) -> Iterator[int]:
    """Yield the places after `at` where the text of a record's supplier suggests one."""
    return (match.start() - _HEAD for match in _SUPPLIER.finditer(data, at + _HEAD + 1))


def _first_whole(data: bytes, starts: Iterable[int]) -> int | None:
    left = _SEARCHED * len(data)
    for start in starts:
        body = _body_at(data, start) or b""
        left -= len(body)
        if left < 0:
            break
        if _decode(data, start, body) is not None:
            return start
    return None
