"""Store a group of Leases in Redis, for miners without Kubernetes.

It is one hash, which a script compares and sets.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from redis.asyncio import Redis

from pocket.coordination.elector import LeaseRecord
from pocket.coordination.stores.lease_store import (
    LeaseConflict,
    LeaseUnavailable,
    LeaseWrite,
    StoredLease,
    WriteResult,
)
from pocket.redis_store.lua_scripts import Script
from pocket.redis_store.redis_errors import redis_deadline
from pocket.redis_store.reply_text import text_of
from pocket.redis_store.store_errors import RedisUnavailable

# KEYS: hash   ARGV: for each Lease its name, the text that it was decided on ('' = none), the new text
_WRITE: Final = Script("""
redis.call('HDEL', KEYS[1], '')  -- a script that has written may go on while Redis is full
local taken = {}
for i = 1, #ARGV, 3 do
  local same = (redis.call('HGET', KEYS[1], ARGV[i]) or '') == ARGV[i + 1]
  if same then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2]) end
  taken[#taken + 1] = same and 1 or 0
end
return taken
""")


def _encode(record: LeaseRecord) -> str:
    return json.dumps(
        {
            "holder": record.holder,
            "seconds": record.lease_seconds,
            "acquired": record.acquired.isoformat(),
            "renewed": record.renewed.isoformat(),
            "transitions": record.transitions,
        }
    )


def _decode(text: str) -> StoredLease:
    """Decode a Lease. The text is its own version, an invalid text counts as released."""
    try:
        row = json.loads(text)
        record = LeaseRecord(
            str(row["holder"]), int(row["seconds"]), datetime.fromisoformat(row["acquired"]),
            datetime.fromisoformat(row["renewed"]), int(row["transitions"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError):
        never = datetime.fromtimestamp(0, UTC)
        record = LeaseRecord("", 1, never, never, 0)
    return StoredLease(record, text)


class RedisLeaseStore:
    """Leases of the group in the hash `key`."""

    def __init__(self, redis: "Redis", key: str, *, call_seconds: float) -> None:
        self._redis = redis
        self._key = key
        self._seconds = call_seconds
        self._decoded: dict[str, StoredLease] = {}

    async def read(self) -> dict[str, StoredLease]:
        """Read the group with one command."""
        try:
            async with redis_deadline(self._seconds):
                rows: Any = await self._redis.hgetall(self._key)
        except RedisUnavailable as error:
            raise LeaseUnavailable(str(error)) from error
        # Most texts are those of the previous read.
        texts = {text_of(name): text_of(text) for name, text in rows.items()}
        before = self._decoded
        self._decoded = {
            name: known if (known := before.get(name)) is not None and known.version == text else _decode(text)
            for name, text in texts.items()
        }
        return dict(self._decoded)

    async def write(self, name: str, record: LeaseRecord, known: StoredLease | None) -> StoredLease:
        """Write a Lease. Raises LeaseConflict or LeaseUnavailable."""
        (result,) = await self.write_all([LeaseWrite(name, record, known)])
        if isinstance(result, StoredLease):
            return result
        raise result

    async def write_all(self, writes: Sequence[LeaseWrite]) -> list[WriteResult]:
        """Write several Leases independently with one script."""
        texts = [_encode(row.record) for row in writes]
        arguments: list[Any] = []
        for row, text in zip(writes, texts, strict=True):
            arguments += [row.name, "" if row.known is None else row.known.version, text]
        try:
            async with redis_deadline(self._seconds):
                taken = await _WRITE.run(self._redis, [self._key], arguments)
        except RedisUnavailable as error:
            unavailable = LeaseUnavailable(str(error))
            return [unavailable] * len(writes)
        self._decoded |= {
            row.name: StoredLease(row.record, text)
            for row, text, done in zip(writes, texts, taken, strict=True) if done
        }  # fmt: skip
        return [
            StoredLease(row.record, text) if done else LeaseConflict(f"{row.name} was written by another member")
            for row, text, done in zip(writes, texts, taken, strict=True)
        ]
