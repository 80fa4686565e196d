"""Errors of the ledger."""

from shannon.errors import PocketError


class LedgerError(PocketError):
    """Base of the ledger's errors."""


class SessionClosed(LedgerError):
    """The session is sealed or settled: the relay is not recorded and must not be acknowledged."""


class LedgerUnavailable(LedgerError):
    """Redis did not take the record in time."""


class LedgerFull(LedgerError):
    """More relays are waiting to be recorded than the queue holds, or Redis is above its memory mark."""


class Fenced(LedgerError):
    """Another owner has a higher epoch, `epoch`: this one must stop writing."""

    def __init__(self, message: str, epoch: int) -> None:
        super().__init__(message)
        self.epoch = epoch


class StaleView(LedgerError):
    """The stream grew since the leaf set was read; read on and seal again."""


class Unfenced(StaleView):
    """Redis does not know this owner's epoch (it came back empty, or went back in time): fence again, then write."""


class UnsafeRedis(LedgerError):
    """Redis is configured so that relays can be lost; the message says what to change."""
