"""What a miner tells of open sessions: a Supplier that is deleted waits for them, so none is ever left out."""

import pytest

from mine import mine
from pocket.chain.client import ChainClient
from pocket.chain.failover import NodeAddress
from pocket.protocol.claims.proof_requirement import ProofParams
from pocket.redis_store.connection import connect
from pocket.redis_store.store_errors import RedisUnavailable
from servers import running_redis

pytestmark = pytest.mark.redis
DEAD = NodeAddress.parse("grpc://127.0.0.1:1", "http://127.0.0.1:1")


async def test_a_session_is_open_from_its_first_relay_to_its_outcome(alice):
    assert alice.miner.last_scan_at is None
    await alice.decide()
    assert (alice.miner.report.open, alice.miner.last_scan_at is None) == (0, False)
    header = alice.header()
    await alice.record(alice.relays(header, 2))
    await alice.miner.tail()
    assert alice.miner.report.open == 1
    await alice.to(19)
    assert alice.miner.report.open == 1
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"
    assert alice.miner.report.open == 0


async def test_a_session_that_the_chain_cannot_tell_of_is_open(alice):
    await alice.record(alice.relays(alice.header(), 2))
    block = await alice.comet.block()
    async with ChainClient([DEAD], timeout_seconds=0.2) as alice.client:
        miner = alice.start()
        await miner.tail()
        assert miner.report.open == 1
        assert await miner.on_block(block, ProofParams()) == {}
        assert miner.report.open == 1


async def test_only_a_look_at_all_sessions_counts_as_one(alice):
    await alice.miner.tail()
    looked = alice.miner.last_scan_at
    for _ in range(3):
        await alice.miner.tail()
        assert alice.miner.last_scan_at == looked, "only the number of sessions was read"
    alice.miner.last_scan_at -= 3600
    await alice.miner.tail()
    assert alice.miner.last_scan_at > looked


async def test_a_miner_that_cannot_ask_redis_has_not_looked(tmp_path):
    with running_redis() as server:
        client = connect(server.url)
        async with mine(client, tmp_path) as alice:
            await alice.record(alice.relays(alice.header(), 2))
            await alice.miner.tail()
            looked = alice.miner.last_scan_at
            server.kill()
            with pytest.raises(RedisUnavailable):
                await alice.miner.tail()
            assert alice.miner.last_scan_at == looked
            successor = alice.start()
            with pytest.raises(RedisUnavailable):
                await successor.tail()
            assert successor.last_scan_at is None
        await client.aclose()
