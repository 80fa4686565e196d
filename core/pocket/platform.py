"""Clocks, randomness and connections of a process.

Everything that differs between a process of an operating system and one of the simulation is here, so that both run
the same code.
"""

import os
import random
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import aiohttp
from redis.asyncio import Redis

from pocket.api.redis import RedisAccess
from pocket.chain.channels import NodeChannel, channel_of
from pocket.chain.failover import NodeAddress
from pocket.redis_store.connection import connect
from pocket.runtime.http_sessions import http_session

_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """Clocks, randomness and connections that relayer and miner share.

    The defaults are those of the operating system.

    `clock` returns monotonic seconds, `rng` is for jitter, `unique` returns unused names.
    """

    clock: Callable[[], float] = time.monotonic
    cpu_seconds: Callable[[], float] = time.process_time
    wall_nanoseconds: Callable[[], int] = time.time_ns
    rng: random.Random = field(default_factory=random.Random)
    unique: Callable[[], str] = lambda: uuid.uuid4().hex
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    connect_redis: Callable[[str, RedisAccess], "Redis"] = lambda url, access: connect(url, access=access)
    channel: Callable[[NodeAddress], NodeChannel] = channel_of
    http: Callable[[], aiohttp.ClientSession] = http_session

    def wall_seconds(self) -> float:
        """Return seconds since 1970."""
        return self.wall_nanoseconds() / _NANOSECONDS

    def now(self) -> datetime:
        """Return the current UTC time."""
        return datetime.fromtimestamp(self.wall_seconds(), UTC)
