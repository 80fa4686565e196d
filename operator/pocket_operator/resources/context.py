"""The input of the builders of children, which are pure functions of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pocket.api.relayminer import RelayMiner
from pocket.runtime.version import VERSION
from pocket_operator.resources import names
from pocket_operator.resources.revision import KeptRevision, RolloutPlan

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Images:
    """Default images, which a RelayMiner may override."""

    relayer: str = f"ghcr.io/pocket-relay-mining/relayer:{VERSION}"
    miner: str = f"ghcr.io/pocket-relay-mining/miner:{VERSION}"
    console: str = f"ghcr.io/pocket-relay-mining/console:{VERSION}"
    redis: str = "docker.io/library/redis:8.2-alpine"
    pull_policy: str = "IfNotPresent"


@dataclass(frozen=True, slots=True)
class PublishedSupplier:
    """A supplier whose key is published, since it matches its address."""

    address: str
    services: tuple[str, ...]
    key_hex: str = field(repr=False)
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Context:
    """One RelayMiner with everything that its children depend on."""

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
    drain_anchor_uid: str = ""
    rollout: RolloutPlan | None = None
    """Where the relayers' revisions run. None: all relayers run the declared one."""
    claim_size: str = ""
    """The size in the miners' StatefulSet, whose claim template cannot change, empty before it exists."""
    miner_partition: int = 0
    """First ordinal of the miners that an update reaches."""
    updating_to: str = ""
    """The update to this release of the operator that is under way."""
    rendering: str = ""
    """The digest of how this release renders pod templates."""
    kept: Mapping[str, KeptRevision] = field(default_factory=dict)
    """The workloads, by component, that keep the revision of another release for now."""

    @property
    def name(self) -> str:
        """The name of the RelayMiner."""
        return self.relay_miner.metadata.name

    @property
    def namespace(self) -> str:
        """The namespace of the RelayMiner and of all children."""
        return self.relay_miner.metadata.namespace

    def labels(self, component: str) -> dict[str, str]:
        """Return the labels of a child."""
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
        if component not in (names.RELAYER, names.CONSOLE) and self.drain_anchor_uid:
            name = names.drain_anchor(self.name)
            owners.append({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": self.drain_anchor_uid})
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
        """Build a child with its metadata.

        Objects of relayers and console are owned by the RelayMiner, all others by the drain anchor too. The garbage
        collector removes an object only when all its owners are gone, also in a foreground deletion, and the operator
        deletes the drain anchor when all claims and proofs are done (docs/fragile/draining.md).
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
