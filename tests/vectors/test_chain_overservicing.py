"""The recorded settlement of applications with little stake, settled again by our localnet."""

import pytest

from corpus import load, unhex
from pocket.chain import convert
from pocket.chain.settlement_event import claim_end
from pocket.protocol.claims.proof_requirement import Claim
from pocket.protocol.claims.rewards import supplier_reward_upokt
from pocket.protocol.pb import pocket_application_pb2 as application_pb
from pocket.protocol.pb import pocket_shared_pb2 as shared_pb
from pocket.protocol.pb import pocket_tokenomics_pb2 as tokenomics_pb
from pocket.protocol.relays.messages import SessionHeader
from pocket_localnet.genesis import Genesis
from pocket_localnet.settlement import settle
from pocket_localnet.state import from_genesis
from recorded import answer

DATA = load("chain/overservicing")
SETTLED = "pocket.tokenomics.EventClaimSettled"
OVER = "pocket.tokenomics.EventApplicationOverserviced"


def recorded(kind):
    rows = []
    for block in DATA["block_events"]:
        for event in block["finalize_block_events"]:
            if event["type"] == kind:
                rows.append({a["key"]: a["value"].strip('"') for a in event["attributes"]})
    return rows


def application(row, when):
    return convert.application(answer(row[when], application_pb.QueryGetApplicationResponse).application)


@pytest.fixture(scope="module")
def settled():
    """(state after, events) of our localnet for the recorded claims."""
    params = convert.shared_params(answer(DATA["shared_params_query"], shared_pb.QueryParamsResponse).params)
    fields = params.__dataclass_fields__
    apps = [application(row, "before") for row in DATA["applications"]]
    suppliers = sorted({claim["supplier"] for claim in DATA["claims"]})
    rewarded = recorded(SETTLED)
    genesis = Genesis.model_validate(
        {
            "shared_params": {
                n: getattr(params, n)
                for n in fields
                if n not in ("session_grid_anchor_height", "session_number_at_anchor")
            },
            "proof_params": {"proof_request_probability": 0.0, "proof_requirement_threshold": 10**15},
            "services": [{"id": a.service_ids[0], "owner": suppliers[0]} for a in apps],
            "applications": [{"address": a.address, "stake": a.stake_upokt, "service": a.service_ids[0]} for a in apps],
            "suppliers": [
                {"operator": s, "owner": s, "stake": 10**9, "services": [a.service_ids[0] for a in apps]}
                for s in suppliers
            ],
            "application_min_stake": 100_000_000,
            "tokenomics": {"mint_ratio": float(rewarded[0]["mint_ratio"])},
        }
    )
    state = from_genesis(genesis)
    state.height = DATA["settlement_height"]
    address = {a.service_ids[0]: a.address for a in apps}
    for claim in DATA["claims"]:
        header = SessionHeader(
            address[claim["service_id"]],
            claim["service_id"],
            claim["session_id"],
            DATA["session_start"],
            DATA["session_end"],
        )
        key = (claim["session_id"], claim["supplier"])
        state.claims[key] = Claim(claim["supplier"], header, unhex(claim["root_hash"]))
    return state, settle(state, lambda _: bytes(32))


def test_every_supplier_is_paid_what_the_chain_paid(settled):
    _, events = settled
    names = ("claimed_upokt", "settled_upokt", "minted_upokt", "overservicing_loss_upokt", "num_relays", "session_id")
    ours = {
        (e.attributes["session_id"], e.attributes["supplier_operator_address"]): e for e in events if e.type == SETTLED
    }
    rows = recorded(SETTLED)
    assert len(ours) == len(rows) > 0
    for row in rows:
        mine = ours[row["session_id"], row["supplier_operator_address"]].attributes
        assert {n: mine[n] for n in names} == {n: row[n] for n in names}


def test_the_same_applications_are_reported_as_overserviced(settled):
    _, events = settled
    names = ("application_addr", "supplier_operator_addr", "expected_burn", "effective_burn", "service_id")
    ours = sorted(tuple(e.attributes[n] for n in names) for e in events if e.type == OVER)
    assert ours == sorted(tuple(row[n] for n in names) for row in recorded(OVER))


def test_the_applications_are_left_with_the_recorded_stake_and_unbonding(settled):
    state, _ = settled
    for row in DATA["applications"]:
        after = application(row, "after")
        mine = state.applications[after.address]
        assert (mine.stake_upokt, mine.unstake_session_end_height) == (
            after.stake_upokt,
            after.unstake_session_end_height,
        )
    assert not state.claims


def test_the_suppliers_side_got_what_we_expect_of_each_settled_amount():
    recorded_params = answer(DATA["tokenomics_params_query"], tokenomics_pb.QueryParamsResponse).params
    params = convert.tokenomics_params(recorded_params)
    ends = [
        end
        for block in DATA["block_events"]
        for event in convert.events(block["finalize_block_events"])
        if (end := claim_end(event)) is not None
    ]
    assert ends
    assert not any(end.malformed for end in ends)
    for end in ends:
        expected = supplier_reward_upokt(end.settled_upokt, params)
        # Inflation is rounded up by us.
        assert end.earned_upokt == expected or (params.global_inflation_per_claim and end.earned_upokt < expected)
