"""Name the reasons of conditions and Events.

The names are stable, so alerts and scripts may match them.
"""

from dataclasses import dataclass
from enum import StrEnum

from pocket.staking.stake_model import StakeRefusal


class ConditionReason(StrEnum):
    """All reasons of the operator. docs/troubleshoot.md has the remedy of each."""

    # well
    READY = "Ready"
    LOADED = "Loaded"
    REACHABLE = "Reachable"
    STAKED = "Staked"
    STAKED_SERVICE_NOT_CONFIGURED = "StakedServiceNotConfigured"
    ENDPOINTS_BROKEN = "EndpointsBroken"
    CLAIMS_HEALTHY = "ClaimsHealthy"
    NOT_PAUSED = "NotPaused"
    NOT_RECONCILING = "NotReconciling"
    NOT_STALLED = "NotStalled"
    ALL_SERVED = "AllServed"
    SCHEMA_MATCHES = "SchemaMatches"
    UP_TO_DATE = "UpToDate"
    AUDIT_TRAILS_INTACT = "AuditTrailsIntact"
    # going on
    ROLLING_OUT = "RollingOut"
    OBSERVING_CANARY = "ObservingCanary"
    UPDATE_QUEUED = "UpdateQueued"
    AWAITING_APPROVAL = "AwaitingApproval"
    UPDATING = "Updating"
    LOADING_KEYS = "LoadingKeys"
    DRAINING = "Draining"
    PAUSED = "Paused"
    NO_REPORT = "NoReport"
    # waits for a user
    NO_SUPPLIERS = "NoSuppliers"
    SUPPLIERS_NOT_READY = "SuppliersNotReady"
    SUPPLIERS_NOT_SERVED = "SuppliersNotServed"
    RELAY_MINER_MISSING = "RelayMinerMissing"
    RELAY_MINER_NOT_READY = "RelayMinerNotReady"
    SECRET_MISSING = "SecretMissing"  # noqa: S105 - a reason
    SECRET_KEY_MISSING = "SecretKeyMissing"  # noqa: S105 - a reason
    KEY_MALFORMED = "KeyMalformed"
    ADDRESS_MISMATCH = "AddressMismatch"
    SIGNER_NOT_CONFIGURED = "SignerNotConfigured"
    SEALED_KEY_INVALID = "SealedKeyInvalid"
    SEALED_KEY_SCOPE_MISMATCH = "SealedKeyScopeMismatch"
    SEALING_KEY_NOT_FOUND = "SealingKeyNotFound"
    REDIS_SECRET_MISSING = "RedisSecretMissing"  # noqa: S105 - a reason
    PODS_NOT_READY = "PodsNotReady"
    UPDATE_FAILED = "UpdateFailed"
    REDIS_UNREACHABLE = "RedisUnreachable"
    CHAIN_UNREACHABLE = "ChainUnreachable"
    VOLUME_BEING_DELETED = "VolumeBeingDeleted"
    VOLUME_EXPANDING = "VolumeExpanding"
    VOLUME_NOT_EXPANDED = "VolumeNotExpanded"
    VOLUME_FILLING = "VolumeFilling"
    VOLUME_READ_ONLY = "VolumeReadOnly"
    VOLUME_HANGS = "VolumeHangs"
    VOLUMES_FINE = "VolumesFine"
    GAS_PRICE_TOO_LOW = "GasPriceTooLow"
    CLOCK_SKEWED = "ClockSkewed"
    CHAIN_NODES_DISAGREE = "ChainNodesDisagree"
    NOT_STAKED = "NotStaked"
    SERVICES_NOT_STAKED = "ServicesNotStaked"
    UNSTAKING = "Unstaking"
    SESSION_LOST = "SessionLost"
    BALANCE_LOW = "BalanceLow"
    PUBLIC_KEY_MISSING = "PublicKeyMissing"
    AUDIT_TRAIL_CUT = "AuditTrailCut"
    CRD_OLDER = "CRDOlder"
    CRD_NEWER = "CRDNewer"
    # cannot go on
    KEY_IN_USE = "KeyInUse"
    PREFIX_IN_USE = "PrefixInUse"
    OTHER_OPERATOR = "OtherOperator"
    INVALID_SPEC = "InvalidSpec"
    FOREIGN_OBJECT = "ForeignObject"
    API_SERVER_REJECTED = "APIServerRejected"
    CANARY_FAILED = "CanaryFailed"
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"


class StakeReason(StrEnum):
    """Reasons of the condition StakeAsDeclared.

    Those of a refused plan come in addition (docs/staking.md).
    """

    AS_DECLARED = "AsDeclared"
    PENDING = "Pending"
    DIFFERS = "Differs"
    AWAITS_APPROVAL = "AwaitsApproval"
    DRAINING = "Draining"
    SIGNING = "Signing"
    TRANSACTION_SENT = "TransactionSent"
    TRANSACTION_INCLUDED = "TransactionIncluded"
    TRANSACTION_FAILED = "TransactionFailed"
    SIMULATION_FAILED = "SimulationFailed"
    BUDGET_EXHAUSTED = "BudgetExhausted"
    RATE_LIMITED = "RateLimited"
    KEY_MISSING = "KeyMissing"
    CHAIN_UNREACHABLE = "ChainUnreachable"
    CRD_OLDER = "CRDOlder"


AnyStakeReason = StakeReason | StakeRefusal
"""A refused plan's reason is the condition's reason, too."""


PASSING = frozenset(
    {
        ConditionReason.ROLLING_OUT,
        ConditionReason.OBSERVING_CANARY,
        ConditionReason.UPDATE_QUEUED,
        ConditionReason.AWAITING_APPROVAL,
        ConditionReason.UPDATING,
        ConditionReason.LOADING_KEYS,
        ConditionReason.DRAINING,
        ConditionReason.PAUSED,
    }
)
"""Transitional reasons: reported as normal Events, not as warnings."""

STAKE_PASSING = frozenset(
    {
        StakeReason.PENDING,
        StakeReason.DIFFERS,
        StakeReason.AWAITS_APPROVAL,
        StakeReason.DRAINING,
        StakeReason.SIGNING,
        StakeReason.TRANSACTION_SENT,
        StakeReason.TRANSACTION_INCLUDED,
        StakeReason.RATE_LIMITED,
    }
)
"""Reasons of stakes that are reported as normal Events."""

STALLING = frozenset(
    {
        ConditionReason.KEY_IN_USE,
        ConditionReason.PREFIX_IN_USE,
        ConditionReason.INVALID_SPEC,
        ConditionReason.FOREIGN_OBJECT,
        ConditionReason.API_SERVER_REJECTED,
        ConditionReason.CANARY_FAILED,
        ConditionReason.PROGRESS_DEADLINE_EXCEEDED,
    }
)
"""Reasons that only an edit cures: they make Stalled true. All others recover once their cause is gone."""


@dataclass(frozen=True, slots=True)
class BlockingProblem:
    """Why none of the RelayMiner's children can be applied."""

    reason: ConditionReason
    message: str
