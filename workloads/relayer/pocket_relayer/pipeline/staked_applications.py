"""List the applications that are staked.

It is for addresses that may not query single ones.
"""

from collections.abc import Callable
from typing import Final, Protocol

from pocket_relayer.pipeline.background_queries import BackgroundQueries

_SECONDS: Final = 30.0
_LIST: Final = "staked applications"


class ApplicationList(Protocol):
    """The chain's list, implemented by pocket.chain.client.ChainClient."""

    async def staked_applications(self) -> frozenset[tuple[str, str]]:
        """Return address and service id of all applications' stakes."""


class StakedApplications:
    """The applications and services that the chain lists.

    The list is read at most every 30 seconds. An address that invents applications uses up its budget of queries. Those
    of a real application behind the same address are queried all the same, once it is known to be one: a list costs the
    same however many are invented.
    """

    def __init__(self, chain: ApplicationList, clock: Callable[[], float], background: BackgroundQueries) -> None:
        self._chain = chain
        self._clock = clock
        self._background = background
        self._known: frozenset[tuple[str, str]] = frozenset()
        self._next_at = -_SECONDS

    def include(self, application: str, service_id: str) -> bool:
        """Return True if the latest list has an application's stake for a service.

        Otherwise a newer list is read in the background, independent of the client that waits.
        """
        if (application, service_id) in self._known:
            return True
        if self._clock() >= self._next_at and self._background.start(_LIST, self._read):
            self._next_at = self._clock() + _SECONDS
        return False

    async def _read(self) -> None:
        self._known = await self._chain.staked_applications()
