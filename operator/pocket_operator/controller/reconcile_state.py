"""State of a RelayMiner between two reconciliations."""

from dataclasses import dataclass, field
from typing import Any

from pocket_operator.decide.contested import Repairs
from pocket_operator.decide.snapshot import ChildKey, Rejection, UpdateStep

Object = dict[str, Any]


@dataclass(slots=True)
class ReconcileState:
    """State between two reconciliations. Losing it costs time only."""

    quiet_since: dict[str, float] = field(default_factory=dict)
    rejections: dict[ChildKey, Rejection] = field(default_factory=dict)
    """What the last attempt could not write, reported or not."""
    reported: dict[ChildKey, Rejection] = field(default_factory=dict)
    unread: frozenset[ChildKey] = frozenset()
    unprotected: frozenset[ChildKey] = frozenset()
    unreleased: dict[ChildKey, str] = field(default_factory=dict)
    """Resources whose finalizer the API server refused to remove, with its message."""
    namespace_ends: bool = False
    status_written: dict[str, float] = field(default_factory=dict)
    status_answers: dict[str, tuple[Object, Object]] = field(default_factory=dict)
    """Uid → the status that was applied and the one that the API server answered, where they differ."""
    repairs: Repairs = field(default_factory=Repairs)
    released: bool = False
    """The operator let the RelayMiner go, whose claims and proofs are done."""
    gone_since: float | None = None
    """Time since which the RelayMiner is gone though its drain anchor exists (monotonic seconds)."""
    idle_since: float | None = None
    """Time since which none of its relayers runs either."""
    update_step: UpdateStep = field(default_factory=UpdateStep)
    rolling: UpdateStep = field(default_factory=UpdateStep)
    """The generations of the workloads that are not complete, and since when."""
    unserved_since: dict[str, float] = field(default_factory=dict)
    """Name of a Supplier that is not served → since when (monotonic seconds)."""
