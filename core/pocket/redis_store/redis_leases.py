"""A group of Leases in Redis, for miners without Kubernetes: one hash, compare-and-set by script."""

import json
from datetime import UTC, datetime
from typing import Any, Final

from redis.asyncio import Redis

from pocket.coordination.elector import LeaseRecord
from pocket.coordination.stores.lease_store import LeaseConflict, LeaseUnavailable, StoredLease
from pocket.redis_store.lua_scripts import Script
from pocket.redis_store.redis_errors import redis_deadline
from pocket.redis_store.store_errors import RedisUnavailable

# KEYS: hash   ARGV: name, text that it was decided on ('' = none), new text
_WRITE: Final = Script("""
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
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

    async def read(self) -> dict[str, StoredLease]:
        """Read the group with one command."""
        try:
            async with redis_deadline(self._seconds):
                rows: Any = await self._redis.hgetall(self._key)
        except RedisUnavailable as error:
            raise LeaseUnavailable(str(error)) from error
        return {name.decode(): _decode(text.decode("utf-8", "surrogateescape")) for name, text in rows.items()}

    async def write(self, name: str, record: LeaseRecord, known: StoredLease | None) -> StoredLease:
        """Write a Lease with one script."""
        text = _encode(record)
        arguments: list[Any] = [name, "" if known is None else known.version, text]
        try:
            async with redis_deadline(self._seconds):
                taken = await _WRITE.run(self._redis, [self._key], arguments)
        except RedisUnavailable as error:
            raise LeaseUnavailable(str(error)) from error
        if not taken:
            raise LeaseConflict(f"{name} was written by another member")
        return StoredLease(record, text)
