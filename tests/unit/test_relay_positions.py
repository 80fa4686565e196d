"""From where a supplier's streams are read, and when a position may move."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest
from prometheus_client import REGISTRY

from pocket.errors import ChainUnavailable
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket.redis_store.seals import SessionSeal
from pocket.redis_store.store_errors import CommandRejected, RedisTrouble, RedisUnavailable
from pocket.redis_store.stream_reader import Entry, StreamPoll, origin_of
from pocket_miner.ingest import relay_consumer
from pocket_miner.ingest.consume_rounds import Check, ConsumeRounds, ReadRequest, SessionRead, _next_round
from pocket_miner.ingest.relay_consumer import RelayConsumer
from pocket_miner.relay_rows import Leaf
from pocket_miner.sessions.evidence import Fact, Statement
from pocket_miner.sessions.leaf_validation import LeafTerms
from pocket_miner.sessions.recorded_terms import encode_params
from pocket_miner.sessions.terms import SessionTerms
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.storage.disk_reserve import VolumeFull
from pocket_miner.storage.relay_store import RelayStore
from pocket_miner.suppliers import factory
from pocket_miner.suppliers.factory import SupplierFactory

HISTORY = "history"
HERE = origin_of("one", HISTORY)


def header(name):
    return SessionHeader("app", "eth", name, 1, 10)


def terms(name):
    return LeafTerms("alice", header(name), b"\xff" * 32, 100)


def session(name, *, known=True, position="5-0", origin=HERE):
    return TrackedSession(header(name), position, origin, terms=terms(name) if known else None)


@dataclass
class Tail:
    """Streams in Redis, and which of them Redis refuses to read."""

    supplier: str = "alice"
    redis: object = None
    life: str = "one"
    registered: dict = field(default_factory=dict)
    refused: frozenset = frozenset()

    async def incarnation(self):
        return self.life

    async def sessions(self):
        return self.registered

    async def rejected(self, positions):
        return self.refused.intersection(positions)


@dataclass
class Rounds:
    """Notes what is asked to be read, and fails where a test says so."""

    errors: list = field(default_factory=list)
    asked: list = field(default_factory=list)

    async def join(self, request, count=None):
        self.asked.append((request.positions, request.check, count))
        if self.errors:
            raise self.errors.pop()
        return 3


@pytest.fixture
def consumer(tmp_path):
    """Return a function that makes a consumer of some sessions which has read streams of this history."""
    stores = []

    def made(*sessions, **options):
        stores.append(RelayStore(tmp_path))
        tail, rounds = options.pop("tail", Tail()), Rounds()
        rows = {row.session_id: row for row in sessions}
        reads = RelayConsumer(tail, stores[-1], None, rows, history_id=lambda: HISTORY, rounds=rounds, **options)
        reads._incarnation, reads._origin, reads._registered = "one", HERE, len(rows)
        return reads, rounds

    yield made
    for store in stores:
        store.close()


async def test_only_sessions_whose_terms_are_known_and_whose_stream_is_readable_are_read(consumer):
    reads, rounds = consumer(session("a"), session("b", known=False), session("c", position="9-1"))
    reads._unreadable.add("c")
    assert reads._request(Check.NUMBER).positions == {"a": "5-0"}
    reads.reread(["c"])
    assert reads._request(Check.IDS).positions == {"a": "5-0", "c": "0-0"}
    reads.reread()
    assert reads._request(Check.IDS).positions == {"a": "0-0", "c": "0-0"}
    assert rounds.asked == []


@pytest.mark.parametrize("sealed", [False, True])
async def test_other_terms_validate_and_read_again_what_is_not_sealed(consumer, monkeypatch, sealed):
    stated = replace(terms("a"), compute_units_per_relay=7)

    async def every_node(*_):
        return {f"node {n}": (12, SessionTerms(SharedParams(), stated)) for n in range(2)}

    monkeypatch.setattr(relay_consumer, "ask_terms_of_every_node", every_node)
    known = session("a")
    reads, _ = consumer(known)
    file, name = reads._relay_store.file(10), terms("a").name
    file.add_session("alice", "a", header("a").encode())
    file.add("alice", "a", [Leaf(bytes(32), b"digest", 100, b"of no relay")], name)
    known.seal = SessionSeal("a", bytes(48), bytes(32), 13, 1) if sealed else None
    assert await reads.confirm_terms(known, 12)
    assert (file.count("alice", "a"), known.position, known.terms) == ((1, "5-0") if sealed else (0, "0-0")) + (stated,)


def poll(**changes):
    usual = {"incarnation": "one", "registered": 2, "headers": None, "entries": {}}
    return StreamPoll(**(usual | changes))


ENTRIES = [Entry("6-0", b"x"), Entry("7-0", b"y")]


@pytest.mark.parametrize(
    ("check", "changes", "taken"),
    [
        (Check.NOTHING, {}, True),
        (Check.NOTHING, {"registered": 3}, True),
        (Check.NOTHING, {"incarnation": "two"}, False),
        (Check.NUMBER, {}, True),
        (Check.NUMBER, {"registered": 3}, False),
        (Check.IDS, {"registered": 3, "headers": {"a": b"", "b": b""}}, True),
        (Check.IDS, {"headers": {"a": b"", "new": b""}}, False),
        (Check.IDS, {"headers": {"a": b"", "damaged": b""}}, True),
    ],
)
def test_what_is_read_counts_unless_redis_holds_other_streams_or_new_sessions(consumer, check, changes, taken):
    reads, _ = consumer(session("a"), session("b"))
    reads._damaged.add("damaged")
    request = reads._request(check)
    found = reads.accept(request, poll(entries={"a": ENTRIES}, **changes), 2)
    assert (found is not None) is taken
    if taken:
        assert [(row.session.session_id, row.entries, row.origin) for row in found] == [("a", ENTRIES, HERE)]
        assert reads._registered == (poll(**changes).registered if check is Check.IDS else 2)
    reads.reread(["b"])
    assert reads.accept(request, poll(entries={"a": ENTRIES}, **changes), 2) is None, "a reread was requested since"


@pytest.mark.parametrize(("count", "behind"), [(1, True), (2, True), (3, False)])
def test_a_session_is_behind_after_a_full_read_until_one_that_finds_nothing(consumer, count, behind):
    a, b = session("a"), session("b")
    reads, _ = consumer(a, b)
    b.behind = True
    request = reads._request(Check.NOTHING)
    found = reads.accept(request, poll(entries={"a": ENTRIES, "gone": ENTRIES}), count)
    assert [row.session for row in found] == [a]
    reads.advance(request, found)
    assert (a.behind, b.behind, a.position, a.origin) == (behind, False, "7-0", HERE)


@pytest.mark.parametrize("owner", [True, False])
@pytest.mark.parametrize("reread", [True, False])
def test_a_position_moves_unless_a_reread_was_requested_and_an_owner_alone_publishes_it(consumer, owner, reread):
    a = session("a", origin="former")
    reads, _ = consumer(a, owner=owner)
    request = reads._request(Check.NOTHING)
    if reread:
        reads.reread()
    marks = reads.advance(request, [SessionRead(a, a.terms, ENTRIES, HERE, behind=False, added=2)])
    assert (a.position, a.origin) == (("0-0", "former") if reread else ("7-0", HERE))
    assert marks == ({"a": f"{HERE}/7-0"} if owner and not reread else {})


@pytest.mark.parametrize(
    ("known_life", "life", "origin", "lost", "position"),
    [
        ("one", "one", HERE, False, "5-0"),
        ("one", "two", HERE, True, "0-0"),
        (None, "one", HERE, False, "5-0"),
        (None, "two", HERE, True, "0-0"),
        (None, "one", "", False, "0-0"),
        ("one", "one", origin_of("one", "former history"), False, "5-0"),
    ],
)
async def test_streams_of_another_life_of_redis_are_read_from_their_start(
    consumer, known_life, life, origin, lost, position
):
    a = session("a", origin=origin)
    reads, _ = consumer(a, tail=Tail(life=life, registered={"a": header("a").encode()}))
    reads._incarnation = known_life
    if known_life is None:
        reads._origin = ""
    generation = reads._generation
    assert await reads.discover({}) is lost
    assert a.position == position
    assert (reads._generation > generation) is (known_life != life)
    assert (reads._incarnation, reads.origin) == (life, origin_of(life, HISTORY))


async def test_registered_sessions_are_tracked_unless_they_ended_and_those_are_told(consumer):
    rows = {name: header(name).encode() for name in ("known", "new", "ended")} | {"wrong": header("other").encode()}
    known = session("known")
    reads, _ = consumer(known, tail=Tail(registered=rows))
    await reads.discover({"ended": 10})
    assert set(reads._sessions) == {"known", "new"}
    assert reads._sessions["known"] is known
    assert reads.revived({"ended": 10, "other": 20}) == [("ended", 10)]
    assert reads._damaged == {"wrong"}
    assert (reads._registered, reads._relay_store.file(10).has("alice", "new")) == (4, True)


@pytest.mark.parametrize(
    ("changes", "read"),
    [({}, 3), ({"incarnation": None}, None), ({"full": True}, None), ({"unknown": True}, None), ({"rejected": True}, 3),
     ({"error": CommandRejected("another type")}, None)],
)  # fmt: skip
async def test_a_round_is_joined_where_nothing_else_must_be_read_before(consumer, changes, read):
    b = session("b", known=not (changes.keys() & {"unknown", "rejected"}))
    if "rejected" in changes:
        b.evidence.add(Statement(Fact.NOT_IN_SESSION, "node", 3))
    reads, rounds = consumer(session("a"), b, volume_full=lambda: "full" in changes)
    reads._incarnation = changes.get("incarnation", "one")
    rounds.errors += [changes["error"]] if "error" in changes else []
    assert await reads.poll(Check.IDS) == read
    assert bool(rounds.asked) is (read is not None or "error" in changes)


async def test_a_stream_that_redis_refuses_keeps_no_other_from_being_read(consumer):
    refusal = CommandRejected("another type")
    reads, rounds = consumer(session("a"), session("b"), tail=Tail(refused=frozenset({"b"})))
    rounds.errors.append(refusal)
    assert await reads.consume_once(7) == 3
    assert rounds.asked == [
        ({"a": "5-0", "b": "5-0"}, Check.NOTHING, 7), ({"a": "5-0"}, Check.NOTHING, 7),
    ]  # fmt: skip
    assert reads._damaged == {"b"}
    reads, rounds = consumer(session("a"))
    rounds.errors.append(refusal)
    with pytest.raises(CommandRejected):
        await reads.consume_once()
    reads, rounds = consumer(session("a"), volume_full=lambda: True)
    with pytest.raises(VolumeFull):
        await reads.consume_once()
    assert rounds.asked == []


async def test_terms_that_could_not_be_queried_are_asked_for_again_after_a_while_or_in_a_decision(
    consumer, monkeypatch
):
    now, asked, answers = [100.0], [], [ChainUnavailable("away")] * 2 + [SessionTerms(SharedParams(), terms("a"))]

    async def ask(chain, supplier, of):
        asked.append(now[0])
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(relay_consumer, "ask_terms", ask)
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])
    a = session("a", known=False)
    reads, _ = consumer(a)
    assert not await reads.learn_terms(a)
    now[0] = 100.4
    assert not await reads.learn_terms(a)
    assert not await reads.learn_terms(a, 12)
    now[0] = 100.9
    assert await reads.learn_terms(a)
    assert asked == [100.0, 100.4, 100.9]
    assert (a.terms, a.params) == (terms("a"), SharedParams())
    assert await reads.learn_terms(a)
    assert len(asked) == 3


@pytest.mark.parametrize(("now", "seconds"), [(None, None), (6_500.0, 0.5), (5_000.0, 0.0)])
def test_how_late_the_oldest_relay_of_a_read_was_stored_is_measured_by_the_clock_of_redis(consumer, now, seconds):
    def observed():
        return [REGISTRY.get_sample_value(f"pocket_miner_tail_seconds_{name}") or 0.0 for name in ("count", "sum")]

    reads, _ = consumer(session("a"), server_milliseconds=lambda: now)
    before = observed()
    reads._measure("6000-3")
    found = [round(after - then, 6) for after, then in zip(observed(), before, strict=True)]
    assert found == ([0, 0] if seconds is None else [1, seconds])


def test_what_is_stored_of_a_read_is_its_valid_relays_and_its_last_position(consumer):
    a = session("a")
    a.params = SharedParams()
    reads, _ = consumer(a)
    batch = reads.validate(SessionRead(a, a.terms, ENTRIES, HERE, behind=False))
    assert (batch.supplier, batch.session_id, batch.leaves, batch.refused) == ("alice", "a", [], 2)
    assert (batch.position, batch.origin) == ("7-0", HERE)
    assert (batch.terms, batch.params) == (a.terms.name, encode_params(a.params))


def test_a_standby_publishes_no_positions(monkeypatch):
    monkeypatch.setattr(SupplierFactory, "_consumer", lambda self, address, sessions, *, owner=True: owner)
    monkeypatch.setattr(factory, "StreamReader", lambda *_: None)
    made = SupplierFactory.__new__(SupplierFactory)
    made.redis = made.keys = made.relay_store = made.audit = None
    assert made.standby("alice").consumer is False


@pytest.mark.parametrize("pipeline", [True, False], ids=["the whole fails", "one fails"])
@pytest.mark.parametrize(("trouble", "told"), [(RedisTrouble.OUT_OF_MEMORY, False), (RedisTrouble.REJECTED, True)])
async def test_a_full_redis_stops_no_reading_and_another_error_is_told_to_its_supplier_alone(pipeline, trouble, told):
    failure = RedisUnavailable("cannot be written", trouble)

    class Marking(ConsumeRounds):
        async def _read(self, requests, count):
            return [(request, SessionRead(session("s"), terms("s"), [Entry("6-0", b"r")], HERE, False)) for request
                    in requests]  # fmt: skip

        def _store(self, work):
            for _, read in work:
                read.added = 1

        async def _publish(self, requests, *, raise_on_error=True):
            if raise_on_error and pipeline:
                raise failure
            return [failure, *[1] * (len(requests) - 1)] if pipeline else [1] * len(requests)

    class Advancing:
        tail = Tail()

        def advance(self, request, reads):
            return {"s": "6-0"}

    requests = [ReadRequest(Advancing(), {"s": "5-0"}, 0, HERE, Check.NUMBER) for _ in range(2)]
    await Marking(None, None)._run(requests, None)
    assert [request.error for request in requests] == [failure if told and pipeline else None, None]
    assert [(request.entries, request.done) for request in requests] == [(1, True)] * 2


@pytest.mark.parametrize(
    ("sizes", "taken"),
    [
        ([300, 200, 100, 12], [0, 1, 3]), ([512, 1], [0]), ([513, 0], [0]), ([1, 511], [0, 1]), ([1, 512, 2], [0, 2]),
    ],
)  # fmt: skip
def test_a_round_reads_as_many_streams_as_one_pipeline_may_and_none_twice(sizes, taken):
    requests = [
        ReadRequest(None, {str(number): "0-0" for number in range(size)}, 0, HERE, Check.NOTHING) for size in sizes
    ]
    over = ReadRequest(None, {}, 0, HERE, Check.NOTHING, done=True)
    assert [requests.index(row) for row in _next_round(requests[0], [over, *requests])] == taken
