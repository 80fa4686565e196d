"""The problems that relayers and miners report at /report, with codes to decide by."""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class ProblemCode(StrEnum):
    """Reasons why a pod is not ready or rejects relays. Texts may be reworded, codes stay."""

    STARTING = "Starting"
    DRAINING = "Draining"
    REDIS_UNAVAILABLE = "RedisUnavailable"
    REDIS_FULL = "RedisFull"
    CHAIN_UNAVAILABLE = "ChainUnavailable"
    NO_NEW_BLOCK = "NoNewBlock"
    NO_KEYS = "NoKeys"
    SIGNER_UNAVAILABLE = "SignerUnavailable"
    LOG_UNAVAILABLE = "LogUnavailable"
    VOLUME_READ_ONLY = "VolumeReadOnly"
    VOLUME_HANGS = "VolumeHangs"
    WORKER_MISSING = "WorkerMissing"
    WORKER_HUNG = "WorkerHung"


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
