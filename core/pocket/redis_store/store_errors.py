"""Errors of the ledger."""

from enum import StrEnum

from pocket.errors import PocketError


class RedisStoreError(PocketError):
    """Base of the ledger's errors."""


class SessionClosed(RedisStoreError):
    """The session is sealed or settled: the relay is not recorded and must not be acknowledged."""


class RedisTrouble(StrEnum):
    """Why Redis cannot be used at the moment."""

    UNREACHABLE = "unreachable"
    LOADING = "loading"
    REPLICA = "replica"
    BUSY = "busy"
    LOGIN = "login"
    OUT_OF_MEMORY = "out of memory"
    DISK = "disk"
    REFUSED = "refused"

    @property
    def passes(self) -> bool:
        """Whether the same command may succeed within seconds, without anybody's doing."""
        return self not in (RedisTrouble.OUT_OF_MEMORY, RedisTrouble.DISK, RedisTrouble.REFUSED)


class RedisUnavailable(RedisStoreError):
    """Redis did not take the record in time."""

    def __init__(self, message: str, trouble: RedisTrouble = RedisTrouble.UNREACHABLE) -> None:
        super().__init__(message)
        self.trouble = trouble


class QueueFull(RedisStoreError):
    """More relays are waiting to be recorded than the queue holds, or Redis is above its memory mark."""


class StaleEpoch(RedisStoreError):
    """Another owner has a higher epoch, `epoch`: this one must stop writing."""

    def __init__(self, message: str, epoch: int) -> None:
        super().__init__(message)
        self.epoch = epoch


class ConcurrentAppend(RedisStoreError):
    """The stream grew since the leaf set was read; read on and seal again."""


class FenceMissing(ConcurrentAppend):
    """Redis does not know this owner's epoch (it came back empty, or went back in time): fence again, then write."""


class RedisNotDurable(RedisStoreError):
    """Redis is configured so that relays can be lost; the message says what to change."""
