"""Which outcome a settlement block means for a session."""

from itertools import permutations

import pytest

from pocket.api.recipients import added, bounded
from pocket.api.status import OTHERS
from pocket.chain.model import Event, ServiceConfig, StakedSupplier
from pocket.protocol.claims.proof_requirement import Claim
from pocket.protocol.relays.messages import SessionHeader
from pocket.redis_store.seals import SessionSeal
from pocket_miner.sessions.evidence import Evidence, Fact, Statement
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.settlement.verdict import settled_as
from pocket_miner.status.report import SupplierReport

SETTLED, EXPIRED = (f"pocket.tokenomics.EventClaim{kind}" for kind in ("Settled", "Expired"))


def root(count, first=1):
    return bytes([first]) * 32 + (100 * count).to_bytes(8, "big") + count.to_bytes(8, "big")


def session(name="s", *, app="app", service="eth", end=10, sealed=None, **more):
    made = TrackedSession(SessionHeader(app, service, name, end - 9, end), **more)
    made.seal = SessionSeal(name, sealed, bytes(32), 13, 1) if sealed else None
    return made


def shown(of):
    """Return the state of a claim that the chain showed at two blocks."""
    evidence = Evidence()
    for height in (14, 15):
        evidence.add(Statement(Fact.CLAIM_CONFLICTING, "node", height))
    return {"claim_on_chain": Claim("op", SessionHeader("app", "eth", "s", 1, 10), of), "evidence": evidence}


def event(of, count, kind=SETTLED, supplier="op", upokt=7, **more):
    header = of.header
    attributes = {
        "supplier_operator_address": supplier, "application_address": header.application_address,
        "service_id": header.service_id, "session_end_block_height": str(header.session_end_block_height),
        "num_relays": str(count), "num_claimed_compute_units": str(100 * count),
        **({"session_id": header.session_id, "reward_distribution": f'{{"op":"{upokt}upokt"}}'}
           if kind == SETTLED else {"expiration_reason": "PROOF_MISSING"}), **more,
    }  # fmt: skip
    return Event(kind, attributes)


def test_sessions_of_a_supplier_that_end_in_one_block_are_told_apart_by_everything_that_names_them():
    sessions = [
        session("a", sealed=root(1)), session("b", app="other", sealed=root(2)),
        session("c", service="base", sealed=root(3)), session("d", app="third", sealed=root(4)),
    ]  # fmt: skip
    told = [
        event(sessions[0], 1, upokt=11), event(sessions[1], 2, EXPIRED), event(sessions[2], 3, upokt=33),
        event(sessions[3], 4, EXPIRED, expiration_reason="PROOF_INVALID"),
        event(sessions[0], 1, supplier="another", upokt=99), event(sessions[1], 2, supplier="another", upokt=99),
    ]  # fmt: skip
    for order in list(permutations(told))[::37]:
        found = [settled_as("op", each, order) for each in sessions]
        assert [row.outcome for row in found] == ["settled", "proof_missed", "settled", "proof_invalid"]
        assert [row.details.get("earned_upokt") for row in found] == [11, None, 33, None]
        assert [row.details["relays"] for row in found] == [1, 2, 3, 4]


@pytest.mark.parametrize(("of", "paid", "outcome"), [
    (session(sealed=root(3)), 3, "settled"),
    (session(sealed=root(3), **shown(root(3))), 3, "settled"),
    (session(sealed=root(3)), 4, "claim_lost"),
    (session(sealed=root(3), **shown(root(4))), 4, "claim_lost"),
    (session(sealed=root(3), **shown(root(3, first=2))), 3, "claim_lost"),
    # Nodes told of another claim; the chain paid ours.
    (session(sealed=root(3), **shown(root(4))), 3, "settled"),
    (session(**shown(root(4))), 4, "settled"),
    (session(**shown(root(4)), conflicting=True), 4, "claim_lost"),
])  # fmt: skip
def test_the_chains_event_decides_whose_claim_was_paid(of, paid, outcome):
    found = settled_as("op", of, [event(of, paid)])
    assert found.outcome == outcome
    assert (found.details["relays"], found.details["earned_by"]) == (paid, {"op": 7})


def test_without_an_event_there_was_no_claim():
    assert settled_as("op", session(), [event(session("b"), 3)]) is None


def test_an_illegible_part_of_the_event_costs_no_outcome():
    found = settled_as("op", session(), [event(session(), 3, settled_upokt="?", num_relays="x")])
    assert (found.outcome, found.details["malformed"]) == ("settled", ["num_relays", "settled_upokt"])
    assert "settled_upokt" not in found.details
    assert found.details["earned_by"] == {"op": 7}


def config(service, since, until, *shareholders):
    return ServiceConfig(service, since, until, tuple((name, 50) for name in shareholders))


def test_the_shareholders_of_a_session_are_those_of_its_service_then():
    report = SupplierReport()
    assert report.shareholders(session().header) == frozenset()
    history = (config("eth", 1, 21, "old"), config("eth", 21, 0, "new", "op"), config("base", 1, 0, "other"))
    report.record_stake(StakedSupplier("op", "owner", 1, frozenset(), 0, history))
    assert report.shareholders(session(end=10).header) == {"old"}
    assert report.shareholders(session(end=40).header) == {"new", "op"}
    report.record_stake(None)
    assert report.shareholders(session(end=40).header) == {"new", "op"}
    paid = event(session(end=40), 3, reward_distribution='{"new":"4upokt","other":"9upokt"}')
    assert settled_as("op", session(end=40), [paid], report.shareholders(session(end=40).header)).details[
        "earned_by"
    ] == {"new": 4}  # fmt: skip


def test_recipients_are_bounded_and_nothing_of_them_is_lost():
    amounts = {f"a{number}": number for number in range(1, 9)}
    assert bounded(amounts, 8) == amounts
    assert bounded(amounts, 3) == {"a8": 8, "a7": 7, OTHERS: 21}
    assert bounded({**amounts, OTHERS: 5}, 3) == {"a8": 8, "a7": 7, OTHERS: 26}
    total = {}
    for _ in range(3):
        total = added(total, amounts, 4)
    assert total == {"a8": 24, "a7": 21, "a6": 18, OTHERS: 45}
    assert added(total, {"a1": 1, OTHERS: 1, "a8": 1}, 4) == {"a8": 25, "a7": 21, "a6": 18, OTHERS: 47}
