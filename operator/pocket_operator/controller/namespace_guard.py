"""Namespaces that must not be deleted yet: with a namespace Kubernetes ends all pods at once, the miners too.

The operator keeps a list of the namespaces in which it holds something; an admission policy of the cluster refuses
their deletion (docs/fragile/draining.md). Nothing but the list is ours to write.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pocket.kube.api_client import KubeApi, KubeError
from pocket_operator.controller.published import publish
from pocket_operator.decide.draining import is_held
from pocket_operator.decide.object_cache import ObjectCache
from pocket_operator.resources import names
from pocket_operator.resources.kinds import PROTECTED_NAMESPACES, RELAY_MINERS, SUPPLIERS

_LOG = logging.getLogger("operator.namespaces")
Object = dict[str, Any]
HELD: Final = "pocket-operator-held"


def held(subjects: Mapping[str, Iterable[Object]], let_go: frozenset[str] = frozenset()) -> dict[str, str]:
    """Namespace → what the operator holds there, in words; without those whose uid is in `let_go`.

    subjects: Suppliers and RelayMiners by kind.
    """
    found: dict[str, Counter[str]] = {}
    for kind, objects in subjects.items():
        for one in objects:
            if is_held(one) and str(one["metadata"]["uid"]) not in let_go:
                found.setdefault(str(one["metadata"]["namespace"]), Counter())[kind] += 1
    return {
        namespace: " and ".join(f"{number} {kind}{'s' * (number > 1)}" for kind, number in sorted(kinds.items()))
        for namespace, kinds in found.items()
    }


class NamespaceGuard:
    """Writes the list where it differs. One that cannot be written keeps nothing else from its work."""

    def __init__(self, api: KubeApi, store: ObjectCache, namespace: str) -> None:
        self._api = api
        self._store = store
        self._namespace = namespace
        self._let_go: frozenset[str] = frozenset()
        self._writing = asyncio.Lock()

    async def refresh(self) -> None:
        """Looks and writes; raises KubeError."""
        async with self._writing:
            wanted = {"spec": {"namespaces": self._held()}}
            await publish(
                self._api, PROTECTED_NAMESPACES, (self._namespace, HELD), wanted, f"{names.FIELD_MANAGER}-held"
            )

    async def hold(self) -> None:
        """Writes where it differs, or says why it could not: after finalizers came, so before a key is published."""
        try:
            await self.refresh()
        except KubeError as error:
            _LOG.warning("%s: %s", HELD, error)

    async def let_go(self, namespace: str, subjects: Iterable[Object]) -> None:
        """Before their finalizers go: once the last of a namespace is gone, the namespace may be deleted at once."""
        self._let_go |= {str(subject["metadata"]["uid"]) for subject in subjects}
        if namespace not in self._held():
            await self.hold()

    def _held(self) -> dict[str, str]:
        subjects = {kind.name: self._store.all(kind.name) for kind in (RELAY_MINERS, SUPPLIERS)}
        self._let_go &= {str(one["metadata"]["uid"]) for rows in subjects.values() for one in rows}
        return held(subjects, self._let_go)
