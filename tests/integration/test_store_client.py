"""What goes wrong with Redis is an error of ours, wherever a client meets it."""

import asyncio
import signal

import pytest
from redis.exceptions import NoScriptError

from clusters import running_cluster
from pocket.errors import PocketError
from pocket.redis_store.connection import connect
from pocket.redis_store.lua_scripts import Script
from pocket.redis_store.redis_errors import redis_deadline, translated
from pocket.redis_store.store_errors import CommandRejected, RedisTrouble, RedisUnavailable
from servers import running_redis

pytestmark = pytest.mark.redis


async def rejections(redis):
    await redis.set("text", "x")
    with pytest.raises(CommandRejected, match="WRONGTYPE") as caught:
        await redis.lpush("text", "y")
    assert caught.value.trouble is RedisTrouble.REJECTED
    assert isinstance(caught.value, PocketError)
    async with redis.pipeline(transaction=False) as pipe:
        pipe.get("text")
        pipe.lpush("text", "y")
        with pytest.raises(CommandRejected):
            await pipe.execute()
    async with redis.pipeline(transaction=False) as pipe:
        pipe.lpush("text", "y")
        pipe.get("text")
        failed, value = await pipe.execute(raise_on_error=False)
    assert isinstance(failed, CommandRejected)
    assert value == b"x"
    script = Script("return redis.call('GET', KEYS[1])", bytes)
    with pytest.raises(NoScriptError):
        await redis.evalsha(script.digest, 1, "text")
    assert await script.run(redis, ["text"], []) == b"x"
    assert [name async for name in redis.scan_iter("te*")] == [b"text"]


async def away(redis):
    with pytest.raises(RedisUnavailable) as caught:
        await redis.get("text")
    assert caught.value.trouble is RedisTrouble.UNREACHABLE
    async with redis.pipeline(transaction=False) as pipe:
        pipe.get("text")
        with pytest.raises(RedisUnavailable):
            await pipe.execute()
    with pytest.raises(RedisUnavailable):
        [_ async for _ in redis.scan_iter("te*")]
    with pytest.raises(RedisUnavailable), translated():
        async with redis.pubsub() as subscription:
            await subscription.subscribe("news")


async def test_errors_of_one_server_are_ours():
    with running_redis() as server:
        redis = connect(server.url)
        await rejections(redis)
        server.kill()
        await away(redis)
        await redis.aclose()


async def test_errors_of_a_cluster_are_ours():
    async with running_cluster(replicas=False) as cluster:
        await rejections(cluster.redis)
        for process in cluster.servers.processes.values():
            process.kill()
        await away(cluster.redis)


async def test_calls_that_take_too_long_are_an_unavailable_redis():
    with pytest.raises(RedisUnavailable, match=r"nothing within 0\.01 s") as caught:
        async with redis_deadline(0.01):
            await asyncio.Event().wait()
    assert caught.value.trouble.is_transient


async def test_while_a_server_hangs_one_command_waits_for_it_and_the_others_fail_at_once():
    """A block of a miner is dozens of commands, one after the other: each of them waiting costs a window."""
    loop = asyncio.get_running_loop()
    with running_redis() as server:
        redis = connect(server.url, timeout_seconds=1.0)
        try:
            await redis.set("text", "x")
            server.child.send_signal(signal.SIGSTOP)
            began = loop.time()
            for number in range(30):
                with pytest.raises(RedisUnavailable):
                    await (redis.get("text") if number % 2 else redis.pipeline(transaction=False).get("text").execute())
            with pytest.raises(RedisUnavailable):
                await Script("return redis.call('GET', KEYS[1])", bytes).run(redis, ["text"], [])
            assert loop.time() - began < 2.5
            server.child.send_signal(signal.SIGCONT)
            async with asyncio.timeout(5):
                while True:
                    try:
                        assert await redis.get("text") == b"x"
                        break
                    except RedisUnavailable:
                        await asyncio.sleep(0.05)
            assert await redis.get("text") == b"x"
        finally:
            server.child.send_signal(signal.SIGCONT)
            await redis.aclose()
