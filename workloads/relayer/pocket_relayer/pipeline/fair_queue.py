"""Share one event loop's CPU time fairly by deficit round robin.

Client addresses take turns, and so do the applications of each address: any client can name any application.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from pocket_relayer.limits.rejection import Rejected, RejectionReason

QUANTUM: Final = 1.0
"""Cost that a flow may spend in one round: about that of verifying one relay."""
PER_ITERATION: Final = 8 * QUANTUM
"""Cost granted in one iteration of the event loop, which has a cost of its own."""
_SKIPPED: Final = 7
"""Iterations without turns, between two with turns, of a queue that gives way."""
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
    """Waiting turns of one application at one address.

    `deficit` is the cost that it may still spend in this round.
    """

    deficit: float = 0.0
    turns: deque[_Turn] = field(default_factory=deque)

    def may_spend(self, turn: _Turn) -> bool:
        """Return True if the turn may be granted in this round.

        One that was cancelled costs nothing.
        """
        return self.deficit >= turn.cost or turn.ready.done()


@dataclass(slots=True)
class _Address:
    """Waiting flows of one address by application.

    `deficit` is the cost that it may still spend in this round.
    """

    deficit: float = 0.0
    flows: OrderedDict[str, _Flow] = field(default_factory=OrderedDict)

    def first(self) -> tuple[str, _Flow]:
        """Return the application whose turn it is, with its flow."""
        while True:
            application, flow = next(iter(self.flows.items()))
            if not flow.may_spend(flow.turns[0]):
                flow.deficit += QUANTUM
            if flow.may_spend(flow.turns[0]):
                return application, flow
            self.flows.move_to_end(application)


def _never() -> bool:
    return False


class FairQueue:
    """Grants a few turns per iteration of the event loop.

    The waiting addresses and their applications get them in rounds. The work of a turn follows it without another
    await. So an address with many or costly turns delays another one by one quantum per round, however many turns it
    queues and applications it names. The same holds between the applications of one address. Nothing waits while there
    is no contention.

    After a turn that costs more than `per_iteration` the next iterations grant nothing: they belong to other work.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        max_waiting: int = MAX_WAITING,
        per_iteration: float = PER_ITERATION,
        *,
        gives_way: Callable[[], bool] = _never,
    ) -> None:
        """Create a queue.

        While `gives_way` returns True it grants turns in every eighth iteration only.
        """
        self._clock = clock
        self._per_iteration = per_iteration
        self._gives_way = gives_way
        self._skipped = 0
        self._max_waiting = max_waiting
        self._addresses: OrderedDict[str, _Address] = OrderedDict()
        self._waiting = 0
        self._spent = 0.0
        """Cost granted in this iteration of the event loop, and in earlier ones beyond their limit."""

    def take_free_turn(self, cost: float = QUANTUM) -> bool:
        """Take a turn without waiting, and return False if others wait for theirs."""
        if self._addresses or self._spent >= self._per_iteration:
            return False
        if not self._spent:
            asyncio.get_running_loop().call_soon(self._grant_next)
        self._spent += cost
        return True

    async def turn(self, address: str, cost: float = QUANTUM, application: str = "") -> None:
        """Wait for a turn of an address, and of an application there.

        Raises Rejected if the queue is full, or if the turn took longer than MAX_WAIT_SECONDS.
        """
        if self.take_free_turn(cost):
            return
        state = self._addresses.get(address)
        flow = None if state is None else state.flows.get(application)
        # Beyond the limit, applications without waiting turns still get one each, up to the same number, and then
        # addresses without waiting turns.
        if self._waiting >= (3 if state is None else 2 if flow is None else 1) * self._max_waiting:
            raise busy()
        if state is None:
            state = self._addresses[address] = _Address()
        if flow is None:
            flow = state.flows[application] = _Flow()
        turn = _Turn(cost, self._clock(), asyncio.get_running_loop().create_future())
        flow.turns.append(turn)
        self._waiting += 1
        await turn.ready

    def _grant_next(self) -> None:
        """Grant the next turns, and come back in the next iteration if there were any."""
        self._spent = max(0.0, self._spent - self._per_iteration)
        if self._addresses and self._skipped < _SKIPPED and self._gives_way():
            self._skipped += 1
            asyncio.get_running_loop().call_soon(self._grant_next)
            return
        self._skipped = 0
        while self._addresses and self._spent < self._per_iteration:
            self._grant_one()
        if self._spent:
            asyncio.get_running_loop().call_soon(self._grant_next)

    def _grant_one(self) -> None:
        """Grant a turn of the first address, or move it behind the others.

        It stays there for the rest of this round.
        """
        address, state = next(iter(self._addresses.items()))
        application, flow = state.first()
        turn = flow.turns[0]
        cancelled = turn.ready.done()
        if not cancelled and state.deficit < turn.cost:
            state.deficit += QUANTUM
            if state.deficit < turn.cost:
                self._addresses.move_to_end(address)
                return
        flow.turns.popleft()
        self._waiting -= 1
        if not cancelled:
            state.deficit -= turn.cost
            flow.deficit -= turn.cost
        if not flow.turns:
            del state.flows[application]
        elif flow.deficit < flow.turns[0].cost:
            state.flows.move_to_end(application)
        if not state.flows:
            del self._addresses[address]
        elif state.deficit < QUANTUM:
            self._addresses.move_to_end(address)
        if cancelled:
            return
        if self._clock() - turn.since > MAX_WAIT_SECONDS:
            turn.ready.set_exception(busy())
            return
        self._spent += turn.cost
        turn.ready.set_result(None)
