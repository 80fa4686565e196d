"""Share one event loop's CPU time fairly between applications by deficit round robin."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from pocket_relayer.rejection import Rejected, RejectionReason

QUANTUM: Final = 1.0
"""Cost that a flow may spend in one round: about that of verifying one relay."""
PER_ITERATION: Final = 8 * QUANTUM
"""Cost granted in one iteration of the event loop, which has a cost of its own."""
MAX_WAITING: Final = 20_000
MAX_WAIT_SECONDS: Final = 2.0


def busy() -> Rejected:
    """Return the rejection of a relay that would wait too long for its turn."""
    return Rejected(RejectionReason.OVERLOADED, "too many relays wait for verification, try another supplier")


@dataclass(frozen=True, slots=True)
class _Turn:
    cost: float
    since: float
    ready: "asyncio.Future[None]"


@dataclass(slots=True)
class _Flow:
    """Waiting turns of one key, and the cost that it may still spend in this round."""

    deficit: float = 0.0
    turns: deque[_Turn] = field(default_factory=deque)


class FairQueue:
    """Grants a few turns per iteration of the event loop, to the waiting keys in rounds.

    The work of a turn follows it without another await. So a key with many or costly turns delays another key by one
    quantum per round, however many turns it queues. Nothing waits while there is no contention.
    """

    def __init__(self, clock: Callable[[], float], max_waiting: int = MAX_WAITING) -> None:
        self._clock = clock
        self._max_waiting = max_waiting
        self._flows: OrderedDict[str, _Flow] = OrderedDict()
        self._waiting = 0
        self._spent = 0.0
        """Cost granted in this iteration of the event loop."""

    def take_free_turn(self, cost: float = QUANTUM) -> bool:
        """Take a turn without waiting, and return False if others wait for theirs."""
        if self._flows or self._spent >= PER_ITERATION:
            return False
        if not self._spent:
            asyncio.get_running_loop().call_soon(self._grant_next)
        self._spent += cost
        return True

    async def turn(self, key: str, cost: float = QUANTUM) -> None:
        """Wait for a turn of a key.

        Raises Rejected if the key's queue is full, or if its turn took longer than MAX_WAIT_SECONDS.
        """
        if self.take_free_turn(cost):
            return
        flow = self._flows.get(key)
        # Beyond the limit, keys without waiting turns still get one each, up to the same number.
        if self._waiting >= (2 if flow is None else 1) * self._max_waiting:
            raise busy()
        if flow is None:
            flow = self._flows[key] = _Flow()
        turn = _Turn(cost, self._clock(), asyncio.get_running_loop().create_future())
        flow.turns.append(turn)
        self._waiting += 1
        await turn.ready

    def _grant_next(self) -> None:
        """Grant the next turns, and come back in the next iteration if there were any."""
        self._spent = 0.0
        while self._flows and self._spent < PER_ITERATION:
            self._grant_one()
        if self._spent:
            asyncio.get_running_loop().call_soon(self._grant_next)

    def _grant_one(self) -> None:
        """Grant a turn of the first key, or move it behind the others for the rest of this round."""
        key, flow = next(iter(self._flows.items()))
        turn = flow.turns[0]
        cancelled = turn.ready.done()
        if not cancelled and flow.deficit < turn.cost:
            flow.deficit += QUANTUM
            if flow.deficit < turn.cost:
                self._flows.move_to_end(key)
                return
        flow.turns.popleft()
        self._waiting -= 1
        if not cancelled:
            flow.deficit -= turn.cost
        if not flow.turns:
            del self._flows[key]
        elif flow.deficit < flow.turns[0].cost:
            self._flows.move_to_end(key)
        if cancelled:
            return
        if self._clock() - turn.since > MAX_WAIT_SECONDS:
            turn.ready.set_exception(busy())
            return
        self._spent += turn.cost
        turn.ready.set_result(None)
