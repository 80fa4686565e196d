"""Run the elector's steps as calls on a Kubernetes Lease.

Each call has a deadline.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.coordination.elector import (
    CandidateState,
    ElectionStep,
    LeaseRecord,
    LeaseTiming,
    after_write,
    next_record,
    next_step,
    observe,
    release_record,
    takeable_at,
)
from pocket.kube.api_client import Conflict, KubeApi, KubeError, ObjectNotFound, ResourceKind

_RELEASES = 5
_RELEASE_PAUSE_SECONDS = 0.1
_LOG: FilteringBoundLogger = structlog.get_logger()
LEASES = ResourceKind("coordination.k8s.io/v1", "leases", "Lease")
_MICROS = "%Y-%m-%dT%H:%M:%S.%fZ"


def _instant(text: Any) -> datetime:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return datetime.fromtimestamp(0, UTC)


def record_of(lease: dict[str, Any]) -> LeaseRecord:
    """Decode a Lease as any client writes it. Absent fields count as released."""
    spec = lease.get("spec") or {}
    return LeaseRecord(
        holder=spec.get("holderIdentity") or "",
        lease_seconds=int(spec.get("leaseDurationSeconds") or 1),
        acquired=_instant(spec.get("acquireTime")),
        renewed=_instant(spec.get("renewTime")),
        transitions=int(spec.get("leaseTransitions") or 0),
    )


def spec_of(record: LeaseRecord) -> dict[str, Any]:
    """Encode a record as the Lease's spec."""
    return {
        "holderIdentity": record.holder,
        "leaseDurationSeconds": record.lease_seconds,
        "acquireTime": record.acquired.strftime(_MICROS),
        "renewTime": record.renewed.strftime(_MICROS),
        "leaseTransitions": record.transitions,
    }


class LeaseElector:
    """One candidate for one Lease."""

    def __init__(
        self,
        api: KubeApi,
        namespace: str,
        name: str,
        identity: str,
        *,
        timing: LeaseTiming | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        rng: random.Random | None = None,
        known_epoch: Callable[[], int] = lambda: 0,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._timing = timing or LeaseTiming()
        self._clock = clock
        self._wall_clock = wall_clock
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._known_epoch = known_epoch
        self._lease: dict[str, Any] | None = None
        self._view = CandidateState(identity)
        self._written_last = False
        self._complained = ""

    @property
    def leads(self) -> bool:
        """Return True if this candidate may act as leader now."""
        return self._view.leads(self._clock())

    @property
    def epoch(self) -> int:
        """Return the fencing token, which grows with every change of holder."""
        return self._view.epoch

    @property
    def holder(self) -> str:
        """Return the last known holder of the Lease."""
        return self._view.record.holder if self._view.record else ""

    @property
    def identity(self) -> str:
        """Return this candidate's identity."""
        return self._view.identity

    async def attempt(self) -> bool:
        """Read the Lease and write it.

        A holder whose last write succeeded knows the Lease, so it renews with one request, and reads only if that is
        refused. Returns True if this candidate leads afterwards. Raises KubeError.
        """
        known, self._written_last = self._written_last, False
        if not known:
            await self._read()
        step = next_step(self._view, self._clock(), self._timing)
        if step is ElectionStep.WAIT:
            return False
        drafted = next_record(self._view, step, self._wall_clock(), self._timing, self._known_epoch())
        sent_at = self._clock()
        try:
            stored = await self._write(drafted)
        except Conflict:
            # Another candidate was faster, the next read shows which. After a lost reply it shows our own record, and
            # none if the Lease was deleted: the candidate that creates it leads.
            return await self.attempt() if known else self.leads
        self._lease, self._written_last = stored, True
        self._view = after_write(
            self._view, drafted, str(stored["metadata"]["resourceVersion"]), sent_at, self._clock(), self._timing
        )
        return self.leads

    async def _read(self) -> None:
        try:
            self._lease = await self._call("GET", name=self._name)
            record, version = record_of(self._lease), str(self._lease["metadata"]["resourceVersion"])
        except ObjectNotFound:
            self._lease, record, version = None, None, None
        self._view = observe(self._view, record, version, self._clock())

    async def _call(self, method: str, *, name: str = "", body: Any = None) -> dict[str, Any]:
        path = LEASES.path(self._namespace, name)
        answer: dict[str, Any] = await self._api.call(method, path, body=body, timeout_seconds=self._timing.call)
        if "resourceVersion" not in (answer.get("metadata") or {}):
            raise KubeError(f"{method} {path}: the response is not a Lease")
        return answer

    async def _write(self, record: LeaseRecord) -> dict[str, Any]:
        if self._lease is None:
            metadata = {"name": self._name, "namespace": self._namespace}
            body = {"apiVersion": LEASES.api_version, "kind": "Lease", "metadata": metadata, "spec": spec_of(record)}
            return await self._call("POST", body=body)
        spec = {**(self._lease.get("spec") or {}), **spec_of(record)}
        return await self._call("PUT", name=self._name, body={**self._lease, "spec": spec})

    def _pause(self) -> float:
        return self._timing.retry * self._rng.uniform(0.8, 1.2)

    async def acquire(self, stop: asyncio.Event) -> bool:
        """Wait until this candidate leads, through outages.

        Returns False when `stop` was set first.
        """
        while not stop.is_set():
            try:
                if await self.attempt():
                    _LOG.info("lease acquired", lease=self._name, epoch=self.epoch)
                    return True
                self._complained = ""
            except KubeError as error:
                self._complain(error)
            # Followers poll twice as often as a holder renews: a released Lease must be taken within seconds.
            pause = self._pause() / 2
            if self.holder not in ("", self.identity):
                # Wake when the lease expires: takeover is promised within a bound.
                pause = min(pause, max(0.05, takeable_at(self._view, self._timing) - self._clock()))
            await _sleep(stop, pause)
        return False

    async def hold(self, stop: asyncio.Event) -> str:
        """Renew until `stop` is set or leadership ends.

        Returns the reason, '' when stopped.
        """
        while not stop.is_set():
            await _sleep(stop, self._pause())
            if stop.is_set():
                break
            try:
                async with asyncio.timeout(max(0.05, (self._view.held_until or 0.0) - self._clock())):
                    await self.attempt()
                self._complained = ""
            except TimeoutError:
                pass
            except KubeError as error:
                self._complain(error)
            if self.leads:
                continue
            if self.holder not in ("", self.identity):
                return f"the Lease {self._name} is held by {self.holder}"
            why = f": {self._complained}" if self._complained else ""
            return f"the Lease {self._name} could not be renewed for {self._timing.renew:g} s{why}"
        return ""

    async def release(self) -> None:
        """Release the Lease so that the next candidate need not wait.

        A failure only costs time.
        """
        record = self._view.record
        if record is None or record.holder != self.identity:
            return
        for _ in range(_RELEASES):
            # A renewal that was cancelled half way may still arrive between our read and our write: read again.
            with contextlib.suppress(KubeError):
                fresh = await self._call("GET", name=self._name)
                if record_of(fresh).holder == self.identity:
                    body = {
                        **fresh,
                        "spec": {**fresh["spec"], **spec_of(release_record(record_of(fresh), self._wall_clock()))},
                    }
                    await self._call("PUT", name=self._name, body=body)
                break
            await asyncio.sleep(_RELEASE_PAUSE_SECONDS)
        self._view, self._written_last = CandidateState(self.identity), False

    def _complain(self, error: KubeError) -> None:
        if str(error) != self._complained:
            _LOG.warning("lease request failed, retrying", lease=self._name, error=error)
        self._complained = str(error)


async def _sleep(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
