"""Share the chain's height through Redis, from the miners' leader to relayers.

A block is published on a channel, and kept for those that start or missed it. A watcher that gets nothing new for
longer than two blocks queries a node.
"""

import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Final

from redis.asyncio import Redis

from pocket.chain.model import Block, checked_block
from pocket.chain.plausible_heights import Belief, HeightGuard
from pocket.errors import DecodingError, PocketError
from pocket.protocol.transactions.build import Timestamp
from pocket.redis_store.lua_scripts import Script
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.store_errors import RedisUnavailable
from pocket.runtime.single_flight import SingleFlight
from pocket.runtime.ticks import sleep_to_tick

_FASTEST: Final = 0.5  # of the usual time between blocks
_JUMP_SECONDS: Final = 0.25
_BLOCKS_AFTER_JUMP: Final = 10


def encode_block(block: Block) -> str:
    """Encode a block as JSON."""
    return json.dumps({"height": block.height, "hash": block.hash.hex(), "time_ns": block.time.nanoseconds})


def decode_block(text: str | bytes) -> Block | None:
    """Decode a block from JSON. Returns None if it is unreadable.

    A foreign or damaged message never stops the watcher.
    """
    try:
        row = json.loads(text)
        time = Timestamp.of_nanoseconds(int(row["time_ns"]))
        return checked_block(int(row["height"]), bytes.fromhex(row["hash"]), time)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, DecodingError):
        return None


# KEYS: latest block   ARGV: channel, block. Published first: a full Redis still forwards it.
_PUBLISH: Final = Script(
    """
redis.call('PUBLISH', ARGV[1], ARGV[2])
redis.call('SET', KEYS[1], ARGV[2])
return 1
""",
    int,
)

_OVERDUE: Final = 1.25  # times the time between blocks


class LatestBlockPublisher:
    """Publishes each new block to Redis."""

    def __init__(self, redis: "Redis", keys: RedisKeys) -> None:
        self._redis = redis
        self._keys = keys

    async def publish(self, block: Block) -> None:
        """Publish on a best-effort basis. A watcher that misses it queries a node."""
        with contextlib.suppress(RedisUnavailable):
            await _PUBLISH.run(self._redis, [self._keys.block], [self._keys.blocks, encode_block(block)])


class LatestBlockWatcher:
    """Tracks the latest height. `updated_at` is the clock's time of its last growth.

    A height that the elapsed time does not allow is not believed, and one that others contradict is dropped
    (`pocket.chain.plausible_heights`).
    """

    def __init__(
        self,
        redis: "Redis",
        keys: RedisKeys,
        ask_node: Callable[[], Awaitable[Block]],
        block_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._ask_node = ask_node
        self._patience = 2 * block_seconds + 1.0
        self._overdue = _OVERDUE * block_seconds
        self._clock = clock
        self._guard = HeightGuard(block_seconds)
        self.height = 0
        """The latest height, 0 before the first."""
        self._published: str | bytes | None = None
        self.updated_at = clock()
        self._made_at = self._ahead = self._confirmed_at = float("-inf")
        """When the latest block was made, by how much the blocks' clock is ahead of this one, and when a node last
        returned no later block (clock)."""
        self._ahead_since_jump: list[float] | None = None
        self._clocks: dict[str, float] = {}
        """By how much other clocks were ahead of this one at most (seconds)."""
        self._node_query = SingleFlight()

    def compare_clock(self, name: str, seconds: float) -> None:
        """Compare another clock with that of this process.

        The latter stands still while its machine is suspended. If the other one has run ahead, what is known is as much
        older. Where it was set instead, blocks count as older than they are until some more have come.
        """
        ahead = seconds - self._clock()
        jump = ahead - self._clocks.get(name, ahead)
        self._clocks[name] = max(self._clocks.get(name, ahead), ahead)
        if jump > _JUMP_SECONDS:
            self._ahead += jump
            self._made_at -= jump
            self._confirmed_at -= jump
            self.updated_at -= jump
            self._ahead_since_jump = []

    def _learn(self, block: Block | None) -> None:
        """Learn a block. It may be an old one: how old is known by the blocks' clock."""
        now = self._clock()
        if block is not None and self._guard.observe(block, now) in (Belief.NEWER, Belief.REPLACED):
            self.updated_at = now
            self.height = self._guard.height
            time, before = block.time.nanoseconds / 1e9, self._ahead
            self._ahead = max(before, time - now)
            if self._ahead_since_jump is not None:
                self._ahead_since_jump.append(time - now)
                if len(self._ahead_since_jump) == _BLOCKS_AFTER_JUMP:
                    self._ahead, self._ahead_since_jump = max(self._ahead_since_jump), None
            self._made_at = time - self._ahead if before > float("-inf") else before

    def is_certainly_below(self, height: int) -> bool:
        """Return True if the chain cannot have reached a height yet.

        However long this process was stopped.
        """
        now, fastest = self._clock(), _FASTEST * self._guard.block_seconds
        since_made = (now - self._made_at) / fastest
        since_confirmed = 1 + (now - self._confirmed_at) / fastest
        return self.height > 0 and self.height + min(since_made, since_confirmed) < height

    async def is_below(self, height: int) -> bool:
        """Return True if the chain had certainly not reached a height at the call.

        A node is queried if the latest block does not show it.
        """
        called_at = self._clock()
        for _ in range(2):  # a query in progress may have begun before
            if self.height >= height or self.is_certainly_below(height):
                break
            await self._node_query.do("node", self._query_node)
            if self._confirmed_at >= called_at:
                return self.height < height
        return self.is_certainly_below(height)

    @property
    def stale(self) -> bool:
        """Return whether no source reported a new block for more than twice the patience."""
        return self.height == 0 or self._clock() - self.updated_at > 2 * self._patience

    def receive(self, published: str | bytes | None) -> None:
        """Learn a block as it is published, None without one."""
        if published != self._published:  # the same again is no second answer
            self._published = published
            self._learn(decode_block(published) if published else None)

    async def poll(self) -> None:
        """Poll Redis once, and a node if Redis has had nothing new for too long."""
        with contextlib.suppress(RedisUnavailable):
            self.receive(await self._redis.get(self._keys.block))
        if self.height == 0 or self._clock() - self.updated_at > self._patience:
            await self._query_node()

    async def _query_node(self) -> None:
        """Query a node."""
        begun = self._clock()
        with contextlib.suppress(PocketError, TimeoutError):
            block = await self._ask_node()
            self._learn(block)
            if block.height >= self.height:
                self._confirmed_at = begun

    async def run(self, seconds: float) -> None:
        """Poll every `seconds` seconds while a block is overdue, without end.

        A published block may have been missed.
        """
        while True:
            if self.height == 0 or self._clock() - self.updated_at > self._overdue:
                await self.poll()
            await sleep_to_tick(seconds)
