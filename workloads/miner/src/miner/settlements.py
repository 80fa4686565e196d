"""What the ends of settlement blocks said of our suppliers: each block is read once, for all of them.

All suppliers of a miner conclude at the same heights, and what a node tells of one settlement block can be tens of
megabytes: reading it must neither be repeated for each of them nor keep any of them from its windows.
"""

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from shannon.chain.end_events import Wanted
from shannon.chain.model import Event
from shannon.errors import ChainUnavailable, PocketError

_PAGES = 64
_PATIENCE_SECONDS = 1.0
_FAILURE_SECONDS = 2.0  # what failed is not tried again for each of a thousand suppliers
_SUPPLIER = "supplier_operator_address"


class NotReadYet(ChainUnavailable):
    """A block that is being read, or read again; it is asked for again at the next block."""


class EndEventSource(Protocol):
    """Where the events of a block's end come from."""

    async def end_events(self, height: int, wanted: Wanted) -> tuple[Event, ...]:
        """The wanted events; raises PocketError."""


@dataclass(frozen=True, slots=True)
class _Page:
    """One block: whose events were wanted, and what they are."""

    suppliers: frozenset[str]
    events: Mapping[str, tuple[Event, ...]]


@dataclass(slots=True)
class _Question:
    """A block that somebody asks for. It is waited for until a moment that is the same for all who ask."""

    until: float
    suppliers: set[str] = field(default_factory=set)
    read: frozenset[str] = frozenset()  # whose events the node was asked for
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    page: _Page | None = None
    error: PocketError | None = None


class Settlements:
    """`run` reads what `events` asks for, one block after the other; `ours` are the suppliers of this miner.

    That a block has no event of a supplier is told only after it was read twice: a node that answers with an empty list
    once must not make a paid session a lost one.
    """

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
        self._pages: OrderedDict[int, _Page] = OrderedDict()
        self._doubted: OrderedDict[int, set[str]] = OrderedDict()  # height → who was told to ask again
        self._questions: dict[int, _Question] = {}
        self._asked = asyncio.Event()

    async def events(self, height: int, supplier: str) -> tuple[Event, ...]:
        """Events of one supplier at the end of a block.

        Raises NotReadYet, and what reading it raised: ChainRefusal where no node has it.
        """
        page = self._pages.get(height)
        if page is None or supplier not in page.suppliers:
            page = await self._wait(height, supplier)
        return page.events.get(supplier, ())

    async def _wait(self, height: int, supplier: str) -> _Page:
        loop = asyncio.get_running_loop()
        until, failure = self._failures.get(height, (0.0, None))
        if failure is not None and loop.time() < until:
            raise type(failure)(str(failure))
        question = self._questions.setdefault(height, _Question(loop.time() + self._patience))
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
            if supplier in question.read:
                raise NotReadYet(f"block {height} showed no event of this supplier: it is read once more")
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
                asking = frozenset(question.suppliers)
                question.read = asking.union(self._ours())
                try:
                    found = await self._source.end_events(height, _told_of(question.read))
                    question.page = self._page(height, asking, _by_supplier(found))
                    self._keep(height, question.page)
                except PocketError as error:
                    question.error = error
                    self._fail(height, error)
                finally:
                    del self._questions[height]
                    question.answered.set()

    def _page(self, height: int, asking: frozenset[str], found: Mapping[str, tuple[Event, ...]]) -> _Page:
        """Return what is known of a block now: events that any answer had, and who was without in two answers."""
        known = self._pages.get(height, _Page(frozenset(), {}))
        doubted = self._doubted.setdefault(height, set())
        absent = asking - found.keys()
        confirmed = absent & doubted
        doubted |= absent
        while len(self._doubted) > _PAGES:
            self._doubted.popitem(last=False)
        return _Page(known.suppliers.union(found, confirmed), {**known.events, **found})

    def _fail(self, height: int, error: PocketError) -> None:
        now = asyncio.get_running_loop().time()
        self._failures = {h: row for h, row in self._failures.items() if row[0] > now}
        self._failures[height] = (now + self._failure_seconds, error)

    def _keep(self, height: int, page: _Page) -> None:
        self._pages[height] = page
        self._pages.move_to_end(height)
        while len(self._pages) > _PAGES:
            self._pages.popitem(last=False)


def _told_of(suppliers: frozenset[str]) -> Wanted:
    return lambda event: event.attributes.get(_SUPPLIER) in suppliers


def _by_supplier(events: Iterable[Event]) -> Mapping[str, tuple[Event, ...]]:
    found: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        found[event.attributes[_SUPPLIER]].append(event)
    return {supplier: tuple(rows) for supplier, rows in found.items()}
