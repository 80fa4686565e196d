"""Which proofs are sent together, what they cost, and what of them the next process finds."""

import contextlib
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pocket.chain.model import Block
from pocket.errors import ChainQueryRejected
from pocket.protocol.claims.proof_requirement import VALIDATED, Claim, ProofParams
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket.protocol.transactions.build import Timestamp
from pocket.protocol.transactions.decode import decode_tx
from pocket.redis_store.seals import SessionSeal
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.storage.audit import Audit
from pocket_miner.submission.fees import FeeTracker
from pocket_miner.submission.proofs import ProofSubmitter
from pocket_miner.submission.sender import SendError
from transaction_nodes import PRICE, TransactionNode, sender_to
from world import address

SUPPLIER = address("alice")
PARAMS = SharedParams()
OPEN, CLOSE = PARAMS.windows(1).proof_open, PARAMS.windows(1).proof_close
FEE = 1000
PROOF = ProofParams(1.0, 0, 10**6, FEE)


def block(height=OPEN):
    return Block(height, bytes(32), Timestamp.of_nanoseconds(10**18 + height))


def tracked(name):
    made = TrackedSession(SessionHeader(address("app"), "eth", name, 1, 10), params=PARAMS)
    made.seal = SessionSeal(name, name.encode().ljust(48, b"\0"), bytes(32), 13, 1)
    return made


@dataclass
class Chain(TransactionNode):
    """A node that refuses the proofs of some sessions when it simulates or takes them, and shows these claims."""

    unproven: set = field(default_factory=set)
    block_height: int = OPEN + 1
    gas: int = 400_000

    async def simulate(self, raw):
        for index, name in enumerate(decode_tx(raw).proofs):
            if name in self.unproven:
                raise ChainQueryRejected(f"failed to execute message; message index: {index}: proof not required")
        return await super().simulate(raw)


@dataclass
class Parts:
    """Tries, seeds and Redis: proofs of a few bytes, of the seed block, shared with the next owner."""

    shared: list = field(default_factory=list)
    supplier: str = SUPPLIER

    async def proof(self, file, supplier, session_id, path, sealed):
        return sealed, b"proof of " + session_id.encode()

    def path(self, end):
        return Path(f"end-{end}")

    async def hash_of(self, height, now):
        return b"\x05" * 32, True

    async def signed(self, end, what):
        return []

    async def share_signed(self, end, what, group):
        self.shared.append((end, what, group.tx_raw))

    async def share_costs(self, *_):
        return


@pytest.fixture
def audit(tmp_path):
    with closing(Audit(tmp_path / "audit.sqlite")) as made:
        yield made


def submitter(audit, chain, parts=None, **options):
    parts, fees = parts or Parts(), FeeTracker(PRICE, audit)
    sender = sender_to(chain)
    return ProofSubmitter(SUPPLIER, None, None, parts, parts, sender, fees, parts, seeds=parts, **options)


def proven(chain):
    return [list(decode_tx(raw).proofs) for raw in chain.sent]


@pytest.mark.parametrize(("largest", "together"), [(2**20, [4]), (2800, [3, 1]), (100, [1] * 4)])
async def test_proofs_are_sent_in_transactions_of_bounded_size_and_are_found_by_the_next_process(
    audit, largest, together
):
    rows, chain, parts = [tracked(f"s{number}") for number in range(4)], Chain(), Parts()
    made = submitter(audit, chain, parts, max_transaction_bytes=largest)
    await made.prove(rows, block(), PROOF)
    assert [len(names) for names in proven(chain)] == together
    assert sorted(name for names in proven(chain) for name in names) == [row.session_id for row in rows]
    assert parts.shared == [(10, "proof", raw) for raw in chain.sent]
    assert sorted(group.tx_raw for group in audit.signed(SUPPLIER, 10, "proof")) == sorted(chain.sent)
    assert [group.tx_raw for group in made.signed[SUPPLIER, 10]] == chain.sent
    for raw in chain.sent:
        body = tx_pb.TxBody.FromString(tx_pb.TxRaw.FromString(raw).body_bytes)
        assert body.timeout_height == CLOSE, "a block after the window would take its fee"
        transaction = decode_tx(raw)
        for name in transaction.proofs:
            share = transaction.fee_upokt / len(transaction.proofs)
            assert share + FEE - 1 < audit.spent(SUPPLIER, name) < share + FEE + 1
    assert all(row.proof.sent.raw in chain.sent and row.proof.sent.accepted for row in rows)
    await made.prove(rows, block(), PROOF)
    assert len(chain.sent) == len(together), "the next block may include them"
    await made.prove(rows, block(OPEN + 1), PROOF)
    assert chain.sent[len(together) :] == chain.sent[: len(together)], "the same bytes, which cost no second fee"


async def test_a_proof_that_the_chain_refuses_by_name_is_left_out_and_told(audit):
    rows, chain = [tracked(name) for name in "abc"], Chain(unproven={"b"})
    await submitter(audit, chain).prove(rows, block(), PROOF)
    assert proven(chain) == [["a", "c"]]
    assert [bool(row.details.proof_refusal) for row in rows] == [False, True, False]
    assert [row.proof.sent is None for row in rows] == [False, True, False]
    chain.unproven.add("d")
    only = [tracked("b"), tracked("d")]
    await submitter(audit, chain).prove(only, block(), PROOF)
    assert len(chain.sent) == 1, "nothing is signed for none"


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_proofs_of_a_group_that_failed_are_each_sent_alone_unless_the_chain_shows_them(audit, number):
    rows, chain = [tracked(f"s{position}") for position in range(number)], Chain()
    made = submitter(audit, chain)
    await made.prove(rows, block(), PROOF)
    chain.results = {decode_tx(raw).tx_hash: 1100 for raw in chain.sent}
    first = tracked("s0")
    chain.claims = [Claim(SUPPLIER, first.header, first.seal.root, VALIDATED)]
    chain.sent.clear()
    await made.prove(rows, block(OPEN + 1), PROOF)
    assert sorted(proven(chain)) == [[row.session_id] for row in rows[1:]]
    assert [row.proof.attempts.alone for row in rows[1:]] == [True] * (number - 1)
    assert [row.proof.attempts.number for row in rows[1:]] == [1] * (number - 1)


@pytest.mark.parametrize("old", ["taken", "refused"])
@pytest.mark.parametrize("new", ["taken", "refused"])
async def test_a_refusal_is_told_and_keeps_no_other_proof_back(audit, old, new):
    first, second, chain = tracked("a"), tracked("b"), Chain()
    made = submitter(audit, chain)
    await made.prove([first], block(), PROOF)
    chain.sent.clear()
    chain.refused = {name for name, result in (("a", old), ("b", new)) if result == "refused"}
    with pytest.raises(SendError) if chain.refused else contextlib.nullcontext():
        await made.prove([first, second], block(OPEN + 1), PROOF)
    assert sorted({name for names in proven(chain) for name in names}) == ["a", "b"]
    assert [bool(row.details.proof_refusal) for row in (first, second)] == [old == "refused", new == "refused"]
    assert audit.spent(SUPPLIER, "b") == 0 or new == "taken", "what is refused costs nothing"
