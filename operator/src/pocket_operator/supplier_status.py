"""Status of a Supplier: pure."""

from collections.abc import Collection, Mapping
from typing import Any

from pocket_api.services import RPC_NUMBERS
from pocket_api.status import ConditionType, LastEvents, Stake, SupplierSessions, SupplierStatus
from pocket_operator import names
from pocket_operator.conditions import Fact, conditions, true_if
from pocket_operator.plan import Plan, is_paused
from pocket_operator.reasons import STALLING, Reason
from pocket_operator.snapshot import Snapshot, expected_pods
from pocket_operator.supplier_keys import Finding
from shannon.chain.preflight import LOW_BALANCE_UPOKT


def supplier_status(finding: Finding, snapshot: Snapshot, plan: Plan) -> SupplierStatus:
    """What is the case with one Supplier, and what to do."""
    ours = finding.reason is not Reason.KEY_IN_USE
    has_key = [r for r in snapshot.steady_reports if finding.address in r.addresses and ours]
    expected = expected_pods(snapshot)
    owner = next((r for r in snapshot.reports if r.owns(finding.address) and ours), None)
    row = owner.supplier(finding.address) if owner is not None else {}
    histories = _histories(snapshot, finding.address) if ours else []
    keys = _keys(finding, snapshot, plan, loaded=len(has_key), expected=expected)
    staked = _staked(finding, row, _offered(snapshot), known=owner is not None)
    claims = _claims(row)
    facts = [*_summary(keys, staked, finding), keys, staked, claims]
    before = (finding.supplier.get("status") or {}).get("conditions") or ()
    generation = int(finding.supplier["metadata"].get("generation") or 0)
    return SupplierStatus(
        observed_generation=generation,
        conditions=conditions(facts, before, generation, snapshot.now),
        address=finding.address if finding.key_hex is not None else "",
        loaded_by=f"{len(has_key)}/{expected}",
        miner=owner.pod if owner is not None else "",
        stake=Stake.model_validate(row.get("stake") or {}),
        sessions=SupplierSessions.model_validate(row.get("sessions") or {}),
        open_sessions=int(row.get("open") or 0),
        last=LastEvents.model_validate(_latest(histories)),
        earned_upokt=sum(int(history.get("earned_upokt") or 0) for history in histories),
        resealed=finding.resealed,
    )


def _histories(snapshot: Snapshot, address: str) -> list[Mapping[str, Any]]:
    """What each miner remembers of a supplier: a session's outcome is in the audit trail of the one that ended it."""
    return [report.supplier(address) for report in snapshot.reports if report.component == names.MINER]


def _latest(histories: list[Mapping[str, Any]]) -> dict[str, str]:
    """The latest mark of each event; a mark reads `session at height`."""
    found: dict[str, str] = {}
    for history in histories:
        for event, mark in (history.get("last") or {}).items():
            if _height(mark) >= _height(found.get(event, "")):
                found[event] = str(mark)
    return found


def _height(mark: str) -> int:
    digits = mark.partition(" at ")[2].partition(":")[0]
    return int(digits) if digits.isdecimal() else -1


def _keys(finding: Finding, snapshot: Snapshot, plan: Plan, *, loaded: int, expected: int) -> Fact:
    kind = ConditionType.KEYS_LOADED
    if not finding.good:
        return Fact(kind, "False", finding.reason, finding.message)
    relay_miner = (finding.supplier.get("spec") or {}).get("relayMinerRef", {}).get("name", "")
    if snapshot.relay_miner is None:
        return Fact(
            kind, "False", Reason.RELAY_MINER_MISSING,
            f"RelayMiner {relay_miner} does not exist in namespace {snapshot.namespace}. Create it, or make this "
            "Supplier anew with another spec.relayMinerRef.",
        )  # fmt: skip
    drain = plan.drains.get(finding.address)
    if drain is not None:
        return Fact(kind, "False", Reason.DRAINING, f"Being deleted: {drain.why}.")
    if is_paused(snapshot.relay_miner):
        return Fact(kind, "Unknown", Reason.PAUSED, f"RelayMiner {relay_miner} is paused: keys are not published.")
    if plan.trouble is not None:
        return Fact(
            kind, "False", Reason.RELAY_MINER_NOT_READY,
            f"RelayMiner {relay_miner} is in trouble: {plan.trouble.reason}. See its conditions.",
        )  # fmt: skip
    if loaded >= expected:
        return Fact(kind, "True", Reason.LOADED, "All relayers and miners have the key.")
    return Fact(kind, "False", Reason.LOADING_KEYS, "The key is published; not every pod has loaded it yet.")


def _offered(snapshot: Snapshot) -> Mapping[str, set[int]]:
    """What the RelayMiner serves: the chain's numbers of transports, by service."""
    spec = (snapshot.relay_miner or {}).get("spec") or {}
    return {
        str(service.get("id")): {
            number for name, number in RPC_NUMBERS.items() if (service.get("backends") or {}).get(name) is not None
        }
        for service in spec.get("services") or ()
    }


def _beyond(row: Mapping[str, Any], offered: Mapping[str, set[int]], wanted: Collection[str]) -> str:
    """What is staked and not served here; relays of it are refused, which costs reputation. Empty: nothing."""
    names_of = {number: name for name, number in RPC_NUMBERS.items()}
    staked = (row.get("stake") or {}).get("services") or ()
    parts = [str(service) for service in sorted(staked) if service not in offered or (wanted and service not in wanted)]
    for service, kinds in sorted((row.get("transports") or {}).items()):
        missing = sorted(set(kinds) - offered.get(service, set())) if service not in parts else []
        parts += [f"{service} over {names_of.get(kind, f'type {kind}')}" for kind in missing]
    return ", ".join(parts)


def _staked(finding: Finding, row: Mapping[str, Any], offered: Mapping[str, set[int]], *, known: bool) -> Fact:
    kind = ConditionType.STAKED
    staked = row.get("staked")
    if not known or staked is None:
        return Fact(kind, "Unknown", Reason.NO_REPORT, "No miner has reported what the chain says.")
    if not staked:
        return Fact(
            kind, "False", Reason.NOT_STAKED,
            f"{finding.address} is not staked as a supplier. Stake it; it is picked up by itself.",
        )  # fmt: skip
    stake = row.get("stake") or {}
    if stake.get("unstake_session_end_height"):
        return Fact(kind, "False", Reason.UNSTAKING, "The supplier unstaked: it serves its last sessions.")
    wanted = finding.parsed.spec.services if finding.parsed else ()
    missing = sorted(set(wanted) - set(stake.get("services") or ()))
    if missing:
        return Fact(
            kind, "False", Reason.SERVICES_NOT_STAKED,
            f"Not staked for {', '.join(missing)}. Stake these services or take them out of spec.services.",
        )  # fmt: skip
    if beyond := _beyond(row, offered, wanted):
        return Fact(
            kind, "True", Reason.STAKED_BEYOND,
            f"Staked for more than is served here: {beyond}. Such relays are refused, and gateways notice: serve them, "
            "or take them out of the stake.",
        )  # fmt: skip
    if broken := [str(text) for text in row.get("endpoint_problems") or ()]:
        return Fact(
            kind, "True", Reason.ENDPOINTS_BROKEN,
            f"The stake declares URLs that do not work as seen from the miner: {'; '.join(broken[:5])}. Gateways would "
            "fail there: correct name, route or certificate, or the stake.",
        )  # fmt: skip
    return Fact(kind, "True", Reason.STAKED, "Staked for all services that it should serve.")


def _claims(row: Mapping[str, Any]) -> Fact:
    kind = ConditionType.CLAIMS_HEALTHY
    if not row:
        return Fact(kind, "Unknown", Reason.NO_REPORT, "No miner has reported sessions of this supplier.")
    if int(row.get("lost_recently") or 0):
        loss = (row.get("last") or {}).get("loss", "")
        return Fact(kind, "False", Reason.SESSION_LOST, f"The last session was lost: {loss}. See the miner's log.")
    balance = row.get("balance_upokt")
    if isinstance(balance, int) and balance < LOW_BALANCE_UPOKT:
        return Fact(
            kind, "False", Reason.BALANCE_LOW,
            f"Its account has {balance} upokt, less than 1 POKT: claims and proofs need fees. Send it some.",
        )  # fmt: skip
    if row.get("public_key_on_chain") is False:
        return Fact(
            kind, "False", Reason.PUBLIC_KEY_MISSING,
            "Its account has no public key on chain, so gateways cannot verify its answers. Let it sign a transaction, "
            "such as sending itself 1 upokt.",
        )  # fmt: skip
    return Fact(kind, "True", Reason.CLAIMS_SETTLE, "No session was lost since the last settlement.")


def _summary(keys: Fact, staked: Fact, finding: Finding) -> list[Fact]:
    stalled = finding.reason in STALLING
    going_on = keys.reason in (Reason.LOADING_KEYS, Reason.DRAINING)
    if keys.state != "True":
        ready = Fact(ConditionType.READY, "False", keys.reason, keys.message)
    elif staked.state == "False" and staked.reason is not Reason.UNSTAKING:
        ready = Fact(ConditionType.READY, "False", staked.reason, staked.message)
    else:
        ready = Fact(ConditionType.READY, "True", Reason.ALL_WELL, "Served and mined.")
    return [
        ready,
        Fact(
            ConditionType.RECONCILING, true_if(going_on), keys.reason if going_on else Reason.ALL_WELL,
            keys.message if going_on else "",
        ),
        Fact(
            ConditionType.STALLED, true_if(stalled), finding.reason if stalled else Reason.ALL_WELL,
            finding.message if stalled else "",
        ),
    ]  # fmt: skip
