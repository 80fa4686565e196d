"""Handlers of supplier stakes, with the node's semantics and texts.

Staked amounts and staking fees leave the balances. There are no balances of module accounts here.
"""

import hashlib
from dataclasses import replace
from typing import Final

from pocket.chain.model import Event, ServiceConfig, StakedSupplier
from pocket.protocol.crypto.addresses import encode_address
from pocket.protocol.pb import pocket_shared_pb2 as shared_pb
from pocket.protocol.pb import pocket_supplier_pb2 as supplier_pb
from pocket.protocol.sessions.session_id import config_active
from pocket_localnet.state import State
from pocket_localnet.tx_rejected import handler_error

_STAKE_GAS: Final = 90_000
_SERVICE_GAS: Final = 25_000
_UNSTAKE_GAS: Final = 70_000
_MODULES: Final = frozenset(
    encode_address(hashlib.sha256(name.encode()).digest()[:20])
    for name in ("supplier", "application", "gateway", "proof", "tokenomics", "service", "session", "distribution")
)


def stake(state: State, message: supplier_pb.MsgStakeSupplier, index: int) -> tuple[int, Event]:
    """Stake or update a supplier.

    Returns gas and event. Raises TxRejected.
    """
    if message.owner_address in _MODULES:
        text = f"owner address {message.owner_address} is a module account and cannot be used: invalid address"
        raise handler_error(index, text, "InvalidArgument")
    for service in message.services:
        if service.service_id not in state.services:
            text = f'service "{service.service_id}" does not exist: service not found'
            raise handler_error(index, text, "InvalidArgument")
    before = state.suppliers.get(message.operator_address)
    supplier = _new(message, index) if before is None else _updated(before, message, index)
    if supplier.stake_upokt < state.supplier_min_stake:
        text = f'supplier with owner "{message.owner_address}" must stake at least {state.supplier_min_stake}upokt'
        raise handler_error(index, f"{text}: invalid supplier stake", "InvalidArgument")
    raised = supplier.stake_upokt - (0 if before is None else before.stake_upokt)
    if raised < 0:
        state.credit(supplier.owner_address, -raised)
    _charge(state, message.signer, max(0, raised), index, "Internal")
    _charge(state, message.signer, state.supplier_staking_fee, index, "FailedPrecondition")
    end = state.shared_params_at(state.height).session_end(state.height)
    if message.services:
        supplier = replace(supplier, history=_with_services(supplier, message, end + 1))
    active = {c.service_id for c in supplier.history if _active(c, state.height)}
    state.suppliers[supplier.operator_address] = replace(supplier, service_ids=frozenset(active))
    canceled = before is not None and before.unstake_session_end_height
    kind = "EventSupplierUnbondingCanceled" if canceled else "EventSupplierStaked"
    attributes = {"operator_address": supplier.operator_address, "session_end_height": str(end)}
    return _STAKE_GAS + _SERVICE_GAS * len(supplier.history), Event(f"pocket.supplier.{kind}", attributes)


def _new(message: supplier_pb.MsgStakeSupplier, index: int) -> StakedSupplier:
    if not message.HasField("stake"):
        text = "when staking a new supplier, the stake amount MUST be non-nil: invalid supplier stake"
        raise handler_error(index, text, "InvalidArgument")
    amount = int(message.stake.amount)
    return StakedSupplier(message.operator_address, message.owner_address, amount, frozenset(), 0)


def _updated(before: StakedSupplier, message: supplier_pb.MsgStakeSupplier, index: int) -> StakedSupplier:
    signer, owner = message.signer, before.owner_address
    if signer not in (owner, before.operator_address):
        raise handler_error(
            index,
            f"signer address {signer} does not match owner address {message.owner_address} or supplier operator "
            f"address {before.operator_address}: unauthorized supplier update",
            "InvalidArgument",
        )
    if owner not in (message.owner_address, signer):
        text = f'signer "{signer}" is not allowed to update the owner address "{owner}"'
        raise handler_error(index, f"{text}: unauthorized supplier update", "InvalidArgument")
    if before.unstake_session_end_height and signer != owner:
        raise handler_error(
            index,
            f'signer "{signer}" is not allowed to cancel the unbonding of supplier with owner "{owner}"; only the '
            "owner can cancel an in-progress unstake: unauthorized supplier update",
            "PermissionDenied",
        )
    amount = int(message.stake.amount) if message.HasField("stake") else before.stake_upokt
    return replace(before, owner_address=message.owner_address, stake_upokt=amount, unstake_session_end_height=0)


def _charge(state: State, payer: str, upokt: int, index: int, status: str) -> None:
    balance = state.balances.get(payer, 0)
    if upokt > balance:
        text = f"spendable balance {balance}upokt is smaller than {upokt}upokt: insufficient funds"
        raise handler_error(index, text, status)
    state.balances[payer] = balance - upokt


def _active(config: ServiceConfig, height: int) -> bool:
    return config_active(config.activation_height, config.deactivation_height, height)


def _with_services(
    supplier: StakedSupplier, message: supplier_pb.MsgStakeSupplier, start: int
) -> tuple[ServiceConfig, ...]:
    """Return the history with the new entries, sorted by service and activation.

    Open entries close at `start`.
    """
    new = {service.service_id for service in message.services}
    kept = [
        config if config.deactivation_height else replace(config, deactivation_height=start)
        for config in supplier.history
        if not (config.service_id in new and config.activation_height == start)
    ]
    kept += [_config(service, start) for service in message.services]
    return tuple(sorted(kept, key=lambda config: (config.service_id, config.activation_height)))


def _config(service: shared_pb.SupplierServiceConfig, start: int) -> ServiceConfig:
    options = tuple(tuple((int(o.key), o.value) for o in endpoint.configs) for endpoint in service.endpoints)
    return ServiceConfig(
        service.service_id,
        start,
        0,
        tuple((share.address, share.rev_share_percentage) for share in service.rev_share),
        tuple((int(endpoint.rpc_type), endpoint.url) for endpoint in service.endpoints),
        options if any(options) else (),
    )


def unstake(state: State, message: supplier_pb.MsgUnstakeSupplier, index: int) -> tuple[int, Event]:
    """Begin the unbonding.

    Returns gas and event. Raises TxRejected.
    """
    operator = message.operator_address
    supplier = state.suppliers.get(operator)
    if supplier is None:
        raise handler_error(index, f'supplier with operator address "{operator}": supplier not found', "NotFound")
    if message.signer not in (supplier.owner_address, operator):
        text = f'signer "{message.signer}" is not allowed to unstake supplier {operator}'
        raise handler_error(index, f"{text}: unauthorized supplier update", "PermissionDenied")
    if supplier.unstake_session_end_height:
        raise handler_error(index, f'supplier with operator address "{operator}": supplier is in unbonding period')
    leaving = unstaked(state, supplier)
    state.suppliers[operator] = leaving
    params = state.shared_params_at(state.height)
    end = leaving.unstake_session_end_height
    unbonding = params.supplier_unbonding_period_sessions * params.num_blocks_per_session
    attributes = {
        "reason": "SUPPLIER_UNBONDING_REASON_VOLUNTARY",
        "session_end_height": str(end),
        "unbonding_end_height": str(end + unbonding),
    }
    gas = _UNSTAKE_GAS + _SERVICE_GAS * len(leaving.history)
    return gas, Event("pocket.supplier.EventSupplierUnbondingBegin", attributes)


def unstaked(state: State, supplier: StakedSupplier) -> StakedSupplier:
    """Return the supplier as unstaking: it serves to the end of the running session.

    Entries that were being closed are set to the same end, so the supplier may show a service twice until then.
    """
    params = state.shared_params_at(state.height)
    end = params.session_end(state.height)
    history = tuple(replace(config, deactivation_height=end + 1) for config in supplier.history)
    return replace(supplier, unstake_session_end_height=end, history=history)


def pruned(state: State, supplier: StakedSupplier) -> StakedSupplier:
    """Return the supplier without entries whose proof windows are over."""
    kept = tuple(
        config
        for config in supplier.history
        if not config.deactivation_height
        or state.height
        < config.deactivation_height + state.shared_params_at(config.deactivation_height - 1).window_blocks + 1
    )
    return supplier if len(kept) == len(supplier.history) else replace(supplier, history=kept)
