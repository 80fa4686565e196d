"""Conditions: transitions keep their time, unchanged ones stay as they are."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pocket.api.status import Condition, ConditionType, timestamp
from pocket_operator.decide.reasons import PASSING, ConditionReason, StakeReason
from pocket_operator.decide.schemas import Schemas

State = Literal["True", "False", "Unknown"]
LONGEST_MESSAGE = 4096
"""Characters of a condition's message; the API server takes 32768."""


@dataclass(frozen=True, slots=True)
class ConditionSpec:
    """One condition as it is now."""

    type: ConditionType
    state: State
    reason: ConditionReason
    message: str = ""


@dataclass(frozen=True, slots=True)
class StakeCondition:
    """The condition StakeAsDeclared as it is now."""

    state: State
    reason: StakeReason
    message: str
    type: ConditionType = ConditionType.STAKE_AS_DECLARED


def schema_fact(kind: str, schemas: Schemas, unknown: Sequence[str]) -> ConditionSpec:
    """How the installed definition of a kind fits this release; `unknown`: fields of a resource that are left out."""
    found = schemas.difference(kind)
    if unknown:
        return ConditionSpec(
            ConditionType.SCHEMA_CURRENT, "False", ConditionReason.CRD_NEWER,
            f"This release of the operator does not know {_few(unknown)}, and leaves that out. Everything else goes "
            "on. Use a newer release, or take these fields out.",
        )  # fmt: skip
    if found.missing:
        return ConditionSpec(
            ConditionType.SCHEMA_CURRENT, "False", ConditionReason.CRD_OLDER,
            f"The installed definition of {kind} is older than the operator: it lacks {_few(found.missing)}. "
            "Everything else goes on. Apply the CRDs of this release: kubectl apply --server-side -f crds/",
        )  # fmt: skip
    return ConditionSpec(ConditionType.SCHEMA_CURRENT, "True", ConditionReason.SCHEMA_MATCHES)


def _few(paths: Sequence[str]) -> str:
    return ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")


def true_if(value: bool | None) -> State:
    """None is Unknown."""
    if value is None:
        return "Unknown"
    return "True" if value else "False"


def conditions(
    facts: Iterable[ConditionSpec | StakeCondition], before: Iterable[Mapping[str, Any]], generation: int, now: datetime
) -> tuple[Condition, ...]:
    """The list for a status; the time of the last transition is kept while the status stays."""
    known = {row.get("type"): row for row in before}
    rows = []
    for fact in facts:
        old = known.get(fact.type.value, {})
        since = old.get("lastTransitionTime") if old.get("status") == fact.state else None
        rows.append(
            Condition(
                type=fact.type.value,
                status=fact.state,
                observed_generation=generation,
                last_transition_time=str(since or timestamp(now)),
                reason=fact.reason.value,
                message=_bounded(fact.message),
            )
        )
    return tuple(rows)


def _bounded(message: str) -> str:
    """What an API server or a chain node says can be longer than a status takes, and than anybody reads."""
    return message if len(message) <= LONGEST_MESSAGE else f"{message[: LONGEST_MESSAGE - 4]} ..."


@dataclass(frozen=True, slots=True)
class EventToEmit:
    """An Event to write: a condition got another reason."""

    warning: bool
    reason: str
    message: str


_ABNORMAL = frozenset({ConditionType.RECONCILING.value, ConditionType.STALLED.value, ConditionType.PAUSED.value})


def notices(after: Iterable[Condition], before: Iterable[Mapping[str, Any]]) -> list[EventToEmit]:
    """Return one per reason that is new: what changes Ready, and warnings; Ready speaks for what it summarises."""
    known = {row.get("type"): (row.get("status"), row.get("reason")) for row in before}
    found: dict[str, EventToEmit] = {}
    for condition in after:
        if known.get(condition.type) == (condition.status, condition.reason):
            continue
        if condition.type in _ABNORMAL and condition.status != "True":
            continue
        if condition.status == "Unknown":
            continue
        good = condition.status == "True" and condition.type != ConditionType.STALLED.value
        warning = not good and condition.reason not in PASSING
        if not warning and condition.type != ConditionType.READY.value:
            continue
        found.setdefault(condition.reason, EventToEmit(warning, condition.reason, condition.message))
    return list(found.values())
