"""Decide which volumes of the miners grow to the declared size.

Those that do not are reported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pocket.api.kubernetes import amount_of
from pocket.api.relayminer import MinerSpec
from pocket.api.status import ConditionType
from pocket_operator.decide.conditions import ConditionSpec, few
from pocket_operator.decide.reasons import ConditionReason
from pocket_operator.decide.sections import section


@dataclass(frozen=True, slots=True)
class VolumeClaim:
    """A PersistentVolumeClaim of a miner with its requested and present size.

    The latter is empty before it is bound.
    """

    name: str
    requested: str
    capacity: str = ""
    refusal: str = ""
    """Why the API server refused to let it grow."""
    deleting: bool = False
    """It goes, and its volume with it, once no pod uses it. Nothing takes that back."""

    @classmethod
    def of(cls, claim: Mapping[str, Any], refusal: str = "") -> "VolumeClaim":
        """Read the API's object."""
        requests = ((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}
        capacity = ((claim.get("status") or {}).get("capacity") or {}).get("storage")
        deleting = bool(claim["metadata"].get("deletionTimestamp"))
        size = str(requests.get("storage") or "0")
        return cls(str(claim["metadata"]["name"]), size, str(capacity or ""), refusal, deleting)

    def is_smaller(self, size: str) -> bool:
        """Return True if it is bound and its request is below a size.

        Another one takes no larger request.
        """
        return bool(self.capacity) and _below(self.requested, size)

    def grows_to(self, size: str) -> bool:
        """Return True if it asked for a size that it does not have yet."""
        return bool(self.capacity) and not _below(self.requested, size) and _below(self.capacity, size)


def _below(left: str, right: str) -> bool:
    """Compare quantities.

    One that is not in the resource's form is taken for large enough.
    """
    try:
        return amount_of(left) < amount_of(right)
    except (ArithmeticError, KeyError, ValueError):
        return False


def declared_size(relay_miner: Mapping[str, Any] | None) -> str:
    """Return the declared size of a miner's volume.

    It is the default where the resource has no valid one.
    """
    size = section(relay_miner, "spec", "miner").get("storage")
    return size if isinstance(size, str) else str(MinerSpec.model_fields["storage"].default)


def template_size(stateful_set: Mapping[str, Any] | None) -> str:
    """Return the size in a StatefulSet's claim template, which cannot change.

    The result is empty without the StatefulSet.
    """
    templates = ((stateful_set or {}).get("spec") or {}).get("volumeClaimTemplates") or ()
    return next((VolumeClaim.of({"metadata": {"name": ""}, **row}).requested for row in templates), "")


def volume_growth(claims: Sequence[VolumeClaim], size: str) -> ConditionSpec | None:
    """Return what to report of volumes that are deleted or have another size.

    The result is None if all are kept and have the declared size.
    """
    kind = ConditionType.VOLUMES_HEALTHY
    if leaving := [claim.name for claim in claims if claim.deleting]:
        return ConditionSpec(
            kind, "False", ConditionReason.VOLUME_BEING_DELETED,
            f"Deleted, and lost once its pod ends: {few(leaving)}. To keep the data, first set "
            "persistentVolumeReclaimPolicy of the volume to Retain.",
        )  # fmt: skip
    refused = [f"{claim.name} ({claim.requested}): {claim.refusal}" for claim in claims if claim.refusal]
    if refused:
        return ConditionSpec(
            kind, "False", ConditionReason.VOLUME_NOT_EXPANDED,
            f"spec.miner.storage is {size}, but {few(refused, '; ')}. Use a storage class with "
            "allowVolumeExpansion, or replace the volumes one by one.",
        )  # fmt: skip
    growing = [claim.name for claim in claims if claim.grows_to(size)]
    if growing:
        return ConditionSpec(kind, "True", ConditionReason.VOLUME_EXPANDING, f"Growing to {size}: {few(growing)}.")
    return None
