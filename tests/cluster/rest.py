"""When the operator and the controllers have nothing left to do."""

import re
import urllib.request

from kube import eventually
from pocket.kube.api_client import KubeApi
from pocket_operator.resources.kinds import RELAY_MINERS, SECRETS, SUPPLIERS, WATCHED_CHILDREN


async def versions(api: KubeApi, namespace: str) -> dict:
    """Versions of everything that the operator writes, its own heartbeat aside."""
    found = {}
    for kind in (*WATCHED_CHILDREN, SECRETS, RELAY_MINERS, SUPPLIERS):
        for item in await api.list(kind, namespace):
            if item["metadata"]["name"] != "pocket-operator-canary":
                found[kind.name, item["metadata"]["name"]] = item["metadata"]["resourceVersion"]
    return found


def metrics_of(operator) -> str:
    """Empty while it does not answer."""
    try:
        with urllib.request.urlopen(f"{operator.url}/metrics", timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def rounds(operator) -> float:
    """Return the number of reconciliations so far, or 0 while the operator does not answer."""
    matched = re.search(r'reconciles_total\{result="done"\} (\S+)', metrics_of(operator))
    return float(matched[1]) if matched else 0


async def reached(operator, number: float) -> bool:
    """Whether it has done so many reconciliations."""
    return rounds(operator) >= number


async def at_rest(api, operator, namespace: str) -> dict:
    """Return the versions of all objects once a whole round of the operator changed none of them.

    The controllers must not have changed any either.
    """
    latest: dict = {}

    async def unchanged():
        nonlocal latest
        before, start = latest, rounds(operator)
        await eventually(lambda: reached(operator, start + 1), 30)
        latest = await versions(api, namespace)
        return before == latest

    await eventually(unchanged, 60, "no object changed in a round")
    return latest
