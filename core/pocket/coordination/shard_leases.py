"""Own shards by Leases (docs/fragile/ownership.md).

There is one Lease per shard, one per member, and one for the leader. A tick is one read of the group, and one write for
every Lease that is renewed, taken or released. Decisions are pure (`pocket.coordination.elector`,
`pocket.coordination.rebalancing`), this module executes them.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.coordination.elector import (
    CandidateState,
    ElectionStep,
    LeaseTiming,
    after_write,
    member_name,
    next_expiry,
    next_record,
    next_step,
    observe,
    release_record,
    takeable_at,
)
from pocket.coordination.lease_names import LeaseNames
from pocket.coordination.rebalancing import RebalancePlan, plan_rebalance, standby_of
from pocket.coordination.stores.lease_store import (
    LeaseConflict,
    LeaseStore,
    LeaseUnavailable,
    LeaseWrite,
    StoredLease,
)
from pocket.runtime.concurrency import map_bounded

_LOG: FilteringBoundLogger = structlog.get_logger()
_RENEW_AFTER = 0.2  # of the lease's duration
_PAUSE_ALONE = 0.3  # of the lease's duration
_ASKED_AT_ONCE = 32  # shards whose epochs are read


class ShardListener(Protocol):
    """Acts on shards. The callbacks for one shard are never called concurrently."""

    async def known_epoch(self, shard: int) -> int:
        """Return a shard's highest epoch outside the Lease. Raises LeaseUnavailable."""
        ...

    async def on_acquired(self, shard: int, epoch: int) -> None:
        """Start to act on the shard. Must not raise."""
        ...

    async def on_lost(self, shard: int) -> None:
        """Stop acting on the shard before returning. Must not raise."""
        ...


class ShardLeaseManager:
    """One member of a group that shares shards.

    A member that is not able to act on shards (`is_able`) leaves them to the others while one of these is live.
    """

    def __init__(
        self,
        store: LeaseStore,
        names: LeaseNames,
        identity: str,
        listener: ShardListener,
        timing: LeaseTiming,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        rng: random.Random | None = None,
        is_able: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._is_able = is_able
        self._names = names
        self.identity = identity
        self._listener = listener
        self._timing = timing
        self._clock = clock
        self._wall_clock = wall_clock
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._views: dict[str, CandidateState] = {}
        self._seen: dict[str, tuple[str, float]] = {}
        self._stored: Mapping[str, StoredLease] = {}
        self._doubted: set[str] = set()  # held Leases that the last answer lacked, and the one before did not
        self._renewed: dict[str, float] = {}
        self._owned: dict[int, int] = {}
        self._stale_epochs: dict[int, int] = {}
        self._wake = asyncio.Event()
        self._complained = ""
        self._has_read = False
        self._versions_at_start: dict[str, str] | None = None  # of the members' Leases that the first read found
        self._read_lock = asyncio.Lock()
        self._verified: Mapping[str, StoredLease] = {}
        self._verified_since = float("-inf")
        self._read_at = float("-inf")
        self.writes = 0

    # Queries.

    @property
    def owned_shards(self) -> Mapping[int, int]:
        """Return shard → epoch of the shards that this member acts on, oldest first."""
        return self._owned

    @property
    def is_recent(self) -> bool:
        """Return True if the owners in the Leases are current."""
        return self._clock() - self._read_at < self._timing.lease

    async def refresh(self) -> None:
        """Read the Leases without taking any. Raises LeaseUnavailable."""
        await self._read()

    @property
    def taken_elsewhere(self) -> bool:
        """Return True if another live member holds a shard, as last seen."""
        me = member_name(self.identity)
        return any(holder and holder != me for holder in self._holders())

    @property
    def unowned(self) -> frozenset[int]:
        """Return the shards that no live member holds, as last seen."""
        return frozenset(number for number, holder in enumerate(self._holders()) if not holder)

    @property
    def leads(self) -> bool:
        """Return True if this member is the leader of the group."""
        return self._view(self._names.leader).leads(self._clock())

    async def verify_lease(self, shard: int) -> int:
        """Read the epoch under which this member holds a shard, 0 if it does not.

        The read starts after the call, and concurrent callers share one. Raises LeaseUnavailable.
        """
        called = self._clock()
        async with self._read_lock:
            if self._verified_since < called:
                begun = self._clock()
                self._verified = await self._store.read()
                self._verified_since = begun
            lease = self._verified.get(self._names.shards[shard])
        if lease is None or lease.record.holder != self.identity:
            return 0
        return lease.record.transitions

    @property
    def members(self) -> frozenset[str]:
        """Return the identities of the live members, as last seen."""
        return frozenset(self._live_members().values())

    def _live_members(self) -> dict[str, str]:
        """Return Lease → identity of the live members."""
        now = self._clock()
        return {
            name: view.record.holder
            for name, view in self._views.items()
            if self._names.is_member(name) and view.record is not None and view.record.holder
            and (view.record.holder == self.identity or now < takeable_at(view, self._timing))
        }  # fmt: skip

    @property
    def recent_members(self) -> frozenset[str]:
        """Return the members that live, or did within two lease durations.

        The store may have lost the Leases of the latter.
        """
        oldest = self._clock() - 2 * self._timing.lease
        lost = {identity for name, (identity, at) in self._seen.items() if name not in self._stored and at >= oldest}
        return self.members | lost

    def standby_for(self) -> frozenset[int]:
        """Return the shards that this member follows as standby."""
        members = self.members
        if members <= {self.identity}:
            return frozenset()
        member_names = {member_name(identity) for identity in members}
        me = member_name(self.identity)
        return frozenset(
            number
            for number, holder in enumerate(self._holders())
            if holder and holder != me and standby_of(number, holder, member_names) == me
        )

    def report_stale_epoch(self, shard: int, epoch: int) -> None:
        """Report an epoch above ours, so that a Lease of ours is written again above it."""
        self._stale_epochs[shard] = max(self._stale_epochs.get(shard, 0), epoch)
        self._wake.set()

    # The loop.

    async def run(self, stop: asyncio.Event) -> None:
        """Tick until `stop`, then release everything.

        An outage of the store ends no ownership: the fence decides.
        """
        waking = asyncio.create_task(self._wake_at(stop))
        try:
            while not stop.is_set():
                try:
                    await self.tick()
                    self._complained = ""
                except (LeaseUnavailable, ValueError, KeyError, TypeError) as error:
                    if str(error) != self._complained:
                        _LOG.warning("lease store unavailable or its records damaged, retrying", error=error)
                    self._complained = str(error)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pause_seconds()):
                        await self._wake.wait()
                self._wake.clear()
        finally:
            waking.cancel()
            await asyncio.shield(self.release_all())

    async def _wake_at(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()

    def _pause_seconds(self) -> float:
        """Return the seconds until the next tick: a lone member renews its own Leases."""
        alone = not self._complained and self._has_read and self.members == {self.identity}
        longest = self._timing.lease * _PAUSE_ALONE if alone else self._timing.retry
        # Wake when a lease expires: takeover is promised within a bound.
        expires = next_expiry(self._views.values(), self._clock(), self._timing)
        return min(longest * self._rng.uniform(0.7, 1.0), max(0.05, expires))

    async def tick(self) -> None:
        """Read all Leases and act on them once. Raises LeaseUnavailable."""
        await self._read()
        if not self._is_able() and self.members - {self.identity}:
            await self.release_all()
            return
        await self._drop_lost()
        await self._raise_epochs()
        await self._renew()
        if not self._has_read:
            # Members that start at the same time should have written their Leases before shares are computed.
            self._has_read = True
            return
        await self._execute(self._plan())

    async def _read(self) -> None:
        self._stored = await self._store.read()
        now = self._read_at = self._clock()
        if self._versions_at_start is None:
            names = filter(self._names.is_member, self._stored)
            self._versions_at_start = {name: self._stored[name].version for name in names}
        self._doubted = self._missing() - self._doubted  # the second answer without a Lease in a row is believed
        for name in {*self._stored, *self._names.shards, self._names.leader, *self._views} - self._doubted:
            stored = self._stored.get(name)
            record, version = (stored.record, stored.version) if stored else (None, None)
            self._views[name] = observe(self._view(name), record, version, now)
        self._seen |= {name: (identity, now) for name, identity in self._live_members().items()}
        oldest = now - 2 * self._timing.lease
        self._seen = {name: row for name, row in self._seen.items() if row[1] >= oldest}

    def _missing(self) -> set[str]:
        """Return the own and the others' Leases that the last answer lacks.

        Our member Lease is written at once.
        """
        owned = {self._names.shards[shard] for shard in self._owned}
        held = {
            name
            for name, view in self._views.items()
            if view.record is not None and view.record.holder not in ("", self.identity)
        }
        return (owned | held) - set(self._stored)

    def _view(self, name: str) -> CandidateState:
        return self._views.get(name) or CandidateState(self.identity)

    def _holders(self) -> list[str]:
        """Return the member name of each shard's holder, '' where the shard can be taken."""
        now, me = self._clock(), member_name(self.identity)
        holders = []
        for number, name in enumerate(self._names.shards):
            view = self._view(name)
            holder = view.record.holder if view.record is not None else ""
            if number in self._owned:
                holders.append(me)
            elif not holder or member_name(holder) == me or now >= takeable_at(view, self._timing):
                holders.append("")
            else:
                holders.append(member_name(holder))
        return holders

    def _plan(self) -> RebalancePlan:
        members = self._live_members()
        return plan_rebalance(
            member_name(self.identity), {member_name(identity) for identity in members.values()}, self._holders(),
            list(self._owned), former=self._former(),
            renewing={member_name(identity) for name, identity in members.items() if self._was_seen_alive(name)},
        )  # fmt: skip

    def _former(self) -> list[int]:
        """Return the shards that an earlier incarnation of this member holds."""
        views = [self._view(name) for name in self._names.shards]
        holders = [view.record.holder if view.record is not None else "" for view in views]
        me = member_name(self.identity)
        return [n for n, holder in enumerate(holders) if n not in self._owned and holder and member_name(holder) == me]

    def _was_seen_alive(self, name: str) -> bool:
        """Return True if a member's Lease changed since the first read."""
        stored = self._stored.get(name)
        return stored is not None and stored.version != (self._versions_at_start or {}).get(name)

    async def _drop_lost(self) -> None:
        for shard in list(self._owned):
            record = self._view(self._names.shards[shard]).record
            if record is None or record.holder != self.identity:
                holder = record.holder if record else ""
                _LOG.warning("shard lost to another holder", shard=shard, holder=holder)
                await self._lose(shard)

    async def _raise_epochs(self) -> None:
        fenced, self._stale_epochs = self._stale_epochs, {}
        for shard, epoch in fenced.items():
            if shard in self._owned and self._owned[shard] < epoch:
                await self._lose(shard)
                await self._attempt(self._names.shards[shard], above=epoch)
                await self._gain_if_written(shard)

    async def _renew(self) -> None:
        now, due = self._clock(), self._timing.lease * _RENEW_AFTER
        mine = [self._names.member(member_name(self.identity)), self._names.leader]
        shards = {self._names.shards[shard] for shard in self._owned} - self._doubted
        names = [*mine, *sorted(shards)]
        await self._write([name for name in names if now - self._renewed.get(name, -due) >= due])

    async def _attempt(self, name: str, *, above: int | None = None) -> bool:
        """Write the Lease at most once. `above` writes a new epoch, past it.

        Returns True if the Lease is ours afterwards. Raises LeaseUnavailable.
        """
        return name in await self._write([name], above=above)

    async def _write(self, names: Sequence[str], *, above: int | None = None) -> set[str]:
        """Write each of the Leases that may be written at most once, all with one call.

        Returns those that are ours afterwards. Raises LeaseUnavailable if the result of one is unknown.
        """
        wall_time = self._wall_clock()
        drafts = [draft for name in names if (draft := self._draft(name, above, wall_time)) is not None]
        if not drafts:
            return set()
        sent_at = self._clock()
        self.writes += len(drafts)
        unknown: LeaseUnavailable | None = None
        written: dict[str, StoredLease] = {}
        for draft, stored in zip(drafts, await self._store.write_all(drafts), strict=True):
            name = draft.name
            if isinstance(stored, StoredLease):
                written[name] = stored
                self._views[name] = after_write(
                    self._view(name), stored.record, stored.version, sent_at, self._clock(), self._timing
                )
                self._renewed[name] = sent_at
            elif isinstance(stored, LeaseUnavailable):
                unknown = stored
        self._stored = {**self._stored, **written}
        if unknown is not None:
            raise unknown
        return set(written)

    def _draft(self, name: str, above: int | None, wall_time: datetime) -> LeaseWrite | None:
        view = self._view(name)
        step = next_step(view, self._clock(), self._timing)
        if step is ElectionStep.WAIT:
            return None
        if above is not None and step is ElectionStep.RENEW:
            step = ElectionStep.TAKE
        record = next_record(view, step, wall_time, self._timing, above or 0)
        return LeaseWrite(name, record, self._stored.get(name))

    async def _execute(self, planned: RebalancePlan) -> None:
        for shard in planned.release:
            await self._lose(shard)
            await self._release(self._names.shards[shard])
        epochs = await map_bounded(self._listener.known_epoch, planned.take, _ASKED_AT_ONCE)
        for shard, epoch in zip(planned.take, epochs, strict=True):
            await self._renew()  # what is held comes first, however long taking others lasts
            if await self._attempt(self._names.shards[shard], above=epoch):
                await self._gain_if_written(shard)

    async def _gain_if_written(self, shard: int) -> None:
        view = self._view(self._names.shards[shard])
        if view.record is not None and view.record.holder == self.identity and view.leads(self._clock()):
            self._owned[shard] = view.epoch
            _LOG.info("shard taken", shard=shard, epoch=view.epoch)
            await self._listener.on_acquired(shard, view.epoch)

    async def _lose(self, shard: int) -> None:
        self._owned.pop(shard, None)
        await self._listener.on_lost(shard)

    async def _release(self, name: str) -> None:
        view, stored = self._view(name), self._stored.get(name)
        if view.record is None or view.record.holder != self.identity or stored is None:
            return
        record = release_record(view.record, self._wall_clock())
        with contextlib.suppress(LeaseConflict):
            self.writes += 1
            after = await self._store.write(name, record, stored)
            self._stored = {**self._stored, name: after}
            self._views[name] = observe(view, after.record, after.version, self._clock())
            _LOG.info("lease released", lease=name)

    async def release_all(self) -> None:
        """Stop acting, then release everything. Leases that cannot be written expire."""
        for shard in list(self._owned):
            await self._lose(shard)
        with contextlib.suppress(LeaseUnavailable):
            # A renewal that was cancelled half way may have arrived: read again before writing.
            await self._read()
            ours = [name for name, stored in self._stored.items() if stored.record.holder == self.identity]
            # The member first: the others should not count on us when they see the shards free.
            for name in sorted(ours, key=lambda name: not self._names.is_member(name)):
                await self._release(name)
