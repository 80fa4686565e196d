"""Outages on the money path, block by block against a localnet: nodes, Redis, volume, processes.

Windows of these worlds: sessions of 10 blocks, claims in 12…16, proofs in 16…20, settlement in 20.
"""

import asyncio
import contextlib
import os
import sqlite3
import sys
import time

import pytest

from mine import mine, slow_root, waits_as_a_large_session
from pocket.chain.client import ChainClient
from pocket.chain.failover import NodeAddress
from pocket.errors import ChainUnavailable
from pocket.protocol.smst.digest import Root
from pocket.redis_store.connection import connect
from pocket.redis_store.redis_keys import RedisKeys
from pocket_localnet.server import serve
from pocket_miner.storage.trie_pool import TriePool, TrieWorkFailed

pytestmark = pytest.mark.redis


async def test_an_evicted_claim_is_sent_again_with_the_same_root(alice):
    header = alice.header()
    rows = alice.relays(header, 4)
    await alice.record(rows)
    alice.chain.faults.evict = 1
    await alice.to(16)
    assert alice.claim(header).root_hash == slow_root(rows)


async def test_an_evicted_proof_is_sent_again(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 4))
    await alice.to(15)
    alice.chain.faults.evict = 1
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"


@pytest.mark.parametrize(
    "refusal",
    [
        (18, "sdk", "failed to add unordered nonce: sender x has already used timeout 1: invalid request"),
        (4, "sdk", "signature verification failed; please verify account number (0) and chain-id (pocket)"),
        (20, "sdk", "mempool is full"),
        (13, "sdk", "insufficient fees; got:  required: 1upokt: insufficient fee"),
    ],
)
async def test_a_refused_broadcast_is_repaired_within_the_window(alice, refusal):
    header = alice.header()
    await alice.record(alice.relays(header, 4))
    alice.chain.faults.refuse.append(refusal)
    await alice.to(16)
    assert Root(alice.claim(header).root_hash).count == 4
    alice.chain.faults.refuse.append(refusal)
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"


async def test_a_held_up_chain_still_gets_the_claim_in_time(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 4))
    await alice.to(12)
    alice.chain.faults.hold_blocks = 2
    await alice.to(16)
    assert alice.claim(header) is not None


async def test_sealing_waits_after_a_redis_restart_but_only_for_half_of_the_window(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    alice.settled = False
    await alice.to(13)
    assert alice.miner.sessions[header.session_id].seal is None
    await alice.to(14)
    assert alice.miner.sessions[header.session_id].seal is not None
    await alice.to(16)
    assert alice.claim(header) is not None


@contextlib.asynccontextmanager
async def without_redis(miner, redis):
    """Take Redis away from a miner."""
    parts, away = (miner.store, miner.consumer._tail), connect("redis://127.0.0.1:1/0")
    for part in parts:
        part._redis = away
    try:
        yield
    finally:
        for part in parts:
            part._redis = redis
        await away.aclose()


async def test_without_redis_the_mirrored_relays_are_sealed_before_the_window_closes(alice, redis):
    header = alice.header()
    rows = alice.relays(header, 3)
    await alice.record(rows)
    await alice.to(12)
    miner = alice.miner
    proof = await alice.client.proof_params()
    async with without_redis(miner, redis):
        for height in (13, 14, 15, 16):
            alice.skip(height)
            await miner.on_block(await alice.comet.block(), proof)
    assert alice.claim(header).root_hash == slow_root(rows)
    alice.start()
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"


async def test_without_redis_nothing_is_claimed_whose_seal_the_volume_did_not_take(alice, redis):
    """A later owner would know of no seal, and could send another root."""
    header = await alice.recorded(3)
    await alice.to(12)
    fill_up(alice.audit._database)
    proof = await alice.client.proof_params()
    async with without_redis(alice.miner, redis):
        for height in (13, 14, 15, 16):
            alice.skip(height)
            await alice.miner.on_block(await alice.comet.block(), proof)
    assert alice.audit.seals(alice.supplier) == {}
    assert alice.claim(header) is None


async def test_an_unreachable_node_changes_nothing_and_is_survived(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(12)
    desk = alice.miner.claims
    working = desk.sender._chain
    async with ChainClient([NodeAddress.parse("127.0.0.1:1", "http://127.0.0.1:1")], timeout_seconds=0.2) as dead:
        desk.sender._chain = dead
        alice.miner.chain = dead
        await alice.block()
        assert alice.claim(header) is None
        with pytest.raises(ChainUnavailable):
            await dead.proof_params()
    desk.sender._chain = working
    alice.miner.chain = working
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"


async def test_a_lagging_node_delays_but_does_not_lose(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(11)
    alice.chain.faults.lag_blocks = 1
    await alice.to(18)
    alice.chain.faults.lag_blocks = 0
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"


@pytest.mark.parametrize("burst", [2, 3])
@pytest.mark.parametrize("first", [9, 10, 11, 12])
async def test_blocks_that_come_in_bursts_cost_no_window(alice, first, burst):
    header = alice.header()
    rows = alice.relays(header, 4)
    await alice.record(rows)
    await alice.to(first)
    while alice.chain.height < 22:
        alice.skip(min(22, alice.chain.height + burst))
        await alice.decide()
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"


def shifted(clock, by):
    """Return a clock that is shifted for our own modules.

    Libraries compare their times with the system's clock.
    """
    ours = ("pocket", "pocket_miner")

    def read():
        return clock() + by * (sys._getframe(1).f_globals["__name__"].partition(".")[0] in ours)

    return read


@pytest.mark.parametrize("years", [-50, 50])
async def test_a_wrong_wall_clock_changes_no_byte_of_what_is_sent(redis, tmp_path, monkeypatch, years):
    """Windows are heights, and timeouts are anchored on block time."""
    sent = []
    for offset, folder in ((0, tmp_path / "right"), (years * 31_557_600, tmp_path / "wrong")):
        await redis.flushall()
        with monkeypatch.context() as clocks:
            clocks.setattr(time, "time", shifted(time.time, offset))
            clocks.setattr(time, "time_ns", shifted(time.time_ns, offset * 1_000_000_000))
            async with mine(redis, folder) as alice:
                header = alice.header()
                await alice.record(alice.relays(header, 5))
                await alice.to(21)
                assert alice.outcomes()[header.session_id]["outcome"] == "settled"
                sent.append([t.raw for block in alice.chain.blocks.values() for t in block.transactions])
    assert len(sent[0]) == 2
    assert sent[0] == sent[1]


async def test_a_node_that_is_lost_when_the_window_opens_is_replaced_by_the_next_one(alice, redis, tmp_path):
    header = alice.header()
    rows = alice.relays(header, 4)
    await alice.record(rows)
    await alice.to(12)
    async with serve(alice.chain) as other:
        await alice.client.close()
        nodes = [NodeAddress.parse("grpc://127.0.0.1:1", "http://127.0.0.1:1")]
        nodes.append(NodeAddress.parse(other.grpc_url, other.rpc_url))
        alice.client = ChainClient(nodes, 1.0)
        alice.start()
        await alice.to(16)
        assert alice.claim(header).root_hash == slow_root(rows)
        await alice.to(22)
        assert alice.outcomes()[header.session_id]["outcome"] == "settled"
        await alice.client.close()


async def test_a_reread_in_mid_flight_is_not_undone_by_what_was_read_before_it(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 6))
    await alice.miner.tail()
    consumer = alice.miner.consumer
    session = alice.miner.sessions[header.session_id]
    session.position = "0-0"
    validate = consumer.validate

    def interrupted(read):
        consumer.reread()
        return validate(read)

    consumer.validate = interrupted
    await consumer.consume_once()
    assert session.position == "0-0"
    consumer.validate = validate
    await consumer.consume_once()
    assert session.position != "0-0"
    assert alice.relay_store.file(10).count(alice.supplier, header.session_id) == 6


async def test_concurrent_readers_never_move_a_position_back(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 30))
    await alice.miner.consumer.discover({})
    await asyncio.gather(*(alice.miner.consumer.consume_once(count=7) for _ in range(8)))
    last = (await alice.redis.xrevrange(RedisKeys("test").stream(alice.supplier, header.session_id), count=1))[0][0]
    assert alice.miner.sessions[header.session_id].position == last.decode()


async def test_relays_of_a_session_that_was_finished_meanwhile_are_dropped_quietly(alice):
    header = alice.header()
    rows = alice.relays(header, 2)
    await alice.record(rows)
    await alice.to(21)
    file = alice.relay_store.file(10)
    assert file.store(alice.supplier, header.session_id, [], 0, "1-1", "x") == 0


def fill_up(database):
    """Leaves no byte for a seal."""
    database.execute(f"PRAGMA max_page_count={database.execute('PRAGMA page_count').fetchone()[0]}")
    number = 0
    for size in (1000, 10):
        with contextlib.suppress(sqlite3.OperationalError):
            while True:
                number += 1
                database.execute("INSERT INTO seal VALUES ('filler', ?, 0, '', ?)", (str(number), "x" * size))


async def test_a_full_volume_stops_no_claim(alice):
    """SQLite itself says that there is no space for the seal."""
    header = alice.header()
    rows = alice.relays(header, 3)
    await alice.record(rows)
    await alice.to(11)
    database = alice.audit._database
    fill_up(database)
    await alice.to(14)
    assert alice.claim(header).root_hash == slow_root(rows)
    assert alice.audit.seals(alice.supplier) == {}, "the volume took no seal"
    database.execute("PRAGMA max_page_count=1073741823")
    database.execute("DELETE FROM seal WHERE supplier = 'filler'")
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"


async def test_a_dead_trie_process_is_replaced(alice):
    pool = TriePool()
    try:
        with pytest.raises(TrieWorkFailed):
            await pool._small.run(os._exit, 1)
        header = alice.header()
        await alice.record(alice.relays(header, 3))
        alice.miner.claims.pool = alice.miner.proofs.pool = pool
        await alice.to(21)
        assert alice.outcomes()[header.session_id]["outcome"] == "settled"
    finally:
        pool.close()


def runs_out_of_memory(_: int | None = None) -> None:
    raise MemoryError


async def test_a_trie_process_that_hangs_is_ended_and_one_that_raises_fails_its_own_call_only(tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    pool = TriePool(small_seconds=60)
    try:
        with pytest.raises(TrieWorkFailed, match="MemoryError"):
            await pool._small.run(runs_out_of_memory)
        (hung,) = pool._small._pool._processes.values()
        pool._small._seconds = 0.1
        with pytest.raises(TrieWorkFailed, match="was killed"):
            await pool._small.run(waits_as_a_large_session, str(gate))
        await asyncio.to_thread(hung.join)
        pool._small._seconds = 60
        assert await pool._small.run(len, "it works") == 8
    finally:
        pool.close()


async def test_a_large_session_that_is_being_computed_delays_no_small_one(alice, tmp_path):
    header = alice.header()
    rows = alice.relays(header, 9)
    await alice.record(rows)
    await alice.to(9)
    pool, gate = TriePool(small_leaves=8), tmp_path / "gate"
    os.mkfifo(gate)
    try:
        large = asyncio.create_task(pool._run(waits_as_a_large_session, str(gate)))
        path = alice.miner.relay_store.path(header.session_end_block_height)
        bigger = asyncio.create_task(pool.root(path, alice.supplier, header.session_id))
        await asyncio.sleep(0)
        pool._small_leaves = 9
        small = await asyncio.wait_for(pool.root(path, alice.supplier, header.session_id), 30)
        assert small.root == slow_root(rows)
        assert not bigger.done()
        await asyncio.to_thread(gate.write_text, "go on")
        assert await large == "go on"
        assert (await bigger).root == small.root
    finally:
        pool.close()
