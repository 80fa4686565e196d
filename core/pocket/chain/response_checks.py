"""Check a node's raw responses before they are used or cached.

A valid response of the chain always holds certain fields, even if their values are zero or empty. A response without
them comes from a proxy or a damaged node, so another node is queried.
"""

from collections.abc import Mapping
from typing import Final

from google.protobuf.message import DecodeError, Message

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

_COMET: Final = "/cosmos.base.tendermint.v1beta1.Service/"

_REQUIRED: Final[Mapping[str, tuple[type[Message], tuple[str, ...]]]] = {
    "/pocket.shared.Query/Params": (shared_pb.QueryParamsResponse, ("params.num_blocks_per_session",)),
    "/pocket.shared.Query/ParamsAtHeight": (shared_pb.QueryParamsAtHeightResponse, ("params.num_blocks_per_session",)),
    "/pocket.proof.Query/Params": (proof_pb.QueryParamsResponse, ("params",)),
    "/pocket.proof.Query/Claim": (proof_pb.QueryGetClaimResponse, ("claim.root_hash", "claim.session_header")),
    "/pocket.proof.Query/AllClaims": (proof_pb.QueryAllClaimsResponse, ("pagination",)),
    "/pocket.session.Query/Params": (session_pb.QueryParamsResponse, ("params.num_suppliers_per_session",)),
    "/pocket.session.Query/GetSession": (session_pb.QueryGetSessionResponse, ("session.header.session_id",)),
    "/pocket.application.Query/Application": (
        application_pb.QueryGetApplicationResponse, ("application.address",),
    ),
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
        if field.message_type is None:
            return bool(value)
        if not message.HasField(name):
            return False
        message = value
    return True


def check_answer(method: str, raw: bytes) -> None:
    """Raise DecodingError for an answer that no node of this chain gives."""
    if method not in _REQUIRED:
        return
    kind, paths = _REQUIRED[method]
    try:
        message = kind.FromString(raw)
    except DecodeError as error:
        raise DecodingError(f"{method}: the node's answer cannot be read") from error
    if missing := [path for path in paths if not _has(message, path)]:
        raise DecodingError(f"{method}: the node's answer lacks {', '.join(missing)}")
