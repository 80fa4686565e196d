"""A Supplier's earnings: every concluded session counts once, whatever becomes of the miner that concluded it.

The miners' trails are real files. Pages and reports are what the miner's status API makes of them.
"""

import asyncio
import hashlib
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from example_counts import examples
from pocket.api.miner_status import OutcomePage
from pocket.api.status import as_status
from pocket_miner.status.handover import Handover
from pocket_miner.status.report import Reports
from pocket_miner.status.session_pages import ended_session
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.outcomes import OutcomeRecord, SessionOutcome
from pocket_operator.controller.books_keeper import BooksKeeper
from pocket_operator.decide.books import WINDOW_BLOCKS, Books, books_in
from pocket_operator.decide.object_cache import ObjectCache, ReconcileKey
from pocket_operator.decide.plan import plan
from pocket_operator.decide.pod_report import Report
from pocket_operator.decide.supplier_status import supplier_status
from pocket_operator.resources.kinds import SUPPLIERS
from resources import address
from snapshots import ALICE, snapshot

KEY = ReconcileKey("ns", "main")
ADDRESS = address("alice")
PAGE = 3  # rows


def outcome(number: int, supplier: str = ADDRESS, height: int | None = None) -> OutcomeRecord:
    """Return the outcome of session `number`, which is the same for every miner that concludes it."""
    lost = number % 5 == 4
    end = 10 * number if height is None else height
    details = {
        "session_end_height": end, "time": f"2026-01-{1 + number // 8:02}T00:00:00Z", "fees_upokt": number,
        "earned_by": {} if lost else {"owner": 2 * worth(number), "op": worth(number)},
    }  # fmt: skip
    kind = SessionOutcome.PROOF_MISSED if lost else SessionOutcome.SETTLED
    session = hashlib.sha256(str(number).encode()).hexdigest()
    return OutcomeRecord(supplier, session, kind, "settled", "", end + 5, details)


def worth(number: int) -> int:
    return 1000 + number


def earned(numbers) -> int:
    return sum(0 if number % 5 == 4 else 3 * worth(number) for number in numbers)


@dataclass
class Miner:
    """A miner's volume, and its reports as long as it runs."""

    pod: str
    folder: Path
    runs: bool = True
    concluded: set[int] = field(default_factory=set)

    def __post_init__(self):
        self.start()

    def start(self) -> None:
        self.audit = Audit(self.folder / "audit.sqlite")
        self.reports = Reports(self.audit)
        self.runs = True

    def stop(self) -> None:
        self.audit.close()
        self.runs = False

    def conclude(self, *numbers: int, supplier: str = ADDRESS) -> None:
        rows = self.audit.record_all(outcome(number, supplier) for number in numbers)
        for row in rows:
            self.reports.of(row.supplier).record_outcome(
                {"session_id": row.session_id, "outcome": row.outcome, "height": row.height, "details": row.details}
            )
        self.concluded.update(numbers if supplier == ADDRESS else ())

    def report(self) -> Report:
        rows = {supplier: {**row, "open": 0} for supplier, row in self.reports.rows().items()}
        return Report.of(self.pod, {"component": "miner", "audit": self.audit.head_row, "suppliers": rows})

    async def page(self, after: int) -> OutcomePage | None:
        found, first = self.audit.page(after, PAGE + 1)
        rows = tuple(ended_session(number, row) for number, row in found[:PAGE])
        following = rows[-1].number if rows else after
        return OutcomePage(rows=rows, next=following, more=len(found) > PAGE, first=first)


class Operator:
    """The operator's view: it polls, writes the Supplier's status, and restarts from that."""

    def __init__(self) -> None:
        self.supplier = ALICE
        self.restart()

    def restart(self) -> None:
        self.cache = ObjectCache()
        self.cache.put(SUPPLIERS.name, self.supplier)
        self.keeper = BooksKeeper(self.cache)

    async def poll(self, *miners: Miner) -> None:
        for miner in miners:
            await self.keeper.count(KEY, miner.report(), miner.page)

    def status(self, *miners: Miner) -> dict:
        """Return the status with the reports of the miners that are present."""
        books = {"alice": self.keeper.of(self.supplier)}
        seen = snapshot(suppliers=(self.supplier,), books=books, reports=tuple(m.report() for m in miners))
        planned = plan(seen)
        return as_status(supplier_status(planned.key_checks[0], seen, planned))

    def write(self, *miners: Miner) -> None:
        self.supplier = {**self.supplier, "status": self.status(*miners)}
        self.cache.put(SUPPLIERS.name, self.supplier)


@pytest.fixture
def miners(tmp_path):
    made = []

    def make(name: str) -> Miner:
        made.append(Miner(f"main-miner-{name}", tmp_path / f"volume-{name}"))
        return made[-1]

    yield make
    for miner in made:
        if miner.runs:
            miner.stop()


@pytest.fixture
def operator():
    return Operator()


async def test_what_a_miner_concluded_stays_earned_when_it_is_scaled_away(miners, operator):
    first, second = miners("0"), miners("1")
    await operator.poll(first, second)
    first.conclude(0, 1)
    second.conclude(2, 3, 4)
    await operator.poll(first, second)
    before = operator.status(first, second)
    assert before["earnedUpokt"] == earned(range(5))
    after = operator.status(first)
    figures = ("earnedUpokt", "earned", "day", "funds")
    assert [after[name] for name in figures] == [before[name] for name in figures]
    assert (after["day"]["settled"], after["day"]["lost"], after["day"]["feesUpokt"]) == (4, 1, 10)
    assert after["last"]["settlement"] == before["last"]["settlement"] != ""
    assert after["last"]["loss"] == before["last"]["loss"] != ""


async def test_a_miner_that_returns_with_its_volume_is_not_counted_again_and_goes_on(miners, operator):
    first, second = miners("0"), miners("1")
    second.conclude(1, 2)
    await operator.poll(first, second)
    operator.write(first, second)
    second.stop()
    operator.restart()
    first.conclude(3)
    await operator.poll(first)
    second.start()
    second.conclude(5)
    await operator.poll(first, second)
    assert operator.status(first, second)["earnedUpokt"] == earned([1, 2, 3, 5])


async def test_what_was_concluded_on_a_volume_that_was_lost_stays_earned(miners, operator, tmp_path):
    miner = miners("0")
    miner.conclude(1, 2)
    await operator.poll(miner)
    miner.stop()
    shutil.rmtree(tmp_path / "volume-0")
    miner.start()
    miner.conclude(3)
    await operator.poll(miner)
    assert operator.status(miner)["earnedUpokt"] == earned([1, 2, 3])


async def test_a_session_that_an_owner_and_its_successor_concluded_counts_once(miners, operator):
    first, second = miners("0"), miners("1")
    first.conclude(1)
    await operator.poll(first, second)
    second.conclude(1, 2)
    await operator.poll(second)
    status = operator.status(first, second)
    assert status["earnedUpokt"] == earned([1, 2])
    assert (status["day"]["settled"], status["day"]["feesUpokt"]) == (2, 3)


async def test_a_trail_that_was_restored_from_a_backup_goes_on_from_there(miners, operator, tmp_path):
    miner = miners("0")
    miner.conclude(1, 2)
    shutil.copytree(tmp_path / "volume-0", tmp_path / "backup")
    await operator.poll(miner)
    miner.conclude(3, 4, 5)
    await operator.poll(miner)
    miner.stop()
    shutil.rmtree(tmp_path / "volume-0")
    shutil.copytree(tmp_path / "backup", tmp_path / "volume-0")
    miner.start()
    await operator.poll(miner)
    miner.conclude(3, 6)
    await operator.poll(miner)
    assert operator.status(miner)["earnedUpokt"] == earned([1, 2, 3, 5, 6])


async def test_totals_of_a_trail_without_its_beginning_are_adopted_once_they_are_certain(miners, operator):
    miner = miners("0")
    miner.conclude(1, 2, 3)
    miner.reports.save()
    assert miner.audit.prune(26) == 2
    await operator.poll(miner)
    assert operator.keeper.of(ALICE).trails == {}
    assert operator.status(miner)["earnedUpokt"] == earned([1, 2, 3])  # from the report alone
    await operator.poll(miner)
    assert list(operator.keeper.of(ALICE).trails.values()) == [3]
    miner.conclude(5)
    await operator.poll(miner)
    assert operator.status(miner)["earnedUpokt"] == operator.status()["earnedUpokt"] == earned([1, 2, 3, 5])


async def test_reports_of_miners_without_a_trail_count_while_they_are_there(miners, operator):
    miner = miners("0")
    miner.conclude(1)
    await operator.poll(miner)
    older = Report.of(
        "main-miner-1", {"component": "miner", "suppliers": {ADDRESS: {"open": 0, "earned_by": {"x": 7}}}}
    )
    seen = snapshot(books={"alice": operator.keeper.of(ALICE)}, reports=(miner.report(), older))
    status = supplier_status(plan(seen).key_checks[0], seen, plan(seen))
    assert status.earned_upokt == earned([1]) + 7


async def test_a_supplier_that_is_declared_again_has_what_its_miners_trails_still_have(miners, operator):
    miner = miners("0")
    other = {**ALICE, "metadata": {**ALICE["metadata"], "name": "other", "uid": "other"},
             "spec": {**ALICE["spec"], "operatorAddress": "pokt1other"}}  # fmt: skip
    operator.cache.drop(SUPPLIERS.name, ALICE)
    operator.cache.put(SUPPLIERS.name, other)
    miner.conclude(1, 2)
    miner.conclude(3, supplier="pokt1other")
    await operator.poll(miner)
    operator.cache.put(SUPPLIERS.name, ALICE)
    await operator.poll(miner)
    assert sum(operator.keeper.of(ALICE).earned_by.values()) == earned([1, 2])
    assert sum(operator.keeper.of(other).earned_by.values()) == earned([3])
    operator.cache.drop(SUPPLIERS.name, other)
    operator.keeper.forget_except(())
    assert set(operator.keeper._books) == {"alice"}


async def test_another_supplier_that_names_the_same_address_takes_no_outcomes(miners, operator):
    miner = miners("0")
    miner.conclude(1)
    await operator.poll(miner)
    zoe = {**ALICE, "metadata": {**ALICE["metadata"], "name": "zoe", "uid": "zoe", "creationTimestamp": "2099"}}
    operator.cache.put(SUPPLIERS.name, zoe)
    miner.conclude(2)
    await operator.poll(miner)
    assert sum(operator.keeper.of(ALICE).earned_by.values()) == earned([1, 2])
    operator.cache.drop(SUPPLIERS.name, ALICE)
    miner.conclude(3)
    await operator.poll(miner)
    operator.cache.put(SUPPLIERS.name, ALICE)
    operator.cache.drop(SUPPLIERS.name, zoe)
    miner.conclude(5)
    await operator.poll(miner)
    assert sum(operator.keeper.of(ALICE).earned_by.values()) == earned([1, 2, 3, 5])


async def test_more_miners_than_trails_are_kept_count_nothing_twice(miners, operator, monkeypatch):
    monkeypatch.setattr("pocket_operator.decide.books.MOST_TRAILS", 2)
    here = [miners(str(number)) for number in range(3)]
    for number, miner in enumerate(here):
        miner.conclude(10 * number + 1)
    for _ in range(4):
        await operator.poll(*here)
    assert sum(operator.keeper.of(ALICE).earned_by.values()) == earned([1, 11])
    operator.keeper.forget_except({(KEY.namespace, miner.pod) for miner in here[1:]})
    for _ in range(2):
        await operator.poll(*here[1:])
    assert sum(operator.keeper.of(ALICE).earned_by.values()) == earned([1, 11, 21])
    assert list(operator.keeper.of(ALICE).trails) == [miner.report().trail for miner in here[1:]]


async def test_books_of_a_newer_version_are_read_without_what_it_added(miners, operator):
    miner = miners("0")
    miner.conclude(1, 2)
    await operator.poll(miner)
    status = operator.status(miner)
    for part in ("books", "day", "last"):
        status[part]["shiny"] = 1
    assert books_in({**status, "earned": [{**row, "shiny": 1} for row in status["earned"]]}) == books_in(
        operator.status(miner)
    )
    assert sum(books_in(status).earned_by.values()) == earned([1, 2])


async def test_outcomes_of_others_do_not_touch_the_books_until_many_have_passed(miners, operator):
    miner = miners("0")
    await operator.poll(miner)
    miner.conclude(*range(1999), supplier="pokt1other")
    await operator.poll(miner)
    while (known := operator.keeper._position(KEY, miner.report().trail, 1999)) < 1999:
        await operator.poll(miner)
        assert operator.keeper._position(KEY, miner.report().trail, 1999) > known
    assert list(operator.keeper.of(ALICE).trails.values()) == [0]
    miner.conclude(3000, supplier="pokt1other")
    await operator.poll(miner)
    assert list(operator.keeper.of(ALICE).trails.values()) == [2000]


def test_only_sessions_that_another_miner_may_conclude_are_remembered():
    rows = [ended_session(number, as_outcome(number)) for number in range(1, 200)]
    books = Books().counted("t", rows)
    assert min(books.sessions) == 1990 - WINDOW_BLOCKS
    assert books.counted("t", rows) == books  # those of long ago do not count again, either
    many = Books()
    for first in range(1, 3000, 20):
        page = range(first, min(first + 20, 3000))
        many = many.counted("t", [ended_session(n, as_outcome(n, height=100 + n // 1000)) for n in page])
    assert sum(len(ids.split()) for ids in many.sessions.values()) == 1024
    assert sum(many.earned_by.values()) == earned(range(1, 3000))
    assert books_in(as_books(many)) == many


def as_outcome(number: int, height: int | None = None) -> dict:
    row = outcome(number, height=height)
    return {"supplier": row.supplier, "session_id": row.session_id, "outcome": row.outcome, "height": row.height,
            "details": row.details}  # fmt: skip


def as_books(books: Books) -> dict:
    seen = snapshot(books={"alice": books}, reports=())
    return as_status(supplier_status(plan(seen).key_checks[0], seen, plan(seen)))


@pytest.mark.parametrize("status", [{}, {"books": 7}, {"books": {"trails": [{"trail": ""}]}}, {"earnedUpokt": 5}])
def test_a_status_without_readable_books_begins_new_ones(status):
    assert books_in(status) == Books()


async def test_a_miner_that_stops_waits_until_its_last_outcomes_are_read_if_reports_are_polled():
    clock = [100.0]
    handover = Handover(lambda: clock[0])
    await handover.wait(3)  # nobody reads reports
    handover.reported(2)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        waits = group.create_task(handover.wait(3))
        for step in (lambda: None, lambda: handover.reported(3), lambda: handover.shown(2)):
            step()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not waits.done()
        handover.shown(3)
    clock[0] += 1.0
    handover.shown(0)
    await handover.wait(3)  # its reader had counted it before and asked for no page in a second
    clock[0] += 10.0
    await handover.wait(4)  # nobody reads reports any more


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("conclude"), st.integers(0, 2), st.integers(0, 40)),
        st.tuples(st.sampled_from(["scale down", "crash", "start", "lose volume", "poll"]), st.integers(0, 2)),
        st.tuples(st.sampled_from(["write", "restart operator"])),
    ),
    max_size=40,
)


@settings(max_examples=examples(25), deadline=None)
@given(STEPS)
def test_whatever_happens_to_miners_volumes_and_operator_each_counted_session_counts_once(steps):
    """Expected is the union of the sessions in all trails as the operator last saw or wrote them."""

    async def go(folder: Path) -> None:
        operator, running = Operator(), {}
        volumes: Counter[int] = Counter()
        seen: set[int] = set()
        written: set[int] = set()

        def path(number: int) -> Path:
            return folder / f"{number}-{volumes[number]}"

        async def polled(number: int) -> None:
            miner = running[number]
            for _ in range(2 + len(miner.concluded) // PAGE):
                await operator.poll(miner)
            seen.update(miner.concluded)

        for step, *arguments in steps:
            number = arguments[0] if arguments else 0
            miner = running.get(number)
            if step == "start" and miner is None:
                known = set(concluded.get(path(number), ()))
                running[number] = Miner(f"main-miner-{number}", path(number), concluded=known)
            elif step == "conclude" and miner is not None:
                miner.conclude(arguments[1])
            elif step == "poll" and miner is not None:
                await polled(number)
            elif step in ("scale down", "crash", "lose volume") and miner is not None:
                if step == "scale down":
                    await polled(number)  # a miner that stops waits for this
                concluded[path(number)] = set(miner.concluded)
                miner.stop()
                del running[number]
                volumes[number] += step == "lose volume"
            elif step == "write":
                operator.write()
                written = set(seen)
            elif step == "restart operator":
                operator.restart()
                seen = set(written)
            uncounted = [m for m in running.values() if m.report().trail not in operator.keeper.of(ALICE).trails]
            if not uncounted:
                assert operator.status(*running.values())["earnedUpokt"] == earned(seen), step
        for miner in running.values():
            miner.stop()

    concluded: dict[Path, set[int]] = {}
    with TemporaryDirectory() as folder:
        asyncio.run(go(Path(folder)))
