"""The operator beside definitions of other releases, on a control plane of its own: they are of a whole cluster."""

import copy
from collections.abc import AsyncIterator

import pytest
from conftest import define_kinds, operator_of_new_namespace
from rest import metrics_of
from waits import create, reason

from kube import Cluster, eventually
from pocket.api.crd import definitions
from pocket_operator.resources.kinds import BY_KIND, EVENTS, RELAY_MINERS, SUPPLIERS
from resources import changed, key_secret, relay_miner, supplier


@pytest.fixture
async def api(own: Cluster) -> AsyncIterator[object]:
    async with own.api() as client:
        yield client


def fields(crds, plural, *path):
    found = crds[plural]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for part in path:
        found = found["properties"][part]
    return found["properties"]


def current(crds) -> None:
    """As this release has them."""


def older(crds) -> None:
    del fields(crds, "relayminers", "status")["rollout"]
    del fields(crds, "relayminers", "spec", "relayer")["hungWorkerSeconds"]
    del fields(crds, "relayminers", "spec")["relayer"]["default"]["hungWorkerSeconds"]
    del fields(crds, "suppliers", "status")["earned"]
    del fields(crds, "suppliers", "status", "last")["loss"]


def newer(crds) -> None:
    fields(crds, "relayminers", "spec", "relayer")["turbo"] = {"type": "boolean"}
    fields(crds, "suppliers", "spec")["colour"] = {"type": "string"}


@pytest.mark.parametrize(
    ("change", "told"), [(current, "SchemaMatches"), (older, "CRDOlder"), (newer, "CRDNewer")]
)  # fmt: skip
async def test_what_operator_and_definitions_both_know_goes_on_and_the_difference_is_told(
    own, api, tmp_path, change, told
):
    crds = copy.deepcopy(definitions())
    change(crds)
    define_kinds(own, crds.values())
    operator = await operator_of_new_namespace(own, api, tmp_path)
    namespace = operator.namespace
    try:
        resource, one = relay_miner(namespace), supplier(namespace)
        if change is newer:
            resource, one = changed(resource, "spec.relayer.turbo", True), changed(one, "spec.colour", "red")
        await create(api, key_secret(namespace), resource, one)
        await reason(api, RELAY_MINERS, namespace, "main", told, of="SchemaCurrent", seconds=60)
        await reason(api, SUPPLIERS, namespace, "alice", told, of="SchemaCurrent", seconds=60)

        async def brought_about():
            return await api.get_or_none(BY_KIND["Deployment"], namespace, "main-relayer")

        await eventually(brought_about, 60)
        family = "pocket_operator_schema_fields{"
        different = [row for row in metrics_of(operator).splitlines() if row.startswith(family)]
        assert any(float(row.split()[-1]) > 0 for row in different) == (change is not current), different

        async def event():
            reasons = {row["reason"] for row in await api.list(EVENTS, namespace)}
            return told in reasons or change is current

        await eventually(event, 30)
        await api.delete(SUPPLIERS, namespace, "alice")
        await reason(api, SUPPLIERS, namespace, "alice", "Draining", seconds=30)
        assert "failed unexpectedly" not in operator.text()
        assert " 500 " not in operator.text()
    finally:
        operator.stop(kill=True)
