"""What a copy of a session takes: relays that are signed, as many as fit, and the values that a proof needs."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.protocol.crypto.ring import ExpectedRing
from pocket.protocol.relays.difficulty import BASE_TARGET
from pocket.protocol.relays.messages import Relay, SessionHeader, decode_relay
from pocket.protocol.smst.bulk import LeafContent, LeafSet
from pocket.protocol.smst.digest import leaf_digest
from pocket_miner.ingest import session_copies
from pocket_miner.ingest.peer_merge import new_leaves
from pocket_miner.ingest.session_copies import _Copy
from pocket_miner.relay_rows import Leaf
from pocket_miner.sessions.leaf_validation import LeafTerms, valid_leaves
from pocket_miner.sessions.relay_sources import CopyFailed
from pocket_miner.sessions.tracked_session import TrackedSession
from world import World, address, key

PATHS = st.one_of(st.binary(min_size=32, max_size=32), st.integers(0, 40).map(lambda n: n.to_bytes(32)))


@given(st.lists(PATHS, min_size=1, max_size=40, unique=True), PATHS)
def test_the_leaves_that_a_proof_needs_keep_their_values(tmp_path_factory, paths, nearest):
    copy = _Copy(tmp_path_factory.getbasetemp() / "unused", None, None, nearest)
    kept = {path: copy._lean(Leaf(path, b"", 1, b"value of " + path)).value for path in paths}
    asked = []

    def content(path):
        asked.append(path)
        return LeafContent(kept[path], 1)

    LeafSet(sorted((path, leaf_digest(path, b"value of " + path, 1)) for path in paths)).closest_proof(nearest, content)
    assert asked
    assert all(kept[path] == b"value of " + path for path in asked)


HEADER = SessionHeader(address("app eth"), "eth", "ab" * 32, 1, 10)
TERMS = LeafTerms(address("alice"), HEADER, BASE_TARGET, 100)
RING = ExpectedRing.of([key("gateway").public_key, key("app eth").public_key])
RELAYS = [World().relay(HEADER, "alice", number) for number in range(3)]


def forged(relay):
    """Return a relay whose supplier's signature is of another one."""
    parts, other = decode_relay(relay), decode_relay(RELAYS[0])
    signature = other.response.supplier_operator_signature
    return Relay(parts.request, replace(parts.response, supplier_operator_signature=signature)).encode()


@pytest.fixture
def copy(tmp_path):
    made = _Copy(tmp_path / "copy.sqlite", TrackedSession(HEADER), TERMS, b"")
    made.open()
    yield made
    made.close()


@pytest.mark.parametrize("ring", [None, RING], ids=["from the volume or the stream", "from a peer"])
def test_a_relay_of_a_peer_counts_once_and_with_its_signatures_and_one_of_ours_without_a_look_at_them(copy, ring):
    copy.ring = ring
    copy.add([RELAYS[0], forged(RELAYS[1])])
    assert copy.leaves == (2 if ring is None else 1)
    copy.add([RELAYS[0], RELAYS[2], b"no relay"])
    assert copy.leaves == (3 if ring is None else 2)
    leaves = valid_leaves([*RELAYS, forged(RELAYS[2])], TERMS)
    assert len(leaves) == 4
    new = new_leaves(copy._file, HEADER.session_id, leaves, TERMS.supplier, RING)
    assert [leaf.value for leaf in new] == [RELAYS[1]]


@pytest.mark.parametrize("more", [0, 1])
def test_a_copy_that_would_fill_the_pod_is_given_up(copy, monkeypatch, more):
    copy.add(RELAYS[:1])
    size = sum(path.stat().st_size for path in copy.path.parent.iterdir())
    monkeypatch.setattr(session_copies, "_MAX_BYTES", size - more)
    if more:
        with pytest.raises(CopyFailed, match="more than"):
            copy.add(RELAYS[:1])
    else:
        copy.add(RELAYS[:1])
