"""Parts of Kubernetes objects that a RelayMiner passes on to its pods, Services and routes."""

from typing import Annotated, Any, Literal

from pydantic import Field

from pocket.api.base import Model
from pocket.api.schema import FREE_FORM, rule, rules, text

FreeObject = Annotated[dict[str, Any], Field(json_schema_extra=FREE_FORM)]
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
    *text(
        r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", "must be a Kubernetes name: lower case letters, digits, - and .", longest=253
    ),
]


class Resources(Model):
    """Requests and limits of a container, by resource name."""

    requests: dict[str, Quantity] = Field(default={}, max_length=16)
    limits: dict[str, Quantity] = Field(default={}, max_length=16)


class PodTemplate(Model):
    """Settings of the pods in addition to the operator's own. Changes roll the pods."""

    labels: dict[str, str] = Field(default={}, max_length=32, description="Additional labels of the pods.")
    annotations: dict[str, str] = Field(default={}, max_length=32, description="Additional annotations of the pods.")
    spec: FreeObject | None = Field(
        default=None,
        description="A part of a PodSpec that is merged strategically into the operator's: environment, volumes, "
        "mounts, init and side containers, security context, DNS, runtime class and so on. null removes a field. A "
        "part that changes what the operator owns is rejected in the status.",
    )
    node_selector: dict[str, str] = Field(default={}, max_length=32)
    tolerations: tuple[FreeObject, ...] = Field(default=(), max_length=32)
    affinity: FreeObject | None = Field(default=None, description="Merged into the pod's spec.")
    topology_spread_constraints: tuple[FreeObject, ...] | None = Field(
        default=None, max_length=16, description="Default: spread over nodes and zones, ScheduleAnyway."
    )
    priority_class_name: str | None = Field(default=None, max_length=253)
    image_pull_secrets: tuple[FreeObject, ...] = Field(default=(), max_length=8)
    termination_grace_seconds: int | None = Field(
        default=None, ge=1, le=3600, description="Seconds. Default: drainSeconds and a margin."
    )


class ServicePort(Model):
    """The Service that exposes the relayers inside the cluster or by a load balancer."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    port: int = Field(default=80, ge=1, le=65535, description="Port of the Service, forwarded to the relayers' port.")
    annotations: dict[str, str] = Field(default={}, max_length=32)


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
    metrics: tuple[FreeObject, ...] = Field(
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


class Ingress(Model):
    """An Ingress to the relayers."""

    host: Name
    class_name: Name | None = None
    tls_secret_name: Name | None = Field(default=None, description="A Secret with the host's certificate.")
    annotations: dict[str, str] = Field(default={}, max_length=32)


class GatewayRoute(Model):
    """An HTTPRoute of the Gateway API to the relayers."""

    parent_refs: tuple[FreeObject, ...] = Field(min_length=1, max_length=8, description="The Gateways to attach to.")
    hostnames: tuple[Name, ...] = Field(default=(), max_length=16)


class NetworkPolicies(Model):
    """Restricts the clients of the pods. Off by default."""

    enabled: bool = False
    relays_from: tuple[FreeObject, ...] = Field(
        default=(), max_length=16, description="NetworkPolicyPeers that may send relays. Empty: all."
    )
    metrics_from: tuple[FreeObject, ...] = Field(
        default=(), max_length=16, description="NetworkPolicyPeers that may read metrics, in addition to the operator."
    )
