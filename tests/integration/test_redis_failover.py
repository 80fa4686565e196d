"""A Redis that fails over behind its address, one that loads its file, and one that is a replica."""

import asyncio
import contextlib

import pytest

from doors import Door
from pocket.api.redis import Durability, RedisAccess
from pocket.redis_store.connection import await_durable_redis, check_durability, connect, inspect
from pocket.redis_store.relay_recorder import RecorderLimits, RelayRecorder
from pocket.redis_store.seals import SealStore
from pocket.redis_store.server_info import UNREPORTED
from pocket.redis_store.store_errors import ConcurrentAppend, RedisTrouble, RedisUnavailable
from pocket.redis_store.stream_reader import StreamReader
from pocket.redis_store.write_ahead_log import WriteAheadLog
from recording import KEYS, entries, origin, publishing, record
from servers import clients, running_redis, until

pytestmark = pytest.mark.redis


async def follow(follower, port):
    """Wait until the follower has all data of its primary."""
    await follower.replicaof("127.0.0.1", port)

    async def linked():
        return (await follower.info("replication")).get("master_link_status") == "up"

    await until(linked)


@contextlib.asynccontextmanager
async def a_failover():
    """Start two servers and a client behind a proxy.

    `fail_over` makes the second server the primary, `caught_up` once it has all that the first one acknowledged.
    """
    with running_redis() as old, running_redis() as new:
        async with Door(old.port) as door, clients(door.url, old.url, new.url) as (redis, first, second):
            await follow(second, old.port)

            async def offsets():
                return [(await server.info("replication"))["master_repl_offset"] for server in (first, second)]

            async def replicated():
                there, here = await offsets()
                return there == here

            async def fail_over(*, caught_up=False):
                if caught_up:
                    await until(replicated)
                await second.replicaof("NO", "ONE")
                await first.replicaof("127.0.0.1", 1)  # it follows nobody: what it answers is old for ever
                door.port = new.port

            yield redis, second, fail_over, door, new


async def test_a_session_is_closed_only_in_the_history_of_redis_that_was_inspected():
    async with a_failover() as (redis, second, fail_over, *_):
        store = SealStore(redis, KEYS, "supplier", 1)
        await store.fence(confirmed)
        before = (await inspect(redis)).history_id
        assert await store.close({"one": 10}, before) == {"one": "0-0"}
        await fail_over(caught_up=True)
        with pytest.raises(ConcurrentAppend):
            await store.close({"two": 10}, before)
        assert not await second.hexists(KEYS.closed("supplier"), "two"), "relayers may still append to it"
        for history in ((await inspect(redis)).history_id, f"{UNREPORTED}1", ""):
            assert await store.close({"two": 10}, history) == {"two": "0-0"}


async def confirmed():
    return


async def test_each_relay_that_redis_takes_shows_the_time_of_its_clock(redis, tmp_path):
    seen, log = [], WriteAheadLog(tmp_path, "w")
    publisher = RelayRecorder(redis, KEYS, log, on_server_time=seen.append)
    rows = [record(1, name) for name in ("closed", "open")]
    await redis.hset(KEYS.closed(rows[0].supplier), "closed", "sealing/10")
    before = (await redis.time())[0]
    for row, shown in zip(rows, (0, 1), strict=True):
        await publisher._append(row.supplier, [row], log.append([row]))
        assert len(seen) == shown
    assert before <= seen[0] < before + 60
    log.close()


async def test_after_a_failover_each_command_reaches_the_new_primary_at_its_first_try():
    async with a_failover() as (redis, second, fail_over, door, new):
        await asyncio.gather(*(redis.set(f"before-{n}", n) for n in range(8)))  # several connections
        await fail_over(caught_up=True)
        assert await redis.set("command", 1)
        assert await redis.eval("return redis.call('SET', KEYS[1], 'x')", 1, "script") == b"OK"
        async with redis.pipeline(transaction=False) as pipe:
            pipe.get("before-1")
            pipe.incr("counted")
            assert await pipe.execute() == [b"1", 1]
        async with redis.pipeline(transaction=True) as pipe:
            pipe.incr("counted")
            assert await pipe.execute() == [2]
        await second.set("only-new", "here")
        found = await asyncio.gather(*(redis.get("only-new") for _ in range(16)))
        assert found == [b"here"] * 16, "reads leave the former primary, too"
        assert door.opened[new.port] <= 16


@pytest.mark.parametrize("first", ["script", "pipeline", "transaction", "info"])
async def test_whatever_comes_first_after_a_failover_finds_the_new_primary(first):
    async with a_failover() as (redis, second, fail_over, _, _):
        await redis.set("before", 1)
        await fail_over()
        if first == "script":
            assert await redis.eval("return redis.call('INCR', KEYS[1])", 1, "n") == 1
        elif first == "info":
            assert (await inspect(redis)).history_id == (await inspect(second)).history_id
        else:
            async with redis.pipeline(transaction=first == "transaction") as pipe:
                pipe.incr("n")
                assert await pipe.execute() == [1]
        assert await second.get("n") == (None if first == "info" else b"1"), "it was done once"


async def test_relays_are_recorded_without_a_refusal_while_redis_fails_over(tmp_path):
    async with a_failover() as (redis, second, fail_over, _, _), publishing(redis, tmp_path) as publisher:
        await publisher.record(record(0))
        await fail_over()
        await publisher.record(record(1))
        assert publisher.counters.failed == 0
        await publisher.maintain_once()
        assert {b"relay 0", b"relay 1"} <= set(await entries(second))
        assert publisher.suppliers_with_unacknowledged == set()


async def test_relays_that_a_failover_lost_are_appended_again_although_redis_refuses_info(tmp_path):
    async with a_failover() as (former, second, fail_over, door, _):
        for server in (former, second):
            await server.execute_command("ACL SETUSER relays on >x ~* &* +@all -info")
        managed = connect(door.url.replace("://", "://relays:x@"), access=RedisAccess(durability=Durability.MANAGED))
        async with publishing(managed, tmp_path) as publisher:
            await publisher.maintain_once()
            await publisher.record(record(0))
            assert await former.wait(1, 10_000) == 1
            await second.replicaof("NO", "ONE")
            await publisher.record(record(1))  # the former primary alone has it
            await publisher.maintain_once()
            await fail_over()
            await publisher.record(record(2))
            assert await entries(second) == [b"relay 0", b"relay 2"]
            await publisher.maintain_once()
            assert set(await entries(second)) == {b"relay 0", b"relay 1", b"relay 2"}
        await managed.aclose()


@contextlib.asynccontextmanager
async def a_failover_to_a_slower_clock(tmp_path):
    """Yield a recorder, what fails over, and the reader of a miner that has not noticed it yet.

    Relay 0 is on both servers. Relay 1 is on the former primary only, whose clock is an hour ahead.
    """
    stream = KEYS.stream("pokt1s", "one")
    async with a_failover() as (redis, second, promote, _, _), publishing(redis, tmp_path) as publisher:
        await publisher.maintain_once()
        await publisher.record(record(0))
        assert await redis.wait(1, 10_000) == 1
        await second.replicaof("127.0.0.1", 1)
        ((ahead, _),) = await redis.xrevrange(stream, count=1)
        await redis.execute_command("XSETID", stream, f"{int(ahead.partition(b'-')[0]) + 3_600_000}-0")
        await publisher.record(record(1))
        tail = StreamReader(redis, KEYS, "pokt1s")
        last = (await tail.read({"one": "0-0"}))["one"][-1].id
        mark = {"one": f"{await origin(redis, tail)}/{last}"}

        async def fail_over():
            await promote()
            await publisher.record(record(2))  # under a smaller id than that of relay 1
            publisher._log.rotate()
            await tail.publish_replicated(mark)

        yield publisher, fail_over, tail, second


async def test_a_log_stays_until_a_miner_has_read_the_new_primary_whose_clock_is_slower(tmp_path):
    async with a_failover_to_a_slower_clock(tmp_path) as (publisher, fail_over, tail, second):
        await fail_over()
        for _ in range(2):
            await publisher.maintain_once()
            assert publisher._log.segments, "the miner has read relay 1 of the former primary, and not relay 2"
        assert {b"relay 0", b"relay 1", b"relay 2"} == set(await entries(second))
        last = (await tail.read({"one": "0-0"}))["one"][-1].id
        await tail.publish_replicated({"one": f"{await origin(second, tail)}/{last}"})
        await publisher.maintain_once()
        assert not publisher._log.segments


async def test_a_log_is_not_released_by_a_failover_in_the_middle_of_a_heartbeat(tmp_path, monkeypatch):
    async with a_failover_to_a_slower_clock(tmp_path) as (publisher, fail_over, _, second):
        release = publisher._release

        async def failing_over():
            await fail_over()
            await release()

        with monkeypatch.context() as patched:
            patched.setattr(publisher, "_release", failing_over)
            await publisher.maintain_once()
        assert publisher._log.segments
        await publisher.maintain_once()
        assert {b"relay 0", b"relay 1", b"relay 2"} == set(await entries(second))


async def test_a_relay_waits_for_an_address_that_leads_to_a_replica_for_a_moment(tmp_path):
    """The Service follows a fail-over later than the servers: until then the address is a replica's."""
    with running_redis() as primary, running_redis() as replica:
        async with Door(replica.port) as door, clients(door.url, replica.url) as (redis, follower):
            await follow(follower, primary.port)
            patient = RecorderLimits(linger_seconds=0, append_timeout_seconds=20.0)
            async with publishing(redis, tmp_path, patient) as publisher:
                recording = asyncio.create_task(publisher.record(record(0)))

                async def refused_on_new_connections():
                    stats = await follower.info("commandstats")
                    rows = [stats.get(f"cmdstat_{name}", "calls=0,") for name in ("eval", "evalsha")]
                    return sum(int(row.partition(",")[0].removeprefix("calls=")) for row in rows) >= 6

                await until(refused_on_new_connections)
                await follower.replicaof("NO", "ONE")
                await recording
            assert await entries(follower) == [b"relay 0"]
            assert door.opened[replica.port] <= 8, "a replica is not connected to at every command"


async def test_a_replica_is_named_waited_for_and_never_taken_for_a_safe_redis():
    with running_redis() as primary, running_redis() as replica:
        async with clients(replica.url) as (redis,):
            await follow(redis, primary.port)
            with pytest.raises(RedisUnavailable, match=rf"replica \(role:slave\) of 127.0.0.1:{primary.port}") as told:
                await check_durability(redis, replica.url)
            assert told.value.trouble is RedisTrouble.REPLICA
            waits = []
            waiting = asyncio.create_task(await_durable_redis(redis, replica.url, asyncio.Event(), waits.append))

            async def waited():
                return bool(waits)

            await until(waited)
            assert not waiting.done()
            await redis.replicaof("NO", "ONE")
            await asyncio.wait_for(waiting, 10)


async def test_a_redis_that_loads_its_file_is_waited_for_although_it_reports_no_append_only_file():
    with running_redis() as server:
        async with clients(server.url) as (plain,), plain.pipeline(transaction=False) as pipe:
            for number in range(2000):
                pipe.set(f"filler-{number}", "x")
            await pipe.execute()
            await plain.bgrewriteaof()  # the delay holds for snapshots only, and a rewritten log begins with one

            async def rewritten():
                state = await plain.info("persistence")
                return not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]

            await until(rewritten)
        server.kill()
        server.arguments = (
            *server.arguments,
            "--key-load-delay",
            "1000",
            "--loading-process-events-interval-bytes",
            "1024",
        )
        server.start()
        async with clients(server.url) as (redis,):
            waits = []
            await asyncio.wait_for(await_durable_redis(redis, server.url, asyncio.Event(), waits.append), 60)
            assert waits, "it was too fast to be seen loading"
            assert {error.trouble for error in waits} <= {RedisTrouble.LOADING, RedisTrouble.UNREACHABLE}
            assert any(error.trouble is RedisTrouble.LOADING for error in waits)
            assert await redis.dbsize() == 2000
            assert await redis.exists(KEYS.block) == 0
