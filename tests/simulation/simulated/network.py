"""What lies between processes: every call takes time, and faults that hold at the moment decide what becomes of it."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterable

from simulated.loop import PROCESS, Loop
from simulated.plan import Fault, Kind

_QUICK = {"redis": 0.0015, "reply": 0.0015, "chain": 0.015, "rpc": 0.01, "leases": 0.005, "peer": 0.01, "backend": 0.02}


class Network:
    """Delays and losses of messages.

    `holding` are the lasting faults. `hits` counts their effects.
    """

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.holding: list[Fault] = []
        self.hits: Counter[str] = Counter()
        self._chances: dict[int, random.Random] = {}
        self.calls: Counter[str] = Counter()

    def of(self, *kinds: Kind, target: str = "") -> Iterable[Fault]:
        """Faults that hold now, of these kinds, for a target."""
        if not self.holding:
            return []
        return [f for f in self.holding if f.kind in kinds and f.target in ("", target)]

    def redis_is_slow(self) -> bool:
        return any(f.kind is Kind.REDIS_SLOW for f in self.holding)

    def redis_hangs(self) -> bool:
        """Return whether Redis takes what this process sends and answers nothing."""
        return any(self.of(Kind.REDIS_HANGS, target=PROCESS.get().name)) if self.holding else False

    def strikes(self, fault: Fault) -> bool:
        """Draws whether a fault that strikes now and then strikes this call."""
        chance = self._chances.get(fault.number)
        if chance is None:
            chance = self._chances[fault.number] = random.Random(fault.seed)
        struck = chance.random() < fault.share
        if struck:
            self.hits[fault.kind.value] += 1
        return struck

    async def pause(self, boundary: str) -> None:
        """Wait for the time that a message is in transit."""
        await self.loop.pause(_QUICK[boundary] * (0.5 + self.loop.chance.random()))

    async def redis(self, boundary: str, what: str) -> bool:
        """Deliver a command to Redis and return whether its reply is lost.

        Raises OSError if the command does not arrive.
        """
        if boundary != "reply":
            self.calls["redis"] += 1
            self.loop.note(PROCESS.get(), "redis", what)
        # A reply that comes at once spares half of the time; one that does not is where processes are killed.
        if boundary != "reply" or self.loop.chance.random() < 0.4:
            await self.pause(boundary)
        if not self.holding:
            return False
        me = PROCESS.get().name
        for fault in self.of(Kind.REDIS_SLOW, target=me):
            await asyncio.sleep(self.loop.chance.uniform(0, fault.share))
        if boundary == "reply":
            return False
        for fault in self.of(Kind.REDIS_CUT, target=me):
            if self.strikes(fault):
                raise ConnectionResetError("connection reset by peer")
        return any(self.strikes(fault) for fault in self.of(Kind.REDIS_REPLY_LOST, target=me))
