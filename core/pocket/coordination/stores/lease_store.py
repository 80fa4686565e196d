"""The interface of a store for a group of Leases, in Kubernetes or in Redis.

A write names the version it was decided on and is rejected if another write was faster: both stores compare and set.
"""

from dataclasses import dataclass
from typing import Protocol

from pocket.coordination.elector import LeaseRecord


class LeaseUnavailable(Exception):
    """The store did not answer. The Leases may or may not have changed."""


class LeaseConflict(Exception):
    """Another client wrote first. The next read shows its record."""


@dataclass(frozen=True, slots=True)
class StoredLease:
    """A Lease as read, with the store's version of it."""

    record: LeaseRecord
    version: str


class LeaseStore(Protocol):
    """All Leases of one group. Every call has its own deadline."""

    async def read(self) -> dict[str, StoredLease]:
        """Return all Leases by name. Raises LeaseUnavailable."""
        ...

    async def write(self, name: str, record: LeaseRecord, known: StoredLease | None) -> StoredLease:
        """Create (`known` is None) or replace. Raises LeaseConflict or LeaseUnavailable."""
        ...
