"""Watch Redis for restarts and failovers, and read its clock and memory."""

import time
from collections.abc import Callable

import structlog
from redis.asyncio import Redis
from structlog.typing import FilteringBoundLogger

from pocket.redis_store.connection import inspect_primaries
from pocket.redis_store.node_addresses import Address
from pocket.redis_store.server_info import PrimaryStates
from pocket.redis_store.store_errors import RedisUnavailable
from pocket.runtime.single_flight import SingleFlight
from pocket_miner import miner_metrics

_LOG: FilteringBoundLogger = structlog.get_logger()


class RedisWatch:
    """Detects restarts and failovers of Redis.

    `settled` reports whether relayers have had time to replay their write-ahead logs to it.
    """

    def __init__(self, redis: "Redis", clock: Callable[[], float] = time.monotonic) -> None:
        self._redis = redis
        self._clock = clock
        self._histories: dict[Address | None, str] = {}
        self._usable_since: float | None = None
        self._missed = False
        self._changed: frozenset[Address | None] = frozenset()  # since the latest poll
        self._inspection = SingleFlight()
        self._ahead: float | None = None
        self.memory = (0, 0)
        """Used bytes and their limit, 0 without one."""
        self.problem = ""
        """Why this Redis may lose relays, or why a primary of a Cluster cannot be used. Empty if all is well."""

    def history_of(self, primary: Address | None) -> str:
        """Return the history of a primary as it answered last, '' before that.

        Without a Cluster it is None.
        """
        return self._histories.get(primary, "")

    def server_milliseconds(self) -> float | None:
        """Return the time by Redis's clock in milliseconds, None before the first poll."""
        return None if self._ahead is None else self._clock() * 1000 + self._ahead

    def settled(self, seconds: float) -> bool:
        """Return True if Redis was usable with the same data for over `seconds`.

        Returns False before the first poll.
        """
        return self._usable_since is not None and self._clock() - self._usable_since > seconds

    async def still_settled(self, seconds: float) -> bool:
        """Return True if Redis is settled now: what the latest poll found may be over.

        Raises RedisUnavailable.
        """
        await self._inspection.do("state", self._inspect)
        return self.settled(seconds)

    def missed(self) -> None:
        """Record that Redis was unusable.

        Settling then counts from its return instead of its start.
        """
        self._missed = True

    async def poll(self) -> frozenset[Address | None]:
        """Poll Redis.

        Returns the primaries that may hold other data than at the poll before. Raises RedisUnavailable.
        """
        await self._inspect()
        changed, self._changed = self._changed, frozenset()
        return changed

    async def _inspect(self) -> None:
        try:
            state = await inspect_primaries(self._redis)
        except RedisUnavailable:
            self.missed()
            raise
        self._changed |= self.observe(state)
        if state.failure is not None:
            self.missed()

    def observe(self, state: PrimaryStates) -> frozenset[Address | None]:
        """Record a state of Redis.

        Returns the primaries that may hold other data than before.
        """
        now, info = self._clock(), state.combined
        if info.server_time_microseconds:
            self._ahead = info.server_time_microseconds / 1000 - now * 1000
        unsafe = info.problem() or ""
        problem = unsafe or str(state.failure or "")
        if problem and problem != self.problem:
            _LOG.error("Redis may lose relays" if unsafe else "a primary of Redis cannot be used", problem=problem)
        self.problem = problem
        self.memory = (info.used_memory, info.max_memory)
        miner_metrics.REDIS_MEMORY.labels("used").set(info.used_memory)
        miner_metrics.REDIS_MEMORY.labels("max").set(info.max_memory)
        changed = {address for address, history in state.histories.items() if self._histories.get(address) != history}
        if not changed:
            self._missed = self._missed and state.failure is not None
            return frozenset()
        met_running = not self._histories and not self._missed
        self._usable_since = now - info.uptime_seconds if met_running else now
        self._histories |= state.histories
        self._missed = False
        return frozenset(changed)
