"""Check a node's raw responses before they are used or cached.

A valid response of the chain always holds certain fields, even if their values are zero or empty, can be converted and
answers the request. Any other comes from a proxy, a damaged or a foreign node, so another node is queried.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf.message import DecodeError, Message

from pocket.chain import convert
from pocket.errors import DecodingError
from pocket.protocol.pb import cosmos_auth_v1beta1_pb2 as auth_pb
from pocket.protocol.pb import cosmos_bank_v1beta1_pb2 as bank_pb
from pocket.protocol.pb import cosmos_base_tendermint_v1beta1_pb2 as comet_pb
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.pb import pocket_application_pb2 as application_pb
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb
from pocket.protocol.pb import pocket_service_pb2 as service_pb
from pocket.protocol.pb import pocket_session_pb2 as session_pb
from pocket.protocol.pb import pocket_shared_pb2 as shared_pb
from pocket.protocol.pb import pocket_supplier_pb2 as supplier_pb
from pocket.protocol.pb import pocket_tokenomics_pb2 as tokenomics_pb

_UNITS_LIMIT: Final = 2**32
_COMET: Final = "/cosmos.base.tendermint.v1beta1.Service/"

_REQUIRED: Final[Mapping[str, tuple[type[Message], tuple[str, ...]]]] = {
    "/pocket.shared.Query/Params": (shared_pb.QueryParamsResponse, ("params.num_blocks_per_session",)),
    "/pocket.shared.Query/ParamsAtHeight": (shared_pb.QueryParamsAtHeightResponse, ("params.num_blocks_per_session",)),
    "/pocket.proof.Query/Params": (proof_pb.QueryParamsResponse, ("params",)),
    "/pocket.proof.Query/Claim": (proof_pb.QueryGetClaimResponse, ("claim.root_hash", "claim.session_header")),
    "/pocket.proof.Query/AllClaims": (proof_pb.QueryAllClaimsResponse, ("pagination",)),
    "/pocket.session.Query/Params": (session_pb.QueryParamsResponse, ("params.num_suppliers_per_session",)),
    "/pocket.session.Query/GetSession": (
        session_pb.QueryGetSessionResponse, ("session.header.session_id", "session.suppliers"),
    ),
    "/pocket.application.Query/Application": (
        application_pb.QueryGetApplicationResponse, ("application.address",),
    ),
    "/pocket.application.Query/AllApplications": (application_pb.QueryAllApplicationsResponse, ("pagination",)),
    "/pocket.supplier.Query/Supplier": (supplier_pb.QueryGetSupplierResponse, ("supplier.operator_address",)),
    "/pocket.supplier.Query/Params": (supplier_pb.QueryParamsResponse, ("params",)),
    "/pocket.service.Query/Service": (
        service_pb.QueryGetServiceResponse, ("service.id", "service.compute_units_per_relay"),
    ),
    "/pocket.service.Query/ComputeUnitsPerRelayAtHeight": (
        service_pb.QueryComputeUnitsPerRelayAtHeightResponse, ("computeUnitsPerRelay",),
    ),
    "/pocket.service.Query/RelayMiningDifficultyAtHeight": (
        service_pb.QueryGetRelayMiningDifficultyAtHeightResponse, ("relayMiningDifficulty.target_hash",),
    ),
    "/pocket.tokenomics.Query/Params": (tokenomics_pb.QueryParamsResponse, ("params",)),
    "/cosmos.auth.v1beta1.Query/Account": (auth_pb.QueryAccountResponse, ("account.value",)),
    "/cosmos.bank.v1beta1.Query/Balance": (bank_pb.QueryBalanceResponse, ("balance.amount",)),
    "/cosmos.tx.v1beta1.Service/Simulate": (tx_pb.SimulateResponse, ("gas_info.gas_used",)),
    "/cosmos.tx.v1beta1.Service/GetTx": (tx_pb.GetTxResponse, ("tx_response.txhash",)),
    _COMET + "GetNodeInfo": (comet_pb.GetNodeInfoResponse, ("default_node_info.network",)),
    _COMET + "GetLatestBlock": (
        comet_pb.GetLatestBlockResponse, ("block_id.hash", "block.header.height", "block.header.chain_id"),
    ),
    _COMET + "GetBlockByHeight": (
        comet_pb.GetBlockByHeightResponse, ("block_id.hash", "block.header.height", "block.header.chain_id"),
    ),
}  # fmt: skip

_HEIGHT_FIELDS: Final[Mapping[str, str]] = {
    "/pocket.shared.Query/ParamsAtHeight": "height",
    "/pocket.session.Query/GetSession": "block_height",
    "/pocket.service.Query/ComputeUnitsPerRelayAtHeight": "blockHeight",
    "/pocket.service.Query/RelayMiningDifficultyAtHeight": "blockHeight",
}
"""Queries that a lagging node answers with present values instead of those at the height."""

OF_THE_PRESENT: Final = frozenset({
    "/pocket.shared.Query/Params",
    "/pocket.proof.Query/Params",
    "/pocket.session.Query/Params",
    "/pocket.supplier.Query/Params",
    "/pocket.tokenomics.Query/Params",
    "/pocket.application.Query/Application",
    "/pocket.supplier.Query/Supplier",
    "/pocket.service.Query/Service",
    "/cosmos.auth.v1beta1.Query/Account",
    "/cosmos.bank.v1beta1.Query/Balance",
})  # fmt: skip
"""Queries of records that change, which a lagging node answers with former ones."""


def required_height(method: str, request: Message) -> int:
    """Return the height that a node must have committed to answer.

    Returns 0 for a query of the present.
    """
    name = _HEIGHT_FIELDS.get(method)
    return int(getattr(request, name)) if name else 0


def _has(message: Message, path: str) -> bool:
    for name in path.split("."):
        field = message.DESCRIPTOR.fields_by_name[name]
        value = getattr(message, name)
        if field.message_type is None or field.is_repeated:
            return bool(value)
        if not message.HasField(name):
            return False
        message = value
    return True


def _same(fact: str, actual: object, asked: object) -> None:
    if actual != asked:
        raise DecodingError(f"the node was asked for {fact} {str(asked)[:80]!r} and answered with {str(actual)[:80]!r}")


def _check_session(request: session_pb.QueryGetSessionRequest, answer: session_pb.QueryGetSessionResponse) -> None:
    session = convert.session(answer.session)
    header = session.header
    _same("the application", header.application_address, request.application_address)
    _same("the session's application", answer.session.application.address, request.application_address)
    _same("the service", header.service_id, request.service_id)
    first, last, height = header.session_start_block_height, header.session_end_block_height, request.block_height
    if not 0 < first <= (height or first) <= last or last - first + 1 != session.num_blocks_per_session:
        raise DecodingError(f"the node was asked for a session at {height} and answered with {first} to {last}")
    if problem := header.problem():
        raise DecodingError(f"the node's session header is invalid: {problem}")


def _check_difficulty(request: Any, answer: service_pb.QueryGetRelayMiningDifficultyAtHeightResponse) -> None:
    _same("the service", convert.difficulty(answer.relayMiningDifficulty).service_id, request.serviceId)


def _check_units(_: Any, answer: service_pb.QueryComputeUnitsPerRelayAtHeightResponse) -> None:
    if answer.computeUnitsPerRelay >= _UNITS_LIMIT:
        raise DecodingError(f"{answer.computeUnitsPerRelay} compute units per relay are more than any service has")


def _check_claim(request: proof_pb.QueryGetClaimRequest, answer: proof_pb.QueryGetClaimResponse) -> None:
    claim = convert.claim(answer.claim)
    _same("the supplier", claim.supplier_operator_address, request.supplier_operator_address)
    _same("the session", claim.header.session_id, request.session_id)


def _check_account(request: auth_pb.QueryAccountRequest, answer: auth_pb.QueryAccountResponse) -> None:
    _same("the account", convert.account(answer.account.type_url, answer.account.value).address, request.address)


def _check_balance(request: bank_pb.QueryBalanceRequest, answer: bank_pb.QueryBalanceResponse) -> None:
    convert.amount(answer.balance)
    _same("the denomination", answer.balance.denom, request.denom)


def _check_block(request: Any, answer: Any) -> None:
    block = convert.block(answer.block_id, answer.block.header)
    _same("the block", block.height, getattr(request, "height", block.height))


def _check_tokenomics(_: Any, answer: tokenomics_pb.QueryParamsResponse) -> None:
    if answer.params.HasField("mint_equals_burn_claim_distribution"):  # an older chain has no such shares
        convert.tokenomics_params(answer.params)


_CHECKS: Final[Mapping[str, Callable[[Any, Any], object]]] = {
    "/pocket.shared.Query/Params": lambda _, answer: convert.shared_params(answer.params),
    "/pocket.shared.Query/ParamsAtHeight": lambda _, answer: convert.shared_params(answer.params),
    "/pocket.proof.Query/Params": lambda _, answer: convert.proof_params(answer.params),
    "/pocket.proof.Query/Claim": _check_claim,
    "/pocket.session.Query/GetSession": _check_session,
    "/pocket.application.Query/Application": lambda request, answer: _same(
        "the application", convert.application(answer.application).address, request.address
    ),
    "/pocket.supplier.Query/Supplier": lambda request, answer: _same(
        "the supplier", convert.supplier(answer.supplier).operator_address, request.operator_address
    ),
    "/pocket.supplier.Query/Params": lambda _, answer: convert.staking_params(answer.params),
    "/pocket.service.Query/Service": lambda request, answer: _same("the service", answer.service.id, request.id),
    "/pocket.service.Query/RelayMiningDifficultyAtHeight": _check_difficulty,
    "/pocket.service.Query/ComputeUnitsPerRelayAtHeight": _check_units,
    "/pocket.tokenomics.Query/Params": _check_tokenomics,
    "/cosmos.auth.v1beta1.Query/Account": _check_account,
    "/cosmos.bank.v1beta1.Query/Balance": _check_balance,
    "/cosmos.tx.v1beta1.Service/GetTx": lambda request, answer: _same(
        "the transaction", answer.tx_response.txhash.upper(), request.hash.upper()
    ),
    _COMET + "GetLatestBlock": _check_block,
    _COMET + "GetBlockByHeight": _check_block,
}
"""Conversion of an answer, and its comparison with the request. They raise DecodingError."""


def check_answer(method: str, request: Message, raw: bytes) -> None:
    """Raise DecodingError for a response that no node of this chain gives."""
    if method not in _REQUIRED:
        return
    kind, paths = _REQUIRED[method]
    try:
        message = kind.FromString(raw)
    except DecodeError as error:
        raise DecodingError(f"{method}: the node's answer cannot be read") from error
    if missing := [path for path in paths if not _has(message, path)]:
        raise DecodingError(f"{method}: the node's answer lacks {', '.join(missing)}")
    check = _CHECKS.get(method)
    if check is not None:
        try:
            check(request, message)
        except DecodingError as error:
            raise DecodingError(f"{method}: {error}") from error
