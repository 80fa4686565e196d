"""Query the stakes of suppliers for their reports, as often as they may change."""

from collections.abc import Awaitable, Callable, Collection
from typing import Final

from pocket.chain.model import StakedSupplier
from pocket.errors import NotFound, PocketError
from pocket_miner.status.report import Reports

_SOON_SECONDS: Final = 5.0
_LONGEST_SECONDS: Final = 60.0
_SECONDS_EACH: Final = 0.1
"""A thousand suppliers are ten queries a second, not hundreds."""


class StakePace:
    """Decides when stakes are queried: less and less often while they stay.

    Without a session the pause grows to a minute. While a miner queries at all, gRPC's threads cost more CPU than the
    rest of an idle miner.
    """

    def __init__(self, block_seconds: float) -> None:
        self._first = max(_SOON_SECONDS, block_seconds)
        self._longest = max(_LONGEST_SECONDS, self._first)
        self._pause = self._first
        self._of: frozenset[str] = frozenset()
        self._queried_at = float("-inf")

    def is_due(self, suppliers: Collection[str], now: float, *, busy: bool) -> bool:
        """Return True if these suppliers' stakes are to be queried now.

        `busy` is True while one has a session.
        """
        if not suppliers or self._of != frozenset(suppliers):
            return bool(suppliers)
        pause = self._first if busy else self._pause
        return now - self._queried_at >= max(pause, _SECONDS_EACH * len(suppliers))

    def queried(self, suppliers: Collection[str], now: float, *, steady: bool) -> None:
        """Record a query that ended.

        `steady` is True if all answered as before, and none will soon change.
        """
        same, self._of = self._of == frozenset(suppliers), frozenset(suppliers)
        self._pause = min(self._longest, 2 * self._pause) if same and steady else self._first
        self._queried_at = now


async def refresh_stakes(
    reports: Reports, query: Callable[[str], Awaitable[StakedSupplier]], suppliers: Collection[str]
) -> bool:
    """Update the reported stakes of suppliers from the chain.

    A failed query leaves the previous report unchanged. Returns True if all are staked as before and will stay so.
    """
    steady = True
    for address in suppliers:
        report = reports.of(address)
        before = report.stake, report.urls
        try:
            report.record_stake(await query(address))
        except NotFound:
            report.record_stake(None)
        except PocketError:
            steady = False
            continue
        steady &= report.keeps_stake and (report.stake, report.urls) == before
    return steady
