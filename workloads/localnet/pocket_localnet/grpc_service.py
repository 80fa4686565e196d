"""The chain's gRPC services over the localnet (messages.md, sections 3 to 10)."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from pocket.protocol.crypto.addresses import is_address
from pocket.protocol.pb import cosmos_auth_v1beta1_pb2 as auth_pb
from pocket.protocol.pb import cosmos_bank_v1beta1_pb2 as bank_pb
from pocket.protocol.pb import cosmos_base_node_v1beta1_pb2 as node_pb
from pocket.protocol.pb import cosmos_base_tendermint_v1beta1_pb2 as block_pb
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.pb import pocket_application_pb2 as application_pb
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb
from pocket.protocol.pb import pocket_service_pb2 as service_pb
from pocket.protocol.pb import pocket_session_pb2 as session_pb
from pocket.protocol.pb import pocket_shared_pb2 as shared_pb
from pocket.protocol.pb import pocket_supplier_pb2 as supplier_pb
from pocket.protocol.pb import pocket_tokenomics_pb2 as tokenomics_pb
from pocket.protocol.pb import tendermint_types_pb2 as types_pb
from pocket.protocol.relays.messages import is_service_id
from pocket_localnet import encode
from pocket_localnet.hydration import HydrationError, hydrate
from pocket_localnet.local_chain import LocalChain
from pocket_localnet.state import State
from pocket_localnet.tx_rejected import TxRejected

Code = grpc.StatusCode
_DENOMINATION = re.compile(r"[a-zA-Z][a-zA-Z0-9/:._-]{2,127}")


class Abort(Exception):
    """A gRPC status with its text."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(frozen=True, slots=True)
class QueryContext:
    """The chain and the state that a query is answered from."""

    chain: LocalChain
    state: State


Handler = Callable[[QueryContext, Any], Message]


def _address(text: str, subject: str) -> None:
    if not text:
        raise Abort(Code.INVALID_ARGUMENT, f"empty address string is not allowed: {subject}")
    if not is_address(text):
        raise Abort(Code.INVALID_ARGUMENT, f"decoding bech32 failed: {subject}")


def _shared_params_at(query: QueryContext, request: shared_pb.QueryParamsAtHeightRequest) -> Message:
    if request.height < 0:
        raise Abort(Code.INVALID_ARGUMENT, "height must be non-negative")
    params = query.state.shared_params_at(request.height or query.state.height)
    return shared_pb.QueryParamsAtHeightResponse(params=encode.shared_params(params))


def _get_session(query: QueryContext, request: session_pb.QueryGetSessionRequest) -> Message:
    _address(request.application_address, "invalid application address for session")
    if not is_service_id(request.service_id):
        problem = "contains invalid characters" if request.service_id else "is empty"
        raise Abort(Code.INVALID_ARGUMENT, f"service ID '{request.service_id}' {problem}: invalid service ID")
    if request.block_height < 0:
        raise Abort(Code.INVALID_ARGUMENT, f"invalid block height for session being retrieved {request.block_height};")
    try:
        session = hydrate(
            query.state, query.chain.block_hash, request.application_address, request.service_id, request.block_height
        )
    except HydrationError as error:
        raise Abort(Code.INTERNAL, str(error)) from error
    height = request.block_height or query.state.height
    return session_pb.QueryGetSessionResponse(session=encode.session(session, height))


def _application(query: QueryContext, request: application_pb.QueryGetApplicationRequest) -> Message:
    record = query.state.applications.get(request.address)
    if record is None:
        raise Abort(Code.NOT_FOUND, f"app address: {request.address}: application not found")
    return application_pb.QueryGetApplicationResponse(application=encode.application(record))


def _all_applications(query: QueryContext, request: application_pb.QueryAllApplicationsRequest) -> Message:
    gateway = request.delegatee_gateway_address
    if gateway:
        _address(gateway, "invalid gateway address querying for apps with delegatee gateway address")
    rows = [
        record
        for _, record in sorted(query.state.applications.items())
        if not gateway or gateway in record.gateway_addresses
    ]
    start = int.from_bytes(request.pagination.key, "big") if request.pagination.key else request.pagination.offset
    end = start + (request.pagination.limit or 100)
    answer = application_pb.QueryAllApplicationsResponse(applications=[encode.application(a) for a in rows[start:end]])
    answer.pagination.SetInParent()  # also when it is empty
    if end < len(rows):
        answer.pagination.next_key = end.to_bytes(8, "big")
    return answer


def _supplier(query: QueryContext, request: supplier_pb.QueryGetSupplierRequest) -> Message:
    record = query.state.suppliers.get(request.operator_address)
    if record is None:
        raise Abort(Code.NOT_FOUND, f'supplier with operator address: "{request.operator_address}": supplier not found')
    message = encode.supplier(record, query.state.height, history=not request.dehydrated)
    return supplier_pb.QueryGetSupplierResponse(supplier=message)


def _service(query: QueryContext, request: service_pb.QueryGetServiceRequest) -> Message:
    record = query.state.services.get(request.id)
    if record is None:
        raise Abort(Code.NOT_FOUND, f'service ID not found: "{request.id}"')
    answer = service_pb.QueryGetServiceResponse()
    answer.service.id, answer.service.name = record.id, record.name
    answer.service.compute_units_per_relay = record.compute_units_at(query.state.height)
    answer.service.owner_address = record.owner_address
    return answer


def _known_service(query: QueryContext, service_id: str, height: int) -> None:
    if height < 0:
        raise Abort(Code.INVALID_ARGUMENT, "block height must be non-negative")
    if not service_id:
        raise Abort(Code.INVALID_ARGUMENT, "service ID is required")
    if service_id not in query.state.services:
        raise Abort(Code.NOT_FOUND, f"serviceID: {service_id}: service not found")


def _units_at(query: QueryContext, request: service_pb.QueryComputeUnitsPerRelayAtHeightRequest) -> Message:
    _known_service(query, request.serviceId, request.blockHeight)
    units = query.state.services[request.serviceId].compute_units_at(request.blockHeight)
    return service_pb.QueryComputeUnitsPerRelayAtHeightResponse(computeUnitsPerRelay=units)


def _difficulty_at(query: QueryContext, request: service_pb.QueryGetRelayMiningDifficultyAtHeightRequest) -> Message:
    _known_service(query, request.serviceId, request.blockHeight)
    entry = query.state.difficulty_at(request.serviceId, request.blockHeight)
    return service_pb.QueryGetRelayMiningDifficultyAtHeightResponse(
        relayMiningDifficulty=service_pb.RelayMiningDifficulty(
            service_id=request.serviceId,
            block_height=entry.effective_height,
            num_relays_ema=entry.num_relays_ema,
            target_hash=entry.target_hash,
        )
    )


def _account(query: QueryContext, request: auth_pb.QueryAccountRequest) -> Message:
    if not request.address:
        raise Abort(Code.INVALID_ARGUMENT, "Address cannot be empty")
    if not is_address(request.address):
        raise Abort(Code.UNKNOWN, "decoding bech32 failed: invalid separator index")
    record = query.state.accounts.get(request.address)
    if record is None:
        raise Abort(Code.NOT_FOUND, f"account {request.address} not found")
    value = encode.account(record).SerializeToString(deterministic=True)
    return auth_pb.QueryAccountResponse(account=AnyMessage(type_url="/cosmos.auth.v1beta1.BaseAccount", value=value))


def _balance(query: QueryContext, request: bank_pb.QueryBalanceRequest) -> Message:
    _address(request.address, "invalid address")
    if not _DENOMINATION.fullmatch(request.denom):
        raise Abort(Code.INVALID_ARGUMENT, f"invalid denom: {request.denom}")
    upokt = query.state.balances.get(request.address, 0) if request.denom == "upokt" else 0
    answer = bank_pb.QueryBalanceResponse()
    answer.balance.denom, answer.balance.amount = request.denom, str(upokt)
    return answer


def _claim(query: QueryContext, request: proof_pb.QueryGetClaimRequest) -> Message:
    _address(request.supplier_operator_address, "invalid supplier operator address for claim being retrieved")
    if not request.session_id:
        raise Abort(Code.INVALID_ARGUMENT, "invalid empty session ID for claim being retrieved: invalid session ID")
    record = query.state.claims.get((request.session_id, request.supplier_operator_address))
    if record is None:
        text = f'session ID "{request.session_id}" and supplier "{request.supplier_operator_address}"'
        raise Abort(Code.NOT_FOUND, f"{text}: claim not found")
    return proof_pb.QueryGetClaimResponse(claim=encode.claim(record))


def _all_claims(query: QueryContext, request: proof_pb.QueryAllClaimsRequest) -> Message:
    kind = request.WhichOneof("filter")
    rows = [
        claim
        for _, claim in sorted(query.state.claims.items())
        if (kind != "supplier_operator_address" or claim.supplier_operator_address == request.supplier_operator_address)
        and (kind != "session_id" or not request.session_id or claim.header.session_id == request.session_id)
        and (kind != "session_end_height" or claim.header.session_end_block_height == request.session_end_height)
    ]
    start = int.from_bytes(request.pagination.key, "big") if request.pagination.key else request.pagination.offset
    limit = request.pagination.limit or 100
    answer = proof_pb.QueryAllClaimsResponse(claims=[encode.claim(c) for c in rows[start : start + limit]])
    if start + limit < len(rows):
        answer.pagination.next_key = (start + limit).to_bytes(8, "big")
    answer.pagination.SetInParent()  # also when it is empty
    if not request.pagination.key:
        answer.pagination.total = len(rows)
    return answer


def _block_id(chain: LocalChain, height: int) -> tuple[types_pb.BlockID, types_pb.Block]:
    block = chain.blocks[height]
    header = types_pb.Header(chain_id=chain.state.chain_id, height=height)
    header.time.seconds, header.time.nanos = divmod(block.time_ns, 1_000_000_000)
    header.last_block_id.hash = chain.block_hash(height - 1)
    body = types_pb.Block(header=header, data=types_pb.Data(txs=[t.raw for t in block.transactions]))
    return types_pb.BlockID(hash=block.hash), body


def _latest_block(query: QueryContext, _: block_pb.GetLatestBlockRequest) -> Message:
    block_id, block = _block_id(query.chain, query.chain.served_height)
    return block_pb.GetLatestBlockResponse(block_id=block_id, block=block)


def _block_by_height(query: QueryContext, request: block_pb.GetBlockByHeightRequest) -> Message:
    if request.height <= 0:
        raise Abort(Code.UNKNOWN, f"height must be greater than 0, but got {request.height}")
    if request.height > query.chain.served_height or request.height not in query.chain.blocks:
        raise Abort(Code.INVALID_ARGUMENT, "requested block height is bigger then the chain length")
    block_id, block = _block_id(query.chain, request.height)
    return block_pb.GetBlockByHeightResponse(block_id=block_id, block=block)


def _simulate(query: QueryContext, request: tx_pb.SimulateRequest) -> Message:
    if not request.tx_bytes:
        raise Abort(Code.INVALID_ARGUMENT, "empty txBytes is not allowed")
    try:
        gas = query.chain.simulate(request.tx_bytes)
    except TxRejected as rejected:
        raise Abort(Code.UNKNOWN, f"{rejected.log} [localnet] with gas used: '0'") from rejected
    answer = tx_pb.SimulateResponse()
    answer.gas_info.gas_used, answer.gas_info.gas_wanted = gas, (1 << 64) - 1
    return answer


def _broadcast(query: QueryContext, request: tx_pb.BroadcastTxRequest) -> Message:
    if not request.tx_bytes:
        raise Abort(Code.INVALID_ARGUMENT, "invalid empty tx")
    if request.mode not in (tx_pb.BROADCAST_MODE_SYNC, tx_pb.BROADCAST_MODE_ASYNC):
        raise Abort(Code.UNKNOWN, "unsupported return type unspecified; supported types: sync, async")
    result = query.chain.broadcast(request.tx_bytes)
    return tx_pb.BroadcastTxResponse(tx_response=encode.tx_response(result))


def _get_tx(query: QueryContext, request: tx_pb.GetTxRequest) -> Message:
    if not request.hash:
        raise Abort(Code.INVALID_ARGUMENT, "tx hash cannot be empty")
    try:
        bytes.fromhex(request.hash)
    except ValueError as error:
        raise Abort(Code.UNKNOWN, f"encoding/hex: {error}") from error
    transaction = query.chain.transactions.get(request.hash.upper())
    if transaction is None:
        raise Abort(Code.NOT_FOUND, f"tx not found: {request.hash}")
    raw = tx_pb.TxRaw.FromString(transaction.raw)
    answer = tx_pb.GetTxResponse(tx_response=encode.tx_response(transaction.result, transaction.gas_wanted))
    answer.tx.body.ParseFromString(raw.body_bytes)
    answer.tx.auth_info.ParseFromString(raw.auth_info_bytes)
    answer.tx.signatures.extend(raw.signatures)
    return answer


def _txs_event(query: QueryContext, request: tx_pb.GetTxsEventRequest) -> Message:
    if not request.query:
        raise Abort(Code.INTERNAL, "query cannot be empty")
    name, _, value = request.query.partition("=")
    if name != "message.action":
        raise Abort(Code.INTERNAL, "failed to search for txs: this localnet searches message.action only")
    wanted = value.strip("'")
    transactions = [t for t in query.chain.transactions.values() if wanted in t.actions]
    if request.order_by == tx_pb.ORDER_BY_DESC:
        transactions.reverse()
    answer = tx_pb.GetTxsEventResponse(total=len(transactions))
    for row in transactions[: request.limit or 100]:
        raw = tx_pb.TxRaw.FromString(row.raw)
        tx = answer.txs.add(signatures=raw.signatures)
        tx.body.ParseFromString(raw.body_bytes)
        tx.auth_info.ParseFromString(raw.auth_info_bytes)
        answer.tx_responses.append(encode.tx_response(row.result, row.gas_wanted))
    return answer


def _supplier_params(query: QueryContext, _: Message) -> Message:
    answer = supplier_pb.QueryParamsResponse()
    answer.params.min_stake.CopyFrom(encode.coin(query.state.supplier_min_stake))
    answer.params.staking_fee.CopyFrom(encode.coin(query.state.supplier_staking_fee))
    return answer


def _session_params(query: QueryContext, _: Message) -> Message:
    limit = query.state.num_suppliers_per_session
    return session_pb.QueryParamsResponse(params=session_pb.Params(num_suppliers_per_session=limit))


def _node_info(query: QueryContext, _: Message) -> Message:
    info = block_pb.NodeInfo(network=query.state.chain_id, version="0.38.0", moniker="localnet")
    return block_pb.GetNodeInfoResponse(default_node_info=info)


_TX = "/cosmos.tx.v1beta1.Service/"
_BLOCKS = "/cosmos.base.tendermint.v1beta1.Service/"
METHODS: dict[str, tuple[type[Message], Handler]] = {
    "/pocket.shared.Query/Params": (
        shared_pb.QueryParamsRequest,
        lambda query, _: shared_pb.QueryParamsResponse(params=encode.shared_params(query.state.live_shared_params)),
    ),
    "/pocket.shared.Query/ParamsAtHeight": (shared_pb.QueryParamsAtHeightRequest, _shared_params_at),
    "/pocket.session.Query/Params": (session_pb.QueryParamsRequest, _session_params),
    "/pocket.session.Query/GetSession": (session_pb.QueryGetSessionRequest, _get_session),
    "/pocket.application.Query/Application": (application_pb.QueryGetApplicationRequest, _application),
    "/pocket.application.Query/AllApplications": (application_pb.QueryAllApplicationsRequest, _all_applications),
    "/pocket.supplier.Query/Supplier": (supplier_pb.QueryGetSupplierRequest, _supplier),
    "/pocket.supplier.Query/Params": (supplier_pb.QueryParamsRequest, _supplier_params),
    "/pocket.service.Query/Service": (service_pb.QueryGetServiceRequest, _service),
    "/pocket.service.Query/ComputeUnitsPerRelayAtHeight": (
        service_pb.QueryComputeUnitsPerRelayAtHeightRequest,
        _units_at,
    ),
    "/pocket.service.Query/RelayMiningDifficultyAtHeight": (
        service_pb.QueryGetRelayMiningDifficultyAtHeightRequest,
        _difficulty_at,
    ),
    "/pocket.proof.Query/Params": (
        proof_pb.QueryParamsRequest,
        lambda query, _: proof_pb.QueryParamsResponse(params=encode.proof_params(query.state)),
    ),
    "/pocket.tokenomics.Query/Params": (
        tokenomics_pb.QueryParamsRequest,
        lambda query, _: tokenomics_pb.QueryParamsResponse(params=encode.tokenomics_params(query.state)),
    ),
    "/pocket.proof.Query/Claim": (proof_pb.QueryGetClaimRequest, _claim),
    "/pocket.proof.Query/AllClaims": (proof_pb.QueryAllClaimsRequest, _all_claims),
    "/cosmos.auth.v1beta1.Query/Account": (auth_pb.QueryAccountRequest, _account),
    "/cosmos.bank.v1beta1.Query/Balance": (bank_pb.QueryBalanceRequest, _balance),
    _TX + "Simulate": (tx_pb.SimulateRequest, _simulate),
    _TX + "BroadcastTx": (tx_pb.BroadcastTxRequest, _broadcast),
    _TX + "GetTx": (tx_pb.GetTxRequest, _get_tx),
    _TX + "GetTxsEvent": (tx_pb.GetTxsEventRequest, _txs_event),
    _BLOCKS + "GetLatestBlock": (block_pb.GetLatestBlockRequest, _latest_block),
    _BLOCKS + "GetBlockByHeight": (block_pb.GetBlockByHeightRequest, _block_by_height),
    _BLOCKS + "GetNodeInfo": (block_pb.GetNodeInfoRequest, _node_info),
    "/cosmos.base.node.v1beta1.Service/Config": (
        node_pb.ConfigRequest,
        lambda query, _: node_pb.ConfigResponse(minimum_gas_price=query.state.minimum_gas_price),
    ),
}


def _query_context(chain: LocalChain, height_text: str) -> QueryContext:
    served = chain.served_height
    try:
        height = int(height_text)
    except ValueError as error:
        raise Abort(Code.UNKNOWN, "codespace sdk code 18: invalid request: invalid height header") from error
    if height < 0:
        raise Abort(Code.UNKNOWN, "codespace sdk code 18: invalid request: cannot query with height < 0")
    if height > served:
        text = "invalid height: cannot query with height in the future; please provide a valid height"
        raise Abort(Code.UNKNOWN, f"codespace sdk code 26: {text}")
    state = chain.state if served == chain.height and not height else chain.state_at(height or served)
    if state is None:
        raise Abort(Code.UNKNOWN, f"codespace sdk code 26: invalid height: height {height} is not available, pruned")
    return QueryContext(chain, state)


def _reject_wrong_wire_types(message: Message) -> None:
    """Reject a known field with a wrong wire type, as the chain does.

    The protobuf runtime keeps such a field as an unknown one.
    """
    unknown: Any = UnknownFieldSet(message)  # its stub omits that it is iterable
    for field in unknown:
        known = message.DESCRIPTOR.fields_by_number.get(field.field_number)
        if known is not None:
            text = f"proto: wrong wireType = {field.wire_type} for field {known.name}"
            raise Abort(Code.INTERNAL, f"grpc: error unmarshalling request: {text}")


def answer(chain: LocalChain, method: str, request: bytes, height_text: str = "0") -> tuple[bytes, int]:
    """Answer a query. Returns the response bytes and the height. Raises Abort."""
    kind, handler = METHODS[method]
    query = _query_context(chain, height_text)
    try:
        message = kind.FromString(request)
    except DecodeError as error:
        raise Abort(Code.INTERNAL, "grpc: error unmarshalling request: unexpected EOF") from error
    _reject_wrong_wire_types(message)
    return handler(query, message).SerializeToString(deterministic=True), query.state.height
