"""Count the outcomes that miners conclude in the books of their Suppliers.

They are read from the miners.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.api.miner_status import EndedSession, OutcomePage
from pocket_operator.decide.books import MOST_TRAILS, Books, books_in
from pocket_operator.decide.object_cache import ObjectCache, ReconcileKey, operator_address
from pocket_operator.decide.pod_report import Report
from pocket_operator.resources.kinds import SUPPLIERS

_LOG: FilteringBoundLogger = structlog.get_logger()
Object = dict[str, Any]
FetchPage = Callable[[int], Awaitable[OutcomePage | None]]
"""Reads the page of outcomes after a number, None if the miner does not answer."""
_PAGES_AT_ONCE: Final = 20
_IDLE_OUTCOMES: Final = 2000
"""Outcomes of others after which a Supplier's position in a trail is renewed, and as many are read again at a start.

A trail that is not longer is counted from its beginning.
"""


class BooksKeeper:
    """The books of all Suppliers.

    They begin with what the Suppliers' status has, and the status keeps them.
    """

    def __init__(self, cache: ObjectCache) -> None:
        self._cache = cache
        self._books: dict[str, Books] = {}
        self._heads: dict[tuple[str, str], tuple[str, int]] = {}
        self._read: dict[tuple[ReconcileKey, str], int] = {}
        self._counted: dict[ReconcileKey, frozenset[str]] = {}
        self._full: set[str] = set()

    def of(self, supplier: Object) -> Books:
        """Return the books of one Supplier."""
        uid = str(supplier["metadata"]["uid"])
        if uid not in self._books:
            self._books[uid] = books_in(supplier.get("status") or {})
        return self._books[uid]

    async def count(self, key: ReconcileKey, report: Report, fetch: FetchPage) -> bool:
        """Count the outcomes that a miner's report shows to be new.

        Returns True if any books changed.
        """
        audit = report.answer.audit
        if audit is None or not audit.trail:
            return False
        self._forget_positions(key)
        head, pod = (audit.trail, audit.number), (key.namespace, report.pod)
        steady = self._heads.get(pod) == head
        self._heads[pod] = head
        changed = await self._meet(key, report, *head, steady=steady, fetch=fetch)
        for _ in range(_PAGES_AT_ONCE):
            after = self._position(key, audit.trail, audit.number)
            if after >= audit.number:
                break
            page = await fetch(after)
            if page is None or page.next <= after:
                break
            if page.first > after + 1:
                _LOG.warning(
                    "outcomes were deleted by retention before they were counted",
                    pod=report.pod, counted=after, first=page.first,
                )  # fmt: skip
            changed |= self._add(key, audit.trail, page)
            self._read[key, audit.trail] = page.next
        return changed

    def forget_except(self, polled: Collection[tuple[str, str]]) -> None:
        """Drop the trails of all other pods, and the books of Suppliers that are gone."""
        self._heads = {pod: head for pod, head in self._heads.items() if pod in polled}
        known = {str(supplier["metadata"]["uid"]) for supplier in self._cache.all(SUPPLIERS.name)}
        self._books = {uid: books for uid, books in self._books.items() if uid in known}

    async def _meet(
        self, key: ReconcileKey, report: Report, trail: str, number: int, *, steady: bool, fetch: FetchPage
    ) -> bool:
        """Begin to count an unknown trail, or go back with a restored one.

        A trail is restored from a backup. A short trail is counted from its beginning. Of a long one the totals are
        adopted, from the second of two reports with the same last outcome, which includes it for sure.
        """
        changed = False
        suppliers = self._suppliers(key)
        if any(trail not in self.of(supplier).trails for supplier in suppliers.values()):
            complete = not number or (number <= _IDLE_OUTCOMES and _is_whole(await fetch(0)))
            live = {known for known, _ in self._heads.values()}
            for address, supplier in suppliers.items():
                books = self.of(supplier)
                if trail in books.trails or not (complete or steady):
                    continue
                known, row = (0, None) if complete else (number, report.supplier(address))
                books = books.adopted(trail, known, row, live)
                if trail not in books.trails:
                    self._report_full(trail, report.pod)
                changed |= self._put(supplier, books)
            self._read.pop((key, trail), None)
        for supplier in suppliers.values():
            books = self.of(supplier)
            if books.trails.get(trail, 0) > number:
                changed |= self._put(supplier, books.through(trail, number))
        if self._read.get((key, trail), 0) > number:
            self._read[key, trail] = number
        return changed

    def _position(self, key: ReconcileKey, trail: str, number: int) -> int:
        """Return the number up to which a trail is counted for every Supplier."""
        known = [self.of(supplier).trails.get(trail) for supplier in self._suppliers(key).values()]
        counted = min((row for row in known if row is not None), default=number)
        return max(counted, self._read.get((key, trail), 0))

    def _add(self, key: ReconcileKey, trail: str, page: OutcomePage) -> bool:
        rows: dict[str, list[EndedSession]] = {}
        for row in page.rows:
            rows.setdefault(row.supplier, []).append(row)
        changed = False
        for address, supplier in self._suppliers(key).items():
            books = self.of(supplier)
            if trail not in books.trails:
                continue
            books = books.counted(trail, rows.get(address, ()))
            if page.next - books.trails[trail] >= _IDLE_OUTCOMES:
                books = books.through(trail, page.next)
            changed |= self._put(supplier, books)
        return changed

    def _put(self, supplier: Object, books: Books) -> bool:
        uid = str(supplier["metadata"]["uid"])
        changed = self._books.get(uid) != books
        self._books[uid] = books
        return changed

    def _suppliers(self, key: ReconcileKey) -> Mapping[str, Object]:
        """Return the Suppliers of a RelayMiner by address.

        Those whose address is another Supplier's are left out.
        """
        suppliers = {}
        for supplier in self._cache.suppliers(key):
            address = operator_address(supplier)
            owner = self._cache.owner(address)
            if owner is not None and owner["metadata"]["uid"] == supplier["metadata"]["uid"]:
                suppliers[address] = supplier
        return suppliers

    def _forget_positions(self, key: ReconcileKey) -> None:
        """Read trails again if other Suppliers are counted than before.

        They are read from the Suppliers' own positions.
        """
        counted = frozenset(str(supplier["metadata"]["uid"]) for supplier in self._suppliers(key).values())
        if self._counted.get(key) != counted:
            self._counted[key] = counted
            self._read = {position: number for position, number in self._read.items() if position[0] != key}

    def _report_full(self, trail: str, pod: str) -> None:
        if trail not in self._full:
            self._full.add(trail)
            _LOG.error("outcomes of a miner are not counted: too many miners", pod=pod, counted_trails=MOST_TRAILS)


def _is_whole(page: OutcomePage | None) -> bool:
    """Return True if the trail still has its first outcome."""
    return page is not None and page.first == 1
