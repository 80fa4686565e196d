"""What the meter charges for a relay: price, budget and how long, and how often it asks whether they are right."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from example_counts import examples
from pocket.api.services import Replays, ServiceSpec
from pocket.chain.model import Application
from pocket.chain.node_answer import NodeAnswer
from pocket.errors import ChainError
from pocket.protocol.claims.amounts import Price, meter_limit_upokt, relay_cost_upokt
from pocket.protocol.pb import pocket_application_pb2 as application_pb
from pocket.protocol.pb import pocket_service_pb2 as service_pb
from pocket.protocol.pb import pocket_session_pb2 as session_pb
from pocket.protocol.pb import pocket_shared_pb2 as shared_pb
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket.redis_store.budgets import ChargeResult
from pocket.redis_store.store_errors import QueueFull, RedisUnavailable
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.pipeline.metering import Meter

HOURS = 6 * 3600
HEADER = SessionHeader("app", "eth", "s", 11, 20)


def service(**more):
    return ServiceSpec.model_validate({"id": "eth", "backends": {"jsonRpc": {"urls": ["http://b"]}}, **more})


class Noted:
    """Budgets that answer as told, and note every charge and refund."""

    def __init__(self, *answers):
        self.answers, self.charges, self.refunds = list(answers), [], []

    async def charge(self, charge):
        self.charges.append(charge)
        answer = self.answers.pop(0) if self.answers else ChargeResult.CHARGED
        if isinstance(answer, Exception):
            raise answer
        return answer

    def refund(self, charge):
        self.refunds.append(charge)


class Rates:
    """A limiter that allows nothing, or everything."""

    def __init__(self, *, allows):
        self.allows, self.counted = allows, []

    async def allow(self, service_id, application, per_second):
        self.counted.append((service_id, application, per_second))
        return self.allows


class Chain:
    """Prices by height. Its nodes confirm what `states` gives, unless they do not answer."""

    def __init__(self, params=None, units=100, stake=10**9, suppliers=15):
        self.params, self.units, self.stake, self.suppliers = params or SharedParams(), units, stake, suppliers
        self.asked, self.confirmed, self.nodes, self.away = [], 0, 3, False

    def _answers(self, name, height):
        if self.away:
            raise ChainError("no node answers")
        self.asked.append((name, height))

    async def shared_params(self, height=0):
        self._answers("params", height)
        return self.params

    async def application(self, address):
        self._answers(address, 0)
        return Application(address, self.stake, ("eth",), (), {}, 0)

    async def num_suppliers_per_session(self):
        return self.suppliers

    async def compute_units_per_relay(self, service_id, height):
        self._answers(service_id, height)
        return self.units

    async def ask_every_node(self, method, request, height=0):
        self.confirmed += 1
        answer = {
            "ParamsAtHeight": shared_pb.QueryParamsAtHeightResponse(
                params={"num_blocks_per_session": 10, "compute_unit_cost_granularity": 1}
            ),
            "Params": session_pb.QueryParamsResponse(params={"num_suppliers_per_session": 15}),
            "ComputeUnitsPerRelayAtHeight": service_pb.QueryComputeUnitsPerRelayAtHeightResponse(),
            "Application": application_pb.QueryGetApplicationResponse(
                application={"stake": {"denom": "upokt", "amount": "5"}}
            ),
        }[method.rpartition("/")[2]]
        return {f"node {number}": NodeAnswer(answer.SerializeToString()) for number in range(self.nodes)}

    async def adopt(self, method, request, raw):
        pass


def charged(meter, budgets, header=HEADER, spec=None, signed=b"1" * 16):
    asyncio.run(meter.charge(spec or service(), header, "pokt1a", signed))
    return budgets.charges[-1]


@settings(max_examples=examples(40))
@given(
    st.builds(
        SharedParams, num_blocks_per_session=st.integers(1, 60), claim_window_open_offset_blocks=st.integers(0, 900),
        claim_window_close_offset_blocks=st.integers(0, 20), compute_unit_cost_granularity=st.integers(1, 10**6),
    ),
    st.integers(1, 10**6), st.integers(0, 10**14), st.integers(0, 100), st.integers(1, 2000), st.floats(0.5, 600),
    st.sampled_from([None, 0.25, 1.0]),
)  # fmt: skip
def test_a_charge_has_the_prices_of_the_sessions_start_and_is_kept_until_it_can_no_longer_be_claimed(
    params, units, stake, suppliers, height, block_seconds, factor
):
    chain, budgets = Chain(params, units, stake, suppliers), Noted()
    meter = Meter(chain, budgets, None, lambda: height, block_seconds=block_seconds)
    found = charged(meter, budgets, spec=service(**({} if factor is None else {"serviceFactor": factor})))
    assert (found.supplier, found.session_id, found.request_id) == ("pokt1a", "s", b"1" * 16)
    assert found.cost == relay_cost_upokt(units, Price.of(params))
    assert found.budget == meter_limit_upokt(stake, suppliers, params, factor)
    assert set(chain.asked) == {("params", 11), ("eth", 11), ("app", 0)}
    left = params.windows(20).claim_close if params.num_blocks_per_session == 10 else None
    after = 20 + params.claim_window_open_offset_blocks + 1 + params.claim_window_close_offset_blocks
    assert left is None or left == after
    assert found.keep_seconds >= max(HOURS, int(2 * (after - height) * block_seconds))
    assert found.keep_seconds <= max(HOURS, int(2 * (after + 10 - height) * block_seconds))


@pytest.mark.parametrize(("enabled", "budget", "asks"), [(True, 0, True), (False, None, False)])
def test_without_budgets_only_replays_are_looked_for(enabled, budget, asks):
    chain, budgets = Chain(stake=0), Noted()
    found = charged(Meter(chain, budgets, None, lambda: 5, enabled=enabled), budgets)
    assert (found.budget, found.cost == 0, ("app", 0) in chain.asked) == (budget, not enabled, asks)
    nothing = Noted()
    unsigned = asyncio.run(Meter(chain, nothing, None, lambda: 5, enabled=False).charge(service(), HEADER, "a", b""))
    assert (unsigned.charge, unsigned.paid, nothing.charges) == (None, True, [])


@pytest.mark.parametrize(("replays", "identity"), [("Refuse", b"1"), ("ServeUnpaid", b"1"), ("Serve", b"")])
def test_a_request_is_identified_unless_replays_are_served(replays, identity):
    budgets = Noted()
    assert charged(Meter(Chain(), budgets, None, lambda: 5), budgets, spec=service(replays=Replays[
        {"Refuse": "REFUSE", "ServeUnpaid": "SERVE_UNPAID", "Serve": "SERVE"}[replays]
    ]), signed=b"1").request_id == identity  # fmt: skip


def test_a_quote_is_read_once_a_moment_and_never_that_of_another_session_or_service():
    chain, budgets, moment = Chain(), Noted(), [1]
    meter = Meter(chain, budgets, None, lambda: 5, moment=lambda: moment[0])
    for header in (HEADER, HEADER, SessionHeader("app", "eth", "t", 21, 30), SessionHeader("bob", "eth", "s", 11, 20)):
        charged(meter, budgets, header)
    assert [name for name, _ in chain.asked].count("params") == 3
    charged(meter, budgets, spec=service(serviceFactor=0.5))
    assert budgets.charges[-1].budget == 5 * 10**8
    assert [name for name, _ in chain.asked].count("params") == 4
    moment[0] = 2
    charged(meter, budgets)
    assert [name for name, _ in chain.asked].count("params") == 5


def over_budget(meter, header=HEADER):
    try:
        asyncio.run(meter.charge(service(), header, "pokt1a", b"1"))
    except Rejected as rejected:
        return rejected.reason
    return None


def test_every_node_is_asked_once_before_a_relay_is_above_its_budget_and_again_only_while_they_disagree():
    height, chain = [5], Chain()
    meter = Meter(chain, Noted(*9 * [ChargeResult.OVER_BUDGET]), None, lambda: height[0])
    asked = []
    for nodes, at in ((0, 5), (0, 5), (0, 6), (3, 7), (3, 7), (3, 8), (3, 9)):
        chain.nodes, height[0], before = nodes, at, chain.confirmed
        assert over_budget(meter) is RejectionReason.OVER_BUDGET
        asked.append(chain.confirmed - before)
    assert asked == [4, 0, 4, 4, 0, 0, 0], "once a block until they agree, and then never again"
    other = SessionHeader("app", "eth", "t", 21, 30)
    assert over_budget(meter, other) is RejectionReason.OVER_BUDGET
    assert chain.confirmed == 16, "another session is asked for on its own"


@pytest.mark.parametrize("corrected", ["stake", "units"])
def test_a_relay_that_one_answer_refuses_is_charged_by_what_the_nodes_state(corrected):
    chain = Chain()
    budgets = Noted(ChargeResult.OVER_BUDGET, ChargeResult.CHARGED)
    meter = Meter(chain, budgets, None, lambda: 5, moment=lambda: 1)

    async def adopt(method, request, raw):
        setattr(chain, corrected, 7 * getattr(Chain(), corrected))

    chain.adopt = adopt
    assert over_budget(meter) is None
    first, second = budgets.charges
    assert (second.cost, second.budget) != (first.cost, first.budget)


def test_a_relay_is_above_its_budget_while_no_node_confirms_another_one():
    chain = Chain()
    meter = Meter(chain, Noted(ChargeResult.OVER_BUDGET), None, lambda: 5)

    async def away(method, request, height=0):
        chain.away = True
        return {}

    chain.ask_every_node = away
    assert over_budget(meter) is RejectionReason.OVER_BUDGET


@pytest.mark.parametrize("allows", [True, False])
@pytest.mark.parametrize("signed", [b"1", b""])
def test_the_rate_counts_requests_and_a_relay_above_it_is_refunded(allows, signed):
    budgets, rates = Noted(), Rates(allows=allows)
    meter = Meter(Chain(), budgets, rates, lambda: 5)
    limited = service(rateLimit={"relaysPerSecond": 7})
    if allows or not signed:
        assert asyncio.run(meter.charge(limited, HEADER, "pokt1a", signed)).charge == budgets.charges[0]
    else:
        with pytest.raises(Rejected) as rejected:
            asyncio.run(meter.charge(limited, HEADER, "pokt1a", signed))
        assert rejected.value.reason is RejectionReason.RATE_LIMITED
        assert "more than 7 relays per second" in rejected.value.message
    assert rates.counted == ([("eth", "app", 7)] if signed else []), "further responses are no requests"
    assert budgets.refunds == ([] if allows or not signed else budgets.charges)


def test_a_full_queue_is_overload_and_charges_nothing():
    budgets = Noted(QueueFull("many wait"))
    assert over_budget(Meter(Chain(), budgets, None, lambda: 5)) is RejectionReason.OVERLOADED
    assert budgets.refunds == []


def test_an_unpaid_replay_is_served_without_a_charge_to_take_back():
    budgets = Noted(ChargeResult.REPLAYED)
    meter = Meter(Chain(), budgets, None, lambda: 5)
    metered = asyncio.run(meter.charge(service(replays=Replays.SERVE_UNPAID), HEADER, "pokt1a", b"1"))
    assert (metered.charge, metered.paid) == (None, False)
    meter.refund(metered)
    assert budgets.refunds == []


def test_while_the_chain_is_away_a_request_is_kept_for_as_long_as_a_session_can_be_claimed():
    chain, budgets = Chain(), Noted()
    chain.away = True
    meter = Meter(chain, budgets, None, lambda: 20, block_seconds=600.0)
    found = charged(meter, budgets)
    assert (found.cost, found.budget) == (0, None)
    assert found.keep_seconds == 2 * 100 * 600
    assert meter.limits.rows() == [], "no budget is known"


def test_what_was_charged_while_redis_was_away_is_refunded_by_nothing():
    budgets = Noted(RedisUnavailable("away"))
    budgets.charge_offline = lambda charge: ChargeResult.CHARGED
    meter = Meter(Chain(), budgets, None, lambda: 5)
    metered = asyncio.run(meter.charge(service(), HEADER, "pokt1a", b"1"))
    assert budgets.charges[0].cost > 0
    meter.refund(metered)
    assert budgets.refunds == [replace(budgets.charges[0], cost=0)], "Redis never counted it, and may count again"
