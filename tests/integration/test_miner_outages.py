"""Outages on the money path: nodes, Redis, volume, processes; block by block against a localnet.

Windows of these worlds: sessions of 10 blocks, claims in 12…16, proofs in 16…20, settlement in 20.
"""

import asyncio
import os
import re
import sqlite3
from pathlib import Path

import pytest

from ledger.connection import connect
from ledger.keys import Keys
from localnet.server import serve
from mine import slow_root, waits_as_a_large_session
from miner.trie_pool import TriePool, TrieWorkFailed
from shannon.chain.client import ChainClient
from shannon.chain.nodes import NodeAddress
from shannon.errors import ChainUnavailable
from shannon.smst.digest import Root

pytestmark = pytest.mark.redis
WALL_CLOCK = re.compile(r"time\.time\b|time_ns\b|datetime\.now|utcnow|wall_|platform\.now")


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


async def test_without_redis_the_mirrored_relays_are_sealed_before_the_window_closes(alice, redis):
    header = alice.header()
    rows = alice.relays(header, 3)
    await alice.record(rows)
    await alice.to(12)
    miner = alice.miner
    away = connect("redis://127.0.0.1:1/0")
    for part in (miner.store, miner.tailer._tail):
        part._redis = away
    proof = await alice.client.proof_params()
    for height in (13, 14, 15, 16):
        alice.skip(height)
        await miner.on_block(await alice.comet.block(), proof)
    assert alice.claim(header).root_hash == slow_root(rows)
    for part in (miner.store, miner.tailer._tail):
        part._redis = redis
    await away.aclose()
    alice.start()
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"


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


def test_no_module_that_decides_or_signs_reads_the_wall_clock():
    """So a clock that is wrong costs nothing: windows are heights, and timeouts are anchored on block time."""
    root = Path(__file__).parents[2] / "workloads"
    folders = [root / "miner/src/miner", *(root / "shannon/src/shannon" / name for name in ("transactions", "claims"))]
    readers = {
        path.name: [line.strip() for line in path.read_text().splitlines() if WALL_CLOCK.search(line)]
        for folder in folders
        for path in folder.rglob("*.py")
    }
    assert {name for name, lines in readers.items() if lines} == {"process.py", "ownership.py", "suppliers.py"}
    # To forget what nobody asked for lately, to tell that the clock is wrong or a certificate ends, to look at the ages
    # of files, and to write into Leases what nobody compares.
    told = ("CacheRefresher", "ChainNotes", "Endpoints(", "wall_clock=", "wall=platform.now", "KeyFolder")
    lines = [line for name in ("process.py", "ownership.py", "suppliers.py") for line in readers[name]]
    assert all(any(name in line for name in told) for line in lines)


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
    tailer = alice.miner.tailer
    session = alice.miner.sessions[header.session_id]
    session.position = "0-0"
    store = tailer._store

    def interrupted(*arguments):
        store(*arguments)
        tailer.reread()

    tailer._store = interrupted
    await tailer.tail_once()
    assert session.position == "0-0"
    tailer._store = store
    await tailer.tail_once()
    assert session.position != "0-0"
    assert alice.mirror.file(10).count(alice.supplier, header.session_id) == 6


async def test_concurrent_readers_never_move_a_position_back(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 30))
    await alice.miner.tailer.discover({})
    await asyncio.gather(*(alice.miner.tailer.tail_once(count=7) for _ in range(8)))
    last = (await alice.redis.xrevrange(Keys("test").stream(alice.supplier, header.session_id), count=1))[0][0]
    assert alice.miner.sessions[header.session_id].position == last.decode()


async def test_relays_of_a_session_that_was_finished_meanwhile_are_dropped_quietly(alice):
    header = alice.header()
    rows = alice.relays(header, 2)
    await alice.record(rows)
    await alice.to(21)
    file = alice.mirror.file(10)
    assert file.store(alice.supplier, header.session_id, [], 0, "1-1", "x") == 0


async def test_a_full_volume_stops_no_claim(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(11)
    desk, keep = alice.miner.claims, alice.audit.keep_seals

    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    desk.audit.keep_seals = full
    await alice.to(14)
    assert alice.claim(header) is not None
    desk.audit.keep_seals = keep
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


async def test_a_large_session_that_is_being_computed_delays_no_small_one(alice, tmp_path):
    header = alice.header()
    rows = alice.relays(header, 9)
    await alice.record(rows)
    await alice.to(9)
    pool, gate = TriePool(small_leaves=8), tmp_path / "gate"
    os.mkfifo(gate)
    try:
        large = asyncio.create_task(pool._run(waits_as_a_large_session, str(gate)))
        path = alice.miner.mirror.path(header.session_end_block_height)
        bigger = asyncio.create_task(pool.root(path, alice.supplier, header.session_id))
        await asyncio.sleep(0)
        pool._most = 9
        small = await asyncio.wait_for(pool.root(path, alice.supplier, header.session_id), 30)
        assert small.root == slow_root(rows)
        assert not bigger.done()
        await asyncio.to_thread(gate.write_text, "go on")
        assert await large == "go on"
        assert (await bigger).root == small.root
    finally:
        pool.close()
