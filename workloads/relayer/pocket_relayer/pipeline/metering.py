"""Charge a relay's price to the budget of its session.

Source: relay-lifecycle.md, section 7.
"""

import functools
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from pocket.api.services import Replays, ServiceSpec
from pocket.chain.agreement import ConfirmableChain, confirm_price
from pocket.chain.model import Application
from pocket.errors import ChainError, DecodingError
from pocket.fast_init import fast_init
from pocket.protocol.claims.amounts import Price, meter_limit_upokt, relay_cost_upokt
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams, Windows
from pocket.redis_store.budgets import Budgets, Charge, ChargeResult, RateLimiter
from pocket.redis_store.store_errors import QueueFull, RedisUnavailable
from pocket.runtime.bounded_dict import BoundedDict
from pocket.runtime.moment_memo import MomentMemo
from pocket_relayer import relayer_metrics
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.metric_batches import BatchedCounter

LIMIT_REACHED = "session relay limit reached"
"""Gateways search for this text, and do not penalise the supplier for it."""


@functools.cache
def _metered(service_id: str, result: ChargeResult) -> BatchedCounter:
    return BatchedCounter(relayer_metrics.METERED.labels(service_id, result.name.lower()))


_QuoteKey = tuple[str, str, int, int, float | None]
"""Application, service, heights of the session and service factor."""
_Quote = tuple[int, int | None, int]
"""Price of a relay, budget of its session (None is unlimited) and the seconds for which a charge is kept."""
_MOST_APPLICATIONS = 100
_MOST_QUOTES = 4096
_UNKNOWN_WINDOW_BLOCKS = 100  # after a session's end, while its claim window is unknown
_LEAST_KEPT_SECONDS = 6 * 3600


def _quote_key(service: ServiceSpec, header: SessionHeader) -> _QuoteKey:
    start, end = header.session_start_block_height, header.session_end_block_height
    return header.application_address, header.service_id, start, end, service.service_factor


@dataclass(frozen=True, slots=True)
class ApplicationBudget:
    """The upokt that an application may spend per supplier and session.

    With the number of relays above it.
    """

    service: str
    application: str
    limit_upokt: int
    over_budget: int = 0


class RecentBudgets:
    """The budgets of the applications that were charged last, a bounded number."""

    def __init__(self, capacity: int = _MOST_APPLICATIONS) -> None:
        self._capacity = capacity
        self._known: dict[tuple[str, str], ApplicationBudget] = {}

    def record(self, service: str, application: str, limit_upokt: int, *, over_budget: bool) -> None:
        """Record the budget that a relay was charged to."""
        known = self._known.get((service, application))
        if known is not None and known.limit_upokt == limit_upokt and not over_budget:
            return
        before = known.over_budget if known is not None else 0
        self._known[service, application] = ApplicationBudget(service, application, limit_upokt, before + over_budget)
        if len(self._known) > self._capacity:
            del self._known[next(iter(self._known))]

    def rows(self) -> list[dict[str, object]]:
        """Return the budgets as JSON."""
        return [asdict(budget) for budget in self._known.values()]


class MeterQueries(ConfirmableChain, Protocol):
    """Chain queries of the meter, implemented by pocket.chain.client.ChainClient."""

    async def shared_params(self, height: int = 0) -> SharedParams:
        """Return the shared parameters at a height, 0 for the latest."""

    async def application(self, address: str) -> Application:
        """Return an application."""

    async def num_suppliers_per_session(self) -> int:
        """Return the number of suppliers in a session."""

    async def compute_units_per_relay(self, service_id: str, height: int) -> int:
        """Return the compute units of one relay at a height."""


@fast_init
@dataclass(frozen=True, slots=True)
class Metered:
    """A relay that may be served.

    `charge` is None if nothing was charged. An unpaid relay must not be mined.
    """

    charge: Charge | None
    paid: bool = True


class Meter:
    """Charges admitted relays, and refunds those that were not served."""

    def __init__(
        self,
        chain: MeterQueries,
        budgets: Budgets,
        rates: RateLimiter,
        height: Callable[[], int],
        *,
        enabled: bool = True,
        open_when_unavailable: bool = True,
        block_seconds: float = 30.0,
        moment: Callable[[], Hashable] | None = None,
    ) -> None:
        self._chain = chain
        self._budgets = budgets
        self._rates = rates
        self._height = height
        self._enabled = enabled
        self._open = open_when_unavailable
        self._block_seconds = block_seconds
        self._quotes: MomentMemo[_QuoteKey, _Quote] = MomentMemo(moment)
        self._confirmations: BoundedDict[_QuoteKey, int | None] = BoundedDict(_MOST_QUOTES)
        self.limits = RecentBudgets()

    async def charge(self, service: ServiceSpec, header: SessionHeader, supplier: str, signed: bytes) -> Metered:
        """Charge one relay.

        `signed` identifies its request. It is empty for a further response to a request that was charged before.
        Raises Rejected.
        """
        metered = await self._charge(service, header, supplier, signed)
        if signed and service.rate_limit is not None:
            try:
                await self._limit_rate(service, header.application_address, service.rate_limit.relays_per_second)
            except BaseException:
                self.refund(metered)
                raise
        return metered

    async def _limit_rate(self, service: ServiceSpec, application: str, per_second: int) -> None:
        """Count a relay in its application's rate.

        It follows the charge: replays, which anybody who saw a request can send, are rejected there and do not count.
        Raises Rejected.
        """
        if await self._rates.allow(service.id, application, per_second):
            return
        relayer_metrics.METERED.labels(service.id, "rate_limited").inc()
        raise Rejected(RejectionReason.RATE_LIMITED, f"more than {per_second} relays per second of this application")

    async def _charge(self, service: ServiceSpec, header: SessionHeader, supplier: str, signed: bytes) -> Metered:
        application = header.application_address
        identity = signed if service.replays is not Replays.SERVE else b""
        if not self._enabled and not identity:
            return Metered(None)
        try:
            cost, budget, keep = await self._quote(service, header)
        except (ChainError, DecodingError) as error:
            self._require_open(service, error)
            if not identity:
                return Metered(None)
            # Only the budget needs the chain: replays are rejected without it.
            keep = self._keep_seconds(header.session_end_block_height + _UNKNOWN_WINDOW_BLOCKS)
            cost, budget = 0, None
        charge = Charge(supplier, header.session_id, cost, budget, keep, identity)
        try:
            verdict = await self._budgets.charge(charge)
        except QueueFull as error:
            raise Rejected(RejectionReason.OVERLOADED, str(error)) from error
        except RedisUnavailable as error:
            self._require_open(service, error)
            verdict = self._budgets.charge_offline(charge)
            # Redis may not have counted it. A refund of what was never charged would let the budget grow.
            charge = replace(charge, cost=0)
        if verdict is ChargeResult.OVER_BUDGET and await self._is_corrected(service, header, (cost, budget)):
            return await self._charge(service, header, supplier, signed)
        _metered(service.id, verdict).inc()
        if charge.budget is not None:
            self.limits.record(service.id, application, charge.budget, over_budget=verdict is ChargeResult.OVER_BUDGET)
        if verdict is ChargeResult.OVER_BUDGET:
            raise Rejected(RejectionReason.OVER_BUDGET, LIMIT_REACHED)
        if verdict is ChargeResult.REPLAYED:
            if service.replays is Replays.SERVE_UNPAID:
                return Metered(None, paid=False)
            raise Rejected(RejectionReason.REPLAYED, "this signed request was served before: sign each relay again")
        return Metered(charge)

    def refund(self, metered: Metered) -> None:
        """Refund a relay that was charged and not served."""
        if metered.charge is not None:
            self._budgets.refund(metered.charge)

    def _require_open(self, service: ServiceSpec, error: Exception) -> None:
        """Count an unavailable meter.

        Raises Rejected unless relays are served without it.
        """
        relayer_metrics.METERED.labels(service.id, "unavailable").inc()
        if not self._open:
            raise Rejected(RejectionReason.METER_UNAVAILABLE, "the session's budget cannot be read") from error

    def _keep_seconds(self, height: int) -> int:
        """Return the seconds for which a charge is kept, until well after a height.

        They outlast a chain that halts and a jump of Redis's clock by hours: otherwise the budget would begin again.
        """
        return max(_LEAST_KEPT_SECONDS, int(2 * (height - self._height()) * self._block_seconds))

    async def _quote(self, service: ServiceSpec, header: SessionHeader) -> _Quote:
        """Return the quote at the session's prices and the application's current stake."""
        key, now = _quote_key(service, header), self._quotes.now()
        known = self._quotes.get(key)
        return await self._query_quote(key, now) if known is None else known

    async def _is_corrected(
        self, service: ServiceSpec, header: SessionHeader, refused_by: tuple[int, int | None]
    ) -> bool:
        """Return True if the nodes state another price or budget.

        A relay is refused by the known one. Every node is queried once for a session, and at each block until they
        agree.
        """
        key = _quote_key(service, header)
        if self._confirmations.get(key, -1) in (self._height(), None):
            return False
        self._confirmations[key] = self._height()
        now = self._quotes.now()
        if await confirm_price(self._chain, *key[:3]):
            self._confirmations[key] = None
        try:
            return (await self._query_quote(key, now))[:2] != refused_by
        except (ChainError, DecodingError):
            return False

    async def _query_quote(self, key: _QuoteKey, now: Hashable) -> _Quote:
        application_address, service_id, start, end, service_factor = key
        params = await self._chain.shared_params(start)
        keep = self._keep_seconds(Windows.after(end, params).claim_close + 10)
        if not self._enabled:
            return 0, None, keep
        application = await self._chain.application(application_address)
        budget = meter_limit_upokt(
            application.stake_upokt, await self._chain.num_suppliers_per_session(), params, service_factor
        )
        units = await self._chain.compute_units_per_relay(service_id, start)
        cost = relay_cost_upokt(units, Price.of(params))
        quote = (cost, budget, keep)
        self._quotes.put(now, key, quote)
        return quote
