"""Damaged values among a supplier's rows in Redis: they cost neither a claim nor a proof of any session."""

from datetime import UTC, datetime

import pytest

from mine import PREFIX, mine
from pocket.coordination.elector import LeaseRecord
from pocket.coordination.stores.lease_store import LeaseConflict, StoredLease
from pocket.protocol.pb import pocket_service_pb2 as service_pb
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.redis_leases import RedisLeaseStore
from pocket.redis_store.seals import SealStore, SignedGroup
from pocket_localnet import grpc_server
from pocket_miner.ingest.consume_rounds import Check
from pocket_miner.submission.proofs import ProofSubmitter
from pocket_miner.suppliers.factory import SupplierFactory
from world import World

pytestmark = pytest.mark.redis
KEYS = RedisKeys(PREFIX)
DAMAGE = {
    "a tombstone without a height": ("closed", b"\xff", b"done/"),
    "a tombstone with another text": ("closed", b"one", b"done/x"),
    "a transaction of no session end": ("transactions", b"\xff/claim", b"{}"),
    "a transaction that is no JSON": ("transactions", b"10/claim/x", b"\x00"),
    "a proof that is no JSON": ("transactions", b"10/proof/x", b"[]"),
    "a seal that is no JSON": ("seals", b"two", b"null"),
    "a header that is none": ("sessions", b"three", b"\xff\xff"),
    "a position of no stream": ("replicated", b"four", b"x"),
}


async def test_damaged_rows_cost_no_claim_and_no_proof(alice, redis):
    """Put all of them at once: each one alone would stop its supplier for good."""
    first = alice.header()
    await alice.record(alice.relays(first, 3))
    await alice.to(9)
    for name, field, value in DAMAGE.values():
        await redis.hset(getattr(KEYS, name)(alice.supplier), field, value)
    await redis.hset(KEYS.sessions(alice.supplier), b"five", first.encode())  # the header of another session
    await alice.to(12)
    second = alice.header()
    await alice.record(alice.relays(second, 3))
    await alice.to(31)
    assert {i: row["outcome"] for i, row in alice.outcomes().items()} == {
        first.session_id: "settled", second.session_id: "settled",
    }  # fmt: skip
    assert not alice.miner.concluder._to_drop, "what has ended is deleted"
    assert await alice.miner.consumer.poll(Check.IDS) is not None, "it is not looked for for ever"


async def test_one_signed_transaction_that_cannot_be_read_hides_no_other(redis):
    store, good = SealStore(redis, KEYS, "supplier", 1), SignedGroup(b"tx", 5, 12)
    await redis.hset(KEYS.transactions("supplier"), mapping={"10/claim/a": b"\x00", "10/claim/b": good.encode()})
    assert await store.signed(10) == [good]


async def test_a_fence_that_is_no_number_costs_no_claim_that_is_sealed(alice, redis):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    alice.chain.faults.evict = 1
    await alice.to(13)
    await redis.set(KEYS.fence(alice.supplier), b"x")
    for height in range(14, 21):
        alice.skip(height)
        await alice.miner.on_block(await alice.comet.block(), await alice.client.proof_params())
    await redis.delete(KEYS.fence(alice.supplier))
    alice.start()
    await alice.to(22)
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"


async def test_a_fence_that_is_no_number_keeps_no_shard_from_being_taken(redis):
    await redis.set(KEYS.fence("one"), b"x")
    await redis.set(KEYS.fence("two"), b"7")
    factory = object.__new__(SupplierFactory)
    factory.redis, factory.keys = redis, KEYS
    assert await factory.highest_fence(["one", "two", "three"]) == 7


async def test_a_lease_that_another_member_wrote_meanwhile_is_not_overwritten(redis):
    store, other = (RedisLeaseStore(redis, "leases", call_seconds=5.0) for _ in range(2))
    now = datetime.now(UTC)
    ours, theirs = (LeaseRecord(name, 15, now, now, 1) for name in ("ours", "theirs"))
    for known in (None, await store.write("lease", ours, None)):
        if known is not None:
            await other.write("lease", theirs, known)
        with pytest.raises(LeaseConflict):
            await store.write("lease", ours, known)
    assert {name: lease.record for name, lease in (await store.read()).items()} == {"lease": theirs}


async def test_lease_records_that_cannot_be_read_end_no_member(redis):
    store = RedisLeaseStore(redis, "leases", call_seconds=5.0)
    now = datetime.now(UTC)
    await redis.hset("leases", mapping={b"\xff": b"\xff", "one": b"null"})
    assert isinstance(await store.write("two", LeaseRecord("me", 15, now, now, 1), None), StoredLease)
    found = await store.read()
    assert (found["two"].record.holder, found["one"].record.holder) == ("me", "")


@pytest.mark.parametrize("damage", ["an entry of another kind", "a key of another type"])
async def test_a_stream_that_cannot_be_read_costs_no_other_session_its_claim(redis, tmp_path, damage):
    async with mine(redis, tmp_path, World(services=("eth", "base"))) as alice:
        good, bad = alice.header(service="eth"), alice.header(service="base")
        for header in (good, bad):
            await alice.record(alice.relays(header, 3))
        stream = KEYS.stream(alice.supplier, bad.session_id)
        if damage == "an entry of another kind":
            await redis.xadd(stream, {"x": "y"})
        else:
            await redis.delete(stream)
            await redis.set(stream, "x")
        await alice.to(24)
        outcome = alice.outcomes()[good.session_id]
        assert (outcome["outcome"], outcome["details"]["relays"]) == ("settled", 3)
        if damage == "an entry of another kind":
            assert alice.outcomes()[bad.session_id]["outcome"] == "settled"


async def test_compute_units_beyond_any_integer_of_the_volume_stop_no_supplier(alice, monkeypatch):
    real, asked = grpc_server.answer, []

    def answer(chain, method, request, height_text="0"):
        if method.endswith("ComputeUnitsPerRelayAtHeight") and not asked:
            asked.append(method)
            response = service_pb.QueryComputeUnitsPerRelayAtHeightResponse(computeUnitsPerRelay=2**63)
            return response.SerializeToString(), chain.height
        return real(chain, method, request, height_text)

    monkeypatch.setattr(grpc_server, "answer", answer)
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(22)
    assert asked
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"


async def test_an_unforeseen_error_ends_a_step_and_not_the_supplier(alice, monkeypatch):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(12)
    real, failures = ProofSubmitter.decide, [OverflowError("too large"), AttributeError("x"), RuntimeError("y")]

    async def failing(*arguments):
        if failures:
            raise failures.pop()
        await real(*arguments)

    monkeypatch.setattr(ProofSubmitter, "decide", failing)
    await alice.to(22)
    assert not failures
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"
