"""Outcomes as a table."""

import csv

from relayctl.exports import COLUMNS, csv_lines


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
