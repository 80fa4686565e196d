"""A slow API server: the operator leads, keeps leading and brings about what is declared."""

from waits import create, leading

from kube import eventually
from pocket.kube.api_client import ResourceKind
from pocket_operator.resources.kinds import BY_KIND
from resources import key_secret, relay_miner, supplier
from slow_api import late

LEASES = ResourceKind("coordination.k8s.io/v1", "leases", "Lease")
ONE_WAY_SECONDS = 0.5


async def test_an_operator_leads_and_keeps_leading_though_listing_takes_longer_than_its_lease(
    api, namespace, replicas, nodes
):
    (first, _) = replicas
    async with late(first.kubeconfig, ONE_WAY_SECONDS) as first.kubeconfig:
        first.start()
        await create(api, key_secret(namespace), relay_miner(namespace), supplier(namespace))
        await eventually(lambda: leading(first), 30)

        async def brought_about():
            return await api.get_or_none(BY_KIND["Deployment"], namespace, "main-relayer")

        await eventually(brought_about, 180)
        lease = await api.get(LEASES, namespace, "pocket-operator")
        assert lease["spec"]["leaseTransitions"] == 1, "it led without a break"
        assert await leading(first)
        assert first.child.poll() is None
        first.stop(kill=True)
