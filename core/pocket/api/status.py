"""Define the status that the operator reports.

It has conditions as kstatus reads them, and their details.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from pocket.api.base import Model
from pocket.api.schema import list_map
from pocket.api.stake import StakingStatus


class ConditionType(StrEnum):
    """Types of conditions.

    Reconciling, Stalled and Paused are True in an exceptional state, the others when all is well.
    """

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    KEYS_LOADED = "KeysLoaded"
    CHAIN_REACHABLE = "ChainReachable"
    REDIS_REACHABLE = "RedisReachable"
    VOLUMES_HEALTHY = "VolumesHealthy"
    STAKED = "Staked"
    CLAIMS_HEALTHY = "ClaimsHealthy"
    PAUSED = "Paused"
    SCHEMA_CURRENT = "SchemaCurrent"
    SUPPLIERS_SERVED = "SuppliersServed"
    STAKE_AS_DECLARED = "StakeAsDeclared"
    UP_TO_DATE = "UpToDate"
    OPERATOR_CONFLICT = "OperatorConflict"
    AUDIT_TRAILS_INTACT = "AuditTrailsIntact"


class Condition(Model):
    """A condition.

    Its message describes the state and, if something is wrong, the remedy.
    """

    type: Annotated[str, Field(max_length=64)]
    status: Literal["True", "False", "Unknown"]
    observed_generation: int = Field(default=0, ge=0)
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    reason: Annotated[str, Field(max_length=64)]
    message: Annotated[str, Field(max_length=32768)] = ""


class Workload(Model):
    """The pods of one workload."""

    replicas: int = Field(default=0, description="Pods that exist.")
    ready: int = Field(default=0, description="Pods that are ready.")
    summary: str = Field(default="", description="Ready and wanted pods, as in 2/3.")
    selector: str = Field(default="", description="Label selector of the pods, for the scale subresource.")


class KeySetStatus(Model):
    """The published key set."""

    published: int = Field(default=0, description="Suppliers whose keys are published.")
    digest: str = Field(default="", description="SHA-256 over the sorted public keys that relayers should load.")
    loaded_by: str = Field(default="", description="Pods that report the published set, as in 3/3.")


class RolloutStatus(Model):
    """Progress of a new revision of the relayers."""

    phase: str = Field(default="", description="Empty, Observing while a canary runs, or Failed.")
    revision: str = Field(default="", description="Digest of the desired pod template.")


class UpdateStatus(Model):
    """Progress of an update to the operator's release."""

    phase: str = Field(
        default="",
        description="Empty, Queued, AwaitingApproval, Relayers, WaitingForWindows, Miners or Failed.",
    )
    target: str = Field(default="", description="Name of the update: a digest of images and pod templates.")
    message: str = Field(default="", max_length=4096, description="What happens now or what the update waits for.")


class ConsoleStatus(Model):
    """The console's pod."""

    ready: bool = Field(default=False, description="True while it serves its pages.")
    endpoint: str = Field(default="", description="Address of the console inside the cluster.")
    problem: str = Field(default="", max_length=1024, description="Why its pod does not start, empty if unknown.")


class AuditHeadStatus(Model):
    """The newest outcome in a miner's audit trail.

    Its hash covers all outcomes before it.
    """

    pod: str = Field(max_length=253)
    number: int = Field(ge=0)
    hash: str = Field(default="", max_length=64)


class RelayMinerStatus(Model):
    """The observed state of a RelayMiner."""

    observed_generation: int = 0
    conditions: Annotated[tuple[Condition, ...], Field(json_schema_extra=list_map("type"))] = ()
    relayers: Workload = Workload()
    miners: Workload = Workload()
    rollout: RolloutStatus = RolloutStatus()
    update: UpdateStatus = UpdateStatus()
    suppliers: int = Field(default=0, description="Suppliers that name this RelayMiner.")
    served: str = Field(default="", description="Suppliers served and mined, of those not being deleted, as in 6/7.")
    keys: KeySetStatus = KeySetStatus()
    height: int = Field(default=0, description="Latest block that a miner reports.")
    version: str = Field(default="", description="Image of the relayers.")
    operator: str = Field(default="", description="Namespace of the operator that manages this RelayMiner.")
    endpoint: str = Field(default="", description="Address of the relayers inside the cluster.")
    console: ConsoleStatus | None = None
    audit: Annotated[tuple[AuditHeadStatus, ...], Field(max_length=64, json_schema_extra=list_map("pod"))] = ()


class SupplierSessions(Model):
    """Numbers of unsettled sessions by stage."""

    active: int = 0
    claimable: int = 0
    claimed: int = 0
    proven: int = 0
    proof_not_required: int = Field(default=0, description="Claimed, paid without a proof.")


class LastEvents(Model):
    """The last session of each kind, as `session id at height`."""

    claim: str = ""
    proof: str = ""
    settlement: str = ""
    loss: str = Field(default="", description="The last session that was lost, with the reason.")


class Stake(Model):
    """The supplier's stake on chain."""

    amount_upokt: int | None = Field(default=None, description="Stake, upokt.")
    services: tuple[str, ...] = ()
    unstake_session_end_height: int = Field(
        default=0, description="Last block of its last session while unstaking, else 0."
    )


OTHERS: Final = "others"
MOST_RECIPIENTS: Final = 16


class Earning(Model):
    """Earnings of one recipient on the supplier's side."""

    recipient: str = Field(max_length=128, description="Address, or `others` for those that are not listed.")
    upokt: int = Field(default=0, description="Amount, upokt.")


class NextDeadline(Model):
    """The block before which the next claim or proof must be on chain."""

    kind: Literal["claim", "proof"]
    height: int = Field(ge=0)
    sessions: int = Field(default=1, description="Sessions that must meet it.")


class DrainProgress(Model):
    """The drain before a supplier unstakes."""

    done: bool = Field(default=False, description="True once no relayer serves it and no session is open.")
    reason: Annotated[str, Field(max_length=4096)] = ""


class DayStatus(Model):
    """Outcomes of the last UTC day with any."""

    date: str = Field(default="", max_length=10, description="As in 2026-11-29.")
    earned: Annotated[
        tuple[Earning, ...], Field(max_length=MOST_RECIPIENTS, json_schema_extra=list_map("recipient"))
    ] = ()
    earned_upokt: int = 0
    fees_upokt: int = 0
    settled: int = Field(default=0, description="Sessions that were paid.")
    lost: int = Field(default=0, description="Sessions that were not paid although they were worth claiming.")


class Funds(Model):
    """The account that pays the fees of claims and proofs."""

    balance_upokt: int | None = Field(default=None, description="Balance, upokt.")
    fees_per_day_upokt: int | None = Field(default=None, description="Mean fees of the last complete days, upokt.")
    days_left: int | None = Field(default=None, description="Days for which the balance pays such fees.")


class CountedTrail(Model):
    """How far the audit trail of one miner's volume is counted in the earnings."""

    trail: str = Field(min_length=1, max_length=64, description="Identifier of the audit trail.")
    number: int = Field(default=0, ge=0, description="Number of the last outcome that is counted.")


class CountedSessions(Model):
    """Sessions that ended at one height and are counted in the earnings."""

    end: int = Field(ge=0, description="Session end height.")
    sessions: Annotated[
        tuple[Annotated[str, Field(max_length=64)], ...],
        Field(max_length=1024, description="Beginnings of their session ids."),
    ] = ()


class CountedFees(Model):
    """Fees of the sessions that ended on one UTC day."""

    date: str = Field(max_length=10, description="As in 2026-11-29.")
    upokt: int = Field(default=0, description="Fees, upokt.")


class BooksStatus(Model):
    """The outcomes that the earnings include.

    So no outcome counts twice, and none goes with its miner.
    """

    trails: Annotated[tuple[CountedTrail, ...], Field(max_length=64, json_schema_extra=list_map("trail"))] = ()
    sessions: Annotated[
        tuple[CountedSessions, ...],
        Field(
            max_length=512,
            description="The newest ones, which another miner may conclude, too.",
            json_schema_extra=list_map("end"),
        ),
    ] = ()
    fees: Annotated[tuple[CountedFees, ...], Field(max_length=16, json_schema_extra=list_map("date"))] = ()


class SupplierStatus(Model):
    """The observed state of a Supplier."""

    observed_generation: int = 0
    conditions: Annotated[tuple[Condition, ...], Field(json_schema_extra=list_map("type"))] = ()
    address: str = Field(default="", description="Address derived from the key.")
    loaded_by: str = Field(default="", description="Pods that have the key, as in 3/3.")
    published_generation: int = Field(
        default=0,
        description="Generation of the Supplier with which its key was last published to pods, 0 if never.",
    )
    miner: str = Field(default="", description="Pod that mines for this supplier.")
    operator: str = Field(default="", description="Namespace of the operator that manages this Supplier.")
    stake: Stake = Stake()
    staking: StakingStatus | None = Field(default=None, description="What is done to make the stake as declared.")
    sessions: SupplierSessions = SupplierSessions()
    open_sessions: int = Field(default=0, description="Sessions that are not settled or lost yet, as last reported.")
    last: LastEvents = LastEvents()
    earned_upokt: int = Field(
        default=0,
        description="Paid by settled sessions to the supplier's operator, owner and shareholders together, upokt.",
    )
    earned: Annotated[
        tuple[Earning, ...], Field(max_length=MOST_RECIPIENTS, json_schema_extra=list_map("recipient"))
    ] = ()
    day: DayStatus = DayStatus()
    books: BooksStatus = BooksStatus()
    drain: DrainProgress | None = None
    next_deadline: NextDeadline | None = None
    funds: Funds = Funds()
    resealed: str = Field(
        default="", description="The key sealed to the newest sealing key. Replace spec.key.sealed with it."
    )


def as_status(status: Model) -> dict[str, Any]:
    """Return the status as the API server stores it."""
    return status.model_dump(by_alias=True, mode="json", exclude_none=True)


def timestamp(now: datetime) -> str:
    """Return a UTC time in Kubernetes' format."""
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")
