"""What an owner does only once it is sure, and what it makes up for once Redis is there again."""

import contextlib

import pytest

from mine import slow_root
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.store_errors import RedisUnavailable, StaleEpoch

pytestmark = pytest.mark.redis
KEYS = RedisKeys("test")


async def away(*_, **__):
    raise RedisUnavailable("Redis is away")


@contextlib.contextmanager
def unreachable(monkeypatch, store, *names):
    """Let calls about seals fail, as while connections break, without a restart of Redis."""
    with monkeypatch.context() as patch:
        for name in names or ("close", "load", "seal", "fence", "advance_cutoff", "check_fence", "restore"):
            patch.setattr(type(store), name, away)
        yield


async def decided(alice, height):
    """Let the miner decide a block without reading streams."""
    alice.skip(height)
    return await alice.miner.on_block(await alice.comet.block(), await alice.client.proof_params())


async def test_without_redis_nothing_is_sealed_once_the_lease_is_anothers(alice, monkeypatch):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(12)

    async def lost():
        raise StaleEpoch("shard 0 is not ours", 9)

    alice.miner.confirm = lost
    with unreachable(monkeypatch, alice.miner.store):
        for height in (13, 14):
            await decided(alice, height)
        with pytest.raises(StaleEpoch):
            await decided(alice, 15)
    assert alice.miner.sessions[header.session_id].seal is None
    assert alice.claim(header) is None


async def test_seals_that_were_made_without_redis_are_there_at_the_next_block_that_reaches_it(alice, monkeypatch):
    header = alice.header()
    rows = alice.relays(header, 3)
    await alice.record(rows)
    await alice.to(12)
    with unreachable(monkeypatch, alice.miner.store):
        for height in (13, 14, 15):
            await decided(alice, height)
    seal = alice.miner.sessions[header.session_id].seal
    assert seal.root == slow_root(rows)
    assert await alice.miner.store.load() == {}
    with unreachable(monkeypatch, alice.miner.store, "load"):
        await decided(alice, 16)  # the attempt that fails leaves it due
    await decided(alice, 17)
    assert await alice.miner.store.load() == {header.session_id: seal}
    assert await alice.redis.hexists(KEYS.closed(alice.supplier), header.session_id), "and takes no more relays"


async def test_a_session_that_ended_and_is_registered_again_leaves_redis_again(alice):
    header = alice.header()
    rows = alice.relays(header, 3)
    await alice.record(rows)
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"
    await alice.redis.flushall()
    await alice.record(rows)  # a relayer appends its log to the emptied Redis
    await alice.block()
    stream = KEYS.stream(alice.supplier, header.session_id)
    assert not await alice.redis.exists(stream, KEYS.sessions(alice.supplier))
    assert await alice.redis.hget(KEYS.closed(alice.supplier), header.session_id) == b"done/10"


async def test_what_is_sealed_is_proven_whatever_fails_between_the_miner_and_redis(alice, monkeypatch):
    header = alice.header()
    await alice.record(alice.relays(header, 4))
    await alice.to(15)

    async def broken(*_):
        raise ArithmeticError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(alice.miner.store, "fence", broken)
        alice.miner.on_redis_restarted()
        for height in range(16, 20):
            await decided(alice, height)
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"


@pytest.mark.parametrize("left", [0, 1, 2])
async def test_a_session_is_sealed_though_its_stream_lost_entries_that_were_read(alice, left):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(10)
    stream = KEYS.stream(alice.supplier, header.session_id)
    ids = [entry for entry, _ in await alice.redis.xrange(stream)]
    await alice.redis.xdel(stream, *ids[left:])
    await alice.to(15)
    assert alice.miner.sessions[header.session_id].seal is not None
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["details"]["relays"] == 3
