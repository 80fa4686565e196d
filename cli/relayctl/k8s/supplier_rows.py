"""Compute the rows of `status`.

A row is a Supplier's stake, sessions, earnings, losses, deadline and funds.
"""

from collections.abc import Mapping
from typing import Any, Final

from relayctl.k8s.cluster_view import ClusterView, namespaced_name, today

Object = Mapping[str, Any]
COLUMNS: Final = (
    "name", "relay_miner", "ready", "staked", "in_session", "today_upokt", "earned_upokt", "lost_today", "deadline",
    "balance_upokt", "days_left",
)  # fmt: skip
WIDE: Final = ("fees_today_upokt", "today_by", "earned_by", "last_loss", "miner", "address")


def supplier_rows(view: ClusterView) -> list[dict[str, Any]]:
    """Return one row per Supplier, in the order of namespace and name."""
    return [_row(view, supplier) for supplier in sorted(view.suppliers, key=namespaced_name)]


def _row(view: ClusterView, supplier: dict[str, Any]) -> dict[str, Any]:
    status: Object = supplier.get("status") or {}
    namespace, name = namespaced_name(supplier)
    day: Object = status.get("day") or {}
    is_today = day.get("date") == today(view)
    funds: Object = status.get("funds") or {}
    sessions: Object = status.get("sessions") or {}
    reported = bool(status.get("miner"))
    return {
        "namespace": namespace,
        "name": name,
        "relay_miner": supplier["spec"].get("relayMinerRef", {}).get("name", ""),
        "address": supplier["spec"].get("operatorAddress", ""),
        "ready": state_of(status, "Ready"),
        "staked": staked_as_declared(supplier),
        "in_session": int(sessions.get("active") or 0) if reported else None,
        "open_sessions": int(status.get("openSessions") or 0),
        "today_upokt": int(day.get("earnedUpokt") or 0) if is_today else 0,
        "today_by": _amounts(day.get("earned")) if is_today else {},
        "fees_today_upokt": int(day.get("feesUpokt") or 0) if is_today else 0,
        "lost_today": int(day.get("lost") or 0) if is_today else 0,
        "earned_upokt": int(status.get("earnedUpokt") or 0),
        "earned_by": _amounts(status.get("earned")),
        "last_loss": (status.get("last") or {}).get("loss") or "",
        "deadline": deadline_text(view, supplier),
        "balance_upokt": funds.get("balanceUpokt"),
        "days_left": funds.get("daysLeft"),
        "miner": status.get("miner") or "",
    }


def condition(status: Object, kind: str) -> Object:
    """Return a condition of a status, empty if it is missing."""
    return next((row for row in status.get("conditions") or () if row.get("type") == kind), {})


def state_of(status: Object, kind: str) -> str:
    """Return a condition as yes, no or unknown, with the reason unless it is yes."""
    stated = condition(status, kind)
    state = {"True": "yes", "False": "no"}.get(str(stated.get("status")), "unknown")
    return state if state == "yes" or not stated.get("reason") else f"{state}: {stated['reason']}"


def staked_as_declared(supplier: Object) -> str:
    """Compare the stake on chain with the declared one.

    If none is declared, it is compared with the services.
    """
    status = supplier.get("status") or {}
    declared = (supplier.get("spec") or {}).get("stake") is not None
    return state_of(status, "StakeAsDeclared" if declared else "Staked")


def blocks_left(view: ClusterView, supplier: dict[str, Any]) -> int | None:
    """Return the blocks until a Supplier's next deadline.

    The result is None without one or without a known height.
    """
    deadline = (supplier.get("status") or {}).get("nextDeadline") or {}
    relay_miner = view.relay_miner_of(supplier)
    height = int(((relay_miner or {}).get("status") or {}).get("height") or 0)
    return int(deadline["height"]) - height if deadline.get("height") and height else None


def deadline_text(view: ClusterView, supplier: dict[str, Any]) -> str:
    """Return a Supplier's next deadline in words, empty without one."""
    deadline = (supplier.get("status") or {}).get("nextDeadline") or {}
    left = blocks_left(view, supplier)
    if not deadline.get("height"):
        return ""
    text = f"{deadline.get('kind')} before {deadline['height']}"
    if left is None:
        return text
    relay_miner = view.relay_miner_of(supplier) or {}
    seconds = float(((relay_miner.get("spec") or {}).get("chain") or {}).get("blockSeconds") or 0) * left
    return f"{text} ({left} blocks, {_duration(seconds)})" if seconds > 0 else f"{text} ({left} blocks)"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def _amounts(rows: Any) -> dict[str, int]:
    return {str(row.get("recipient")): int(row.get("upokt") or 0) for row in rows or ()}
