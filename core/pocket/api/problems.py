"""Define the problems that relayers and miners report at /report.

Each has a code to decide by.
"""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class ProblemCode(StrEnum):
    """Reasons why a pod is not ready or rejects relays.

    Texts may be reworded, codes stay.
    """

    STARTING = "Starting"
    """The process starts, or its volume is being checked and opened."""
    DRAINING = "Draining"
    """The process ends: it accepts nothing new."""
    REDIS_UNAVAILABLE = "RedisUnavailable"
    """Redis cannot be used. A relayer that serves stays ready."""
    REDIS_FULL = "RedisFull"
    """Redis has used nine tenths of its memory, so relays are rejected. The relayer stays ready."""
    CHAIN_UNAVAILABLE = "ChainUnavailable"
    """A starting process waits for a chain node."""
    NO_NEW_BLOCK = "NoNewBlock"
    """No block has arrived for too long."""
    NO_KEYS = "NoKeys"
    """No supplier key is loaded."""
    SIGNER_UNAVAILABLE = "SignerUnavailable"
    """The remote signer has all keys and does not answer."""
    LOG_UNAVAILABLE = "LogUnavailable"
    """The relayer's write-ahead log cannot be written, so relays are rejected."""
    VOLUME_READ_ONLY = "VolumeReadOnly"
    """The miner's volume is read-only: only what is sealed is claimed and proven."""
    VOLUME_HANGS = "VolumeHangs"
    """The miner's volume neither answers nor fails."""
    WORKER_MISSING = "WorkerMissing"
    """Worker processes of the relayer have not reported yet."""
    WORKER_HUNG = "WorkerHung"
    """A worker process of the relayer does not respond. It is killed and replaced."""


class ChainFinding(StrEnum):
    """What a miner finds about chain nodes and its clock.

    The operator's conditions have the same reasons.
    """

    GAS_PRICE_TOO_LOW = "GasPriceTooLow"
    """The node accepts no transaction at the configured gas price."""
    CLOCK_SKEWED = "ClockSkewed"
    """By the miner's clock, blocks are from the future or minutes old."""
    CHAIN_NODES_DISAGREE = "ChainNodesDisagree"
    """A chain node is behind, unreachable, or on another fork or chain."""


class Problem(BaseModel):
    """One reason with its message for people.

    `code` is a ProblemCode, or one that this version does not know.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    code: str
    message: str

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, value: Any) -> Any:
        """Accept the plain messages that pods of older versions report."""
        return {"code": "", "message": value} if isinstance(value, str) else value

    def __str__(self) -> str:
        return self.message
