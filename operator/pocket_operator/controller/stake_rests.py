"""Schedule of comparing the stakes of Suppliers with the chain."""

import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from pocket.api.lenient import read_known
from pocket.api.status import DrainProgress
from pocket_operator.decide.stake_decision import APPROVAL

Object = dict[str, Any]
NamespacedName = tuple[str, str]
_Version = tuple[int, str, bool]
_FIRST_REST_SECONDS: Final = 5.0
_REST_SECONDS: Final = 60.0
"""Until a stake is compared again that was as declared, or that stayed as it was for several rounds."""
_JITTER: Final = 0.2


def reported_drain(supplier: Object) -> DrainProgress | None:
    """Return the drain that the reconciler reports, None without a valid one."""
    try:
        return read_known(DrainProgress, (supplier.get("status") or {})["drain"])[0]
    except (KeyError, ValidationError):
        return None


@dataclass(frozen=True, slots=True)
class _Rest:
    """Until when a Supplier is left alone that does not change."""

    version: _Version
    until: float
    seconds: float


def _version(supplier: Object) -> _Version:
    """Return what ends a rest when it changes: spec, approval and drain."""
    metadata, drain = supplier["metadata"], reported_drain(supplier)
    approval = str((metadata.get("annotations") or {}).get(APPROVAL, ""))
    return int(metadata.get("generation") or 0), approval, drain is not None and drain.done


def _key_of(supplier: Object) -> NamespacedName:
    return str(supplier["metadata"]["namespace"]), str(supplier["metadata"]["name"])


class StakeRests:
    """Suppliers whose stake need not be compared for a while. `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float], rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng
        self._resting: dict[NamespacedName, _Rest] = {}

    def keep_only(self, supplier_keys: Collection[NamespacedName]) -> None:
        """Forget all other Suppliers."""
        self._resting = {key: rest for key, rest in self._resting.items() if key in supplier_keys}

    def due(self, suppliers: Mapping[NamespacedName, Object | None]) -> list[NamespacedName]:
        """Return the Suppliers that do not rest or that have changed.

        A round may end early, so those that waited longest go first.
        """
        return sorted((key for key, supplier in suppliers.items() if self._is_due(key, supplier)), key=self._due_since)

    def _is_due(self, key: NamespacedName, supplier: Object | None) -> bool:
        rest = self._resting.get(key)
        return rest is None or supplier is None or rest.version != _version(supplier) or self._clock() >= rest.until

    def _due_since(self, key: NamespacedName) -> float:
        rest = self._resting.get(key)
        return float("-inf") if rest is None else rest.until

    def rest(self, supplier: Object, *, complete: bool) -> None:
        """Leave a Supplier alone for a while, twice as long as before.

        With `complete` for the longest time at once.
        """
        key, version = _key_of(supplier), _version(supplier)
        before = self._resting.get(key)
        doubled = 2 * before.seconds if before is not None and before.version == version else _FIRST_REST_SECONDS
        seconds = _REST_SECONDS if complete else min(doubled, _REST_SECONDS)
        until = self._clock() + seconds * self._rng.uniform(1 - _JITTER, 1)
        self._resting[key] = _Rest(version, until, seconds)

    def end(self, supplier: Object) -> None:
        """End the rest of a Supplier whose status changed."""
        self._resting.pop(_key_of(supplier), None)
