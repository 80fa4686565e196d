"""Which servers did not answer, and when each is asked again.

Without it every command to a node that hangs waits for its own deadline, and holds up whatever waits for the command.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from pocket.redis_store.node_addresses import Address, format_address

_FIRST_SECONDS: Final = 0.25
_LONGEST_SECONDS: Final = 1.0


@dataclass(slots=True)
class _Hung:
    failed_at: float
    ask_at: float
    pause_seconds: float
    probed_at: float = float("-inf")
    """When the command began that finds out whether the node answers again."""


class NodeBackoff:
    """Lets one command at a time find out whether a node that timed out answers again."""

    def __init__(self, clock: Callable[[], float], timeout_seconds: float) -> None:
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._answered_at: dict[Address, float] = {}
        self._hung: dict[Address, _Hung] = {}

    def admit(self, address: Address, *, waits: bool = False) -> float:
        """Return the time at which a command to the node begins.

        One that `waits` for news does not find out whether the node answers again: nothing need be new for a while.
        Raises redis-py's ConnectionError if the node is not asked at present.
        """
        now = self._clock()
        hung = self._hung.get(address)
        if hung is not None:
            if waits or now < hung.ask_at:
                raise RedisConnectionError(f"{format_address(address)} did not answer and is not asked yet")
            hung.probed_at, hung.ask_at = now, now + self._timeout_seconds  # unless this command ends before
        return now

    def answered(self, address: Address) -> None:
        """Record that the node answered."""
        self._answered_at[address] = self._clock()
        self._hung.pop(address, None)

    def timed_out(self, address: Address, begun: float) -> None:
        """Record that a command that began at `begun` was not answered in time.

        A node that answered a later command does not hang. Commands that waited together count as one.
        """
        now, hung = self._clock(), self._hung.get(address)
        if self._answered_at.get(address, float("-inf")) > begun or (hung is not None and begun < hung.failed_at):
            return
        pause = _FIRST_SECONDS if hung is None else min(_LONGEST_SECONDS, 2 * hung.pause_seconds)
        self._hung[address] = _Hung(now, now + pause, pause)

    def cancelled(self, address: Address, begun: float) -> None:
        """Let another command try the node: the one begun at `begun` was cancelled."""
        hung = self._hung.get(address)
        if hung is not None and begun == hung.probed_at:
            hung.ask_at = min(hung.ask_at, self._clock() + hung.pause_seconds)

    @contextlib.contextmanager
    def asked(self, address: Address, *, waits: bool = False) -> Iterator[None]:
        """Record whether a node answers what is asked within the context.

        Raises redis-py's ConnectionError if the node is not asked at present.
        """
        begun = self.admit(address, waits=waits)
        try:
            yield
        except (RedisTimeoutError, TimeoutError):
            self.timed_out(address, begun)
            raise
        except ResponseError:
            self.answered(address)
            raise
        except RedisConnectionError:
            self.forget(address)  # it refuses or cuts connections, so it does not hang
            raise
        except asyncio.CancelledError:
            self.cancelled(address, begun)
            raise
        else:
            self.answered(address)

    def forget(self, address: Address) -> None:
        """Forget a node that is no longer used."""
        self._answered_at.pop(address, None)
        self._hung.pop(address, None)
