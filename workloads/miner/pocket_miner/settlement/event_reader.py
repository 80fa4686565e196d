"""Read the settlement events of each block once for all suppliers of a miner.

All suppliers conclude at the same heights, and a node's events of one settlement block can be tens of megabytes.
Reading them must neither be repeated for each supplier nor make any of them miss a window.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cachetools import FIFOCache

from pocket.chain.end_block_events import EventFilter
from pocket.chain.model import Event
from pocket.errors import ChainError, ChainUnavailable, PocketError

_PAGES = 64
_WAIT_TIMEOUT_SECONDS = 1.0
_FAILURE_SECONDS = 2.0  # a failure is not retried for each of a thousand suppliers
_SUPPLIER = "supplier_operator_address"


class NotReadYet(ChainUnavailable):
    """The block is still being read and can be requested again at the next block."""


class EndEventSource(Protocol):
    """The source of the events at the end of a block."""

    async def end_events(self, height: int, wanted: EventFilter) -> tuple[Event, ...]:
        """Return the wanted events of a block.

        Raises PocketError.
        """

    async def end_events_by_node(
        self, height: int, wanted: EventFilter
    ) -> Mapping[str, tuple[Event, ...] | ChainError]:
        """Return the wanted events of a block as each node returns them, by node name."""


@dataclass(frozen=True, slots=True)
class _BlockEvents:
    """The events of one block, of the suppliers that were asked for."""

    suppliers: frozenset[str]
    events: Mapping[str, tuple[Event, ...]]


@dataclass(slots=True)
class _PendingRead:
    """A requested block. All callers wait for it until the same deadline `until`."""

    until: float
    suppliers: set[str] = field(default_factory=set)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    page: _BlockEvents | None = None
    error: PocketError | None = None


class SettlementReader:
    """Reads requested blocks one after the other, each once for all suppliers.

    `run` reads what `events` requests. `ours` returns the suppliers of this miner.
    """

    def __init__(
        self,
        source: EndEventSource,
        ours: Callable[[], Iterable[str]],
        wait_timeout_seconds: float = _WAIT_TIMEOUT_SECONDS,
        failure_seconds: float = _FAILURE_SECONDS,
    ) -> None:
        self._source = source
        self._ours = ours
        self._wait_timeout = wait_timeout_seconds
        self._failure_seconds = failure_seconds
        self._failures: FIFOCache[int, tuple[float, PocketError]] = FIFOCache(_PAGES)
        self._pages: FIFOCache[int, _BlockEvents] = FIFOCache(_PAGES)
        self._pending: dict[int, _PendingRead] = {}
        self._requested = asyncio.Event()
        self._confirming = asyncio.Lock()
        self._by_node: FIFOCache[int, tuple[int, frozenset[str], Mapping[str, Mapping[str, tuple[Event, ...]]]]] = (
            FIFOCache(_PAGES)
        )

    async def events(self, height: int, supplier: str) -> tuple[Event, ...]:
        """Return the events of one supplier at the end of a block.

        Raises NotReadYet, and the errors of reading it, such as ChainQueryRejected if no node has the block.
        """
        page = self._pages.get(height)
        if page is None or supplier not in page.suppliers:
            page = await self._wait(height, supplier)
        return page.events.get(supplier, ())

    async def events_by_node(self, height: int, supplier: str, now: int) -> Mapping[str, tuple[Event, ...]]:
        """Return the events of one supplier at the end of a block, by node.

        Nodes that could not answer are left out.

        `now` is the latest height. Nodes are queried once per block for all suppliers.
        """
        async with self._confirming:
            known = self._by_node.get(height)
            if known is None or known[0] != now or supplier not in known[1]:
                suppliers = frozenset({supplier, *self._ours()})
                by_node = await self._source.end_events_by_node(height, _events_of(suppliers))
                rows = {node: _by_supplier(row) for node, row in by_node.items() if not isinstance(row, ChainError)}
                known = self._by_node[height] = (now, suppliers, rows)
            if any(known[2].values()):
                self._pages.pop(height, None)  # the first read may have lacked some of them
            return {node: events.get(supplier, ()) for node, events in known[2].items()}

    async def _wait(self, height: int, supplier: str) -> _BlockEvents:
        loop = asyncio.get_running_loop()
        until, failure = self._failures.get(height, (0.0, None))
        if failure is not None and loop.time() < until:
            raise failure
        pending = self._pending.setdefault(height, _PendingRead(loop.time() + self._wait_timeout))
        pending.suppliers.add(supplier)
        self._requested.set()
        try:
            async with asyncio.timeout_at(pending.until):
                await pending.answered.wait()
        except TimeoutError:
            raise NotReadYet(f"the events of block {height} are being read") from None
        if pending.error is not None:
            raise pending.error
        if pending.page is None or supplier not in pending.page.suppliers:
            raise NotReadYet(f"the events of block {height} were read without this supplier")
        return pending.page

    async def run(self) -> None:
        """Read requested blocks, forever. A failed read is retried at the next request."""
        while True:
            await self._requested.wait()
            self._requested.clear()
            while self._pending:
                height = min(self._pending)
                pending = self._pending[height]
                suppliers = frozenset(pending.suppliers.union(self._ours()))
                try:
                    events = await self._source.end_events(height, _events_of(suppliers))
                    pending.page = _BlockEvents(suppliers, _by_supplier(events))
                    self._pages[height] = pending.page
                except PocketError as error:
                    pending.error = error
                    until = asyncio.get_running_loop().time() + self._failure_seconds
                    self._failures[height] = until, error
                finally:
                    del self._pending[height]
                    pending.answered.set()


def _events_of(suppliers: frozenset[str]) -> EventFilter:
    return lambda event: event.attributes.get(_SUPPLIER) in suppliers


def _by_supplier(events: Iterable[Event]) -> Mapping[str, tuple[Event, ...]]:
    by_supplier: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_supplier[event.attributes[_SUPPLIER]].append(event)
    return {supplier: tuple(rows) for supplier, rows in by_supplier.items()}
