"""What pods answer at /report, as far as it is used here: what other versions say beside it is left out."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pocket.api.problems import Problem
from pocket.api.status import LastEvents, Stake, SupplierSessions
from pocket_operator.resources import names


class _ReportModel(BaseModel):
    """Absent fields have defaults; one of another type makes the whole answer unreadable: nothing is guessed."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ReportedSessions(SupplierSessions):
    """Open sessions by where they are."""

    model_config = ConfigDict(extra="ignore")


class ReportedEvents(LastEvents):
    """The last session of each kind."""

    model_config = ConfigDict(extra="ignore")


class ReportedStake(Stake):
    """What the chain says of a supplier."""

    model_config = ConfigDict(extra="ignore")


class ReportedSupplier(_ReportModel):
    """A miner's figures of one supplier. `open` has no default: a supplier must not leave before it is 0."""

    open: int = Field(ge=0)
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


class ChainDiagnostic(_ReportModel):
    """What a miner has to say of the chain's nodes."""

    reason: str
    text: str


class RecentRelays(_ReportModel):
    """What a relayer did lately; `seconds` over the `timed` ones."""

    served: float = 0
    failed: float = 0
    timed: float = 0
    seconds: float = 0


class PodReportBody(_ReportModel):
    """A relayer's or miner's answer.

    keys: digest of the loaded public keys, which are those of `addresses`.
    problems: why it is not ready, with codes; `redis` why it cannot reach Redis, `volume` what is
    wrong with a miner's volume.
    leaving: suppliers whose relays a relayer may still record, though not all of its workers have the key.
    complete: whether all workers of a relayer are in the answer.
    owned: what a miner mines for; looked: seconds since its latest look for relays of each began.
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
    recent: RecentRelays = RecentRelays()


@dataclass(frozen=True, slots=True)
class Report:
    """What a pod answered, and when (seconds on the operator's monotonic clock)."""

    pod: str
    answer: PodReportBody
    at: float

    @classmethod
    def of(cls, pod: str, body: Any, at: float = 0.0) -> "Report":
        """From JSON; raises pydantic's ValidationError."""
        return cls(pod, PodReportBody.model_validate(body), at)

    @property
    def component(self) -> str:
        """Which workload: relayer or miner."""
        return self.answer.component

    @property
    def addresses(self) -> frozenset[str]:
        """Suppliers whose keys the pod has."""
        return self.answer.addresses

    def may_record(self, address: str) -> bool:
        """Whether a relayer may still record relays of a supplier."""
        told = self.answer
        return not told.complete or address in told.addresses or address in told.leaving

    def looked_at(self, address: str) -> float:
        """When a miner's latest look for relays of a supplier began at the latest (operator's clock)."""
        return self.at - self.answer.looked.get(address, float("inf"))

    def owns(self, address: str) -> bool:
        """Whether this miner mines for a supplier: it holds the supplier's shard."""
        return self.component == names.MINER and address in self.answer.owned

    def supplier(self, address: str) -> ReportedSupplier | None:
        """The miner's figures of one supplier."""
        return self.answer.suppliers.get(address)
