"""A Redis that accepts connections and answers nothing, as after the loss of its machine, delays no decision."""

import asyncio
import contextlib
import signal
from types import SimpleNamespace

import pytest

from mine import mine
from pocket.chain.failover import NodeAddress
from pocket.chain_cache.cached_client import CachedChain
from pocket.redis_store.connection import connect
from pocket.redis_store.relay_recorder import RecorderLimits
from pocket.redis_store.store_client import _SERVER
from pocket.redis_store.store_errors import RedisUnavailable
from pocket_miner.ingest.relay_consumer import RelayConsumer
from pocket_miner.suppliers.latest_block import LatestBlock
from pocket_miner.suppliers.sealed_work import SealedWork
from recording import KEYS, publishing, record
from servers import running_redis
from world import World

pytestmark = pytest.mark.redis
PROVEN = {"proof_request_probability": 1.0, "proof_missing_penalty": 1_000_000}


@contextlib.contextmanager
def hanging(server):
    server.child.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.child.send_signal(signal.SIGCONT)


async def test_relays_in_the_queue_do_not_wait_for_one_timeout_after_the_other(tmp_path):
    limits = RecorderLimits(linger_seconds=0, batch=1, append_timeout_seconds=0.5, retry_seconds=0.02)
    with running_redis() as server:
        redis = connect(server.url, timeout_seconds=0.5)
        try:
            async with publishing(redis, tmp_path, limits) as publisher:
                await publisher.record(record(0))
                with hanging(server):
                    waiting = [publisher.submit(record(number)) for number in range(1, 100)]
                    async with asyncio.timeout(20):
                        ended = await asyncio.gather(*waiting, return_exceptions=True)
                assert {type(error) for error in ended} == {RedisUnavailable}
                assert publisher.suppliers_with_unacknowledged == {"pokt1s"}
        finally:
            await redis.aclose()


async def test_sessions_sealed_before_are_claimed_and_proven_with_no_wait_for_each_command(tmp_path):
    with running_redis() as server:
        redis = connect(server.url, timeout_seconds=60.0, clock=lambda: 100.0)
        try:
            async with mine(redis, tmp_path, World(), proof_params=PROVEN) as alice:
                header = alice.header()
                await alice.record(alice.relays(header, 5))
                await alice.to(15)
                with hanging(server):
                    with pytest.raises(TimeoutError):
                        await asyncio.wait_for(redis.get("key"), 0.1)
                    redis.connection_pool.backoff.timed_out(_SERVER, float("inf"))
                    async with asyncio.timeout(30):
                        for _ in range(2):
                            alice.localnet.step()
                            block = await alice.comet.block()
                            await alice.miner.on_block(block, await alice.client.proof_params())
                kinds = [kind for row in alice.chain.transactions.values() for kind in row.actions]
                assert "/pocket.proof.MsgSubmitProof" in kinds
        finally:
            await redis.aclose()


async def test_a_chain_query_waits_for_redis_a_moment_only(tmp_path):
    with running_redis() as server:
        redis = connect(server.url, timeout_seconds=60.0)
        try:
            async with mine(redis, tmp_path, World()) as alice:
                node = NodeAddress.parse(alice.localnet.grpc_url, alice.localnet.rpc_url)
                header = alice.header()
                cached = CachedChain([node], redis, KEYS)
                try:
                    await redis.ping()
                    with hanging(server):
                        async with asyncio.timeout(10):
                            found = await cached.application(header.application_address)
                            session = await cached.session(header.application_address, header.service_id, 1)
                    assert found.address == header.application_address
                    assert session.header == header
                finally:
                    await cached.close()
        finally:
            await redis.aclose()


async def test_suppliers_whose_owner_is_unknown_are_worked_on_at_the_same_time(tmp_path):
    everyone, addresses = asyncio.Barrier(5), [f"pokt1supplier{number}" for number in range(5)]

    class Miner:
        """Decides once all others do."""

        async def on_block(self, block, params):
            async with everyone:
                return {}

    async def params(height):
        return None

    board = LatestBlock()
    board.publish(SimpleNamespace(height=7))
    suppliers = SimpleNamespace(
        audit=SimpleNamespace(suppliers_with_open_seals=lambda: addresses), addresses=addresses,
        detached=lambda address: Miner(),
    )  # fmt: skip
    work = SealedWork(suppliers, board, SimpleNamespace(at=params), 1.0, lambda: False, dict)
    async with asyncio.timeout(30):
        assert await work.at_block()


async def test_sessions_of_a_supplier_are_decided_at_the_same_time(redis, tmp_path, monkeypatch):
    services, learn_terms = ("eth", "base", "op"), RelayConsumer.learn_terms
    everyone = asyncio.Barrier(len(services))

    async def together(self, session, height):
        """Learn the terms once all others do."""
        async with everyone:
            return await learn_terms(self, session, height)

    async with mine(redis, tmp_path, World(services=services)) as alice:
        for service in services:
            await alice.record(alice.relays(alice.header(service=service), 1))
        await alice.to(2)
        monkeypatch.setattr(RelayConsumer, "learn_terms", together)
        async with asyncio.timeout(30):
            assert sum((await alice.decide()).values()) == len(services)
