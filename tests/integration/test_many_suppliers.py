"""One miner with very many suppliers, and a Redis that does not stay."""

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path

import pytest

from mine import mine
from pocket.chain_cache.shared_heights import LatestBlockPublisher, LatestBlockWatcher
from pocket.redis_store.connection import connect
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.store_errors import RedisStoreError
from servers import running_redis

pytestmark = [pytest.mark.processes, pytest.mark.redis]
SUPPORT = Path(__file__).parent.parent / "support"


@pytest.mark.long
async def test_a_thousand_suppliers_of_one_miner_all_decide_every_block_over_few_redis_connections(tmp_path):
    with running_redis() as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable, SUPPORT / "many_suppliers.py", server.url, tmp_path, "1000",
            env={**os.environ, "PYTHONPATH": str(SUPPORT)}, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        told, _ = await asyncio.wait_for(process.communicate(), 280)
    assert process.returncode == 0
    found = json.loads(told)
    assert found["decided"] == [1000, 1000, 1000]
    assert 0 < found["connections"] < 50


async def test_redis_killed_ten_times_costs_no_window_and_heights_only_grow(tmp_path):
    now = [0.0]
    with running_redis() as server:
        redis = connect(server.url)
        async with mine(redis, tmp_path) as alice:
            publisher = LatestBlockPublisher(redis, RedisKeys("test"))
            follower = LatestBlockWatcher(redis, RedisKeys("test"), alice.comet.block, 1.0, lambda: now[0])
            header = alice.header()
            await alice.record(alice.relays(header, 5))
            seen, refused = [], 0
            for _ in range(10):
                server.kill()
                alice.localnet.step()
                now[0] += 10  # long enough for a follower to ask a node itself
                await follower.poll()
                seen.append(follower.height)
                try:
                    await alice.decide()
                except RedisStoreError:
                    refused += 1
                server.start()
                alice.localnet.step()
                for _ in range(8):  # connections of the old life fail once each
                    with contextlib.suppress(RedisStoreError):
                        await publisher.publish(await alice.comet.block())
                        await follower.poll()
                        await alice.decide()
                        if follower.height == alice.chain.height:  # one that is not published is not repeated
                            break
                seen.append(follower.height)
            assert seen == list(range(2, 22))
            assert refused, "Redis was not away"
            await alice.to(22)
            assert alice.outcomes()[header.session_id]["outcome"] == "settled"
        await redis.aclose()
