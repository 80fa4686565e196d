"""Delete the Redis keys of a RelayMiner that is gone.

They stay if it lives or has open sessions.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from redis.asyncio import Redis

from pocket.redis_store.redis_keys import RedisKeys

KINDS: Final = frozenset({
    "relays", "sessions", "closed", "cutoff", "incarnation", "seals", "transactions", "fence", "replicated", "costs",
    "meter", "replays", "rate", "simulated", "notifications", "owner", "leases", "block", "blocks",
    "cache-known", "cache-version", "cache-invalidations", "cache",
})  # fmt: skip
"""The parts that follow the prefix in keys of this project. Others may belong to a longer prefix."""
_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class PrefixFacts:
    """What Redis holds under a prefix.

    `activity` is a digest of everything that running processes change.
    """

    owner: str = ""
    keys: Mapping[str, int] = field(default_factory=dict)
    open_sessions: int = 0
    relays: int = 0
    activity: str = ""

    @property
    def total(self) -> int:
        """Return the number of keys."""
        return sum(self.keys.values())


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """The cluster's facts about the owner of keys.

    They are its RelayMiner, its pods, and other RelayMiners with the same prefix.
    """

    relay_miner: bool
    pods: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def reasons_to_keep(
    owner: str, first: PrefixFacts, second: PrefixFacts, cluster: ClusterFacts, *, discard_open: bool
) -> list[str]:
    """Return why the keys must stay, empty if they may be deleted.

    `first` and `second` are two readings some time apart. `owner` is the namespace and name of the RelayMiner that is
    said to be gone.
    """
    reasons = []
    if not second.total:
        return ["there is no key under this prefix"]
    if second.owner != owner:
        recorded = second.owner or "no RelayMiner"
        reasons.append(f"the prefix belongs to {recorded}, not to {owner}")
    if cluster.relay_miner:
        reasons.append(f"RelayMiner {owner} exists: delete it first, which finishes its sessions")
    if cluster.pods:
        reasons.append(f"pods of it exist: {', '.join(cluster.pods[:5])}")
    if cluster.others:
        reasons.append(f"RelayMiner {', '.join(cluster.others[:5])} uses the same prefix")
    if first.activity != second.activity:
        reasons.append("the keys changed while they were watched: relayers or miners elsewhere use them")
    if second.open_sessions and not discard_open:
        reasons.append(
            f"{second.open_sessions} sessions with {second.relays} relays are not settled: a miner with this prefix "
            "still claims and proves them. --discard-open-sessions gives them up"
        )
    return reasons


async def read_prefix(redis: "Redis", keys: RedisKeys) -> PrefixFacts:
    """Read what Redis holds under a prefix. Raises the errors of Redis."""
    kinds: Counter[str] = Counter()
    sessions = relays = 0
    digest = hashlib.sha256()
    async for name in names_of(redis, keys):
        kind = _kind(keys, name)
        kinds[kind] += 1
        if kind == "sessions":
            sessions += int(await _answer(redis.hlen(name)))
        elif kind == "relays":
            length = int(await redis.xlen(name))
            relays += length
            digest.update(f"{name}={length}\n".encode())
    for name in (keys.block, keys.cache_version):
        digest.update(f"{name}={await redis.get(name)!r}\n".encode())
    leases: Any = await _answer(redis.hgetall(keys.leases))
    digest.update(repr(sorted(leases.items())).encode())
    owner = await redis.get(keys.owner)
    text = owner.decode("utf-8", "replace") if isinstance(owner, bytes) else str(owner or "")
    return PrefixFacts(text, dict(kinds), sessions, relays, digest.hexdigest())


async def watched(redis: "Redis", keys: RedisKeys, seconds: float) -> tuple[PrefixFacts, PrefixFacts]:
    """Read the prefix twice, some seconds apart. Raises the errors of Redis."""
    first = await read_prefix(redis, keys)
    await asyncio.sleep(seconds)
    return first, await read_prefix(redis, keys)


async def delete_prefix(redis: "Redis", keys: RedisKeys, owner: str) -> int:
    """Delete all keys under a prefix while it belongs to an owner.

    The owner's record is deleted last. Returns the number of deleted keys. Stops as soon as another owner is recorded.
    Raises the errors of Redis.
    """
    deleted = 0
    batch: list[str] = []
    async for name in names_of(redis, keys):
        if name != keys.owner:
            batch.append(name)
        if len(batch) >= _AT_ONCE:
            if not await _still(redis, keys, owner):
                return deleted
            deleted += await _unlink(redis, batch)
            batch = []
    if not await _still(redis, keys, owner):
        return deleted
    deleted += await _unlink(redis, batch)
    return deleted + int(await redis.unlink(keys.owner))


async def _still(redis: "Redis", keys: RedisKeys, owner: str) -> bool:
    value = await redis.get(keys.owner)
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else value) == owner


async def _unlink(redis: "Redis", names: list[str]) -> int:
    async with redis.pipeline(transaction=False) as pipe:  # one command a key: they lie in several slots
        for name in names:
            pipe.unlink(name)
        return sum(map(int, await pipe.execute()))


async def names_of(redis: "Redis", keys: RedisKeys) -> AsyncIterator[str]:
    """Yield the names of this project's keys under a prefix."""
    seen: set[str] = set()  # SCAN may repeat a name
    async for raw in redis.scan_iter(match=f"{keys.prefix}:*", count=1000):
        name = raw.decode("utf-8", "surrogateescape") if isinstance(raw, bytes) else str(raw)
        if name not in seen and _kind(keys, name) in KINDS:
            seen.add(name)
            yield name


def _kind(keys: RedisKeys, name: str) -> str:
    return name.removeprefix(f"{keys.prefix}:").partition(":")[0]


async def _answer(call: Any) -> Any:
    """Await a command whose stub also allows a plain value."""
    return await call
