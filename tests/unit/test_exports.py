"""Outcomes as a table."""

import csv

import pytest

from pocket_miner.console.exports import COLUMNS, ExportFilter, csv_lines


def test_what_is_not_known_is_empty_and_what_came_from_outside_is_never_a_formula():
    outcomes = [
        {"supplier": "s", "session_id": "a", "outcome": "claim_lost", "stage": "CLAIMED", "height": 9,
         "reason": '=cmd|"/C calc"!A0, "quoted"\nline', "details": {"relays": 3, "reward_distribution": "nonsense"}},
        {"supplier": "s", "session_id": "b", "outcome": "settled", "stage": "SETTLED", "height": 10, "reason": "paid",
         "details": {"settled_upokt": 7, "fees_upokt": 2, "reward_distribution": '{"x":"5upokt","a":"2upokt"}'}},
    ]  # fmt: skip
    lines = list(csv_lines(outcomes))
    rows = list(csv.DictReader("\n".join(lines).splitlines(keepends=True)))
    assert lines[0].split(",") == list(COLUMNS)
    assert rows[0]["reason"] == '\'=cmd|"/C calc"!A0, "quoted"\nline'
    assert (rows[0]["settled_upokt"], rows[0]["paid_to"], rows[0]["relays"]) == ("", "", "3")
    assert (rows[1]["paid_to"], rows[1]["fees_upokt"]) == ("a=2 x=5", "2")


ROWS = [
    {"supplier": s, "session_id": i, "outcome": o, "details": {"service_id": v, "application_address": a}}
    for s, i, o, v, a in (
        ("s1", "aa", "settled", "eth", "x"), ("s2", "ab", "claim_missed", "eth", "x"),
        ("s1", "ba", "settled", "base", "y"), ("s1", "bb", "expired", "base", "x"),
    )
]  # fmt: skip


@pytest.mark.parametrize(("wanted", "found"), [
    ({}, "aa ab ba bb"), ({"supplier": "s1"}, "aa ba bb"), ({"service": "eth"}, "aa ab"), ({"application": "y"}, "ba"),
    ({"session": "a"}, "aa ab"), ({"lost": True}, "ab bb"), ({"lost": False}, "aa ba"), ({"limit": 3}, "ab ba bb"),
    ({"supplier": "s1", "lost": False, "limit": 1}, "ba"), ({"supplier": "nobody"}, ""),
])  # fmt: skip
def test_outcomes_are_chosen_by_everything_that_is_asked_for(wanted, found):
    assert [row["session_id"] for row in ExportFilter(**wanted).select(ROWS)] == found.split()


def test_an_outcome_without_details_is_no_reason_to_stop():
    assert ExportFilter(service="eth").select([{"session_id": "x"}]) == []
    assert ExportFilter().select([{"session_id": "x"}]) == [{"session_id": "x"}]
