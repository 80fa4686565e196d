"""Waiting for what the operator brings about."""

import asyncio
from typing import Any

from kube import condition, eventually, fetch
from pocket.kube.api_client import KubeApi, ResourceKind
from pocket_operator.resources.kinds import BY_KIND, RELAY_MINERS, SECRETS, SUPPLIERS


async def create(api: KubeApi, *objects: dict[str, Any]) -> None:
    for body in objects:
        await api.create(BY_KIND[body["kind"]], body["metadata"]["namespace"], body)


async def reason(
    api: KubeApi, kind: ResourceKind, namespace: str, name: str, wanted: str, of: str = "Ready", seconds: float = 30
) -> dict[str, Any]:
    """Wait until the condition has the reason and return it."""

    async def look() -> dict[str, Any] | None:
        found = condition(await api.get(kind, namespace, name), of)
        if found.get("reason") != wanted:
            raise AssertionError(f"{name} {of}: {found}")
        return found

    found: dict[str, Any] = await eventually(look, seconds, f"{kind.name} {name}: {of} with reason {wanted}")
    return found


async def all_well(
    api: KubeApi, namespace: str, *suppliers: str, relay_miner: str = "main", seconds: float = 30
) -> None:
    for supplier in suppliers:
        await reason(api, SUPPLIERS, namespace, supplier, "Ready", seconds=seconds)
    await reason(api, RELAY_MINERS, namespace, relay_miner, "Ready", seconds=seconds)


async def published(api: KubeApi, namespace: str, component: str, relay_miner: str = "main") -> set[str]:
    secret = await api.get_or_none(SECRETS, namespace, f"{relay_miner}-{component}-keys")
    return set((secret or {}).get("data") or {})


async def leading(replica: Any) -> bool:
    """Whether a replica of the operator leads."""
    try:
        return bool((await asyncio.to_thread(fetch, f"{replica.url}/readyz"))["leads"])
    except OSError:
        return False


async def gone(api: KubeApi, kind: ResourceKind, namespace: str, name: str, seconds: float = 30) -> None:
    async def look() -> bool:
        return await api.get_or_none(kind, namespace, name) is None

    await eventually(look, seconds, f"{kind.name} {name} gone")
