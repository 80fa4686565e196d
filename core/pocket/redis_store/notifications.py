"""Notify the owner of a supplier that relays were recorded.

There is one stream per shard. A notification only saves waiting: owners poll all their suppliers every few seconds
anyway.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from cachetools import TTLCache
from redis.asyncio import Redis

from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.script_connection import LONGEST_WAIT_SECONDS
from pocket.redis_store.store_errors import RedisUnavailable

_LENGTH: Final = 1000
NOTIFY_SECONDS: Final = 1.0
"""Least time between two notifications of a worker about one supplier."""
_REMEMBERED: Final = 10_000
_WAIT_MILLISECONDS: Final = int(1000 * LONGEST_WAIT_SECONDS)


class RelayNotifier:
    """The relayer's side: at most one notification a second for a supplier."""

    def __init__(
        self,
        redis: "Redis",
        keys: RedisKeys,
        shard_of: Callable[[str], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._shard_of = shard_of
        self._notified: TTLCache[str, None] = TTLCache(_REMEMBERED, NOTIFY_SECONDS, timer=clock)

    async def notify(self, suppliers: Iterable[str]) -> None:
        """Notify the owners of suppliers. Errors are ignored, since owners poll anyway."""
        due = [supplier for supplier in suppliers if supplier not in self._notified]
        if not due:
            return
        self._notified.update(dict.fromkeys(due))
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for supplier in due:
                    pipe.xadd(self._keys.notifications(self._shard_of(supplier)), {"s": supplier}, maxlen=_LENGTH)
                await pipe.execute()
        except RedisUnavailable:
            return


class NotificationReader:
    """The miner's side: one blocking read over the notification streams of its shards."""

    def __init__(self, redis: "Redis", keys: RedisKeys) -> None:
        self._redis = redis
        self._keys = keys
        self._positions: dict[int, str] = {}

    async def read(self, shards: Iterable[int], milliseconds: int = _WAIT_MILLISECONDS) -> set[str]:
        """Return the suppliers that were notified within the time, possibly none.

        A new shard is read from now on: the caller polls all its suppliers first. Raises RedisUnavailable.
        """
        wanted = set(shards)
        for gone in set(self._positions) - wanted:
            del self._positions[gone]
        for shard in wanted - set(self._positions):
            last: Any = await self._redis.xrevrange(self._keys.notifications(shard), count=1)
            self._positions[shard] = _text(last[0][0]) if last else "0-0"
        if not wanted:
            return set()
        streams: dict[Any, Any] = {self._keys.notifications(shard): at for shard, at in self._positions.items()}
        reply: Any = await self._redis.xread(streams, count=_LENGTH, block=milliseconds)
        rows: Mapping[Any, Any] = dict(reply.items() if isinstance(reply, dict) else reply or [])
        by_key = {self._keys.notifications(shard): shard for shard in self._positions}
        suppliers = set()
        for name, entries in rows.items():
            for entry_id, fields in entries:
                self._positions[by_key[_text(name)]] = _text(entry_id)
                suppliers.add(_text(fields.get(b"s", b"")))
        return suppliers


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
