"""What is read from Redis's replies about a supplier's streams and about Leases, whatever their form."""

from datetime import UTC, datetime

import pytest

from pocket.coordination.elector import LeaseRecord
from pocket.coordination.stores.lease_store import LeaseConflict, LeaseUnavailable, LeaseWrite, StoredLease
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.redis_leases import RedisLeaseStore
from pocket.redis_store.store_errors import CommandRejected, RedisUnavailable
from pocket.redis_store.stream_reader import Entry, StreamPoll, StreamReader, incarnation_of, origin_of

KEYS, SUPPLIER = RedisKeys("replies"), "pokt1a"
POSITIONS = {"one": "5-0", "two": "0-0"}


def stream(name):
    return KEYS.stream(SUPPLIER, name).encode()


class Redis:
    """Gives the replies of a test, and notes the keys and arguments."""

    def __init__(self, *replies):
        self.replies, self.asked = list(replies), []

    def _reply(self, *given):
        self.asked.append(given)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def evalsha(self, digest, number, *given):
        return self._reply(*given)

    async def hmget(self, name, fields):
        return self._reply(name, fields)

    async def execute_command(self, *command):
        return self._reply(*command)


ROWS = {stream("one"): [(b"6-0", {b"r": b"relay"}), (b"7-0", {})], stream("two"): [(b"1-0", {b"x": b"odd"})]}
PAIRS = [[stream("one"), [[b"6-0", [b"r", b"relay"]], [b"7-0", []]]], [stream("two"), [[b"1-0", [b"x", b"odd"]]]]]
READ = {"one": [Entry("6-0", b"relay")], "two": [Entry("1-0", b"")]}


@pytest.mark.parametrize(("reply", "read"), [(ROWS, READ), (PAIRS, READ), (None, {}), ([], {}), ({}, {})])
@pytest.mark.parametrize(
    ("sessions", "registered", "headers"),
    [(3, 3, None), ({b"one": b"header", b"odd": 7}, 1, {"one": b"header"}), ({}, 0, {})],
)
def test_a_poll_has_the_life_the_sessions_and_the_entries_of_each_stream(reply, read, sessions, registered, headers):
    reader = StreamReader(None, KEYS, SUPPLIER)
    assert reader.read_poll([b"life", sessions, reply], POSITIONS) == StreamPoll("life", registered, headers, read)
    assert reader.read_poll([None, sessions], {}) == StreamPoll("", registered, headers, {})


@pytest.mark.parametrize("at", range(3))
def test_a_poll_of_which_one_command_failed_shows_nothing(at):
    replies = [b"life", 3, ROWS]
    replies[at] = CommandRejected("another type")
    with pytest.raises(CommandRejected):
        StreamReader(None, KEYS, SUPPLIER).read_poll(replies, POSITIONS)


@pytest.mark.parametrize(
    ("deleted", "lost"), [(None, False), (0, False), (1, True), (-1, True)], ids=["closed", "whole", "deleted", "gone"]
)
async def test_a_stream_is_lost_if_it_is_gone_or_lacks_entries_and_its_session_is_open(deleted, lost):
    redis = Redis([b"life", 0, deleted])
    assert await StreamReader(redis, KEYS, SUPPLIER).lost(POSITIONS) == ({"two"} if lost else set())
    assert redis.asked[0][3:5] == (KEYS.stream(SUPPLIER, "one"), KEYS.stream(SUPPLIER, "two"))
    for reply in ([b"life", 0], [b"life", 0, b"text"], [b"life", 0, 0, 0]):
        with pytest.raises(RedisUnavailable):
            await StreamReader(Redis(reply), KEYS, SUPPLIER).lost(POSITIONS)


async def test_a_session_is_finished_by_its_tombstone_and_not_by_being_closed():
    redis = Redis([b"done/10", b"sealing/10", None, b"", b"undone/10"])
    names = ["a", "b", "c", "d", "e"]
    assert await StreamReader(redis, KEYS, SUPPLIER).finished(names) == {"a"}
    assert redis.asked == [(KEYS.closed(SUPPLIER), names)]
    assert await StreamReader(Redis(), KEYS, SUPPLIER).finished([]) == set()


async def test_only_streams_that_redis_refuses_are_left_out_of_reading():
    redis = Redis({stream("one"): ROWS[stream("one")]}, CommandRejected("another type"))
    assert await StreamReader(redis, KEYS, SUPPLIER).rejected(POSITIONS) == {"two"}
    assert [command[-1] for command in redis.asked] == ["5-0", "0-0"]
    with pytest.raises(RedisUnavailable):
        await StreamReader(Redis(RedisUnavailable("away")), KEYS, SUPPLIER).rejected(POSITIONS)


@pytest.mark.parametrize(("history", "known"), [("", False), ("connections/3", False), ("run/replica", True)])
def test_an_origin_names_the_life_and_the_history_that_redis_reports(history, known):
    origin = origin_of("life", history)
    assert (origin != "life", incarnation_of(origin)) == (known, "life")
    assert origin == origin_of("life", history)
    assert not known or origin != origin_of("life", history + "2")


RECORD = LeaseRecord("one", 15, datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC), 3)


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_each_lease_has_its_own_answer_and_all_are_unknown_without_one(number):
    writes = [LeaseWrite(f"lease-{row}", RECORD, None) for row in range(number)]
    store = RedisLeaseStore(Redis([1] + [0] * (number - 1)), "leases", call_seconds=5.0)
    first, *others = await store.write_all(writes)
    assert first == StoredLease(RECORD, first.version)
    assert [type(row) for row in others] == [LeaseConflict] * (number - 1)
    away = RedisLeaseStore(Redis(RedisUnavailable("away")), "leases", call_seconds=5.0)
    assert [type(row) for row in await away.write_all(writes)] == [LeaseUnavailable] * number
