"""Protect namespaces with open sessions from deletion.

It would end all of their pods at once. The operator writes the list of namespaces in which resources have its
finalizer. An admission policy of the cluster rejects their deletion (docs/fragile/draining.md).
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.kube.api_client import KubeApi, KubeError
from pocket_operator.controller.published import publish
from pocket_operator.decide.draining import has_finalizer
from pocket_operator.decide.object_cache import ObjectCache
from pocket_operator.resources import names
from pocket_operator.resources.kinds import PROTECTED_NAMESPACES, RELAY_MINERS, SUPPLIERS

_LOG: FilteringBoundLogger = structlog.get_logger()
Object = dict[str, Any]
PROTECTED: Final = "pocket-operator-protected"


def protected_namespaces(
    subjects: Mapping[str, Iterable[Object]], release: frozenset[str] = frozenset()
) -> dict[str, str]:
    """Return a text on the resources with our finalizer, by namespace.

    It counts them without the uids in `release`.

    `subjects` are Suppliers and RelayMiners by kind.
    """
    counts: dict[str, Counter[str]] = {}
    for kind, objects in subjects.items():
        for subject in objects:
            if has_finalizer(subject) and str(subject["metadata"]["uid"]) not in release:
                counts.setdefault(str(subject["metadata"]["namespace"]), Counter())[kind] += 1
    return {
        namespace: " and ".join(f"{number} {kind}{'s' * (number > 1)}" for kind, number in sorted(kinds.items()))
        for namespace, kinds in counts.items()
    }


def with_own(protected: dict[str, str], own: str) -> dict[str, str]:
    """Add the operator's own namespace while any other is protected.

    Drains need the operator.
    """
    if not protected or own in protected:
        return protected
    return {**protected, own: f"the operator of {', '.join(sorted(protected)[:5])}"}


class NamespaceGuard:
    """Writes the list of protected namespaces when it differs.

    A failure does not stop reconciliation.
    """

    def __init__(self, api: KubeApi, cache: ObjectCache, namespace: str) -> None:
        self._api = api
        self._cache = cache
        self._namespace = namespace
        self._released: frozenset[str] = frozenset()
        self._writing = asyncio.Lock()

    async def refresh(self) -> None:
        """Write the list if it differs.

        Raises KubeError.
        """
        async with self._writing:
            wanted = {"spec": {"namespaces": self._protected()}}
            await publish(
                self._api, PROTECTED_NAMESPACES, (self._namespace, PROTECTED), wanted, f"{names.FIELD_MANAGER}-held"
            )

    async def update(self) -> None:
        """Write the list after finalizers were added and before a key is published.

        Failures are logged.
        """
        try:
            await self.refresh()
        except KubeError as error:
            _LOG.warning("cannot write the protected namespaces, retrying", error=error)

    async def release(self, namespace: str, subjects: Iterable[Object]) -> None:
        """Stop protecting resources before their finalizers are removed.

        Then their namespace can be deleted.
        """
        self._released |= {str(subject["metadata"]["uid"]) for subject in subjects}
        if namespace not in self._protected():
            await self.update()

    def _protected(self) -> dict[str, str]:
        subjects = {kind.name: self._cache.all(kind.name) for kind in (RELAY_MINERS, SUPPLIERS)}
        self._released &= {str(subject["metadata"]["uid"]) for rows in subjects.values() for subject in rows}
        return with_own(protected_namespaces(subjects, self._released), self._namespace)
