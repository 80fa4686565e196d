"""Errors of the Redis store."""

from enum import StrEnum

from pocket.errors import PocketError


class RedisStoreError(PocketError):
    """Base of the Redis store's errors."""


class SessionClosed(RedisStoreError):
    """The session is sealed or settled.

    The relay is not recorded and must not be acknowledged.
    """


class LogUnavailable(RedisStoreError):
    """The write-ahead log takes no writes.

    The relay is certainly not recorded, now or later.
    """


class RedisTrouble(StrEnum):
    """Reasons for which Redis cannot be used at the moment."""

    UNREACHABLE = "unreachable"
    LOADING = "loading"
    REPLICA = "replica"
    BUSY = "busy"
    LOGIN = "login"
    OUT_OF_MEMORY = "out of memory"
    DISK = "disk"
    REJECTED = "rejected"

    @property
    def is_transient(self) -> bool:
        """Return True if the same command may succeed within seconds without intervention."""
        return self not in (RedisTrouble.OUT_OF_MEMORY, RedisTrouble.DISK, RedisTrouble.REJECTED)


class RedisUnavailable(RedisStoreError):
    """Redis did not execute a command in time, or rejected it."""

    def __init__(self, message: str, trouble: RedisTrouble = RedisTrouble.UNREACHABLE) -> None:
        super().__init__(message)
        self.trouble = trouble


class CommandRejected(RedisUnavailable):
    """Redis rejected one command, such as one on a key of another type.

    Other commands may succeed.
    """


def foreign_reply(reply: object) -> RedisUnavailable:
    """Return the error for a reply that Redis does not give to the command.

    Another program answered, such as a proxy.
    """
    return RedisUnavailable(f"this is not Redis's reply to the command, does a proxy answer? {ascii(reply)[:60]}")


class QueueFull(RedisStoreError):
    """Too many relays wait to be recorded, or for their budget."""


class StaleEpoch(RedisStoreError):
    """Another owner has the higher epoch `epoch`. This owner must stop writing."""

    def __init__(self, message: str, epoch: int) -> None:
        super().__init__(message)
        self.epoch = epoch


class ConcurrentAppend(RedisStoreError):
    """The stream grew since the leaf set was read. Read on and seal again."""


class FenceMissing(ConcurrentAppend):
    """Redis does not know this owner's epoch: it is empty or older.

    Fence again, then write.
    """


class RedisNotDurable(RedisStoreError):
    """Redis is configured so that relays can be lost.

    The message names the setting to change.
    """
