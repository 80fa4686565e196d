"""What one of several nodes states refuses no relay: neither about its supplier nor about its price or budget."""

import asyncio
import contextlib

import pytest

from pocket.api.services import ServiceSpec
from pocket.protocol.pb import pocket_application_pb2 as application_pb
from pocket.protocol.pb import pocket_service_pb2 as service_pb
from pocket.protocol.pb import pocket_session_pb2 as session_pb
from pocket.protocol.pb import pocket_shared_pb2 as shared_pb
from pocket.protocol.pb import pocket_supplier_pb2 as supplier_pb
from pocket.protocol.relays.messages import RelayRequest
from pocket.redis_store.budgets import BudgetLimits, Budgets
from pocket_relayer.pipeline.admission import Admission
from pocket_relayer.pipeline.metering import Meter
from pocket_relayer.rejection import Rejected
from world import address
from wrong_nodes import APP, KEYS, Node, cached, localnet

pytestmark = pytest.mark.redis
SUPPLIER = ("/pocket.supplier.Query/Supplier", supplier_pb.QueryGetSupplierResponse)
PLACES_IN_SESSION = ("/pocket.session.Query/Params", session_pb.QueryParamsResponse)
UNITS = ("/pocket.service.Query/ComputeUnitsPerRelayAtHeight", service_pb.QueryComputeUnitsPerRelayAtHeightResponse)
PRICES = ("/pocket.shared.Query/ParamsAtHeight", shared_pb.QueryParamsAtHeightResponse)
APPLICATION = ("/pocket.application.Query/Application", application_pb.QueryGetApplicationResponse)


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
