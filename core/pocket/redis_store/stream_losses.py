"""Find out whether Redis has lost streams or their entries.

Relayers appended them.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cachetools import FIFOCache
from redis.asyncio import Redis

from pocket.redis_store.lua_scripts import STATES
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.reply_text import text_of
from pocket.redis_store.store_errors import RedisUnavailable, foreign_reply

_MOST: Final = 10_000
"""Streams with deleted entries whose numbers are known."""


def states_arguments(keys: RedisKeys, supplier: str, session_ids: Iterable[str]) -> tuple[list[str], list[Any]]:
    """Return keys and arguments of the script that reads a supplier's streams.

    It returns their states.
    """
    names = list(session_ids)
    streams = [keys.stream(supplier, name) for name in names]
    return [keys.incarnation(supplier), keys.closed(supplier), keys.sessions(supplier), *streams], names


def deleted_entries(reply: Any, number: int) -> list[int | None]:
    """Return the number of deleted entries of each stream as the script returned it.

    Raises RedisUnavailable for a reply that the script does not give.
    """
    if not isinstance(reply, list) or len(reply) != 1 + number:
        raise foreign_reply(reply)
    rows = reply[1:]
    if not all(row is None or isinstance(row, int) for row in rows):
        raise foreign_reply(reply)
    return rows


@dataclass(slots=True)
class StreamLosses:
    """Finds losses that no restart shows.

    Eviction and commands of administrators cause them. Redis counts the entries that were ever added to a stream, so
    that those which are missing are known. A stream whose entries were appended again still lacks the deleted ones:
    only more of them are another loss.
    """

    redis: "Redis"
    keys: RedisKeys
    _deleted: FIFOCache[tuple[str, str], int] = field(default_factory=lambda: FIFOCache(_MOST))
    """(supplier, session id) → entries that are known to be deleted. What is forgotten is found once more."""

    async def find(self, incarnations: Mapping[str, str], pairs: Collection[tuple[str, str]]) -> set[str]:
        """Return the suppliers whose relays Redis has lost.

        `incarnations` are those that are known. `pairs` are sessions (supplier, id) with relays in their streams: of an
        open one both the stream and the header must be there. A supplier whose rows cannot be read shows nothing.
        """
        sessions: dict[str, list[str]] = defaultdict(list)
        for supplier, session_id in pairs:
            sessions[supplier].append(session_id)
        known = list(incarnations)
        if not known:
            return set()
        rows = await asyncio.gather(*(self._states(supplier, sessions[supplier]) for supplier in known))
        lost = set()
        for supplier, row in zip(known, rows, strict=True):
            try:
                numbers = deleted_entries(row, len(sessions[supplier]))
            except RedisUnavailable:
                continue
            if text_of(row[0]) != incarnations[supplier]:
                lost.add(supplier)
            for session_id, deleted in zip(sessions[supplier], numbers, strict=True):
                before = self._deleted.get((supplier, session_id), 0)
                if deleted is not None and (deleted < 0 or deleted > before):
                    lost.add(supplier)
                if deleted is not None and deleted > 0:
                    self._deleted[supplier, session_id] = deleted
        return lost

    async def _states(self, supplier: str, session_ids: Sequence[str]) -> Any:
        """Return the script's reply, or None without one.

        Without a reply nothing is known of this supplier.
        """
        try:
            return await STATES.run(self.redis, *states_arguments(self.keys, supplier, session_ids))
        except RedisUnavailable:
            return None
