"""Three processes, one Redis, one chain: what changes on chain is known everywhere, also after a missed message."""

import asyncio
import contextlib
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from pocket.chain.failover import NodeAddress
from pocket.chain.model import Block
from pocket.chain_cache.cached_client import LIFETIMES, CachedChain
from pocket.chain_cache.invalidation import (
    CacheRefresher,
    InvalidationSubscriber,
    decode_key,
    encode_key,
    publish_invalidation,
)
from pocket.chain_cache.shared_heights import LatestBlockPublisher, LatestBlockWatcher
from pocket.errors import ChainUnavailable, NotFound
from pocket.protocol.pb.pocket_application_pb2 import QueryGetApplicationResponse
from pocket.protocol.transactions.build import Timestamp
from pocket.redis_store.redis_keys import RedisKeys
from pocket_localnet.local_chain import LocalChain
from pocket_localnet.server import serve
from relayctl.main import main
from relays import relaying
from world import World, address

pytestmark = pytest.mark.redis
KEYS = RedisKeys("news")
APP = World().application("eth")
APPLICATION = "/pocket.application.Query/Application"
SCRIPT = Path(__file__).parent.parent / "support/cache_process.py"


class Member:
    """One process that follows the channel.

    `until(kind)` waits for a line of that kind.
    """

    def __init__(self, process):
        self.process = process

    async def until(self, kind, wanted=None):
        while True:
            line = await asyncio.wait_for(self.process.stdout.readline(), 20)
            assert line, "the process ended"
            found, value = json.loads(line)
            if found == kind and wanted in (None, value):
                return value

    async def gateways(self):
        self.process.stdin.write(f"application {APP}\n".encode())
        return await self.until("application")


@contextlib.asynccontextmanager
async def members(redis_url, localnet, number=3):
    command = [sys.executable, str(SCRIPT), redis_url, KEYS.prefix, localnet.grpc_url, localnet.rpc_url]
    made = []
    try:
        for _ in range(number):
            pipe = asyncio.subprocess.PIPE
            made.append(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe))
        yield [Member(process) for process in made]
    finally:
        for process in made:
            process.stdin.close()
            await process.wait()


def change(chain, *gateways):
    record = chain.state.applications[APP]
    chain.state.applications[APP] = replace(record, gateway_addresses=tuple(gateways))


@contextlib.asynccontextmanager
async def leader(redis, localnet, counted):
    chain = CachedChain([NodeAddress.parse(localnet.grpc_url, localnet.rpc_url)], redis, KEYS)
    yield CacheRefresher(redis, KEYS, chain, time.time, counted.append)
    await chain.close()


async def test_a_change_is_seen_by_all_processes_after_one_round_of_the_leader(redis, redis_process):
    chain, counted = LocalChain(World().genesis()), []
    async with (
        serve(chain) as localnet,
        leader(redis, localnet, counted) as refresher,
        members(redis_process.url, localnet) as processes,
    ):
        for member in processes:
            await member.until("version", 0)
            assert await member.gateways() == [address("gateway")]
        async for key in redis.scan_iter(match=f"{KEYS.cached}Application:*"):
            assert 0 < await redis.pttl(key) <= 1000 * LIFETIMES[APPLICATION]
        change(chain, address("gateway"), address("other"))
        for member in processes:
            assert await member.gateways() == [address("gateway")], "cached: nobody has looked again"
        await refresher.refresh()
        assert counted == ["changed"]
        for member in processes:
            await member.until("version", 1)
            assert await member.gateways() == [address("gateway"), address("other")]
        await refresher.refresh()
        assert counted == ["changed", "same"]


async def test_a_process_that_missed_a_message_forgets_all_that_can_change(redis, redis_process):
    chain, counted = LocalChain(World().genesis()), []
    async with (
        serve(chain) as localnet,
        leader(redis, localnet, counted) as refresher,
        members(redis_process.url, localnet) as processes,
    ):
        for member in processes:
            await member.until("version", 0)
            await member.gateways()
        # The subscriptions are cut; what is told meanwhile reaches nobody.
        await redis.client_kill_filter(_type="pubsub")
        change(chain, address("other"))
        await refresher.refresh()
        for member in processes:
            await member.until("version", 1)
            assert await member.gateways() == [address("other")]


async def test_what_is_gone_leaves_the_caches_at_the_next_block_and_the_followed_records_after_three_misses(redis):
    chain, counted = LocalChain(World().genesis()), []
    async with serve(chain) as localnet, leader(redis, localnet, counted) as refresher:
        one = CachedChain([NodeAddress.parse(localnet.grpc_url, localnet.rpc_url)], redis, KEYS)
        assert (await one.application(APP)).address == APP
        del chain.state.applications[APP]
        await refresher.refresh()
        await refresher.refresh()
        assert await redis.get(KEYS.cache_version) is None, "one node at one height may be wrong"
        localnet.step()
        await refresher.refresh()
        assert await redis.get(KEYS.cache_version) == b"1"
        one.forget()
        with pytest.raises(NotFound):
            await one.application(APP)
        asked = chain.state.height
        await refresher.refresh()
        assert counted == ["failed", "failed", "evicted"]
        assert await redis.zcard(KEYS.cache_known) == 0
        assert asked == chain.state.height
        await one.close()


async def test_one_node_without_a_record_evicts_nothing(redis):
    """The next round reaches a node that has it."""
    chain, counted = LocalChain(World().genesis()), []
    async with serve(chain) as localnet, leader(redis, localnet, counted) as refresher:
        await refresher.chain.application(APP)
        for _ in range(3):
            record = chain.state.applications.pop(APP)
            await refresher.refresh()
            chain.state.applications[APP] = record
            localnet.step()
            await refresher.refresh()
        assert counted == ["failed", "same"] * 3
        assert await redis.get(KEYS.cache_version) is None


async def test_a_node_that_lags_changes_no_shared_record(redis):
    """Behind one address, one of two nodes is far behind: what it has was right once."""
    chain, counted, height = LocalChain(World().genesis()), [], [0]
    async with serve(chain) as localnet, leader(redis, localnet, counted) as refresher:
        while chain.height < 5:
            localnet.step()
        await refresher.chain.application(APP)
        refresher.chain.latest_height = lambda: height[0]
        record = chain.state.applications[APP]
        for height[0] in (1000, 5, 1000, 7):
            lags = height[0] == 1000
            chain.state.applications[APP] = replace(record, gateway_addresses=()) if lags else record
            await refresher.refresh()
        assert counted == ["failed", "same"] * 2
        assert await redis.get(KEYS.cache_version) is None


async def test_an_answer_whose_map_is_only_written_in_another_order_is_no_change(redis, monkeypatch):
    chain, counted = LocalChain(World().genesis()), []
    async with serve(chain) as localnet, leader(redis, localnet, counted) as refresher:
        told = QueryGetApplicationResponse()
        for height in (20, 30):
            told.application.pending_undelegations[height].gateway_addresses.append(address("gateway"))
        first = told.SerializeToString(deterministic=True)
        entries = map_entries(first)
        other = first[: -len(b"".join(entries))] + b"".join(reversed(entries))
        assert QueryGetApplicationResponse.FromString(other) == told

        async def answers(method, request):
            return other

        question = ("/pocket.application.Query/Application", b"")
        await redis.zadd(KEYS.cache_known, {encode_key(question): time.time()})
        await redis.set(refresher.chain.shared_key(question), first)
        monkeypatch.setattr(refresher.chain, "fetch_uncached", answers)
        await refresher.refresh()
        assert counted == ["same"]


def map_entries(answer):
    """Return the two map entries at the end of an encoded application, with their tags."""
    earlier, later = sorted(answer.rindex(key) - 2 for key in (b"\x08\x14", b"\x08\x1e"))
    return [answer[earlier:later], answer[later:]]


async def test_nobody_looks_again_at_what_nobody_asked_for_lately_nor_at_what_never_was(redis):
    chain, counted, now = LocalChain(World().genesis()), [], [1_000.0]
    async with serve(chain) as localnet:
        node = NodeAddress.parse(localnet.grpc_url, localnet.rpc_url)
        one = CachedChain([node], redis, KEYS, wall_clock=lambda: now[0])
        with pytest.raises(NotFound):
            await one.application(address("nobody"))
        await one.application(APP)
        await one.shared_params(1)
        assert await redis.zcard(KEYS.cache_known) == 1
        refresher = CacheRefresher(redis, KEYS, one, lambda: now[0], counted.append)
        await refresher.refresh()
        now[0] += 601
        await refresher.refresh()
        assert counted == ["same"]
        assert await redis.zcard(KEYS.cache_known) == 0
        await one.close()


async def test_a_direct_query_sees_every_change_and_makes_nobody_look_again(redis):
    chain = LocalChain(World().genesis())
    async with serve(chain) as localnet:
        one = CachedChain([NodeAddress.parse(localnet.grpc_url, localnet.rpc_url)], redis, KEYS)
        assert (await one.direct.application(APP)).gateway_addresses == (address("gateway"),)
        change(chain, address("other"))
        assert (await one.direct.application(APP)).gateway_addresses == (address("other"),)
        assert await redis.keys(f"{KEYS.prefix}*") == []
        await one.close()


async def test_an_answer_that_was_under_way_when_it_changed_is_not_kept(redis):
    chain = LocalChain(World().genesis())
    async with serve(chain) as localnet:
        one = CachedChain([NodeAddress.parse(localnet.grpc_url, localnet.rpc_url)], redis, KEYS)
        await one.application(APP)
        one.forget()
        asking = asyncio.create_task(one.application(APP))
        await asyncio.sleep(0)
        one.forget()
        await asking
        asked = one.counters.redis
        await one.application(APP)
        assert one.counters.redis == asked + 1
        await one.close()


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b'{"version":"x","forget":""}', b'{"version":9,"forget":3}', b"\xff"]
)
def test_a_damaged_message_stops_nobody(data):
    class Forgetful:
        def forget(self, question):
            assert question is None

    InvalidationSubscriber(None, KEYS, Forgetful())._take(data)


def test_a_missing_number_means_that_everything_is_forgotten():
    forgotten = []

    class Remembering:
        def forget(self, question):
            forgotten.append(question)

    follower = InvalidationSubscriber(None, KEYS, Remembering(), version=4)
    question = ("/pocket.application.Query/Application", b"\n\x01")
    for version in (5, 6, 8):
        follower._take(json.dumps({"version": version, "forget": encode_key(question)}))
    assert forgotten == [question, question, None]


class Unshared:
    """A cache that nobody changes."""

    def forget(self, question):
        assert question is None


async def test_a_block_arrives_without_a_poll_also_while_redis_is_full(redis):
    changed = asyncio.Queue()

    async def no_node():
        raise ChainUnavailable("down")

    watcher = LatestBlockWatcher(redis, KEYS, no_node, 1.0, lambda: 0.0)

    def received(block):
        watcher.receive(block)
        changed.put_nowait(watcher.height)

    async def received_at(height):
        async with asyncio.timeout(10):
            while await changed.get() != height:  # each subscription brings the latest one again
                pass

    follower = InvalidationSubscriber(redis, KEYS, Unshared(), on_block=received)
    publisher = LatestBlockPublisher(redis, KEYS)
    await publisher.publish(Block(6, bytes(32), Timestamp(0)))
    task = asyncio.create_task(follower.run())
    try:
        await received_at(6)
        await publisher.publish(Block(7, bytes(32), Timestamp(0)))
        await received_at(7)
        await redis.config_set("maxmemory", 1)
        await publisher.publish(Block(8, bytes(32), Timestamp(10**9)))
        await received_at(8)
        await redis.publish(KEYS.blocks, b"{")
        assert await asyncio.wait_for(changed.get(), 10) == 8, "a damaged one changes nothing"
    finally:
        await redis.config_set("maxmemory", 0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_only_questions_of_the_present_are_followed():
    assert decode_key("/pocket.shared.Query/ParamsAtHeight AAAA") is None
    assert decode_key("/pocket.application.Query/Application !!") is None
    assert decode_key(b"\xff\xfe") is None
    assert decode_key("/pocket.application.Query/Application CgE=") is not None


async def test_a_relayer_takes_up_another_ring_as_soon_as_it_is_told(redis, tmp_path):
    async with relaying(redis, tmp_path) as relayer:
        first = relayer.request()
        assert (await relayer.send(first))[0] == 200
        app = relayer.world.application("eth")
        record = relayer.chain.state.applications[app]
        relayer.chain.state.applications[app] = replace(record, gateway_addresses=(address("alice"),))
        assert (await relayer.send(relayer.request(body=b"2")))[0] == 200, "the ring is cached"
        async for name in redis.scan_iter("relayer-test:cache:Application:*"):
            await redis.delete(name)
        relayer.cache.forget()
        assert (await relayer.send(relayer.request(body=b"3")))[0] == 403
        assert await publish_invalidation(redis, KEYS, None) == 1


async def test_clearing_the_cache_makes_every_process_ask_again_and_keeps_the_evidence(redis, redis_process):
    chain = LocalChain(World().genesis())
    arguments = ["--redis", redis_process.url, "--prefix", KEYS.prefix]
    async with serve(chain) as localnet, members(redis_process.url, localnet, 1) as (member,):
        await member.until("version", 0)
        await member.gateways()
        await redis.set(KEYS.cache("witness", "x"), "told")
        told = await asyncio.to_thread(CliRunner().invoke, main, ["inspect", "cache", *arguments])
        assert "Application" in told.output
        change(chain, address("other"))
        told = await asyncio.to_thread(CliRunner().invoke, main, ["cache", "clear", "--json", *arguments])
        assert json.loads(told.output) == {"answers forgotten": 1, "published as version": 1}
        await member.until("version", 1)
        assert await member.gateways() == [address("other")]
        assert await redis.exists(KEYS.cache("witness", "x"))
