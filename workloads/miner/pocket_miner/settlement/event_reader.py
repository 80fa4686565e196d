"""What the ends of settlement blocks said of our suppliers: each block is read once, for all of them.

All suppliers of a miner conclude at the same heights, and what a node tells of one settlement block can be tens of
megabytes: reading it must neither be repeated for each of them nor keep any of them from its windows.
"""

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pocket.chain.end_block_events import EventFilter
from pocket.chain.model import Event
from pocket.errors import ChainError, ChainUnavailable, PocketError

_PAGES = 64
_PATIENCE_SECONDS = 1.0
_FAILURE_SECONDS = 2.0  # what failed is not tried again for each of a thousand suppliers
_SUPPLIER = "supplier_operator_address"


class NotReadYet(ChainUnavailable):
    """A block that is being read; it is asked for again at the next block."""


class EndEventSource(Protocol):
    """Where the events of a block's end come from."""

    async def end_events(self, height: int, wanted: EventFilter) -> tuple[Event, ...]:
        """The wanted events; raises PocketError."""

    async def end_events_by_node(
        self, height: int, wanted: EventFilter
    ) -> Mapping[str, tuple[Event, ...] | ChainError]:
        """The wanted events as every node tells them, by node name."""


@dataclass(frozen=True, slots=True)
class _BlockEvents:
    """One block: whose events were wanted, and what they are."""

    suppliers: frozenset[str]
    events: Mapping[str, tuple[Event, ...]]


@dataclass(slots=True)
class _PendingRead:
    """A block that somebody asks for. It is waited for until a moment that is the same for all who ask."""

    until: float
    suppliers: set[str] = field(default_factory=set)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    page: _BlockEvents | None = None
    error: PocketError | None = None


class SettlementReader:
    """`run` reads what `events` asks for, one block after the other; `ours` are the suppliers of this miner."""

    def __init__(
        self,
        source: EndEventSource,
        ours: Callable[[], Iterable[str]],
        patience_seconds: float = _PATIENCE_SECONDS,
        failure_seconds: float = _FAILURE_SECONDS,
    ) -> None:
        self._source = source
        self._ours = ours
        self._patience = patience_seconds
        self._failure_seconds = failure_seconds
        self._failures: dict[int, tuple[float, PocketError]] = {}
        self._pages: OrderedDict[int, _BlockEvents] = OrderedDict()
        self._questions: dict[int, _PendingRead] = {}
        self._asked = asyncio.Event()
        self._confirming = asyncio.Lock()
        self._by_node: dict[int, tuple[int, frozenset[str], Mapping[str, Mapping[str, tuple[Event, ...]]]]] = {}

    async def events(self, height: int, supplier: str) -> tuple[Event, ...]:
        """Events of one supplier at the end of a block.

        Raises NotReadYet, and what reading it raised: ChainRefusal where no node has it.
        """
        page = self._pages.get(height)
        if page is None or supplier not in page.suppliers:
            page = await self._wait(height, supplier)
        return page.events.get(supplier, ())

    async def events_by_node(self, height: int, supplier: str, now: int) -> Mapping[str, tuple[Event, ...]]:
        """Return what every node that can tell says of one supplier at the end of a block.

        now: the latest height; the nodes are asked once a block, for all suppliers.
        """
        async with self._confirming:
            known = self._by_node.get(height)
            if known is None or known[0] != now or supplier not in known[1]:
                suppliers = frozenset({supplier, *self._ours()})
                found = await self._source.end_events_by_node(height, _told_of(suppliers))
                rows = {node: _by_supplier(row) for node, row in found.items() if not isinstance(row, ChainError)}
                known = self._by_node[height] = (now, suppliers, rows)
                while len(self._by_node) > _PAGES:
                    del self._by_node[next(iter(self._by_node))]
            if any(known[2].values()):
                self._pages.pop(height, None)  # what was read first may have lacked some of it
            return {node: events.get(supplier, ()) for node, events in known[2].items()}

    async def _wait(self, height: int, supplier: str) -> _BlockEvents:
        loop = asyncio.get_running_loop()
        until, failure = self._failures.get(height, (0.0, None))
        if failure is not None and loop.time() < until:
            raise failure
        question = self._questions.setdefault(height, _PendingRead(loop.time() + self._patience))
        question.suppliers.add(supplier)
        self._asked.set()
        try:
            async with asyncio.timeout_at(question.until):
                await question.answered.wait()
        except TimeoutError:
            raise NotReadYet(f"the events of block {height} are being read") from None
        if question.error is not None:
            raise question.error
        if question.page is None or supplier not in question.page.suppliers:
            raise NotReadYet(f"the events of block {height} were read for others")
        return question.page

    async def run(self) -> None:
        """Never ends; what cannot be read is read again when somebody asks for it again."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            while self._questions:
                height = min(self._questions)
                question = self._questions[height]
                suppliers = frozenset(question.suppliers.union(self._ours()))
                try:
                    found = await self._source.end_events(height, _told_of(suppliers))
                    question.page = _BlockEvents(suppliers, _by_supplier(found))
                    self._keep(height, question.page)
                except PocketError as error:
                    question.error = error
                    self._fail(height, error)
                finally:
                    del self._questions[height]
                    question.answered.set()

    def _fail(self, height: int, error: PocketError) -> None:
        now = asyncio.get_running_loop().time()
        self._failures = {h: row for h, row in self._failures.items() if row[0] > now}
        self._failures[height] = (now + self._failure_seconds, error)

    def _keep(self, height: int, page: _BlockEvents) -> None:
        self._pages[height] = page
        self._pages.move_to_end(height)
        while len(self._pages) > _PAGES:
            self._pages.popitem(last=False)


def _told_of(suppliers: frozenset[str]) -> EventFilter:
    return lambda event: event.attributes.get(_SUPPLIER) in suppliers


def _by_supplier(events: Iterable[Event]) -> Mapping[str, tuple[Event, ...]]:
    found: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        found[event.attributes[_SUPPLIER]].append(event)
    return {supplier: tuple(rows) for supplier, rows in found.items()}
