"""Validate stream entries before they become leaves (docs/fragile/index-gate.md)."""

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from pocket.protocol.pb import shannon_relay_pb2 as pb
from pocket.protocol.relays.difficulty import is_applicable
from pocket.protocol.relays.messages import SessionHeader, relay_hash
from pocket.protocol.smst.digest import leaf_digest, path_of
from pocket_miner.storage.relay_store import Leaf


@dataclass(frozen=True, slots=True)
class LeafTerms:
    """What the chain says of a session: header, target and units at its start, never an entry's own word."""

    supplier: str
    header: SessionHeader
    target_hash: bytes
    compute_units_per_relay: int


class InvalidEntry(Exception):
    """An entry that must not become a leaf; one wrong leaf gets the supplier slashed."""


def leaf_of(relay_bytes: bytes, terms: LeafTerms) -> Leaf:
    """The leaf of a recorded relay; raises Refused with the reason."""
    relay = pb.Relay()
    try:
        relay.ParseFromString(relay_bytes)
    except DecodeError as error:
        raise InvalidEntry("not a relay") from error
    # The chain hashes its own re-encoding: bytes that are not canonical would have another hash there.
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
    found = relay_hash(relay_bytes)
    if not is_applicable(found, terms.target_hash):
        raise InvalidEntry("the relay does not meet the difficulty")
    path = path_of(found)
    return Leaf(
        path, leaf_digest(path, relay_bytes, terms.compute_units_per_relay), terms.compute_units_per_relay, relay_bytes
    )
