"""What the builders of children are told: everything, so that they are pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pocket.api.relayminer import RelayMiner
from pocket_operator.resources import names
from pocket_operator.resources.revision import RolloutPlan

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Images:
    """Default images; a RelayMiner may name others."""

    relayer: str = "ghcr.io/pocket-relay-mining/relayer:0.1.0"
    miner: str = "ghcr.io/pocket-relay-mining/miner:0.1.0"
    redis: str = "docker.io/library/redis:8.2-alpine"
    pull_policy: str = "IfNotPresent"


@dataclass(frozen=True, slots=True)
class PublishedSupplier:
    """A supplier whose key is published: its address was proven."""

    address: str
    services: tuple[str, ...]
    key_hex: str = field(repr=False)
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Context:
    """One RelayMiner as its children see it."""

    relay_miner: RelayMiner
    uid: str
    images: Images
    operator_namespace: str
    suppliers: tuple[PublishedSupplier, ...] = ()
    redis_digest: str = ""
    restarted_at: str = ""
    capabilities: frozenset[str] = frozenset()
    inherited: Mapping[str, str] = field(default_factory=dict)
    deleting: bool = False
    keeper_uid: str = ""
    rollout: RolloutPlan | None = None
    """None: all relayers run what the resource wants."""

    @property
    def name(self) -> str:
        """Name of the RelayMiner."""
        return self.relay_miner.metadata.name

    @property
    def namespace(self) -> str:
        """Its namespace, and that of all children."""
        return self.relay_miner.metadata.namespace

    def labels(self, component: str) -> dict[str, str]:
        """Labels of a child."""
        return {
            **self.inherited,
            names.LABEL_NAME: f"pocket-{component}",
            names.LABEL_PART_OF: "pocket-relay-mining",
            names.LABEL_MANAGED_BY: names.MANAGED_BY,
            **names.selector(self.name, component),
        }

    def _owners(self, component: str) -> list[Object]:
        owners: list[Object] = []
        if not self.deleting:
            owners.append(
                {
                    "apiVersion": "pocket.network/v1beta1",
                    "kind": "RelayMiner",
                    "name": self.name,
                    "uid": self.uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            )
        if component != names.RELAYER and self.keeper_uid:
            name = names.keeper(self.name)
            owners.append({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": self.keeper_uid})
        return owners

    def object(
        self,
        api_version: str,
        kind: str,
        name: str,
        component: str,
        *,
        annotations: Mapping[str, str] | None = None,
        **body: Any,
    ) -> Object:
        """A child with its metadata.

        Whatever relayers alone need belongs to the RelayMiner. Everything else belongs to the keeper too: the garbage
        collector takes an object only when all its owners are gone, also in a foreground deletion, and the keeper goes
        when all claims and proofs are done (docs/fragile/draining.md).
        """
        metadata: Object = {
            "name": name,
            "namespace": self.namespace,
            "labels": self.labels(component),
            "ownerReferences": self._owners(component),
        }
        if annotations:
            metadata["annotations"] = dict(annotations)
        return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **body}
