"""What the console last heard from relayers, miners and the cluster.

Everything is immutable. A process that does not answer keeps its last values, with their age.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from pocket.api.miner_status import EndedSession, MinedSupplier, MinerState, OpenSession
from pocket.api.problems import Problem

STALE_SECONDS: Final = 15.0
"""Age from which values are shown as stale."""


class Component(StrEnum):
    """The kind of a process."""

    MINER = "miner"
    RELAYER = "relayer"


@dataclass(frozen=True, slots=True)
class ProcessOrigin:
    """A process that is polled.

    `url` is the base of its admin port: `http://host:port`, or a path of the Kubernetes API server.
    """

    component: Component
    name: str
    url: str


@dataclass(frozen=True, slots=True)
class AnswerFreshness:
    """The time of a process's last answer, and why it does not answer now.

    The time is in monotonic seconds, None if it never answered.
    """

    answered_at: float | None = None
    error: str = ""

    def age(self, now: float) -> float | None:
        """Return the seconds since the last answer, None without any."""
        return None if self.answered_at is None else max(0.0, now - self.answered_at)

    def stale(self, now: float) -> bool:
        """Return True if the values are old or missing."""
        age = self.age(now)
        return age is None or age > STALE_SECONDS

    def silent(self, now: float) -> bool:
        """Return True if the latest poll failed, or the values are old or missing."""
        return bool(self.error) or self.stale(now)


@dataclass(frozen=True, slots=True)
class MinerSnapshot:
    """A miner: its state, open sessions, newest outcomes (oldest first) and suppliers."""

    origin: ProcessOrigin
    freshness: AnswerFreshness = AnswerFreshness()
    state: MinerState | None = None
    sessions: tuple[OpenSession, ...] = ()
    outcomes: tuple[EndedSession, ...] = ()
    suppliers: tuple[MinedSupplier, ...] = ()
    complete: bool = False
    """True once sessions, outcomes and suppliers were read to their ends."""


@dataclass(frozen=True, slots=True)
class ServiceTotals:
    """Counters of one service since a relayer's start.

    Buckets are cumulative, by upper bound in seconds.
    """

    received: float = 0.0
    served: float = 0.0
    mined: float = 0.0
    rejected: Mapping[str, float] = field(default_factory=dict)
    metered: Mapping[str, float] = field(default_factory=dict)
    answers: Mapping[str, float] = field(default_factory=dict)
    latency: Mapping[float, float] = field(default_factory=dict)
    backend: Mapping[float, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RelayerSample:
    """The counters of a relayer at one time (monotonic seconds)."""

    at: float
    services: Mapping[str, ServiceTotals]
    in_flight: float = 0.0
    queued: float = 0.0
    connections: float = 0.0
    unhealthy: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UnhealthyEndpoint:
    """A backend endpoint that gets no requests."""

    service: str
    transport: str
    endpoint: str
    problem: str


@dataclass(frozen=True, slots=True)
class BudgetLimit:
    """An application's budget per supplier and session in upokt.

    `over_budget` counts its relays above that.
    """

    service: str
    application: str
    limit_upokt: int
    over_budget: int


@dataclass(frozen=True, slots=True)
class RelayerState:
    """The report of a relayer."""

    workers: int = 0
    complete: bool = True
    addresses: frozenset[str] = frozenset()
    height: int = 0
    restarts: int = 0
    problems: tuple[Problem, ...] = ()
    unhealthy: tuple[UnhealthyEndpoint, ...] = ()
    budgets: tuple[BudgetLimit, ...] = ()


@dataclass(frozen=True, slots=True)
class RelayerSnapshot:
    """A relayer: its report, and samples of its counters, oldest first.

    `history` holds (monotonic seconds, relays served by service) over a longer time.
    """

    origin: ProcessOrigin
    freshness: AnswerFreshness = AnswerFreshness()
    state: RelayerState | None = None
    samples: tuple[RelayerSample, ...] = ()
    history: tuple[tuple[float, Mapping[str, float]], ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterSnapshot:
    """RelayMiners and Suppliers as the API server returns them."""

    freshness: AnswerFreshness = AnswerFreshness()
    relay_miners: tuple[Mapping[str, Any], ...] = ()
    suppliers: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Links:
    """Addresses outside of the console, empty without any.

    `block` and `transaction` are templates with `{height}` and `{hash}`.
    """

    block: str = ""
    transaction: str = ""
    dashboards: str = ""


@dataclass(frozen=True, slots=True)
class ConsoleSnapshot:
    """All that is known at one time (monotonic seconds).

    `version` grows with every round of polling.
    """

    version: int
    taken_at: float
    miners: tuple[MinerSnapshot, ...] = ()
    relayers: tuple[RelayerSnapshot, ...] = ()
    cluster: ClusterSnapshot | None = None
