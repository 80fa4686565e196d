"""Where a group of Leases lives: one interface for Kubernetes and for Redis.

A write names the version it was decided on and is refused when somebody was faster: both stores compare and set.
"""

from dataclasses import dataclass
from typing import Protocol

from pocket.coordination.elector import LeaseRecord


class LeaseUnavailable(Exception):
    """The store could not be asked; nothing is known to have changed."""


class LeaseConflict(Exception):
    """Somebody else wrote first; the next read tells who."""


@dataclass(frozen=True, slots=True)
class StoredLease:
    """A Lease as it was read, with the store's version of it."""

    record: LeaseRecord
    version: str


class LeaseStore(Protocol):
    """All Leases of one group; every call has a deadline of its own."""

    async def read(self) -> dict[str, StoredLease]:
        """All Leases by name; raises LeaseUnavailable."""
        ...

    async def write(self, name: str, record: LeaseRecord, known: StoredLease | None) -> StoredLease:
        """Creates (`known` is None) or replaces; raises LeaseConflict or LeaseUnavailable."""
        ...
