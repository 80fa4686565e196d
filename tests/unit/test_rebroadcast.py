"""Which bytes of a claim are sent again: those that were signed, or new ones that cost a second fee."""

import contextlib
from contextlib import closing
from dataclasses import dataclass, field

import pytest

from pocket.chain.model import Block
from pocket.protocol.claims.proof_requirement import Claim
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket.protocol.transactions.build import (
    Timestamp,
    TransactionPlan,
    create_claim_message,
    sign_transaction,
)
from pocket.protocol.transactions.decode import decode_tx
from pocket.redis_store.seals import SessionSeal, SignedGroup
from pocket_miner.sessions.submission import Submission
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.storage.audit import Audit
from pocket_miner.submission.claims import ClaimSubmitter
from pocket_miner.submission.fees import FeeTracker
from pocket_miner.submission.sender import SendError
from transaction_nodes import PRICE, TransactionNode, sender_to
from world import address, key

SUPPLIER = address("alice")
ROOT = bytes(32) + (300).to_bytes(8, "big") + (3).to_bytes(8, "big")
NOW = 10**18
PARAMS = SharedParams()
CLOSE = PARAMS.windows(1).claim_close


def block(height):
    return Block(height, bytes(32), Timestamp.of_nanoseconds(NOW))


def session(name="a", end=10):
    header = SessionHeader(address("app"), "eth", name, end - 9, end)
    made = TrackedSession(header, params=PARAMS)
    made.seal = SessionSeal(name, ROOT, bytes(32), end + 3, 1)
    return made


def signed(row, number=1, timeout=NOW + 10**9, root=ROOT):
    message = create_claim_message(SUPPLIER, row.header, root)
    plan = TransactionPlan((message,), "pocket", number, 5000, 100, Timestamp.of_nanoseconds(timeout))
    return SignedGroup(sign_transaction(plan, key("alice")).raw, timeout, 13)


@dataclass
class Chain(TransactionNode):
    """A chain with these results of transactions and these claims."""

    known: set = field(default_factory=set)
    """Bytes that the nodes have already."""

    def rejects(self, raw):
        code, codespace = super().rejects(raw)
        return (19, "sdk") if raw in self.known and not code else (code, codespace)


@dataclass
class Store:
    """What former owners shared through Redis."""

    groups: list = field(default_factory=list)
    supplier: str = SUPPLIER

    async def signed(self, end):
        return self.groups

    async def share_signed(self, end, what, group):
        assert (end, what) == (10, "claim")
        self.groups.append(group)

    async def share_costs(self, *_):
        return


@pytest.fixture
def audit(tmp_path):
    with closing(Audit(tmp_path / "audit.sqlite")) as made:
        yield made


def submitter(audit, chain, store=None, start=1):
    sender = sender_to(chain, offset=start)
    return ClaimSubmitter(SUPPLIER, store or Store(), audit, None, None, sender, None, FeeTracker(PRICE, audit))


PAST, LATER = NOW - 1, NOW + 10**9


@pytest.mark.parametrize("on_volume", [None, PAST, LATER])
@pytest.mark.parametrize("in_redis", [None, PAST, LATER])
async def test_what_was_signed_with_the_seal_is_sent_before_anything_new_while_a_block_may_include_it(
    audit, on_volume, in_redis
):
    row, chain = session(), Chain()
    here, there = signed(row, 1, on_volume or 0), signed(row, 2, in_redis or 0)
    if on_volume:
        audit.save_seals(SUPPLIER, row.end, [row.seal], here.encode())
    store = Store([there] if in_redis else [])
    await submitter(audit, chain, store).rebroadcast([row], block(14))
    (sent,) = chain.sent
    if on_volume == LATER:
        assert sent == here.tx_raw
    elif in_redis == LATER:
        assert sent == there.tx_raw
    else:
        assert sent not in (here.tx_raw, there.tx_raw)


async def test_what_was_signed_for_sessions_of_another_end_is_not_sent_for_these(audit):
    row, chain, other = session(), Chain(), session("a", end=20)
    audit.save_seals(SUPPLIER, 20, [other.seal], signed(other).encode())
    await submitter(audit, chain).rebroadcast([row], block(14))
    (sent,) = chain.sent
    assert sent != signed(other).tx_raw
    assert list(decode_tx(sent).claims) == [row.session_id]


async def test_what_was_signed_with_another_root_than_that_of_the_seal_is_not_sent(audit):
    row, chain = session(), Chain()
    other = signed(row, root=bytes(47) + b"\x01")
    audit.save_seals(SUPPLIER, row.end, [row.seal], other.encode())
    await submitter(audit, chain, Store([other])).rebroadcast([row], block(14))
    (sent,) = chain.sent
    assert list(decode_tx(sent).roots) == [ROOT]


def handed_over(row, *, height, known_at=0):
    group = signed(row)
    return Submission(group.tx_raw, decode_tx(group.tx_raw).tx_hash, height, LATER, accepted=True, known_at=known_at)


@pytest.mark.parametrize(
    ("height", "sent_at", "known_at", "same", "new"),
    [
        (14, 13, 0, True, False),  # the next block may include it
        (14, 14, 0, False, False),  # it was sent just now
        (CLOSE - 3, CLOSE - 6, CLOSE - 5, False, True),  # as many blocks passed in vain as are left
        (CLOSE - 3, CLOSE - 5, CLOSE - 4, True, False),
        (CLOSE - 2, CLOSE - 4, CLOSE - 3, False, True),
        (CLOSE - 1, CLOSE - 2, CLOSE - 2, True, True),  # no later block to wait for
        (CLOSE - 1, CLOSE - 2, 0, True, False),
    ],
)
async def test_bytes_that_nodes_keep_without_including_them_are_given_up_by_what_is_left_of_the_window(
    audit, height, sent_at, known_at, same, new
):
    row, chain = session(), Chain()
    row.claim.sent = handed_over(row, height=sent_at, known_at=known_at)
    before = row.claim.sent.raw
    chain.known = {before} if known_at else set()
    await submitter(audit, chain).rebroadcast([row], block(height))
    assert (before in chain.sent, any(raw != before for raw in chain.sent)) == (same, new)


@pytest.mark.parametrize("shown", [True, False])
async def test_a_claim_that_failed_is_signed_again_unless_the_chain_shows_one_with_its_root(audit, shown):
    row = session()
    row.claim.sent = handed_over(row, height=13)
    before = row.claim.sent
    chain = Chain({before.tx_hash: 1100}, [Claim(SUPPLIER, row.header, ROOT)] if shown else [])
    await submitter(audit, chain).rebroadcast([row], block(14))
    assert len(chain.sent) == (0 if shown else 1)
    assert before.raw not in chain.sent
    assert (row.claim.attempts.number, row.claim.attempts.failed) == ((0, "") if shown else (1, row.details.refusal))
    for raw in chain.sent:
        body = tx_pb.TxBody.FromString(tx_pb.TxRaw.FromString(raw).body_bytes)
        assert body.timeout_height == CLOSE, "a block after the window would take its fee"


@pytest.mark.parametrize("place", ["volume", "Redis"])
async def test_a_claim_that_was_signed_again_is_found_by_the_next_process(audit, tmp_path, place):
    chain, row, store = Chain(), session(), Store()
    first = signed(row)
    audit.save_seals(SUPPLIER, row.end, [row.seal], first.encode())
    chain.results = {decode_tx(first.tx_raw).tx_hash: 11}
    await submitter(audit, chain, store).rebroadcast([row], block(14))
    (again,) = chain.sent
    assert again != first.tx_raw
    with closing(Audit(tmp_path / "other.sqlite")) as other:
        other.save_seals(SUPPLIER, row.end, [row.seal], first.encode())
        volume = audit if place == "volume" else other
        left = Store() if place == "volume" else store
        await submitter(volume, chain, left, start=2).rebroadcast([session()], block(15))
    assert chain.sent == [again, again]


@pytest.mark.parametrize("old", ["taken", "refused"])
@pytest.mark.parametrize("new", ["taken", "refused"])
async def test_a_refusal_is_told_whether_old_or_new_bytes_are_refused_and_keeps_no_other_claim_back(audit, old, new):
    first, second, chain = session("a"), session("b"), Chain()
    first.claim.sent = handed_over(first, height=13)
    chain.refused = {name for name, result in (("a", old), ("b", new)) if result == "refused"}
    with pytest.raises(SendError) if chain.refused else contextlib.nullcontext():
        await submitter(audit, chain).rebroadcast([first, second], block(14))
    assert sorted({name for raw in chain.sent for name in decode_tx(raw).claims}) == ["a", "b"]
    assert [bool(row.details.refusal) for row in (first, second)] == [old == "refused", new == "refused"]


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_claims_of_a_group_that_failed_are_each_sent_alone(audit, number):
    rows, chain = [session(f"s{position}") for position in range(number)], Chain()
    for row in rows:
        row.claim.sent = handed_over(row, height=13)
    chain.results = {row.claim.sent.tx_hash: 1100 for row in rows}
    await submitter(audit, chain).rebroadcast(rows, block(14))
    assert sorted(list(decode_tx(raw).claims) for raw in chain.sent) == [[row.session_id] for row in rows]
    assert [row.claim.attempts.alone for row in rows] == [number > 1] * number
