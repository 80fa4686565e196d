"""Which relays of a session are sealed where a peer states that it has sealed others."""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from pocket.protocol.relays.messages import SessionHeader
from pocket.redis_store.seals import SessionSeal
from pocket.redis_store.store_errors import StaleEpoch
from pocket_miner.sessions.relay_sources import CopyFailed
from pocket_miner.sessions.tracked_session import TrackedSession
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
