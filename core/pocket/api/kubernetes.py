"""Define the parts of Kubernetes objects that a RelayMiner passes on.

They go to its pods, Services and routes.
"""

from collections.abc import Mapping
from decimal import Decimal
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from pocket.api.base import Model
from pocket.api.schema import (
    LIST_SET,
    Cel,
    keys_matching,
    kubernetes_schema,
    list_map,
    matching,
    rule,
    rules,
    shown_value,
    text,
)


def _of_kubernetes(kind: str) -> Any:
    """Return the annotation of an object that Kubernetes itself defines."""
    return Field(json_schema_extra=kubernetes_schema(kind))


Toleration = Annotated[dict[str, Any], _of_kubernetes("Toleration")]
Affinity = Annotated[dict[str, Any], _of_kubernetes("Affinity")]
TopologySpreadConstraint = Annotated[dict[str, Any], _of_kubernetes("TopologySpreadConstraint")]
LocalObjectReference = Annotated[dict[str, Any], _of_kubernetes("LocalObjectReference")]
MetricSpec = Annotated[dict[str, Any], _of_kubernetes("MetricSpec")]


def _checked_block(peer: dict[str, Any]) -> dict[str, Any]:
    """Check the addresses of a peer.

    No rule of a definition can compare them. Raises ValueError. What is no address at all is left to the API server.
    """
    block = peer.get("ipBlock")
    if not isinstance(block, dict) or not isinstance(holes := block.get("except") or [], list):
        return peer
    allowed = _network(block.get("cidr"))
    for hole in filter(None, map(_network, holes)):
        part = isinstance(hole, IPv4Network) and isinstance(allowed, IPv4Network) and hole.subnet_of(allowed)
        part = part or (isinstance(hole, IPv6Network) and isinstance(allowed, IPv6Network) and hole.subnet_of(allowed))
        if allowed is not None and (not part or hole == allowed):
            raise ValueError(f"ipBlock.except: {hole} is not a part of cidr {allowed}")
    return peer


def _network(text: Any) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(str(text), strict=False)
    except ValueError:
        return None


NetworkPolicyPeer = Annotated[dict[str, Any], AfterValidator(_checked_block), _of_kubernetes("NetworkPolicyPeer")]

OWNED_POD_FIELDS: Final[Mapping[str, str]] = {
    "serviceAccountName": "annotate the ServiceAccount instead",
    "serviceAccount": "annotate the ServiceAccount instead",
    "automountServiceAccountToken": "miners need it and relayers do not",
    "restartPolicy": "a workload's pods always restart",
    "terminationGracePeriodSeconds": "use podTemplate.terminationGraceSeconds",
    "affinity": "use podTemplate.affinity",
}
"""Fields of a PodSpec that the operator owns or has elsewhere, with what to do instead."""
OWNED_CONTAINER_FIELDS: Final[Mapping[str, str]] = {
    "image": "use the image of this workload in the resource",
    "resources": "use the resources of this workload in the resource",
    "command": "the operator starts the program",
    "args": "the operator starts the program",
    "ports": "use the port of this workload in the resource",
    "livenessProbe": "the operator probes the program",
    "readinessProbe": "the operator probes the program",
    "startupProbe": "the operator probes the program",
    "lifecycle": "the operator drains the program",
}
"""The same of the workload's own container."""
OWNED_VOLUMES: Final = ("config", "hot", "keys", "tmp", "data", "redis-login", "redis-ca")
OWNED_ENVIRONMENT: Final = ("POCKET_REDIS_URL", "POD_NAME", "POD_UID", "TMPDIR")
OWNED_MOUNTS: Final = ("/config", "/hot", "/keys", "/tmp", "/data", "/secrets", "/redis")  # noqa: S108 - in a pod


def owned_message(field: str, remedy: str) -> str:
    """Return what a user reads who sets a field that the operator owns."""
    return f"{field} is the operator's: {remedy}"


_PodSpec = Annotated[
    dict[str, Any],
    _of_kubernetes("PodSpec"),
    *(Cel(f"!has(self.{name})", owned_message(name, remedy)) for name, remedy in OWNED_POD_FIELDS.items()),
]


def owned_by(component: str) -> tuple[Cel, ...]:
    """Return the rules that refuse what the operator owns in its container.

    They apply to a workload's pod template.
    """
    containers, initial, volumes = (
        f"!has(self.spec) || !has(self.spec.{name}) || self.spec.{name}"
        for name in ("containers", "initContainers", "volumes")
    )
    return (
        *(
            Cel(
                f"{containers}.all(c, c.name != '{component}' || !has(c.{name}))",
                owned_message(f"spec.containers[{component}].{name}", remedy),
            )
            for name, remedy in OWNED_CONTAINER_FIELDS.items()
        ),
        Cel(
            f"{containers}.all(c, c.name != '{component}' || !has(c.env) || "
            f"c.env.all(e, !(e.name in {list(OWNED_ENVIRONMENT)})))",
            f"spec.containers[{component}].env sets one of the operator's: {', '.join(OWNED_ENVIRONMENT)}",
        ),
        Cel(
            f"{containers}.all(c, c.name != '{component}' || !has(c.volumeMounts) || "
            f"c.volumeMounts.all(m, !(m.mountPath in {[*OWNED_MOUNTS, *(f'{path}/' for path in OWNED_MOUNTS)]})))",
            f"spec.containers[{component}].volumeMounts uses one of the operator's paths: {', '.join(OWNED_MOUNTS)}",
        ),
        Cel(
            f"{volumes}.all(v, !(v.name in {list(OWNED_VOLUMES)}) && !v.name.startsWith('auth-'))",
            f"spec.volumes has one of the operator's names: {', '.join(OWNED_VOLUMES)}, auth-*",
        ),
        Cel(
            f"{containers}.all(c, c.name == '{component}' || has(c.image))",
            f"each container of spec.containers other than {component}, the operator's, needs an image",
        ),
        Cel(
            f"{initial}.all(c, has(c.image) && c.name != '{component}' && !(has(self.spec.containers) && "
            "self.spec.containers.exists(d, d.name == c.name)))",
            f"each container of spec.initContainers needs an image and a name that no other has, {component} neither",
        ),
        Cel(
            f"{initial}.all(c, has(c.restartPolicy) || !has(c.lifecycle) && !has(c.livenessProbe) && "
            "!has(c.readinessProbe) && !has(c.startupProbe))",
            "probes and lifecycle in spec.initContainers need restartPolicy Always",
        ),
        Cel(
            f"{containers}.all(c, !has(c.volumeMounts) || c.volumeMounts.all(m, m.name in {list(OWNED_VOLUMES)} || "
            "m.name.startsWith('auth-') || has(self.spec.volumes) && self.spec.volumes.exists(v, v.name == m.name)))",
            "each of volumeMounts needs an entry of spec.volumes with its name",
        ),
    )


_NAME: Final = r"[a-z0-9]+((-+|\.)[a-z0-9]+)*"
_KEY: Final = rf"({_NAME}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?"
_IS_KEY: Final = "must be of letters, digits, -, _ and ., such as team or example.org/team"
_LABEL_VALUE: Final = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
Labels = Annotated[dict[str, Annotated[str, Field(max_length=63, pattern=_LABEL_VALUE)]], *keys_matching(_KEY, _IS_KEY)]
Annotations = Annotated[dict[str, str], *keys_matching(_KEY, _IS_KEY)]
Image = Annotated[
    str,
    *text(
        r"(([A-Za-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?"
        r"(@sha256:[0-9a-f]{64})?",
        "must be an image such as registry.example.org/team/miner:1.2.3",
        longest=512,
    ),
]
Quantity = Annotated[
    str,
    *text(
        r"[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?",
        "must be a quantity such as 500m, 2 or 1Gi, quoted if it is a bare number",
        longest=32,
    ),
]
Name = Annotated[
    str,
    *text(_NAME, "must be a Kubernetes name: lower case letters, digits, - and .", longest=253),
]


_FACTORS: Final = {
    "m": Decimal("0.001"), "": Decimal(1), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9),
    "T": Decimal(10**12), "P": Decimal(10**15), "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30),
    "Ti": Decimal(2**40), "Pi": Decimal(2**50),
}  # fmt: skip


def amount_of(quantity: str) -> Decimal:
    """Return the value of a valid quantity, such as 0.5 of 500m."""
    number = quantity.rstrip("mkKMGTPi")
    return Decimal(number) * _FACTORS[quantity[len(number) :]]


def _not_below(name: str) -> dict[str, str]:
    """Return the rule that a limit is not below the request of the same resource."""
    request, limit = f"self.requests['{name}']", f"self.limits['{name}']"
    both = f"has(self.requests) && '{name}' in self.requests && has(self.limits) && '{name}' in self.limits"
    return rule(
        f"!({both}) || quantity({request}).compareTo(quantity({limit})) <= 0",
        f"{name}: the limit must not be below the request",
        f"'{name}: the limit ' + {limit} + ' is below the request ' + {request}",
    )


_EXTENDED: Final = rule(
    "!has(self.requests) || self.requests.all(k, !k.contains('/') && !k.startsWith('hugepages-') || "
    "has(self.limits) && k in self.limits && self.limits[k] == self.requests[k])",
    "the request of an extended resource or of huge pages must be its limit",
)
_WHOLE: Final = rule(
    "!has(self.limits) || self.limits.all(k, !k.contains('/') || quantity(self.limits[k]).isInteger() && "
    "!self.limits[k].contains('.') && !self.limits[k].endsWith('m'))",
    "the limit of an extended resource must be a whole number",
)
_Quantities = Annotated[
    dict[str, Quantity],
    *keys_matching(
        rf"cpu|memory|ephemeral-storage|hugepages-[0-9]+[KMGT]i|{_NAME}/[A-Za-z0-9][-A-Za-z0-9_.]*",
        "must be cpu, memory, ephemeral-storage or the name of an extended resource",
    ),
]


class Resources(Model):
    """Requests and limits of a container, by resource name."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            *(_not_below(name) for name in ("cpu", "memory", "ephemeral-storage")), _EXTENDED, _WHOLE
        )
    }

    requests: _Quantities = Field(default={}, max_length=16)
    limits: _Quantities = Field(default={}, max_length=16)

    def model_post_init(self, _: Any, /) -> None:
        """Check the rule for files that no API server has validated."""
        for name, request in self.requests.items():
            limit = self.limits.get(name, request)
            if amount_of(limit) < amount_of(request):
                raise ValueError(f"{name}: the limit {limit} is below the request {request}")


class PodPlacement(Model):
    """Labels of the pods, and where and how they are scheduled. Changes roll the pods."""

    labels: Labels = Field(default={}, max_length=32, description="Additional labels of the pods.")
    annotations: Annotations = Field(default={}, max_length=32, description="Additional annotations of the pods.")
    node_selector: Labels = Field(default={}, max_length=32)
    tolerations: tuple[Toleration, ...] = Field(default=(), max_length=32)
    affinity: Affinity | None = Field(default=None, description="Merged into the pod's spec.")
    topology_spread_constraints: tuple[TopologySpreadConstraint, ...] | None = Field(
        default=None,
        max_length=16,
        description="Default: spread over nodes and zones, ScheduleAnyway.",
        json_schema_extra=rules(
            rule(
                "self.all(c, has(c.maxSkew) && has(c.whenUnsatisfiable) && self.exists_one(d, "
                "d.topologyKey == c.topologyKey && d.whenUnsatisfiable == c.whenUnsatisfiable))",
                "each constraint needs maxSkew and whenUnsatisfiable, and no two have the same topologyKey and "
                "whenUnsatisfiable",
            )
        ),
    )
    priority_class_name: Name | None = None
    image_pull_secrets: tuple[LocalObjectReference, ...] = Field(
        default=(), max_length=8, json_schema_extra=list_map("name")
    )
    termination_grace_seconds: int | None = Field(
        default=None, ge=1, le=3600, description="Seconds. Default: drainSeconds and a margin."
    )


class PodTemplate(PodPlacement):
    """Settings of the pods in addition to the operator's own. Changes roll the pods."""

    spec: _PodSpec | None = Field(
        default=None,
        description="A part of a PodSpec that is merged strategically into the operator's: environment, volumes, "
        "mounts, init and side containers, security context, DNS, runtime class and so on. null removes a field. What "
        "the operator owns is refused.",
    )


class ServicePort(Model):
    """The Service that exposes the relayers inside the cluster or by a load balancer."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    port: int = Field(default=80, ge=1, le=65535, description="Port of the Service, forwarded to the relayers' port.")
    annotations: Annotations = Field(default={}, max_length=32)


class Autoscaling(Model):
    """A HorizontalPodAutoscaler, to which the operator then leaves replicas.

    The metric that asks for the most pods wins.
    """

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            rule("self.minReplicas <= self.maxReplicas", "minReplicas must not be above maxReplicas")
        )
    }

    min_replicas: int = Field(default=2, ge=1, le=1000)
    max_replicas: int = Field(ge=1, le=1000)
    target_cpu_percent: int = Field(default=70, ge=1, le=100, description="Of the pods' CPU requests.")
    metrics: tuple[MetricSpec, ...] = Field(
        default=(),
        max_length=16,
        description="Additional MetricSpecs of autoscaling/v2, such as the pods' own metrics from a metrics adapter.",
    )
    scale_down_seconds: int = Field(
        default=300, ge=0, le=3600, description="Seconds during which fewer pods must be enough before scaling down."
    )

    def model_post_init(self, _: Any, /) -> None:
        """Check the rule for files that no API server has validated."""
        if self.min_replicas > self.max_replicas:
            raise ValueError("minReplicas must not be above maxReplicas")


_NO_IP: Final = "must be a host name, not an address"
HostPattern = Annotated[
    str,
    *text(
        rf"(\*\.)?{_NAME}", "must be a host name in lower case, such as relay.example.org or *.example.org", longest=253
    ),
    matching(r".*[a-z-].*", _NO_IP),
    Cel("self.matches('[a-z-]')", _NO_IP, shown_value(_NO_IP)),
]


class Ingress(Model):
    """An Ingress to the relayers."""

    host: HostPattern
    class_name: Name | None = None
    tls_secret_name: Name | None = Field(default=None, description="A Secret with the host's certificate.")
    annotations: Annotations = Field(default={}, max_length=32)


class ParentRef(Model):
    """A Gateway, or a part of one, to which a route is attached."""

    group: Name | None = Field(default=None, description="Default: gateway.networking.k8s.io.")
    kind: str | None = Field(
        default=None, max_length=63, pattern="^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$", description="Default: Gateway."
    )
    namespace: Name | None = Field(default=None, description="Default: the RelayMiner's.")
    name: Name
    section_name: Name | None = Field(default=None, description="A listener of the Gateway.")
    port: int | None = Field(default=None, ge=1, le=65535)


class GatewayRoute(Model):
    """An HTTPRoute of the Gateway API to the relayers."""

    parent_refs: tuple[ParentRef, ...] = Field(min_length=1, max_length=8, description="The Gateways to attach to.")
    hostnames: tuple[HostPattern, ...] = Field(default=(), max_length=16, json_schema_extra=LIST_SET)


class NetworkPolicies(Model):
    """Restricts the clients of the pods. Off by default."""

    enabled: bool = False
    relays_from: tuple[NetworkPolicyPeer, ...] = Field(
        default=(), max_length=16, description="NetworkPolicyPeers that may send relays. Empty: all."
    )
    metrics_from: tuple[NetworkPolicyPeer, ...] = Field(
        default=(), max_length=16, description="NetworkPolicyPeers that may read metrics, in addition to the operator."
    )
    console_from: tuple[NetworkPolicyPeer, ...] = Field(
        default=(),
        max_length=16,
        description="NetworkPolicyPeers that may reach the console, such as your proxy. "
        "Empty: none. `kubectl port-forward` needs none.",
    )
