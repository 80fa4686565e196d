"""Pages of the miner's status API, without a miner."""

from dataclasses import replace

import pytest

from pocket.api.miner_status import DayTotals
from pocket.errors import DecodingError
from pocket.protocol.claims.proof_requirement import ProofRequirement
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket_miner.relay_rows import Leaf
from pocket_miner.sessions.evidence import Fact, Statement
from pocket_miner.sessions.leaf_validation import LeafTerms
from pocket_miner.sessions.tracked_session import Skip, TrackedSession
from pocket_miner.status.history import DAYS, restored_days, with_outcome
from pocket_miner.status.report import SupplierReport
from pocket_miner.status.session_pages import SessionAt, ended_session, open_session, page_of, position_of
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.outcomes import OutcomeRecord
from pocket_miner.storage.relay_store import RelayStore

PARAMS = SharedParams(compute_units_to_tokens_multiplier=1_000_000)


def tracked(session_id="s", **fields):
    header = SessionHeader("pokt1app", "eth", session_id, 1, 10)
    terms = LeafTerms("pokt1a", header, b"\xff" * 32, 100)
    return replace(TrackedSession(header, params=PARAMS, terms=terms), **fields)


def row(session, stage="ACTIVE", leaves=3, height=5):
    return open_session(SessionAt("pokt1a", session, stage), leaves, height)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_hold_every_session_once_in_order(limit):
    suppliers = {
        f"pokt1{s}": {f"{i:02}": tracked(f"{i:02}") for i in range(n)} for s, n in zip("cab", (5, 0, 3), strict=True)
    }
    found, after, pages = [], "", 0
    while True:
        page, after = page_of(suppliers, after, limit)
        assert len(page) <= limit
        found += [(address, session.session_id) for address, session in page]
        pages += 1
        if not after:
            break
    assert found == [*(("pokt1b", f"{i:02}") for i in range(3)), *(("pokt1c", f"{i:02}") for i in range(5))]
    assert pages == max(1, -(-8 // limit))


def test_a_page_continues_although_the_sessions_of_its_position_ended():
    suppliers = {"pokt1b": {"02": tracked("02")}, "pokt1c": {"01": tracked("01")}}
    page, _ = page_of(suppliers, "pokt1b/01", 10)
    assert [session.session_id for _, session in page] == ["02", "01"]
    assert page_of(suppliers, "pokt1c/01", 10) == ([], "")


@pytest.mark.parametrize(
    ("stage", "height", "requirement", "owes"),
    [
        ("ACTIVE", 5, None, ("claim", 16)), ("SEALED", 13, None, ("claim", 16)), ("SEALED", 16, None, ("", None)),
        ("CLAIMED", 14, None, ("proof", 20)), ("PROOFABLE", 17, ProofRequirement.PROBABILISTIC, ("proof", 20)),
        ("CLAIMED", 14, ProofRequirement.NOT_REQUIRED, ("", None)), ("PROOFABLE", 20, None, ("", None)),
        ("PROVEN", 18, None, ("", None)), ("", 5, None, ("", None)),
    ],
)  # fmt: skip
def test_what_a_session_owes_follows_from_stage_height_and_requirement(stage, height, requirement, owes):
    found = row(tracked(requirement=requirement), stage, height=height)
    assert (found.owes, found.due) == owes


def test_the_value_is_that_of_the_relays_on_the_volume_until_the_seal():
    assert (row(tracked(), leaves=3).value_upokt, row(tracked(), leaves=0).value_upokt) == (300, 0)
    unknown = row(tracked(terms=None), leaves=3)
    assert (unknown.value_upokt, unknown.relays, unknown.compute_units) == (None, 3, 0)
    assert row(tracked(params=None)).windows is None


def test_a_skipped_session_owes_nothing_and_names_the_reason():
    found = row(tracked(skip=Skip.UNPROFITABLE), "CLAIMABLE", height=15)
    assert (found.owes, found.skipped, found.problem) == ("", "unprofitable", "")


def test_problems_are_named_the_gravest_first():
    session = tracked()
    session.details.refusal = "code 5"
    assert row(session).problem == "code 5"
    session.conflicting, session.details.foreign_root = True, "ab"
    assert row(session).problem == "the claim on chain has another root: ab"
    rejected = tracked(terms=None)
    for node in ("a", "b"):
        rejected.evidence.add(Statement(Fact.NOT_IN_SESSION, node, 5, "it has others"))
    assert row(rejected).problem == "supplier_not_in_session: it has others"


def test_outcomes_of_older_versions_are_read_without_what_they_lack():
    found = ended_session(7, {"supplier": "pokt1a", "session_id": "s", "outcome": "proof_missed", "height": 20})
    assert (found.number, found.paid, found.lost, found.time, found.start, found.windows) == (
        7,
        False,
        True,
        "",
        None,
        None,
    )


@pytest.mark.parametrize("text", ["", "-1", "1.5", "x", "9" * 19, "١"])
def test_positions_are_plain_numbers(text):
    with pytest.raises(DecodingError):
        position_of(text)


# History.


def outcome(day="2026-11-29", name="settled", **details):
    known = {"time": f"{day}T10:00:00Z", "claimed_upokt": 10, "relays": 3, "fees_upokt": 1}
    if name == "settled":
        known |= {"settled_upokt": 10, "earned_by": {"pokt1a": 7}}
    return {"supplier": "pokt1a", "session_id": "s", "outcome": name, "height": 9, "details": known | details}


def test_outcomes_are_summed_by_day_of_the_chains_clock():
    days = {}
    for body in (
        outcome(),
        outcome(),
        outcome(name="proof_missed"),
        outcome("2026-11-30"),
        outcome(name="empty", claimed_upokt=0),
    ):
        days = with_outcome(days, body)
    first = days["2026-11-29"]
    assert (first.sessions, first.settled, first.lost, first.earned_upokt) == (4, 2, 1, 14)
    assert (first.claimed_upokt, first.lost_upokt, first.fees_upokt, first.relays) == (30, 10, 4, 12)
    assert dict(first.lost_by) == {"proof_missed": 10}
    assert days["2026-11-30"].sessions == 1


def test_outcomes_that_no_node_retains_or_without_a_time_are_no_loss_of_a_day():
    assert with_outcome({}, outcome(name="unseen"))["2026-11-29"].lost_upokt == 0
    assert with_outcome({}, outcome(time="")) == {}


def test_only_the_newest_days_are_kept():
    days = {}
    for number in range(1, 61):
        days = with_outcome(days, outcome(f"2026-{1 + number // 29:02}-{1 + number % 29:02}"))
    assert len(days) == DAYS
    assert max(days) == "2026-03-03"


def test_days_survive_a_restart_with_the_saved_totals():
    report, again = SupplierReport(), SupplierReport()
    report.record_outcome(outcome())
    again.restore(report.to_dict())
    assert again.days == report.days == {"2026-11-29": with_outcome({}, outcome())["2026-11-29"]}
    assert restored_days({"2026-11-29": {"sessions": "x"}, "2026-11-30": {"sessions": 2}}) == {
        "2026-11-30": DayTotals(sessions=2)
    }  # fmt: skip
    assert restored_days(None) == {}


# The volume.


def test_outcomes_are_read_page_by_page_over_a_second_connection(tmp_path):
    audit = Audit(tmp_path / "audit.sqlite")
    for number in range(1, 8):
        audit.record(OutcomeRecord("pokt1a", f"session {number}", "settled", "SETTLED", "", number * 10, {}))
    reader = Audit(tmp_path / "audit.sqlite", read_only=True)
    try:
        assert reader.last_number() == 7
        page, first = reader.page(2, 3)
        assert ([number for number, _ in page], first) == ([3, 4, 5], 1)
        audit.prune(35)
        assert reader.page(0, 2)[1] == 4
        assert [body["session_id"] for _, body in reader.page(6, 9)[0]] == ["session 7"]
    finally:
        reader.close()
        audit.close()


def test_the_number_of_relays_is_right_after_every_change(tmp_path):
    def leaves(*names):
        return [Leaf(name.encode() * 32, b"d" * 32, 1, b"v") for name in names]

    with RelayStore(tmp_path / "mirror") as store:
        file = store.file(10)
        file.add_sessions("pokt1a", [("s", b"h"), ("t", b"h")])
        assert file.count("pokt1a", "s") == 0
        file.store("pokt1a", "s", leaves("a", "b"), 0, "1-0", "")
        file.store("pokt1a", "t", leaves("a"), 0, "1-0", "")
        assert (file.count("pokt1a", "s"), file.count("pokt1a", "t")) == (2, 1)
        file.store("pokt1a", "s", leaves("b", "c"), 0, "2-0", "")
        assert file.add("pokt1a", "s", leaves("c", "d")) == 1
        assert file.count("pokt1a", "s") == 4
        file.check_again("pokt1a", "s", lambda value: None)
        assert (file.count("pokt1a", "s"), file.count("pokt1a", "t")) == (0, 1)
        file.store("pokt1a", "s", leaves("a"), 0, "3-0", "")
        file.remove("pokt1a", "s")
        assert file.count("pokt1a", "s") == 0
        assert file.count("pokt1b", "s") == 0
    with RelayStore(tmp_path / "mirror") as store:
        assert store.file(10).count("pokt1a", "t") == 1
