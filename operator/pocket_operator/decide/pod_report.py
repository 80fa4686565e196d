"""Models of the pods' /report, limited to the fields that the operator uses."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pocket.api.problems import Problem
from pocket.api.status import LastEvents, NextDeadline, Stake, SupplierSessions
from pocket_operator.resources import names


class _ReportModel(BaseModel):
    """Base of the models of a report.

    Absent fields have defaults, and a field of another type invalidates the report.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)


class ReportedSessions(SupplierSessions):
    """Open sessions by stage."""

    model_config = ConfigDict(extra="ignore")


class ReportedEvents(LastEvents):
    """The last session of each outcome."""

    model_config = ConfigDict(extra="ignore")


class ReportedStake(Stake):
    """The on-chain stake of a supplier."""

    model_config = ConfigDict(extra="ignore")


class ReportedDeadline(NextDeadline):
    """The next deadline of a supplier."""

    model_config = ConfigDict(extra="ignore")


class ReportedDay(_ReportModel):
    """What one miner recorded for a supplier on one UTC day, amounts in upokt."""

    date: str
    earned_by: dict[str, int] = {}
    fees_upokt: int = 0
    settled: int = 0
    lost: int = 0


class ReportedAudit(_ReportModel):
    """The head of a miner's audit trail.

    `trail` identifies the trail, empty in reports of older miners.
    """

    trail: str = Field(default="", max_length=64)
    number: int = Field(ge=0)
    hash: str = Field(max_length=64)


class ReportedSupplier(_ReportModel):
    """A miner's report of one supplier.

    `open` has no default: a supplier must not leave before it is 0.
    """

    open: int = Field(ge=0)
    closing: int = 0
    """Sessions that owe a claim or proof in the last third of its window."""
    sessions: ReportedSessions = ReportedSessions()
    last: ReportedEvents = ReportedEvents()
    earned_by: dict[str, int] = {}
    lost_recently: int = 0
    staked: bool | None = None
    stake: ReportedStake | None = None
    transports: dict[str, tuple[int, ...]] = {}
    endpoint_problems: tuple[str, ...] = ()
    balance_upokt: int | None = None
    public_key_on_chain: bool | None = None
    deadline: ReportedDeadline | None = None
    day: ReportedDay | None = None
    fees_per_day_upokt: int | None = None
    fees_by_day: dict[str, int] = {}

    @field_validator("deadline", mode="before")
    @classmethod
    def _of_known_kind(cls, value: Any) -> Any:
        """Leave out a deadline of a kind that only a newer miner knows.

        The report is not refused for it.
        """
        return None if isinstance(value, Mapping) and value.get("kind") not in ("claim", "proof") else value


class ChainDiagnostic(_ReportModel):
    """A miner's finding about chain nodes or its clock."""

    reason: str
    text: str


class RecentRelays(_ReportModel):
    """Counts of a relayer's recent relays.

    `seconds` is the total of the `timed` ones.
    """

    served: float = 0
    failed: float = 0
    timed: float = 0
    seconds: float = 0


class PodReportBody(_ReportModel):
    """The body of a relayer's or miner's report.

    keys: digest of the loaded public keys, which are those of `addresses`.
    problems: why it is not ready, with codes. `redis`: why it cannot reach Redis.
    volume: what is wrong with a miner's volume.
    leaving: suppliers whose relays a relayer may still record, though not all of its workers have the key.
    complete: True if all workers of a relayer are in the report.
    owned: suppliers that a miner mines for. `looked`: seconds since its latest scan of each one's streams began.
    """

    component: str
    addresses: frozenset[str] = frozenset()
    leaving: frozenset[str] = frozenset()
    complete: bool = True
    keys: str = ""
    height: int = 0
    problems: tuple[Problem, ...] = ()
    owned: frozenset[str] = frozenset()
    looked: dict[str, float] = {}
    redis: str | None = None
    volume: str | None = None
    chain: tuple[ChainDiagnostic, ...] = ()
    suppliers: dict[str, ReportedSupplier] = {}
    audit: ReportedAudit | None = None
    recent: RecentRelays = RecentRelays()


@dataclass(frozen=True, slots=True)
class Report:
    """A pod's report and its time of arrival.

    The time is in seconds on the operator's monotonic clock.
    """

    pod: str
    answer: PodReportBody
    at: float

    @classmethod
    def of(cls, pod: str, body: Any, at: float = 0.0) -> "Report":
        """Parse JSON. Raises pydantic's ValidationError."""
        return cls(pod, PodReportBody.model_validate(body), at)

    @property
    def component(self) -> str:
        """The workload: relayer or miner."""
        return self.answer.component

    @property
    def addresses(self) -> frozenset[str]:
        """Suppliers whose keys the pod has."""
        return self.answer.addresses

    def may_record(self, address: str) -> bool:
        """Return True if a relayer may still record relays of a supplier."""
        body = self.answer
        return not body.complete or address in body.addresses or address in body.leaving

    def last_scan_began(self, address: str) -> float:
        """Return when a miner's last scan of a supplier's streams began.

        At the latest, on the operator's clock.
        """
        return self.at - self.answer.looked.get(address, float("inf"))

    def owns(self, address: str) -> bool:
        """Return True if this miner mines for a supplier: it owns the supplier's shard."""
        return self.component == names.MINER and address in self.answer.owned

    @property
    def trail(self) -> str:
        """The identifier of the miner's audit trail, empty if it reports none."""
        return self.answer.audit.trail if self.answer.audit is not None else ""

    def supplier(self, address: str) -> ReportedSupplier | None:
        """Return the miner's report of one supplier."""
        return self.answer.suppliers.get(address)
