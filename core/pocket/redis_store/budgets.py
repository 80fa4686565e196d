"""Decide session budgets, replays and rate limits in Redis.

They hold for all workers. Invariant: of all charges of one (supplier, session), exactly those fit the budget that were
answered CHARGED and not refunded. Of identical signed requests at most one is CHARGED while Redis keeps its data.
"""

import asyncio
import contextlib
import functools
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from cachetools import FIFOCache
from redis.asyncio import Redis

from pocket.fast_init import fast_init
from pocket.redis_store.lua_scripts import Script
from pocket.redis_store.redis_errors import redis_deadline
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.store_errors import QueueFull, RedisTrouble, RedisUnavailable, foreign_reply
from pocket.redis_store.supplier_groups import SupplierGroups, Work

# KEYS: per charge: consumed, bucket of replays.   ARGV: per charge: cost, budget (-1 = none), seconds to keep, request
# id ('' = replays are not checked).   Returns a number per charge, see ChargeResult, or -1 where a key of the session
# has another type or holds no number. The others are charged all the same.
# Buckets stay small enough for the compact encoding of hashes (512 fields), about 20 bytes a relay.
_CHARGE: Final = Script("""
local out = {}
for i = 0, #KEYS / 2 - 1 do
  local consumed, bucket = KEYS[2 * i + 1], KEYS[2 * i + 2]
  local cost, budget, keep, id = ARGV[4 * i + 1], tonumber(ARGV[4 * i + 2]), ARGV[4 * i + 3], ARGV[4 * i + 4]
  local served = id == '' and 0 or redis.pcall('HEXISTS', bucket, id)
  local total = served == 0 and redis.pcall('INCRBY', consumed, cost)
  if served == 1 then
    out[#out + 1] = 1
  elseif type(total) ~= 'number' then
    local of_key = not total or string.find(total.err, 'WRONGTYPE') or string.find(total.err, 'integer or')
    if not of_key then return total end
    out[#out + 1] = -1
  else
    if total == tonumber(cost) then redis.call('EXPIRE', consumed, keep) end
    if budget >= 0 and total > budget then
      redis.call('DECRBY', consumed, cost)
      out[#out + 1] = 2
    else
      if id ~= '' and redis.call('HSET', bucket, id, '') == 1 and redis.call('HLEN', bucket) == 1 then
        redis.call('EXPIRE', bucket, keep)
      end
      out[#out + 1] = 0
    end
  end
end
return out
""")

# KEYS: per charge: consumed, bucket   ARGV: per charge: cost, request id.   Without a charge nothing is refunded.
_REFUND: Final = Script(
    """
for i = 0, #KEYS / 2 - 1 do
  if redis.call('EXISTS', KEYS[2 * i + 1]) == 1 then redis.call('DECRBY', KEYS[2 * i + 1], ARGV[2 * i + 1]) end
  if ARGV[2 * i + 2] ~= '' then redis.call('HDEL', KEYS[2 * i + 2], ARGV[2 * i + 2]) end
end
""",
    object,
)

_REJECTED: Final = -1


class ChargeResult(Enum):
    """Result of a charge."""

    CHARGED = 0
    REPLAYED = 1
    OVER_BUDGET = 2


_NUMBERS: Final = frozenset({_REJECTED, *(result.value for result in ChargeResult)})


@fast_init
@dataclass(frozen=True, slots=True)
class Charge:
    """One relay's charge on the budget of its session.

    Cost and budget are in upokt, a budget of None is unlimited. The charge is kept for keep_seconds, until the request
    can no longer be repeated. request_id is 16 bytes that identify the signed request, empty where replays do not
    matter.
    """

    supplier: str
    session_id: str
    cost: int
    budget: int | None
    keep_seconds: int
    request_id: bytes = b""


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """Limits of the budget queue. Times in seconds."""

    queue: int = 20_000
    batch: int = 512
    timeout_seconds: float = 1.0
    remembered: int = 100_000


class Budgets:
    """Charges session budgets in Redis for one worker. `run` must be running.

    Charges that arrive during a call to Redis are sent together in the next one.
    """

    def __init__(self, redis: "Redis", keys: RedisKeys, limits: BudgetLimits | None = None) -> None:
        self._redis = redis
        self._keys = keys
        self._limits = limits or BudgetLimits()
        self._waiting: list[tuple[Charge, asyncio.Future[ChargeResult]]] = []
        self._refunds: list[Charge] = []
        self._wake = asyncio.Event()
        self._groups = SupplierGroups(redis)
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._local: FIFOCache[bytes, None] = FIFOCache(self._limits.remembered)

    async def charge(self, charge: Charge) -> ChargeResult:
        """Charge one relay.

        A cancelled charge is refunded. Raises RedisUnavailable when Redis does not answer and QueueFull when too many
        charges wait.
        """
        if len(self._waiting) >= self._limits.queue or self._running > self._limits.queue:
            raise QueueFull(f"{len(self._waiting)} relays are already waiting for their budget: retry later")
        done: asyncio.Future[ChargeResult] = asyncio.get_running_loop().create_future()
        self._waiting.append((charge, done))
        self._notify()
        try:
            return await done
        except asyncio.CancelledError:
            if done.done() and not done.cancelled() and done.exception() is None:
                self._refund_charged(charge, done.result())  # it was cancelled in the same iteration
            raise

    def _refund_charged(self, charge: Charge, result: ChargeResult) -> None:
        """Refund a charge whose caller is gone."""
        if result is ChargeResult.CHARGED:
            self.refund(charge)

    def refund(self, charge: Charge) -> None:
        """Take a charge back soon. Its request may be sent again."""
        if len(self._refunds) < self._limits.queue:
            self._refunds.append(charge)
            self._notify()

    def charge_offline(self, charge: Charge) -> ChargeResult:
        """Charge without Redis: reject this worker's replays, without limiting budgets."""
        if charge.request_id:
            if charge.request_id in self._local:
                return ChargeResult.REPLAYED
            self._local[charge.request_id] = None
        return ChargeResult.CHARGED

    async def drain(self) -> None:
        """Wait until no charge or refund is pending."""
        await self._idle.wait()

    async def run(self) -> None:
        """Send pending charges to Redis.

        A failure is reported to the charges and never ends the loop.
        """
        try:
            while True:
                while self._waiting or self._refunds:
                    rows, self._waiting = self._waiting[: self._limits.batch], self._waiting[self._limits.batch :]
                    refunds, self._refunds = self._refunds, []
                    await self._groups.run([*self._charges(rows), *self._refunding(refunds)])
                self._settle_idle()
                await self._wake.wait()
                self._wake.clear()
        finally:
            await self._groups.stop()

    def _settle_idle(self) -> None:
        if not self._waiting and not self._refunds and not self._running:
            self._idle.set()

    def _notify(self) -> None:
        self._idle.clear()
        self._wake.set()

    def _bucket(self, charge: Charge) -> str:
        return self._keys.replays(charge.supplier, charge.session_id, charge.request_id[0] if charge.request_id else 0)

    def _charges(self, rows: list[tuple[Charge, "asyncio.Future[ChargeResult]"]]) -> Iterator[Work]:
        groups: dict[str, list[tuple[Charge, asyncio.Future[ChargeResult]]]] = defaultdict(list)
        for charge, done in rows:
            groups[charge.supplier].append((charge, done))
        for group in groups.values():
            self._running += len(group)
            yield self._charge_group(group), functools.partial(self._ended, group)

    def _ended(self, group: list[tuple[Charge, "asyncio.Future[ChargeResult]"]]) -> None:
        for _, done in group:
            if not done.done():
                done.set_exception(RedisUnavailable("charging the budget was cancelled"))
                done.exception()
        self._running -= len(group) or 1  # a refund has no rows
        self._settle_idle()

    async def _charge_group(self, group: list[tuple[Charge, "asyncio.Future[ChargeResult]"]]) -> None:
        keys: list[str] = []
        arguments: list[str | bytes | int] = []
        for charge, _ in group:
            keys += [self._keys.consumed(charge.supplier, charge.session_id), self._bucket(charge)]
            budget = -1 if charge.budget is None else charge.budget
            arguments += [charge.cost, budget, charge.keep_seconds, charge.request_id]
        try:
            async with redis_deadline(self._limits.timeout_seconds):
                numbers = await _CHARGE.run(self._redis, keys, arguments, len(group))
            if not all(isinstance(number, int) and number in _NUMBERS for number in numbers):
                raise foreign_reply(numbers)
        except RedisUnavailable as failure:
            for _, done in group:
                if not done.done():
                    done.set_exception(RedisUnavailable(f"the budget is unknown: {failure}", failure.trouble))
                    done.exception()
            return
        for (charge, done), number in zip(group, numbers, strict=True):
            if number == _REJECTED:
                if not done.done():
                    text = f"the budget is unknown: Redis refuses what session {charge.session_id} was charged"
                    done.set_exception(RedisUnavailable(text, RedisTrouble.REJECTED))
                    done.exception()
                continue
            result = ChargeResult(number)
            if not done.done():
                done.set_result(result)
            else:
                self._refund_charged(charge, result)  # the caller was cancelled meanwhile

    def _refunding(self, refunds: list[Charge]) -> Iterator[Work]:
        groups: dict[str, list[Charge]] = defaultdict(list)
        for charge in refunds:
            self._local.pop(charge.request_id, None)
            groups[charge.supplier].append(charge)
        for group in groups.values():
            self._running += 1
            yield self._refund_group(group), functools.partial(self._ended, [])

    async def _refund_group(self, group: list[Charge]) -> None:
        keys: list[str] = []
        arguments: list[str | bytes | int] = []
        for charge in group:
            keys += [self._keys.consumed(charge.supplier, charge.session_id), self._bucket(charge)]
            arguments += [charge.cost, charge.request_id]
        # Otherwise the budget stays smaller than it could be, but never too large.
        with contextlib.suppress(RedisUnavailable):
            async with redis_deadline(self._limits.timeout_seconds):
                await _REFUND.run(self._redis, keys, arguments)


class RateLimiter:
    """Limits relays per second of an application over all replicas.

    Relays are counted in Redis in fixed windows of one second.
    """

    def __init__(self, redis: "Redis", keys: RedisKeys, now: Callable[[], float]) -> None:
        self._redis = redis
        self._keys = keys
        self._now = now

    async def allow(self, service_id: str, application: str, per_second: int) -> bool:
        """Count one relay and return True if it is within the limit.

        Without Redis every relay is.
        """
        key = self._keys.rate(service_id, application, int(self._now()))
        try:
            async with redis_deadline(1.0), self._redis.pipeline(transaction=False) as pipe:
                pipe.incr(key)
                pipe.expire(key, 5)
                counted, _ = await pipe.execute()
        except RedisUnavailable:
            return True
        return int(counted) <= per_second
