"""Basic validation of stake messages at broadcast, with codespace `supplier`."""

from urllib.parse import urlsplit

from pocket.errors import InvalidAddress
from pocket.protocol.crypto.addresses import parse_address
from pocket.protocol.pb import pocket_shared_pb2 as shared_pb
from pocket.protocol.pb import pocket_supplier_pb2 as supplier_pb
from pocket.protocol.relays.messages import is_service_id
from pocket_localnet.tx_rejected import TxRejected

_STAKE, _ADDRESS, _SERVICES = 1101, 1102, 1104
_ALL_SHARES = 100


def check_stake(message: supplier_pb.MsgStakeSupplier) -> None:
    """Raise TxRejected for what the chain refuses without its state."""
    for name, address in (
        ("owner", message.owner_address), ("operator", message.operator_address), ("signer", message.signer)
    ):  # fmt: skip
        _check_address(name, address)
    if message.services and message.signer != message.operator_address:
        raise _services("only the operator account is authorized to update the service configurations")
    if message.HasField("stake"):
        _check_coin(message.stake.denom, message.stake.amount)
    seen = set()
    for service in message.services:
        if service.service_id in seen:
            raise _services(f"duplicate service ID: {service.service_id}")
        seen.add(service.service_id)
        _check_service(service)


def check_unstake(message: supplier_pb.MsgUnstakeSupplier) -> None:
    """Raise TxRejected for malformed addresses."""
    _check_address("signer", message.signer)
    _check_address("operator", message.operator_address)


def _check_address(name: str, address: str) -> None:
    try:
        parse_address(address)
    except InvalidAddress as error:
        text = f"invalid {name} address {address}; ({error}): invalid address"
        raise TxRejected(_ADDRESS, "supplier", text) from error


def _check_coin(denomination: str, amount: str) -> None:
    digits = amount.removeprefix("-") or "0"
    if not digits.isascii() or not digits.isdecimal():
        raise TxRejected(2, "sdk", f'math/big: cannot unmarshal "{amount}" into a *big.Int: tx parse error')
    if denomination != "upokt":
        text = f"invalid coin denom: expected upokt, got {denomination}: invalid supplier stake"
        raise TxRejected(_STAKE, "supplier", text)
    if int(amount or "0") <= 0:
        text = f"invalid coin amount: {int(amount or '0')}upokt <= 0: invalid supplier stake"
        raise TxRejected(_STAKE, "supplier", text)


def _services(text: str) -> TxRejected:
    return TxRejected(_SERVICES, "supplier", f"{text}: invalid service config")


def _check_service(service: shared_pb.SupplierServiceConfig) -> None:
    if not is_service_id(service.service_id):
        raise _services(f"service ID '{service.service_id}': invalid service ID")
    if not service.endpoints:
        raise _services("endpoints cannot be nil")
    for endpoint in service.endpoints:
        if not endpoint.url:
            raise _services("endpoint.Url cannot be empty")
        if not _is_url(endpoint.url):
            raise _services("invalid endpoint.Url")
        if endpoint.rpc_type == shared_pb.UNKNOWN_RPC:
            raise _services("endpoint.RpcType cannot be UNKNOWN_RPC")
        if endpoint.rpc_type not in shared_pb.RPCType.values():
            raise _services("endpoint.RpcType is not a valid RPCType")
    _check_shares(service)


def _check_shares(service: shared_pb.SupplierServiceConfig) -> None:
    def refused(text: str) -> TxRejected:
        return _services(f"{text}: invalid revenue share configuration")

    if not service.rev_share:
        raise refused("no rev share configurations")
    addresses = [share.address for share in service.rev_share]
    for share in service.rev_share:
        try:
            parse_address(share.address)
        except InvalidAddress as error:
            raise refused(f"invalid rev share address {share.address}; ({error})") from error
        if not 0 < share.rev_share_percentage <= _ALL_SHARES:
            raise refused(f"invalid rev share value {share.rev_share_percentage}; must be between 0 and 100")
    if len(set(addresses)) < len(addresses):
        raise refused(f"duplicate rev share address: {addresses[0]}")
    total = sum(share.rev_share_percentage for share in service.rev_share)
    if total != _ALL_SHARES:
        raise refused(f"invalid rev share percentage sum {total}; must be equal to 100")


def _is_url(text: str) -> bool:
    if any(character.isspace() for character in text):
        return False
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https", "ws", "wss") and bool(parts.hostname) and (parts.port or 0) >= 0
    except ValueError:
        return False
