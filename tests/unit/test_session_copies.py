"""What a copy of a session takes: relays that are signed, as many as fit, and the values that a proof needs."""

import contextlib
import sqlite3
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.errors import ChainUnavailable
from pocket.protocol.crypto.ring import ExpectedRing
from pocket.protocol.relays.difficulty import BASE_TARGET
from pocket.protocol.relays.messages import Relay, SessionHeader, decode_relay
from pocket.protocol.smst.bulk import LeafContent, LeafSet
from pocket.protocol.smst.digest import leaf_digest
from pocket.redis_store.store_errors import RedisUnavailable
from pocket.redis_store.stream_reader import Entry, StreamExtent
from pocket_miner.ingest import session_copies
from pocket_miner.ingest.peer_merge import new_leaves
from pocket_miner.ingest.peers import PeerSession
from pocket_miner.ingest.session_copies import SessionCopies, _Copy
from pocket_miner.relay_rows import Leaf
from pocket_miner.sessions.leaf_validation import LeafTerms, valid_leaves
from pocket_miner.sessions.relay_sources import CopyFailed
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.storage.relay_store import RelayStore, SessionEndFile
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


@dataclass
class Everywhere:
    """Where a session's relays are: its stream, and a peer. Each may be away."""

    stream: list = field(default_factory=list)
    peer: list = field(default_factory=list)
    away: frozenset = frozenset()
    asked: list = field(default_factory=list)
    supplier: str = TERMS.supplier
    origin: str = "here"

    def __post_init__(self):
        self.tail, self.start_params = self, SimpleNamespace(chain=None)

    async def read(self, positions, count):
        self.asked.append(positions)
        if "stream" in self.away:
            raise RedisUnavailable("away")
        after = int(positions[HEADER.session_id].partition("-")[0])
        page = [Entry(f"{at}-0", relay) for at, relay in enumerate(self.stream, start=1) if at > after][:1]
        return {HEADER.session_id: page} if page else {}

    async def extents(self, names):
        return {name: StreamExtent(f"{len(self.stream)}-0", len(self.stream)) for name in names}

    async def sessions(self, supplier):
        other = "cd" * 32
        rows = [("elsewhere", HEADER.session_id, 9), ("here", HEADER.session_id, 0), ("elsewhere", other, 9)]
        return True, [PeerSession("http://p", name, HEADER.encode(), "9-0", origin, n) for origin, name, n in rows]

    async def relays(self, row, supplier, end, take):
        self.asked.append((row.session_id, row.origin, supplier, end))
        await take(self.peer)
        return True


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """Return a function that copies the session and returns the relays of the copy by their place."""

    async def ring_of(chain, header):
        if "ring" in places.away:
            raise ChainUnavailable("away")
        return RING

    def unreadable(end):
        raise sqlite3.OperationalError("disk I/O error")

    async def copy_of(found, *, peers=True, **options):
        nonlocal places
        places = found
        with RelayStore(tmp_path / "volume") as store:
            store.file(10).add_session(TERMS.supplier, HEADER.session_id, HEADER.encode())
            store.file(10).add(TERMS.supplier, HEADER.session_id, valid_leaves(RELAYS[:1], TERMS))
            if "volume" in found.away:
                monkeypatch.setattr(store, "known", unreadable)
            copies = SessionCopies(found, store, found if peers else None)
            async with copies.of(TrackedSession(HEADER, terms=TERMS), **options) as path, copies_of(path) as file:
                assert copies.turn.locked()
                kept = set(file.unknown(TERMS.supplier, HEADER.session_id, PATHS_OF))
                folder = path.parent
            assert not folder.exists()
            return "".join(place for place, at in zip("vsp", PATHS_OF, strict=True) if at not in kept)

    places = Everywhere()
    monkeypatch.setattr(session_copies, "ring_of", ring_of)
    return copy_of


@contextlib.asynccontextmanager
async def copies_of(path):
    with contextlib.closing(SessionEndFile(path, read_only=True)) as file:
        yield file


PATHS_OF = [leaf.path for leaf in valid_leaves(RELAYS, TERMS)]
"""Of the relay on the volume, of that of the stream and of that of the peer."""
ROOTED = {"root": b"\x01" * 48}


@pytest.mark.parametrize(("away", "options", "kept"), [
    ((), {}, "vsp"), ((), ROOTED, "vsp"), (("volume",), {}, "sp"), (("volume",), ROOTED, "sp"),
    (("stream",), ROOTED, "vp"), (("stream",), {}, None), (("ring",), {}, "vs"), (("ring",), ROOTED, "vsp"),
    ((), {"peers": False}, "vs"),
])  # fmt: skip
async def test_a_copy_has_what_the_volume_the_stream_and_peers_have_or_is_none(copied, away, options, kept):
    found = Everywhere([b"no relay", RELAYS[1]], [RELAYS[2], forged(RELAYS[1])], frozenset(away))
    if kept is None:
        with pytest.raises(RedisUnavailable):
            await copied(found, **options)
        return
    assert await copied(found, **options) == kept
    asked = [row for row in found.asked if isinstance(row, tuple)]
    assert asked == [(HEADER.session_id, "elsewhere", TERMS.supplier, 10)] * ("p" in kept), "who may have more"


async def test_a_session_without_terms_is_copied_by_those_of_its_root_alone(tmp_path):
    copies = SessionCopies(Everywhere(), None)
    with pytest.raises(CopyFailed, match="terms"):
        async with copies.of(TrackedSession(HEADER)):
            raise AssertionError
