"""Build messages that stake and unstake a supplier, and their unsigned form."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtoMessage
from google.protobuf.timestamp_pb2 import Timestamp as ProtoTimestamp

from pocket.errors import DecodingError
from pocket.protocol.pb import pocket_shared_pb2 as shared_pb
from pocket.protocol.pb import pocket_supplier_pb2 as supplier_pb
from pocket.protocol.transactions.build import DENOMINATION, Message, Timestamp, TransactionPlan

STAKE_SUPPLIER = "/pocket.supplier.MsgStakeSupplier"
UNSTAKE_SUPPLIER = "/pocket.supplier.MsgUnstakeSupplier"
_TYPES: Mapping[str, type[supplier_pb.MsgStakeSupplier] | type[supplier_pb.MsgUnstakeSupplier]] = {
    STAKE_SUPPLIER: supplier_pb.MsgStakeSupplier,
    UNSTAKE_SUPPLIER: supplier_pb.MsgUnstakeSupplier,
}


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """A URL with the chain's number of its RPC type, and options as (key, value)."""

    url: str
    rpc_type: int
    options: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class StakedService:
    """A service in a supplier's stake.

    Revenue shares are (address, percent).
    """

    service_id: str
    endpoints: tuple[Endpoint, ...]
    revenue_share: tuple[tuple[str, int], ...]


def rpc_type_name(number: int) -> str:
    """Return the chain's name of an RPC type, its number if the name is unknown."""
    return shared_pb.RPCType.Name(number) if number in shared_pb.RPCType.values() else str(number)


@dataclass(frozen=True, slots=True)
class Parties:
    """Addresses of a stake message: who signs and pays, who owns, who operates."""

    signer: str
    owner: str
    operator: str


def stake_message(parties: Parties, stake_upokt: int | None, services: tuple[StakedService, ...]) -> Message:
    """Build a MsgStakeSupplier.

    stake_upokt: the new total, None to leave it unchanged.
    services: the complete new list, empty to leave it unchanged.
    """
    message = supplier_pb.MsgStakeSupplier(
        signer=parties.signer, owner_address=parties.owner, operator_address=parties.operator
    )
    if stake_upokt is not None:
        message.stake.denom, message.stake.amount = DENOMINATION, str(stake_upokt)
    for service in services:
        message.services.append(service_message(service))
    return Message(STAKE_SUPPLIER, message.SerializeToString(deterministic=True))


def service_message(service: StakedService) -> shared_pb.SupplierServiceConfig:
    """Return a service configuration as the chain's messages carry it."""
    row = shared_pb.SupplierServiceConfig(service_id=service.service_id)
    for endpoint in service.endpoints:
        added = row.endpoints.add(url=endpoint.url)
        # An open enum: numbers that this release does not know are kept.
        added.rpc_type = endpoint.rpc_type  # type: ignore[assignment]
        for key, value in endpoint.options:
            option = added.configs.add(value=value)
            option.key = key  # type: ignore[assignment]
    for address, percent in service.revenue_share:
        row.rev_share.add(address=address, rev_share_percentage=percent)
    return row


def unstake_message(signer: str, operator: str) -> Message:
    """Build a MsgUnstakeSupplier."""
    message = supplier_pb.MsgUnstakeSupplier(signer=signer, operator_address=operator)
    return Message(UNSTAKE_SUPPLIER, message.SerializeToString(deterministic=True))


def unsigned_json(plan: TransactionPlan) -> dict[str, Any]:
    """Return an unsigned transaction as `tx sign` of the chain's own client reads it.

    Raises DecodingError for messages other than those of this module.
    """
    fee = [{"denom": DENOMINATION, "amount": str(plan.fee_upokt)}] if plan.fee_upokt else []
    return {
        "body": {
            "messages": [message_json(message) for message in plan.messages],
            "memo": plan.memo,
            "timeout_height": str(plan.timeout_height),
            "unordered": plan.unordered,
            "timeout_timestamp": None if plan.timeout is None else _time_text(plan.timeout),
            "extension_options": [],
            "non_critical_extension_options": [],
        },
        "auth_info": {
            "signer_infos": [],
            "fee": {"amount": fee, "gas_limit": str(plan.gas_limit), "payer": "", "granter": ""},
            "tip": None,
        },
        "signatures": [],
    }


def message_json(message: Message) -> dict[str, Any]:
    """Return a message with every field, names as on chain. Raises DecodingError."""
    kind = _TYPES.get(message.type_url)
    if kind is None:
        raise DecodingError(f"message {message.type_url!r} neither stakes nor unstakes a supplier")
    try:
        parsed: ProtoMessage = kind.FromString(message.value)
    except DecodeError as error:
        raise DecodingError(f"{message.type_url}: the message cannot be read") from error
    fields = MessageToDict(parsed, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    if message.type_url == STAKE_SUPPLIER:
        fields.setdefault("stake", None)
    return {"@type": message.type_url, **fields}


def message_of_json(fields: Mapping[str, Any]) -> Message:
    """Return the message that `message_json` shows. Raises DecodingError."""
    type_url = str(fields.get("@type", ""))
    kind = _TYPES.get(type_url)
    if kind is None:
        raise DecodingError(f"message {type_url[:80]!r} neither stakes nor unstakes a supplier")
    try:
        parsed = ParseDict({key: value for key, value in fields.items() if key != "@type"}, kind())
    except ParseError as error:
        raise DecodingError(f"{type_url}: {error}") from error
    return Message(type_url, parsed.SerializeToString(deterministic=True))


def _time_text(stamp: Timestamp) -> str:
    return ProtoTimestamp(seconds=stamp.seconds, nanos=stamp.nanos).ToJsonString()
