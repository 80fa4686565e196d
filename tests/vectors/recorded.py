"""The recorded sessions as model values, and a localnet that stands where the recorded chain stood."""

from corpus import load, unhex
from pocket.chain import convert
from pocket.chain.comet import parse_time
from pocket.chain.settlement_event import CLAIM_SETTLED
from pocket.protocol.pb import cosmos_auth_v1beta1_pb2 as auth_pb
from pocket.protocol.pb import pocket_application_pb2 as application_pb
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb
from pocket.protocol.pb import pocket_service_pb2 as service_pb
from pocket.protocol.pb import pocket_session_pb2 as session_pb
from pocket.protocol.pb import pocket_shared_pb2 as shared_pb
from pocket.protocol.pb import pocket_tokenomics_pb2 as tokenomics_pb
from pocket_localnet.genesis import Genesis
from pocket_localnet.local_chain import LocalChain


def answer(query, message_type):
    message = message_type()
    message.ParseFromString(unhex(query["response"]))
    return message


def session_records(record):
    """Everything a reader needs of a recorded session."""
    return {
        "session": convert.session(answer(record["session_query"], session_pb.QueryGetSessionResponse).session),
        "raw_session": answer(record["session_query"], session_pb.QueryGetSessionResponse).session,
        "application": convert.application(
            answer(record["application_query"], application_pb.QueryGetApplicationResponse).application
        ),
        "params": convert.shared_params(
            answer(record["shared_params_query"], shared_pb.QueryParamsAtHeightResponse).params
        ),
        "proof_params": convert.proof_params(answer(record["proof_params_query"], proof_pb.QueryParamsResponse).params),
        "tokenomics": convert.tokenomics_params(
            answer(record["tokenomics_params_query"], tokenomics_pb.QueryParamsResponse).params
        ),
        "units": answer(
            record["compute_units_query"], service_pb.QueryComputeUnitsPerRelayAtHeightResponse
        ).computeUnitsPerRelay,
        "accounts": {
            account.address: account
            for account in (
                convert.account(a.account.type_url, a.account.value)
                for a in (answer(q, auth_pb.QueryAccountResponse) for q in record["account_queries"])
            )
        },
        "places": answer(
            record["session_params_query"], session_pb.QueryParamsResponse
        ).params.num_suppliers_per_session,
    }


def hashes(record):
    return {int(height): unhex(block["hash"].lower()) for height, block in record["blocks"].items()}


def times(record):
    return {int(height): parse_time(block["time"]).nanoseconds for height, block in record["blocks"].items()}


def recorded_chain(record):
    """Return a localnet just before the session's first block, with recorded state and block hashes."""
    known = session_records(record)
    numbers = {s["operator_address"]: s["claims"][0]["account_number"] for s in record["suppliers"] if s["claims"]}
    app, params = known["application"], known["params"]
    genesis = Genesis.model_validate(
        {
            "chain_id": record["chain_id"],
            "accounts": [
                {
                    "address": a.address,
                    "balance": 10**12,
                    "public_key": a.public_key.hex() if a.public_key else None,
                    "number": numbers.get(a.address, a.number),
                }
                for a in known["accounts"].values()
            ],
            "services": [
                {
                    "id": record["service_id"],
                    "compute_units_per_relay": known["units"],
                    "owner": app.address,
                    "target_hash": record["target_hash"],
                }
            ],
            "applications": [
                {
                    "address": app.address,
                    "stake": known["session"].application_stake_upokt,
                    "service": record["service_id"],
                    "gateways": list(app.gateway_addresses),
                }
            ],
            "suppliers": [
                {
                    "operator": s.operator_address,
                    "owner": s.owner_address,
                    "stake": 10**9,
                    "services": [record["service_id"]],
                }
                for s in known["raw_session"].suppliers
            ],
            "shared_params": {
                name: getattr(params, name)
                for name in params.__dataclass_fields__
                if name not in ("session_grid_anchor_height", "session_number_at_anchor")
            },
            "proof_params": {
                "proof_request_probability": known["proof_params"].proof_request_probability,
                "proof_requirement_threshold": known["proof_params"].proof_requirement_threshold_upokt,
                "proof_missing_penalty": known["proof_params"].proof_missing_penalty_upokt,
                "proof_submission_fee": known["proof_params"].proof_submission_fee_upokt,
            },
            "num_suppliers_per_session": known["places"],
        }
    )
    recorded = hashes(record)
    return LocalChain(
        genesis, hash_of=lambda height, _: recorded.get(height, bytes(32)), first_height=record["session_start"] - 1
    )


def claim_key(attributes):
    """Return the key of a claim in a block.

    A supplier may have several sessions that settle in it.
    """
    return attributes["session_id"], attributes["supplier_operator_address"]


def settlements_of(record):
    """Return the recorded settlements of one session as model events, by supplier."""
    rows = [
        event
        for block in record["block_events"]
        if block["height"] == record["heights"]["settlement"]
        for event in convert.events(block["finalize_block_events"])
        if event.type == CLAIM_SETTLED and event.attributes["session_id"] == record["session_id"]
    ]
    found = {claim_key(event.attributes)[1]: event for event in rows}
    assert len(found) == len(rows)
    return found


def sessions():
    return load("chain/relays")["sessions"]
