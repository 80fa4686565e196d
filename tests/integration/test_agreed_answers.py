"""What one of several nodes states decides neither which relays are recorded nor which ones are refused."""

import asyncio
import contextlib

import pytest

from background import running
from pocket.api.services import ServiceSpec
from pocket.protocol.pb import pocket_application_pb2 as application_pb
from pocket.protocol.pb import pocket_service_pb2 as service_pb
from pocket.protocol.pb import pocket_session_pb2 as session_pb
from pocket.protocol.pb import pocket_shared_pb2 as shared_pb
from pocket.protocol.pb import pocket_supplier_pb2 as supplier_pb
from pocket.protocol.relays.difficulty import BASE_TARGET
from pocket.protocol.relays.messages import RelayRequest
from pocket.redis_store.budgets import BudgetLimits, Budgets
from pocket_relayer.limits.rejection import Rejected
from pocket_relayer.pipeline.admission import Admission
from pocket_relayer.pipeline.metering import Meter
from pocket_relayer.pipeline.session_context import SessionContexts
from world import address
from wrong_nodes import APP, KEYS, SILENT, Node, cached, localnet

pytestmark = pytest.mark.redis
STRICT, OTHER_STRICT = b"\x01" + b"\xff" * 31, b"\x02" + b"\xff" * 31
DIFFICULTY = (
    "/pocket.service.Query/RelayMiningDifficultyAtHeight", service_pb.QueryGetRelayMiningDifficultyAtHeightResponse,
)  # fmt: skip
SUPPLIER = ("/pocket.supplier.Query/Supplier", supplier_pb.QueryGetSupplierResponse)
PLACES_IN_SESSION = ("/pocket.session.Query/Params", session_pb.QueryParamsResponse)
UNITS = ("/pocket.service.Query/ComputeUnitsPerRelayAtHeight", service_pb.QueryComputeUnitsPerRelayAtHeightResponse)
PRICES = ("/pocket.shared.Query/ParamsAtHeight", shared_pb.QueryParamsAtHeightResponse)
APPLICATION = ("/pocket.application.Query/Application", application_pb.QueryGetApplicationResponse)


def states_target(target):
    return lambda message: setattr(message.relayMiningDifficulty, "target_hash", target)


async def target_of(contexts, header, agreed):
    """Return the target of a session's relays once the nodes have answered."""
    async with running(contexts.background) as ended:
        first = (await contexts.of(header)).target_hash
        await ended()
        return first, (await contexts.of(header)).target_hash


TARGETS = {
    "one is too strict": (STRICT, None, None, BASE_TARGET),
    "one is too easy": (BASE_TARGET, STRICT, STRICT, STRICT),
    "all differ": (STRICT, OTHER_STRICT, BASE_TARGET, BASE_TARGET),
    "all agree": (STRICT, STRICT, STRICT, STRICT),
}


@pytest.mark.parametrize("case", TARGETS)
async def test_a_target_that_a_single_node_states_drops_no_relay(redis, case):
    *stated, agreed = TARGETS[case]
    chain = localnet()
    nodes = [Node(chain, DIFFICULTY, states_target(target or BASE_TARGET)) for target in stated]
    async with cached(redis, *nodes) as client:
        header = (await client.session(APP, "eth", 5)).header
        first, then = await target_of(SessionContexts(client, lambda: 6, lambda: 0.0), header, agreed)
    if stated[0] != BASE_TARGET:
        assert (first, then) == (BASE_TARGET, agreed)
        async with cached(redis, *nodes) as another_process:
            assert (await another_process.difficulty("eth", header.session_start_block_height)).target_hash == agreed


async def test_while_no_node_answers_the_target_stated_before_counts_and_they_are_queried_at_each_block(redis):
    chain, height = localnet(), [6]
    node = Node(chain, DIFFICULTY, states_target(STRICT))
    async with cached(redis, node) as client:
        header = (await client.session(APP, "eth", 5)).header
        await client.difficulty("eth", header.session_start_block_height)
        contexts = SessionContexts(client, lambda: height[0], lambda: 0.0)
        await contexts.of(header)
        node.error, node.kind, contexts._targets._agreed = SILENT, None, type(contexts._targets._agreed)(10)
        assert await target_of(contexts, header, STRICT) == (BASE_TARGET, STRICT)
        asked = len(node.asked)
        assert await target_of(contexts, header, STRICT) == (STRICT, STRICT)
        assert len(node.asked) == asked
        height[0] += 1
        await target_of(contexts, header, STRICT)
        assert len(node.asked) == asked + 1


def of_another_service(message):
    for config in message.supplier.services:
        config.service_id = "other"
    for row in message.supplier.service_config_history:
        row.service.service_id = "other"


RECORDS = {
    "of another service": of_another_service,
    "unstaked": lambda message: setattr(message.supplier, "unstake_session_end_height", 1),
}


@pytest.mark.parametrize(("wrong", "reason"), [(1, False), (2, True), (3, True)])
@pytest.mark.parametrize("case", RECORDS)
async def test_a_supplier_is_refused_only_by_what_most_nodes_state(redis, case, wrong, reason):
    chain = localnet()
    nodes = [Node(chain, SUPPLIER, RECORDS[case] if n < wrong else None) for n in range(3)]
    async with cached(redis, *nodes) as client:
        header = (await client.session(APP, "eth", 5)).header
        admission = Admission(client, lambda: 5, lambda: 0.0)
        request = RelayRequest(header, b"", address("alice"), b"")
        for _ in range(2):
            if reason:
                with pytest.raises(Rejected):
                    await admission.check_supplier(request, header)
            else:
                await admission.check_supplier(request, header)
        if reason:
            assert sum(node.asked.count(SUPPLIER[0]) for node in nodes) == 4, "once a block"


COSTS = {
    "more places": (PLACES_IN_SESSION, lambda m: setattr(m.params, "num_suppliers_per_session", 10**15)),
    "dearer units": (UNITS, lambda m: setattr(m, "computeUnitsPerRelay", 2**32 - 1)),
    "a higher price": (PRICES, lambda m: setattr(m.params, "compute_units_to_tokens_multiplier", 10**15)),
    "a lower stake": (APPLICATION, lambda m: setattr(m.application.stake, "amount", "1")),
}


@pytest.mark.parametrize("case", COSTS)
async def test_a_relay_is_above_a_budget_only_by_what_most_nodes_state(redis, case):
    chain, (kind, change) = localnet(), COSTS[case]
    factor = {"serviceFactor": 0.001} if case == "dearer units" else {}
    service = ServiceSpec.model_validate({"id": "eth", "backends": {"jsonRpc": {"urls": ["http://b"]}}, **factor})
    budgets = Budgets(redis, KEYS, BudgetLimits())
    async with contextlib.AsyncExitStack() as stack:
        writing = asyncio.create_task(budgets.run())
        stack.callback(writing.cancel)
        for wrong, refused in ((1, False), (3, True)):
            await redis.flushdb()
            nodes = [Node(chain, kind, change if n < wrong else None) for n in range(3)]
            client = await stack.enter_async_context(cached(redis, *nodes))
            header = (await client.session(APP, "eth", 5)).header
            meter = Meter(client, budgets, None, lambda: 5)
            if refused:
                for number in (1, 2):
                    with pytest.raises(Rejected):
                        await meter.charge(service, header, address("alice"), b"%d" % number)
                assert sum(node.asked.count(kind[0]) for node in nodes) <= 5, "once a session"
            else:
                assert (await meter.charge(service, header, address("alice"), b"1")).charge is not None
