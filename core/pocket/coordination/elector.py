"""Who holds a Lease: a pure state machine over an injected monotonic clock (docs/fragile/lease.md).

The clocks of two machines are never compared. Whoever wants a Lease waits until the record has not changed for the
whole lease duration by its own clock; whoever holds it stops before that can be over, counted from before the last
renewal was sent.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """Seconds; renewing must fail well before the lease can be taken."""

    lease: float = 15.0
    renew: float = 10.0
    retry: float = 2.0
    call: float = 3.0

    def __post_init__(self) -> None:
        if self.renew + self.call + self.retry > self.lease:
            raise ValueError("renew + call + retry must not exceed the lease duration: two could hold it at once")


def timing_for_blocks(block_seconds: float) -> LeaseTiming:
    """Takeover within about five blocks, and never slower than client-go's 15 s: windows are counted in blocks."""
    lease = min(15.0, max(3.0, 4 * block_seconds))
    return LeaseTiming(lease=lease, renew=lease * 0.6, retry=lease * 0.13, call=lease * 0.2)


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """What a Lease says; an empty holder means released. `transitions` is the epoch of the holder."""

    holder: str
    lease_seconds: int
    acquired: datetime
    renewed: datetime
    transitions: int


@dataclass(frozen=True, slots=True)
class CandidateState:
    """What one candidate knows.

    `version` is the API server's version of the record, None when there is none. `seen_at` is when this content was
    first observed, `held_until` the time after which leadership must not be assumed.
    """

    identity: str
    record: LeaseRecord | None = None
    version: str | None = None
    seen_at: float = 0.0
    held_until: float | None = None

    def leads(self, now: float) -> bool:
        """Whether this candidate may act as leader now."""
        return self.held_until is not None and now < self.held_until

    @property
    def epoch(self) -> int:
        """The fencing token of the current record."""
        return 0 if self.record is None else self.record.transitions


class ElectionStep(Enum):
    """What to do next."""

    CREATE = "create"
    TAKE = "take"
    RENEW = "renew"
    WAIT = "wait"


def seat(identity: str) -> str:
    """Who it is across restarts, of an identity `name_place_incarnation`."""
    return identity.partition("_")[0]


def place(identity: str) -> str:
    """Where it runs, of an identity `name_place_incarnation`: a pod's uid, or an address."""
    return identity.partition("_")[2].rpartition("_")[0]


def observe(view: CandidateState, record: LeaseRecord | None, version: str | None, now: float) -> CandidateState:
    """After a read. Any change of the record starts the wait afresh; another holder ends leadership."""
    changed = version != view.version
    held = view.held_until if record is not None and record.holder == view.identity else None
    return replace(view, record=record, version=version, seen_at=now if changed else view.seen_at, held_until=held)


def next_step(view: CandidateState, now: float, timing: LeaseTiming) -> ElectionStep:
    """What may be tried now."""
    record = view.record
    if record is None:
        return ElectionStep.CREATE
    if record.holder == view.identity and view.held_until is not None:
        return ElectionStep.RENEW
    # What an earlier life of this candidate holds is taken over at once: a pod of a StatefulSet runs once, a container
    # once in its pod, and a process holds the lock of the volume that names it. One that was cut off and lives on is
    # stopped by the fence, as any former owner.
    if not record.holder or seat(record.holder) == seat(view.identity):
        return ElectionStep.TAKE
    return ElectionStep.TAKE if now >= takeable_at(view, timing) else ElectionStep.WAIT


def takeable_at(view: CandidateState, timing: LeaseTiming) -> float:
    """When the lease of another holder may be taken, on this candidate's clock."""
    seconds = float(view.record.lease_seconds) if view.record is not None else 0.0
    return view.seen_at + max(timing.lease, seconds)


def draft(
    view: CandidateState, step: ElectionStep, wall: datetime, timing: LeaseTiming, known_epoch: int = 0
) -> LeaseRecord:
    """The record to write for a step; the epoch only ever grows, past any that is known elsewhere."""
    wall = wall.astimezone(UTC)
    if step is ElectionStep.RENEW and view.record is not None:
        return replace(view.record, renewed=wall, lease_seconds=round(timing.lease))
    epoch = max(view.epoch, known_epoch) + 1
    return LeaseRecord(view.identity, round(timing.lease), wall, wall, epoch)


def written(
    view: CandidateState, record: LeaseRecord, version: str, sent_at: float, now: float, timing: LeaseTiming
) -> CandidateState:
    """After a write succeeded; leadership counts from before it was sent."""
    return replace(view, record=record, version=version, seen_at=now, held_until=sent_at + timing.renew)


def released(record: LeaseRecord, wall: datetime) -> LeaseRecord:
    """The record that gives a Lease up at once; the epoch stays, so that it never goes back."""
    return replace(record, holder="", lease_seconds=1, renewed=wall.astimezone(UTC))
