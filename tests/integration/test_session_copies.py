"""A temporary copy of a session: what the volume, the stream and peers still have of it, and nothing else."""

import asyncio
import hashlib
import tempfile
from pathlib import Path

import pytest

from mine import HereTriePool, ended, mine, slow_root, unharmed
from pocket.redis_store.store_errors import RedisUnavailable
from pocket_miner.ingest import session_copies
from pocket_miner.ingest.peers import PeerSession
from pocket_miner.ingest.session_copies import SessionCopies
from pocket_miner.sessions.relay_sources import CopyFailed
from pocket_miner.storage.corruption import VolumeCorrupted
from pocket_miner.storage.trie_pool import TrieWorkFailed, VolumeUnreadable, compute_proof, compute_root

pytestmark = pytest.mark.redis


class OnePeer:
    """A peer that has the relays of one session."""

    def __init__(self, header, rows):
        self.header, self.rows = header, rows

    async def sessions(self, supplier):
        row = PeerSession("http://peer", self.header.session_id, self.header.encode(), "1-1", "other", len(self.rows))
        return True, [row]

    async def relays(self, row, supplier, end, take):
        await take([row.relay for row in self.rows])
        return True


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))


@pytest.fixture(autouse=True)
def pages_of_one_relay(monkeypatch):
    monkeypatch.setattr(session_copies, "_PAGE_BYTES", 1)
    monkeypatch.setattr(session_copies, "_ENTRIES_AT_ONCE", 1)


def left_over():
    return list(Path(tempfile.gettempdir()).iterdir())


async def root_of(copies, session, **options):
    async with copies.of(session, **options) as path:
        return (await asyncio.to_thread(compute_root, str(path), copies.consumer.supplier, session.session_id)).root


async def test_a_copy_has_the_relays_of_volume_stream_and_peers_once(alice):
    header = alice.header()
    rows = alice.relays(header, 9)
    await alice.record(rows[:3])
    await alice.miner.tail()
    await alice.record(rows[2:6])  # one is in the stream twice, three are not on the volume
    session = alice.miner.sessions[header.session_id]
    copies = SessionCopies(alice.miner.consumer, alice.relay_store, OnePeer(header, rows[5:]))
    assert await root_of(copies, session) == slow_root(rows)
    assert left_over() == []


async def test_a_proof_from_a_copy_is_that_of_the_volume(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 40))
    await alice.miner.tail()
    session, supplier = alice.miner.sessions[header.session_id], alice.supplier
    copies = SessionCopies(alice.miner.consumer, alice.relay_store)
    for number in range(20):
        path = hashlib.sha256(bytes([number])).digest()
        async with copies.of(session, nearest=path) as copy:
            proof = await asyncio.to_thread(compute_proof, str(copy), supplier, session.session_id, path)
        of_volume = str(alice.relay_store.path(session.end))
        assert proof == await asyncio.to_thread(compute_proof, of_volume, supplier, session.session_id, path)


@pytest.mark.parametrize("known", [b"", bytes(48), b"short", None])
async def test_without_terms_a_known_root_suffices_for_a_copy(alice, known):
    header = alice.header()
    rows = alice.relays(header, 5)
    await alice.record(rows[:4])
    await alice.miner.tail()
    session = alice.miner.sessions[header.session_id]
    session.terms = None
    copies = SessionCopies(alice.miner.consumer, alice.relay_store, OnePeer(header, rows[3:]))
    if known is None:
        assert await root_of(copies, session, root=slow_root(rows)) == slow_root(rows)
    else:
        with pytest.raises(CopyFailed, match="terms"):
            await root_of(copies, session, root=known)


@pytest.mark.parametrize("root_known", [False, True])
async def test_without_redis_only_a_copy_whose_root_is_known_is_made(alice, monkeypatch, root_known):
    header = alice.header()
    rows = alice.relays(header, 3)
    await alice.record(rows)
    await alice.miner.tail()
    session = alice.miner.sessions[header.session_id]

    async def away(*_):
        raise RedisUnavailable("reset")

    monkeypatch.setattr(alice.miner.consumer.tail, "read", away)
    copies = SessionCopies(alice.miner.consumer, alice.relay_store)
    if root_known:
        assert await root_of(copies, session, root=slow_root(rows)) == slow_root(rows)
    else:
        with pytest.raises(RedisUnavailable):
            await root_of(copies, session)
    assert left_over() == []


async def test_a_copy_that_grows_too_large_or_cannot_be_used_is_an_error_of_its_own(alice, monkeypatch):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.miner.tail()
    session = alice.miner.sessions[header.session_id]
    copies = SessionCopies(alice.miner.consumer, alice.relay_store)
    with pytest.raises(CopyFailed):
        async with copies.of(session) as path:
            raise VolumeCorrupted(str(path))
    monkeypatch.setattr("pocket_miner.ingest.session_copies._MAX_BYTES", 1000)
    with pytest.raises(CopyFailed, match="MiB"):
        await root_of(copies, session)
    assert left_over() == []


async def test_a_full_volume_costs_no_relay_of_a_claim(alice):
    header = alice.header()
    rows = alice.relays(header, 6)
    await alice.record(rows[:2])
    await alice.to(8)
    miner = alice.miner
    miner.claims.copies = miner.proofs.copies = SessionCopies(miner.consumer, alice.relay_store)
    await alice.record(rows[2:])
    miner.consumer._volume_full = lambda: True
    for height in range(9, 21):
        alice.skip(height)
        await miner.on_block(await alice.comet.block(), await alice.client.proof_params())
    miner.consumer._volume_full = lambda: False
    await alice.to(22)
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"
    assert alice.outcomes()[header.session_id]["details"]["relays"] == 6


class NoVolume(HereTriePool):
    """A trie pool that fails for the volume, and works for copies."""

    def __init__(self, error):
        self.error = error

    async def root(self, path, *arguments):
        if "mirror" in str(path):
            raise self.error
        return await super().root(path, *arguments)

    async def proof(self, path, *arguments):
        if "mirror" in str(path):
            raise self.error
        return await super().proof(path, *arguments)


@pytest.mark.parametrize("error", [
    VolumeUnreadable("the leaves cannot be read: I/O error"), TrieWorkFailed("took more than 20 s and was killed"),
])  # fmt: skip
async def test_whatever_fails_on_the_volume_sessions_are_claimed_and_proven_from_copies(redis, tmp_path, error):
    proof = {"proof_request_probability": 1.0, "proof_missing_penalty": 10**6}
    async with mine(redis, tmp_path / "data", proof_params=proof) as alice:
        alice.start(NoVolume(error))
        copies = SessionCopies(alice.miner.consumer, alice.relay_store)
        alice.miner.claims.copies = alice.miner.proofs.copies = copies
        header = alice.header()
        await alice.record(alice.relays(header, 5))
        await alice.to(13)
        assert alice.miner.sessions[header.session_id].seal is None, "the volume may still come back"
        await alice.to(14)
        assert alice.miner.sessions[header.session_id].seal is not None, "in the second half of the claim window"
        await alice.to(26)
        assert unharmed(alice, header), ended(alice, header)
