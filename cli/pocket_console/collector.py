"""Poll relayers and miners and publish immutable snapshots.

Each process is polled in a loop of its own, with deadlines, so that one that does not answer delays no other. Memory is
bounded by the limits below.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar

import structlog
from pydantic import ValidationError
from structlog.typing import FilteringBoundLogger

from pocket.api import miner_status as api
from pocket_console.discovery import DiscoveryError, Finder, Found
from pocket_console.fetch import Fetcher, FetchError, fetch_json
from pocket_console.relayer_metrics import sample_of, state_of
from pocket_console.snapshot import (
    AnswerFreshness,
    ClusterSnapshot,
    Component,
    ConsoleSnapshot,
    MinerSnapshot,
    ProcessOrigin,
    RelayerSample,
    RelayerSnapshot,
)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
_LOG: FilteringBoundLogger = structlog.get_logger()
MOST_SESSIONS: Final = 50_000
"""Open sessions that are kept per miner."""
MOST_OUTCOMES: Final = 10_000
"""Newest outcomes that are kept per miner."""
_MOST_SUPPLIERS: Final = 20_000
_MOST_ORIGINS: Final = 200
_AT_ONCE: Final = 16
_ROUND_SECONDS: Final = 30.0
_FIND_SECONDS: Final = 15.0
_PAGES_SECONDS: Final = 10.0
_SUPPLIERS_SECONDS: Final = 30.0
_REST_FACTOR: Final = 10
"""Seconds of rest per second that reading pages took, so that a large miner is not read without pause."""
_SAMPLE_SECONDS: Final = 5.0
_SAMPLES: Final = 13
_HISTORY_SECONDS: Final = 5.0
_HISTORY: Final = 180


class _Page(Protocol[T_co]):
    """One page of rows. `next` continues after it, empty at the end."""

    @property
    def rows(self) -> tuple[T_co, ...]:
        """Return the rows."""

    @property
    def next(self) -> str:
        """Return the mark of the next page."""


@dataclass(slots=True)
class _Due:
    """Decides when something is read again.

    It is read after its period, or sooner if it changed, but not without rest.
    """

    period: float
    read_at: float = float("-inf")
    took: float = 0.0

    def due(self, now: float, *, changed: bool) -> bool:
        rested = now - self.read_at >= _REST_FACTOR * self.took
        return rested and (changed or now - self.read_at >= self.period)

    def done(self, began: float, now: float) -> None:
        self.read_at, self.took = now, now - began


@dataclass(slots=True)
class _MinerPoller:
    """Reads one miner. What did not change is not read again."""

    fetcher: Fetcher
    snapshot: MinerSnapshot
    clock: Callable[[], float]
    pages: _Due = field(default_factory=lambda: _Due(_PAGES_SECONDS))
    suppliers: _Due = field(default_factory=lambda: _Due(_SUPPLIERS_SECONDS))
    _read_height: int = -1
    _read_outcome: int = -1

    async def poll(self) -> MinerSnapshot:
        """Return the miner's snapshot, with the previous values of what could not be read."""
        try:
            async with asyncio.timeout(_ROUND_SECONDS):
                await self._poll()
        except TimeoutError:
            self._failed(f"not read completely within {_ROUND_SECONDS:g} s")
        except FetchError as error:
            self._failed(str(error))
        except ValidationError as error:
            self._failed(f"unreadable answer: {error.errors()[0]['msg']}")
        return self.snapshot

    def _failed(self, error: str) -> None:
        self.snapshot = replace(self.snapshot, freshness=replace(self.snapshot.freshness, error=error))

    async def _poll(self) -> None:
        state = api.MinerState.model_validate(await self._get(api.STATE_PATH))
        self.snapshot = replace(self.snapshot, state=state, freshness=AnswerFreshness(self.clock()))
        began = self.clock()
        if self.pages.due(began, changed=state.height != self._read_height):
            self.snapshot = replace(
                self.snapshot,
                sessions=await self._rows(api.SESSIONS_PATH, api.SessionPage.model_validate, MOST_SESSIONS),
            )
            self._read_height = state.height
            self.pages.done(began, self.clock())
        changed = state.last_outcome != self._read_outcome
        if changed:
            self.snapshot = replace(self.snapshot, outcomes=await self._outcomes(state.last_outcome))
        began = self.clock()
        if self.suppliers.due(began, changed=changed):
            self.snapshot = replace(
                self.snapshot,
                suppliers=await self._rows(api.SUPPLIERS_PATH, api.SupplierPage.model_validate, _MOST_SUPPLIERS),
            )
            self._read_outcome = state.last_outcome
            self.suppliers.done(began, self.clock())
        self.snapshot = replace(self.snapshot, complete=True, freshness=AnswerFreshness(self.clock()))

    async def _get(self, path: str, query: Mapping[str, str] | None = None) -> Mapping[str, object]:
        return await fetch_json(self.fetcher, self.snapshot.origin, path, query)

    async def _rows(self, path: str, page_of: Callable[[Mapping[str, object]], _Page[T]], limit: int) -> tuple[T, ...]:
        """Return the rows of all pages at a path, of no further one once there are `most`."""
        rows: list[T] = []
        after = ""
        while len(rows) < limit:
            page = page_of(await self._get(path, {"after": after}))
            rows += page.rows
            if not page.next or page.next == after:
                break
            after = page.next
        return tuple(rows)

    async def _outcomes(self, last: int) -> tuple[api.EndedSession, ...]:
        """Return the newest outcomes: the known ones, and those that were recorded since."""
        rows = list(self.snapshot.outcomes)
        after = max(rows[-1].number if rows else 0, last - MOST_OUTCOMES)
        if rows and last < rows[-1].number:
            rows, after = [], max(0, last - MOST_OUTCOMES)  # another volume
        more = True
        while more:
            page = api.OutcomePage.model_validate(await self._get(api.OUTCOMES_PATH, {"after": str(after)}))
            rows = [*rows, *page.rows][-MOST_OUTCOMES:]
            more, after = page.more and page.next > after, page.next
        return tuple(rows)


@dataclass(slots=True)
class _RelayerPoller:
    """Reads one relayer."""

    fetcher: Fetcher
    snapshot: RelayerSnapshot
    clock: Callable[[], float]

    async def poll(self) -> RelayerSnapshot:
        """Return the relayer's snapshot.

        What could not be read keeps its previous values.
        """
        before, origin = self.snapshot, self.snapshot.origin
        try:
            async with asyncio.timeout(_ROUND_SECONDS):
                state = state_of(await fetch_json(self.fetcher, origin, "/report"))
                text = await self.fetcher.text(origin, "/metrics")
                sample = await asyncio.to_thread(sample_of, text, self.clock())
        except TimeoutError:
            error = f"not read completely within {_ROUND_SECONDS:g} s"
        except FetchError as failure:
            error = str(failure)
        except (ValueError, TypeError, AttributeError, OverflowError) as failure:
            error = f"unreadable answer: {str(failure)[:200]}"
        else:
            self.snapshot = with_sample(replace(before, state=state, freshness=AnswerFreshness(self.clock())), sample)
            return self.snapshot
        self.snapshot = replace(before, freshness=replace(before.freshness, error=error))
        return self.snapshot


def with_sample(relayer: RelayerSnapshot, sample: RelayerSample) -> RelayerSnapshot:
    """Return a relayer with one more sample.

    The newest sample is always kept, older ones at a distance of some seconds.
    """
    samples, history = relayer.samples, relayer.history
    if len(samples) > 1 and samples[-1].at - samples[-2].at < _SAMPLE_SECONDS:
        samples = samples[:-1]
    if not history or sample.at - history[-1][0] >= _HISTORY_SECONDS:
        served = {name: totals.served for name, totals in sample.services.items()}
        history = (*history, (sample.at, served))[-_HISTORY:]
    return replace(relayer, samples=(*samples, sample)[-_SAMPLES:], history=history)


class Collector:
    """Polls until cancelled. `snapshot` is the newest one."""

    def __init__(
        self,
        finder: Finder,
        fetcher: Fetcher,
        *,
        interval: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._finder = finder
        self._fetcher = fetcher
        self._interval = interval
        self._clock = clock
        self._limit = asyncio.Semaphore(_AT_ONCE)
        self._pollers: dict[ProcessOrigin, _MinerPoller | _RelayerPoller] = {}
        self._found_at: float | None = None
        self._cluster: ClusterSnapshot | None = None
        self._news = asyncio.Event()
        self.snapshot = ConsoleSnapshot(0, clock())

    @property
    def fetcher(self) -> Fetcher:
        """Return the reader of admin ports."""
        return self._fetcher

    def now(self) -> float:
        """Return the time of the clock that snapshots use."""
        return self._clock()

    async def run(self) -> None:
        """Poll every process in a loop of its own and publish snapshots until cancelled."""
        tasks: dict[ProcessOrigin, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_finding())
            while True:
                for origin in [origin for origin in tasks if origin not in self._pollers]:
                    tasks.pop(origin).cancel()
                for origin, poller in self._pollers.items():
                    if origin not in tasks:
                        tasks[origin] = group.create_task(self._keep_polling(poller))
                self._publish()
                await asyncio.sleep(self._interval)

    async def _keep_finding(self) -> None:
        while True:
            await self._find()
            await asyncio.sleep(self._interval)

    async def _keep_polling(self, poller: _MinerPoller | _RelayerPoller) -> None:
        while True:
            await self._poll(poller)
            await asyncio.sleep(self._interval)

    async def once(self) -> ConsoleSnapshot:
        """Poll all processes once and publish the snapshot."""
        await self._find()
        async with asyncio.TaskGroup() as group:
            for poller in self._pollers.values():
                group.create_task(self._poll(poller))
        return self._publish()

    def _publish(self) -> ConsoleSnapshot:
        rows = [poller.snapshot for poller in self._pollers.values()]
        self.snapshot = ConsoleSnapshot(
            self.snapshot.version + 1,
            self._clock(),
            tuple(row for row in rows if isinstance(row, MinerSnapshot)),
            tuple(row for row in rows if isinstance(row, RelayerSnapshot)),
            self._cluster,
        )
        news, self._news = self._news, asyncio.Event()
        news.set()
        return self.snapshot

    async def wait_newer(self, version: int, seconds: float) -> bool:
        """Wait for a snapshot after `version`, at most `seconds`.

        Returns True if there is one.
        """
        if self.snapshot.version <= version:
            try:
                async with asyncio.timeout(seconds):
                    await self._news.wait()
            except TimeoutError:
                return False
        return self.snapshot.version > version

    async def _poll(self, poller: _MinerPoller | _RelayerPoller) -> None:
        async with self._limit:
            await poller.poll()

    async def _find(self) -> None:
        """Find the processes again after some time. Those that are gone are dropped."""
        if self._found_at is not None and self._clock() - self._found_at < _FIND_SECONDS:
            return
        try:
            async with asyncio.timeout(_ROUND_SECONDS):
                processes = await self._finder.find()
        except (DiscoveryError, TimeoutError) as error:
            before = self._cluster or ClusterSnapshot()
            text = str(error) or f"no answer within {_ROUND_SECONDS:g} s"
            self._cluster = replace(before, freshness=replace(before.freshness, error=text))
            _LOG.warning("finding relayers and miners failed, retrying", error=text)
            return
        self._found_at = self._clock()
        self._keep(processes)

    def _keep(self, processes: Found) -> None:
        if processes.relay_miners is not None:
            self._cluster = ClusterSnapshot(
                AnswerFreshness(self._clock()), processes.relay_miners, processes.suppliers or ()
            )
        before = self._pollers
        self._pollers = {}
        for origin in processes.origins[:_MOST_ORIGINS]:
            self._pollers[origin] = before.get(origin) or self._poller(origin)

    def _poller(self, origin: ProcessOrigin) -> _MinerPoller | _RelayerPoller:
        if origin.component is Component.MINER:
            return _MinerPoller(self._fetcher, MinerSnapshot(origin), self._clock)
        return _RelayerPoller(self._fetcher, RelayerSnapshot(origin), self._clock)
