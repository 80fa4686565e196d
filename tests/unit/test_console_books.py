"""Earnings in the console: the miners' sums, and the operator's books of miners that are gone."""

import pytest

from console_snapshots import ALICE, BOB, NOW, OWNER, miner, snapshot, supplier
from pocket_console.snapshot import ClusterSnapshot
from pocket_console.views.merged import merged
from pocket_console.views.overview import overview_view
from pocket_console.views.suppliers import SupplierFilter, suppliers_view

TODAY = "2026-11-29"


def money(shot):
    return overview_view(shot, merged(shot, NOW), NOW).money


def earned(shot):
    return {
        row.address: row.earned_upokt for row in suppliers_view(shot, merged(shot, NOW), SupplierFilter()).paging.rows
    }


def in_books(address, *, earned, day, trails=({"trail": "t1", "number": 9},)):
    """Return a Supplier with the operator's books."""
    rows = [{"recipient": recipient, "upokt": upokt} for recipient, upokt in earned.items()]
    return {
        "metadata": {"name": address[-4:]}, "spec": {"operatorAddress": address},
        "status": {"earned": rows, "day": day, "books": {"trails": list(trails)}},
    }  # fmt: skip


def of_day(date, recipient, upokt, **fields):
    return {"date": date, "earned": [{"recipient": recipient, "upokt": upokt}], "earnedUpokt": upokt} | fields


def with_books(*suppliers, **fields):
    return snapshot(cluster=ClusterSnapshot(suppliers=suppliers), **fields)


def test_the_books_add_what_miners_earned_that_are_gone():
    alice = in_books(ALICE, earned={ALICE: 5_000}, day=of_day(TODAY, ALICE, 700, feesUpokt=3, settled=4))
    bob = in_books(BOB, earned={BOB: 90}, day=of_day("2026-11-28", BOB, 90))
    shot = with_books(alice, bob)
    today = money(shot)
    assert (today.earned_today, today.recipients, today.fees_today) == (700, ((ALICE, 700),), 3)
    assert earned(shot) == {ALICE: 5_000, BOB: 90}


def test_books_that_are_behind_the_miners_hide_nothing():
    alice = in_books(ALICE, earned={ALICE: 50}, day=of_day(TODAY, ALICE, 50))
    shot = with_books(alice, miners=(miner(suppliers=(supplier(earned_by={ALICE: 9_000, OWNER: 1}),)),))
    assert (money(shot).earned_today, earned(shot)) == (200, {ALICE: 9_001})


@pytest.mark.parametrize("trails", [(), ({"trail": "", "number": -1},)])
def test_a_supplier_without_readable_books_is_summed_over_its_miners(trails):
    assert earned(with_books(in_books(ALICE, earned={ALICE: 5_000}, day={}, trails=trails))) == {ALICE: 200}
