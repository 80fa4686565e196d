"""Suppliers that are read together: few commands and commits, and no supplier's error is another's."""

import asyncio
import sqlite3
from dataclasses import replace

import pytest
from structlog.contextvars import bound_contextvars, merge_contextvars
from structlog.testing import capture_logs

from pocket.protocol.relays.difficulty import BASE_TARGET
from pocket.protocol.relays.messages import SessionHeader
from pocket.redis_store.log_records import WalRecord
from pocket.redis_store.stream_reader import StreamReader
from pocket_miner.ingest import consume_rounds
from pocket_miner.ingest.consume_rounds import Check, ConsumeRounds
from pocket_miner.ingest.relay_consumer import RelayConsumer
from pocket_miner.sessions.leaf_validation import LeafTerms
from pocket_miner.storage.relay_store import RelayStore
from recording import KEYS, full, publishing
from world import World, address

pytestmark = pytest.mark.redis
WORLD = World()
NAMES = ("alice", "bob", "carol", "dave")
HEADER = SessionHeader(address("app eth"), "eth", "ab" * 32, 1, 10)
OTHER = replace(HEADER, session_id="cd" * 32)


class Together:
    """Consumers of several suppliers that share rounds and a volume."""

    def __init__(self, redis, folder):
        self.redis, self.folder = redis, folder
        self.relay_store = RelayStore(folder / "mirror")
        self.rounds = ConsumeRounds(redis, self.relay_store, 0.005)
        self.consumers = {}
        self.written = 0
        self.history = "one"

    async def add(self, name):
        sessions = {}
        reader = StreamReader(self.redis, KEYS, address(name))
        consumer = RelayConsumer(
            reader, self.relay_store, None, sessions, rounds=self.rounds, history_id=lambda: self.history
        )  # fmt: skip
        await consumer.discover({})
        for session in sessions.values():
            session.terms = LeafTerms(address(name), session.header, BASE_TARGET, 100)
        self.consumers[name] = consumer

    async def write(self, count, *names, header=HEADER):
        async with publishing(self.redis, self.folder / "log", name=f"w{self.written}") as publisher:
            for name in names:
                for _ in range(count):
                    self.written += 1
                    relay = WORLD.relay(header, name, self.written)
                    await publisher.record(WalRecord(address(name), header.session_id, header.encode(), relay))

    async def poll(self, check=Check.NUMBER):
        polls = (consumer.poll(check) for consumer in self.consumers.values())
        found = await asyncio.gather(*polls, return_exceptions=True)
        return dict(zip(self.consumers, found, strict=True))

    def count(self, name):
        return self.relay_store.file(10).count(address(name), HEADER.session_id)

    async def published(self, name):
        return await self.redis.hlen(KEYS.replicated(address(name)))


@pytest.fixture
async def together(redis, tmp_path):
    """Start four suppliers that have read their first relay."""
    made = Together(redis, tmp_path)
    await made.write(1, *NAMES)
    for name in NAMES:
        await made.add(name)
    assert await made.poll() == dict.fromkeys(NAMES, 1)
    yield made
    made.relay_store.close()


async def test_suppliers_that_read_at_once_share_one_pipeline_and_one_commit(together, monkeypatch):
    pipelines, commits, pipeline, store_all = [], [], together.redis.pipeline, together.relay_store.file(10).store_all
    monkeypatch.setattr(together.redis, "pipeline", lambda **options: pipelines.append(1) or pipeline(**options))
    monkeypatch.setattr(
        together.relay_store.file(10), "store_all", lambda rows: commits.append(len(rows)) or store_all(rows)
    )
    await together.write(5, *NAMES)
    pipelines.clear()  # of the recorder
    assert await together.poll() == dict.fromkeys(NAMES, 5)
    assert (len(pipelines), commits) == (2, [4]), "one reads, one publishes"
    assert [together.count(name) for name in NAMES] == [6] * 4
    pipelines.clear()
    assert await together.poll() == dict.fromkeys(NAMES, 0)
    assert (len(pipelines), commits) == (1, [4])


async def test_a_pipeline_reads_a_bounded_number_of_streams_and_the_next_one_the_others(together, monkeypatch):
    monkeypatch.setattr(consume_rounds, "_MOST_STREAMS", 2)
    pipelines, pipeline = [], together.redis.pipeline
    monkeypatch.setattr(together.redis, "pipeline", lambda **options: pipelines.append(1) or pipeline(**options))
    assert await together.poll() == dict.fromkeys(NAMES, 0)
    assert len(pipelines) == len(NAMES) // 2


async def test_a_stream_that_redis_refuses_to_read_is_left_to_the_full_read_of_its_supplier(together):
    await together.write(2, *NAMES)
    await together.redis.set(KEYS.stream(address("bob"), HEADER.session_id), "no stream")
    found = await together.poll()
    assert found.pop("bob") is None
    assert await together.consumers["bob"].consume_once() == 0, "and left out from then on"
    assert found == dict.fromkeys(("alice", "carol", "dave"), 2)


async def test_what_cannot_be_stored_of_one_supplier_keeps_no_other_from_the_volume(together):
    await together.write(2, *NAMES)
    (session,) = together.consumers["bob"]._sessions.values()
    session.terms = replace(session.terms, compute_units_per_relay=2**63)  # more than a column holds
    position = session.position
    found = await together.poll()
    assert isinstance(found.pop("bob"), OverflowError)
    assert found == dict.fromkeys(("alice", "carol", "dave"), 2)
    assert (together.count("bob"), session.position) == (1, position)
    session.terms = replace(session.terms, compute_units_per_relay=100)
    assert (await together.poll())["bob"] == 2


async def test_nothing_is_published_and_no_position_moves_before_the_relays_are_durable(together, monkeypatch):
    await together.write(2, *NAMES)
    before = [s.position for c in together.consumers.values() for s in c._sessions.values()]
    await together.redis.delete(*(KEYS.replicated(address(name)) for name in NAMES))

    def full(_):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(together.relay_store.file(10), "store_all", full)
        found = await together.poll()
    assert all(isinstance(error, sqlite3.OperationalError) for error in found.values())
    assert [s.position for c in together.consumers.values() for s in c._sessions.values()] == before
    assert [await together.published(name) for name in NAMES] == [0] * 4
    assert await together.poll() == dict.fromkeys(NAMES, 2)
    assert [await together.published(name) for name in NAMES] == [1] * 4


async def test_a_session_that_is_new_or_of_another_redis_is_left_to_the_full_read(together):
    await together.write(1, "alice", header=OTHER)
    await together.redis.set(KEYS.incarnation(address("bob")), "another")
    await together.write(3, "bob")
    assert await together.poll() == {"alice": None, "bob": None, "carol": 0, "dave": 0}
    assert together.count("bob") == 1, "of another incarnation, perhaps: the positions say nothing about it"


async def test_after_a_failover_no_position_of_the_former_primary_is_read_on_from(together):
    await together.write(1, *NAMES)
    together.history = "another"
    assert await together.poll() == dict.fromkeys(NAMES)
    assert [together.count(name) for name in NAMES] == [1] * 4


async def test_a_session_in_place_of_another_is_found_by_its_id(together):
    await together.redis.hdel(KEYS.sessions(address("alice")), HEADER.session_id)
    await together.write(1, "alice", header=OTHER)
    assert (await together.poll())["alice"] == 0
    assert (await together.poll(Check.IDS))["alice"] is None


async def test_a_round_whose_caller_is_cancelled_is_run_for_the_others(together):
    await together.write(2, *NAMES)
    first, *others = (asyncio.create_task(c.poll(Check.NUMBER)) for c in together.consumers.values())
    while not any(queue.turn.locked() for queue in together.rounds._queues.values()):  # noqa: ASYNC110 - lets the tasks under test go on, one step each
        await asyncio.sleep(0)
    first.cancel()
    assert await asyncio.gather(*others) == [2, 2, 2]
    assert first.cancelled()
    assert (await together.poll())["alice"] == 2


async def test_a_rejected_entry_is_logged_with_its_own_supplier(together):
    await together.write(1, *NAMES)
    await together.redis.xadd(KEYS.stream(address("bob"), HEADER.session_id), {"r": b"no relay"})
    with bound_contextvars(supplier=address("alice")), capture_logs([merge_contextvars]) as logged:
        assert (await together.poll())["bob"] == 2
    (line,) = [line for line in logged if line["event"] == "entry rejected"]
    assert line["supplier"] == address("bob")


async def test_relays_are_read_from_a_full_redis_which_takes_no_marks(together):
    await together.write(2, *NAMES)
    async with full(together.redis):
        assert await together.poll() == dict.fromkeys(NAMES, 2)
    assert {together.count(name) for name in NAMES} == {3}
