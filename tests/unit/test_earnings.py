"""Earnings by recipient for a session, a day and a service, the days that a miner reports, and funds."""

import json
from functools import reduce

import pytest
from click.testing import CliRunner

from pocket.api.status import SupplierSessions, timestamp
from pocket.protocol.sessions.windows import SharedParams
from pocket.protocol.transactions.build import Timestamp
from pocket_miner.console.earnings import earnings_csv, earnings_rows
from pocket_miner.console.ledger_commands import ledger
from pocket_miner.sessions.deadlines import Deadline, deadline_of, earliest
from pocket_miner.sessions.stages import Stage
from pocket_miner.status.history import DAYS, with_outcome
from pocket_miner.status.report import Reports, SupplierReport
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.outcomes import OutcomeRecord, SessionOutcome
from pocket_operator.decide.books import Day, day_of
from pocket_operator.decide.earned import earnings, funds
from pocket_operator.decide.pod_report import ReportedSupplier


def row(number, day, service="eth", outcome="settled", supplier="pokt1a", fees=10, **earned_by):
    details = {"service_id": service, "session_end_height": number, "earned_by": earned_by, "fees_upokt": fees}
    if day:
        details["time"] = f"{day}T10:00:00Z"
    return {"supplier": supplier, "session_id": f"s{number}", "outcome": outcome, "height": number, "details": details}


ROWS = [
    row(1, "2026-01-01", owner=70, operator=30),
    row(2, "2026-01-01", owner=7, operator=3),
    row(3, "2026-01-02", service="sol", owner=700),
    row(4, "2026-01-02", outcome="claim_missed", fees=4),
    row(5, "", owner=1000),
]


@pytest.mark.parametrize(
    ("by", "group", "expected"),
    [
        ("session", ("2026-01-01", "eth", "s1"), {"owner": 70, "operator": 30, "(fees)": -10}),
        ("day", ("2026-01-01", "eth"), {"owner": 77, "operator": 33, "(fees)": -20}),
        ("service", ("eth",), {"owner": 1077, "operator": 33, "(fees)": -34}),
        ("supplier", (), {"owner": 1777, "operator": 33, "(fees)": -44}),
    ],
)
def test_rows_sum_up_what_each_recipient_received_and_what_fees_cost(by, group, expected):
    found = earnings_rows(ROWS, by)
    keys = [key for key in found[0] if key not in ("supplier", "recipient", "upokt", "sessions")]
    same = [r for r in found if tuple(r[key] for key in keys) == group]
    assert {r["recipient"]: r["upokt"] for r in same} == expected


def test_every_grouping_has_the_same_total_and_since_leaves_out_earlier_and_unknown_times():
    totals = {by: sum(r["upokt"] for r in earnings_rows(ROWS, by)) for by in ("session", "day", "service", "supplier")}
    assert set(totals.values()) == {1777 + 33 - 44}
    assert sum(r["upokt"] for r in earnings_rows(ROWS, "supplier", since="2026-01-02")) == 700 - 14
    assert earnings_rows(ROWS, "day", supplier="pokt1b") == []
    assert next(earnings_csv(earnings_rows(ROWS, "supplier"))) == "supplier,recipient,upokt,sessions"
    assert list(earnings_csv([])) == []


def test_the_command_prints_the_rows_of_a_volume(tmp_path):
    audit = Audit(tmp_path / "audit.sqlite")
    for each in ROWS:
        audit.record(
            OutcomeRecord(
                each["supplier"], each["session_id"], each["outcome"], "SETTLED", "", each["height"], each["details"]
            )
        )
    audit.close()
    done = CliRunner().invoke(ledger, ["earnings", "--data", str(tmp_path), "--by", "supplier"])
    assert done.exit_code == 0, done.output
    assert {r["recipient"]: r["upokt"] for r in map(json.loads, done.output.splitlines())} == {
        "owner": 1777, "operator": 33, "(fees)": -44,
    }  # fmt: skip


def test_the_report_has_the_last_day_and_the_mean_fees_of_the_complete_days_also_after_a_restart(tmp_path):
    audit = Audit(tmp_path / "audit.sqlite")
    for each in ROWS:
        audit.record(
            OutcomeRecord(
                each["supplier"], each["session_id"], SessionOutcome(each["outcome"]), "SETTLED", "", each["height"],
                each["details"],
            )
        )  # fmt: skip
    reports = Reports(audit)
    expected = {"date": "2026-01-02", "earned_by": {"owner": 700}, "fees_upokt": 14, "settled": 1, "lost": 1}
    assert reports.of("pokt1a").row()["day"] == expected
    assert reports.of("pokt1a").row()["fees_per_day_upokt"] == 20
    reports.save()
    audit.prune(1000)
    again = Reports(audit)
    assert again.of("pokt1a").row()["day"] == expected
    assert again.of("pokt1a").row()["fees_per_day_upokt"] == 20
    assert SupplierReport().row()["day"] is None
    audit.close()


def test_only_the_last_days_are_kept():
    dates = [f"2026-{month:02}-{day:02}" for month in (1, 2) for day in range(1, 29)]
    days = {}
    for number, date in enumerate(dates):
        days = with_outcome(days, row(number, date, owner=1))
    assert list(days) == dates[-DAYS:]


def reported(balance=None, fees=None, day=None):
    return ReportedSupplier(open=0, balance_upokt=balance, fees_per_day_upokt=fees, day=day)


def test_funds_last_for_the_fees_of_all_miners():
    rows = [reported(1000, 30)]
    assert funds(rows[0], [30, 20, None]).days_left == 20
    assert funds(rows[0], [30]).days_left == 33
    assert funds(None, [30, 20]).days_left is None
    assert funds(reported(1000, 0), [0]).days_left is None  # without fees it lasts for ever


def test_the_last_day_sums_up_the_miners_that_have_it():
    rows = [
        reported(day={"date": "2026-01-02", "earned_by": {"a": 5}, "fees_upokt": 1, "settled": 1}),
        reported(day={"date": "2026-01-02", "earned_by": {"a": 6, "b": 1}, "settled": 2, "lost": 1}),
        reported(day={"date": "2026-01-01", "earned_by": {"a": 1000}}),
        reported(),
    ]
    found = reduce(Day.plus, map(day_of, rows)).to_status()
    assert (found.date, found.earned_upokt, found.fees_upokt, found.settled, found.lost) == ("2026-01-02", 12, 1, 3, 1)
    assert [(each.recipient, each.upokt) for each in found.earned] == [("a", 11), ("b", 1)]
    assert earnings([]) == ()


def test_the_earliest_deadline_is_that_of_the_claim_before_and_of_the_proof_after_it():
    windows = SharedParams().windows(1)
    claim, proof = Deadline(windows.claim_close, "claim"), Deadline(windows.proof_close, "proof")
    assert deadline_of(windows, Stage.ACTIVE) == deadline_of(windows, Stage.SEALED) == claim
    assert deadline_of(windows, Stage.CLAIMED) == deadline_of(windows, Stage.PROOFABLE) == proof
    assert deadline_of(windows, Stage.PROVEN) is deadline_of(None, Stage.ACTIVE) is None
    assert deadline_of(windows, Stage.PROOF_NOT_REQUIRED) is None
    assert earliest(claim, proof) == claim
    assert earliest(claim, claim).sessions == 2
    assert earliest(None, proof) == proof


@pytest.mark.parametrize(
    ("stage", "claim", "proof", "sessions"),
    [
        (Stage.CLAIMED, "s at 9", "", SupplierSessions(claimed=1)),
        (Stage.PROOFABLE, "", "", SupplierSessions(claimed=1)),
        (Stage.PROVEN, "", "s at 9", SupplierSessions(proven=1)),
        (Stage.PROOF_NOT_REQUIRED, "", "", SupplierSessions(proof_not_required=1)),
    ],
)
def test_a_session_without_a_required_proof_is_not_reported_as_proven(stage, claim, proof, sessions):
    report = SupplierReport()
    report.record_stages({"s": stage}, 9, 0, None)
    read = ReportedSupplier.model_validate(report.row())
    assert (read.last.claim, read.last.proof) == (claim, proof)
    assert read.sessions.model_dump() == sessions.model_dump()


@pytest.mark.parametrize("seconds", [-1, 0, 253_402_300_799, 2**62])
def test_a_block_time_out_of_range_is_still_a_time(seconds):
    assert len(timestamp(Timestamp(seconds).moment)) == 20
