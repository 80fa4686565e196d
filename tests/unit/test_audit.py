"""The audit trail: one outcome a session, a chain of hashes that a policy may shorten at its old end only."""

import pytest

from pocket.redis_store.seals import SessionSeal, SignedGroup
from pocket_miner.status.report import Reports
from pocket_miner.storage.audit import Audit, AuditError, AuditHead
from pocket_miner.storage.outcomes import OutcomeRecord


@pytest.fixture
def audit(tmp_path):
    made = Audit(tmp_path / "audit.sqlite")
    yield made
    made.close()


def outcome(number, supplier="pokt1a"):
    return OutcomeRecord(
        supplier, f"session {number}", "settled", "SETTLED", "", number * 10, {"session_end_height": number * 10 - 5}
    )


def sealed(audit, number, supplier="pokt1a"):
    seal = SessionSeal(f"session {number}", bytes(48), bytes(32), number * 10, 1)
    audit.save_seals(supplier, number * 10 - 5, [seal], "")


def names(rows):
    return [row["session_id"] for row in rows]


def test_pruning_takes_the_oldest_outcomes_and_the_rest_still_proves_to_follow_them(audit, tmp_path):
    for number in range(1, 11):
        sealed(audit, number)
        audit.record(outcome(number))
    assert audit.prune(51) == 5
    assert audit.prune(51) == 0
    assert names(audit.outcomes()) == [f"session {n}" for n in range(6, 11)]
    audit.close()
    again = Audit(tmp_path / "audit.sqlite")
    again.record(outcome(11))
    assert len(again.outcomes()) == 6
    again._database.execute("UPDATE outcome SET body=replace(body, 'settled', 'expired') WHERE number=7")
    with pytest.raises(AuditError, match="entry 7 was altered"):
        again.outcomes()
    again.close()


def test_a_trail_that_was_pruned_to_nothing_goes_on_from_its_last_hash(audit):
    for number in range(1, 4):
        audit.record(outcome(number))
    assert audit.prune(1000) == 3
    assert audit.outcomes() == []
    audit.record(outcome(4))
    assert len(audit.outcomes()) == 1
    audit._database.execute("DELETE FROM meta WHERE name='pruned'")
    with pytest.raises(AuditError):
        audit.outcomes()


def test_pruning_stops_at_the_first_outcome_that_is_young_whatever_lies_behind_it(audit):
    for number in (1, 9, 2):
        audit.record(outcome(number))
    assert audit.prune(50) == 1
    assert names(audit.outcomes()) == ["session 9", "session 2"]


def test_a_seal_without_outcome_is_never_pruned(audit):
    sealed(audit, 1)
    sealed(audit, 2)
    audit.record(outcome(1))
    audit.prune(1000)
    assert list(audit.seals("pokt1a")) == ["session 2"]
    assert audit._database.execute("SELECT count(*) FROM seal").fetchone() == (1,)


def test_a_seal_that_was_saved_is_never_replaced(audit):
    first, second = (SessionSeal("one", bytes([number]) * 48, b"d" * 32, 12, number) for number in (1, 2))
    for seal in (first, second):
        audit.save_seals("pokt1a", 10, [seal], "")
    assert audit.seals("pokt1a") == {"one": (10, first)}


def test_what_ended_elsewhere_is_forgotten_and_what_has_an_outcome_here_is_not(audit):
    for number in (1, 2, 3):
        sealed(audit, number)
    audit.record(outcome(1))
    audit.spend("pokt1a", "AB", "claim", {"session 2": 5, "session 3": 5, "session 4": 5})
    assert sorted(audit.unfinished()) == [
        ("pokt1a", "session 2", 15), ("pokt1a", "session 3", 25), ("pokt1a", "session 4", None),
    ]  # fmt: skip
    audit.forget("pokt1a", ["session 1", "session 2", "session 4"])
    audit.forget("pokt1b", ["session 3"])
    assert audit.unfinished() == [("pokt1a", "session 3", 25)]
    assert audit._database.execute("SELECT session_id FROM seal ORDER BY 1").fetchall() == [
        ("session 1",), ("session 3",),
    ]  # fmt: skip


def test_more_than_a_thousand_are_pruned_in_several_calls(audit):
    audit._database.execute("PRAGMA synchronous=OFF")
    for number in range(1, 1203):
        audit.record(outcome(number))
    assert [audit.prune(10**6), audit.prune(10**6), audit.prune(10**6)] == [1000, 202, 0]


def test_what_ended_lately_is_told_by_the_supplier_s_own_latest_end(audit):
    for number in (1, 2, 60, 61):
        audit.record(outcome(number))
    audit.record(outcome(900, "pokt1b"))
    assert audit.ended("pokt1a", 500) == {"session 60": 595, "session 61": 605}
    assert audit.ended("pokt1b", 500) == {"session 900": 8995}
    assert audit.ended("pokt1c", 500) == {}
    plan = audit._database.execute(
        "EXPLAIN QUERY PLAN SELECT session_id FROM outcome WHERE supplier=? "
        "AND json_extract(body, '$.details.session_end_height') >= 3", ("pokt1a",),
    ).fetchall()  # fmt: skip
    assert "outcome_end" in str(plan)


def test_the_last_outcomes_come_in_order(audit):
    for number in range(1, 6):
        audit.record(outcome(number))
    assert names(audit.recent(2)) == ["session 4", "session 5"]


def reported(audit):
    return {
        address: (row["earned_upokt"], row["last"], row["lost_recently"])
        for address, row in Reports(audit).rows().items()
    }


def paid(number, upokt, supplier="pokt1a", name="settled"):
    return OutcomeRecord(
        supplier, f"session {number}", name, "SETTLED", "", number * 10, {"earned_by": {"owner": upokt}}
    )


def test_figures_outlive_the_outcomes_they_come_from_and_later_ones_are_added(audit):
    for number in range(1, 6):
        audit.record(paid(number, number))
    reports = Reports(audit)
    for number in range(6, 9):
        if audit.record(paid(number, number)):
            outcome = {"outcome": "settled", "session_id": f"session {number}", "height": number * 10}
            reports.of("pokt1a").record_outcome({**outcome, "details": {"earned_by": {"owner": number}}})
    reports.save()
    before = reported(audit)
    assert before["pokt1a"][0] == 36
    assert audit.prune(1000) == 8
    assert reported(audit) == before
    audit.record(paid(9, 4))
    audit.record(paid(10, 0, name="claim_missed"))
    earned, last, lost = reported(audit)["pokt1a"]
    assert (earned, lost) == (40, 1)
    assert last["settlement"] == "session 9 at 90"
    assert last["loss"].startswith("session 10 at 100: claim_missed")


def test_figures_of_versions_that_kept_no_recipients_are_not_taken_for_earnings(audit):
    audit.save_summary(0, {"pokt1a": {"earned_upokt": 11940, "lost_recently": 2, "last": {"loss": "x at 9"}}})
    assert reported(audit)["pokt1a"] == (0, {"loss": "x at 9"}, 2)


def test_a_start_reads_the_outcomes_after_the_kept_figures_only(audit):
    for number in range(1, 6):
        audit.record(paid(number, number))
    Reports(audit).save()
    audit._database.execute("UPDATE outcome SET body='{}' WHERE number<=5")
    audit.record(paid(6, 10))
    assert reported(audit)["pokt1a"][0] == 25
    with pytest.raises(AuditError, match="entry 1 was altered"):
        audit.outcomes()


def test_an_altered_trail_is_said_and_keeps_no_miner_from_its_work(audit, captured_logs):
    for number in range(1, 4):
        audit.record(paid(number, 1))
    audit._database.execute("UPDATE outcome SET body=replace(body, '\"owner\":1', '\"owner\":9') WHERE number=2")
    assert reported(audit)["pokt1a"][0] == 11
    assert "audit entry 2 was altered" in str(captured_logs)
    audit._database.execute("INSERT OR REPLACE INTO meta VALUES ('summary', 'no JSON')")
    assert reported(audit)["pokt1a"][0] == 11


def test_the_head_names_the_last_outcome_also_after_a_restart_and_after_pruning(audit, tmp_path):
    audit.load_head()
    assert audit.head == AuditHead(0, "")
    for number in range(1, 4):
        audit.record(outcome(number))
    head = audit.head
    assert head.number == 3
    assert not audit.record(outcome(3))
    assert audit.head == head
    audit.close()
    again = Audit(tmp_path / "audit.sqlite")
    again.load_head()
    assert again.head == head
    again.prune(1000)
    again.load_head()
    assert again.head == head
    again.close()


def test_published_heads_show_outcomes_that_were_cut_off_or_replaced(audit):
    heads = []
    for number in range(1, 6):
        audit.record(outcome(number))
        heads.append(audit.head)
    assert audit.missing_heads(heads) == []
    audit.prune(25)
    assert audit.missing_heads(heads) == []
    assert audit.missing_heads([AuditHead(2, "0" * 64)]) != []  # the last one that retention deleted
    audit._database.execute("DELETE FROM outcome WHERE number>=4")
    assert [text.split()[1] for text in audit.missing_heads(heads)] == ["4", "5"]
    audit.record(outcome(6))
    audit._database.execute("UPDATE sqlite_sequence SET seq=3")
    audit.record(outcome(7))
    audit.outcomes()  # the shortened and continued trail is consistent in itself
    assert "5" in audit.missing_heads(heads)[-1]


def test_a_trail_that_was_cut_and_continued_to_the_same_length_differs_from_its_published_head(audit):
    for number in range(1, 4):
        audit.record(outcome(number))
    head = audit.head
    audit._database.execute("DELETE FROM outcome WHERE number=3")
    audit._database.execute("UPDATE sqlite_sequence SET seq=2")
    audit.record(outcome(4))
    assert audit.outcomes()
    assert audit.head.number == head.number
    assert "has another one" in audit.missing_heads([head])[0]


def test_a_signed_transaction_is_stored_once_per_group_and_until_the_outcome(audit, tmp_path):
    signed = SignedGroup(bytes(300_000), 7, 12)
    seals = [SessionSeal(f"session {number}", bytes(48), bytes(32), 12, 1) for number in range(300)]
    audit.save_seals("pokt1a", 5, seals[:1], "")  # known before the others were sealed
    audit.save_seals("pokt1a", 5, seals, signed.encode())
    audit.save_seals("pokt1a", 5, seals, signed.encode())
    assert audit.signed("pokt1a", 5) == [signed]
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size < 3_000_000, "it was 300 times the transaction"
    again, proofs = SignedGroup(b"again", 7, 13), SignedGroup(b"proofs", 7, 13)
    for what, group in (("claim", again), ("proof", proofs), ("proof", proofs)):
        audit.save_signed("pokt1a", 5, what, group)
    assert (audit.signed("pokt1a", 5), audit.signed("pokt1a", 5, "proof")) == ([again, signed], [proofs])
    latest = SignedGroup(b"latest", 7, 14)
    audit.save_signed("pokt1a", 5, "claim", latest)
    assert audit.signed("pokt1a", 5) == [latest, again, signed]
    outcomes = [OutcomeRecord("pokt1a", seal.session_id, "settled", "SETTLED", "", 20, {}) for seal in seals]
    audit.record_all(outcomes[1:])
    assert audit.signed("pokt1a", 5, "proof") == [proofs]
    audit.record_all(outcomes[:1])
    assert audit.signed("pokt1a", 5) == audit.signed("pokt1a", 5, "proof") == []


@pytest.mark.parametrize("ends", ["here", "elsewhere"])
def test_what_a_session_cost_and_what_nodes_rejected_of_it_goes_with_its_end_alone(audit, ends):
    for session_id in ("session 1", "session 2"):
        for tx_hash in ("in a block", "rejected"):
            audit.spend("pokt1a", tx_hash, "claim", {session_id: 5})
        audit.reject("pokt1a", [session_id], "rejected")
    if ends == "here":
        audit.record_all([OutcomeRecord("pokt1a", "session 1", "settled", "SETTLED", "", 20, {})])
    else:
        audit.forget("pokt1a", ["session 1"])
    assert (audit.spent("pokt1a", "session 1"), audit.rejected("pokt1a", "session 1")) == (0, [])
    assert (audit.spent("pokt1a", "session 2"), audit.rejected("pokt1a", "session 2")) == (
        5, [("rejected", "claim", 5)],
    )  # fmt: skip
