"""Relays that peers give count only with the signatures of the session's ring and of the supplier."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from pocket.errors import ChainUnavailable
from pocket.protocol.crypto.ring import ExpectedRing
from pocket.protocol.relays.messages import Relay, SessionHeader, decode_relay
from pocket_miner.ingest.relay_signatures import is_signed, ring_of
from world import World, address, key

HEADER = SessionHeader(address("app eth"), "eth", "ab" * 32, 1, 10)
RING = ExpectedRing.of([key("gateway").public_key, key("app eth").public_key])
OTHER_RING = ExpectedRing.of([key("gateway").public_key, key("app other").public_key])
SIGNED = World().relay(HEADER, "alice", 1)
RELAY = decode_relay(SIGNED)
OTHER = decode_relay(World().relay(HEADER, "bob", 2))


@pytest.mark.parametrize(
    ("relay", "ring", "signed"),
    [
        (SIGNED, RING, True),
        (SIGNED, OTHER_RING, False),
        (Relay(RELAY.request, None).encode(), RING, False),
        (Relay(None, RELAY.response).encode(), RING, False),
        (Relay(RELAY.request, OTHER.response).encode(), RING, False),
        (Relay(replace(RELAY.request, payload=b"other"), RELAY.response).encode(), RING, False),
        (Relay(RELAY.request, replace(RELAY.response, payload_hash=bytes(32))).encode(), RING, False),
        (b"", RING, False),
        (b"no relay", RING, False),
    ],
)
def test_a_relay_counts_with_the_signatures_of_the_ring_and_of_the_supplier_alone(relay, ring, signed):
    assert is_signed(relay, address("alice"), ring) is signed
    assert not is_signed(relay, address("carol"), ring)


async def test_the_ring_of_a_session_is_that_of_its_end():
    class Chain:
        async def application(self, name):
            asked.append(name)
            return SimpleNamespace(delegations="the delegations")

    asked = []

    def ring_addresses(delegations, session_end):
        asked.append((delegations, session_end))
        raise ChainUnavailable("enough")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pocket.chain.ring_queries.ring_addresses", ring_addresses)
        with pytest.raises(ChainUnavailable):
            await ring_of(Chain(), replace(HEADER, session_start_block_height=11, session_end_block_height=20))
    assert asked == [HEADER.application_address, ("the delegations", 20)]
