"""Which relays of a session are sealed where a peer states that it has sealed others."""

import contextlib
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest

from pocket.protocol.claims.proof_requirement import Claim
from pocket.protocol.relays.messages import SessionHeader
from pocket.redis_store.seals import SessionSeal
from pocket.redis_store.store_errors import StaleEpoch
from pocket_miner.sessions.relay_sources import CopyFailed
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.storage.corruption import VolumeCorrupted
from pocket_miner.storage.trie_pool import SealedSet
from pocket_miner.submission.leaf_sets import LeafSets, VolumeFallback

HEADER = SessionHeader("app", "eth", "session", 1, 10)


def root(name, count):
    return name.encode().ljust(32, b"\0") + (100 * count).to_bytes(8, "big") + count.to_bytes(8, "big")


class Volume:
    """A volume with ten relays of a session, and the sealed parts of them by their root."""

    def __init__(self, *parts):
        self.parts, self.asked = parts, []

    async def root(self, path, supplier, session_id, known=b""):
        self.asked.append(known)
        found = known if known in self.parts else root("all", 10)
        return SealedSet(found, bytes(32), int.from_bytes(found[-8:], "big"))


ALL, PART, MORE, FOREIGN = root("all", 10), root("part", 7), root("more", 12), root("foreign", 5)


@pytest.mark.parametrize(("stated", "signed", "awaited", "sealed"), [
    ((), (), True, ALL), ((), (), False, ALL),
    ((ALL,), (), True, ALL), ((ALL, FOREIGN), (), True, ALL),
    ((PART,), (PART,), True, PART), ((PART,), (PART,), False, PART), ((FOREIGN, PART), (PART,), True, PART),
    ((PART,), (), True, None), ((PART,), (), False, ALL), ((PART,), (FOREIGN,), False, ALL),
    ((MORE,), (MORE,), True, None), ((MORE,), (MORE,), False, ALL),
    ((FOREIGN,), (FOREIGN,), True, None), ((FOREIGN,), (FOREIGN,), False, ALL),
], ids=map(str, range(14)))  # fmt: skip
async def test_relays_that_a_peer_claimed_are_sealed_and_others_are_awaited_for_a_while(
    stated, signed, awaited, sealed
):  # fmt: skip
    session = TrackedSession(HEADER)
    session.other_seals = [SessionSeal("session", one, bytes(32), 12, 1) for one in stated]
    session.signed_roots = set(signed)
    volume = Volume(PART)
    sets = LeafSets("alice", SimpleNamespace(path=lambda end: Path(f"end-{end}")), volume)
    found = await sets.to_seal({"session": session}, (), VolumeFallback.RETRY, peers_awaited=awaited)
    assert {name: one.root for name, one in found.items()} == ({} if sealed is None else {"session": sealed})
    assert MORE not in volume.asked, "a part has fewer relays than all"


@pytest.mark.parametrize("fallback", VolumeFallback)
@pytest.mark.parametrize("error", [CopyFailed("no terms"), OSError("full"), StaleEpoch("another owner", 9)])
async def test_what_is_on_the_volume_is_sealed_at_last_but_not_by_a_former_owner(fallback, error):
    @contextlib.asynccontextmanager
    async def copied(session, *, root=b""):
        raise error
        yield

    store, copies = SimpleNamespace(path=lambda end: Path(f"end-{end}")), SimpleNamespace(of=copied)
    sets = LeafSets("alice", store, Volume(), copies)
    if fallback is VolumeFallback.PARTIAL and not isinstance(error, StaleEpoch):
        assert (await sets.of(TrackedSession(HEADER), fallback, on_volume=False)).root == ALL
        return
    with pytest.raises(type(error)):
        await sets.of(TrackedSession(HEADER), fallback, on_volume=False)


@pytest.mark.parametrize("fallback", VolumeFallback)
@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("error", [sqlite3.OperationalError("locked"), VolumeCorrupted("/volume")])
async def test_a_volume_that_cannot_be_read_is_replaced_by_a_copy_except_early_and_where_it_is_damaged(
    fallback, copied, error
):
    asked = []

    class Unreadable(Volume):
        async def root(self, path, supplier, session_id, known=b""):
            asked.append(path.name)
            if path.name == "end-10":
                raise error
            return await super().root(path, supplier, session_id, known)

    @contextlib.asynccontextmanager
    async def of(session, *, root=b""):
        yield Path("copy")

    store = SimpleNamespace(path=lambda end: Path(f"end-{end}"))
    sets = LeafSets("alice", store, Unreadable(), SimpleNamespace(of=of) if copied else None)
    if fallback is VolumeFallback.RETRY or not copied or isinstance(error, VolumeCorrupted):
        with pytest.raises(type(error)):
            await sets.of(TrackedSession(HEADER), fallback)
        assert asked == ["end-10"]
    else:
        assert (await sets.of(TrackedSession(HEADER), fallback)).root == ALL
        assert asked == ["end-10", "copy"]
    claimed = TrackedSession(HEADER, claim_on_chain=Claim("alice", HEADER, ALL))
    if isinstance(error, VolumeCorrupted):
        with pytest.raises(VolumeCorrupted):
            await sets.of_claim_on_volume(claimed)
    else:
        assert await sets.of_claim_on_volume(claimed) is None


@pytest.mark.parametrize(("count", "other"), [
    (7, False), (6, True), (8, True), (sqlite3.OperationalError("locked"), True), (VolumeCorrupted("/volume"), None),
])  # fmt: skip
async def test_a_volume_has_another_number_of_leaves_also_if_nobody_can_tell(count, other):
    def counted(supplier, session_id):
        assert (supplier, session_id) == ("alice", "session")
        if isinstance(count, Exception):
            raise count
        return count

    sets = LeafSets("alice", SimpleNamespace(file=lambda end: SimpleNamespace(count=counted)), None)
    if other is None:
        with pytest.raises(VolumeCorrupted):
            await sets.has_other_count(TrackedSession(HEADER), 7)
    else:
        assert await sets.has_other_count(TrackedSession(HEADER), 7) is other
