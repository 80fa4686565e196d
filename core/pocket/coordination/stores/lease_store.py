"""Where a group of Leases lives: one interface for Kubernetes and for Redis.

A write names the version it was decided on and is refused when somebody was faster: both stores compare and set.
"""

from dataclasses import dataclass
from typing import Protocol

from pocket.coordination.elector import Record


class LeaseUnavailable(Exception):
    """The store could not be asked; nothing is known to have changed."""


class LeaseConflict(Exception):
    """Somebody else wrote first; the next read tells who."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A Lease as it was read, with the store's version of it."""

    record: Record
    version: str


class LeaseStore(Protocol):
    """All Leases of one group; every call has a deadline of its own."""

    async def read(self) -> dict[str, Stored]:
        """All Leases by name; raises LeaseUnavailable."""
        ...

    async def write(self, name: str, record: Record, known: Stored | None) -> Stored:
        """Creates (`known` is None) or replaces; raises LeaseConflict or LeaseUnavailable."""
        ...
