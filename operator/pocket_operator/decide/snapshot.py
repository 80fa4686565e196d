"""What one reconciliation looks at: immutable, taken once, with everything a decision needs."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from pocket.api.services import RPC_NUMBERS
from pocket.keys.sealed_box import SECRET_OF_NAMESPACE, Controller
from pocket_operator.decide.pod_report import Report
from pocket_operator.decide.schemas import Schemas
from pocket_operator.resources import names
from pocket_operator.resources.context import Images

Object = dict[str, Any]
ChildKey = tuple[str, str]
"""Kind and name."""


@dataclass(frozen=True, slots=True)
class SecretView:
    """A Secret's entries as text; what is not text is left out."""

    entries: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, secret: Object) -> "SecretView":
        """From the API's base64."""
        found: dict[str, str] = {}
        for key, value in (secret.get("data") or {}).items():
            try:
                found[key] = base64.b64decode(value).decode("utf-8")
            except (binascii.Error, UnicodeDecodeError, ValueError):
                continue
        return cls(found)


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of a workload, as far as it matters."""

    name: str
    uid: str
    component: str
    ready: bool
    deleting: bool
    ip: str = ""
    keys_digest: str = ""
    problem: str = ""
    revision: str = ""
    """Of a canary's pod: what it tries. Empty for all others."""
    ready_changed_at: datetime | None = None
    """When it became ready, or ceased to be."""
    restarts: int = 0

    @classmethod
    def of(cls, pod: Object) -> "Pod":
        """From the API's object."""
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
    """The first thing that keeps the pod from being ready, in Kubernetes' own words."""
    for row in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (row.get("state") or {}).get("waiting") or {}
        last = (row.get("lastState") or {}).get("terminated") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            said = (last.get("message") or "").strip()
            told = said.splitlines()[-1] if said else waiting.get("message", "")
            return f"{row.get('name')}: {waiting['reason']}: {told}".rstrip(": ")[:500]
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return f"{scheduled.get('reason', 'Unschedulable')}: {scheduled.get('message', '')}"[:500]
    return ""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator was started with."""

    namespace: str = "pocket-system"
    images: Images = field(default_factory=Images)


@dataclass(frozen=True)
class Snapshot:
    """One RelayMiner's world. `relay_miner` is None when only Suppliers that name it are left.

    What is asked for each of a thousand Suppliers is worked out once.
    """

    now: datetime
    clock: float
    namespace: str
    name: str
    relay_miner: Object | None
    suppliers: tuple[Object, ...]
    owners: Mapping[str, str]
    """Operator address → uid of the Supplier that may use it: the oldest one."""
    secrets: Mapping[str, SecretView | None]
    """Referenced Secrets by name; None where there is none."""
    published: SecretView | None
    """The miners' merged key set as it is."""
    children: Mapping[ChildKey, Object]
    pods: tuple[Pod, ...] = ()
    reports: tuple[Report, ...] = ()
    keeper_uid: str = ""
    controller: Controller = field(default_factory=lambda: Controller(()))
    settings: Settings = field(default_factory=Settings)
    capabilities: frozenset[str] = frozenset()
    quiet_since: Mapping[str, float] = field(default_factory=dict)
    """Address → since when no relayer may record relays of a draining supplier (monotonic seconds)."""
    refusals: Mapping[ChildKey, str] = field(default_factory=dict)
    """What the API server refused at the last attempt, in its words."""
    owner_names: Mapping[str, str] = field(default_factory=dict)
    """Operator address → namespace/name of the Supplier that may use it."""
    schemas: Schemas = field(default_factory=Schemas)
    """The installed definitions of our kinds."""

    @cached_property
    def own_sealing(self) -> Controller:
        """The namespace's own sealing keys."""
        view = self.secrets.get(SECRET_OF_NAMESPACE)
        return Controller.of_texts({} if view is None else view.entries)

    @cached_property
    def steady_pods(self) -> tuple[Pod, ...]:
        """Without canaries: what they do is judged apart and never a problem of the whole."""
        return tuple(pod for pod in self.pods if not pod.revision)

    @cached_property
    def steady_reports(self) -> tuple[Report, ...]:
        """Reports without those of canaries."""
        canaries = {pod.name for pod in self.pods if pod.revision}
        return tuple(report for report in self.reports if report.pod not in canaries)

    @cached_property
    def expected_pods(self) -> int:
        """How many pods should have the keys: all relayers and miners, at least one miner."""
        living = [pod for pod in self.steady_pods if not pod.deleting]
        miners = sum(pod.component == names.MINER for pod in living)
        return sum(pod.component == names.RELAYER for pod in living) + max(1, miners)

    @cached_property
    def offered(self) -> Mapping[str, frozenset[int]]:
        """What the RelayMiner serves: the chain's numbers of transports, by service."""
        spec = (self.relay_miner or {}).get("spec") or {}
        services = spec.get("services")
        return {
            str(service.get("id")): frozenset(
                number for name, number in RPC_NUMBERS.items() if (service.get("backends") or {}).get(name) is not None
            )
            for service in (services if isinstance(services, list) else ())
            if isinstance(service, dict)
        }
