"""Compare statuses by what a reconciliation owns in them."""

from typing import Any

from pocket_operator.controller.stake_keeper import without_staking
from pocket_operator.decide.conditions import OPERATOR_CONFLICT

Object = dict[str, Any]


def own_status(subject: Object) -> Object:
    """Return the part of a resource's status that this operator owns.

    What the stake keeper and other operators own is left out.
    """
    status = without_staking(subject.get("status") or {})
    rows = status.get("conditions") or ()
    return {**status, "conditions": [row for row in rows if row.get("type") != OPERATOR_CONFLICT]}


def without_fields(status: Object, fields: frozenset[str]) -> Object:
    """Return a status without some of its fields."""
    return {key: value for key, value in status.items() if key not in fields}
