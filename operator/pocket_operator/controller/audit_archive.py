"""Keep the heads of audit trails of past days in a ConfigMap.

It outlives volumes and the RelayMiner.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.api.status import AuditHeadStatus
from pocket.kube.api_client import KubeApi, KubeError
from pocket_operator.controller.published import publish
from pocket_operator.decide.object_cache import ReconcileKey
from pocket_operator.resources import names
from pocket_operator.resources.kinds import CONFIG_MAPS

_LOG: FilteringBoundLogger = structlog.get_logger()
_KEPT_DAYS: Final = 100
MANAGER: Final = f"{names.FIELD_MANAGER}-audit"


def with_heads(data: Mapping[str, str], heads: Iterable[AuditHeadStatus], date: str) -> dict[str, str]:
    """Return the entries with a line of this date for each head.

    A line has date, number and hash. A day that has a line keeps it, and the last hundred lines of a pod stay.
    """
    merged = dict(data)
    for head in heads:
        lines = merged.get(head.pod, "").splitlines()
        if not any(line.startswith(f"{date} ") for line in lines):
            lines.append(f"{date} {head.number} {head.hash}")
        merged[head.pod] = "\n".join(lines[-_KEPT_DAYS:]) + "\n"
    return merged


class AuditArchive:
    """Writes one line a day for each miner. A failure does not stop reconciliation."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._written: dict[tuple[ReconcileKey, str], str] = {}

    async def update(self, key: ReconcileKey, heads: Iterable[AuditHeadStatus], now: datetime) -> None:
        """Write the heads that have no line of this day yet."""
        date = f"{now:%Y-%m-%d}"
        new = [head for head in heads if self._written.get((key, head.pod)) != date]
        if not new:
            return
        config_map = key.namespace, names.audit(key.name)
        try:
            observed = await self._api.get_or_none(CONFIG_MAPS, *config_map) or {}
            await publish(
                self._api, CONFIG_MAPS, config_map, {"data": with_heads(observed.get("data") or {}, new, date)}, MANAGER
            )
        except KubeError as error:
            _LOG.warning("cannot write the heads of audit trails, retrying", place="/".join(config_map), error=error)
            return
        self._written.update({(key, head.pod): date for head in new})
