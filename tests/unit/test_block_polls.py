"""A relayer that receives blocks does not poll for them."""

import asyncio
import contextlib

import pytest

from pocket.chain.model import Block
from pocket.chain_cache import shared_heights
from pocket.chain_cache.shared_heights import LatestBlockWatcher, encode_block
from pocket.errors import ChainUnavailable
from pocket.protocol.transactions.build import Timestamp
from pocket.redis_store.redis_keys import RedisKeys


class Polled:
    """A Redis that counts its reads."""

    reads = 0

    async def get(self, key):
        self.reads += 1


async def no_node():
    raise ChainUnavailable("down")


@pytest.mark.parametrize(("since", "polls"), [(0.0, 0), (37.0, 0), (38.0, 3)])
async def test_a_block_is_polled_for_only_when_it_is_overdue(monkeypatch, since, polls):
    now, ticks, redis = [100.0], iter(range(3)), Polled()
    watcher = LatestBlockWatcher(redis, RedisKeys("polls"), no_node, 30.0, lambda: now[0])
    await watcher.poll()
    assert redis.reads == 1
    watcher.receive(encode_block(Block(7, bytes(32), Timestamp(0))))
    now[0] += since

    async def sleep(seconds):
        if next(ticks, None) == 2:
            raise asyncio.CancelledError

    monkeypatch.setattr(shared_heights, "sleep_to_tick", sleep)
    with contextlib.suppress(asyncio.CancelledError):
        await watcher.run(1.0)
    assert redis.reads == 1 + polls
