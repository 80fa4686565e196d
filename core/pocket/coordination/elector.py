"""Elect a leader on a Lease, as a pure state machine (docs/fragile/lease.md).

Its monotonic clock is injected. The clocks of two machines are never compared. A candidate waits until the record has
not changed for the whole lease duration by its own clock. A holder stops before that time can be over, counted from
before its last renewal was sent.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Final

_LONGEST_SECONDS: Final = 60.0
_LARGEST_EPOCH: Final = 2**31 - 1
"""The largest `leaseTransitions` that an API server stores."""


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """Durations in seconds. Renewing must fail well before the lease can be taken."""

    lease: float = 15.0
    renew: float = 10.0
    retry: float = 2.0
    call: float = 3.0

    def __post_init__(self) -> None:
        if self.renew + self.call + self.retry > self.lease:
            raise ValueError("renew + call + retry must not exceed the lease duration: two could hold it at once")


def timing_for_blocks(block_seconds: float) -> LeaseTiming:
    """Return a timing for takeover within about five blocks, at most client-go's 15 s.

    Windows are counted in blocks, so a takeover must be, too.
    """
    lease = min(15.0, max(3.0, 4 * block_seconds))
    return LeaseTiming(lease=lease, renew=lease * 0.6, retry=lease * 0.13, call=lease * 0.2)


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """The content of a Lease.

    An empty holder means released, `transitions` is the holder's epoch.
    """

    holder: str
    lease_seconds: int
    acquired: datetime
    renewed: datetime
    transitions: int


@dataclass(frozen=True, slots=True)
class CandidateState:
    """One candidate's knowledge of a Lease.

    `version` is the API server's version of the record, None without a record. `seen_at` is when this content was first
    observed, `held_until` the time after which leadership must not be assumed. `vanished` holds version and `seen_at`
    of a record that later reads lacked.
    """

    identity: str
    record: LeaseRecord | None = None
    version: str | None = None
    seen_at: float = 0.0
    held_until: float | None = None
    vanished: tuple[str, float] | None = None

    def leads(self, now: float) -> bool:
        """Return True if this candidate may act as leader now."""
        return self.held_until is not None and now < self.held_until

    @property
    def epoch(self) -> int:
        """Return the fencing token of the current record."""
        return 0 if self.record is None else self.record.transitions


class ElectionStep(Enum):
    """The next action of a candidate."""

    CREATE = "create"
    TAKE = "take"
    RENEW = "renew"
    WAIT = "wait"


def member_name(identity: str) -> str:
    """Return the part of `name_place_incarnation` that is stable across restarts."""
    return identity.partition("_")[0]


def member_location(identity: str) -> str:
    """Return the location in `name_place_incarnation`: a pod's uid, or an address."""
    return identity.partition("_")[2].rpartition("_")[0]


def observe(state: CandidateState, record: LeaseRecord | None, version: str | None, now: float) -> CandidateState:
    """Apply a read.

    Any change of the record restarts the wait, another holder ends leadership. A record that reads lacked for a while
    and that comes back with the same version has not changed.
    """
    changed = version != state.version
    held = state.held_until if record is not None and record.holder == state.identity else None
    if not changed and held == state.held_until and record == state.record:
        return state
    seen_at, vanished = now if changed else state.seen_at, state.vanished
    if vanished is not None and version == vanished[0]:
        seen_at = vanished[1]
    elif version is None and state.version is not None:
        vanished = (state.version, state.seen_at)
    return replace(
        state, record=record, version=version, seen_at=seen_at, held_until=held, vanished=None if record else vanished
    )


def next_step(state: CandidateState, now: float, timing: LeaseTiming) -> ElectionStep:
    """Decide what may be attempted now."""
    record = state.record
    if record is None:
        return ElectionStep.CREATE
    if record.holder == state.identity and state.held_until is not None:
        return ElectionStep.RENEW
    # A Lease of an earlier incarnation of this candidate is taken at once: a pod of a StatefulSet runs once, a
    # container once in its pod, and a process holds the lock of the volume that names it. An earlier incarnation that
    # is still alive behind a partition is stopped by the fence, as any former owner.
    if not record.holder or member_name(record.holder) == member_name(state.identity):
        return ElectionStep.TAKE
    return ElectionStep.TAKE if now >= takeable_at(state, timing) else ElectionStep.WAIT


def takeable_at(state: CandidateState, timing: LeaseTiming) -> float:
    """Return when another holder's lease may be taken, on this candidate's clock.

    A duration that no candidate writes does not keep a lease from being taken for ever.
    """
    seconds = min(_LONGEST_SECONDS, float(state.record.lease_seconds)) if state.record is not None else 0.0
    return state.seen_at + max(timing.lease, seconds)


def next_expiry(states: Iterable[CandidateState], now: float, timing: LeaseTiming) -> float:
    """Return the seconds until a Lease of another member can be taken.

    They are infinite if there is none.
    """
    others = (
        state for state in states
        if state.record is not None and state.record.holder
        and member_name(state.record.holder) != member_name(state.identity)
    )  # fmt: skip
    seconds = (takeable_at(state, timing) - now for state in others)
    return min((left for left in seconds if left > 0), default=math.inf)


def next_record(
    state: CandidateState, step: ElectionStep, wall_time: datetime, timing: LeaseTiming, known_epoch: int = 0
) -> LeaseRecord:
    """Return the record to write for a step.

    The epoch only grows, past any known elsewhere. After the largest one, which only a foreign client can have written,
    it stays: a Lease that no candidate can take would be worse.
    """
    wall_time = wall_time.astimezone(UTC)
    if step is ElectionStep.RENEW and state.record is not None:
        return replace(state.record, renewed=wall_time, lease_seconds=round(timing.lease))
    epoch = min(max(state.epoch, known_epoch) + 1, _LARGEST_EPOCH)
    return LeaseRecord(state.identity, round(timing.lease), wall_time, wall_time, epoch)


def after_write(
    state: CandidateState, record: LeaseRecord, version: str, sent_at: float, now: float, timing: LeaseTiming
) -> CandidateState:
    """Apply a successful write. Leadership counts from before it was sent."""
    return replace(state, record=record, version=version, seen_at=now, held_until=sent_at + timing.renew)


def release_record(record: LeaseRecord, wall_time: datetime) -> LeaseRecord:
    """Return the record that gives a Lease up at once.

    The epoch stays, so it never decreases.
    """
    return replace(record, holder="", lease_seconds=1, renewed=wall_time.astimezone(UTC))
