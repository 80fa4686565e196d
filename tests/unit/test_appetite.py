"""Rounds of tailing take bounded memory, and small relays are still read by the hundreds."""

import contextlib
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from pocket.redis_store.stream_reader import Entry
from pocket_miner.ingest.batch_size import AdaptiveBatchSize
from pocket_miner.ingest.consume_rounds import ConsumeRounds, SessionRead


@given(st.integers(1, 2000), st.integers(300, 500_000), st.integers(0, 20))
def test_rounds_of_equal_relays_stay_below_eight_megabytes_or_ask_for_one_of_each(streams, size, rounds):
    batch_size = AdaptiveBatchSize()
    batch_size.observe(1, size)
    for _ in range(rounds):
        count = batch_size.next(streams)
        assert count == 1 or count * streams * size <= 8 * 1024 * 1024
        batch_size.observe(count * streams, count * streams * size)


def test_small_relays_are_soon_read_by_the_hundreds():
    batch_size = AdaptiveBatchSize()
    for _ in range(5):
        batch_size.observe(batch_size.next(20) * 20, batch_size.next(20) * 20 * 800)
    assert batch_size.next(1) == 500
    assert batch_size.next(20) == 500


def test_nothing_read_changes_nothing_and_one_large_relay_counts_at_once():
    batch_size = AdaptiveBatchSize()
    before = batch_size.next(3)
    batch_size.observe(0, 0)
    assert batch_size.next(3) == before
    batch_size.observe(1, 8 * 1024 * 1024)
    assert batch_size.next(1) == 1


class Stream:
    """A supplier's stream of relays with one size, and how many of them each round asks for."""

    primary = None

    def __init__(self, size):
        self.size, self.asked = size, []
        self.tail, self.positions, self.done = self, {"session": "0-0"}, False
        self.consumer, self.error, self.marks = self, None, {}

    def queue(self, pipe, count):
        self.asked.append(count)
        return 0

    def read_poll(self, replies, positions):
        return replies

    def accept(self, request, poll, count):
        entries = [Entry(f"{number}-0", b"x" * self.size) for number in range(1, count + 1)]
        session = SimpleNamespace(end=10, session_id="session")
        return [SessionRead(session, None, entries, "origin", behind=False)]

    def validate(self, read):
        return read

    def advance(self, request, reads):
        return {}


class Pipe:
    def pipeline(self, *, transaction):
        return contextlib.nullcontext(self)

    async def execute(self, **_):
        return []


async def test_a_round_asks_for_as_many_relays_as_their_size_of_late_allows():
    relay_store = SimpleNamespace(file=lambda end: SimpleNamespace(store_all=lambda rows: [len(rows)] * len(rows)))
    rounds, stream = ConsumeRounds(Pipe(), relay_store), Stream(64 * 1024)
    for _ in range(3):
        await rounds.join(stream)
        stream.done = False
    assert stream.asked == [500, 128, 128], "8 MiB"
