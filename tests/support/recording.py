"""Publishers over a real Redis, and what is in its streams."""

import asyncio
import contextlib

from pocket.redis_store.connection import inspect
from pocket.redis_store.log_records import WalRecord
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.relay_recorder import RecorderLimits, RelayRecorder
from pocket.redis_store.seals import SealStore
from pocket.redis_store.stream_reader import StreamReader, origin_of
from pocket.redis_store.write_ahead_log import WriteAheadLog

KEYS = RedisKeys("unit")
FAST = RecorderLimits(linger_seconds=0, append_timeout_seconds=0.3, retry_seconds=0.02)


def record(number, session="one", supplier="pokt1s", end=0):
    return WalRecord(supplier, session, b"header", b"relay %d" % number, end)


@contextlib.asynccontextmanager
async def publishing(redis, folder, limits=FAST, name="w"):
    log = WriteAheadLog(folder, name)
    publisher = RelayRecorder(redis, KEYS, log, limits)
    task = asyncio.create_task(publisher.run())
    try:
        yield publisher
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        log.close()


@contextlib.asynccontextmanager
async def full(redis):
    """Let a Redis be at its `maxmemory`."""
    await redis.config_set("maxmemory", 1)
    try:
        yield
    finally:
        await redis.config_set("maxmemory", 0)


async def confirmed():
    """Confirm the Lease."""


async def owned(redis, supplier):
    """Return an owner's writer once Redis knows its epoch."""
    store = SealStore(redis, KEYS, supplier, 1)
    await store.fence(confirmed)
    return store


async def origin(redis, tail):
    """Return what a miner labels its position with."""
    return origin_of(await tail.incarnation(), (await inspect(redis)).history_id)


async def entries(redis, session="one", supplier="pokt1s"):
    read = await StreamReader(redis, KEYS, supplier).read({session: "0-0"}, 10_000)
    return [entry.relay for entry in read.get(session, [])]
