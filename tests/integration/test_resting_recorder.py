"""A recorder without relays and problems looks at Redis seldom, and nothing is taken for safe unseen."""

import asyncio

import pytest

from pocket.redis_store.connection import connect
from pocket.redis_store.relay_recorder import RecorderLimits, RelayRecorder
from pocket.redis_store.stream_losses import StreamLosses
from pocket.redis_store.write_ahead_log import WriteAheadLog
from recording import KEYS, publishing, record
from servers import until

pytestmark = pytest.mark.redis


async def test_a_recorder_without_relays_looks_seldom_and_at_once_when_there_is_one(redis, tmp_path, monkeypatch):
    log = WriteAheadLog(tmp_path, "w")
    publisher = RelayRecorder(redis, KEYS, log)
    looks, look = asyncio.Queue(), publisher.maintain_once

    async def counted():
        looks.put_nowait(None)
        await look()

    monkeypatch.setattr(publisher, "maintain_once", counted)
    recording = asyncio.create_task(publisher.run())
    maintaining = asyncio.create_task(publisher.maintain(1000.0))
    async with asyncio.timeout(10):
        await looks.get()
        await until(lambda: rests(publisher))
        await publisher.record(record(1))
        await looks.get()
    maintaining.cancel()
    recording.cancel()
    await asyncio.gather(maintaining, recording, return_exceptions=True)
    assert looks.empty()
    log.close()


async def rests(publisher):
    return publisher._queue._next is not None


async def test_a_recorder_rests_only_without_relays_and_problems(redis, tmp_path):
    async with publishing(redis, tmp_path) as publisher:
        await publisher.maintain_once()
        assert publisher._resting
        await publisher.record(record(1))
        assert not publisher._resting, "Redis could lose the relay"
    for name, value in (("redis_error", "away"), ("log_problem", "full"), ("_memory_ratio", 0.79)):
        idle = RelayRecorder(
            redis, KEYS, WriteAheadLog(tmp_path / name, "w"), RecorderLimits(memory_high_water_mark=0.9)
        )
        assert idle._resting
        setattr(idle, name, value)
        assert not idle._resting
        idle._log.close()


async def test_what_was_lost_is_unknown_while_redis_is_away(redis):
    away = connect("redis://127.0.0.1:1/0", timeout_seconds=0.5)
    assert await StreamLosses(away, KEYS).find({"pokt1s": "life"}, [("pokt1s", "one")]) == set()
    await away.aclose()
    await redis.set(KEYS.incarnation("pokt1a"), "life")
    await redis.set(KEYS.closed("pokt1b"), "no hash")
    found = await StreamLosses(redis, KEYS).find(
        dict.fromkeys(("pokt1a", "pokt1b", "pokt1c"), "life"), [("pokt1b", "s")]
    )
    assert found == {"pokt1c"}, "rows that cannot be read show nothing"
