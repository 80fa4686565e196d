"""Limits, counters and states of the recording of relays."""

import asyncio
from dataclasses import dataclass
from enum import Enum, auto

from pocket.redis_store.log_records import WalRecord


@dataclass(slots=True)
class RecorderCounters:
    """Exact counts of relays by result."""

    appended: int = 0
    refused_closed: int = 0
    failed: int = 0
    replayed: int = 0


@dataclass(frozen=True, slots=True)
class RecorderLimits:
    """Limits of a recorder. Times in seconds.

    linger_seconds is a pause that collects relays into larger batches, which saves CPU. It applies only while the
    process uses more than the share linger_above of one CPU: otherwise a pause only costs time.
    """

    queue: int = 20_000
    queue_bytes: int = 256 * 1024 * 1024
    batch: int = 512
    linger_seconds: float = 0.002
    linger_above: float = 0.85
    append_timeout_seconds: float = 3.0
    retry_seconds: float = 0.05
    memory_high_water_mark: float = 0.9
    log_reserve_bytes: int = 64 * 1024 * 1024


class AppendRefusal(Enum):
    """Reasons for which a session took no relay."""

    CLOSED = auto()
    REJECTED = auto()
    """Redis refuses its stream. The relays stay in the log and are appended once it does not."""


@dataclass(slots=True)
class Waiting:
    """A relay that is not recorded yet."""

    record: WalRecord
    done: "asyncio.Future[None]"
    since: float
    """Loop's clock. The time to append it counts from here, so that relays that queue do not wait in turn."""
    settled: bool = False
