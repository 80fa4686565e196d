"""Which sessions are sealed and claimed together, by what was read, what they earn and what the account can pay."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from example_counts import examples
from pocket.chain.model import Block
from pocket.errors import ChainUnavailable
from pocket.protocol.claims.proof_requirement import ProofParams, ProofRequirement
from pocket.protocol.claims.rewards import TokenomicsParams
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.relays.difficulty import BASE_TARGET
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket.protocol.transactions.build import Timestamp
from pocket.protocol.transactions.decode import decode_tx
from pocket.redis_store.seals import SessionSeal
from pocket.redis_store.store_errors import ConcurrentAppend, RedisStoreError, StaleEpoch
from pocket_miner.sessions.leaf_validation import LeafTerms
from pocket_miner.sessions.submission import Submission
from pocket_miner.sessions.tracked_session import Skip, TrackedSession
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.corruption import VolumeCorrupted
from pocket_miner.storage.disk_reserve import VolumeFull
from pocket_miner.storage.trie_pool import SealedSet
from pocket_miner.submission import claims as claims_module
from pocket_miner.submission.claims import ClaimSubmitter, SealSource
from pocket_miner.submission.fees import FeeTracker
from pocket_miner.submission.leaf_sets import VolumeFallback
from transaction_nodes import PRICE, TransactionNode, sender_to
from world import address

SUPPLIER, UNITS = address("alice"), 100
PARAMS = SharedParams(compute_units_to_tokens_multiplier=1, compute_unit_cost_granularity=1)
CLOSE = PARAMS.windows(1).claim_close
BLOCK = Block(13, bytes(32), Timestamp.of_nanoseconds(10**18))
CLAIM, PROOF = 130, 400
"""Fees in upokt of a claim and of a proof, by typical gas."""
EVERY, NONE = ProofParams(1.0, 0, 10**6, 0), ProofParams(0.0, 10**12, 10**6, 0)


def tracked(name, end=10):
    header = SessionHeader(address("app"), "eth", name, end - 9, end)
    made = TrackedSession(header, "7-0", params=PARAMS)
    made.terms = LeafTerms(SUPPLIER, header, BASE_TARGET, UNITS)
    return made


def root(name, relays, units=UNITS):
    return name.encode().ljust(32, b"\0") + (relays * units).to_bytes(8) + relays.to_bytes(8)


@dataclass
class Chain(TransactionNode):
    """A node that takes every transaction, of an account with this balance."""

    balance: int | None = 10**9
    share: float | None = 1.0
    shares: tuple = ()
    """What all nodes state of the supplier's share."""
    asked: int = 0

    async def balance_upokt(self, account_address):
        if self.balance is None:
            raise ChainUnavailable("away")
        return self.balance

    async def tokenomics_params(self):
        if self.share is None:
            raise ChainUnavailable("away")
        return TokenomicsParams(1.0, self.share)

    async def decoded_by_node(self, method, *_):
        if "bank" in method:
            return {"node": self.balance}
        self.asked += 1
        return {f"node {share}": TokenomicsParams(1.0, share) for share in self.shares}


@dataclass
class World:
    """The streams, tries and seals of some sessions: `relays` by their names."""

    relays: dict
    last_ids: dict = field(default_factory=dict)
    error: Exception | None = None
    unread: Exception | None = None
    did: list = field(default_factory=list)
    found: dict = field(default_factory=dict)
    supplier: str = SUPPLIER
    epoch: int = 4

    # Redis.

    async def close(self, sessions, history=""):
        self.did.append(("close", dict(sessions), history))
        return {name: self.last_ids.get(name, "7-0") for name in sessions}

    async def seal(self, seals, last_ids, group, signed):
        if self.error is not None:
            raise self.error
        self.did.append(("seal", [row.session_id for row in seals], group))
        assert all(last_ids[row.session_id] == self.last_ids.get(row.session_id, "7-0") for row in seals)
        assert {(row.height, row.epoch) for row in seals} == {(BLOCK.height, self.epoch)}
        self.found |= {row.session_id: (row.root, signed) for row in seals}

    async def load(self):
        self.did.append("load")
        return {}

    async def restore(self, *_):
        return

    async def share_costs(self, *_):
        return

    # Streams.

    async def register_missing(self, sessions):
        self.did.append("register")

    async def consume_once(self):
        self.did.append("consume")
        if self.unread is not None:
            raise self.unread
        return 0

    def reread(self, names):
        self.did.append(("reread", list(names)))

    # Tries.

    def path(self, end):
        return Path(f"end-{end}")

    async def root(self, path, supplier, session_id, known=b""):
        assert path == Path("end-10")
        relays, units = self.relays[session_id], UNITS
        if isinstance(relays, tuple):
            relays, units = relays
        return SealedSet(root(session_id, relays, units), bytes(32), relays)


@pytest.fixture(scope="module")
def audit(tmp_path_factory):
    with closing(Audit(tmp_path_factory.mktemp("claims") / "audit.sqlite")) as made:
        yield made


def submitter(audit, world, chain, **options):
    sender = sender_to(chain)
    return ClaimSubmitter(SUPPLIER, world, audit, world, world, sender, world, FeeTracker(PRICE, audit), **options)


def claimed(chain):
    return [list(decode_tx(raw).claims) for raw in chain.sent]


@pytest.mark.parametrize("source", SealSource)
@pytest.mark.parametrize(("largest", "together"), [(2**20, [4]), (2900, [3, 1]), (2400, [1] * 4), (100, [1] * 4)])
async def test_sessions_are_claimed_in_transactions_of_bounded_size_each_sealed_before_it_is_sent(
    tmp_path, source, largest, together
):
    world, chain = World({f"s{number}": 50 + number for number in range(4)}), Chain()
    sessions = [tracked(name) for name in world.relays]
    with closing(Audit(tmp_path / "audit.sqlite")) as audit:
        made = submitter(audit, world, chain, max_transaction_bytes=largest)
        await made.seal_and_claim(sessions, BLOCK, EVERY, source=source, history="h")
        kept = audit.seals(SUPPLIER)
        assert sorted(group.tx_raw for group in audit.signed(SUPPLIER, 10)) == sorted(chain.sent)
    assert [len(names) for names in claimed(chain)] == together
    assert sorted(name for names in claimed(chain) for name in names) == sorted(world.relays)
    assert all(len(raw) <= largest for raw in chain.sent) or largest == 100
    for raw in chain.sent:
        body = tx_pb.TxBody.FromString(tx_pb.TxRaw.FromString(raw).body_bytes)
        assert body.timeout_height == CLOSE, "a block after the window would take its fee"
    for row in sessions:
        expected = root(row.session_id, world.relays[row.session_id])
        assert (row.seal.root, row.seal.height, row.seal.epoch) == (expected, 13, 4)
        assert kept[row.session_id] == (10, row.seal)
        assert (row.claim.sent.raw in chain.sent, row.claim.sent.accepted) == (True, True)
    if source is SealSource.VOLUME:
        assert world.did == []
        return
    assert world.did[0] == ("close", dict.fromkeys(world.relays, 10), "h")
    groups = [call for call in world.did if call[0] == "seal"]
    assert [(names, f"10/claim/{names[0]}") for names in claimed(chain)] == [call[1:] for call in groups]
    for raw in chain.sent:
        assert {world.found[name][1].tx_raw for name in decode_tx(raw).claims} == {raw}


@pytest.mark.parametrize(
    ("relays", "share", "skip"),
    [
        (0, 1.0, Skip.EMPTY), ((10, 99), 1.0, Skip.UNITS_MISMATCH), ((10, 101), 1.0, Skip.UNITS_MISMATCH),
        (5, 1.0, Skip.UNPROFITABLE), (6, 1.0, None), (10, 0.5, Skip.UNPROFITABLE), (11, 0.5, None), (5, None, None),
    ],
)  # fmt: skip
async def test_a_session_is_claimed_unless_it_is_empty_adds_up_to_nothing_or_earns_no_more_than_its_fees(
    audit, relays, share, skip
):
    world, chain, row = World({"s": relays}), Chain(share=share), tracked("s")
    row.skip, row.details.reason = Skip.EMPTY, "of a former block"
    await submitter(audit, world, chain).seal_and_claim([row], BLOCK, NONE)
    assert (row.skip, claimed(chain)) == (skip, [] if skip else [["s"]])
    if skip is not Skip.UNPROFITABLE:
        assert row.details.reason == (skip.value if skip else None)


@pytest.mark.parametrize("missing", ["terms", "params"])
async def test_a_session_whose_terms_or_price_are_unknown_waits(audit, missing):
    world, chain, row = World({"s": 50, "t": 50}), Chain(), tracked("s")
    setattr(row, missing, None)
    await submitter(audit, world, chain).seal_and_claim([row, tracked("t")], BLOCK, NONE)
    assert (row.skip, row.seal, claimed(chain)) == (None, None, [["t"]])


@settings(max_examples=examples(15), deadline=None)
@given(
    st.lists(st.integers(6, 40), min_size=1, max_size=4), st.integers(0, 2600) | st.none(), st.booleans(),
    st.integers(0, 2),
)  # fmt: skip
async def test_what_the_balance_pays_is_claimed_by_what_it_earns_after_what_open_sessions_still_cost(
    audit, relays, balance, proofs, owed
):
    names = [f"s{number}" for number in range(len(relays))]
    world, chain = World(dict(zip(names, relays, strict=True))), Chain(balance=balance)
    sessions = [tracked(name) for name in names]
    others = {f"open{number}": tracked(f"open{number}") for number in range(owed)}
    for row in others.values():
        row.seal = SessionSeal(row.session_id, root(row.session_id, 50), bytes(32), 12, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claims_module, "largest_relay", lambda *_: 900)
        made = submitter(audit, world, chain, open_sessions={**others, **{row.session_id: row for row in sessions}})
        await made.seal_and_claim(sessions, BLOCK, EVERY if proofs else NONE)
    each, left = CLAIM + PROOF * proofs, None if balance is None else balance - owed * (CLAIM + PROOF)
    expected = []
    for name in sorted(names, key=lambda name: -world.relays[name]):
        if left is None or each <= left:
            expected.append(name)
            left = None if left is None else left - each
    assert sorted(name for names in claimed(chain) for name in names) == sorted(expected)
    for row in sessions:
        assert ("add funds" in (row.details.refusal or "")) is (row.session_id not in expected)
        assert (row.seal is not None) is (row.session_id in expected)


@pytest.mark.parametrize(
    ("sealed", "known", "proven", "requirement", "measured"),
    [
        (False, 0, False, None, True), (False, 500, False, None, True), (True, 0, False, None, True),
        (True, 500, False, None, False), (True, 0, True, None, False),
        (True, 0, False, ProofRequirement.NOT_REQUIRED, False), (False, 0, False, ProofRequirement.NOT_REQUIRED, False),
    ],
)  # fmt: skip
async def test_the_largest_relay_is_looked_up_where_a_proof_may_be_owed_until_no_more_relays_come(
    audit, monkeypatch, sealed, known, proven, requirement, measured
):
    looked = []
    monkeypatch.setattr(claims_module, "largest_relay", lambda *where: looked.append(where) or 900)
    row = tracked("s")
    row.largest_relay, row.requirement = known, requirement
    row.seal = SessionSeal("s", root("s", 50), bytes(32), 12, 1) if sealed else None
    row.proof.sent = Submission(b"raw", "hash", 16) if proven else None
    await submitter(audit, World({}), Chain(), open_sessions={"s": row})._measure_relays([row])
    assert looked == [(Path("end-10"), SUPPLIER, "s")] * measured
    assert row.largest_relay == (900 if measured else known)


@pytest.mark.parametrize(("late", "read"), [([], ["a", "b"]), (["a"], ["b"]), (["a", "b"], None)])
async def test_a_session_that_is_not_read_to_its_end_keeps_no_other_from_being_sealed(audit, late, read):
    world, chain = World({"a": 50, "b": 50}, dict.fromkeys(late, "9-0")), Chain()
    sessions = [tracked("a"), tracked("b")]
    made = submitter(audit, world, chain)
    if read is None:
        with pytest.raises(ConcurrentAppend):
            await made.seal_and_claim(sessions, BLOCK, EVERY)
    else:
        await made.seal_and_claim(sessions, BLOCK, EVERY)
    assert claimed(chain) == ([read] if read else [])
    assert world.did.count("consume") == (2 if late else 0), "a stream that has lost entries is read once more"
    assert world.did.count(("reread", late)) == (2 if late else 0)


async def test_a_stream_without_entries_is_read(audit):
    world, chain, row = World({"a": 50}, {"a": "0-0"}), Chain(), tracked("a")
    row.position = "5-0"
    await submitter(audit, world, chain).seal_and_claim([row], BLOCK, EVERY)
    assert claimed(chain) == [["a"]]
    assert "consume" not in world.did


@pytest.mark.parametrize(("error", "raised"), [
    (RedisStoreError("sealed already"), False), (StaleEpoch("another", 9), True), (ConcurrentAppend("grew"), True),
])  # fmt: skip
async def test_what_redis_does_not_seal_is_not_claimed(audit, error, raised):
    world, chain, row = World({"unsealed": 50}, error=error), Chain(), tracked("unsealed")
    made = submitter(audit, world, chain)
    if raised:
        with pytest.raises(type(error)):
            await made.seal_and_claim([row], BLOCK, EVERY)
    else:
        await made.seal_and_claim([row], BLOCK, EVERY)
        assert world.did[-1] == "load", "of whoever sealed it"
    assert (chain.sent, row.seal) == ([], None)


@pytest.mark.parametrize(("awaited", "claims"), [(VolumeFallback.RETRY, []), (VolumeFallback.COPY, [["a"]])])
async def test_peers_that_state_other_relays_are_awaited_early_in_the_window_alone(audit, awaited, claims):
    world, chain, row = World({"a": 50}), Chain(), tracked("a")
    row.other_seals = [SessionSeal("a", root("other", 7), bytes(32), 12, 1)]
    await submitter(audit, world, chain).seal_and_claim([row], BLOCK, EVERY, fallback=awaited)
    assert claimed(chain) == claims


@pytest.mark.parametrize(
    ("relays", "shares", "asked", "names"),
    [
        ([50, 50], (), 0, ["s0", "s1"]), ([50, 5], (), 1, ["s0"]), ([5, 5, 50], (), 1, ["s2"]),
        ([5, 5, 50], (0.5, 2.0), 1, ["s0", "s1", "s2"]), ([2, 5], (0.1,), 1, []),
    ],
)  # fmt: skip
async def test_before_a_session_is_left_out_every_node_is_asked_once_what_it_earns(audit, relays, shares, asked, names):
    world, chain = World({f"s{number}": row for number, row in enumerate(relays)}), Chain(shares=shares)
    await submitter(audit, world, chain).seal_and_claim([tracked(name) for name in world.relays], BLOCK, NONE)
    assert [name for group in claimed(chain) for name in group] == names
    assert chain.asked == asked


FULL, DAMAGED = sqlite3.OperationalError("full"), VolumeCorrupted("/volume")


@pytest.mark.parametrize("fallback", VolumeFallback)
@pytest.mark.parametrize("error", [VolumeFull("full"), FULL, DAMAGED])
async def test_a_volume_that_takes_no_relays_delays_a_claim_until_its_window_closes(audit, fallback, error):
    world, chain = World({"a": 50}, {"a": "9-0"}, unread=error), Chain()
    made = submitter(audit, world, chain)
    if fallback is VolumeFallback.RETRY or error is DAMAGED:
        with pytest.raises(type(error)):
            await made.seal_and_claim([tracked("a")], BLOCK, EVERY, fallback=fallback)
        assert chain.sent == []
        return
    await made.seal_and_claim([tracked("a")], BLOCK, EVERY, fallback=fallback)
    assert claimed(chain) == ([["a"]] if fallback is VolumeFallback.PARTIAL else []), "there are no copies here"
