"""Plan the transaction that makes a supplier's stake as declared, purely."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from pocket.chain.model import StakedSupplier
from pocket.protocol.crypto.addresses import is_address
from pocket.protocol.transactions.build import Message
from pocket.protocol.transactions.staking import (
    Parties,
    StakedService,
    message_json,
    rpc_type_name,
    stake_message,
    unstake_message,
)
from pocket.staking.effective import canonical, effective_services, next_session_start
from pocket.staking.stake_model import (
    ApprovalCause,
    DeclaredStake,
    Signing,
    StakeChange,
    StakeCost,
    StakePlan,
    StakeRefusal,
    StakeSnapshot,
    StakeState,
)

_ALL_SHARES = 100
_STAKE_GAS = 400_000
_UNSTAKE_GAS = 300_000
_SERVICE_GAS = 120_000
_HASH_DIGITS = 32
_DETAILED = 8
"""Services whose changes are shown in full: a status has little room."""
IN_FORCE = "In force from block"
"""The beginning of the line of an effect that changes with each session."""
_APPROVED_CHANGES = {
    StakeChange.LOWER: ApprovalCause.LOWERS_STAKE,
    StakeChange.UNSTAKE: ApprovalCause.UNSTAKES,
    StakeChange.CANCEL_UNBONDING: ApprovalCause.CANCELS_UNBONDING,
}
_BY_OPERATOR = frozenset({StakeChange.SERVICES, StakeChange.REVENUE_SHARES})


def plan_stake(declared: DeclaredStake, chain: StakeSnapshot, signing: Signing) -> StakePlan:
    """Compare declaration and chain, and plan at most one transaction."""
    plan = _planned(declared, chain, signing)
    return replace(plan, declaration=declaration_digest(declared))


def declaration_digest(declared: DeclaredStake) -> str:
    """Return a digest of what is declared, whatever the order of lists."""
    content = [declared.operator, declared.owner, declared.amount_upokt, declared.unstake]
    return _digest([*content, _shown(canonical(declared.services))])


def _planned(declared: DeclaredStake, chain: StakeSnapshot, signing: Signing) -> StakePlan:
    if problem := declaration_problem(declared):
        return _refused(StakeRefusal.INVALID_DECLARATION, problem)
    if (refusal := _owner_refusal(declared, chain.supplier)) is not None:
        return refusal
    supplier = chain.supplier
    if supplier is not None and supplier.service_ids and not supplier.history:
        return _refused(
            StakeRefusal.RECORD_INCOMPLETE,
            "the node's answer holds services without their history. Use a node of the current release.",
        )
    if declared.unstake:
        return _unstaking(declared, chain, signing)
    return _staking(declared, chain, signing)


def declaration_problem(declared: DeclaredStake) -> str:
    """Return what the chain would refuse in the declaration alone, empty for nothing."""
    for name, address in (("operator", declared.operator), ("owner", declared.owner)):
        if not is_address(address):
            return f"the {name} address {address!r} is not an address of this chain: its checksum is wrong"
    ids = [service.service_id for service in declared.services]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        return f"service {twice[0]} occurs twice"
    for service in declared.services:
        addresses = [address for address, _ in service.revenue_share]
        if bad := [address for address in addresses if not is_address(address)]:
            return f"service {service.service_id}: {bad[0]!r} is not an address of this chain: its checksum is wrong"
        if len(set(addresses)) < len(addresses):
            return f"service {service.service_id}: an address has two revenue shares"
        percents = [percent for _, percent in service.revenue_share]
        if sum(percents) != _ALL_SHARES or min(percents) < 1:
            return f"service {service.service_id}: revenue shares must be at least 1 and add up to 100, not {percents}"
        if not service.endpoints:
            return f"service {service.service_id}: it has no endpoint"
    return "" if declared.amount_upokt > 0 else "the amount must be positive"


def _owner_refusal(declared: DeclaredStake, supplier: StakedSupplier | None) -> StakePlan | None:
    if supplier is None or supplier.owner_address == declared.owner:
        return None
    owner = supplier.owner_address
    if owner == declared.operator:
        return _refused(
            StakeRefusal.OWNER_DIFFERS,
            f"the operator owns the stake and {declared.owner} is declared. An owner is never changed here, since that "
            "gives the stake away: declare the present owner, or change it with the chain's own client.",
        )
    return _refused(
        StakeRefusal.OWNED_BY_ANOTHER,
        f"{owner} owns the stake of {declared.operator}, {declared.owner} is declared. Declare that owner if it is the "
        "right one. If a stranger staked this address, only that owner can release it: use another operator address.",
    )


@dataclass(frozen=True, slots=True)
class _Draft:
    """A transaction before its balance is checked."""

    message: Message
    changes: tuple[StakeChange, ...]
    left: tuple[StakeChange, ...]
    cost: StakeCost
    gas_limit: int
    returned_upokt: int = 0
    effective_height: int = 0
    effect: tuple[str, ...] = ()


def _staking(declared: DeclaredStake, chain: StakeSnapshot, signing: Signing) -> StakePlan:
    supplier, start = chain.supplier, next_session_start(chain.shared, chain.height)
    now = () if supplier is None else effective_services(supplier, chain.shared, chain.height)
    wanted = canonical(declared.services) or now
    changes = _differences(declared, supplier, now, wanted)
    if not changes:
        return _reached(supplier, chain)
    mine = tuple(change for change in changes if _may(change, declared, signing.signer, supplier))
    left = tuple(change for change in changes if change not in mine)
    if not mine or (StakeChange.CANCEL_UNBONDING in left):
        needed = "the operator" if set(left) <= _BY_OPERATOR else "the owner"
        return _refused(
            StakeRefusal.SIGNER_NOT_ALLOWED,
            f"{', '.join(left)}: only {needed} may sign this, and the key belongs to {signing.signer}.",
            left,
        )
    if declared.amount_upokt < chain.params.min_stake_upokt:
        return _refused(
            StakeRefusal.BELOW_MINIMUM,
            f"{declared.amount_upokt} upokt is less than the chain's minimum of {chain.params.min_stake_upokt} upokt.",
        )
    before = 0 if supplier is None else supplier.stake_upokt
    moves = declared.amount_upokt != before or supplier is None
    services = declared.services if set(mine) & _BY_OPERATOR else ()
    gas = _STAKE_GAS + _SERVICE_GAS * (len(now) + len(declared.services))
    parties = Parties(signing.signer, declared.owner, declared.operator)
    return _checked(
        _Draft(
            message=stake_message(parties, declared.amount_upokt if moves else None, services),
            changes=mine,
            left=left,
            cost=StakeCost(
                max(0, declared.amount_upokt - before), chain.params.staking_fee_upokt, signing.gas_price.fee_upokt(gas)
            ),
            gas_limit=gas,
            returned_upokt=max(0, before - declared.amount_upokt),
            effective_height=start,
            effect=_effect(declared, before, mine, now, start),
        ),
        declared, chain, signing, now,
    )  # fmt: skip


def _differences(
    declared: DeclaredStake,
    supplier: StakedSupplier | None,
    now: tuple[StakedService, ...],
    wanted: tuple[StakedService, ...],
) -> tuple[StakeChange, ...]:
    changes = []
    if supplier is None:
        changes.append(StakeChange.STAKE)
    elif supplier.unstake_session_end_height:
        changes.append(StakeChange.CANCEL_UNBONDING)
    if supplier is not None and declared.amount_upokt != supplier.stake_upokt:
        raised = declared.amount_upokt > supplier.stake_upokt
        changes.append(StakeChange.TOP_UP if raised else StakeChange.LOWER)
    if [(s.service_id, s.endpoints) for s in now] != [(s.service_id, s.endpoints) for s in wanted]:
        changes.append(StakeChange.SERVICES)
    shares = {s.service_id: s.revenue_share for s in now}
    if any(shares.get(s.service_id, s.revenue_share) != s.revenue_share for s in wanted):
        changes.append(StakeChange.REVENUE_SHARES)
    return tuple(changes)


def _may(change: StakeChange, declared: DeclaredStake, signer: str, supplier: StakedSupplier | None) -> bool:
    if change in _BY_OPERATOR:
        return signer == declared.operator
    if change is StakeChange.CANCEL_UNBONDING:
        return supplier is not None and signer == supplier.owner_address
    return signer in (declared.operator, declared.owner)


def _unstaking(declared: DeclaredStake, chain: StakeSnapshot, signing: Signing) -> StakePlan:
    supplier = chain.supplier
    if supplier is None:
        return StakePlan(StakeState.AS_DECLARED, "not staked, as declared")
    if supplier.unstake_session_end_height:
        end = _unbonding_end(chain, supplier.unstake_session_end_height)
        return StakePlan(StakeState.PENDING, f"unbonding until block {end}", effective_height=end)
    if signing.signer not in (declared.operator, declared.owner):
        return _refused(
            StakeRefusal.SIGNER_NOT_ALLOWED, f"only operator and owner may unstake, not {signing.signer}.",
            (StakeChange.UNSTAKE,),
        )  # fmt: skip
    now = effective_services(supplier, chain.shared, chain.height)
    last = chain.shared.session_end(chain.height + 1)
    end = _unbonding_end(chain, last)
    gas = _UNSTAKE_GAS + _SERVICE_GAS * len(now)
    return _checked(
        _Draft(
            message=unstake_message(signing.signer, declared.operator),
            changes=(StakeChange.UNSTAKE,),
            left=(),
            cost=StakeCost(transaction_fee_upokt=signing.gas_price.fee_upokt(gas)),
            gas_limit=gas,
            returned_upokt=supplier.stake_upokt,
            effective_height=end,
            effect=(
                f"Serves until block {last} at the earliest, then no more.",
                f"{supplier.stake_upokt} upokt go to {supplier.owner_address} after the unbonding, about block {end}.",
            ),
        ),
        declared, chain, signing, now,
    )  # fmt: skip


def _unbonding_end(chain: StakeSnapshot, session_end: int) -> int:
    return session_end + chain.shared.supplier_unbonding_period_sessions * chain.shared.num_blocks_per_session


def _reached(supplier: StakedSupplier | None, chain: StakeSnapshot) -> StakePlan:
    later = [row.activation_height for row in (supplier.history if supplier else ())]
    pending = max((height for height in later if height > chain.height), default=0)
    if pending:
        return StakePlan(StakeState.PENDING, f"in force from block {pending}", effective_height=pending)
    return StakePlan(StakeState.AS_DECLARED, "staked as declared")


def _checked(
    draft: _Draft, declared: DeclaredStake, chain: StakeSnapshot, signing: Signing, now: tuple[StakedService, ...]
) -> StakePlan:
    if draft.cost.total_upokt > chain.balance_upokt:
        return _refused(
            StakeRefusal.BALANCE_TOO_LOW,
            f"this costs {draft.cost.total_upokt} upokt and {signing.signer} has {chain.balance_upokt} upokt. "
            f"Send it {draft.cost.total_upokt - chain.balance_upokt} upokt.",
        )
    causes = [_APPROVED_CHANGES[change] for change in draft.changes if change in _APPROVED_CHANGES]
    if StakeChange.STAKE in draft.changes and declared.owner != signing.signer:
        causes.append(ApprovalCause.OWNER_IS_NOT_SIGNER)
    if signing.reached and signing.reached == declaration_digest(declared):
        causes.append(ApprovalCause.CHANGED_ELSEWHERE)
    return StakePlan(
        StakeState.CHANGE,
        ", ".join(draft.changes),
        changes=draft.changes,
        left=draft.left,
        messages=(draft.message,),
        gas_limit=draft.gas_limit,
        cost=draft.cost,
        returned_upokt=draft.returned_upokt,
        effective_height=draft.effective_height,
        approvals=tuple(causes),
        plan_hash=_hash(draft, chain, now, signing.included),
        effect=draft.effect,
    )


def _hash(draft: _Draft, chain: StakeSnapshot, now: tuple[StakedService, ...], included: str) -> str:
    """Return a digest of the transaction and of the record that it changes.

    The last transaction is part of it. With the last transaction an approval is good for one only, since the same
    record may come back. Heights and balances are left out.
    """
    record = chain.supplier
    state = None if record is None else [record.owner_address, record.stake_upokt, record.unstake_session_end_height]
    cost = [draft.cost.stake_upokt, draft.cost.staking_fee_upokt, draft.cost.transaction_fee_upokt]
    return _digest([chain.chain_id, message_json(draft.message), draft.gas_limit, cost, state, _shown(now), included])


def _shown(services: tuple[StakedService, ...]) -> list[object]:
    return [[s.service_id, [[e.url, e.rpc_type, e.options] for e in s.endpoints], s.revenue_share] for s in services]


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_DIGITS]


def _effect(
    declared: DeclaredStake, before: int, changes: tuple[StakeChange, ...], now: tuple[StakedService, ...], start: int
) -> tuple[str, ...]:
    rows = []
    if declared.amount_upokt != before:
        rows.append(f"The stake goes from {before} to {declared.amount_upokt} upokt.")
    if declared.amount_upokt < before:
        rows.append(f"{before - declared.amount_upokt} upokt go to {declared.owner} at once.")
    if StakeChange.STAKE in changes:
        rows.append(f"{declared.owner} owns the stake: whatever is returned later goes there.")
    if set(changes) & _BY_OPERATOR:
        rows += _service_effects({s.service_id: s for s in now}, canonical(declared.services))
        rows.append(f"{IN_FORCE} {start} at the earliest. Present endpoints serve until then.")
    return tuple(rows)


def _service_effects(old: Mapping[str, StakedService], services: tuple[StakedService, ...]) -> Iterator[str]:
    """Yield what becomes of each service, the details of some only."""
    new = {service.service_id: service for service in services}
    kept = [name for name in sorted(old) if old[name] == new.get(name)]
    changed = [name for name in sorted(old) if name in new and name not in kept]
    for verb, names in (("Added", sorted(set(new) - set(old))), ("Removed", sorted(set(old) - set(new)))):
        if names:
            yield f"{verb}: {', '.join(names)}."
    for name in changed[:_DETAILED]:
        for what, before, after in (
            ("endpoints", _endpoints(old[name]), _endpoints(new[name])),
            ("revenue shares", _shares(old[name]), _shares(new[name])),
        ):
            if before != after:
                yield f"Changed: {name}, {what} {before} to {after}."
    if rest := changed[_DETAILED:]:
        yield f"Changed as well: {', '.join(rest)}."
    if kept:
        yield f"Sent again without a change: {', '.join(kept)}."


def _endpoints(service: StakedService) -> str:
    rows = (
        f"{e.url} ({rpc_type_name(e.rpc_type)}{''.join(f', {key}={value}' for key, value in e.options)})"
        for e in service.endpoints
    )
    return ", ".join(rows) or "none"


def _shares(service: StakedService) -> str:
    return ", ".join(f"{address} {percent} %" for address, percent in service.revenue_share)


def _refused(reason: StakeRefusal, detail: str, left: tuple[StakeChange, ...] = ()) -> StakePlan:
    return StakePlan(StakeState.REFUSED, detail, left=left, refusal=reason)
