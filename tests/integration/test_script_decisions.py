"""Every Lua script against a plain model: random calls on a real Redis, then the same replies and the same keys."""

import asyncio
import contextlib
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest

from pocket.chain.model import Block
from pocket.chain_cache.invalidation import publish_invalidation
from pocket.chain_cache.shared_heights import _PUBLISH, LatestBlockPublisher, encode_block
from pocket.protocol.transactions.build import Timestamp
from pocket.redis_store import lua_scripts as lua
from pocket.redis_store.budgets import Budgets, Charge, ChargeResult
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.redis_leases import _WRITE
from pocket.redis_store.store_errors import RedisUnavailable

pytestmark = pytest.mark.redis
KEYS = RedisKeys("decisions")
SESSIONS = ("one", "two", "three")
BROKEN = "a key of another type"
KEEP = 600


@dataclass
class Supplier:
    """What Redis holds for a supplier. `streams` has (id, relay) rows, `added` counts those of a stream ever added."""

    fence: str = ""
    incarnation: str = ""
    cutoff: str = ""
    closed: dict[str, str] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)
    seals: dict[str, str] = field(default_factory=dict)
    transactions: dict[str, str] = field(default_factory=dict)
    replicated: dict[str, str] = field(default_factory=dict)
    streams: dict[str, list[list[str]] | str] = field(default_factory=dict)
    added: Counter[str] = field(default_factory=Counter)

    def last(self, session):
        rows = self.streams.get(session)
        return rows[-1][0] if rows else "0-0"

    def deleted(self, session):
        """Return what STATES replies about a stream."""
        if session in self.closed:
            return None
        if session not in self.streams or session not in self.sessions:
            return -1
        return 0 if self.streams[session] == BROKEN else self.added[session] - len(self.streams[session])

    def refused(self, epoch):
        """Return the reply to a write of an epoch that was not fenced last, None if it may write."""
        known = number(self.fence)
        return None if epoch == known else ["fenced", str(known)] if epoch < known else ["unfenced"]


TEXTS, HASHES = ("fence", "incarnation", "cutoff"), ("closed", "sessions", "seals", "transactions", "replicated")


def number(text):
    return int(text) if text.isdigit() else 0


def plain(reply):
    """Return a reply with texts instead of bytes."""
    if isinstance(reply, dict):
        return {plain(name): plain(row) for name, row in reply.items()}
    if isinstance(reply, list | tuple):
        return [plain(row) for row in reply]
    return reply.decode() if isinstance(reply, bytes) else reply


def drawn(chance, broken=True):
    """Return any state of a supplier."""

    def some(share, value):
        return {session: f"{value} {session}" for session in SESSIONS if chance.random() < share}

    state = Supplier(
        chance.choice(["", "2", "3", "4", "x"]), chance.choice(["", "life"]), chance.choice(["", "10", "20", "x"]),
        some(0.4, "closed"), some(0.6, "header"), some(0.2, "seal"), some(0.2, "transaction"), some(0.6, "replicated"),
    )  # fmt: skip
    for session in SESSIONS:
        left, deleted = chance.randint(0, 3), chance.randint(0, 2)
        if broken and chance.random() < 0.15:
            state.streams[session] = BROKEN
        elif left + deleted and chance.random() < 0.8:
            state.streams[session] = [[f"{at}-0", f"relay {at}"] for at in range(1, left + 1)]
            state.added[session] = left + deleted
    return state


class Store:
    """A Redis with one supplier."""

    def __init__(self, redis):
        self.redis = redis

    def keys(self, *names):
        return [getattr(KEYS, name)("supplier") for name in names]

    def streams(self, sessions):
        return [KEYS.stream("supplier", session) for session in sessions]

    async def run(self, script, names, sessions, *arguments):
        return plain(await script.run(self.redis, [*self.keys(*names), *self.streams(sessions)], list(arguments)))

    async def put(self, state):
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.flushall()
            for name in TEXTS:
                if value := getattr(state, name):
                    pipe.set(*self.keys(name), value)
            for name in HASHES:
                if rows := getattr(state, name):
                    pipe.hset(*self.keys(name), mapping=rows)
            for session, rows in state.streams.items():
                (key,) = self.streams([session])
                if rows == BROKEN:
                    pipe.set(key, BROKEN)
                    continue
                for name, relay in rows:
                    pipe.xadd(key, {"r": relay}, id=name)
                for deleted in range(state.added[session] - len(rows)):
                    pipe.xadd(key, {"r": "gone"}, id=f"{100 + deleted}-0")
                    pipe.xdel(key, f"{100 + deleted}-0")
            await pipe.execute()

    async def got(self):
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.mget(*self.keys(*TEXTS))
            for name in HASHES:
                pipe.hgetall(*self.keys(name))
            for key in self.streams(SESSIONS):
                pipe.type(key)
            texts, *rows = plain(await pipe.execute())
        state = Supplier(*[text or "" for text in texts], *rows[: len(HASHES)])
        for session, key, kind in zip(SESSIONS, self.streams(SESSIONS), rows[len(HASHES) :], strict=True):
            if kind == "stream":
                state.streams[session] = [[name, row["r"]] for name, row in plain(await self.redis.xrange(key))]
                state.added[session] = (await self.redis.xinfo_stream(key))["entries-added"]
            elif kind != "none":
                state.streams[session] = BROKEN
        return state


@pytest.mark.parametrize("seed", range(3))
async def test_relays_are_appended_to_sessions_that_are_open_and_registered_in_time(redis, seed):
    chance, store = random.Random(seed), Store(redis)
    for _ in range(20):
        state = drawn(chance)
        rows = [
            (session, chance.choice([0, 1, 9, 10, 11, 20, 21]), [f"new {n}" for n in range(chance.randint(1, 3))])
            for session in chance.sample(SESSIONS, chance.randint(1, 3))
        ]
        await store.put(state)
        arguments = [text for name, end, new in rows for text in (name, f"fresh {name}", end, len(new), *new)]
        names = [name for name, _, _ in rows]
        incarnation, *ids = await store.run(
            lua.APPEND, ("closed", "sessions", "incarnation", "cutoff"), names, "fresh", *arguments
        )
        after, lost = await store.got(), not state.incarnation
        for (name, end, new), found in zip(rows, ids, strict=True):
            if name in state.closed:
                assert found is None
            elif 0 < end <= number(state.cutoff) and name not in state.sessions:
                assert found == 0
            else:
                lost = lost or (name in state.sessions) != (name in state.streams)
                state.sessions.setdefault(name, f"fresh {name}")
                if state.streams.get(name) == BROKEN:
                    assert found == -1
                    continue
                assert found == after.last(name)
                before = state.streams.get(name, [])
                state.streams[name] = [
                    *before,
                    *([row[0], relay] for row, relay in zip(after.streams[name][len(before) :], new, strict=True)),
                ]
                state.added[name] += len(new)
        state.incarnation = "fresh" if lost else state.incarnation
        assert (incarnation, after) == (state.incarnation, state)


@pytest.mark.parametrize("seed", range(3))
async def test_the_states_of_streams_tell_the_closed_the_lost_and_the_deleted(redis, seed):
    chance, store = random.Random(seed), Store(redis)
    for _ in range(13):
        state = drawn(chance)
        await store.put(state)
        got = await store.run(lua.STATES, ("incarnation", "closed", "sessions"), SESSIONS, *SESSIONS)
        assert got == [state.incarnation, *map(state.deleted, SESSIONS)]
        assert await store.got() == state, "it writes nothing"


@pytest.mark.parametrize("seed", range(3))
async def test_ownership_and_the_cutoff_only_rise_and_a_life_is_named_once(redis, seed):
    chance, store = random.Random(seed), Store(redis)
    for _ in range(20):
        state = drawn(chance)
        epoch, confirmed = chance.randint(2, 4), chance.choice(["life", "other"])
        end, limit = chance.choice([9, 10, 11, 21]), chance.choice([9, 10, 30])
        await store.put(state)
        known = number(state.fence)
        got = await store.run(lua.FENCE, ("fence", "incarnation"), (), epoch, confirmed)
        if epoch < known:
            assert got == ["fenced", str(known)]
        elif state.incarnation != confirmed:
            assert got == ["reborn"]
        else:
            assert got == ["ok"]
            state.fence = str(epoch)
        got = await store.run(lua.CUTOFF, ("fence", "cutoff"), (), epoch, end, limit)
        if refused := state.refused(epoch):
            assert got == refused
        else:
            before = number(state.cutoff)
            state.cutoff = str(max(before, end) if before <= limit else end)
            assert got == ["ok", str(before), state.cutoff]
        state.incarnation = state.incarnation or "fresh"
        assert await store.run(lua.LIFE, ("incarnation",), (), "fresh") == state.incarnation
        assert await store.got() == state


@pytest.mark.parametrize("seed", range(3))
async def test_sessions_are_closed_sealed_and_finished_by_their_owner_alone(redis, seed):
    chance, store = random.Random(seed), Store(redis)
    for _ in range(20):
        state, epoch = drawn(chance, broken=False), chance.choice([2, 3, 3, 3, 4])
        state.fence = chance.choice([state.fence, "3"])
        await store.put(state)
        names = chance.sample(SESSIONS, 2)
        server, replication = await redis.info("server"), await redis.info("replication")
        mine = f"{server['run_id']}/{replication['master_replid']}"
        history = chance.choice(["", mine, mine, "another/history"])
        reasons = [text for name in names for text in (name, f"now {name}")]
        got = await store.run(lua.CLOSE, ("fence", "closed"), names, epoch, history, *reasons)
        if refused := state.refused(epoch):
            assert got == refused
        elif history not in ("", mine):
            assert got == ["moved"]
        else:
            assert got == ["ok", *map(state.last, names)]
            state.closed = {name: f"now {name}" for name in names} | state.closed
        assert await store.got() == state
        expected_ids = {name: chance.choice([*[state.last(name)] * 5, "9-9"]) for name in names}
        rows = [text for name in names for text in (name, expected_ids[name], f"new seal {name}")]
        got = await store.run(
            lua.SEAL, ("fence", "closed", "seals", "transactions"), names, epoch, "group", "signed", *rows
        )  # fmt: skip
        existing = [text for name in names if name in state.seals for text in (name, state.seals[name])]
        open_or_stale = next(
            (["open", name] if name not in state.closed else ["stale", name]
             for name in names if name not in state.closed or expected_ids[name] != state.last(name)), None,
        )  # fmt: skip
        if refused := state.refused(epoch) or (existing and ["exists", *existing]) or open_or_stale:
            assert got == refused
        else:
            assert got == ["sealed"]
            state.seals |= {name: f"new seal {name}" for name in names}
            state.transactions["group"] = "signed"
        assert await store.got() == state
        got = await store.run(
            lua.FINISH, ("fence", "closed", "sessions", "seals", "replicated"), names[:1], epoch, names[0], "done/10"
        )
        assert got == (state.refused(epoch) or ["ok"])
        if not state.refused(epoch):
            state.closed[names[0]] = "done/10"
            for rows in (state.sessions, state.seals, state.replicated, state.streams, state.added):
                rows.pop(names[0], None)
        assert await store.got() == state


@dataclass
class Meter:
    """The budgets of sessions: upokt and the ids of requests, with the seconds for which each is kept."""

    consumed: dict[str, list[int]] = field(default_factory=dict)
    served: dict[str, dict[bytes, int]] = field(default_factory=dict)

    def charge(self, charge):
        consumed, kept = self.consumed.get(charge.session_id, [0, None])
        bucket = f"{charge.session_id}:{charge.request_id[:1].hex()}"
        if charge.request_id in self.served.get(bucket, {}):
            return ChargeResult.REPLAYED
        over = charge.budget is not None and consumed + charge.cost > charge.budget
        self.consumed[charge.session_id] = [
            consumed if over else consumed + charge.cost, kept if consumed else charge.keep_seconds
        ]  # fmt: skip
        if over:
            return ChargeResult.OVER_BUDGET
        if charge.request_id:
            rows = self.served.setdefault(bucket, {})
            rows[charge.request_id] = next(iter(rows.values())) if rows else charge.keep_seconds
        return ChargeResult.CHARGED

    def refund(self, charge):
        if charge.session_id in self.consumed:
            self.consumed[charge.session_id][0] -= charge.cost
        bucket = f"{charge.session_id}:{charge.request_id[:1].hex()}"
        self.served.get(bucket, {}).pop(charge.request_id, None)


@pytest.mark.parametrize("seed", range(4))
async def test_charges_that_are_sent_together_count_one_after_the_other(redis, seed):
    chance, meter = random.Random(seed), Meter()
    budgets = Budgets(redis, KEYS)
    await redis.set(KEYS.consumed("supplier", "of text"), "x")
    await redis.hset(KEYS.consumed("supplier", "of another type"), "field", "value")
    await redis.set(KEYS.replays("supplier", "with a broken bucket", 0), "x")
    async with running(budgets):
        for _ in range(6):
            batch = [
                Charge(
                    "supplier", chance.choice(SESSIONS), chance.randint(1, 4), chance.choice([None, 0, 9, 15, 40]),
                    100 * chance.randint(1, 9), chance.choice([b"", b"", b"\x01a", b"\x01b", b"\x02a"]),
                )
                for _ in range(chance.randint(1, 12))
            ]  # fmt: skip
            broken = [
                Charge("supplier", name, 1, None, KEEP, b"\0")
                for name in ("of text", "of another type", "with a broken bucket")
            ]
            whole = [*batch[:3], *broken, *batch[3:]]
            got = await asyncio.gather(*map(budgets.charge, whole), return_exceptions=True)
            expected = [meter.charge(charge) for charge in batch]
            assert [type(row) for row in got[len(batch[:3]) :][:3]] == [RedisUnavailable] * 3
            assert [row for row in got if isinstance(row, ChargeResult)] == expected
            charged = [charge for charge, result in zip(batch, expected, strict=True) if result is ChargeResult.CHARGED]
            for charge in chance.sample(charged, len(charged) // 3):
                budgets.refund(charge)
                meter.refund(charge)
            await budgets.drain()
            for name in SESSIONS:
                await holds(redis, meter, name)
        never = Charge("supplier", "never", 5, None, KEEP, b"")
        budgets.refund(never)
        await budgets.drain()
        assert not await redis.exists(KEYS.consumed("supplier", "never")), "what was not charged is not refunded"


@contextlib.asynccontextmanager
async def running(budgets):
    task = asyncio.create_task(budgets.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def holds(redis, meter, name):
    consumed, key = meter.consumed.get(name), KEYS.consumed("supplier", name)
    assert plain(await redis.get(key)) == (consumed and str(consumed[0]))
    assert consumed is None or consumed[1] - 2 <= await redis.ttl(key) <= consumed[1]
    assert not await redis.exists(KEYS.replays("supplier", name, 0)), "a request without an id is not remembered"
    for first in (1, 2):
        rows, key = meter.served.get(f"{name}:{first:02x}", {}), KEYS.replays("supplier", name, first)
        assert set(await redis.hkeys(key)) == set(rows)
        assert not rows or min(rows.values()) - 2 <= await redis.ttl(key) <= min(rows.values())


@pytest.mark.parametrize("seed", range(3))
async def test_each_lease_is_written_if_it_is_still_the_one_that_was_read(redis, seed):
    chance = random.Random(seed)
    for _ in range(6):
        await redis.delete("leases")
        before = {name: chance.choice("ab") for name in SESSIONS if chance.random() < 0.6}
        if before:
            await redis.hset("leases", mapping=before)
        writes = [
            (name, chance.choice(["", "a", "b"]), f"new {name}")
            for name in chance.sample(SESSIONS, chance.randint(1, 3))
        ]
        taken = await _WRITE.run(redis, ["leases"], [text for row in writes for text in row])
        assert taken == [int(before.get(name, "") == known) for name, known, _ in writes]
        won = {name: new for (name, _, new), mine in zip(writes, taken, strict=True) if mine}
        assert plain(await redis.hgetall("leases")) == before | won


async def test_blocks_and_invalidations_reach_their_channels_and_are_numbered_and_kept(redis):
    block, got = Block(7, b"h" * 32, Timestamp.of_nanoseconds(7)), []
    async with redis.pubsub(ignore_subscribe_messages=True) as listener, asyncio.timeout(20):
        await listener.subscribe(KEYS.blocks, KEYS.cache_invalidations)
        assert await _PUBLISH.run(redis, [KEYS.block], [KEYS.blocks, "first"]) == 1, "a reply of its form"
        await LatestBlockPublisher(redis, KEYS).publish(block)
        versions = [await publish_invalidation(redis, KEYS, None) for _ in range(2)]
        while len(got) < 4:
            if row := await listener.get_message(timeout=5):
                got.append((plain(row["channel"]), plain(row["data"])))
    forget = [(KEYS.cache_invalidations, f'{{"forget": "","version":{version}}}') for version in (1, 2)]
    assert got == [(KEYS.blocks, "first"), (KEYS.blocks, encode_block(block)), *forget]
    assert versions == [1, 2]
    assert plain(await redis.mget(KEYS.block, KEYS.cache_version)) == [encode_block(block), "2"]


async def test_each_refund_of_a_batch_frees_its_own_request(redis):
    budgets = Budgets(redis, KEYS)
    charges = [Charge("supplier", "one", 1, None, KEEP, identity) for identity in (b"\1a", b"\1b", b"\1c", b"", b"\1d")]
    async with running(budgets):
        for order in (charges, charges[::-1]):
            assert await asyncio.gather(*map(budgets.charge, order)) == [ChargeResult.CHARGED] * 5
            for charge in order:
                budgets.refund(charge)
            await budgets.drain()
            assert plain(await redis.get(KEYS.consumed("supplier", "one"))) == "0"
            assert await redis.hkeys(KEYS.replays("supplier", "one", 1)) == []
