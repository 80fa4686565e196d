"""Compute the status of a Supplier."""

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from functools import reduce

from pocket.api.services import RPC_NUMBERS
from pocket.api.status import (
    ConditionType,
    DrainProgress,
    Stake,
    SupplierSessions,
    SupplierStatus,
)
from pocket.chain.preflight import LOW_BALANCE_UPOKT
from pocket_operator.decide.books import Books, Day, books_in, day_of, latest
from pocket_operator.decide.conditions import ConditionSpec, conditions, few, schema_condition, true_if
from pocket_operator.decide.draining import published_generation
from pocket_operator.decide.earned import LARGEST, earnings, funds
from pocket_operator.decide.plan import Plan, is_paused
from pocket_operator.decide.pod_report import ReportedSupplier
from pocket_operator.decide.reasons import STALLING, ConditionReason
from pocket_operator.decide.sections import section
from pocket_operator.decide.served import is_served, long_unserved, mining_problem, not_loaded, without_key
from pocket_operator.decide.snapshot import Snapshot
from pocket_operator.decide.stake_decision import unstakes
from pocket_operator.decide.supplier_keys import KeyCheck
from pocket_operator.resources import names


def supplier_status(check: KeyCheck, snapshot: Snapshot, plan: Plan) -> SupplierStatus:
    """Return the status of one Supplier."""
    ours = check.reason is not ConditionReason.KEY_IN_USE or check.has_finalizer
    has_key = [r for r in snapshot.lasting_reports if check.address in r.addresses and ours]
    expected = snapshot.expected_pods
    owner = next((r for r in snapshot.reports if r.owns(check.address) and ours), None)
    row = owner.supplier(check.address) if owner is not None else None
    books = _books(check, snapshot) if ours else Books()
    uncounted = _uncounted(books, snapshot, check.address) if ours else []
    day = reduce(Day.plus, (day_of(history) for history in uncounted), books.day)
    earned = [books.earned_by, *(history.earned_by for history in uncounted)]
    reported = [history.last for history in _rows(snapshot, check.address)] if ours else []
    keys = _keys(check, snapshot, plan, loaded=len(has_key), expected=expected)
    staked = _staked(check, row, snapshot.offered)
    claims = _claims(row)
    specs = [*_summary(keys, staked, check, snapshot), keys, staked, claims]
    invalid = check.reason is ConditionReason.INVALID_SPEC
    specs.append(schema_condition("Supplier", snapshot.schemas, check.unknown, invalid=invalid))
    before = (check.supplier.get("status") or {}).get("conditions") or ()
    generation = int(check.supplier["metadata"].get("generation") or 0)
    return SupplierStatus(
        observed_generation=generation,
        conditions=conditions(specs, before, generation, snapshot.now),
        address=check.address if check.key_hex is not None else "",
        loaded_by=f"{len(has_key)}/{expected}",
        published_generation=generation if _is_published(check, plan) else published_generation(check.supplier),
        miner=owner.pod if owner is not None else "",
        operator=snapshot.settings.namespace,
        stake=(row.stake if row is not None else None) or Stake(),
        sessions=row.sessions if row is not None else SupplierSessions(),
        open_sessions=row.open if row is not None else _open_before(check),
        last=latest([books.last, *reported]),
        earned_upokt=min(LARGEST, sum(sum(part.values()) for part in earned)),
        earned=earnings(earned),
        day=day.to_status(),
        books=books.to_status(),
        drain=_unstake_drain(check, plan),
        next_deadline=row.deadline if row is not None else None,
        funds=funds(row, [books.fees_per_day_upokt, *(history.fees_per_day_upokt for history in uncounted)]),
        resealed=check.resealed,
    )


def _unstake_drain(check: KeyCheck, plan: Plan) -> DrainProgress | None:
    """Return how far the drain before an unstake is, None without one."""
    drain = plan.drains.get(check.address)
    if drain is None or check.deleting or not unstakes(check.supplier):
        return None
    return DrainProgress(done=drain.done, reason=drain.reason)


def _books(check: KeyCheck, snapshot: Snapshot) -> Books:
    """Return the books of a Supplier.

    Before any report was counted they are those in its status.
    """
    known = snapshot.books.get(str(check.supplier["metadata"].get("uid", "")))
    return books_in(check.supplier.get("status") or {}) if known is None else known


def _rows(snapshot: Snapshot, address: str) -> list[ReportedSupplier]:
    """Return the miners' reports of a supplier."""
    rows = [report.supplier(address) for report in snapshot.reports if report.component == names.MINER]
    return [row for row in rows if row is not None]


def _uncounted(books: Books, snapshot: Snapshot, address: str) -> list[ReportedSupplier]:
    """Return the reports whose totals are not in the books.

    They are of older miners, or from before the first count.
    """
    miners = [report for report in snapshot.reports if report.component == names.MINER]
    rows = [report.supplier(address) for report in miners if report.trail not in books.trails]
    return [row for row in rows if row is not None]


def _is_published(check: KeyCheck, plan: Plan) -> bool:
    """Return True if this plan hands the key to pods.

    The earlier finalizer covers a crash in between.
    """
    return plan.context is not None and check.key_hex is not None and check.reason is not ConditionReason.KEY_IN_USE


def _open_before(check: KeyCheck) -> int:
    """Return the open sessions of the last report.

    Without a new one they are unknown, not zero.
    """
    return int((check.supplier.get("status") or {}).get("openSessions") or 0)


def _keys(check: KeyCheck, snapshot: Snapshot, plan: Plan, *, loaded: int, expected: int) -> ConditionSpec:
    kind = ConditionType.KEYS_LOADED
    drain = plan.drains.get(check.address)
    relay_miner = section(check.supplier, "spec", "relayMinerRef").get("name", "")
    paused = snapshot.relay_miner is not None and is_paused(snapshot.relay_miner)
    if (refusal := snapshot.unreleased.get(("Supplier", check.name))) is not None and check.has_finalizer:
        message = f"Its finalizer cannot be removed: {refusal}"
        return ConditionSpec(kind, "False", ConditionReason.API_SERVER_REJECTED, message)
    if drain is not None and check.reason is not ConditionReason.KEY_IN_USE:
        why = f", which waits while RelayMiner {relay_miner} is paused" if paused else f": {drain.reason}"
        state = "Drains before it unstakes" if _unstake_drain(check, plan) is not None else "Being deleted"
        return ConditionSpec(kind, "False", ConditionReason.DRAINING, f"{state}{why}. {check.message}".strip())
    if not check.good:
        waiting = f"Its sessions are finished: {drain.reason}. " if drain is not None and not drain.done else ""
        return ConditionSpec(kind, "False", check.reason, waiting + check.message)
    if snapshot.relay_miner is None:
        return ConditionSpec(
            kind, "False", ConditionReason.RELAY_MINER_MISSING,
            f"RelayMiner {relay_miner} does not exist in namespace {snapshot.namespace}. Create it, or delete this "
            "Supplier and create it again with another spec.relayMinerRef.",
        )  # fmt: skip
    if paused:
        return ConditionSpec(
            kind, "Unknown", ConditionReason.PAUSED, f"RelayMiner {relay_miner} is paused: keys are not published."
        )
    if plan.blocked_by is not None:
        return ConditionSpec(
            kind, "False", ConditionReason.RELAY_MINER_NOT_READY,
            f"RelayMiner {relay_miner} has a problem: {plan.blocked_by.reason}. See its conditions.",
        )  # fmt: skip
    if loaded >= expected:
        return ConditionSpec(kind, "True", ConditionReason.LOADED, "All relayers and miners have the key.")
    reason, message = not_loaded("The key", snapshot)
    if reason is ConditionReason.LOADING_KEYS:
        message = f"{message} {without_key([check.address], snapshot)}".strip()
    return ConditionSpec(kind, "False", reason, message)


def _beyond(row: ReportedSupplier, offered: Mapping[str, AbstractSet[int]], wanted: Collection[str]) -> str:
    """Return what is staked but not served here, empty for nothing.

    Rejecting its relays costs reputation.
    """
    names_of = {number: name for name, number in RPC_NUMBERS.items()}
    staked = row.stake.services if row.stake is not None else ()
    parts = [service for service in sorted(staked) if service not in offered or (wanted and service not in wanted)]
    for service, kinds in sorted(row.transports.items()):
        missing = sorted(set(kinds) - offered.get(service, frozenset())) if service not in parts else []
        parts += [f"{service} over {names_of.get(kind, f'type {kind}')}" for kind in missing]
    return ", ".join(parts)


def _staked(check: KeyCheck, row: ReportedSupplier | None, offered: Mapping[str, AbstractSet[int]]) -> ConditionSpec:
    kind = ConditionType.STAKED
    if row is None or row.staked is None:
        return ConditionSpec(kind, "Unknown", ConditionReason.NO_REPORT, "No miner has reported the stake on chain.")
    if not row.staked:
        return ConditionSpec(
            kind, "False", ConditionReason.NOT_STAKED,
            f"{check.address} is not staked as a supplier. Stake it. The stake is picked up automatically.",
        )  # fmt: skip
    stake = row.stake or Stake()
    if stake.unstake_session_end_height:
        return ConditionSpec(
            kind, "False", ConditionReason.UNSTAKING, "The supplier unstaked: it serves its last sessions."
        )
    wanted = check.services or ()
    missing = sorted(set(wanted) - set(stake.services))
    if missing:
        return ConditionSpec(
            kind, "False", ConditionReason.SERVICES_NOT_STAKED,
            f"Not staked for {', '.join(missing)}. Stake these services or remove them from spec.services.",
        )  # fmt: skip
    if beyond := _beyond(row, offered, wanted):
        return ConditionSpec(
            kind, "True", ConditionReason.STAKED_SERVICE_NOT_CONFIGURED,
            f"Staked for more than is served here: {beyond}. Such relays are rejected, and gateways notice: serve "
            "them, or remove them from the stake.",
        )  # fmt: skip
    if broken := row.endpoint_problems:
        return ConditionSpec(
            kind, "True", ConditionReason.ENDPOINTS_BROKEN,
            f"The stake declares URLs that do not work as seen from the miner: {few(broken, '; ')}. Gateways would "
            "fail there: correct name, route or certificate, or the stake.",
        )  # fmt: skip
    return ConditionSpec(kind, "True", ConditionReason.STAKED, "Staked for all services that it should serve.")


def _claims(row: ReportedSupplier | None) -> ConditionSpec:
    kind = ConditionType.CLAIMS_HEALTHY
    if row is None:
        return ConditionSpec(
            kind, "Unknown", ConditionReason.NO_REPORT, "No miner has reported sessions of this supplier."
        )
    if row.lost_recently:
        message = f"The last session was lost: {row.last.loss}. See the miner's log."
        return ConditionSpec(kind, "False", ConditionReason.SESSION_LOST, message)
    balance = row.balance_upokt
    if balance is not None and balance < LOW_BALANCE_UPOKT:
        return ConditionSpec(
            kind, "False", ConditionReason.BALANCE_LOW,
            f"Its account has {balance} upokt, less than 1 POKT: claims and proofs need fees. Send it some.",
        )  # fmt: skip
    if row.public_key_on_chain is False:
        return ConditionSpec(
            kind, "False", ConditionReason.PUBLIC_KEY_MISSING,
            "Its account has no public key on chain, so gateways cannot verify its answers. Let it sign a transaction, "
            "such as sending itself 1 upokt.",
        )  # fmt: skip
    return ConditionSpec(kind, "True", ConditionReason.CLAIMS_HEALTHY, "No session was lost since the last settlement.")


def _summary(keys: ConditionSpec, staked: ConditionSpec, check: KeyCheck, snapshot: Snapshot) -> list[ConditionSpec]:
    stalled = check.reason in STALLING
    going_on = keys.reason in (ConditionReason.LOADING_KEYS, ConditionReason.DRAINING)
    served = is_served(check, snapshot)
    if keys.state != "True" and not (served and keys.reason is ConditionReason.LOADING_KEYS):
        ready = ConditionSpec(ConditionType.READY, "False", keys.reason, keys.message)
    elif staked.state == "False" and staked.reason is not ConditionReason.UNSTAKING:
        ready = ConditionSpec(ConditionType.READY, "False", staked.reason, staked.message)
    elif (problem := mining_problem(check.address, snapshot)) is not None:
        ready = ConditionSpec(ConditionType.READY, "False", *problem)
    elif not served and long_unserved(snapshot):
        ready = ConditionSpec(
            ConditionType.READY, "False", ConditionReason.SUPPLIERS_NOT_SERVED,
            "No relayer and miner report that they serve and mine it. See the conditions of its RelayMiner.",
        )  # fmt: skip
    else:
        ready = ConditionSpec(ConditionType.READY, "True", ConditionReason.READY, "Served and mined.")
    return [
        ready,
        ConditionSpec(
            ConditionType.RECONCILING, true_if(going_on), keys.reason if going_on else ConditionReason.NOT_RECONCILING,
            keys.message if going_on else "",
        ),
        ConditionSpec(
            ConditionType.STALLED, true_if(stalled), check.reason if stalled else ConditionReason.NOT_STALLED,
            check.message if stalled else "",
        ),
    ]  # fmt: skip
