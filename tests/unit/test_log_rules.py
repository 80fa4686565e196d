"""When relays of a relayer's log are owed to Redis, appended again, safe or refused. Pure, over a log in memory."""

import asyncio
from itertools import zip_longest
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.api.redis import Durability
from pocket.redis_store.log_histories import LogHistories
from pocket.redis_store.log_positions import (
    BATCH_BYTES,
    append_arguments,
    appended_at,
    appended_rows,
    chunks,
    reached,
    read_marks,
    segment_took,
    stream_id,
)
from pocket.redis_store.log_records import WalRecord
from pocket.redis_store.notifications import NotificationReader, RelayNotifier
from pocket.redis_store.prefix_owner import PrefixInUse, PrefixOwner, claim_prefix
from pocket.redis_store.recorder_types import AppendRefusal
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.server_info import PrimaryStates, RedisInfo, combine, read_info
from pocket.redis_store.store_errors import CommandRejected, RedisTrouble, RedisUnavailable
from pocket.redis_store.stream_losses import StreamLosses, deleted_entries, states_arguments
from pocket.redis_store.stream_reader import incarnation_of, origin_of
from pocket.redis_store.write_ahead_log import Segment

KEYS = RedisKeys("log")
ALICE, BOB = ("alice", "s"), ("bob", "t")


def info(history="h", *, memory=0, most=0, policy="noeviction", aof=True, uptime=9, time=7, durability=None):
    return RedisInfo(history, aof, policy, memory, most, uptime, time, durability)


def segment(**more):
    return Segment(Path("x"), **{"sessions": {ALICE, BOB}, **more})


def histories(known="h", away=()):
    return LogHistories(None, KEYS, {None: known} if known else {}, set(away))


@pytest.mark.parametrize(
    ("known", "written", "due"),
    [("h", {"alice": "h", "bob": "h"}, set()), ("h", {"alice": "h"}, {"bob"}), ("h", {"alice": "g"}, {"alice", "bob"}),
     ("", {"alice": "", "bob": "h"}, {"alice", "bob"})],
)  # fmt: skip
def test_relays_are_due_until_they_were_appended_to_the_present_history(known, written, due):
    made, of = segment(histories=written), histories(known)
    assert {name for name in ("alice", "bob") if of.is_due(made, name)} == due
    assert of.due_sessions(made) == {pair for pair in (ALICE, BOB) if pair[0] in due}
    assert of.owed([made]) == due
    appended = segment(histories=written, appended={ALICE: "o/1-1", BOB: "o/1-1"})
    assert of.appended([appended]) == {pair for pair in (ALICE, BOB) if pair[0] not in due}
    unsure = segment(histories=written, appended={ALICE: "o/1-1"}, unacknowledged={ALICE})
    assert ALICE not in of.appended([unsure])
    assert of.owed([unsure]) == {"alice", *due}
    assert of.owed([segment(histories=written, replaying={BOB})]) == {"bob", *due}
    for damaged in (segment(histories=written, damaged=True, unacknowledged={ALICE}, appended={ALICE: "o/1-1"}),):
        assert (of.owed([damaged]), of.appended([damaged])) == (set(), set()), "nothing can be read of it"


def test_what_a_primary_that_is_away_should_have_waits_until_it_is_back():
    of = histories()
    assert not of.is_away("alice")
    of.set_away("alice")
    assert of.is_away("alice")
    assert of.due_sessions(segment()) == set()
    of.observe(PrimaryStates({None: info("i")}))
    assert (of.of("alice"), of.is_away("alice"), of.due_sessions(segment())) == ("i", False, {ALICE, BOB})
    of.observe(PrimaryStates({}, frozenset({None})))
    assert (of.of("alice"), of.is_away("alice")) == ("i", True)


@pytest.mark.parametrize(
    ("pending", "later", "mark", "safe"),
    [(0, "h", "o/5-0", True), (1, "h", "o/5-0", False), (0, "i", "o/5-0", False), (0, "h", "o/4-9", False),
     (0, "h", "p/9-0", False), (0, "h", "", False)],
)  # fmt: skip
def test_a_segment_is_safe_once_every_session_is_on_a_volume_in_one_history(pending, later, mark, safe):
    made = segment(
        pending=pending, histories={"alice": "h", "bob": "h"}, appended={ALICE: "o/5-0", BOB: "o/5-0"}
    )  # fmt: skip
    of, state = histories(), PrimaryStates({None: info(later)})
    assert of.safe([made], {ALICE: (mark, ""), BOB: ("o/5-0", "")}, state) == [made] * safe
    assert of.safe([made], {ALICE: (mark, "")}, state) == [], "nothing was read of bob"
    assert of.unchanged(state, "alice") == ("h" if later == "h" else None)


record = st.builds(
    lambda size: WalRecord("alice", "s", b"h", bytes(size), 10), st.sampled_from([0, 1, BATCH_BYTES // 2])
)


@given(st.lists(record, max_size=12), st.integers(0, 600))
def test_chunks_hold_all_records_in_order_and_are_as_large_as_they_may_be(some, many):
    records = [*some, *[WalRecord("alice", "s", b"h", b"", 10)] * many]
    made = list(chunks(records))
    assert [row for chunk in made for row in chunk] == records
    for chunk, following in zip_longest(made, made[1:]):
        before = sum(len(row.relay) for row in chunk[:-1])
        assert 1 <= len(chunk) <= 256
        assert before < BATCH_BYTES
        if following is not None:
            assert len(chunk) == 256 or before + len(chunk[-1].relay) >= BATCH_BYTES


def test_the_script_that_appends_gets_the_sessions_with_their_ends_and_numbers_of_relays():
    one, two = WalRecord("alice", "s", b"head", b"1", 10), WalRecord("alice", "s", b"head", b"2", 10)
    other = WalRecord("alice", "t", b"hat", b"3", 20)
    names, arguments = append_arguments(KEYS, "alice", {"s": [one, two], "t": [other]}, "life")
    assert names == [
        KEYS.closed("alice"), KEYS.sessions("alice"), KEYS.incarnation("alice"), KEYS.cutoff("alice"),
        KEYS.stream("alice", "s"), KEYS.stream("alice", "t"),
    ]  # fmt: skip
    assert arguments == ["life", "s", b"head", 10, 2, b"1", b"2", "t", b"hat", 20, 1, b"3"]


@pytest.mark.parametrize("row", [b"", b"1", b"1-", b"a-1", 1, -2, "1-1", b"1-1\n", [], True])
def test_only_the_id_of_an_entry_shows_that_relays_are_in_their_stream(row):
    assert appended_rows([b"life", b"5-0", None, 0, -1]) == ("life", [b"5-0", None, 0, -1])
    for reply in ([b"life", row], [b"life", b"5-0", row]):
        with pytest.raises(RedisUnavailable):
            appended_rows(reply)
    with pytest.raises(RedisUnavailable):
        appended_rows(["life", b"5-0"])


def test_the_servers_time_is_that_of_the_latest_entry():
    assert appended_at([b"1500-3", None, b"2500-0", 0, -1]) == 2.5
    assert appended_at([None, 0, -1]) is None


@pytest.mark.parametrize(
    ("last", "refusal", "rejected", "unsure"),
    [(b"7-0", None, False, False), (None, AppendRefusal.CLOSED, False, False), (0, AppendRefusal.CLOSED, True, False),
     (-1, AppendRefusal.REJECTED, False, True)],
)  # fmt: skip
def test_a_session_that_took_no_relay_is_closed_past_the_cutoff_or_refused(last, refusal, rejected, unsure):
    made = segment()
    assert segment_took(made, ALICE, last, "o", is_present=True) is refusal
    assert (ALICE in made.rejected, ALICE in made.unacknowledged) == (rejected, unsure)
    assert made.appended == ({ALICE: "o/7-0"} if refusal is None else {})


ids = st.tuples(st.integers(0, 3), st.integers(0, 3))


@given(ids, ids, st.booleans())
def test_an_offset_covers_another_of_its_origin_that_is_not_later(left, right, same):
    theirs, ours = ("{}/{}-{}".format(origin, *at) for origin, at in (("o", left), ("o" if same else "p", right)))
    assert reached(theirs, ours) == (same and left >= right)
    assert stream_id("{}-{}".format(*left)) == left
    assert stream_id(str(left[0])) == (left[0], 0)
    assert not reached("o/x", ours)


class Memory:
    """A Redis whose pipelines give what the test sets, and whose keys hold text."""

    def __init__(self, *rows, away=0):
        self.rows, self.asked, self.values, self.away, self.blocked = list(rows), [], {}, away, []

    def pipeline(self, *, transaction):
        return self

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        return

    def __getattr__(self, name):
        return lambda *arguments, **more: self.asked.append((name, *arguments))

    async def execute(self, *, raise_on_error=True):
        if self.away:
            raise RedisUnavailable("away")
        return self.rows.pop(0) if self.rows else []

    async def evalsha(self, digest, number, *arguments):
        """Give the next row of what the test set first."""
        row = self.rows[0].pop(0)
        self.rows = self.rows if self.rows[0] else self.rows[1:]
        if isinstance(row, Exception):
            raise CommandRejected(str(row))
        return row

    async def get(self, name):
        if self.away:
            self.away -= 1
            raise RedisUnavailable("away", RedisTrouble.UNREACHABLE)
        return self.values.get(name)

    async def set(self, name, value, *, nx):
        assert nx
        self.values.setdefault(name, value.encode())

    async def xrevrange(self, name, count):
        return self.values.get(name, [])

    async def xread(self, streams, count, block):
        self.blocked.append((dict(streams), block))
        return self.rows.pop(0)


async def test_the_marks_of_a_supplier_whose_rows_cannot_be_read_are_missing():
    memory = Memory([[b"o/1-0", None], [None, b"done/5"], OSError("x"), [None], [b"o/2-0"], ValueError("y")])
    pairs = [("alice", "s"), ("alice", "t"), ("bob", "s"), ("carol", "s")]
    assert await read_marks(memory, KEYS, pairs) == {("alice", "s"): ("o/1-0", ""), ("alice", "t"): ("", "done/5")}
    assert memory.asked[:2] == [
        ("hmget", KEYS.replicated("alice"), ["s", "t"]), ("hmget", KEYS.closed("alice"), ["s", "t"]),
    ]  # fmt: skip
    assert await read_marks(Memory(), KEYS, []) == {}


def test_the_history_is_part_of_an_origin_only_where_redis_reports_it():
    assert origin_of("life", "") == origin_of("life", "connections/3") == "life"
    one, two = origin_of("life", "h"), origin_of("life", "i")
    assert len({one, two, "life"}) == 3
    assert incarnation_of(one) == incarnation_of("life") == "life"


@pytest.mark.parametrize(
    ("rows", "lost"),
    [([b"life", 0], False), ([b"other", 0], True), ([b"life", -1], True), ([b"life", 2], True),
     ([b"life", None], False), ([b"life"], False), ("odd", False), ([b"life", b"x"], False), (OSError("x"), False)],
)  # fmt: skip
async def test_a_stream_lost_relays_where_redis_says_so_and_unreadable_rows_show_nothing(rows, lost):
    losses = StreamLosses(Memory([rows, [b"bob's", 0]]), KEYS)
    found = await losses.find({"alice": "life", "bob": "bob's"}, [ALICE, BOB])
    assert found == ({"alice"} if lost else set())


async def test_deleted_entries_are_a_loss_once_and_only_more_of_them_are_another():
    memory = Memory(*([[b"life", number]] for number in (0, 2, 2, 3, None, 3, 1, -1)))
    losses, found = StreamLosses(memory, KEYS), []
    for _ in range(8):
        found.append(bool(await losses.find({"alice": "life"}, [ALICE, BOB])))
    assert found == [False, True, False, True, False, False, False, True]
    assert await losses.find({}, [ALICE]) == set()
    names, arguments = states_arguments(KEYS, "alice", ["s"])
    assert (names[:3], names[3:], arguments) == (
        [KEYS.incarnation("alice"), KEYS.closed("alice"), KEYS.sessions("alice")], [KEYS.stream("alice", "s")], ["s"],
    )  # fmt: skip
    assert deleted_entries([b"", 1, None], 2) == [1, None]
    with pytest.raises(RedisUnavailable):
        deleted_entries([b"", 1], 2)


async def test_a_prefix_belongs_to_the_first_relay_miner_and_its_record_stays():
    memory = Memory()
    for _ in range(2):
        await claim_prefix(memory, KEYS, "ns/one")
    assert memory.values == {KEYS.owner: b"ns/one"}
    with pytest.raises(PrefixInUse, match=f"belongs to RelayMiner ns/one, not to ns/two.*DEL {KEYS.owner}"):
        await claim_prefix(memory, KEYS, "ns/two")
    memory.values[KEYS.owner] = b""
    await claim_prefix(memory, KEYS, "ns/two")
    owner = PrefixOwner(Memory(away=1), KEYS, "ns/one")
    with pytest.raises(RedisUnavailable):
        await owner.claim()
    assert not owner.claimed
    await owner.claim()
    assert owner.claimed
    later = PrefixOwner(Memory(away=2), KEYS, "ns/one")
    async with asyncio.timeout(5):
        await later.run(0.0)
    assert (later.claimed, later.redis.values) == (True, {KEYS.owner: b"ns/one"})


async def test_owners_are_told_of_a_supplier_once_a_second_by_the_stream_of_its_shard():
    now, memory = [100.0], Memory()
    notifier = RelayNotifier(memory, KEYS, len, lambda: now[0])
    for seconds in (0.0, 0.9, 0.2):
        now[0] += seconds
        await notifier.notify(["alice", "bob"])
    told = [("xadd", KEYS.notifications(len(name)), {"s": name}) for name in ("alice", "bob")]
    assert memory.asked == [*told, *told]
    await RelayNotifier(Memory(away=1), KEYS, len, lambda: 0.0).notify(["alice"])


async def test_a_reader_follows_its_shards_from_the_last_entry_and_forgets_the_others():
    two, three = KEYS.notifications(2), KEYS.notifications(3)
    entries = [[(two.encode(), [(b"9-0", {b"s": b"bob"}), (b"9-1", {b"s": b"eve"})])], [], []]
    memory = Memory(*entries)
    memory.values[two] = [(b"5-0", {})]
    reader = NotificationReader(memory, KEYS)
    assert await reader.read([2, 3], 70) == {"bob", "eve"}
    assert await reader.read([2]) == set()
    assert await reader.read([]) == set()
    assert await reader.read([2]) == set()
    assert memory.blocked == [({two: "5-0", three: "0-0"}, 70), ({two: "9-1"}, 5000), ({two: "5-0"}, 5000)]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [({}, None), ({"policy": "allkeys-lru"}, "evicts keys"), ({"aof": False}, "no append-only file"),
     ({"aof": False, "durability": Durability.AOF}, "no append-only file"),
     ({"aof": False, "durability": Durability.MANAGED}, None), ({"aof": False, "durability": Durability.NONE}, None),
     ({"policy": "volatile-ttl", "durability": Durability.NONE}, "evicts keys")],
)  # fmt: skip
def test_a_redis_may_hold_relays_if_it_keeps_them_or_its_owner_states_so(fields, problem):
    found = info(**fields).problem()
    assert (found is None) == (problem is None)
    assert found is None or problem in found


def test_of_several_primaries_the_worst_of_each_fact_counts_and_no_limit_is_never_full():
    one = info("b", memory=80, most=100, uptime=5, time=9)
    two = info("a", memory=90, most=1000, aof=False, policy="allkeys-lru", uptime=7, time=3)
    for rows in ([one, two], [two, one]):
        found = combine(rows)
        assert (found.history_id, found.append_only, found.eviction_policy) == ("a,b", False, "allkeys-lru")
        assert (found.memory_ratio(), found.uptime_seconds, found.server_time_microseconds) == (0.8, 5, 9)
    assert info(memory=5).memory_ratio() == 0.0
    assert PrimaryStates({None: one}).histories == {None: "b"}


WHOLE = {"run_id": "r", "master_replid": "m", "aof_enabled": 1, "maxmemory_policy": "noeviction", "used_memory": 5,
         "maxmemory": 10, "uptime_in_seconds": 3, "server_time_usec": 4}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "durability", "trouble"),
    [({"loading": 1}, None, RedisTrouble.LOADING), ({"role": "slave"}, None, RedisTrouble.REPLICA),
     ({"aof_enabled": None}, None, RedisTrouble.REJECTED), ({"run_id": None}, None, RedisTrouble.REJECTED),
     ({"run_id": None}, Durability.NONE, None), ({"aof_enabled": None}, Durability.AOF, None), ({}, None, None)],
)  # fmt: skip
def test_an_answer_to_info_is_used_only_if_it_can_be_relied_on(changes, durability, trouble):
    row = {name: value for name, value in {**WHOLE, **changes}.items() if value is not None}
    if trouble is not None:
        with pytest.raises(RedisUnavailable) as raised:
            read_info(row, durability)
        assert raised.value.trouble is trouble
        return
    found = read_info(row, durability, "guess")
    assert found.history_id == ("r/m" if "run_id" in row else "guess")
    assert found.append_only is True
    assert (found.used_memory, found.max_memory, found.uptime_seconds, found.server_time_microseconds) == (5, 10, 3, 4)
    empty = read_info({}, Durability.NONE)
    assert (empty.append_only, empty.eviction_policy, empty.memory_ratio()) == (False, "noeviction", 0.0)
    assert (empty.uptime_seconds, empty.server_time_microseconds, empty.used_memory) == (0, 0, 0)
