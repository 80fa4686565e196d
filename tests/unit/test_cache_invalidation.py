"""No process keeps an answer that the chain has changed: by message, by version, and by what nodes no longer know."""

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from example_counts import examples
from pocket.chain_cache.cached_client import CHANGING, LIFETIMES, encode_key
from pocket.chain_cache.invalidation import CacheRefresher, InvalidationSubscriber, Misses, decode_key
from pocket.errors import ChainUnavailable, NotFound
from pocket.protocol.pb import pocket_application_pb2 as application_pb
from pocket.redis_store.redis_keys import RedisKeys

KEYS = RedisKeys("cache")
APPLICATION, SUPPLIER = "/pocket.application.Query/Application", "/pocket.supplier.Query/Supplier"


def record(address):
    return APPLICATION, application_pb.QueryGetApplicationRequest(address=address).SerializeToString()


def answer(stake, heights=(1, 2)):
    """Return an answer, whose map is written in this order."""
    pending = {height: {"gateway_addresses": ["g"]} for height in heights}
    application = {"address": "a", "stake": {"denom": "upokt", "amount": str(stake)}}
    whole = application_pb.QueryGetApplicationResponse(application=application)
    parts = [application_pb.Application(pending_undelegations={h: row}) for h, row in pending.items()]
    inner = whole.application.SerializeToString() + b"".join(part.SerializeToString() for part in parts)
    return b"\x0a" + bytes([len(inner)]) + inner


A, B, C = record("a"), record("b"), record("c")


class Memory:
    """A Redis with what the cache uses, and the answers that other processes forget."""

    def __init__(self, known=()):
        self.values, self.lives, self.known, self.published, self.version = {}, {}, dict(known), [], 0

    def pipeline(self, *, transaction):
        return Pipe(self)

    async def get(self, name):
        return str(self.version).encode() if name == KEYS.cache_version else self.values.get(name)

    async def delete(self, name):
        return int(self.values.pop(name, None) is not None)

    async def zrem(self, name, member):
        del self.known[member]

    async def evalsha(self, digest, number, name, *arguments):
        if name == KEYS.cache_known:
            return self._followed(*arguments)
        self.version += 1
        channel, body = arguments
        assert (name, channel) == (KEYS.cache_version, KEYS.cache_invalidations)
        self.published.append(json.loads(body + "}")["forget"])
        return self.version

    def _followed(self, oldest, most):
        kept = {member: score for member, score in self.known.items() if score > oldest}
        dropped, self.known = len(self.known) - len(kept), kept
        return [dropped, [row.encode() for row in sorted(kept, key=kept.get, reverse=True)[:most]]]


class Pipe:
    def __init__(self, memory):
        self.memory, self.rows = memory, []

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        return

    def get(self, name):
        self.rows.append(lambda: self.memory.values.get(name))

    def set(self, name, value, *, px):
        def write():
            self.memory.values[name], self.memory.lives[name] = value, px

        self.rows.append(write)

    async def execute(self):
        """Run what was queued: nothing happens before."""
        rows, self.rows = self.rows, []
        return [row() for row in rows]


class Chain:
    """A client whose nodes give what the test sets, and the answers that it was told to forget."""

    def __init__(self):
        self.answers, self.forgotten, self.asked = {}, [], []

    def shared_key(self, cache_key):
        return encode_key(cache_key)

    def forget(self, cache_key):
        self.forgotten.append(cache_key)

    async def fetch_uncached(self, method, request):
        self.asked.append((method, request.SerializeToString()))
        found = self.answers[method, request.SerializeToString()]
        if isinstance(found, Exception):
            raise found
        return found


class World:
    def __init__(self, *followed):
        self.now, self.counts = 1e6, []
        self.memory = Memory({encode_key(row): self.now for row in followed})
        self.chain = Chain()
        self.refresher = CacheRefresher(self.memory, KEYS, self.chain, lambda: self.now, self.counts.append)

    def refresh(self, seconds=10.0):
        """Return what a refresh counted."""
        self.now += seconds
        self.counts.clear()
        asyncio.run(self.refresher.refresh())
        return list(self.counts)


def test_every_followed_record_is_queried_and_only_a_changed_one_is_forgotten_everywhere():
    world = World(A, B)
    world.chain.answers = {A: answer(1), B: answer(1)}
    assert world.refresh() == ["same", "same"], "nothing was shared that could be wrong"
    assert set(world.memory.values.values()) == {answer(1)}
    assert set(world.memory.lives.values()) == {int(1000 * LIFETIMES[APPLICATION])}
    world.chain.answers[B] = answer(2)
    assert sorted(world.refresh()) == ["changed", "same"]
    assert world.memory.published == [encode_key(B)]
    assert world.memory.values[encode_key(B)] == answer(2)
    world.chain.answers[B] = answer(2, heights=(2, 1))
    assert sorted(world.refresh()) == ["same", "same"], "maps are written in any order"
    assert world.memory.published == [encode_key(B)]


@pytest.mark.parametrize("number", [0, 1, 64, 65, 200])
def test_however_many_records_are_followed_each_is_queried_once_in_a_round(number):
    records = [record(f"app {place}") for place in range(number)]
    world = World(*records)
    world.chain.answers = dict.fromkeys(records, answer(1))
    assert world.refresh() == ["same"] * number
    assert sorted(world.chain.asked) == sorted(records)
    assert len(world.memory.values) == number


def test_an_unchanged_answer_is_written_again_before_it_expires_and_not_more_often():
    world = World(A)
    world.chain.answers = {A: answer(1)}
    written = []
    for seconds in (0.0, 8.9, 0.1, 8.9, 0.1):
        world.memory.lives.clear()
        world.refresh(seconds)
        written.append(bool(world.memory.lives))
    assert written == [True, False, True, False, True], "at three tenths of half a minute"
    world.memory.values.clear()
    world.memory.lives.clear()
    world.refresh(1.0)
    assert world.memory.lives, "Redis has lost it"


def test_a_record_that_nobody_used_for_ten_minutes_is_not_followed_any_more():
    world = World(A)
    world.chain.answers = {A: answer(1)}
    assert world.refresh(599.9) == ["same"]
    assert world.refresh(0.1) == []
    assert world.refresher._written_at == {}
    world.memory.known = {"/x.Query/Unknown AA==": world.now, "no key": world.now}
    assert world.refresh() == [], "what no process of this release follows"


def test_a_node_that_does_not_answer_changes_nothing():
    world = World(A, B)
    world.chain.answers = {A: answer(1), B: answer(1)}
    world.refresh()
    world.chain.answers[A] = ChainUnavailable("away")
    for _ in range(5):
        assert sorted(world.refresh()) == ["failed", "same"]
    assert (len(world.memory.values), world.memory.published) == (2, [])


def missing(*nodes, height=7):
    return NotFound("no such application", height=height, nodes=nodes)


@pytest.mark.parametrize(
    ("first", "second", "confirmed"),
    [
        (missing("n"), missing("n"), False), (missing("n"), missing("m"), True), (missing("n", "m"), None, True),
        (missing("n"), missing("n", height=8), True), (missing(), missing(), False),
    ],
)  # fmt: skip
def test_a_record_is_removed_once_another_node_or_a_later_height_misses_it_too(first, second, confirmed):
    world = World(A)
    world.chain.answers = {A: answer(1)}
    world.refresh()
    for statement in (first, second):
        if statement is not None:
            world.chain.answers[A] = statement
            assert world.refresh() == ["failed"]
    assert (encode_key(A) not in world.memory.values) == confirmed
    assert world.memory.published == [encode_key(A)] * confirmed


def test_three_statements_in_a_row_end_the_record_and_an_answer_between_them_begins_anew():
    world = World(A)
    world.chain.answers = {A: answer(1)}
    world.refresh()
    for statement, told in (
        (missing("n"), "failed"), (answer(1), "same"), (missing("n"), "failed"), (missing("n"), "failed"),
        (missing("n"), "evicted"),
    ):  # fmt: skip
        world.chain.answers[A] = statement
        assert world.refresh() == [told]
    assert (world.memory.known, world.memory.values, world.refresher._misses) == ({}, {}, {})
    assert world.memory.published == [encode_key(A)], "once"


@pytest.mark.parametrize(
    ("misses", "confirmed"),
    [
        (Misses(), False), (Misses(1, frozenset("a"), frozenset({1})), False), (Misses(2, frozenset("ab")), True),
        (Misses(2, frozenset("a"), frozenset({1, 2})), True), (Misses(2, frozenset("a"), frozenset({1})), False),
        (Misses(3, frozenset("a"), frozenset({1})), True),
    ],
)  # fmt: skip
def test_a_miss_is_confirmed_by_a_node_a_height_or_in_the_third_round(misses, confirmed):
    assert misses.confirmed is confirmed
    assert Misses().add(missing("a", height=3)).add(missing("b", height=3)) == Misses(
        2, frozenset("ab"), frozenset({3})
    )


@given(st.sampled_from(sorted(CHANGING)), st.binary(max_size=40))
def test_a_key_of_a_changing_record_reads_as_it_was_written(method, request):
    assert decode_key(encode_key((method, request))) == (method, request)
    assert decode_key(encode_key((method, request)).encode()) == (method, request)
    for text in (f"{method} ?", f"/other {method}", "", f"{method}x AA=="):
        assert decode_key(text) is None


@settings(max_examples=examples(30))
@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.booleans(), st.booleans()), max_size=30))
def test_whatever_messages_are_lost_a_subscriber_forgets_every_record_that_changed(steps):
    """It has forgotten each change at the latest when it looks at the version, and all of them when it missed one."""
    memory, chain, told = Memory(), Chain(), []
    subscriber = InvalidationSubscriber(memory, KEYS, chain, told.append)
    asyncio.run(subscriber._catch_up())
    assert chain.forgotten == [None], "what it knew before it subscribed"
    stale = set()
    for cache_key, arrives, looks in steps:
        memory.version += 1
        stale.add(cache_key)
        chain.forgotten.clear()
        missed = memory.version != subscriber.version + 1
        if arrives:
            subscriber._take(json.dumps({"forget": encode_key(cache_key), "version": memory.version}))
            assert chain.forgotten == [None if missed else cache_key]
        elif looks:
            asyncio.run(subscriber._catch_up())
            assert chain.forgotten == [None]
        for forgotten in chain.forgotten:
            stale = set() if forgotten is None else stale - {forgotten}
        if subscriber.version == memory.version:
            assert not stale
            assert told[-1] == memory.version
    chain.forgotten.clear()
    asyncio.run(subscriber._catch_up())
    asyncio.run(subscriber._catch_up())
    assert chain.forgotten == ([None] if stale else [])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": "x", "forget": ""}', '{"version": 1}', b"\xff"])
def test_a_message_that_cannot_be_read_is_skipped_and_the_version_shows_what_was_missed(text):
    memory, chain = Memory(), Chain()
    subscriber = InvalidationSubscriber(memory, KEYS, chain, version=0)
    subscriber._take(text)
    assert (chain.forgotten, subscriber.version) == ([], 0)
    subscriber._take('{"version": 2, "forget": "' + encode_key(A) + '"}')
    assert chain.forgotten == [None]


@pytest.mark.parametrize("follows", [True, False])
def test_blocks_reach_those_who_follow_them_and_the_one_before_the_subscription_too(follows):
    memory, chain, blocks = Memory(), Chain(), []
    memory.values[KEYS.block] = b"latest"
    subscriber = InvalidationSubscriber(memory, KEYS, chain, on_block=blocks.append if follows else None, version=0)
    forget = json.dumps({"forget": encode_key(A), "version": 1})
    rows = [
        [b"subscribe", b"x", 1], [b"message", KEYS.blocks.encode(), b"7"],
        [b"message", KEYS.cache_invalidations.encode(), forget], [b"pong", b""], None,
    ]  # fmt: skip

    class Subscription:
        async def read_response(self, **_):
            memory.version = 1 if len(rows) == 2 else memory.version
            return rows.pop(0)

    with pytest.raises(IndexError):
        asyncio.run(subscriber._follow(Subscription()))
    assert blocks == ([b"latest", b"7", b"latest"] if follows else [])
    assert chain.forgotten == [A]
