"""Let the miners' volumes grow to the declared size, which a StatefulSet cannot."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.kube.api_client import NO_ANSWER, KubeApi, KubeError, ObjectNotFound, ResourceKind
from pocket_operator.controller import operator_metrics
from pocket_operator.decide.object_cache import ReconcileKey
from pocket_operator.decide.plan import is_paused
from pocket_operator.decide.snapshot import ChildKey
from pocket_operator.decide.volume_claims import VolumeClaim, declared_size
from pocket_operator.decide.workloads import wanted_replicas
from pocket_operator.resources import names

_LOG: FilteringBoundLogger = structlog.get_logger()
Object = dict[str, Any]
VOLUME_CLAIMS: Final = ResourceKind("v1", "persistentvolumeclaims", "PersistentVolumeClaim")
_SECONDS: Final = 60.0
_GROWING_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Read:
    """The claims as last read, in monotonic seconds.

    They are for a declared size and a number of miners.
    """

    at: float
    size: str
    miners: int
    claims: tuple[VolumeClaim, ...]

    @property
    def lifetime(self) -> float:
        pending = any(not c.capacity or c.grows_to(self.size) for c in self.claims) or len(self.claims) < self.miners
        return _GROWING_SECONDS if pending else _SECONDS


class VolumeExpander:
    """Reads the claims of the miners, at most once a minute.

    While one grows, at most every few seconds.
    """

    def __init__(self, api: KubeApi, clock: Callable[[], float]) -> None:
        self._api = api
        self._clock = clock
        self._read: dict[ReconcileKey, _Read] = {}

    async def grown(
        self, key: ReconcileKey, relay_miner: Object | None, children: Mapping[ChildKey, Object]
    ) -> tuple[VolumeClaim, ...]:
        """Return the claims of the miners, after each small one was asked to grow.

        Returns none while there are no miners or nothing may change. Raises KubeError if the API server does not
        answer.
        """
        stateful_set = children.get(("StatefulSet", names.miner(key.name)))
        if relay_miner is None or stateful_set is None or is_paused(relay_miner):
            self._read.pop(key, None)
            return ()
        size, miners = declared_size(relay_miner), wanted_replicas(stateful_set)
        known = self._read.get(key)
        same = known is not None and (known.size, known.miners) == (size, miners)
        if known is not None and same and self._clock() - known.at < known.lifetime:
            return known.claims
        try:
            selector = ",".join(f"{k}={v}" for k, v in names.selector(key.name, names.MINER).items())
            rows = await self._api.list(VOLUME_CLAIMS, key.namespace, selector)
        except KubeError as error:
            if error.status in NO_ANSWER:
                raise
            _LOG.warning("cannot read the volume claims of the miners, keeping those that are known", error=error)
            claims = known.claims if known is not None else ()
        else:
            claims = tuple([await self._grow(key, VolumeClaim.of(row), size) for row in rows])
        self._read[key] = _Read(self._clock(), size, miners, claims)
        return claims

    async def _grow(self, key: ReconcileKey, claim: VolumeClaim, size: str) -> VolumeClaim:
        if not claim.is_smaller(size):
            return claim
        patch = {"spec": {"resources": {"requests": {"storage": size}}}}
        try:
            changed = await self._api.merge(
                VOLUME_CLAIMS, key.namespace, claim.name, patch, manager=names.FIELD_MANAGER
            )
        except ObjectNotFound:
            return claim
        except KubeError as error:
            if error.status in NO_ANSWER:
                raise
            _LOG.warning("a volume does not grow", claim=claim.name, size=size, error=error)
            return VolumeClaim(claim.name, claim.requested, claim.capacity, str(error))
        operator_metrics.WRITES.labels(VOLUME_CLAIMS.name).inc()
        _LOG.info("a volume grows", claim=claim.name, size=size)
        return VolumeClaim.of(changed)
