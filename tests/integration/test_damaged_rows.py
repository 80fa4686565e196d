"""Damaged values among a supplier's rows in Redis: they cost neither a claim nor a proof of any session."""

import pytest

from mine import PREFIX
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.seals import SealStore, SignedGroup

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


@pytest.mark.parametrize("damage", DAMAGE)
async def test_damaged_rows_cost_no_claim_and_no_proof(alice, redis, damage):
    name, field, value = DAMAGE[damage]
    first = alice.header()
    await alice.record(alice.relays(first, 3))
    await alice.to(9)
    await redis.hset(getattr(KEYS, name)(alice.supplier), field, value)
    await alice.to(12)
    second = alice.header()
    await alice.record(alice.relays(second, 3))
    await alice.to(31)
    assert {i: row["outcome"] for i, row in alice.outcomes().items()} == {
        first.session_id: "settled", second.session_id: "settled",
    }  # fmt: skip
    assert not alice.miner.concluder._to_drop, "what has ended is deleted"


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
