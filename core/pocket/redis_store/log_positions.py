"""Positions of a log's relays in their streams, and what is known to be on a miner's volume."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Final

from redis.asyncio import Redis

from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.write_ahead_log import Segment, WalRecord

_REPLAY_BATCH: Final = 256
BATCH_BYTES: Final = 4 * 1024 * 1024
"""Bound of a batch in bytes, since relays with large requests fill a command with few."""


def offset_text(value: Any) -> str:
    """Return a part of an offset as text. Raises UnicodeDecodeError."""
    return value.decode() if isinstance(value, bytes) else str(value)


async def read_marks(
    redis: "Redis", keys: RedisKeys, pairs: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], tuple[str, str]]:
    """Return per (supplier, session) its replicated offset and why it is closed, or ''."""
    by_supplier: dict[str, list[str]] = defaultdict(list)
    for supplier, session_id in pairs:
        by_supplier[supplier].append(session_id)
    if not by_supplier:
        return {}
    async with redis.pipeline(transaction=False) as pipe:
        for supplier, names in by_supplier.items():
            pipe.hmget(keys.replicated(supplier), names)
            pipe.hmget(keys.closed(supplier), names)
        rows: list[Any] = await pipe.execute()
    marks = {}
    for (supplier, names), replicated, closed in zip(by_supplier.items(), rows[::2], rows[1::2], strict=True):
        for name, mark, reason in zip(names, replicated, closed, strict=True):
            marks[supplier, name] = (offset_text(mark or b""), offset_text(reason or b""))
    return marks


async def forget_lost(redis: "Redis", keys: RedisKeys, incarnations: dict[str, str]) -> list[str]:
    """Return the suppliers whose relays Redis has lost, as by eviction, and forget their known incarnations."""
    known = list(incarnations.items())
    if not known:
        return []
    async with redis.pipeline(transaction=False) as pipe:
        for supplier, _ in known:
            pipe.get(keys.incarnation(supplier))
        found: list[Any] = await pipe.execute()
    lost = [row for row, value in zip(known, found, strict=True) if offset_text(value or b"") != row[1]]
    # An append during the query may have noticed the loss.
    lost = [row for row in lost if incarnations.get(row[0]) == row[1]]
    for supplier, _ in lost:
        del incarnations[supplier]
    return [supplier for supplier, _ in lost]


def is_safe(pair: tuple[str, str], segment: Segment, marks: tuple[str, str], history: str) -> bool:
    """Return True if a segment's relays of a session are on a volume or no longer matter.

    `marks` are the session's replicated offset and why it is closed, read from the Redis of that history.
    """
    replicated, closed = marks
    ours = segment.appended.get(pair)
    if closed.startswith("done") or segment.is_rejected(pair):
        return True
    if segment.history != history:
        return False
    return pair not in segment.unacknowledged and bool(ours and replicated and reached(replicated, ours))


def chunks(records: Iterable[WalRecord]) -> Iterator[list[WalRecord]]:
    """Yield the records in order, in chunks that fit one command."""
    chunk: list[WalRecord] = []
    size = 0
    for record in records:
        if chunk and (len(chunk) == _REPLAY_BATCH or size >= BATCH_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(record)
        size += len(record.relay)
    if chunk:
        yield chunk


def reached(theirs: str, ours: str) -> bool:
    """Return True if a replicated offset `origin/id` covers ours.

    Offsets of different origins never do.
    """
    their_origin, _, their_id = theirs.partition("/")
    our_origin, _, our_id = ours.partition("/")
    return their_origin == our_origin and stream_id(their_id) >= stream_id(our_id)


def later(known: str | None, new: str) -> str:
    """Return the later of two offsets of one origin, else the new one. Replies may arrive in another order."""
    return known if known is not None and reached(known, new) else new


def stream_id(text: str) -> tuple[int, int]:
    """Return a stream id as a comparable pair."""
    milliseconds, _, sequence = text.partition("-")
    return int(milliseconds), int(sequence or 0)
