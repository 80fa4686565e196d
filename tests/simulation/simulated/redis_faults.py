"""What befalls Redis in a life."""

import asyncio
from typing import Any

from simulated.judges import Judges
from simulated.plan import Fault, Kind
from simulated.system import Program, System
from world import address

_BEHIND_SECONDS = (0.0, 20.0)  # of the clock of a Redis that takes over


class RedisFaults:
    """Acts upon Redis that a life may refuse, because they would destroy the last copy of a relay."""

    system: System
    judges: Judges
    _redis_back_at: int

    def _may_lose(self, what: str, **lost: Any) -> bool:
        raise NotImplementedError

    async def _redis_crash(self, fault: Fault, _: Program | None) -> None:
        empty, redis = fault.kind is Kind.REDIS_EMPTY, self.system.redis
        data = type(redis.primary.model.data)() if empty else redis.older(fault.share)
        if not redis.primary.up or not self._may_lose("Redis", redis=data):
            return
        self.system.tell(f"{fault}")
        redis.crash()
        redis.behind_seconds = _BEHIND_SECONDS[fault.seed % len(_BEHIND_SECONDS)]
        redis.restart(data)
        redis.primary.up = False
        await asyncio.sleep(fault.seconds / 2)
        redis.primary.up = redis.primary.loading = True
        await asyncio.sleep(fault.seconds / 2)
        redis.primary.loading = False
        self._redis_back_at = self.system.chain.height
        self.system.tell("Redis: ready again")

    def _redis_fail_over(self, fault: Fault, _: Program | None) -> None:
        redis = self.system.redis
        data = redis.older(fault.share)
        if not redis.primary.up or redis.primary.loading or not self._may_lose("Redis", redis=data):
            return
        self.system.tell(f"{fault}")
        redis.behind_seconds = _BEHIND_SECONDS[fault.seed % len(_BEHIND_SECONDS)]
        redis.fail_over(data, cut=bool(fault.seed % 2))
        self._redis_back_at = self.system.chain.height

    def _redis_key_lost(self, fault: Fault, _: Program | None) -> None:
        redis, operator = self.system.redis, address(fault.target).encode()
        keys = sorted(key for key in redis.primary.model.data.values if operator in key)
        if not keys or not redis.primary.up:
            return
        data, key = redis.primary.model.data.copy(), keys[fault.seed % len(keys)]
        data.values.pop(key), data.ends.pop(key, None)
        if self._may_lose("Redis", redis=data):
            self.system.tell(f"{fault}: {key.decode().replace(address(fault.target), fault.target)}")
            redis.primary.model.data = data
