"""Seeded chaos by users, pruners and controllers ends in the state that the resources declare."""

import asyncio
import contextlib
import copy
import os
import random
from typing import Any

import pytest
from rest import at_rest
from waits import all_well, create, leading, published

from kube import eventually
from pocket.kube.api_client import KubeError, ObjectNotFound
from pocket_operator.resources.kinds import BY_KIND, PODS, RELAY_MINERS, SECRETS, SUPPLIERS, WATCHED_CHILDREN
from resources import address, changed, key_secret, relay_miner, supplier

SEEDS = [int(text) for text in os.environ.get("CHAOS_SEEDS", "3,8").split(",")]
STEPS = 24
NAMES = ("alice", "bob", "carol", "dave")
SPECS: list[tuple[str, list[Any]]] = [
    ("spec.relayer.replicas", [1, 2, 3]), ("spec.relayer.workers", [1, 2, 4]), ("spec.miner.replicas", [1, 2]),
    ("spec.relayer.logLevel", ["info", "debug"]), ("spec.paused", [True, False]),
    ("spec.services.0.backends.jsonRpc.urls", [["http://geth:8545"], ["http://geth:8545", "http://geth-2:8545"]]),
    ("metadata.annotations", [{}, {"pocket.network/restarted-at": "2026-01-01T00:00:00Z"}]),
]  # fmt: skip
EDITS: list[tuple[str, str, Any]] = [
    ("Deployment", "main-relayer", {"spec": {"replicas": 7}}),
    ("Deployment", "main-relayer", {"spec": {"template": {"metadata": {"annotations": {"edited": "by hand"}}}}}),
    ("StatefulSet", "main-miner", {"metadata": {"ownerReferences": None}}),
    ("ConfigMap", "main-config", {"data": {"relayer.json": "{}"}}),
    ("ConfigMap", "main-hot", {"data": {"hot.json": "{}"}}),
    ("Secret", "main-miner-keys", {"data": {address("alice"): "AAAA", address("eve"): "AAAA"}}),
    ("Service", "main-relayer", {"spec": {"selector": {"app.kubernetes.io/component": "x"}}}),
    ("Role", "main-miner", {"rules": []}),
    ("PodDisruptionBudget", "main-relayer", {"spec": {"maxUnavailable": None, "minAvailable": 9}}),
]
CHILDREN = [
    *((kind, name) for kind, name, _ in EDITS), ("Service", "main-miner"), ("ServiceAccount", "main-relayer"),
    ("RoleBinding", "main-miner"), ("Secret", "main-relayer-keys"),
]  # fmt: skip


class World:
    """What Git says, and one step after another that somebody takes without asking."""

    def __init__(self, api, namespace: str, replicas, seed: int) -> None:
        self.api, self.namespace, self.replicas = api, namespace, replicas
        self.chance = random.Random(seed)
        self.relay_miner = relay_miner(namespace)
        self.suppliers = {"alice": supplier(namespace)}
        self.log: list[str] = []

    async def sync(self) -> None:
        """As Argo CD with self-heal: applies all that Git says, again and again."""
        while True:
            for body in (self.relay_miner, *self.suppliers.values()):
                with contextlib.suppress(KubeError):
                    await self.api.apply(BY_KIND[body["kind"]], copy.deepcopy(body), "argocd-controller")
            await asyncio.sleep(0.5)  # how often it looks

    async def step(self) -> None:
        steps = [self.spec] * 6 + [self.edit] * 6 + [self.remove] * 5 + [self.come] * 3 + [self.leave] * 2
        steps += [self.lose_secret, self.annotate, self.annotate, self.end_pod, self.end_operator]
        chosen = self.chance.choice(steps)
        self.log.append(chosen.__name__)
        with contextlib.suppress(ObjectNotFound):
            await chosen()

    async def spec(self) -> None:
        path, values = self.chance.choice(SPECS)
        self.relay_miner = changed(self.relay_miner, path, self.chance.choice(values))

    async def edit(self) -> None:
        kind, name, patch = self.chance.choice(EDITS)
        with contextlib.suppress(KubeError):
            await self.api.merge(BY_KIND[kind], self.namespace, name, patch, manager="somebody")

    async def annotate(self) -> None:
        kind, name = self.chance.choice(CHILDREN)
        patch = {"metadata": {"annotations": {"policy.example/checked": "yes"}}}
        await self.api.merge(BY_KIND[kind], self.namespace, name, patch, manager="policy-engine")

    async def remove(self) -> None:
        kind, name = self.chance.choice(CHILDREN)
        await self.api.delete(BY_KIND[kind], self.namespace, name)

    async def come(self) -> None:
        name = self.chance.choice(NAMES)
        with contextlib.suppress(KubeError):
            await create(self.api, key_secret(self.namespace, name))
        self.suppliers[name] = supplier(self.namespace, name)

    async def leave(self) -> None:
        name = self.chance.choice(sorted(self.suppliers))
        if len(self.suppliers) > 1:
            del self.suppliers[name]
            await self.api.delete(SUPPLIERS, self.namespace, name)

    async def lose_secret(self) -> None:
        await self.api.delete(SECRETS, self.namespace, f"{self.chance.choice(NAMES)}-key")

    async def end_pod(self) -> None:
        pods = [pod["metadata"]["name"] for pod in await self.api.list(PODS, self.namespace)]
        if pods:
            await self.api.delete(PODS, self.namespace, self.chance.choice(sorted(pods)))

    async def end_operator(self) -> None:
        """Now with, now without the grace to give its Lease back."""
        one = self.chance.choice(self.replicas)
        await asyncio.to_thread(one.stop, kill=self.chance.random() < 0.5)
        one.start()

    async def calm(self) -> None:
        """Nothing is paused, and every Secret that is named is there."""
        self.relay_miner = changed(self.relay_miner, "spec.paused", False)
        for name in self.suppliers:
            with contextlib.suppress(KubeError):
                await create(self.api, key_secret(self.namespace, name))


def essence(observed: dict[str, Any]) -> dict[str, Any]:
    """Return the operator's part of a child, without additions by the API server and controllers."""
    metadata, found = observed["metadata"], copy.deepcopy(observed)
    for key in ("metadata", "status", "kind", "apiVersion"):
        found.pop(key, None)
    for key in ("clusterIP", "clusterIPs"):
        found.get("spec", {}).pop(key, None)
    annotations = _ours(metadata)
    if "template" in found.get("spec", {}):
        found["spec"]["template"]["metadata"]["annotations"] = _ours(found["spec"]["template"]["metadata"])
    owners = sorted((row["kind"], row["name"]) for row in metadata.get("ownerReferences") or ())
    return {**found, "labels": metadata.get("labels") or {}, "annotations": annotations, "owners": owners}


def _ours(metadata: dict[str, Any]) -> dict[str, str]:
    """Annotations that the operator gave: those of others stay, and are theirs."""
    return {k: v for k, v in (metadata.get("annotations") or {}).items() if k.startswith("pocket.network/")}


async def children(api, namespace: str) -> dict[tuple[str, str], dict[str, Any]]:
    found = {}
    for kind in (*WATCHED_CHILDREN, SECRETS):
        for item in await api.list(kind, namespace):
            labels = item["metadata"].get("labels") or {}
            if labels.get("pocket.network/relayminer") == "main":
                found[kind.name, item["metadata"]["name"]] = item
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_anybody_does_the_cluster_ends_as_the_resources_say(api, namespace, replicas, nodes, seed):
    world = World(api, namespace, [replica.start() for replica in replicas], seed)
    await create(api, key_secret(namespace))
    syncing = asyncio.create_task(world.sync())
    try:
        await all_well(api, namespace, "alice")
        for _ in range(STEPS):
            await world.step()
            await asyncio.sleep(world.chance.uniform(0, 0.6))  # steps meet the operator at any point of its work
        await world.calm()

        async def as_declared():
            there = {row["metadata"]["name"] for row in await api.list(SUPPLIERS, namespace)}
            assert there == set(world.suppliers), (there, world.log)
            wanted = {address(name) for name in world.suppliers}
            for component in ("relayer", "miner"):
                assert await published(api, namespace, component) == wanted, (component, world.log)
            observed = await api.get(RELAY_MINERS, namespace, "main")
            assert observed["status"]["observedGeneration"] == observed["metadata"]["generation"], world.log
            return True

        await eventually(as_declared, 90, "what Git says")
        await all_well(api, namespace, *world.suppliers, seconds=60)
    finally:
        syncing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await syncing
    replicas[1].stop()
    await eventually(lambda: leading(replicas[0]), 30, "one replica leads alone")
    await at_rest(api, replicas[0], namespace)
    # What was edited, deleted and annotated is what comes when all children are made anew; the volumes' owner aside.
    edited = await children(api, namespace)
    for (kind, name), child in edited.items():
        if kind not in ("StatefulSet", "ConfigMap", "Secret"):
            await api.delete(BY_KIND[kind], namespace, name, uid=child["metadata"]["uid"])
    for kind, name in (("ConfigMap", "main-config"), ("ConfigMap", "main-hot"), ("Secret", "main-relayer-keys")):
        await api.delete(BY_KIND[kind], namespace, name)
    await eventually(lambda: made_anew(api, namespace, edited), 40, "all children again")
    await at_rest(api, replicas[0], namespace)
    again = await children(api, namespace)
    assert {place: essence(child) for place, child in again.items()} == {
        place: essence(child) for place, child in edited.items()
    }, world.log


async def made_anew(api, namespace: str, before: dict[tuple[str, str], dict[str, Any]]) -> bool:
    return set(await children(api, namespace)) == set(before)
