"""Validate recorded relays before they become leaves of a session trie."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from pocket.protocol.pb import shannon_relay_pb2 as pb
from pocket.protocol.relays.difficulty import BASE_TARGET, is_applicable
from pocket.protocol.relays.messages import SessionHeader, relay_hash
from pocket.protocol.relays.wire import BYTES, bytes_field
from pocket.protocol.smst.digest import DIGEST_BYTES, Root, leaf_digest, path_of
from pocket_miner import miner_metrics
from pocket_miner.miner_metrics import RefusedEntry
from pocket_miner.relay_rows import Leaf

_FIELD_1, _FIELD_2, _FIELD_4 = (number << 3 | BYTES for number in (1, 2, 4))
_SIGNATURE_BYTES: Final = 64
_SIGNATURE_START: Final = bytes((_FIELD_2, _SIGNATURE_BYTES))


@dataclass(frozen=True, slots=True)
class LeafTerms:
    """The chain's header, target and compute units of a session at its start.

    They never come from the recorded entry itself.
    """

    supplier: str
    header: SessionHeader
    target_hash: bytes
    compute_units_per_relay: int

    @property
    def name(self) -> str:
        """Return a text that identifies what decides over a leaf, besides the session."""
        return f"{self.target_hash.hex()}/{self.compute_units_per_relay}"


def terms_of_root(supplier: str, header: SessionHeader, root: bytes) -> LeafTerms | None:
    """Return terms by which all leaves of a known root are valid.

    The result is None if it is no root of relays at one price. Its sum and count give the compute units per relay.
    Every relay passes the target, so whether leaves are those of the root shows only when theirs is computed.
    """
    if len(root) != DIGEST_BYTES or not Root(root).count:
        return None
    units, rest = divmod(Root(root).total, Root(root).count)
    return None if rest or not units else LeafTerms(supplier, header, BASE_TARGET, units)


class InvalidEntry(Exception):
    """An entry that must not become a leaf.

    A single wrong leaf gets the supplier slashed.
    """

    def __init__(self, reason: RefusedEntry) -> None:
        super().__init__(reason)
        self.reason = reason


def build_leaf(relay_bytes: bytes, terms: LeafTerms) -> Leaf:
    """Build the leaf of a recorded relay.

    Raises InvalidEntry with the reason.
    """
    return LeafBuilder(terms).build(relay_bytes)


def leaf_if_valid(terms: LeafTerms, relay_bytes: bytes) -> Leaf | None:
    """Return the leaf of a recorded relay, None if the relay is invalid."""
    try:
        return build_leaf(relay_bytes, terms)
    except InvalidEntry:
        return None


def valid_leaves(relays: Iterable[bytes], terms: LeafTerms) -> list[Leaf]:
    """Build the leaves of relays, counting the invalid ones that are left out."""
    builder, leaves = LeafBuilder(terms), []
    for relay in relays:
        try:
            leaves.append(builder.build(relay))
        except InvalidEntry as error:
            miner_metrics.REFUSED.labels(error.reason).inc()
    return leaves


class LeafBuilder:
    """Builds the leaves of one session."""

    def __init__(self, terms: LeafTerms) -> None:
        self._terms = terms
        self._header = bytes_field(1, terms.header.encode())
        self._supplier = bytes_field(3, terms.supplier.encode())

    def build(self, relay_bytes: bytes) -> Leaf:
        """Build the leaf of a recorded relay.

        Raises InvalidEntry with the reason.
        """
        terms = self._terms
        if not self.has_usual_form(relay_bytes):
            _check(relay_bytes, terms)
        hashed = relay_hash(relay_bytes)
        if not is_applicable(hashed, terms.target_hash):
            raise InvalidEntry(RefusedEntry.TOO_EASY)
        path = path_of(hashed)
        weight = terms.compute_units_per_relay
        return Leaf(path, leaf_digest(path, relay_bytes, weight), weight, relay_bytes)

    def has_usual_form(self, data: bytes) -> bool:
        """Return True for a canonical relay of this session with the usual fields only.

        Every length and field is compared, so such a relay is valid. All others are decoded (`_check`), which gives the
        same result for a usual one and takes three times as long (tests/unit/test_gate.py compares both).
        """
        try:
            at, request_end = _field(data, 0, _FIELD_1)
            return self._is_request(data, at, request_end) and self._is_response(data, request_end)
        except (IndexError, _Unusual):
            return False

    def _is_request(self, data: bytes, at: int, end: int) -> bool:
        """Return True for a request of this session and supplier with a signature.

        Any payload may follow up to `end`.
        """
        at, meta_end = _field(data, at, _FIELD_1)
        if not data.startswith(self._header, at):
            return False
        signature, signature_end = _field(data, at + len(self._header), _FIELD_2)
        if signature == signature_end or data[signature_end:meta_end] != self._supplier:
            return False
        if meta_end == end:
            return True
        payload, payload_end = _field(data, meta_end, _FIELD_2)
        return payload < payload_end == end

    def _is_response(self, data: bytes, at: int) -> bool:
        """Return True for a response of this session with a signature.

        Any payload hash may follow up to the end.
        """
        at, end = _field(data, at, _FIELD_2)
        at, meta_end = _field(data, at, _FIELD_1)
        signature = at + len(self._header)
        if end != len(data) or not data.startswith(self._header, at):
            return False
        if not data.startswith(_SIGNATURE_START, signature) or meta_end != signature + 2 + _SIGNATURE_BYTES:
            return False
        if meta_end == end:
            return True
        payload_hash, hash_end = _field(data, meta_end, _FIELD_4)
        return payload_hash < hash_end == end


class _Unusual(Exception):
    """The bytes are to be decoded."""


def _field(data: bytes, at: int, tag: int) -> tuple[int, int]:
    """Return start and end of the value of a length-delimited field.

    Raises _Unusual if another field is there or if its length has more than three bytes or is not in its shortest form,
    and IndexError after the end of the data.
    """
    if data[at] != tag:
        raise _Unusual
    size = data[at + 1]
    if size < 0x80:
        return at + 2, at + 2 + size
    second = data[at + 2]
    if 0 < second < 0x80:
        return at + 3, at + 3 + (size & 0x7F | second << 7)
    third = data[at + 3]
    if second and 0 < third < 0x80:
        return at + 4, at + 4 + (size & 0x7F | (second & 0x7F) << 7 | third << 14)
    raise _Unusual


def _check(relay_bytes: bytes, terms: LeafTerms) -> None:
    """Check a relay by decoding it.

    Raises InvalidEntry with the reason.
    """
    relay = pb.Relay()
    try:
        relay.ParseFromString(relay_bytes)
    except DecodeError as error:
        raise InvalidEntry(RefusedEntry.NO_RELAY) from error
    # The chain hashes its own encoding of the relay: bytes that are not canonical would have another hash there.
    relay.req.meta.SetInParent()
    relay.res.meta.SetInParent()
    relay.DiscardUnknownFields()
    if relay.SerializeToString(deterministic=True) != relay_bytes:
        raise InvalidEntry(RefusedEntry.NOT_CANONICAL)
    header = terms.header.encode()
    for part in (relay.req.meta.session_header, relay.res.meta.session_header):
        if part.SerializeToString(deterministic=True) != header:
            raise InvalidEntry(RefusedEntry.OTHER_HEADER)
    if relay.req.meta.supplier_operator_address != terms.supplier.encode():
        raise InvalidEntry(RefusedEntry.OTHER_SUPPLIER)
    if relay.res.payload:
        raise InvalidEntry(RefusedEntry.WITH_PAYLOAD)
    if not relay.req.meta.signature or len(relay.res.meta.supplier_operator_signature) != _SIGNATURE_BYTES:
        raise InvalidEntry(RefusedEntry.NOT_SIGNED)
