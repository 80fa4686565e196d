"""A deleted definition or Lease ends no operator: it says so, and goes on when the definition is there again."""

import asyncio
import re

import pytest
from conftest import define_kinds, operator_of_new_namespace
from rest import metrics_of
from waits import all_well, create, leading, reason

from kube import eventually, fetch, kubelet
from pocket.api.crd import definitions
from pocket_operator.controller.operator_claim import LEASE
from pocket_operator.resources.kinds import BY_KIND, LEASES, RELAY_MINERS
from resources import key_secret, relay_miner, supplier

SERVICES = BY_KIND["Service"]


@pytest.fixture
async def api(own):
    define_kinds(own, definitions().values())
    async with own.api() as client:
        yield client


def value(operator, family: str) -> float:
    """Return a value of the operator's metrics, -1 if it does not answer."""
    found = re.search(rf"^{re.escape(family)} (\S+)$", metrics_of(operator), re.MULTILINE)
    return float(found[1]) if found else -1


async def reads(operator, family: str, number: float) -> None:
    async def look() -> bool:
        return await asyncio.to_thread(value, operator, family) == number

    await eventually(look, 60, f"{family} {number:g}")


async def test_an_operator_goes_on_when_a_deleted_definition_is_there_again(own, api, tmp_path):
    operator = await operator_of_new_namespace(own, api, tmp_path)
    namespace = operator.namespace
    missing = 'pocket_operator_definitions_missing{kind="Supplier"}'
    try:
        async with kubelet(api, namespace):
            await create(api, key_secret(namespace), relay_miner(namespace))
            await reason(api, RELAY_MINERS, namespace, "main", "NoSuppliers")
            await reads(operator, missing, 0)
            own.kubectl("delete", "crd", "suppliers.pocket.network")
            await reads(operator, missing, 1)
            assert "a CustomResourceDefinition is missing" in operator.text()
            await api.delete(SERVICES, namespace, "main-relayer")

            async def back() -> bool:
                return await api.get_or_none(SERVICES, namespace, "main-relayer") is not None

            await eventually(back, 60, "everything else goes on")
            define_kinds(own, definitions().values())
            await reads(operator, missing, 0)
            await create(api, supplier(namespace))
            await all_well(api, namespace, "alice", seconds=60)
            own.kubectl("annotate", "supplier", "alice", "-n", namespace, "pocket.network/force-delete=true")
            own.kubectl("delete", "crd", "suppliers.pocket.network")
            define_kinds(own, definitions().values())  # before the operator may have noticed
            await create(api, supplier(namespace))
            await all_well(api, namespace, "alice", seconds=90)
            assert operator.child.poll() is None
            assert "Traceback" not in operator.text()
            assert operator.text().count("lease acquired") == 1
    finally:
        operator.stop(kill=True)


async def test_a_leader_whose_lease_is_deleted_leads_on(own, api, tmp_path):
    operator = await operator_of_new_namespace(own, api, tmp_path)
    try:
        await eventually(lambda: leading(operator))
        first = await api.get(LEASES, operator.namespace, LEASE)
        await api.delete(LEASES, operator.namespace, LEASE)

        async def again() -> bool:
            found = await api.get_or_none(LEASES, operator.namespace, LEASE)
            return found is not None and found["spec"]["holderIdentity"] == first["spec"]["holderIdentity"]

        await eventually(again, 15)
        assert (await asyncio.to_thread(fetch, f"{operator.url}/healthz"))["leads"]
        assert operator.child.poll() is None
    finally:
        operator.stop(kill=True)
