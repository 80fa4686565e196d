"""Encoding of the state's records as the chain's protobuf and JSON."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from pocket.chain.model import Account, Application, Event, StakedSupplier, TransactionResult
from pocket.protocol.claims.proof_requirement import Claim
from pocket.protocol.pb import cosmos_auth_v1beta1_pb2 as auth_pb
from pocket.protocol.pb import cosmos_base_abci_v1beta1_pb2 as abci_pb
from pocket.protocol.pb import cosmos_base_v1beta1_pb2 as base_pb
from pocket.protocol.pb import pocket_application_pb2 as application_pb
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb
from pocket.protocol.pb import pocket_session_pb2 as session_pb
from pocket.protocol.pb import pocket_shared_pb2 as shared_pb
from pocket.protocol.pb import pocket_tokenomics_pb2 as tokenomics_pb
from pocket.protocol.sessions.session_id import config_active
from pocket.protocol.sessions.windows import SharedParams
from pocket.protocol.transactions.build import SECP256K1_PUBLIC_KEY, header_message
from pocket_localnet.hydration import HydratedSession
from pocket_localnet.state import State

_INTEGERS_32 = {"claim_proof_status_int", "proof_requirement_int"}
_JSON_VALUES = {"reward_distribution", "reward_distribution_detailed", "spend_limit_exceeded"}


def coin(upokt: int) -> base_pb.Coin:
    """Return a coin in upokt. Zero is written as the text 0."""
    return base_pb.Coin(denom="upokt", amount=str(upokt))


def shared_params(params: SharedParams) -> shared_pb.Params:
    """Encode the shared params."""
    return shared_pb.Params(**{f.name: getattr(params, f.name) for f in shared_pb.Params.DESCRIPTOR.fields})


def proof_params(state: State) -> proof_pb.Params:
    """Encode the proof params."""
    params = state.proof_params
    return proof_pb.Params(
        proof_request_probability=params.proof_request_probability,
        proof_requirement_threshold=coin(params.proof_requirement_threshold_upokt),
        proof_missing_penalty=coin(params.proof_missing_penalty_upokt),
        proof_submission_fee=coin(params.proof_submission_fee_upokt),
    )


def tokenomics_params(state: State) -> tokenomics_pb.Params:
    """Encode the tokenomics params. The localnet has no inflation."""
    params = state.tokenomics
    shares = params.distribution.model_dump()
    return tokenomics_pb.Params(
        mint_allocation_percentages=tokenomics_pb.MintAllocationPercentages(**shares),
        dao_reward_address=params.dao_reward_address,
        mint_equals_burn_claim_distribution=tokenomics_pb.MintEqualsBurnClaimDistribution(**shares),
        mint_ratio=params.mint_ratio,
        overservicing_bonus_multiplier=params.overservicing_bonus_multiplier,
    )


def application(value: Application) -> application_pb.Application:
    """Encode an application."""
    message = application_pb.Application(
        address=value.address,
        stake=coin(value.stake_upokt),
        service_configs=[shared_pb.ApplicationServiceConfig(service_id=s) for s in value.service_ids],
        delegatee_gateway_addresses=value.gateway_addresses,
        unstake_session_end_height=value.unstake_session_end_height,
    )
    for height, gateways in value.pending_undelegations.items():
        message.pending_undelegations[height].gateway_addresses.extend(gateways)
    return message


def supplier(value: StakedSupplier, height: int, *, history: bool = True, service: str = "") -> shared_pb.Supplier:
    """Encode a supplier with the services active at `height`.

    With `service`, as in a session, only that service is included. Without `history` neither history nor revenue shares
    are.
    """
    message = shared_pb.Supplier(
        owner_address=value.owner_address,
        operator_address=value.operator_address,
        stake=coin(value.stake_upokt),
        unstake_session_end_height=value.unstake_session_end_height,
    )
    for config in value.history:
        row = shared_pb.SupplierServiceConfig(service_id=config.service_id)
        for position, (rpc_type, url) in enumerate(config.endpoints):
            endpoint = row.endpoints.add(url=url, rpc_type=shared_pb.RPCType.Name(rpc_type))
            for key, chosen in config.options[position] if config.options else ():
                endpoint.configs.add(key=shared_pb.ConfigOptions.Name(key), value=chosen)
        if history:
            for address, percent in config.revenue_share:
                row.rev_share.add(address=address, rev_share_percentage=percent)
        active = config_active(config.activation_height, config.deactivation_height, height)
        if active and service in ("", config.service_id):
            message.services.append(row)
        if history:
            update = message.service_config_history.add(
                operator_address=value.operator_address,
                activation_height=config.activation_height,
                deactivation_height=config.deactivation_height,
            )
            update.service.CopyFrom(row)
    return message


def session(value: HydratedSession, height: int) -> session_pb.Session:
    """Encode a hydrated session."""
    return session_pb.Session(
        header=header_message(value.header),
        session_id=value.header.session_id,
        session_number=value.number,
        num_blocks_per_session=value.num_blocks,
        application=application(value.application),
        suppliers=[supplier(s, height, history=False, service=value.header.service_id) for s in value.suppliers],
    )


def account(value: Account) -> auth_pb.BaseAccount:
    """Encode a base account."""
    message = auth_pb.BaseAccount(address=value.address, account_number=value.number, sequence=value.sequence)
    if value.public_key is not None:
        message.pub_key.type_url = SECP256K1_PUBLIC_KEY
        message.pub_key.value = b"\x0a\x21" + value.public_key
    return message


def claim(value: Claim) -> proof_pb.Claim:
    """Encode a claim with its status."""
    return proof_pb.Claim(
        supplier_operator_address=value.supplier_operator_address,
        session_header=header_message(value.header),
        root_hash=value.root_hash,
        proof_validation_status=value.proof_validation_status,  # type: ignore[arg-type]  # the enum's number
    )


def tx_response(result: TransactionResult, gas_wanted: int = 0) -> abci_pb.TxResponse:
    """Encode the result of a broadcast or of an included transaction."""
    return abci_pb.TxResponse(
        height=result.height,
        txhash=result.tx_hash,
        codespace=result.codespace,
        code=result.code,
        raw_log=result.log,
        gas_wanted=gas_wanted,
        gas_used=result.gas_used,
    )


def event_json(event: Event, extra: tuple[str, str]) -> dict[str, Any]:
    """Return an event as CometBFT writes it.

    Attributes are sorted, values quoted as on chain.
    """
    typed = event.type.startswith("pocket.")

    def quoted(name: str, value: str) -> str:
        return value if not typed or name in _INTEGERS_32 or name in _JSON_VALUES else json.dumps(value)

    rows = [
        {"key": name, "value": quoted(name, value), "index": True} for name, value in sorted(event.attributes.items())
    ]
    return {"type": event.type, "attributes": [*rows, {"key": extra[0], "value": extra[1], "index": True}]}


def events_json(events: Iterable[Event], extra: tuple[str, str]) -> list[dict[str, Any]]:
    """Return events as CometBFT writes them."""
    return [event_json(event, extra) for event in events]


def time_text(nanoseconds: int) -> str:
    """Return RFC 3339 with nanoseconds."""
    seconds, nanos = divmod(nanoseconds, 1_000_000_000)
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + fraction + "Z"
