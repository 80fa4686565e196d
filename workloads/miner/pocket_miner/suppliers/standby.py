"""Copy the relays of a supplier that another miner owns.

The relays are then on a second volume, and a takeover starts warm. A standby does not publish how far it has read,
holds no fence and decides nothing.
"""

import asyncio
from dataclasses import dataclass, field

from redis.asyncio import Redis

from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.stream_reader import StreamReader
from pocket_miner.ingest.consume_rounds import Check
from pocket_miner.ingest.relay_consumer import RelayConsumer
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.ended_sessions import remove_ended, settled_long_ago, without_relays
from pocket_miner.storage.relay_store import RelayStore


@dataclass(slots=True)
class Standby:
    """The standby of one supplier."""

    tail: StreamReader
    consumer: RelayConsumer
    relay_store: RelayStore
    audit: Audit
    sessions: dict[str, TrackedSession] = field(default_factory=dict)
    _restored: bool = False

    async def round(self) -> int:
        """Copy new relays and delete the sessions that the owner has ended.

        Returns the number of entries read. Raises the errors of Redis.
        """
        if not self._restored:
            await self.consumer.restore()
            self._restored = True
        read = await self.consumer.poll(Check.IDS)
        if read is None:
            await self.consumer.discover({})
            read = await self.consumer.consume_once()
        for session_id in await self.tail.finished(self.sessions):
            session = self.sessions.pop(session_id)
            supplier = self.tail.supplier
            await asyncio.to_thread(remove_ended, self.relay_store, self.audit, session.end, supplier, session_id)
        return read


async def delete_leftovers(
    relay_store: RelayStore, audit: Audit, redis: "Redis", keys: RedisKeys, followed: set[str], height: int
) -> int:
    """Delete what is left of sessions that ended elsewhere.

    `height` is the latest one. That is relays of suppliers that this miner neither mines nor follows, and seals and
    costs without relays. Returns the number of sessions. Raises the errors of Redis and of the volume.
    """
    removed = 0
    by_supplier: dict[str, dict[str, int]] = {}
    for end, row in await asyncio.to_thread(relay_store.sessions):
        if row.supplier not in followed:
            by_supplier.setdefault(row.supplier, {})[row.session_id] = end
    for supplier, sessions in by_supplier.items():
        for session_id in await StreamReader(redis, keys, supplier).finished(sessions):
            await asyncio.to_thread(remove_ended, relay_store, audit, sessions[session_id], supplier, session_id)
            removed += 1
    for supplier, unfinished in (await asyncio.to_thread(without_relays, relay_store, audit)).items():
        ended = await StreamReader(redis, keys, supplier).finished(unfinished)
        ended |= {session_id for session_id, end in unfinished.items() if settled_long_ago(end, height)}
        if ended:
            await asyncio.to_thread(audit.forget, supplier, sorted(ended))
            removed += len(ended)
    return removed
