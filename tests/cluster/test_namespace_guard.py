"""A namespace with open sessions is not deleted: its miners would end at once, and nobody could keep them."""

import fcntl

import pytest
import yaml
from conftest import OperatorProcess
from waits import all_well, create, gone

from kube import NAMESPACES, eventually
from pocket_operator import install
from pocket_operator.resources.kinds import RELAY_MINERS, SUPPLIERS
from resources import address, key_secret, relay_miner, supplier

POLICIES = "validatingadmissionpolicy,validatingadmissionpolicybinding"


@pytest.fixture
def policy(cluster, namespace):
    """Install the policy of the cluster-wide installation for the operator in the test's namespace.

    The cluster has one: another process that runs these tests waits for its turn.
    """
    policies = install.namespace_policy(install.Values(namespace=namespace))
    with cluster.kubeconfig.open() as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(policies))
        yield policies
        cluster.kubectl("delete", POLICIES, *sorted({row["metadata"]["name"] for row in policies}))


@pytest.mark.parametrize("made", ["once", "again"])
async def test_a_namespace_may_be_deleted_once_nothing_in_it_is_open_or_somebody_insists(
    api, cluster, namespace, policy, operator, nodes, made
):
    """Also where the policy is made again, as by an operator that was removed and comes back."""

    def deletion(kind="namespace", name=namespace):
        return cluster.kubectl("delete", kind, name, "--dry-run=server", check=False)

    async def definitions_refused():
        done = deletion("crd", "suppliers.pocket.network")
        text = f"sessions in namespaces {namespace} may not be settled yet"
        return text in done.stderr and deletion("crd", "relayminers.pocket.network").returncode != 0

    async def refused():
        return "has 1 RelayMiner and 1 Supplier whose sessions may not be settled" in deletion().stderr

    async def passes():
        done = deletion()
        assert done.returncode == 0, done.stderr
        return True

    nodes.open[address("alice")] = 1
    await create(api, key_secret(namespace), relay_miner(namespace), supplier(namespace))
    await all_well(api, namespace, "alice")
    await eventually(refused, 30, "the deletion refused")
    await eventually(definitions_refused, 30, "the deletion of the definitions refused")
    cluster.kubectl("annotate", "crd", "suppliers.pocket.network", "pocket.network/force-delete=true")
    assert deletion("crd", "suppliers.pocket.network").returncode == 0
    cluster.kubectl("annotate", "crd", "suppliers.pocket.network", "pocket.network/force-delete-")
    cluster.kubectl("annotate", "namespace", namespace, "pocket.network/force-delete=true")
    await passes()
    cluster.kubectl("annotate", "namespace", namespace, "pocket.network/force-delete-")
    assert await refused()
    for kind, name in ((RELAY_MINERS, "main"), (SUPPLIERS, "alice")):
        await api.delete(kind, namespace, name)
    assert await refused()
    nodes.open.clear()
    await gone(api, SUPPLIERS, namespace, "alice")
    await gone(api, RELAY_MINERS, namespace, "main")
    # The operator took it off before; the API server's own copy may be a moment behind.
    await eventually(passes, 3, "the deletion passes")
    assert deletion("crd", "suppliers.pocket.network").returncode == 0


@pytest.mark.parametrize("paused", [False, True])
async def test_a_namespace_that_is_deleted_anyway_is_gone_soon_after_its_last_miner(
    api, cluster, namespace, nodes, tmp_path, paused
):
    """Nobody can mine in it again, so its finalizers do not wait for the deadline of hours."""
    home = (await api.create(NAMESPACES, "", {"metadata": {"generateName": "t-"}}))["metadata"]["name"]
    operator = OperatorProcess(cluster, namespace, cluster.kubeconfig, tmp_path / "operator.log")
    operator.arguments = ("--own-namespace", home)
    operator.start()
    try:
        nodes.open[address("alice")] = 1
        await create(api, key_secret(namespace), relay_miner(namespace), supplier(namespace))
        await all_well(api, namespace, "alice")
        if paused:
            await api.merge(RELAY_MINERS, namespace, "main", {"spec": {"paused": True}})
        await api.delete(NAMESPACES, "", namespace)
        await gone(api, SUPPLIERS, namespace, "alice", seconds=60)
        await gone(api, RELAY_MINERS, namespace, "main", seconds=60)
        await gone(api, NAMESPACES, "", namespace, seconds=60)
    finally:
        operator.stop(kill=True)
        await api.delete(NAMESPACES, "", home)
