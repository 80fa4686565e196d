"""Validate recorded relays before they become leaves of a session trie."""

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from pocket.protocol.pb import shannon_relay_pb2 as pb
from pocket.protocol.relays.difficulty import is_applicable
from pocket.protocol.relays.messages import SessionHeader, relay_hash
from pocket.protocol.smst.digest import leaf_digest, path_of
from pocket_miner.storage.relay_store import Leaf


@dataclass(frozen=True, slots=True)
class LeafTerms:
    """Header, target and compute units of a session at its start, as the chain states them.

    They never come from the recorded entry itself.
    """

    supplier: str
    header: SessionHeader
    target_hash: bytes
    compute_units_per_relay: int


class InvalidEntry(Exception):
    """An entry that must not become a leaf. A single wrong leaf gets the supplier slashed."""


def build_leaf(relay_bytes: bytes, terms: LeafTerms) -> Leaf:
    """Build the leaf of a recorded relay.

    Raises InvalidEntry with the reason.
    """
    relay = pb.Relay()
    try:
        relay.ParseFromString(relay_bytes)
    except DecodeError as error:
        raise InvalidEntry("not a relay") from error
    # The chain hashes its own encoding of the relay: bytes that are not canonical would have another hash there.
    relay.req.meta.SetInParent()
    relay.res.meta.SetInParent()
    relay.DiscardUnknownFields()
    if relay.SerializeToString(deterministic=True) != relay_bytes:
        raise InvalidEntry("not the canonical encoding of a relay")
    header = terms.header.encode()
    for part in (relay.req.meta.session_header, relay.res.meta.session_header):
        if part.SerializeToString(deterministic=True) != header:
            raise InvalidEntry("the session header differs from the chain's")
    if relay.req.meta.supplier_operator_address != terms.supplier.encode():
        raise InvalidEntry("the request is addressed to another supplier")
    if relay.res.payload:
        raise InvalidEntry("the response payload was not removed")
    if not relay.req.meta.signature or len(relay.res.meta.supplier_operator_signature) != 64:
        raise InvalidEntry("a signature is missing")
    hashed = relay_hash(relay_bytes)
    if not is_applicable(hashed, terms.target_hash):
        raise InvalidEntry("the relay does not meet the difficulty")
    path = path_of(hashed)
    return Leaf(
        path, leaf_digest(path, relay_bytes, terms.compute_units_per_relay), terms.compute_units_per_relay, relay_bytes
    )
