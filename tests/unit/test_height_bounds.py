"""A relayer knows that the chain has not reached a height, also after it was stopped for any time."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.chain.model import Block
from pocket.chain_cache.shared_heights import LatestBlockWatcher, encode_block
from pocket.errors import ChainUnavailable
from pocket.protocol.transactions.build import Timestamp
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.store_errors import RedisUnavailable

USUAL_SECONDS = 2.0


class Chain:
    """A chain, the blocks of which a watcher gets through Redis while its process runs.

    The watcher's clock stands still while its machine is suspended.
    """

    def __init__(self):
        self.suspended = 0.0
        self.now, self.height, self.next_at, self.queries, self.node_is_away = 0.0, 10, USUAL_SECONDS, 0, False
        self.times = {10: 0.0}
        self.watcher = LatestBlockWatcher(
            None, RedisKeys("unit"), self.ask, USUAL_SECONDS, lambda: self.now - self.suspended
        )

    def block(self, height):
        return Block(height, bytes(32), Timestamp.of_nanoseconds(int(self.times[height] * 1e9)))

    async def ask(self):
        self.queries += 1
        if self.node_is_away:
            raise ChainUnavailable("no answer")
        return self.block(self.height)

    def compare_clock(self, chance):
        """Show the time of Redis, as each relay that it takes does. The answer takes a moment."""
        self.watcher.compare_clock("redis", 1_800_000_000.0 + self.now - 0.2 * chance)

    def pass_time(self, seconds, pace):
        self.now += seconds
        while self.next_at <= self.now:
            self.height += 1
            self.times[self.height] = self.next_at
            self.next_at += pace

    def announce(self, height):
        self.watcher.receive(encode_block(self.block(height)))


async def watched():
    """Return a chain at height 11, the block of which was announced just now."""
    chain = Chain()
    await chain.watcher.is_below(11)
    chain.pass_time(USUAL_SECONDS, USUAL_SECONDS)
    chain.announce(11)
    return chain


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["runs", "stopped", "suspended"]), st.floats(0.0, 60.0), st.floats(1.5, 3.0), st.integers(0, 30)
    ),
    min_size=1,
    max_size=10,
)


@given(EVENTS, st.booleans())
def test_a_height_counts_as_not_reached_only_if_it_is_not(events, away):
    async def watch():
        chain = await watched()
        chain.compare_clock(1.0)
        for state, seconds, pace, old in events:
            known = chain.height
            if state == "runs":
                chain.pass_time(chain.next_at - chain.now, pace)
                chain.announce(chain.height)
            else:  # and then Redis returns the block of any moment
                chain.pass_time(seconds, pace)
                chain.suspended += seconds if state == "suspended" else 0.0
                chain.announce(min(chain.height, known + old))
            chain.compare_clock(old % 2)
            chain.node_is_away = away
            for height in (chain.height, *range(chain.height - 1, chain.height + 4)):
                assert not chain.watcher.is_certainly_below(height) or chain.height < height
                below = await chain.watcher.is_below(height)
                assert below <= (chain.height < height)
                assert away or below == (chain.height < height)

    asyncio.run(watch())


async def test_no_node_is_queried_while_blocks_come_and_a_height_is_more_than_one_away():
    chain = Chain()
    assert await chain.watcher.is_below(12)
    before = chain.queries
    for _ in range(20):
        chain.pass_time(USUAL_SECONDS, USUAL_SECONDS)
        chain.announce(chain.height)
        assert await chain.watcher.is_below(chain.height + 1)
        chain.now += 0.4 * USUAL_SECONDS
        assert await chain.watcher.is_below(chain.height + 1)
        chain.now -= 0.4 * USUAL_SECONDS
    assert chain.queries == before


@pytest.mark.parametrize("seconds", [0.0, 30.0])
async def test_without_a_node_nothing_is_certain_after_a_stop(seconds):
    chain = await watched()
    chain.node_is_away = True
    chain.pass_time(seconds, USUAL_SECONDS)
    assert await chain.watcher.is_below(chain.height + 1) is (seconds == 0)


async def test_a_block_may_come_right_after_a_node_was_queried():
    chain = await watched()
    chain.pass_time(0.75 * USUAL_SECONDS, USUAL_SECONDS)
    assert await chain.watcher.is_below(12)
    chain.pass_time(0.25 * USUAL_SECONDS, USUAL_SECONDS)
    assert not chain.watcher.is_certainly_below(12)


async def test_a_node_is_polled_once_redis_is_silent_for_too_long_and_then_the_height_is_stale():
    class Silent:
        async def get(self, _):
            raise RedisUnavailable("away")

    chain = await watched()
    chain.watcher._redis = Silent()
    patience = 2 * USUAL_SECONDS + 1.0
    for seconds, asked, stale in ((patience, 0, False), (0.1, 1, False), (patience, 1, True), (1.0, 1, True)):
        chain.now, chain.queries, chain.node_is_away = chain.now + seconds, 0, True
        await chain.watcher.poll()
        assert (chain.queries, chain.watcher.stale) == (asked, stale)
    chain.height, chain.times[12], chain.node_is_away = 12, chain.now, False
    await chain.watcher.poll()
    assert (chain.watcher.height, chain.watcher.stale) == (12, False)


async def test_a_node_confirms_the_moment_at_which_it_was_queried_and_not_that_of_its_answer():
    chain = await watched()
    chain.pass_time(10 * USUAL_SECONDS, USUAL_SECONDS)

    async def slowly():
        block = chain.block(chain.height)
        chain.pass_time(5 * USUAL_SECONDS, USUAL_SECONDS)
        return block

    chain.watcher._ask_node = slowly
    assert await chain.watcher.is_below(chain.height + 2), "as it was when the query began"
    assert not chain.watcher.is_certainly_below(chain.height)


async def test_a_node_that_lags_shows_nothing():
    chain = await watched()
    chain.pass_time(10 * USUAL_SECONDS, USUAL_SECONDS)
    chain.height = 10
    assert not await chain.watcher.is_below(13)


async def test_a_clock_that_was_set_forward_is_no_suspension_for_longer_than_ten_blocks():
    chain = await watched()
    chain.compare_clock(0.0)
    chain.watcher.compare_clock("another primary", 0.0)
    chain.watcher.compare_clock("another primary", 3600.0)
    for _ in range(10):
        assert not chain.watcher.is_certainly_below(chain.height + 2)
        chain.pass_time(USUAL_SECONDS, USUAL_SECONDS)
        chain.announce(chain.height)
        chain.compare_clock(0.0)
    assert chain.watcher.is_certainly_below(chain.height + 2)
