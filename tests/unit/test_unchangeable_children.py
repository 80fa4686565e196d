"""Children that cannot be changed: what is only derived is deleted and created again, after a dry run."""

import pytest

from pocket.kube.api_client import KubeError
from pocket_operator.controller.child_writer import ChildWriter
from pocket_operator.decide.contested import Repairs
from pocket_operator.decide.drift import with_digest
from pocket_operator.decide.object_cache import ObjectCache
from pocket_operator.decide.plan import Plan
from pocket_operator.resources import names
from snapshots import snapshot

IMMUTABLE = KubeError("field is immutable", 422)


class Server:
    """One object that takes no change. `new` is the error that creating another one raises."""

    def __init__(self, new: KubeError | None) -> None:
        self.new, self.deleted, self.dry_runs = new, [], []

    async def apply(self, kind, body, manager):
        if not self.deleted:
            raise IMMUTABLE
        return {**body, "metadata": {**body["metadata"], "uid": "new"}}

    async def patch(self, kind, namespace, name, patch, *, manager):
        raise IMMUTABLE

    async def call(self, method, path, *, body, query):
        assert (method, query) == ("POST", {"dryRun": "All"})
        self.dry_runs.append(body["metadata"])
        if self.new is not None:
            raise self.new

    async def delete(self, kind, namespace, name, *, uid):
        self.deleted.append((kind.name, name, uid))


async def written(server: Server, kind: str, **content):
    metadata = {"name": "main-x", "namespace": "ns", "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY}}
    child = with_digest({"apiVersion": "v1", "kind": kind, "metadata": metadata, **content})
    observed = {"kind": kind, "metadata": {**metadata, "uid": "old", "resourceVersion": "1"}}
    plan = Plan(None, (), {}, wanted=(child,))
    seen = snapshot(children={(kind, "main-x"): observed})
    rejected, _ = await ChildWriter(server, ObjectCache(), lambda: 0.0).apply_all(plan, seen, Repairs())
    return rejected


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("Secret", {"data": {"a": ""}}),
        ("ConfigMap", {}),
        ("RoleBinding", {}),
        ("Service", {"spec": {"clusterIP": "None"}}),
    ],
)
async def test_what_is_only_derived_is_replaced_once_a_dry_run_shows_that_it_would_be_created(kind, content):
    server = Server(None)
    assert await written(server, kind, **content) == {}
    assert server.deleted == [(kind, "main-x", "old")]
    (metadata,) = server.dry_runs
    assert (metadata["generateName"], "name" in metadata) == ("main-x-", False)


@pytest.mark.parametrize("error", [KubeError("exceeded quota", 403), KubeError("no answer")])
async def test_nothing_is_deleted_that_would_not_be_created_again(error):
    server = Server(error)
    rejected = await written(server, "Secret")
    assert rejected["Secret", "main-x"].message == str(IMMUTABLE)
    assert server.deleted == []


@pytest.mark.parametrize(
    ("kind", "content"),
    [("Deployment", {"spec": {}}), ("StatefulSet", {"spec": {}}), ("Service", {"spec": {"type": "LoadBalancer"}})],
)
async def test_pods_and_addresses_are_never_deleted_for_a_change(kind, content):
    server = Server(None)
    assert (await written(server, kind, **content))[kind, "main-x"].message == str(IMMUTABLE)
    assert server.deleted == []
