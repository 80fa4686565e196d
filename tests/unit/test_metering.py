"""Prices and budgets of sessions, and the script that keeps them, for all workers at once."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.api.services import Replays, ServiceSpec
from pocket.chain.model import Application
from pocket.errors import ChainError
from pocket.protocol.claims.amounts import Price, meter_limit_upokt, relay_cost_upokt
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket.redis_store.budgets import BudgetLimits, Budgets, Charge, ChargeResult, RateLimiter
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.store_errors import QueueFull, RedisUnavailable
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.pipeline.metering import Meter, RecentBudgets

KEYS = RedisKeys("budgets")


def test_the_price_is_rounded_down_to_whole_upokt():
    params = SharedParams(compute_units_to_tokens_multiplier=42_000_001, compute_unit_cost_granularity=1_000_000)
    assert relay_cost_upokt(100, Price.of(params)) == 4200
    assert relay_cost_upokt(1_000_000, Price.of(params)) == 42_000_001


def test_the_budget_is_the_share_that_all_pending_sessions_of_all_suppliers_surely_get():
    params = SharedParams(num_blocks_per_session=20, claim_window_open_offset_blocks=1,
                          claim_window_close_offset_blocks=4, proof_window_open_offset_blocks=0,
                          proof_window_close_offset_blocks=4)  # fmt: skip
    # 9 blocks of windows on 20 blocks a session: 1 pending session besides the running one.
    assert meter_limit_upokt(5_874_696_563, 50, params) == 5_874_696_563 // 50 // 2 == 58_746_965
    assert meter_limit_upokt(10, 0, params) == 5


def test_a_service_factor_replaces_the_budget_exactly():
    assert meter_limit_upokt(10**15 + 3, 50, SharedParams(), 0.1) == 10**14
    assert meter_limit_upokt(100, 1, SharedParams(), 0.29) == 29


def most_pending(blocks, params):
    """Count the most sessions of an application that run or await settlement at one height."""
    starts = range(1, 110 * blocks, blocks)
    settled = {start: params.windows(start).proof_close for start in starts}
    heights = range(100 * blocks, 101 * blocks + 1)
    return max(sum(start <= height < settled[start] for start in starts) for height in heights)


@given(
    st.integers(0, 10**16), st.integers(1, 100), st.integers(1, 60),
    st.lists(st.integers(0, 20), min_size=4, max_size=4).filter(any),
)  # fmt: skip
def test_the_budgets_of_all_sessions_that_are_pending_at_once_are_the_whole_stake_and_no_more(
    stake, suppliers, blocks, offsets
):
    claim_open, claim_close, proof_open, proof_close = offsets
    params = SharedParams(
        num_blocks_per_session=blocks, claim_window_open_offset_blocks=claim_open,
        claim_window_close_offset_blocks=claim_close, proof_window_open_offset_blocks=proof_open,
        proof_window_close_offset_blocks=proof_close,
    )  # fmt: skip
    together = suppliers * most_pending(blocks, params)
    budget = meter_limit_upokt(stake, suppliers, params)
    assert budget * together <= stake
    assert (budget + 1) * together > stake, "less than the share is left unearned"


def charge(number=0, *, cost=10, budget=100, session="s", guarded=True):
    return Charge("pokt1a", session, cost, budget, 600, number.to_bytes(16, "big") if guarded else b"")


async def working(redis, **limits):
    budgets = Budgets(redis, KEYS, BudgetLimits(**limits))
    return budgets, asyncio.create_task(budgets.run())


@pytest.mark.redis
async def test_workers_together_charge_exactly_the_budget(redis):
    made = [await working(redis) for _ in range(3)]
    asked = [made[n % 3][0].charge(charge(n)) for n in range(60)]
    verdicts = await asyncio.gather(*asked)
    assert verdicts.count(ChargeResult.CHARGED) == 10
    assert verdicts.count(ChargeResult.OVER_BUDGET) == 50
    for _, task in made:
        task.cancel()


@pytest.mark.redis
async def test_one_request_is_charged_once_whoever_sees_it(redis):
    made = [await working(redis) for _ in range(3)]
    verdicts = await asyncio.gather(*(budgets.charge(charge(7)) for budgets, _ in made for _ in range(5)))
    assert verdicts.count(ChargeResult.CHARGED) == 1
    assert verdicts.count(ChargeResult.REPLAYED) == 14
    assert await redis.get(KEYS.consumed("pokt1a", "s")) == b"10"
    for _, task in made:
        task.cancel()


@pytest.mark.redis
async def test_what_is_taken_back_may_be_asked_again_and_budgets_do_not_grow(redis):
    budgets, task = await working(redis)
    assert await budgets.charge(charge(1, budget=10)) is ChargeResult.CHARGED
    assert await budgets.charge(charge(2, budget=10)) is ChargeResult.OVER_BUDGET
    budgets.refund(charge(1, budget=10))
    await budgets.drain()
    assert await budgets.charge(charge(1, budget=10)) is ChargeResult.CHARGED
    await redis.flushall()
    budgets.refund(charge(1))
    await budgets.drain()
    assert await redis.get(KEYS.consumed("pokt1a", "s")) is None, "a refund to a forgotten meter adds nothing"
    task.cancel()


@pytest.mark.redis
async def test_a_caller_that_is_cancelled_as_its_charge_succeeds_is_refunded(redis):
    budgets, task = await working(redis)

    async def first():
        await budgets.charge(charge(1))
        second.cancel()  # its charge was decided in the same iteration of the event loop

    leading = asyncio.create_task(first())
    second = asyncio.create_task(budgets.charge(charge(2)))
    await leading
    with pytest.raises(asyncio.CancelledError):
        await second
    await budgets.drain()
    assert await redis.get(KEYS.consumed("pokt1a", "s")) == b"10"
    assert await budgets.charge(charge(2)) is ChargeResult.CHARGED
    task.cancel()


@pytest.mark.redis
async def test_a_guarded_request_takes_at_most_32_bytes_and_leaves_by_itself(redis):
    budgets, task = await working(redis)

    async def used():
        return sum([await redis.memory_usage(key) async for key in redis.scan_iter("*:replays:*")])

    # Four of the 256 sets of a session with 40,000 requests.
    numbers = [n % 4 << 120 | n * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**120 for n in range(640)]
    await asyncio.gather(*(budgets.charge(charge(n, budget=None)) for n in numbers))
    assert await used() / len(numbers) <= 32
    assert 0 < await redis.ttl(KEYS.replays("pokt1a", "s", numbers[1] >> 120)) <= 600
    assert 0 < await redis.ttl(KEYS.consumed("pokt1a", "s")) <= 600
    task.cancel()


@pytest.mark.redis
async def test_without_redis_a_charge_fails_in_time_and_the_worker_itself_still_refuses_replays(redis):
    budgets, task = await working(redis, timeout_seconds=0.05)
    await redis.execute_command("CLIENT", "PAUSE", "600", "ALL")
    with pytest.raises(RedisUnavailable):
        await budgets.charge(charge(1))
    assert budgets.charge_offline(charge(1)) is ChargeResult.CHARGED
    assert budgets.charge_offline(charge(1)) is ChargeResult.REPLAYED
    assert budgets.charge_offline(charge(2, guarded=False)) is ChargeResult.CHARGED
    task.cancel()


@pytest.mark.redis
async def test_a_limit_of_relays_per_second_is_that_of_one_service_and_application_in_each_second(redis):
    now = [1000.9]
    limiter = RateLimiter(redis, KEYS, lambda: now[0])

    async def allowed(service="eth", application="app"):
        return [await limiter.allow(service, application, 3) for _ in range(5)]

    assert await allowed() == [True] * 3 + [False] * 2
    assert await allowed("base") == await allowed("eth", "other") == [True] * 3 + [False] * 2
    now[0] = 1001.0
    assert await allowed() == [True] * 3 + [False] * 2
    keys = [key async for key in redis.scan_iter("budgets:rate:*")]
    assert len(keys) == 4
    lives = [await redis.ttl(key) for key in keys]
    assert all(0 < seconds <= 10 for seconds in lives), "a counter is gone soon after its second"


async def test_without_redis_no_relay_is_above_a_limit():
    class Gone:
        def pipeline(self, *, transaction):
            raise RedisUnavailable("away")

    assert await RateLimiter(Gone(), KEYS, lambda: 1.0).allow("eth", "app", 0)


@pytest.mark.redis
@pytest.mark.parametrize("replay", [True, False])
async def test_a_cancelled_charge_is_refunded_only_if_it_was_one(redis, replay):
    budgets, task = await working(redis)
    if replay:
        assert await budgets.charge(charge(1)) is ChargeResult.CHARGED
    gone = asyncio.create_task(budgets.charge(charge(1)))
    await asyncio.sleep(0)
    gone.cancel()  # while Redis decides
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert await budgets.charge(charge(2)) is ChargeResult.CHARGED
    await budgets.drain()
    assert await redis.get(KEYS.consumed("pokt1a", "s")) == (b"20" if replay else b"10")
    again = ChargeResult.REPLAYED if replay else ChargeResult.CHARGED
    assert await budgets.charge(charge(1)) is again
    task.cancel()


@pytest.mark.redis
async def test_a_request_that_was_refunded_may_come_again_without_redis(redis):
    budgets, task = await working(redis)
    assert budgets.charge_offline(charge(1)) is ChargeResult.CHARGED
    budgets.refund(charge(1))
    await budgets.drain()
    assert budgets.charge_offline(charge(1)) is ChargeResult.CHARGED
    task.cancel()


class Away:
    """A Redis that can be out of reach."""

    def __init__(self, redis):
        self._redis = redis
        self.away = False

    async def evalsha(self, *arguments):
        if self.away:
            raise RedisUnavailable("away")
        return await self._redis.evalsha(*arguments)

    async def eval(self, *arguments):
        return await self._redis.eval(*arguments)


class Prices:
    """A session of 30 upokt, a relay of 10."""

    async def shared_params(self, height=0):
        return SharedParams(compute_units_to_tokens_multiplier=1, compute_unit_cost_granularity=1)

    async def application(self, address):
        return Application(address, 30, ("eth",), (), {}, 0)

    async def num_suppliers_per_session(self):
        return 1

    async def compute_units_per_relay(self, service_id, height):
        return 10

    async def ask_every_node(self, method, request, height=0):
        return {}


@pytest.mark.redis
async def test_what_was_charged_without_redis_is_not_taken_back_from_the_budget_there(redis):
    server = Away(redis)
    budgets, task = await working(server)
    meter = Meter(Prices(), budgets, None, lambda: 5)
    service = ServiceSpec.model_validate(
        {"id": "eth", "serviceFactor": 1, "backends": {"jsonRpc": {"urls": ["http://b"]}}}
    )
    header = SessionHeader("app", "eth", "s", 1, 10)

    async def charged(signature):
        return await meter.charge(service, header, "pokt1a", signature)

    first = await charged(b"1")
    server.away = True
    without = await charged(b"2")
    server.away = False
    meter.refund(without)
    await budgets.drain()
    assert await redis.get(KEYS.consumed("pokt1a", "s")) == b"10"
    assert (await charged(b"2")).charge == replace(without.charge, cost=10), "it may come again"
    meter.refund(first)
    await budgets.drain()
    assert await redis.get(KEYS.consumed("pokt1a", "s")) == b"10"
    task.cancel()


@pytest.mark.redis
async def test_the_budget_of_each_application_and_what_was_above_it_are_reported(redis):
    budgets, task = await working(redis)
    meter = Meter(Prices(), budgets, None, lambda: 5)
    service = ServiceSpec.model_validate(
        {"id": "eth", "serviceFactor": 1, "backends": {"jsonRpc": {"urls": ["http://b"]}}}
    )
    header = SessionHeader("app", "eth", "s", 1, 10)
    rows = {"service": "eth", "application": "app", "limit_upokt": 30}
    for number in range(3):
        await meter.charge(service, header, "pokt1a", b"%d" % number)
    assert meter.limits.rows() == [{**rows, "over_budget": 0}]
    for number in (3, 4):
        with pytest.raises(Rejected):
            await meter.charge(service, header, "pokt1a", b"%d" % number)
    assert meter.limits.rows() == [{**rows, "over_budget": 2}]
    task.cancel()


def test_only_the_applications_charged_last_are_kept_and_a_changed_limit_replaces_the_old_one():
    limits = RecentBudgets(2)
    for application, limit in (("a", 5), ("b", 5), ("a", 6), ("c", 5)):
        limits.record("eth", application, limit, over_budget=False)
    assert [(row["application"], row["limit_upokt"]) for row in limits.rows()] == [("b", 5), ("c", 5)]


class Restaked(Prices):
    """Prices of an application whose stake changes."""

    stake = 30

    async def application(self, address):
        return replace(await super().application(address), stake_upokt=self.stake)


@pytest.mark.redis
async def test_a_budget_follows_the_stake_at_the_next_moment(redis):
    budgets, task = await working(redis)
    chain, moment = Restaked(), [1]
    meter = Meter(chain, budgets, None, lambda: 5, moment=lambda: moment[0])
    service = ServiceSpec.model_validate(
        {"id": "eth", "serviceFactor": 1, "backends": {"jsonRpc": {"urls": ["http://b"]}}}
    )
    found = []
    for number, (stake, now) in enumerate([(30, 1), (50, 1), (50, 2)]):
        chain.stake, moment[0] = stake, now
        metered = await meter.charge(service, SessionHeader("app", "eth", "s", 1, 10), "pokt1a", b"%d" % number)
        found.append(metered.charge.budget)
    assert found == [30, 30, 50]
    task.cancel()


class ChainAway(Prices):
    """Prices that cannot be queried, from one of the queries on."""

    def __init__(self, failing):
        self.failing = failing

    async def shared_params(self, height=0):
        if self.failing == "shared_params":
            raise ChainError("no node answers")
        return await super().shared_params(height)

    async def application(self, address):
        if self.failing:
            raise ChainError("no node answers")
        return await super().application(address)


@pytest.mark.redis
@pytest.mark.parametrize("failing", ["shared_params", "application"])
@pytest.mark.parametrize("redis_away", [False, True])
async def test_a_replay_is_rejected_while_the_chain_is_away_though_budgets_are_open(redis, failing, redis_away):
    server = Away(redis)
    budgets, task = await working(server)
    chain = ChainAway(failing)
    meter = Meter(chain, budgets, None, lambda: 5)
    service = ServiceSpec.model_validate({"id": "eth", "backends": {"jsonRpc": {"urls": ["http://b"]}}})
    header = SessionHeader("app", "eth", "s", 1, 10)
    server.away = redis_away
    assert (await meter.charge(service, header, "pokt1a", b"1")).paid
    assert (await meter.charge(service, header, "pokt1a", b"2")).paid
    with pytest.raises(Rejected) as rejected:
        await meter.charge(service, header, "pokt1a", b"1")
    assert rejected.value.reason is RejectionReason.REPLAYED
    assert (await meter.charge(service, header, "pokt1a", b"")).paid, "a further response is no replay"
    if not redis_away:
        chain.failing = ""
        with pytest.raises(Rejected) as rejected:
            await meter.charge(service, header, "pokt1a", b"2")
        assert rejected.value.reason is RejectionReason.REPLAYED
        assert await redis.get(KEYS.consumed("pokt1a", "s")) == b"0", "nothing was charged without a price"
    task.cancel()


@pytest.mark.redis
async def test_replays_and_relays_above_the_rate_take_nothing_of_rate_and_budget(redis):
    budgets, task = await working(redis)
    meter = Meter(ChainAway(""), budgets, RateLimiter(redis, KEYS, lambda: 0.0), lambda: 5)
    fields = {"id": "eth", "backends": {"jsonRpc": {"urls": ["http://b"]}}, "rateLimit": {"relaysPerSecond": 2}}
    fields["serviceFactor"] = 1
    service, header = ServiceSpec.model_validate(fields), SessionHeader("app", "eth", "s", 1, 10)

    async def outcome(signed):
        try:
            return (await meter.charge(service, header, "pokt1a", signed)).paid
        except Rejected as rejected:
            return rejected.reason

    assert await outcome(b"1") is True
    for _ in range(5):
        assert await outcome(b"1") is RejectionReason.REPLAYED
    assert await outcome(b"2") is True, "replays are not relays of the application"
    before = await redis.get(KEYS.consumed("pokt1a", "s"))
    assert await outcome(b"3") is RejectionReason.RATE_LIMITED
    await budgets.drain()
    assert await redis.get(KEYS.consumed("pokt1a", "s")) == before
    assert await outcome(b"3") is RejectionReason.RATE_LIMITED, "refunded, so it is no replay"
    task.cancel()


class NoBudgets(Budgets):
    async def charge(self, charge):
        raise RedisUnavailable("away")


@pytest.mark.parametrize("failing", ["shared_params", "application", ""])
async def test_a_closed_meter_serves_nothing_while_chain_or_redis_is_away(failing):
    meter = Meter(ChainAway(failing), NoBudgets(None, KEYS), None, lambda: 5, open_when_unavailable=False)
    service = ServiceSpec.model_validate({"id": "eth", "backends": {"jsonRpc": {"urls": ["http://b"]}}})
    with pytest.raises(Rejected) as rejected:
        await meter.charge(service, SessionHeader("app", "eth", "s", 1, 10), "pokt1a", b"1")
    assert rejected.value.reason is RejectionReason.METER_UNAVAILABLE


async def test_more_charges_than_the_queue_holds_are_refused():
    budgets = Budgets(None, KEYS, BudgetLimits(queue=1))
    waiting = asyncio.create_task(budgets.charge(charge(1)))
    await asyncio.sleep(0)
    with pytest.raises(QueueFull):
        await budgets.charge(charge(2))
    waiting.cancel()


@pytest.mark.redis
@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize(
    ("replays", "again"),
    [(Replays.REFUSE, RejectionReason.REPLAYED), (Replays.SERVE_UNPAID, False), (Replays.SERVE, True)],
)
async def test_a_repeated_request_is_paid_once_also_where_no_budget_is_kept(redis, enabled, replays, again):
    budgets, task = await working(redis)
    meter = Meter(Prices(), budgets, None, lambda: 5, enabled=enabled)
    service = ServiceSpec.model_validate(
        {"id": "eth", "serviceFactor": 1, "replays": replays, "backends": {"jsonRpc": {"urls": ["http://b"]}}}
    )

    async def paid(signature):
        try:
            return (await meter.charge(service, SessionHeader("app", "eth", "s", 1, 10), "pokt1a", signature)).paid
        except Rejected as error:
            return error.reason

    assert [await paid(signature) for signature in (b"1", b"2", b"1")] == [True, True, again]
    consumed = 10 * (3 if replays is Replays.SERVE else 2) if enabled else 0
    assert int(await redis.get(KEYS.consumed("pokt1a", "s")) or 0) == consumed
    task.cancel()
