"""The RelayMiner resource: one relayer and miner deployment with the services it serves."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from pocket.api.base import Metadata, Model
from pocket.api.kubernetes import (
    Autoscaling,
    FreeObject,
    GatewayRoute,
    Ingress,
    Name,
    PodTemplate,
    Quantity,
    Resources,
    ServicePort,
)
from pocket.api.schema import immutable, list_map, rule, rules, text
from pocket.api.services import ServiceSpec, url
from pocket.api.simulation import Simulation

GrpcUrl = Annotated[str, *url("grpcs?", "grpc://host:port or grpcs://host:port", "gRPC address; grpcs:// is TLS.")]
RpcUrl = Annotated[str, *url("https?|tcp", "http://host:port or https://host:port", "CometBFT RPC.")]
RedisUrl = Annotated[str, *url("rediss?", "redis://host:6379/0", "rediss:// is TLS.")]


class ChainNode(Model):
    """A chain node."""

    grpc: GrpcUrl
    rpc: RpcUrl


class ChainSpec(Model):
    """The chain and how to reach it."""

    id: Annotated[str, immutable("make another RelayMiner for another chain")] = Field(
        default="pocket",
        min_length=1,
        max_length=50,
        description="Chain id; immutable. The nodes are checked against it.",
    )
    nodes: tuple[ChainNode, ...] = Field(
        min_length=1, max_length=16, description="Nodes in order of preference. Rolling."
    )
    block_seconds: float = Field(default=30.0, gt=0, le=3600, description="Expected seconds between blocks. Rolling.")
    gas_price: Annotated[
        str,
        *text(
            r"[0-9]+(\.[0-9]+)?upokt",
            "must be an amount in upokt, such as 0.000001upokt",
            longest=40,
            description="Price of one gas, in upokt. Rolling.",
        ),
    ] = "0.000001upokt"
    gas_adjustment: float = Field(default=1.7, ge=1, le=10, description="Factor on simulated gas. Rolling.")
    max_transaction_bytes: int = Field(
        default=1_048_576,
        ge=65_536,
        le=104_857_600,
        description="Largest transaction that the chain's nodes take (mempool.max_tx_bytes), bytes. Proofs are sent in "
        "transactions below it; a relay that no such proof could hold is served and not mined. Rolling.",
    )
    query_timeout_seconds: float = Field(
        default=5.0, gt=0, le=300, description="Deadline of one query over all nodes, seconds. Rolling."
    )


class SecretKeyRef(Model):
    """A key of a Secret in the same namespace."""

    name: Name = Field(min_length=1, description="Name of the Secret.")
    key: str = Field(min_length=1, max_length=253, description="Which entry of its data.")


class TrialRedis(Model):
    """A single Redis pod without replica for trials: not for real money."""

    storage: Quantity = Field(default="1Gi", description="Volume of its append-only file.")


_ONE_REDIS = "name exactly one of url, urlSecretRef and trial"


class RedisSpec(Model):
    """The Redis that holds the ledger; exactly one source. Rolling."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            rule("[has(self.url), has(self.urlSecretRef), has(self.trial)].filter(x, x).size() == 1", _ONE_REDIS)
        )
    }

    url: RedisUrl | None = None
    url_secret_ref: SecretKeyRef | None = Field(
        default=None, description="A Secret that holds the URL, credentials included."
    )
    trial: TrialRedis | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(source is not None for source in (self.url, self.url_secret_ref, self.trial)) != 1:
            raise ValueError(_ONE_REDIS)
        return self


class Recording(StrEnum):
    """strict: a relay is answered once it is in the ledger and in the local log. fast: answered before."""

    STRICT = "strict"
    FAST = "fast"


class Metering(Model):
    """Serving not more than the chain can pay: the budget of a session is shared by all relayers through Redis."""

    enabled: bool = Field(default=True, description="Rolling.")
    when_unavailable: Literal["open", "closed"] = Field(
        default="open",
        description="What happens while the budget cannot be read: open serves on, closed refuses. Rolling.",
    )


class ResponseCompression(Model):
    """Gzip of answers to gateways that accept it; what is signed stays as it is. Hot."""

    enabled: bool = False
    min_bytes: int = Field(default=1024, ge=0, le=2**30, description="Smaller answers are sent as they are.")


class Rollout(Model):
    """How a new image or a changed rolling configuration reaches the relayers.

    RollingUpdate: pod by pod, as each becomes ready. Canary: on one further pod first, that serves its share of the
    relays; only if it stays good the others follow, else they stay as they are.
    """

    strategy: Literal["RollingUpdate", "Canary"] = Field(default="RollingUpdate", description="Hot.")
    observe_seconds: int = Field(
        default=120, ge=0, le=86400, description="Seconds for which a ready canary is watched. Hot."
    )
    ready_seconds: int = Field(
        default=300, ge=1, le=86400, description="Seconds in which a canary must become ready. Hot."
    )
    max_more_errors_percent: float = Field(
        default=5.0,
        ge=0,
        le=100,
        description="Failed relays of the canary, in percentage points above those of the other relayers. Hot.",
    )
    max_latency_factor: float = Field(
        default=3.0, ge=1, le=1000, description="Mean time of the canary's relays over that of the others'. Hot."
    )


_ONE_SCALE = "name replicas or autoscaling, not both"


class ConnectionLimits(Model):
    """Clients' connections to each worker process of a relayer."""

    total: int = Field(
        default=10_000,
        ge=16,
        le=1_000_000,
        description="Connections; a new one takes the place of the oldest without a proven relay. Rolling.",
    )
    per_address: int = Field(
        default=2_500,
        ge=1,
        le=1_000_000,
        description="Connections of one address (IPv6: a /64). Behind a proxy all clients have the proxy's. Rolling.",
    )
    idle_seconds: float = Field(
        default=120.0,
        ge=1,
        le=86_400,
        description="Seconds until a connection without request, or a WebSocket without relay, is closed. Rolling.",
    )
    memory_bytes: int = Field(
        default=256 * 1024 * 1024,
        ge=32 * 1024 * 1024,
        le=64 * 1024**3,
        description="Bytes of unfinished requests and of answers that are not taken yet; what stands still is dropped "
        "first. One connection may hold a quarter of them, one address three quarters. Rolling.",
    )


class RelayerSpec(Model):
    """The relayer workload."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(rule("!(has(self.replicas) && has(self.autoscaling))", _ONE_SCALE))
    }

    replicas: int | None = Field(default=None, ge=0, le=1000, description="Pods; 1 unless autoscaling is set. Hot.")
    autoscaling: Autoscaling | None = None
    workers: int = Field(default=2, ge=1, le=64, description="Processes per pod that share the port. Rolling.")
    port: int = Field(default=8080, ge=1, le=65535, description="Port of the pods. Rolling.")
    recording: Recording = Field(
        default=Recording.STRICT,
        description="strict: a relay is answered once it is in Redis and in the local log. fast: it is answered "
        "before, so a crash can lose relays that were answered. Rolling.",
    )
    metering: Metering = Metering()
    simulation: Simulation = Simulation()
    response_compression: ResponseCompression = ResponseCompression()
    web_socket_handshake: Literal["log", "enforce"] = Field(
        default="log", description="A signed WebSocket handshake that is wrong: only logged, or refused. Rolling."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Hot.")
    connections: ConnectionLimits = ConnectionLimits()
    drain_seconds: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        description="Seconds for running requests after SIGTERM, and for a Redis that is away to come back. Rolling.",
    )
    hung_worker_seconds: float = Field(
        default=10.0,
        ge=3,
        le=600,
        description="Seconds without a sign of life after which a worker process is killed and started again. Rolling.",
    )
    image: str | None = Field(default=None, max_length=512, description="Default: the operator's release. Rolling.")
    rollout: Rollout = Rollout()
    resources: Resources = Resources()
    service: ServicePort = ServicePort()
    ingress: Ingress | None = None
    gateway: GatewayRoute | None = None
    pod_template: PodTemplate = PodTemplate()

    @model_validator(mode="after")
    def _scaled_once(self) -> Self:
        if self.replicas is not None and self.autoscaling is not None:
            raise ValueError(_ONE_SCALE)
        return self


_FITS = "more replicas than shards: the surplus would idle"


class MinerSpec(Model):
    """The miner workload."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            rule("!has(self.replicas) || self.replicas <= self.shards", _FITS),
            rule("!has(self.autoscaling) || self.autoscaling.maxReplicas <= self.shards", _FITS),
            rule("!(has(self.replicas) && has(self.autoscaling))", _ONE_SCALE),
        )
    }

    replicas: int | None = Field(
        default=None, ge=1, le=1024, description="Pods, at most the number of shards; 1 unless autoscaling is set. Hot."
    )
    autoscaling: Autoscaling | None = Field(
        default=None, description="A miner that goes hands its shards over first, and its volume stays."
    )
    shards: Annotated[int, immutable("make another RelayMiner with more shards and move its Suppliers")] = Field(
        default=16, ge=1, le=1024, description="Units of ownership; immutable."
    )
    storage: Annotated[Quantity, immutable("grow the claims of the StatefulSet's volumes by kubectl patch pvc")] = (
        Field(default="10Gi", description="Volume of each miner's mirror; immutable.")
    )
    storage_class_name: Annotated[Name | None, immutable("volumes keep their class")] = Field(
        default=None, description="Default: the cluster's."
    )
    check_endpoints: bool = Field(
        default=True,
        description="Connect every few minutes to the URLs of the stakes: do their names, ports and certificates hold? "
        "Rolling.",
    )
    retention_days: int = Field(
        default=400, ge=7, le=36500, description="Days for which outcomes of sessions stay on the volume. Rolling."
    )
    seal_after_blocks: int = Field(
        default=1,
        ge=0,
        le=100,
        description="Blocks after the claim window opens at which a session is sealed. Rolling.",
    )
    image: str | None = Field(default=None, max_length=512, description="Default: the operator's release. Rolling.")
    resources: Resources = Resources()
    pod_template: PodTemplate = PodTemplate()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.replicas is not None and self.autoscaling is not None:
            raise ValueError(_ONE_SCALE)
        if max(self.replicas or 1, self.autoscaling.max_replicas if self.autoscaling else 1) > self.shards:
            raise ValueError(_FITS)
        return self


class Monitoring(Model):
    """Objects of the Prometheus operator; made only where the cluster has these kinds."""

    pod_monitor: bool = True
    rules: bool = Field(default=True, description="Alerting rules (PrometheusRule).")
    labels: dict[str, str] = Field(default={}, max_length=16, description="Labels that your Prometheus selects by.")
    dashboards: bool = Field(default=True, description="A Grafana dashboard in a ConfigMap.")
    dashboard_labels: dict[str, str] = Field(
        default={"grafana_dashboard": "1"}, max_length=16, description="Labels that Grafana's sidecar selects by."
    )


class NetworkPolicies(Model):
    """Who may talk to the pods; off by default."""

    enabled: bool = False
    relays_from: tuple[FreeObject, ...] = Field(
        default=(), max_length=16, description="NetworkPolicyPeers that may send relays; empty: anyone."
    )
    metrics_from: tuple[FreeObject, ...] = Field(
        default=(), max_length=16, description="NetworkPolicyPeers that may read metrics, besides the operator."
    )


class Deletion(Model):
    """What happens when a Supplier or the RelayMiner is deleted."""

    drain_deadline_seconds: int = Field(
        default=14400, ge=0, le=604800, description="Seconds after which open claims and proofs are given up. Hot."
    )


class RelayMinerSpec(Model):
    """What a RelayMiner declares."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            rule("has(self.prefix) == has(oldSelf.prefix)", "prefix is immutable: it names the ledger's keys in Redis")
        )
    }

    chain: ChainSpec
    redis: RedisSpec
    prefix: Annotated[
        Annotated[
            str,
            *text("[a-zA-Z0-9._-]{1,100}", "must be at most 100 letters, digits, ., _ or -", longest=100),
        ]
        | None,
        immutable("it names the ledger's keys in Redis"),
    ] = Field(default=None, description="Prefix of the keys in Redis; <namespace>-<name> by default; immutable.")
    services: tuple[ServiceSpec, ...] = Field(min_length=1, max_length=256, json_schema_extra=list_map("id"))
    relayer: RelayerSpec = RelayerSpec()
    miner: MinerSpec = MinerSpec()
    monitoring: Monitoring = Monitoring()
    network_policy: NetworkPolicies = NetworkPolicies()
    deletion: Deletion = Deletion()
    update_strategy: Literal["automatic", "supervised"] = Field(
        default="automatic",
        description="How new default images of the operator reach this RelayMiner. automatic: when its turn comes. "
        "supervised: once the annotation pocket.network/approve-update names the update that status.update shows. "
        "Applied without restart.",
    )
    progress_deadline_seconds: int = Field(
        default=900,
        ge=30,
        le=86400,
        description="Seconds in which pods that are created or replaced must become ready before the status reports a "
        "failure. Applied without restart.",
    )
    debug: bool = Field(
        default=False,
        description="Tasks, memory and CPU profiles at /debug, on localhost of pods: port 6060 of the miner and of the "
        "first relayer worker, then counting up. Rolling.",
    )
    paused: bool = Field(default=False, description="The operator leaves all children as they are. Hot.")

    @field_validator("services")
    @classmethod
    def _unique(cls, services: tuple[ServiceSpec, ...]) -> tuple[ServiceSpec, ...]:
        ids = [service.id for service in services]
        if len(set(ids)) != len(ids):
            raise ValueError("a service id stands twice")
        return services


class RelayMiner(Model):
    """The custom resource."""

    api_version: Literal["pocket.network/v1beta1"] = "pocket.network/v1beta1"
    kind: Literal["RelayMiner"] = "RelayMiner"
    metadata: Metadata
    spec: RelayMinerSpec

    @property
    def prefix(self) -> str:
        """Redis key prefix in force."""
        return self.spec.prefix or f"{self.metadata.namespace}-{self.metadata.name}"
