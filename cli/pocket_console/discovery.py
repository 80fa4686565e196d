"""Find relayers and miners: addresses that were given, or the pods of a cluster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from pocket.api.base import API_VERSION
from pocket.kube.api_client import KubeApi, KubeError, ResourceKind
from pocket_console.snapshot import Component, ProcessOrigin
from pocket_operator.resources import names
from pocket_operator.resources.config import ADMIN_PORT

_PODS: Final = ResourceKind("v1", "pods", "Pod")
_RELAY_MINERS: Final = ResourceKind(API_VERSION, "relayminers", "RelayMiner")
_SUPPLIERS: Final = ResourceKind(API_VERSION, "suppliers", "Supplier")


class DiscoveryError(Exception):
    """The cluster gave no usable answer."""


@dataclass(frozen=True, slots=True)
class Found:
    """The processes to poll. The resources are None outside of a cluster."""

    origins: tuple[ProcessOrigin, ...]
    relay_miners: tuple[Mapping[str, Any], ...] | None = None
    suppliers: tuple[Mapping[str, Any], ...] | None = None


class Finder(Protocol):
    """Finds the processes to poll."""

    async def find(self) -> Found:
        """Return the processes. Raises DiscoveryError."""


class GivenAddresses:
    """Addresses of the command line, each `URL` or `NAME=URL`."""

    def __init__(self, miners: Sequence[str], relayers: Sequence[str]) -> None:
        rows = [(Component.MINER, url) for url in miners] + [(Component.RELAYER, url) for url in relayers]
        self._found = Found(tuple(_origin(kind, text) for kind, text in rows))

    async def find(self) -> Found:
        """Return the given addresses."""
        return self._found


def _origin(kind: Component, text: str) -> ProcessOrigin:
    name, named, url = text.rpartition("=")
    url = url.rstrip("/")
    return ProcessOrigin(kind, name if named else url.removeprefix("http://").removeprefix("https://"), url)


@dataclass(frozen=True, slots=True)
class ClusterPods:
    """Pods of the RelayMiners in a namespace, or of one of them.

    With `proxied` they are reached through the API server, else at their addresses.
    """

    api: KubeApi
    namespace: str = ""
    relay_miner: str = ""
    proxied: bool = True

    async def find(self) -> Found:
        """Return the pods that have an address, and the resources.

        Raises DiscoveryError.
        """
        selector = names.LABEL_RELAY_MINER + (f"={self.relay_miner}" if self.relay_miner else "")
        try:
            pods = await self.api.list(_PODS, self.namespace, selector)
            relay_miners = await self.api.list(_RELAY_MINERS, self.namespace)
            suppliers = await self.api.list(_SUPPLIERS, self.namespace)
        except KubeError as error:
            raise DiscoveryError(str(error)) from error
        return Found(
            tuple(origin for pod in pods if (origin := self._origin(pod)) is not None),
            tuple(row for row in relay_miners if self.relay_miner in ("", row["metadata"]["name"])),
            tuple(row for row in suppliers if self._selected(row)),
        )

    def _selected(self, supplier: Mapping[str, Any]) -> bool:
        reference = (supplier.get("spec") or {}).get("relayMinerRef") or {}
        return self.relay_miner in ("", reference.get("name"))

    def _origin(self, pod: Mapping[str, Any]) -> ProcessOrigin | None:
        metadata, status = pod["metadata"], pod.get("status") or {}
        component = (metadata.get("labels") or {}).get(names.LABEL_COMPONENT)
        address = status.get("podIP")
        if component not in (names.RELAYER, names.MINER) or not address:
            return None
        kind = Component.MINER if component == names.MINER else Component.RELAYER
        name = str(metadata["name"])
        if not self.proxied:
            host = f"[{address}]" if ":" in address else address
            return ProcessOrigin(kind, name, f"http://{host}:{ADMIN_PORT}")
        return ProcessOrigin(kind, name, _PODS.path(str(metadata["namespace"]), f"{name}:{ADMIN_PORT}", "proxy"))
