"""What owners write about sessions in Redis: under their own epoch, once, and nothing of it outlives the session."""

import pytest

from pocket.redis_store.log_positions import append_arguments
from pocket.redis_store.lua_scripts import APPEND
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.seals import SealStore, SessionSeal, SignedGroup
from pocket.redis_store.store_errors import (
    ConcurrentAppend,
    FenceMissing,
    RedisStoreError,
    RedisUnavailable,
    StaleEpoch,
)
from pocket.redis_store.stream_reader import StreamReader
from pocket.redis_store.write_ahead_log import WalRecord

pytestmark = pytest.mark.redis
KEYS, SUPPLIER, END = RedisKeys("seals"), "pokt1a", 10
SESSIONS = {"ended": END, "other": END}
CLAIM, PROOF = SignedGroup(b"claims", 5, 12), SignedGroup(b"proofs", 6, 16)


def seal_of(session_id, byte=b"\x01"):
    return SessionSeal(session_id, byte * 48, bytes(32), 12, 2)


async def confirmed():
    return


async def owner(redis, epoch):
    store = SealStore(redis, KEYS, SUPPLIER, epoch)
    await store.fence(confirmed)
    return store


@pytest.fixture
async def store(redis):
    """Return the store of an owner that has sealed two sessions, with all that processes keep about them."""
    made = await owner(redis, 2)
    for session_id in SESSIONS:
        rows = [WalRecord(SUPPLIER, session_id, b"header", b"relay", END)]
        await APPEND.run(redis, *append_arguments(KEYS, SUPPLIER, {session_id: rows}, "life"))
        await redis.hset(KEYS.replicated(SUPPLIER), session_id, "life/1-1")
        for name in KEYS.spent(SUPPLIER, session_id):
            await redis.set(name, 1)
    await made.seal([seal_of(name) for name in SESSIONS], await made.close(SESSIONS), f"{END}/claim/ended", CLAIM)
    await made.share_signed(END, "proof", PROOF)
    await made.share_costs("hash", "claim", dict.fromkeys(SESSIONS, 1))
    return made


async def mentions(redis, session_id):
    """Return the keys, and fields of hashes, that name a session."""
    found = set()
    for key in await redis.keys():
        fields = await redis.hkeys(key) if await redis.type(key) == b"hash" else []
        found |= {(key.decode(), field) for field in fields if field == session_id.encode()}
        found |= {(key.decode(), None)} if session_id in key.decode() else set()
    return found


async def test_of_an_ended_session_its_tombstone_stays_and_of_others_everything(redis, store):
    before = await mentions(redis, "other")
    assert len(before) == len(await mentions(redis, "ended")) > 256, "marks, seals, streams, costs and budgets"
    await store.finish("ended", END)
    assert await mentions(redis, "ended") == {(KEYS.closed(SUPPLIER), b"ended")}
    assert await mentions(redis, "other") == before
    assert await StreamReader(redis, KEYS, SUPPLIER).finished(SESSIONS) == {"ended"}
    await store.close({"ended": END})
    assert await redis.hget(KEYS.closed(SUPPLIER), "ended") == b"done/10"


async def test_only_what_ended_before_a_height_is_forgotten(redis, store):
    await store.finish("ended", END)
    await store.forget_before(END)
    assert set(await redis.hkeys(KEYS.closed(SUPPLIER))) == {b"ended", b"other"}
    assert await store.signed(END) == [CLAIM]
    await store.forget_before(END + 1)
    assert await redis.hkeys(KEYS.closed(SUPPLIER)) == [b"other"], "it is not finished"
    assert await store.signed(END) == await store.signed(END, "proof") == []


async def test_what_was_signed_is_found_by_its_end_and_kind_and_costs_leave_by_themselves(redis, store):
    assert (await store.signed(END), await store.signed(END, "proof"), await store.signed(1)) == ([CLAIM], [PROOF], [])
    assert await store.costs("other") == {"hash": ("claim", 1)}
    assert 0 < await redis.ttl(KEYS.costs(SUPPLIER, "other")) <= 7 * 86400


async def test_a_damaged_cost_keeps_no_other_from_being_counted(redis, store):
    for number, text in enumerate(("claim/", "claim", "claim/x", "/", "proof/-1", "proof/9")):
        await redis.hset(KEYS.costs(SUPPLIER, "other"), f"hash {number}", text)
    assert await store.costs("other") == {"hash": ("claim", 1), "hash 5": ("proof", 9)}


async def test_of_a_group_with_a_session_that_is_sealed_already_none_is_sealed(redis, store):
    last_ids = await store.close({**SESSIONS, "new": END})
    await redis.hdel(KEYS.seals(SUPPLIER), "other")
    before = await store.load()
    with pytest.raises(RedisStoreError, match="sealed already"):
        await store.seal([seal_of(name, b"\x02") for name in last_ids], last_ids, "10/claim/again", CLAIM)
    assert await store.load() == before


async def test_a_session_is_sealed_with_its_last_entry_by_a_redis_that_was_read_in_its_present_life(redis, store):
    rows = [WalRecord(SUPPLIER, "new", b"header", b"relay %d" % number, 0) for number in range(3)]
    reply = await APPEND.run(redis, *append_arguments(KEYS, SUPPLIER, {"new": rows}, "life"))
    info = await redis.info()
    for history in (f"{info['run_id']}/{info['master_replid']}", "", "connections/1"):
        assert await store.close({"new": END, "none": END}, history) == {"new": reply[1].decode(), "none": "0-0"}
    with pytest.raises(ConcurrentAppend, match="failed over"):
        await store.close({"new": END}, "another/another")


async def test_a_fence_that_was_set_again_is_no_longer_doubted(redis):
    async def unreadable():
        raise RedisUnavailable("no Lease")

    store = await owner(redis, 2)
    store.doubt_fence()
    with pytest.raises(RedisUnavailable):
        await store.fence(unreadable)
    await store.fence(confirmed)
    await store.fence(unreadable)


async def test_a_seal_that_is_put_back_replaces_none(redis, store):
    kept = {"other": seal_of("other", b"\x02")}
    await store.restore(kept, SESSIONS)
    assert (await store.load())["other"] == seal_of("other")
    await redis.hdel(KEYS.seals(SUPPLIER), "other")
    await store.restore(kept, SESSIONS)
    assert (await store.load())["other"] == kept["other"]


def writes(store):
    return (
        lambda: store.close({"new": END}),
        lambda: store.seal([seal_of("new")], {"new": "0-0"}, "10/claim/new", CLAIM),
        lambda: store.finish("other", END),
        lambda: store.advance_cutoff(END, 20),
    )


async def test_no_write_is_taken_under_a_smaller_epoch_or_in_a_redis_that_knows_none(redis, store):
    await store.check_fence()
    successor = await owner(redis, 3)
    with pytest.raises(StaleEpoch):
        await store.check_fence()
    state = {key: await redis.dump(key) for key in await redis.keys()}
    for write in writes(store):
        with pytest.raises(StaleEpoch):
            await write()
    assert {key: await redis.dump(key) for key in await redis.keys()} == state
    await redis.flushall()
    for write in writes(successor):
        with pytest.raises(FenceMissing):
            await write()
    assert await redis.keys() == []


@pytest.mark.parametrize(("known", "cutoff"), [(None, 10), (5, 10), (12, 12), (10**9, 10)])
async def test_the_cutoff_falls_only_from_that_of_another_chain(redis, store, known, cutoff):
    if known is not None:
        await redis.set(KEYS.cutoff(SUPPLIER), known)
    assert await store.advance_cutoff(10, 20) == (known or 0, cutoff)
    assert int(await redis.get(KEYS.cutoff(SUPPLIER))) == cutoff


@pytest.mark.parametrize(("lost", "counts"), [(None, True), ("life", False), ("fence", False)])
async def test_while_the_lease_cannot_be_read_a_fence_counts_in_the_life_of_redis_in_which_it_was_written(
    redis, lost, counts
):
    store = await owner(redis, 2)

    async def unreadable():
        raise RedisUnavailable("no Lease")

    if lost == "life":
        await redis.delete(KEYS.incarnation(SUPPLIER))
    if lost == "fence":
        await redis.delete(KEYS.fence(SUPPLIER))
    if counts:
        await store.fence(unreadable)
        return
    with pytest.raises(RedisUnavailable):
        await store.fence(unreadable)


async def test_an_owner_that_was_confirmed_before_redis_lost_its_data_is_confirmed_again(redis):
    store, confirmed_in = SealStore(redis, KEYS, SUPPLIER, 2), []

    async def confirm():
        confirmed_in.append(await redis.get(KEYS.incarnation(SUPPLIER)))
        if len(confirmed_in) == 1:
            await redis.flushall()

    await store.fence(confirm)
    assert len(confirmed_in) == 2
    assert await redis.get(KEYS.incarnation(SUPPLIER)) == confirmed_in[1]
