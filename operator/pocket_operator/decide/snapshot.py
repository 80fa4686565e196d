"""The immutable snapshot from which one reconciliation decides."""

import base64
import binascii
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from pocket.api.services import RPC_NUMBERS
from pocket.keys.sealed_box import SECRET_OF_NAMESPACE, Controller
from pocket_operator.decide.books import Books
from pocket_operator.decide.pod_report import Report
from pocket_operator.decide.schemas import Schemas
from pocket_operator.decide.sections import section
from pocket_operator.decide.volume_claims import VolumeClaim
from pocket_operator.resources import names
from pocket_operator.resources.context import Images
from pocket_operator.resources.rendering import rendering_digest

Object = dict[str, Any]
UPDATE_DELAY_SECONDS = 60.0
LONGEST_PROBLEM = 500
"""Characters of what prevents a pod."""
ChildKey = tuple[str, str]
"""Kind and name."""


@dataclass(frozen=True, slots=True)
class SecretView:
    """A Secret's entries as text, and the names of those that are not text."""

    entries: Mapping[str, str] = field(repr=False)
    problem: str = ""
    """Why it could not be read, in the API server's words. It may exist."""
    not_text: frozenset[str] = frozenset()

    @classmethod
    def of(cls, secret: Object) -> "SecretView":
        """Decode the base64 of the API."""
        values: dict[str, str] = {}
        not_text = set[str]()
        for key, value in (secret.get("data") or {}).items():
            try:
                values[key] = base64.b64decode(value).decode("utf-8")
            except (binascii.Error, UnicodeDecodeError, ValueError):
                not_text.add(key)
        return cls(values, not_text=frozenset(not_text))

    def lacks(self, entry: str) -> str:
        """Return what is wrong with an entry that has no text, as the rest of a sentence."""
        return f"has an entry {entry} that is not text" if entry in self.not_text else f"has no entry {entry}"


@dataclass(frozen=True, slots=True)
class Pod:
    """The relevant state of a workload's pod."""

    name: str
    uid: str
    component: str
    ready: bool
    deleting: bool
    ip: str = ""
    keys_digest: str = ""
    problem: str = ""
    revision: str = ""
    """The revision that a canary's pod runs, empty for all other pods."""
    ready_changed_at: datetime | None = None
    """When it became ready or unready."""
    restarts: int = 0

    @classmethod
    def of(cls, pod: Object) -> "Pod":
        """Read the API's object."""
        metadata, status = pod["metadata"], pod.get("status") or {}
        conditions = {row["type"]: row for row in status.get("conditions") or ()}
        ready = conditions.get("Ready", {})
        since = ready.get("lastTransitionTime")
        annotations, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
        is_canary = labels.get(names.LABEL_TRACK) == names.CANARY
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            component=labels.get(names.LABEL_COMPONENT, ""),
            ready=ready.get("status") == "True",
            deleting=bool(metadata.get("deletionTimestamp")),
            ip=status.get("podIP") or "",
            keys_digest=annotations.get(names.ANNOTATION_KEYS, ""),
            problem=_pod_problem(status, conditions),
            revision=annotations.get(names.ANNOTATION_REVISION, "?") if is_canary else "",
            ready_changed_at=datetime.fromisoformat(str(since)) if since else None,
            restarts=sum(int(row.get("restartCount") or 0) for row in status.get("containerStatuses") or ()),
        )


def _pod_problem(status: Object, conditions: Mapping[str, Object]) -> str:
    """Return what first prevents the pod's readiness, in Kubernetes' words."""
    for row in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (row.get("state") or {}).get("waiting") or {}
        last = (row.get("lastState") or {}).get("terminated") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            output = (last.get("message") or "").strip()
            message = output.splitlines()[-1] if output else waiting.get("message", "")
            return f"{row.get('name')}: {waiting['reason']}: {message}".rstrip(": ")[:LONGEST_PROBLEM]
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return f"{scheduled.get('reason', 'Unschedulable')}: {scheduled.get('message', '')}"[:LONGEST_PROBLEM]
    return ""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the operator's process."""

    namespace: str = "pocket-system"
    images: Images = field(default_factory=Images)
    update_delay_seconds: float = UPDATE_DELAY_SECONDS
    """Pause between the updates of two RelayMiners to a new release of the operator."""

    @property
    def rendering(self) -> str:
        """The digest of how this release renders pod templates."""
        return rendering_digest(self.images.pull_policy)


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a child was not written.

    It is the API server's message, or a `foreign` object has its name. The next attempt may succeed after a `passing`
    one. With `namespace_ends` the namespace is being deleted.
    """

    message: str
    foreign: bool = False
    passing: bool = False
    namespace_ends: bool = False


def repeated(rejections: Mapping[ChildKey, Rejection], before: Collection[ChildKey]) -> dict[ChildKey, Rejection]:
    """Return the rejections to report.

    Of those that may pass, only what was rejected at the attempt before, too.
    """
    return {child_key: row for child_key, row in rejections.items() if not row.passing or child_key in before}


@dataclass(frozen=True, slots=True)
class Turn:
    """Whether a RelayMiner may update to this release now, or what comes first."""

    granted: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class UpdateStep:
    """The current step of an update and the time at which it began.

    The time is in monotonic seconds.
    """

    name: str = ""
    since: float = 0.0


@dataclass(frozen=True)
class Snapshot:
    """The state around one RelayMiner.

    That is None if only Suppliers that name it are left. Properties that are needed for each of a thousand Suppliers
    are computed once.
    """

    now: datetime
    clock: float
    namespace: str
    name: str
    relay_miner: Object | None
    suppliers: tuple[Object, ...]
    owners: Mapping[str, str]
    """Operator address → uid of the Supplier that may use it, which is the oldest one."""
    secrets: Mapping[str, SecretView | None]
    """Referenced Secrets by name, None for those that do not exist."""
    published: SecretView | None
    """The miners' current merged key set."""
    children: Mapping[ChildKey, Object]
    pods: tuple[Pod, ...] = ()
    reports: tuple[Report, ...] = ()
    drain_anchor_uid: str = ""
    controller: Controller = field(default_factory=lambda: Controller(()))
    settings: Settings = field(default_factory=Settings)
    capabilities: frozenset[str] = frozenset()
    quiet_since: Mapping[str, float] = field(default_factory=dict)
    """Address → time since which no relayer may record relays of a draining supplier (monotonic seconds)."""
    rejections: Mapping[ChildKey, Rejection] = field(default_factory=dict)
    """Children that the last attempt could not write."""
    unprotected: Mapping[ChildKey, str] = field(default_factory=dict)
    """What the API server let us not protect from deletion, with its message."""
    unreleased: Mapping[ChildKey, str] = field(default_factory=dict)
    """What the API server let us not release at the last attempt, with its message."""
    owner_names: Mapping[str, str] = field(default_factory=dict)
    """Operator address → namespace/name of the Supplier that may use it."""
    schemas: Schemas = field(default_factory=Schemas)
    """The installed definitions of our kinds."""
    namespace_ends: bool = False
    """The namespace is being deleted: its pods end, and none can be created in it again."""
    prefix_owner: str = ""
    """Namespace/name of an older RelayMiner with the same Redis and prefix, empty without one."""
    failed_creates: Mapping[ChildKey, str] = field(default_factory=dict)
    """StatefulSets whose pods cannot be created, with the API server's message."""
    claims: tuple[VolumeClaim, ...] = ()
    """The volume claims of the miners."""
    rolling_since: float | None = None
    """Time since which not all declared pods are updated and ready (monotonic seconds), None if they are."""
    unserved_since: float | None = None
    """Time since which the Supplier that waits longest is not served (monotonic seconds), None if all are."""
    turn: Turn = field(default_factory=lambda: Turn(False))
    update_step: UpdateStep = field(default_factory=UpdateStep)
    books: Mapping[str, Books] = field(default_factory=dict)
    """Uid of a Supplier → what its miners concluded."""

    @property
    def unpublished(self) -> str:
        """Return why the last attempt could not write the pods' keys, empty if it could."""
        for component in (names.RELAYER, names.MINER):
            name = names.keys(self.name, component)
            if (rejection := self.rejections.get(("Secret", name))) is not None:
                return f"Secret {name}: {rejection.message}"
        return ""

    @cached_property
    def own_sealing(self) -> Controller:
        """The namespace's own sealing keys."""
        view = self.secrets.get(SECRET_OF_NAMESPACE)
        return Controller.of_texts({} if view is None else view.entries)

    @cached_property
    def steady_pods(self) -> tuple[Pod, ...]:
        """The pods without canaries, which are assessed on their own."""
        return tuple(pod for pod in self.pods if not pod.revision)

    @cached_property
    def steady_reports(self) -> tuple[Report, ...]:
        """The reports without those of canaries."""
        canaries = {pod.name for pod in self.pods if pod.revision}
        return tuple(report for report in self.reports if report.pod not in canaries)

    @cached_property
    def lasting_reports(self) -> tuple[Report, ...]:
        """The reports of the pods that `expected_pods` counts."""
        ending = {pod.name for pod in self.steady_pods if pod.deleting}
        return tuple(report for report in self.steady_reports if report.pod not in ending)

    @cached_property
    def expected_pods(self) -> int:
        """Return the number of pods that should have the keys.

        They are all relayers and miners, at least one miner.
        """
        living = [pod for pod in self.steady_pods if not pod.deleting]
        miners = sum(pod.component == names.MINER for pod in living)
        return sum(pod.component == names.RELAYER for pod in living) + max(1, miners)

    @cached_property
    def offered(self) -> Mapping[str, frozenset[int]]:
        """The transports (chain numbers) that the RelayMiner serves, by service."""
        services = section(self.relay_miner, "spec").get("services")
        return {
            str(service.get("id")): frozenset(
                number for name, number in RPC_NUMBERS.items() if section(service, "backends").get(name) is not None
            )
            for service in (services if isinstance(services, list) else ())
            if isinstance(service, dict)
        }
