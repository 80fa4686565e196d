"""Order the updates of RelayMiners to the operator's release."""

from collections.abc import Callable

from pocket_operator.decide.object_cache import ObjectCache, ReconcileKey
from pocket_operator.decide.plan import is_paused
from pocket_operator.decide.snapshot import Settings, Turn
from pocket_operator.decide.update import UpdateCandidate, candidate_of, next_turn
from pocket_operator.resources.kinds import RELAY_MINERS

_WORKLOADS = ("Deployment", "StatefulSet")


class UpdateQueue:
    """Grants the turn to one RelayMiner after the other.

    It remembers only when an update was last under way. After a restart the delay begins again.
    """

    def __init__(self, cache: ObjectCache, settings: Settings, clock: Callable[[], float]) -> None:
        self._cache = cache
        self._settings = settings
        self._clock = clock
        self._delay = settings.update_delay_seconds
        self._busy_at = clock()

    def turn(self, key: ReconcileKey) -> Turn:
        """Return whether this RelayMiner may update now."""
        own = self._candidate(key)
        if own is None or not (own.started or own.may_start):
            return Turn(False, "it starts once the children of this RelayMiner can be applied: see Ready")
        keys = (ReconcileKey(*namespaced_name) for namespaced_name in self._cache.identities(RELAY_MINERS.name, ""))
        candidates = [row for row in map(self._candidate, keys) if row is not None]
        if any(row.started for row in candidates):
            self._busy_at = self._clock()
        return next_turn(key, candidates, self._clock() - self._busy_at, self._delay)

    def _candidate(self, key: ReconcileKey) -> UpdateCandidate | None:
        relay_miner = self._cache.get(RELAY_MINERS.name, *key)
        if relay_miner is None:
            return None
        children = self._cache.children(_WORKLOADS, key)
        return candidate_of(key, relay_miner, children, self._settings, idle=is_paused(relay_miner))
