"""Connections that are reset under the event loop that relayers and miners run on."""

import asyncio
import contextlib
import socket
import struct

import pytest
import uvloop

from doors import Door
from pocket.redis_store.budgets import Budgets, Charge, ChargeResult
from pocket.redis_store.connection import connect
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.relay_recorder import RelayRecorder
from pocket.redis_store.store_errors import RedisUnavailable
from pocket.redis_store.write_ahead_log import WriteAheadLog
from recording import FAST, KEYS, record
from servers import running_redis

pytestmark = pytest.mark.redis
RESETS = 60


class ResettingDoor(Door):
    """A door that can reset its clients' connections."""

    def __init__(self, port):
        super().__init__(port)
        self._clients = set()

    async def _forward(self, reader, writer):
        self._clients.add(writer)
        with contextlib.suppress(ConnectionError):
            await super()._forward(reader, writer)
        self._clients.discard(writer)

    def reset(self):
        """Reset the connections that are open."""
        for writer in list(self._clients):
            if not writer.is_closing():
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()


def under_uvloop(coroutine):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


def test_commands_over_reset_connections_fail_as_unavailable_and_the_next_ones_succeed():
    async def main():
        with running_redis() as server:
            async with ResettingDoor(server.port) as door:
                redis = connect(door.url)
                failed = served = 0
                for number in range(RESETS):
                    calls = [redis.set(f"k{n}", "x" * 50_000) for n in range(4)] + [redis.get("k0") for _ in range(4)]
                    tasks = [asyncio.create_task(call) for call in calls]
                    for _ in range(number % 12):
                        await asyncio.sleep(0)
                    door.reset()
                    found = await asyncio.gather(*tasks, return_exceptions=True)
                    errors = {type(one) for one in found if isinstance(one, BaseException)}
                    assert errors <= {RedisUnavailable}, errors
                    assert not any("0x" in str(one) for one in found if isinstance(one, BaseException))
                    failed += len(errors)
                    served += sum(not isinstance(one, BaseException) for one in found)
                assert failed
                assert served
                await redis.aclose()

    under_uvloop(main())


def test_budgets_and_recorder_outlive_reset_connections(tmp_path):
    async def main():
        with running_redis() as server:
            async with ResettingDoor(server.port) as door:
                redis = connect(door.url)
                budgets, log = Budgets(redis, RedisKeys("reset")), WriteAheadLog(tmp_path, "w")
                recorder = RelayRecorder(redis, KEYS, log, FAST)
                loops = [
                    asyncio.create_task(run()) for run in (budgets.run, recorder.run, lambda: recorder.maintain(0.01))
                ]
                for number in range(RESETS):
                    calls = [budgets.charge(Charge("pokt1s", "one", 1, None, 600)) for _ in range(5)]
                    calls += [recorder.record(record(number * 5 + n)) for n in range(5)]
                    tasks = [asyncio.create_task(call) for call in calls]
                    for _ in range(number % 12):
                        await asyncio.sleep(0)
                    door.reset()
                    found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)
                    errors = {type(one) for one in found if isinstance(one, BaseException)}
                    assert errors <= {RedisUnavailable}, errors
                    assert [task for task in loops if task.done()] == []
                assert await budgets.charge(Charge("pokt1s", "one", 1, None, 600)) is ChargeResult.CHARGED
                await recorder.record(record(10_000))
                for task in loops:
                    task.cancel()
                await asyncio.gather(*loops, return_exceptions=True)
                log.close()
                await redis.aclose()

    under_uvloop(main())
