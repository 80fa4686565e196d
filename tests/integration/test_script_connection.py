"""Scripts that share a connection end as they do over redis-py's own pool, whatever happens to callers and server."""

import asyncio
import contextlib
import random

import pytest
from redis.asyncio import Redis

from doors import Door
from pocket.redis_store.budgets import Budgets, Charge
from pocket.redis_store.connection import PoolUsage, connect, pool_usage
from pocket.redis_store.lua_scripts import APPEND, Script
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.store_errors import CommandRejected, RedisUnavailable
from servers import clients, running_redis, until

pytestmark = pytest.mark.redis
ECHO = Script("return {KEYS[1], ARGV[1]}")
WRITE = Script("return {redis.call('SET', KEYS[1], ARGV[1])}")
KEYS = RedisKeys("shared")


@contextlib.asynccontextmanager
async def connected(url, **options):
    redis = connect(url, **options)
    try:
        yield redis
    finally:
        await redis.aclose()


async def sent(redis, number, name="scripts"):
    """Return whether so many scripts, or commands of another connection, wait for their replies."""
    replies = getattr(redis.connection_pool, name)._replies
    return replies is not None and len(replies._waiting) == number


async def test_scripts_of_one_turn_share_a_connection():
    with running_redis() as server:
        async with Door(server.port) as door, connected(door.url) as redis:
            await ECHO.run(redis, ["first"], ["x"])
            opened = door.opened[server.port]
            found = await asyncio.gather(*(ECHO.run(redis, [f"k{n}"], [n]) for n in range(200)))
            assert found == [[f"k{n}".encode(), str(n).encode()] for n in range(200)]
            assert door.opened[server.port] == opened


async def test_reads_of_one_key_share_the_connection_of_scripts_and_other_commands_do_not():
    with running_redis() as server:
        async with Door(server.port) as door, connected(door.url) as redis:
            await redis.set("k", "v")
            assert door.opened[server.port] == 1
            assert await redis.get("k") == b"v"
            assert door.opened[server.port] == 2
            await redis.hset("h", mapping={"a": "1", "b": "2"})
            calls = redis.get("k"), ECHO.run(redis, ["a"], ["b"]), redis.get("other"), redis.hgetall("h")
            assert await asyncio.gather(*calls) == [b"v", [b"a", b"b"], None, {b"a": b"1", b"b": b"2"}]
            assert await redis.hgetall("other") == {}
            with pytest.raises(CommandRejected, match="WRONGTYPE"):
                await redis.hgetall("k")
            assert door.opened[server.port] == 2


async def test_info_and_reads_that_wait_each_have_a_connection_that_they_keep():
    with running_redis() as server:
        async with Door(server.port) as door, connected(server.url) as writer, connected(door.url) as redis:
            assert await redis.info()
            reading = [asyncio.create_task(redis.xread({"s": "0-0"}, block=5000)) for _ in range(2)]
            await until(lambda: sent(redis, 2, "waits"))
            assert await redis.info()
            assert await redis.get("k") is None, "no other read waits for one that does"
            await writer.xadd("s", {"a": "b"})
            assert [len(found) for found in await asyncio.gather(*reading)] == [1, 1]
            assert door.opened[server.port] == 3
            assert pool_usage(redis) == PoolUsage(used=0, idle=0)


async def test_info_is_answered_while_the_server_holds_back_writes_and_reads_wait_for_news():
    with running_redis() as server:
        async with connected(server.url) as redis:
            reading = asyncio.create_task(redis.xread({"s": "0-0"}, block=5000))
            writing = asyncio.create_task(_paused_write(redis))
            await until(lambda: sent(redis, 1))
            assert (await redis.info())["run_id"]
            await redis.execute_command("CLIENT", "UNPAUSE")
            await writing
            reading.cancel()


async def _paused_write(redis):
    await redis.execute_command("CLIENT", "PAUSE", "60000", "WRITE")
    await WRITE.run(redis, ["k"], ["x"])


async def test_what_info_reports_is_read_as_redis_py_reads_it():
    names = ("run_id", "role", "loading", "aof_enabled", "maxmemory_policy", "maxmemory", "master_replid")
    with running_redis() as server:
        async with connected(server.url) as ours, contextlib.aclosing(Redis.from_url(server.url)) as plain:
            found, theirs = await ours.info(), await plain.info()
            assert [found[name] for name in names] == [theirs[name] for name in names]


@pytest.mark.parametrize("seed", range(3))
async def test_each_caller_gets_its_own_reply_while_others_are_cancelled(seed):
    chance = random.Random(seed)
    with running_redis() as server:
        async with connected(server.url) as redis:
            await ECHO.run(redis, ["first"], ["x"])
            calls = [
                asyncio.create_task(ECHO.run(redis, [f"k{n}"], ["x" * chance.randrange(5000)])) for n in range(300)
            ]
            for _ in range(3):
                await asyncio.sleep(0)
                for call in chance.sample(calls, 40):
                    call.cancel()
            found = await asyncio.gather(*calls, return_exceptions=True)
            answered = [number for number, reply in enumerate(found) if isinstance(reply, list)]
            assert 100 < len(answered) < 300
            assert [found[number][0] for number in answered] == [f"k{number}".encode() for number in answered]


async def _outcomes(redis, seed):
    """Charge, refund and append at random, many at once. Returns what each call came to."""
    chance = random.Random(seed)
    sessions = [random.Random(f"{seed} {number}").randrange(3) for number in range(200)]
    budgets = Budgets(redis, KEYS)
    running = asyncio.create_task(budgets.run())

    async def append(supplier, number):
        keys = [KEYS.closed(supplier), KEYS.sessions(supplier), KEYS.incarnation(supplier), KEYS.cutoff(supplier)]
        session = sessions[number]  # those of one session end at one height: appends have no order
        header = [f"s{session}", b"header", 5 + 10 * (session > 0), 1, b"relay %d" % number]
        reply = await APPEND.run(redis, [*keys, KEYS.stream(supplier, header[0])], ["life", *header])
        return [reply[0], reply[1] if not isinstance(reply[1], bytes) else "appended"]

    def call(number):
        supplier, identity = f"pokt1{number % 3}", bytes([chance.randrange(60)]) * 16
        if chance.random() < 0.4:
            return append(supplier, number)
        return budgets.charge(Charge(supplier, f"s{number % 2}", chance.randrange(1, 5), 40, 600, identity))

    outcomes = []
    await redis.set(KEYS.cutoff("pokt11"), 10)
    await redis.hset(KEYS.closed("pokt12"), "s1", "sealed")
    await redis.set(KEYS.consumed("pokt10", "s1"), "no number")  # every charge of its supplier's batch fails
    for turn in range(6):
        calls = [call(turn * 20 + number) for number in range(20)]
        found = await asyncio.gather(*calls, return_exceptions=True)
        outcomes += [type(one) if isinstance(one, Exception) else one for one in found]
        budgets.refund(Charge("pokt12", "s0", 2, 40, 600, bytes([turn]) * 16))
        await budgets.drain()
    running.cancel()
    names = sorted([name async for name in redis.scan_iter("*")])
    kinds = {name: await redis.type(name) for name in names}
    state = {name: await redis.get(name) for name in names if kinds[name] == b"string"}
    state |= {name: await redis.hgetall(name) for name in names if kinds[name] == b"hash"}
    # Appends at the same time have no order.
    streams = [name for name in names if kinds[name] == b"stream"]
    state |= {name: sorted(row[b"r"] for _, row in await redis.xrange(name)) for name in streams}
    return outcomes, state


@pytest.mark.parametrize("seed", range(8))
async def test_charges_and_appends_come_to_the_same_as_over_connections_of_their_own(seed):
    with running_redis() as server, running_redis() as other:
        async with clients(server.url, other.url) as (shared, separate):
            separate.connection_pool.scripts = None
            ours, theirs = await _outcomes(shared, seed), await _outcomes(separate, seed)
            assert ours == theirs
            assert RedisUnavailable in ours[0], "a failing script was among them"


async def test_a_server_that_is_gone_fails_the_waiting_scripts_and_serves_the_next_ones_again():
    with running_redis() as server:
        async with connected(server.url) as redis:
            await ECHO.run(redis, ["k"], ["x"])
            await redis.execute_command("CLIENT", "PAUSE", "60000", "ALL")
            waiting = [asyncio.create_task(ECHO.run(redis, ["k"], [n])) for n in range(5)]
            await until(lambda: sent(redis, 5))
            server.kill()
            found = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(one) for one in found] == [RedisUnavailable] * 5
            losses = redis.connection_pool.generation.losses
            assert losses, "the loss of an open connection is counted"
            with pytest.raises(RedisUnavailable):
                await ECHO.run(redis, ["k"], ["x"])
            server.start()

            async def served():  # not while it loads its data
                with contextlib.suppress(RedisUnavailable):
                    return await ECHO.run(redis, ["k"], ["y"]) == [b"k", b"y"]

            await until(served)


async def test_a_server_that_does_not_answer_fails_its_scripts_in_time():
    with running_redis() as server:
        async with connected(server.url, timeout_seconds=0.2) as redis, connected(server.url) as control:
            await ECHO.run(redis, ["k"], ["x"])
            await control.execute_command("CLIENT", "PAUSE", "600", "ALL")
            for _ in range(2):
                with pytest.raises(RedisUnavailable):
                    await asyncio.wait_for(ECHO.run(redis, ["k"], ["x"]), 5)
            await control.ping()  # it is answered after the pause
            assert await ECHO.run(redis, ["k"], ["y"]) == [b"k", b"y"]


async def test_a_renewed_login_moves_the_scripts_to_a_new_connection_without_failing_one():
    with running_redis() as server:
        async with Door(server.port) as door, connected(door.url) as redis:
            await ECHO.run(redis, ["k"], ["x"])
            opened = door.opened[server.port]
            await redis.execute_command("CLIENT", "PAUSE", "300", "WRITE")
            waiting = asyncio.create_task(APPEND.run(redis, [KEYS.closed("a")] * 4, ["life"]))
            await until(lambda: sent(redis, 1))
            redis.connection_pool.generation.renew()
            assert await ECHO.run(redis, ["k"], ["y"]) == [b"k", b"y"]
            assert door.opened[server.port] > opened
            assert await waiting == [b"life"]
