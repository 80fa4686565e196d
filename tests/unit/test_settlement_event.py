"""Settlement events: what is read out of them, from any text, and whose they are."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.chain.model import Event
from pocket.chain.settlement_event import CLAIM_SETTLED, ClaimOutcome, claim_end
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.smst.digest import Root

HEADER = SessionHeader("app", "eth", "session", 1, 10)
SHAREHOLDER = "TLM_RELAY_BURN_EQUALS_MINT_SUPPLIER_SHAREHOLDER_REWARD_DISTRIBUTION"
INFLATION = "TLM_GLOBAL_MINT_SUPPLIER_SHAREHOLDER_REWARD_DISTRIBUTION"
SOURCE_OWNER = "TLM_RELAY_BURN_EQUALS_MINT_SOURCE_OWNER_REWARD_DISTRIBUTION"
EXPIRED = "pocket.tokenomics.EventClaimExpired"
ATTRIBUTES = {
    "supplier_operator_address": "operator", "supplier_owner_address": "owner", "application_address": "app",
    "service_id": "eth", "session_end_block_height": "10", "session_id": "session", "num_relays": "3",
    "num_claimed_compute_units": "300", "claimed_upokt": "100upokt", "settled_upokt": "90upokt",
    "minted_upokt": "80upokt",
}  # fmt: skip


def rewards(**upokt):
    return json.dumps({address: f"{amount}upokt" for address, amount in upokt.items()})


def payments(*rows):
    return json.dumps([{"recipient_address": a, "op_reason": r, "amount": f"{n}upokt"} for a, r, n in rows])


def settled(shareholders=(), kind=CLAIM_SETTLED, **changes):
    attributes = {name: text for name, text in {**ATTRIBUTES, **changes}.items() if text is not None}
    return claim_end(Event(kind, attributes), shareholders)


def test_amounts_and_counts_are_those_of_the_event():
    end = settled(reward_distribution=rewards(operator=56, dao=8))
    assert (end.outcome, end.relays, end.compute_units) == (ClaimOutcome.SETTLED, 3, 300)
    assert (end.claimed_upokt, end.settled_upokt, end.minted_upokt) == (100, 90, 80)
    assert (end.by_recipient, end.supplier_side, end.earned_upokt) == (
        {"operator": 56, "dao": 8}, {"operator": 56}, 56
    )  # fmt: skip
    assert end.malformed == ()


@pytest.mark.parametrize(("shareholders", "paid", "detail", "side"), [
    ((), {"operator": 5, "owner": 4, "dao": 1}, None, {"operator": 5, "owner": 4}),
    (("friend",), {"operator": 5, "friend": 3, "dao": 1}, None, {"operator": 5, "friend": 3}),
    ((), {"friend": 3, "dao": 1}, None, {}),
    # The reason tells that a shareholder was paid whom nobody knew, and that the owner was paid for the service, too.
    ((), {"friend": 3, "owner": 4}, [("friend", SHAREHOLDER, 3), ("owner", SOURCE_OWNER, 4)], {"friend": 3}),
    ((), {"owner": 9}, [("owner", SHAREHOLDER, 5), ("owner", SOURCE_OWNER, 4)], {"owner": 5}),
    ((), {"owner": 7}, [("owner", SHAREHOLDER, 5), ("owner", INFLATION, 2)], {"owner": 7}),
    ((), {"owner": 7}, [], {"owner": 7}),
])  # fmt: skip
def test_what_reached_the_suppliers_side_is_told_by_reasons_or_else_by_addresses(shareholders, paid, detail, side):
    more = {} if detail is None else {"reward_distribution_detailed": payments(*detail)}
    assert settled(shareholders, reward_distribution=rewards(**paid), **more).supplier_side == side


@pytest.mark.parametrize(("name", "text"), [
    ("num_relays", "many"), ("num_relays", "-1"), ("num_relays", "٣"), ("claimed_upokt", "100"),
    ("settled_upokt", "9e9upokt"), ("minted_upokt", "1.5upokt"), ("root_hash", "no root"),
    ("num_claimed_compute_units", "9" * 5000), ("reward_distribution_detailed", "[" * 100_000),
    ("reward_distribution_detailed", '[{"recipient_address":"x"}]'), ("reward_distribution_detailed", "{}"),
    ("reward_distribution_detailed", payments(("friend", SHAREHOLDER, "3.5"))),
])  # fmt: skip
def test_what_is_illegible_is_set_aside_and_named_and_the_rest_counts(name, text):
    end = settled(reward_distribution=rewards(operator=56, dao=8), **{name: text})
    assert end.malformed == (name,)
    assert (end.outcome, end.supplier_side) == (ClaimOutcome.SETTLED, {"operator": 56})
    assert end.concerns("operator", HEADER)


def test_recipients_are_those_of_the_details_where_there_is_no_summary():
    rows = payments(("friend", SHAREHOLDER, 3), ("owner", SOURCE_OWNER, 4), ("friend", INFLATION, 2))
    for summary in (None, "", "[]"):
        end = settled(reward_distribution=summary, reward_distribution_detailed=rows)
        assert (end.by_recipient, end.supplier_side) == ({"friend": 5, "owner": 4}, {"friend": 5})


def test_an_illegible_reward_costs_nobody_elses():
    end = settled(reward_distribution='{"operator":"56upokt","dao":"8 apples"}')
    assert (end.by_recipient, end.malformed) == ({"operator": 56}, ("reward_distribution",))


@pytest.mark.parametrize(("kind", "reason", "outcome"), [
    (EXPIRED, "PROOF_MISSING", ClaimOutcome.PROOF_MISSING), (EXPIRED, "PROOF_INVALID", ClaimOutcome.PROOF_INVALID),
    (EXPIRED, "SOMETHING_NEW", ClaimOutcome.EXPIRED), (EXPIRED, None, ClaimOutcome.EXPIRED),
])  # fmt: skip
def test_claims_that_were_not_paid(kind, reason, outcome):
    end = settled(kind=kind, session_id=None, expiration_reason=reason)
    assert (end.outcome, end.supplier_side) == (outcome, {})
    assert end.concerns("operator", HEADER)
    discarded = settled(kind="pocket.tokenomics.EventClaimDiscarded", session_id=None, error="no money")
    assert (discarded.outcome, discarded.reason) == (ClaimOutcome.DISCARDED, "no money")


def test_other_events_end_no_claim():
    assert claim_end(Event("pocket.tokenomics.EventSupplierSlashed", ATTRIBUTES)) is None


IDENTITY = ("supplier_operator_address", "application_address", "service_id", "session_end_block_height", "session_id")


@pytest.mark.parametrize("kind", [CLAIM_SETTLED, EXPIRED])
@pytest.mark.parametrize("name", IDENTITY)
def test_an_event_concerns_a_session_only_where_nothing_that_it_names_differs(kind, name):
    assert settled(kind=kind).concerns("operator", HEADER)
    assert not settled(kind=kind, **{name: "11"}).concerns("operator", HEADER)


@pytest.mark.parametrize("name", IDENTITY)
def test_without_a_session_id_everything_else_has_to_be_named(name):
    absent = {"session_id": None, name: None}
    assert settled(**absent).concerns("operator", HEADER) == (name == "session_id")


def root(total, count, first=b"\x01"):
    return first * 32 + total.to_bytes(8, "big") + count.to_bytes(8, "big")


def b64(data):
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(("changes", "of", "may"), [
    ({}, root(300, 3), True), ({}, root(300, 4), False), ({}, root(400, 3), False),
    ({"num_relays": None, "num_claimed_compute_units": None}, root(400, 4), True),
    ({"root_hash": b64(root(300, 3))}, root(300, 3), True),
    ({"root_hash": b64(root(300, 3, b"\x02"))}, root(300, 3), False),
])  # fmt: skip
def test_a_claims_root_is_told_by_its_count_and_sum_or_by_itself_where_the_event_has_it(changes, of, may):
    assert Root(of).count
    assert settled(**changes).may_be_of(of) == may


@given(st.dictionaries(
    st.sampled_from([*ATTRIBUTES, "reward_distribution", "reward_distribution_detailed", "root_hash"]),
    st.text(max_size=40) | st.recursive(st.none() | st.integers() | st.text(max_size=9), lambda inner: st.lists(
        inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3), max_leaves=6).map(json.dumps),
))  # fmt: skip
def test_no_text_whatsoever_ends_in_an_error_or_in_earnings_that_nobody_was_paid(attributes):
    end = claim_end(Event(CLAIM_SETTLED, attributes))
    assert end.outcome is ClaimOutcome.SETTLED
    assert all(upokt >= 0 for upokt in end.supplier_side.values())
    assert set(end.malformed) <= set(attributes)
