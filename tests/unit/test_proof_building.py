"""Which proof is built, and which one that was signed before is sent again."""

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pocket.chain.model import Block, TransactionResult
from pocket.protocol.claims.proof_requirement import INVALID, Claim, proof_path
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket.protocol.transactions.build import Timestamp, TransactionPlan, sign_transaction, submit_proof_message
from pocket.protocol.transactions.decode import decode_tx
from pocket.redis_store.seals import SessionSeal, SignedGroup
from pocket_miner.sessions.submission import Submission
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.submission.proofs import ProofSubmitter
from world import address, key

SUPPLIER, NOW = address("alice"), 10**18
HEADER = SessionHeader(address("app"), "eth", "session", 1, 10)
ROOT, OTHER_ROOT = b"\x01" * 48, b"\x02" * 48
PARAMS = SharedParams()
OPEN, CLOSE = PARAMS.windows(1).proof_open, PARAMS.windows(1).proof_close


def block(height):
    return Block(height, bytes(32), Timestamp.of_nanoseconds(NOW))


def session():
    made = TrackedSession(HEADER, params=PARAMS)
    made.seal = SessionSeal("session", ROOT, bytes(32), 13, 1)
    return made


@dataclass
class Seeds:
    """The hash of the seed block as nodes state it now."""

    seed: bytes = b"\x05" * 32
    asked: list = field(default_factory=list)
    doubted: list = field(default_factory=list)

    async def hash_of(self, height, now):
        self.asked.append((height, now))
        return self.seed, True

    def doubt(self, height, refuted):
        self.doubted.append((height, refuted))


@dataclass
class Tries:
    """Proofs by path, from the volume and from a copy."""

    root: bytes = ROOT
    asked: list = field(default_factory=list)

    async def proof(self, file, supplier, session_id, path, sealed):
        self.asked.append((str(file), path))
        return (self.root if "volume" in str(file) else sealed), b"proof for " + path


class Mirror:
    def path(self, end):
        return Path("volume", f"end-{end}")


class Copies:
    @contextlib.asynccontextmanager
    async def of(self, session, root, nearest):
        yield Path("copy")


@dataclass
class Included:
    """The transactions that blocks hold."""

    hashes: set = field(default_factory=set)

    async def results_of(self, submissions):
        rows = {last.tx_hash for last in submissions} & self.hashes
        return {name: TransactionResult(name, 0, "", "", 14) for name in rows}


@dataclass
class Store:
    groups: list = field(default_factory=list)

    async def signed(self, end, what):
        return self.groups if (end, what) == (10, "proof") else []


class Fees:
    """A volume on which nothing was signed."""

    audit = SimpleNamespace(signed=lambda *_: [])


def submitter(*, tries=None, seeds=None, store=None, included=(), copies=None):
    made = ProofSubmitter(
        SUPPLIER, None, None, Mirror(), tries or Tries(), Included(set(included)), Fees, store or Store(),
        copies=copies,
    )  # fmt: skip
    made.seeds = seeds or Seeds()
    return made


async def test_a_proof_is_for_the_leaf_that_the_seed_of_the_moment_names_and_is_built_once():
    row, tries, seeds = session(), Tries(), Seeds()
    made = submitter(tries=tries, seeds=seeds)
    first = await made._build(row, block(OPEN))
    assert await made._build(row, block(OPEN + 1)) is first
    seeds.seed = b"\x06" * 32
    assert await made._build(row, block(OPEN + 2)) != first
    assert [path for _, path in tries.asked] == [proof_path(seed * 32, "session") for seed in (b"\x05", b"\x06")]
    assert seeds.asked == [(OPEN - 1, OPEN + later) for later in range(3)]


@pytest.mark.parametrize("sent", [True, False])
async def test_the_proof_that_the_chain_found_invalid_is_not_sent_a_second_time(sent):
    row, made = session(), submitter()
    message = await made._build(row, block(OPEN))
    row.proof.sent = Submission(b"raw", "hash", OPEN) if sent else None
    row.claim_on_chain = Claim(SUPPLIER, HEADER, ROOT, INVALID)
    assert await made._build(row, block(OPEN + 1)) == (None if sent else message)


async def test_bytes_that_the_chain_found_invalid_are_not_taken_over_after_a_restart():
    row = session()
    row.claim_on_chain = Claim(SUPPLIER, HEADER, ROOT, INVALID)
    await submitter(store=Store([signed(1, OPEN)]))._load_signed([row], block(OPEN))
    assert row.proof.sent is None


@pytest.mark.parametrize(("on_volume", "copies", "built"), [
    (ROOT, None, True), (OTHER_ROOT, None, False), (OTHER_ROOT, Copies(), True),
], ids=["of the volume", "of another root", "of a copy"])  # fmt: skip
async def test_leaves_that_do_not_have_the_sealed_root_are_taken_from_a_copy_and_never_proven(on_volume, copies, built):
    row = session()
    found = await submitter(tries=Tries(on_volume), copies=copies)._build(row, block(OPEN))
    assert (found is not None) is built
    assert bool(row.details.proof_problem) is not built


def signed(number, height):
    message = submit_proof_message(SUPPLIER, HEADER, b"proof %d" % number)
    plan = TransactionPlan((message,), "pocket", number, 5000, 100, Timestamp.of_nanoseconds(NOW + 10**9))
    return SignedGroup(sign_transaction(plan, key("alice")).raw, NOW + 10**9, height)


@pytest.mark.parametrize("left", [5, 3, 2, 1])
@pytest.mark.parametrize("included", [True, False])
async def test_the_last_proof_that_was_signed_before_is_sent_again_while_there_is_time_to_wait_for_it(left, included):
    older, newer = signed(1, OPEN), signed(2, OPEN + 1)
    row = session()
    names = [decode_tx(newer.tx_raw).tx_hash] if included else []
    made = submitter(store=Store([older, newer]), included=names)
    await made._load_signed([row], block(CLOSE - left))
    taken = row.proof.sent and row.proof.sent.raw
    assert taken == (newer.tx_raw if included or left > 2 else None)


async def test_nothing_that_was_signed_before_is_taken_over_once_this_owner_has_signed():
    row = session()
    row.proof.attempts = replace(row.proof.attempts, number=1)
    await submitter(store=Store([signed(1, OPEN)]))._load_signed([row], block(OPEN))
    assert row.proof.sent is None


@pytest.mark.parametrize(("sent_at", "status", "doubted"), [
    (OPEN, INVALID, True), (OPEN + 2, INVALID, False), (OPEN, 0, False), (None, INVALID, False),
])  # fmt: skip
async def test_the_seed_of_a_proof_that_the_chain_refuted_is_doubted_once_for_each_proof(sent_at, status, doubted):
    row, seeds = session(), Seeds()
    made = submitter(seeds=seeds)
    message = await made._build(row, block(OPEN))
    row.claim_on_chain = Claim(SUPPLIER, HEADER, ROOT, status)
    row.proof.sent = None if sent_at is None else Submission(b"raw", "hash", sent_at, accepted=True)
    made.deliveries = Unsent()
    row.proof_message = (seeds.seed, message)
    for later in (1, 2):
        with contextlib.suppress(AttributeError):  # nothing is sent here
            await made.prove([row], block(OPEN + later), None)
    assert seeds.doubted == [(OPEN - 1, seeds.seed)] * doubted
    assert (row.details.proof_refusal is not None) is doubted


class Unsent:
    """Deliveries of which none is in a block, and none is missing."""

    async def results(self, sessions):
        return {}

    async def missing(self, sessions, at, results):
        return []

    async def broadcast(self, *_, **__):
        return
