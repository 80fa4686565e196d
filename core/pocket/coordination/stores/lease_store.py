"""The interface of a store for a group of Leases, in Kubernetes or in Redis.

A write names the version it was decided on and is rejected if another write was faster: both stores compare and set.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pocket.coordination.elector import LeaseRecord
from pocket.runtime.concurrency import map_bounded


class LeaseUnavailable(Exception):
    """The store did not answer. The Leases may or may not have changed."""


class LeaseConflict(Exception):
    """Another client wrote first. The next read shows its record."""


@dataclass(frozen=True, slots=True)
class StoredLease:
    """A Lease as read, with the store's version of it."""

    record: LeaseRecord
    version: str


@dataclass(frozen=True, slots=True)
class LeaseWrite:
    """A Lease to create (`known` is None) or to replace."""

    name: str
    record: LeaseRecord
    known: StoredLease | None


WriteResult = StoredLease | LeaseConflict | LeaseUnavailable


class LeaseStore(Protocol):
    """All Leases of one group. Every call has its own deadline."""

    async def read(self) -> dict[str, StoredLease]:
        """Return all Leases by name. Raises LeaseUnavailable."""
        ...

    async def write(self, name: str, record: LeaseRecord, known: StoredLease | None) -> StoredLease:
        """Create (`known` is None) or replace. Raises LeaseConflict or LeaseUnavailable."""
        ...

    async def write_all(self, writes: Sequence[LeaseWrite]) -> list[WriteResult]:
        """Write several Leases independently and return the result of each.

        Raises nothing.
        """
        ...


async def write_each(
    write: Callable[[str, LeaseRecord, StoredLease | None], Awaitable[StoredLease]],
    writes: Sequence[LeaseWrite],
    concurrency: int,
) -> list[WriteResult]:
    """Write Leases by single calls, at most `at_once` at the same time."""

    async def one(row: LeaseWrite) -> WriteResult:
        try:
            return await write(row.name, row.record, row.known)
        except (LeaseConflict, LeaseUnavailable) as error:
            return error

    return await map_bounded(one, writes, concurrency)
