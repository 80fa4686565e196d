"""Two operators of different installations watch one namespace: one of them stands back and says so."""

from conftest import OperatorProcess
from rest import at_rest
from waits import all_well, create, leading

from kube import NAMESPACES, condition, eventually
from pocket_operator.resources.kinds import BY_KIND, RELAY_MINERS
from resources import key_secret, relay_miner, supplier


class Elsewhere(OperatorProcess):
    """An operator whose own namespace is another one."""

    own = ""

    def start(self):
        self.arguments = ("--own-namespace", self.own, *self.arguments)
        return super().start()


async def test_the_second_operator_leaves_a_relay_miner_to_the_first_and_takes_over_once_that_is_gone(
    api, cluster, namespace, operator, nodes, tmp_path
):
    await create(api, key_secret(namespace), relay_miner(namespace), supplier(namespace))
    await all_well(api, namespace, "alice")
    before = await api.get(BY_KIND["Deployment"], namespace, "main-relayer")
    own = (await api.create(NAMESPACES, "", {"metadata": {"generateName": "t-"}}))["metadata"]["name"]
    second = Elsewhere(cluster, namespace, cluster.kubeconfig, tmp_path / "second.log")
    second.own, second.arguments = own, ("--relayer-image", "another:1", "--update-delay-seconds", "0")
    second.start()
    try:
        await eventually(lambda: leading(second), 30, "the second leads its own installation")

        async def conflict():
            found = condition(await api.get(RELAY_MINERS, namespace, "main"), "OperatorConflict")
            if found.get("reason") != "OtherOperator":
                raise AssertionError(found)
            return found

        found = await eventually(conflict, 30)
        assert f"namespace {namespace} manages this RelayMiner" in found["message"]
        assert f"the one in {own} leaves it alone" in found["message"]
        await at_rest(api, operator, namespace)
        after = await api.get(BY_KIND["Deployment"], namespace, "main-relayer")
        assert after["metadata"]["generation"] == before["metadata"]["generation"]
        await all_well(api, namespace, "alice")

        operator.stop()

        async def taken():
            status = (await api.get(RELAY_MINERS, namespace, "main"))["status"]
            rows = {row["type"] for row in status["conditions"]}
            return status["operator"] == own and "OperatorConflict" not in rows

        await eventually(taken, 120, "the second takes over")
    finally:
        second.stop(kill=True)
        await api.delete(NAMESPACES, "", own)
