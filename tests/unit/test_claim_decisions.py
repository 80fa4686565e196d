"""What is claimed: a root that the chain takes, a seal that counts, and a claim on chain that is ours."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.chain.model import Block
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.smst.digest import Root
from pocket.protocol.transactions.build import GasPrice, Timestamp
from pocket.redis_store.seals import SessionSeal, SignedGroup
from pocket.redis_store.store_errors import (
    ConcurrentAppend,
    FenceMissing,
    RedisStoreError,
    RedisUnavailable,
    StaleEpoch,
)
from pocket_miner.sessions.tracked_session import Skip, TrackedSession
from pocket_miner.storage.trie_pool import SealedSet
from pocket_miner.submission import claims
from pocket_miner.submission.claims import ClaimSubmitter, claim_problem
from pocket_miner.submission.fees import FeeTracker

HEADER = SessionHeader("app", "eth", "session", 1, 10)
BLOCK = Block(16, bytes(32), Timestamp.of_nanoseconds(10**18))


def root(total, count, salt=0):
    return bytes([salt]) * 32 + total.to_bytes(8, "big") + count.to_bytes(8, "big")


@given(count=st.integers(0, 3), total=st.integers(0, 12), units=st.integers(1, 4))
def test_a_claim_has_leaves_and_all_of_them_the_weight_of_its_service(count, total, units):
    problem = claim_problem(Root(root(total, count)), units)
    if count == 0:
        assert problem is Skip.EMPTY
    else:
        assert problem is (None if total == count * units else Skip.UNITS_MISMATCH)


@dataclass
class Store:
    """Redis as an owner uses it. `error` is what it answers to a seal."""

    error: Exception | None = None
    supplier: str = "alice"
    epoch: int = 3
    restored: dict = field(default_factory=dict)

    async def seal(self, seals, last_ids, group, signed):
        if self.error is not None:
            raise self.error

    async def restore(self, seals, ends):
        self.restored |= seals


class Books:
    """The volume: the seals that were saved."""

    def __init__(self):
        self.seals = []

    def save_seals(self, supplier, end, seals, signed):
        self.seals += seals


def submitter(store):
    return ClaimSubmitter(
        "alice", store, Books(), None, None, None, None, FeeTracker(GasPrice.parse("0.001upokt"), Books())
    )  # fmt: skip


@pytest.mark.parametrize("error", [
    ConcurrentAppend("it grew"), FenceMissing("lost"), StaleEpoch("another", 4), RedisUnavailable("away"),
])  # fmt: skip
async def test_only_a_session_that_is_sealed_already_has_a_predecessors_seal(error):
    signed = SignedGroup(b"raw", 1, 16)
    assert await submitter(Store())._store([], {}, "group", signed) is True
    assert await submitter(Store(RedisStoreError("sealed already")))._store([], {}, "group", signed) is False
    with pytest.raises(type(error)):
        await submitter(Store(error))._store([], {}, "group", signed)


OURS, PEERS, FOREIGN = root(300, 3, 1), root(200, 2, 2), root(100, 1, 3)


@dataclass
class LeafSets:
    """What the volume and the stream hold together."""

    found: bytes

    async def of_claim_on_volume(self, session):
        return SealedSet(self.found, b"digest", 3)

    async def has_other_count(self, session, count):
        return False


@pytest.mark.parametrize(("claimed", "adopted", "conflicting"), [
    (OURS, True, False), (PEERS, False, False), (FOREIGN, False, True),
], ids=["ours", "of a peer", "foreign"])  # fmt: skip
async def test_a_claim_without_a_seal_is_adopted_if_it_is_over_our_leaves_and_foreign_if_no_peer_knows_it(
    monkeypatch, claimed, adopted, conflicting
):
    async def read(*_):
        return {}, ()

    store = Store()
    made, session = submitter(store), TrackedSession(HEADER)
    monkeypatch.setattr(claims, "LeafSets", lambda *_: LeafSets(OURS))
    monkeypatch.setattr(ClaimSubmitter, "_close_and_read", read)
    monkeypatch.setattr(TrackedSession, "claimed_root", claimed)
    session.other_seals = [SessionSeal("session", PEERS, bytes(32), 13, 1)]
    await made.adopt(session, BLOCK, connected=True)
    assert (session.seal is not None, session.conflicting) == (adopted, conflicting)
    assert (list(store.restored), made.audit.seals) == (["session"] if adopted else [], [session.seal] * adopted)
    assert session.details.foreign_root == (FOREIGN.hex() if conflicting else None)
