"""Which of several seals of a session counts, and where each is put so that every later owner finds it."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field

import pytest

from pocket.protocol.claims.proof_requirement import Claim
from pocket.protocol.relays.messages import SessionHeader
from pocket.redis_store.seals import SessionSeal, SignedGroup
from pocket.redis_store.store_errors import CommandRejected, RedisTrouble, RedisUnavailable
from pocket_miner.sessions.submission import Submission
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.storage.audit import Audit
from pocket_miner.submission.known_seals import KnownSeals

END = 20
PLACES = ("redis", "volume", "peer")  # in the order in which they count


def seal_of(place, session_id="s"):
    return SessionSeal(session_id, place.encode().ljust(48), bytes(32), 23, PLACES.index(place) + 1)


@dataclass
class Store:
    """The seals in Redis."""

    rows: dict = field(default_factory=dict)
    restored: dict = field(default_factory=dict)
    signed: list = field(default_factory=list)

    async def load(self):
        return dict(self.rows)

    async def restore(self, seals, ends):
        self.restored |= {session_id: (seal, ends[session_id]) for session_id, seal in seals.items()}

    async def share_signed(self, end, message, signed):
        self.signed.append((end, message, signed))


@pytest.fixture
def audit(tmp_path):
    with closing(Audit(tmp_path / "audit.sqlite")) as made:
        yield made


def tracked():
    return {"s": TrackedSession(SessionHeader("app", "eth", "s", 11, END))}


@pytest.mark.parametrize("known", [{p for n, p in enumerate(PLACES) if number >> n & 1} for number in range(8)])
async def test_the_seal_of_redis_counts_before_that_of_the_volume_and_is_then_everywhere(audit, known):
    """A peer's seal never counts by itself, wherever it is met first: its root is one that relays may have."""
    store, sessions = Store({"s": seal_of("redis")} if "redis" in known else {}), tracked()
    seals = KnownSeals("alice", store, audit)
    if "volume" in known:
        await seals.save([seal_of("volume")], END, "signed", needed=True)
    if "peer" in known:
        sessions["s"].meet_seal(seal_of("peer"), from_redis=False)
    await seals.load(sessions)
    own = known - {"peer"}
    best = next((place for place in PLACES if place in own), None)
    assert sessions["s"].seal == (best and seal_of(best))
    assert {seal.root for seal in sessions["s"].other_seals} == {seal_of(place).root for place in known - {best}}
    assert set(audit.seals("alice")) == ({"s"} if own else set())
    assert store.restored == ({"s": (sessions["s"].seal, END)} if own == {"volume"} else {})


@pytest.mark.parametrize("lost", [True, False])
async def test_what_was_signed_for_seals_that_redis_has_lost_is_shared_again_so_that_no_owner_pays_twice(audit, lost):
    store, seals = Store({} if lost else {"s": seal_of("volume")}), tracked()
    claim, again, proof = (SignedGroup(text, 7, 13) for text in (b"claim", b"claim again", b"proof"))
    known = KnownSeals("alice", store, audit)
    await known.save([seal_of("volume")], END, claim.encode(), needed=True)
    audit.save_signed("alice", END, "claim", again)
    audit.save_signed("alice", END, "proof", proof)
    audit.save_signed("alice", END - 10, "claim", proof)  # of sessions that Redis has not lost
    await known.load(seals)
    shared = [(END, "claim", again), (END, "claim", claim), (END, "proof", proof)]
    assert store.signed == (shared if lost else [])


@pytest.mark.parametrize("error", [RedisUnavailable("away"), CommandRejected("WRONGTYPE", RedisTrouble.REJECTED)])
async def test_signed_transactions_that_redis_does_not_take_are_due_again_unless_it_rejects_them(audit, error):
    class FailingStore(Store):
        async def share_signed(self, end, message, signed):
            if not self.signed:
                self.signed.append(error)
                raise error
            await super().share_signed(end, message, signed)

    store, claims = FailingStore(), [SignedGroup(text, 7, 13) for text in (b"claim", b"claim again")]
    known = KnownSeals("alice", store, audit)
    await known.save([seal_of("volume")], END, "", needed=True)
    for claim in claims:
        audit.save_signed("alice", END, "claim", claim)
    if not isinstance(error, CommandRejected):
        with pytest.raises(RedisUnavailable):
            await known.load(tracked())
        assert store.restored == {}, "without its seals the rest is due again"
    await known.load(tracked())
    assert set(store.restored) == {"s"}
    assert len(store.signed) == (2 if isinstance(error, CommandRejected) else 3)


@pytest.mark.parametrize("own", ["volume", None])
def test_peers_state_a_few_seals_at_most_and_take_no_place_of_redis(own):
    session = tracked()["s"]
    session.seal = own and seal_of(own)
    for number in range(100):
        session.meet_seal(SessionSeal("s", bytes([number]) * 48, bytes(32), 1, 1), from_redis=False)
    assert len(session.other_seals) == (3 if own else 4), "four roots of a session are known"
    session.meet_seal(seal_of("redis"), from_redis=True)
    assert session.seal == seal_of("redis")


@pytest.mark.parametrize("known", ["sent", "on chain"])
async def test_a_seal_whose_claim_was_sent_or_is_on_chain_is_not_replaced_by_that_of_redis(audit, known):
    store, sessions = Store({"s": seal_of("redis")}), tracked()
    session, own = sessions["s"], seal_of("volume")
    session.seal = own
    if known == "sent":
        session.claim.sent = Submission(b"raw", "hash", 13)
    else:
        session.claim_on_chain = Claim("alice", session.header, own.root)
    await KnownSeals("alice", store, audit).load(sessions)
    assert session.seal == own
    assert session.other_seals == [seal_of("redis")]


@pytest.mark.parametrize("needed", [True, False])
async def test_a_seal_that_is_nowhere_else_must_be_on_the_volume(audit, needed):
    seals = KnownSeals("alice", Store(), audit)
    audit.close()
    if not needed:
        await seals.save([seal_of("redis")], END, "signed", needed=False)
        return
    with pytest.raises(sqlite3.Error):
        await seals.save([seal_of("volume")], END, "signed", needed=True)
