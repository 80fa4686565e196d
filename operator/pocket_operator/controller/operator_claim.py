"""Notice another operator that manages the same RelayMiners, and leave them to it.

The status of a RelayMiner names the namespace of the operator that manages it. Another operator takes it over only once
that operator's Lease is gone, or was not renewed for a minute as seen here.
"""

import re
from collections.abc import Callable
from typing import Any, Final

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.kube.api_client import NO_ANSWER, KubeApi, KubeError, ObjectNotFound
from pocket_operator.resources.kinds import LEASES

_LOG: FilteringBoundLogger = structlog.get_logger()
LEASE: Final = "pocket-operator"
_DEAD_SECONDS: Final = 60.0
_READ_SECONDS: Final = 5.0
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
Object = dict[str, Any]


class OperatorClaim:
    """Decides whether this operator manages a resource."""

    def __init__(self, api: KubeApi, namespace: str, clock: Callable[[], float]) -> None:
        self._api = api
        self._namespace = namespace
        self._clock = clock
        self._read_at: dict[str, float] = {}
        self._renewed: dict[str, tuple[str, float]] = {}
        self._unreadable: set[str] = set()

    def is_readable(self, namespace: str) -> bool:
        """Return False if an operator's Lease could not be read at the last attempt."""
        return namespace not in self._unreadable

    async def other(self, subject: Object) -> str:
        """Return the namespace of another operator that manages a RelayMiner or Supplier.

        The result is empty if this one does. Raises KubeError if the API server does not answer.
        """
        recorded = str((subject.get("status") or {}).get("operator") or "")
        if recorded == self._namespace or _NAMESPACE.fullmatch(recorded) is None:
            return ""
        return recorded if await self.leads(recorded) else ""

    async def leads(self, namespace: str) -> bool:
        """Return False if an operator's Lease is gone or was not renewed for a minute.

        Raises KubeError if the API server does not answer.
        """
        now = self._clock()
        if now - self._read_at.get(namespace, float("-inf")) >= _READ_SECONDS:
            try:
                lease = await self._api.get(LEASES, namespace, LEASE)
            except ObjectNotFound:
                return False
            except KubeError as error:
                if error.status in NO_ANSWER:
                    raise
                self._unreadable.add(namespace)
                _LOG.warning(
                    "cannot read an operator's Lease, leaving its RelayMiners",
                    operator_namespace=namespace,
                    error=error,
                )
                return True
            self._unreadable.discard(namespace)
            self._read_at[namespace] = now
            renewed = str((lease.get("spec") or {}).get("renewTime") or "")
            if self._renewed.get(namespace, ("", 0.0))[0] != renewed or namespace not in self._renewed:
                self._renewed[namespace] = (renewed, now)
        return now - self._renewed[namespace][1] < _DEAD_SECONDS
