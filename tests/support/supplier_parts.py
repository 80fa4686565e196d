"""The owner of a supplier whose Redis, chain, volume and peers are what a test says."""

from dataclasses import dataclass, field
from types import SimpleNamespace

from pocket.chain.model import Block
from pocket.errors import DecodingError
from pocket.protocol.claims.proof_requirement import ProofParams
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket.protocol.transactions.build import Timestamp
from pocket.redis_store.seals import SessionSeal
from pocket.redis_store.store_errors import (
    RedisUnavailable,
)
from pocket_miner.sessions.cutoff import SessionCutoff
from pocket_miner.sessions.leaf_validation import LeafTerms
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.submission.claims import SealSource
from pocket_miner.submission.leaf_sets import VolumeFallback
from pocket_miner.suppliers.supplier_miner import SupplierMiner

PARAMS = SharedParams(claim_window_close_offset_blocks=12, proof_window_close_offset_blocks=6)
WINDOWS = PARAMS.windows(1)
OPEN, CLOSE = WINDOWS.claim_open, WINDOWS.claim_close
PROOF = ProofParams()
AWAY = RedisUnavailable("away")


def block(height):
    return Block(height, bytes(32), Timestamp.of_nanoseconds(height * 10**9))


def header(name, start=1):
    return SessionHeader("app", "eth", name, start, start + 9)


def tracked(name="s", *, sealed=False, start=1):
    session = TrackedSession(header(name, start), terms=LeafTerms("alice", header(name, start), b"\xff" * 32, 1))
    session.params, session.params_confirmed, session.terms_confirmed = PARAMS, True, True
    if sealed:
        session.seal = SessionSeal(name, bytes(48), bytes(32), 13, 1)
    return session


@dataclass
class Parts:
    """Everything that a miner of one supplier uses, noting what it is told and failing where a test says so."""

    calls: list = field(default_factory=list)
    errors: dict = field(default_factory=dict)
    lost: bool = False
    revived_sessions: tuple = ()
    polled: object = None
    settled: bool = True
    settled_blocks: int = 0  # for which Redis was asked to have kept its data
    lacking: tuple = ()
    claims_on_chain: tuple = ()
    supplier: str = "alice"

    def told(self, name, *details):
        self.calls.append((name, *details) if details else name)
        error = self.errors.get(name)
        if error is not None:
            raise error

    def names(self):
        return [call if isinstance(call, str) else call[0] for call in self.calls]

    # The chain.

    async def shared_params(self, height):
        self.told("params")
        return PARAMS

    async def claims_of(self, supplier, height):
        return self.claims_on_chain

    async def claims_by_node(self, supplier, height):
        return {"node": self.claims_on_chain}

    # Redis.

    async def fence(self, confirm, *, urgent):
        self.told("fence", urgent)

    async def check_fence(self):
        self.told("check fence")

    async def advance_cutoff(self, session_end, height):
        self.told("cutoff", session_end)
        return height, height

    async def finish(self, session_id, end):
        self.told("finish", session_id, end)

    def doubt_fence(self):
        self.told("doubt fence")

    # Relays.

    @property
    def tail(self):
        async def lost(session_ids):
            return set(self.lacking).intersection(session_ids)

        return SimpleNamespace(lost=lost)

    def history_id(self):
        return "history"

    async def restore(self):
        self.told("restore")

    async def ended_elsewhere(self):
        return []

    async def discover(self, finished):
        self.told("discover")
        return self.lost

    def revived(self, finished):
        return self.revived_sessions

    async def poll(self, check):
        self.told("poll", check)
        return self.polled

    async def consume_once(self):
        self.told("consume")
        return 7

    def reread(self):
        self.told("reread")

    async def learn_terms(self, session, height):
        if session.session_id == self.errors.get("cannot be decided"):
            raise DecodingError("damaged")
        return True

    # Seals, claims and proofs.

    @property
    def seals(self):
        async def load(sessions):
            self.told("load seals")

        async def load_own(sessions):
            self.told("own seals")

        return SimpleNamespace(load=load, load_own=load_own)

    @property
    def sender(self):
        async def claims_at(height):
            self.told("claims", height)
            return self.claims_on_chain

        return SimpleNamespace(has_signed=None, claims_at=claims_at)

    fees = None

    async def seal_and_claim(self, group, at, proof, *, fallback=None, history=None, source=SealSource.STREAM):
        self.told("seal", [session.session_id for session in group], fallback, history, source)

    async def rebroadcast(self, group, at):
        ids = [session.session_id for session in group]
        self.told("claim", ids)
        if bad := self.errors.get("bad").intersection(ids) if "bad" in self.errors else None:
            raise self.errors["of"](sorted(bad))

    async def adopt(self, session, *, block, connected):
        self.told("adopt", session.session_id, connected)

    async def prove(self, group, at, proof):
        self.told("prove", [session.session_id for session in group])

    async def decide(self, session, params, height):
        return


@dataclass
class Ending:
    parts: Parts
    finished: dict = field(default_factory=dict)
    owner_since: int = 0
    is_pending: bool = False

    async def restore(self):
        self.parts.told("outcomes")

    async def conclude(self, group, at, settlements):
        self.parts.told("conclude", [session.session_id for session in group])

    async def drop_ended(self):
        self.parts.told("drop ended")


class OtherMiners:
    """A peer that has joined since the latest merge, or not."""

    def __init__(self, parts, live=()):
        self.parts, self.live = parts, live

    @property
    def urls(self):
        return frozenset(self.live)

    async def seals(self, supplier):
        self.parts.told("merge")
        return []

    async def sessions(self, supplier):
        return True, []


def supplier_miner(*sessions, started=True, live=(), **changes):
    parts = Parts(**changes)

    async def redis_settled(blocks):
        parts.settled_blocks = blocks
        return parts.settled

    made = SupplierMiner(
        "alice", parts, None, parts, None, None, parts, parts, parts,
        {session.session_id: session for session in sessions}, 1, redis_settled, peers=OtherMiners(parts, live),
    )  # fmt: skip
    made.concluder = Ending(parts, owner_since=made.concluder.owner_since)
    made._started = made._restored = started
    made._cutoff = SessionCutoff(0, 10**6, 0)
    return made, parts


def expected_fallback(left, length):
    if left <= 1 or 3 * left <= length:
        return VolumeFallback.PARTIAL
    return VolumeFallback.COPY if 2 * left <= length else VolumeFallback.RETRY
