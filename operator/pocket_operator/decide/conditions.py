"""Conditions of a status, and the Events that their changes cause."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pocket.api.status import Condition, ConditionType, timestamp
from pocket_operator.decide.reasons import PASSING, STAKE_PASSING, AnyStakeReason, ConditionReason
from pocket_operator.decide.schemas import Schemas

State = Literal["True", "False", "Unknown"]
_NAMED = 5
LONGEST_MESSAGE = 4096
"""Characters of a condition's message. The API server accepts 32768."""


@dataclass(frozen=True, slots=True)
class ConditionSpec:
    """The current value of one condition."""

    type: ConditionType
    state: State
    reason: ConditionReason
    message: str = ""


@dataclass(frozen=True, slots=True)
class StakeCondition:
    """The condition StakeAsDeclared as it is now."""

    state: State
    reason: AnyStakeReason
    message: str
    type: ConditionType = ConditionType.STAKE_AS_DECLARED


def schema_condition(kind: str, schemas: Schemas, unknown: Sequence[str], *, invalid: bool) -> ConditionSpec:
    """Return the condition of a kind's installed definition.

    `unknown` are the fields of a resource that this release ignores, `invalid` is True if it cannot read the resource.
    """
    difference = schemas.difference(kind)
    if invalid and difference.unknown:
        return ConditionSpec(
            ConditionType.SCHEMA_CURRENT, "False", ConditionReason.CRD_NEWER,
            f"The installed definition of {kind} is newer than the operator: it has {few(difference.unknown)}, and "
            "lets through what this release cannot read. Use a newer release, or change what Ready names.",
        )  # fmt: skip
    if unknown:
        return ConditionSpec(
            ConditionType.SCHEMA_CURRENT, "False", ConditionReason.CRD_NEWER,
            f"This release of the operator does not know {few(unknown)} and ignores it. Everything else goes "
            "on. Use a newer release, or remove these fields.",
        )  # fmt: skip
    if difference.missing:
        return ConditionSpec(
            ConditionType.SCHEMA_CURRENT, "False", ConditionReason.CRD_OLDER,
            f"The installed definition of {kind} is older than the operator: it lacks {few(difference.missing)}. "
            "Everything else goes on. Apply the CRDs of this release: "
            "kubectl apply --server-side --force-conflicts -k crds/",
        )  # fmt: skip
    return ConditionSpec(ConditionType.SCHEMA_CURRENT, "True", ConditionReason.SCHEMA_MATCHES)


OPERATOR_CONFLICT = ConditionType.OPERATOR_CONFLICT.value


def operator_conflict(own: str, other: str, relay_miner: tuple[str, str], *, readable: bool = True) -> ConditionSpec:
    """Return the condition of an operator that leaves a RelayMiner to another.

    `own` and `other` are their namespaces, `relay_miner` is a namespace and a name. Where the other's Lease is not
    `readable`, only a person can tell that it is gone.
    """
    message = (
        f"The operator in namespace {other} manages this RelayMiner, so the one in {own} leaves it alone. Uninstall "
        "one of them, or limit it to other namespaces."
    )
    if not readable:
        namespace, name = relay_miner
        command = f"kubectl -n {namespace} patch rm {name} --subresource=status --type=merge -p"
        message += (
            f" The one in {own} may not read the other's Lease, so it cannot see that the other is gone. If it is: "
            f"""{command} '{{"status":{{"operator":""}}}}'"""
        )
    return ConditionSpec(ConditionType.OPERATOR_CONFLICT, "True", ConditionReason.OTHER_OPERATOR, message)


def few(texts: Sequence[str], separator: str = ", ") -> str:
    """Return the first texts as one, and how many more there are."""
    more = len(texts) - _NAMED
    return separator.join(texts[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def true_if(value: bool | None) -> State:
    """Return the condition status of a boolean, Unknown for None."""
    if value is None:
        return "Unknown"
    return "True" if value else "False"


def conditions(
    specs: Iterable[ConditionSpec | StakeCondition], before: Iterable[Mapping[str, Any]], generation: int, now: datetime
) -> tuple[Condition, ...]:
    """Return the conditions of a status.

    The transition time is unchanged where the status is.
    """
    known = {row.get("type"): row for row in before}
    rows = []
    for spec in specs:
        old = known.get(spec.type.value, {})
        since = old.get("lastTransitionTime") if old.get("status") == spec.state else None
        rows.append(
            Condition(
                type=spec.type.value,
                status=spec.state,
                observed_generation=generation,
                last_transition_time=str(since or timestamp(now)),
                reason=spec.reason.value,
                message=_bounded(spec.message),
            )
        )
    return tuple(rows)


def _bounded(message: str) -> str:
    """Shorten a message to what a status accepts.

    Texts of API servers and chain nodes may be longer.
    """
    return message if len(message) <= LONGEST_MESSAGE else f"{message[: LONGEST_MESSAGE - 4]} ..."


@dataclass(frozen=True, slots=True)
class EventToEmit:
    """An Event to write because a condition has a new reason."""

    warning: bool
    reason: str
    message: str


def reason_of_stake(status: Mapping[str, Any]) -> str:
    """Return the reason of the condition StakeAsDeclared in a status.

    The result is empty without one.
    """
    kind = ConditionType.STAKE_AS_DECLARED.value
    return next((str(row.get("reason")) for row in status.get("conditions") or () if row.get("type") == kind), "")


def stake_event(fact: StakeCondition, before: Mapping[str, Any]) -> EventToEmit | None:
    """Return the Event of a stake's new reason.

    None for the same one, for a stake that is as declared at first sight, and while the chain is unreachable.
    """
    if before.get("reason") == fact.reason.value or fact.state == "Unknown" or (fact.state == "True" and not before):
        return None
    warning = fact.state == "False" and fact.reason not in STAKE_PASSING
    return EventToEmit(warning, fact.reason.value, fact.message)


_ABNORMAL = frozenset({ConditionType.RECONCILING.value, ConditionType.STALLED.value, ConditionType.PAUSED.value})


def events_to_emit(after: Iterable[Condition], before: Iterable[Mapping[str, Any]]) -> list[EventToEmit]:
    """Return one Event per new reason: changes of a known Ready, and warnings."""
    known = {row.get("type"): (row.get("status"), row.get("reason")) for row in before}
    events: dict[str, EventToEmit] = {}
    for condition in after:
        if known.get(condition.type) == (condition.status, condition.reason):
            continue
        if condition.type in _ABNORMAL and condition.status != "True":
            continue
        if condition.status == "Unknown":
            continue
        good = condition.status == "True" and condition.type != ConditionType.STALLED.value
        warning = not good and condition.reason not in PASSING
        if not warning and (condition.type != ConditionType.READY.value or condition.type not in known):
            continue
        events.setdefault(condition.reason, EventToEmit(warning, condition.reason, condition.message))
    return list(events.values())
