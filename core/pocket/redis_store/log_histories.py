"""To which history of their primaries the relays of a log were appended."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from redis.asyncio import Redis

from pocket.redis_store.log_positions import is_safe
from pocket.redis_store.node_addresses import Address
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.server_info import PrimaryStates
from pocket.redis_store.stream_reader import primary_of
from pocket.redis_store.write_ahead_log import Segment


@dataclass(slots=True)
class LogHistories:
    """The history of each primary, as a heartbeat read it last."""

    redis: "Redis"
    keys: RedisKeys
    known: dict[Address | None, str] = field(default_factory=dict)
    away: set[Address | None] = field(default_factory=set)
    """Primaries that cannot be used at present."""

    def observe(self, state: PrimaryStates) -> None:
        """Record the state of Redis at a heartbeat."""
        self.known |= state.histories
        self.away = set(state.away)

    def of(self, supplier: str) -> str:
        """Return the history of the primary of a supplier, or ''."""
        return self.known.get(primary_of(self.redis, self.keys, supplier), "")

    def is_due(self, segment: Segment, supplier: str) -> bool:
        """Return True unless the present Redis has a segment's relays of a supplier.

        A restart or fail-over of Redis begins another history.
        """
        history = self.of(supplier)
        return not history or segment.histories.get(supplier) != history

    def is_away(self, supplier: str) -> bool:
        """Return True if the primary of a supplier cannot be used."""
        return primary_of(self.redis, self.keys, supplier) in self.away

    def set_away(self, supplier: str) -> None:
        """Record that the primary of a supplier cannot be used, until the next heartbeat."""
        self.away.add(primary_of(self.redis, self.keys, supplier))

    def due_sessions(self, segment: Segment) -> set[tuple[str, str]]:
        """Return the sessions of a segment that must be appended again.

        Those of primaries that cannot be used are left out.
        """
        due = {name for name in segment.suppliers if self.is_due(segment, name) and not self.is_away(name)}
        return {pair for pair in segment.sessions if pair[0] in due}

    def owed(self, segments: Iterable[Segment]) -> set[str]:
        """Return the suppliers of whose relays in the log some may not be in Redis."""
        suppliers: set[str] = set()
        for segment in segments:
            if not segment.damaged:
                suppliers.update(supplier for supplier, _ in segment.unacknowledged | segment.replaying)
                suppliers.update(supplier for supplier in segment.suppliers if self.is_due(segment, supplier))
        return suppliers

    def appended(self, segments: Iterable[Segment]) -> set[tuple[str, str]]:
        """Return the sessions (supplier, id) whose relays must be in the present Redis."""
        return {
            pair for segment in segments if not segment.damaged for pair in segment.appended
            if not self.is_due(segment, pair[0]) and pair not in segment.unacknowledged
        }  # fmt: skip

    def unchanged(self, state: PrimaryStates, supplier: str) -> str | None:
        """Return the history of a supplier's primary, None if a later state differs."""
        primary = primary_of(self.redis, self.keys, supplier)
        history = self.known.get(primary)
        return history if state.histories.get(primary) == history else None

    def safe(
        self, segments: Iterable[Segment], marks: Mapping[tuple[str, str], tuple[str, str]], state: PrimaryStates
    ) -> list[Segment]:
        """Return the segments whose relays are on volumes or no longer matter.

        `marks` were read before that state of Redis. Those that may be of another primary than the one the relays were
        appended to show nothing.
        """
        rows = [segment for segment in segments if not segment.pending]
        histories = {name: self.unchanged(state, name) for segment in rows for name in segment.suppliers}
        return [
            segment for segment in rows
            if all(is_safe(pair, segment, marks.get(pair), histories[pair[0]]) for pair in segment.sessions)
        ]  # fmt: skip
