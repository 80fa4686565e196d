"""Track the positions of a log's relays in their streams.

Also track what is known to be on a miner's volume.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from redis.asyncio import Redis

from pocket.redis_store.log_records import WalRecord
from pocket.redis_store.recorder_types import AppendRefusal
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.reply_text import text_of
from pocket.redis_store.store_errors import foreign_reply
from pocket.redis_store.write_ahead_log import Segment

_REPLAY_BATCH: Final = 256
_ENTRY_ID: Final = re.compile(rb"[0-9]+-[0-9]+")
_REJECTED: Final = -1
"""The script's reply for a stream that Redis refuses."""
BATCH_BYTES: Final = 4 * 1024 * 1024
"""Bound of a batch in bytes, since relays with large requests fill a command with few."""


def append_arguments(
    keys: RedisKeys, supplier: str, by_session: Mapping[str, list[WalRecord]], incarnation: str
) -> tuple[list[str], list[Any]]:
    """Return the keys and arguments of the script that appends a supplier's relays."""
    names = [keys.closed(supplier), keys.sessions(supplier), keys.incarnation(supplier), keys.cutoff(supplier)]
    arguments: list[Any] = [incarnation]
    for session_id, rows in by_session.items():
        names.append(keys.stream(supplier, session_id))
        arguments += [session_id, rows[0].header, rows[0].session_end, len(rows), *(row.relay for row in rows)]
    return names, arguments


def appended_rows(reply: list[Any]) -> tuple[str, list[Any]]:
    """Return the incarnation and per stream what the script that appends returned.

    Raises RedisUnavailable for what it never returns: only an entry's id shows that relays are in their stream.
    """
    incarnation, *rows = reply
    for row in rows:
        if row not in (None, 0, _REJECTED) and not (isinstance(row, bytes) and _ENTRY_ID.fullmatch(row)):
            raise foreign_reply(row)
    if not isinstance(incarnation, bytes):
        raise foreign_reply(incarnation)
    return text_of(incarnation), rows


def appended_at(lasts: Iterable[Any]) -> float | None:
    """Return the server's time of the latest entry, None without one.

    In seconds since 1970.
    """
    return max((int(last.partition(b"-")[0]) / 1000 for last in lasts if isinstance(last, bytes)), default=None)


def segment_took(
    segment: Segment, pair: tuple[str, str], last: Any, origin: str, is_present: bool
) -> AppendRefusal | None:
    """Record what the script that appends returned for a session (supplier, id).

    Returns why it took no relay.

    `is_present` is False if Redis has another history by now.
    """
    if last == _REJECTED:
        segment.unacknowledged.add(pair)
        return AppendRefusal.REJECTED
    if not last:
        if last is not None:
            segment.rejected.add(pair)
        return AppendRefusal.CLOSED
    if is_present or pair not in segment.appended:
        segment.appended[pair] = later(segment.appended.get(pair), f"{origin}/{text_of(last)}")
    return None


async def read_marks(
    redis: "Redis", keys: RedisKeys, pairs: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], tuple[str, str]]:
    """Return the replicated offset of each session, and why it is closed.

    Sessions are pairs of supplier and id. The reason is '' for an open one. Suppliers whose rows cannot be read are
    missing from the result.
    """
    by_supplier: dict[str, list[str]] = defaultdict(list)
    for supplier, session_id in pairs:
        by_supplier[supplier].append(session_id)
    if not by_supplier:
        return {}
    async with redis.pipeline(transaction=False) as pipe:
        for supplier, names in by_supplier.items():
            pipe.hmget(keys.replicated(supplier), names)
            pipe.hmget(keys.closed(supplier), names)
        rows: list[Any] = await pipe.execute(raise_on_error=False)
    marks = {}
    for (supplier, names), replicated, closed in zip(by_supplier.items(), rows[::2], rows[1::2], strict=True):
        if isinstance(replicated, Exception) or isinstance(closed, Exception):
            continue
        for name, mark, reason in zip(names, replicated, closed, strict=True):
            marks[supplier, name] = (text_of(mark or b""), text_of(reason or b""))
    return marks


def is_safe(pair: tuple[str, str], segment: Segment, marks: tuple[str, str] | None, history: str | None) -> bool:
    """Return True if a segment's relays of a session may be deleted.

    They are on a miner's volume, or the session is over.

    `marks` are the session's replicated offset and why it is closed, read from the Redis of that history. None of
    either if they could not be read.
    """
    if marks is None or history is None:
        return False
    replicated, closed = marks
    ours = segment.appended.get(pair)
    if closed.startswith("done") or segment.is_rejected(pair):
        return True
    if segment.histories.get(pair[0]) != history:
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
    try:
        return their_origin == our_origin and stream_id(their_id) >= stream_id(our_id)
    except ValueError:  # a damaged offset
        return False


def later(known: str | None, new: str) -> str:
    """Return the later of two offsets of one origin, else the new one.

    Replies may arrive in another order.
    """
    return known if known is not None and reached(known, new) else new


def stream_id(text: str) -> tuple[int, int]:
    """Return a stream id as a comparable pair. Raises ValueError for an invalid one."""
    milliseconds, _, sequence = text.partition("-")
    return int(milliseconds), int(sequence or 0)
