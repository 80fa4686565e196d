"""Two operators of different installations watch one namespace: one of them stands back and says so."""

import base64

import pytest
from conftest import OperatorProcess
from rest import at_rest, reached, rounds
from waits import all_well, create, gone, leading, reason

from kube import NAMESPACES, condition, eventually
from pocket.keys.sealed_box import Subject, seal
from pocket_operator.controller.secrets import SEALING_PUBLIC
from pocket_operator.resources.kinds import BY_KIND, CONFIG_MAPS, RELAY_MINERS, SUPPLIERS
from resources import address, changed, key_of, key_secret, relay_miner, supplier


class Elsewhere(OperatorProcess):
    """An operator whose own namespace is another one."""

    own = ""

    def start(self):
        self.arguments = ("--own-namespace", self.own, *self.arguments)
        return super().start()


@pytest.fixture
async def second(api, cluster, namespace, tmp_path):
    """Return a second operator of the namespace, which is not started yet."""
    found = Elsewhere(cluster, namespace, cluster.kubeconfig, tmp_path / "second.log")
    found.own = (await api.create(NAMESPACES, "", {"metadata": {"generateName": "t-"}}))["metadata"]["name"]
    yield found
    found.stop(kill=True)
    await api.delete(NAMESPACES, "", found.own)


async def test_two_operators_do_not_write_a_supplier_without_relay_miner_in_turns(
    api, namespace, operator, nodes, second
):
    async def public_key():
        return await api.get_or_none(CONFIG_MAPS, namespace, SEALING_PUBLIC)

    public = base64.b64decode((await eventually(public_key, 30))["data"]["public-key"])
    sealed = seal(public, Subject(namespace, "alice", address("alice")), key_of("alice"))
    second.start()
    await eventually(lambda: leading(second), 30)
    await create(api, changed(supplier(namespace), "spec.key", {"sealed": sealed}))
    await reason(api, SUPPLIERS, namespace, "alice", "RelayMinerMissing")
    # The second one, which cannot open the key, calls it sealed for another operator.
    before = await at_rest(api, operator, namespace)
    start = rounds(operator), rounds(second)
    for process, number in zip((operator, second), start, strict=True):
        await eventually(lambda process=process, number=number: reached(process, number + 2), 30)
    assert await at_rest(api, operator, namespace) == before
    manager = (await api.get(SUPPLIERS, namespace, "alice"))["status"]["operator"]
    (operator if manager == namespace else second).stop(kill=True)
    await api.delete(SUPPLIERS, namespace, "alice")
    await gone(api, SUPPLIERS, namespace, "alice", 90)


async def test_the_second_operator_leaves_a_relay_miner_to_the_first_and_takes_over_once_that_is_gone(
    api, namespace, operator, nodes, second
):
    await create(api, key_secret(namespace), relay_miner(namespace), supplier(namespace))
    await all_well(api, namespace, "alice")
    before = await api.get(BY_KIND["Deployment"], namespace, "main-relayer")
    second.arguments = ("--relayer-image", "another:1", "--update-delay-seconds", "0")
    second.start()
    await eventually(lambda: leading(second), 30, "the second leads its own installation")

    async def conflict():
        found = condition(await api.get(RELAY_MINERS, namespace, "main"), "OperatorConflict")
        if found.get("reason") != "OtherOperator":
            raise AssertionError(found)
        return found

    found = await eventually(conflict, 30)
    assert f"namespace {namespace} manages this RelayMiner" in found["message"]
    assert f"the one in {second.own} leaves it alone" in found["message"]
    await at_rest(api, operator, namespace)
    after = await api.get(BY_KIND["Deployment"], namespace, "main-relayer")
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    await all_well(api, namespace, "alice")

    operator.stop()

    async def taken():
        status = (await api.get(RELAY_MINERS, namespace, "main"))["status"]
        rows = {row["type"] for row in status["conditions"]}
        return status["operator"] == second.own and "OperatorConflict" not in rows

    await eventually(taken, 120, "the second takes over")
