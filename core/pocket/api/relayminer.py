"""Define the RelayMiner resource: relayers, miners and the services they serve."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from pocket.api.base import Metadata, Model, first_repeated
from pocket.api.console import ConsoleSpec
from pocket.api.kubernetes import (
    Autoscaling,
    GatewayRoute,
    Image,
    Ingress,
    Labels,
    Name,
    NetworkPolicies,
    PodTemplate,
    Quantity,
    Resources,
    ServicePort,
    owned_by,
)
from pocket.api.redis import RedisSpec
from pocket.api.schema import at_least, grows_only, immutable, list_map, rule, rules, text
from pocket.api.services import ServiceSpec, url
from pocket.api.signer import SignerSpec
from pocket.api.simulation import Simulation

GrpcUrl = Annotated[str, *url("grpcs?", "grpc://host:port or grpcs://host:port", "gRPC address. grpcs:// uses TLS.")]
RpcUrl = Annotated[str, *url("https?|tcp", "http://host:port or https://host:port", "CometBFT RPC.")]


class ChainNode(Model):
    """A chain node."""

    grpc: GrpcUrl
    rpc: RpcUrl


_SAME_NODE = "the same node occurs twice"


class ChainSpec(Model):
    """The chain and how to reach it."""

    id: Annotated[str, immutable("create another RelayMiner for another chain")] = Field(
        default="pocket",
        min_length=1,
        max_length=50,
        pattern="^[!-~]*$",
        description="Chain id. Immutable. The nodes are checked against it.",
    )
    nodes: tuple[ChainNode, ...] = Field(
        min_length=1,
        max_length=16,
        description="Nodes in order of preference. Rolls the pods.",
        json_schema_extra=rules(rule("self.all(a, self.exists_one(b, a == b))", _SAME_NODE)),
    )
    block_seconds: float = Field(
        default=30.0, gt=0, le=3600, description="Expected seconds between blocks. Rolls the pods."
    )
    gas_price: Annotated[
        str,
        *text(
            r"[0-9]+(\.[0-9]+)?upokt",
            "must be an amount in upokt, such as 0.000001upokt",
            longest=40,
            description="Price of one gas, in upokt. Rolls the pods.",
        ),
    ] = "0.000001upokt"
    gas_adjustment: float = Field(default=1.7, ge=1, le=10, description="Factor on simulated gas. Rolls the pods.")
    max_transaction_bytes: int = Field(
        default=1_048_576,
        ge=65_536,
        le=104_857_600,
        description="Largest transaction that the chain's nodes accept (mempool.max_tx_bytes), bytes. A relay too "
        "large for "
        "the proof in such a transaction is served but not mined. Rolls the pods.",
    )
    query_timeout_seconds: float = Field(
        default=5.0, gt=0, le=300, description="Deadline of one query over all nodes, seconds. Rolls the pods."
    )

    @field_validator("nodes")
    @classmethod
    def _distinct(cls, nodes: tuple[ChainNode, ...]) -> tuple[ChainNode, ...]:
        if len({(node.grpc, node.rpc) for node in nodes}) < len(nodes):
            raise ValueError(_SAME_NODE)
        return nodes


class Recording(StrEnum):
    """When a relay is answered: strict once it is recorded, fast before that."""

    STRICT = "strict"
    FAST = "fast"


class Metering(Model):
    """Limits service to what the chain can pay.

    All relayers share a session's budget through Redis.
    """

    enabled: bool = Field(default=True, description="Rolls the pods.")
    when_unavailable: Literal["open", "closed"] = Field(
        default="open",
        description="While the budget cannot be read: open serves relays, closed rejects them. Rolls the pods.",
    )


class ResponseCompression(Model):
    """Gzip of responses to gateways that accept it.

    Signed bytes are unchanged. Applied without restart.
    """

    enabled: bool = False
    min_bytes: int = Field(default=1024, ge=0, le=2**30, description="Smaller responses are sent uncompressed, bytes.")


class Rollout(Model):
    """How a new image, or a change that rolls the pods, reaches the relayers.

    RollingUpdate: pod by pod, as each becomes ready. Canary: on one additional pod first, which serves its share of the
    relays. The other pods follow only if it performs well, otherwise they stay unchanged.
    """

    strategy: Literal["RollingUpdate", "Canary"] = Field(
        default="RollingUpdate", description="Applied without restart."
    )
    observe_seconds: int = Field(
        default=120,
        ge=0,
        le=86400,
        description="Seconds for which a ready canary is observed. Applied without restart.",
    )
    ready_seconds: int = Field(
        default=300,
        ge=1,
        le=86400,
        description="Seconds within which a canary must become ready. Applied without restart.",
    )
    max_more_errors_percent: float = Field(
        default=5.0,
        ge=0,
        le=100,
        description="Largest error rate of the canary, in percentage points above the other relayers'. Applied "
        "without restart.",
    )
    max_latency_factor: float = Field(
        default=3.0,
        ge=1,
        le=1000,
        description="Largest mean latency of the canary, as a multiple of the other relayers'. Applied without "
        "restart.",
    )


_ONE_SCALE = "set replicas or autoscaling, not both"


class ConnectionLimits(Model):
    """Client connections per worker process of a relayer."""

    total: int = Field(
        default=10_000,
        ge=16,
        le=1_000_000,
        description="Connections. At the limit a new one replaces the oldest without an admitted relay. Rolls the "
        "pods.",
    )
    per_address: int = Field(
        default=2_500,
        ge=1,
        le=1_000_000,
        description="Connections per address (IPv6: /64). Behind a proxy all clients share the proxy's. Rolls the "
        "pods.",
    )
    idle_seconds: float = Field(
        default=120.0,
        ge=1,
        le=86_400,
        description="Seconds until a connection without request, or a WebSocket without relay, is closed. Rolls the "
        "pods.",
    )
    memory_bytes: int = Field(
        default=256 * 1024 * 1024,
        ge=32 * 1024 * 1024,
        le=64 * 1024**3,
        description="Bytes of unfinished requests, of responses that clients have not read, and of connections (4 to "
        "32 KiB each). Stalled ones are dropped first. One connection may hold a quarter of it, one address three "
        "quarters. Rolls the pods.",
    )


class RelayerSpec(Model):
    """The relayer workload."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(rule("!(has(self.replicas) && has(self.autoscaling))", _ONE_SCALE))
    }

    replicas: int | None = Field(
        default=None, ge=0, le=1000, description="Pods. 1 unless autoscaling is set. Applied without restart."
    )
    autoscaling: Autoscaling | None = None
    workers: int = Field(default=2, ge=1, le=64, description="Processes per pod that share the port. Rolls the pods.")
    port: int = Field(default=8080, ge=1, le=65535, description="Port of the pods. Rolls the pods.")
    recording: Recording = Field(
        default=Recording.STRICT,
        description="strict: a relay is answered once it is in Redis and in the local log. fast: it is answered "
        "before, so a crash can lose relays that were answered. Rolls the pods.",
    )
    metering: Metering = Metering()
    simulation: Simulation = Simulation()
    response_compression: ResponseCompression = ResponseCompression()
    web_socket_handshake: Literal["log", "enforce"] = Field(
        default="log", description="An invalid signed WebSocket handshake is only logged, or rejected. Rolls the pods."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Applied without restart."
    )
    connections: ConnectionLimits = ConnectionLimits()
    drain_seconds: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        description="Seconds after SIGTERM for running requests, and for an unavailable Redis to return. Rolls the "
        "pods.",
    )
    hung_worker_seconds: float = Field(
        default=10.0,
        ge=3,
        le=600,
        description="Seconds without a heartbeat after which a worker process is killed and restarted. Rolls the pods.",
    )
    image: Image | None = Field(default=None, description="Default: the operator's release. Rolls the pods.")
    rollout: Rollout = Rollout()
    resources: Resources = Resources()
    service: ServicePort = ServicePort()
    ingress: Ingress | None = None
    gateway: GatewayRoute | None = None
    pod_template: Annotated[PodTemplate, *owned_by("relayer")] = PodTemplate()

    @model_validator(mode="after")
    def _scaled_once(self) -> Self:
        if self.replicas is not None and self.autoscaling is not None:
            raise ValueError(_ONE_SCALE)
        return self


_SAME_CLASS = "storageClassName is immutable: volumes keep their class, set it when the RelayMiner is created"
_FITS = "more replicas than shards: the surplus would idle"


class MinerSpec(Model):
    """The miner workload."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            rule("!has(self.replicas) || self.replicas <= self.shards", _FITS),
            rule("!has(self.autoscaling) || self.autoscaling.maxReplicas <= self.shards", _FITS),
            rule("!(has(self.replicas) && has(self.autoscaling))", _ONE_SCALE),
            rule("has(self.storageClassName) == has(oldSelf.storageClassName)", _SAME_CLASS),
        )
    }

    replicas: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Pods, at most the number of shards. 1 unless autoscaling is set. Applied without restart.",
    )
    autoscaling: Autoscaling | None = Field(
        default=None, description="A miner that is scaled down hands its shards over first, and its volume stays."
    )
    shards: Annotated[int, immutable("create another RelayMiner with more shards and move its Suppliers")] = Field(
        default=16, ge=1, le=1024, description="Units into which the miners divide the Suppliers. Immutable."
    )
    storage: Annotated[Quantity, at_least("1Mi"), grows_only("volumes do not shrink")] = Field(
        default="10Gi",
        description="Size of each miner's volume. A larger size lets the volumes grow, if their storage class allows "
        "it. Applied without restart.",
    )
    storage_class_name: Annotated[Name | None, immutable("volumes keep their class")] = Field(
        default=None, description="Default: the cluster's."
    )
    check_endpoints: bool = Field(
        default=True,
        description="Check the public URLs of the stakes every few minutes: names, ports and certificates. Rolls the "
        "pods.",
    )
    retention_days: int = Field(
        default=400, ge=7, le=36500, description="Days for which session outcomes stay on the volume. Rolls the pods."
    )
    seal_after_blocks: int = Field(
        default=1,
        ge=0,
        le=100,
        description="Blocks after the claim window opens at which a session is sealed. Rolls the pods.",
    )
    image: Image | None = Field(default=None, description="Default: the operator's release. Rolls the pods.")
    resources: Resources = Resources()
    pod_template: Annotated[PodTemplate, *owned_by("miner")] = PodTemplate()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.replicas is not None and self.autoscaling is not None:
            raise ValueError(_ONE_SCALE)
        if max(self.replicas or 1, self.autoscaling.max_replicas if self.autoscaling else 1) > self.shards:
            raise ValueError(_FITS)
        return self


class Monitoring(Model):
    """Objects of the Prometheus operator, created only if the cluster has these kinds."""

    pod_monitor: bool = True
    rules: bool = Field(default=True, description="Alerting rules (PrometheusRule).")
    labels: Labels = Field(default={}, max_length=16, description="Labels that your Prometheus selects by.")
    dashboards: bool = Field(default=True, description="A Grafana dashboard in a ConfigMap.")
    dashboard_labels: Labels = Field(
        default={"grafana_dashboard": "1"}, max_length=16, description="Labels that Grafana's sidecar selects by."
    )


class Deletion(Model):
    """What happens when a Supplier or the RelayMiner is deleted."""

    drain_deadline_seconds: int = Field(
        default=14400,
        ge=0,
        le=604800,
        description="Seconds after which open claims and proofs are abandoned. Applied without restart.",
    )


_DEBUG_PORT, _ADMIN_PORT = 6060, 9090
_TAKEN_PORT = (
    f"relayer.port is a port of the pods themselves: {_ADMIN_PORT} (metrics), or with debug one from {_DEBUG_PORT} on "
    "per worker"
)
_FREE_PORT = (
    f"self.relayer.port != {_ADMIN_PORT} && !(self.debug && self.relayer.port >= {_DEBUG_PORT} && "
    f"self.relayer.port < {_DEBUG_PORT} + self.relayer.workers)"
)


class RelayMinerSpec(Model):
    """The desired state of a RelayMiner."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            rule("has(self.prefix) == has(oldSelf.prefix)", "prefix is immutable: all keys in Redis begin with it"),
            rule(_FREE_PORT, _TAKEN_PORT),
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
        immutable("all keys in Redis begin with it"),
    ] = Field(default=None, description="Prefix of the keys in Redis. Default: <namespace>-<name>. Immutable.")
    services: tuple[ServiceSpec, ...] = Field(min_length=1, max_length=256, json_schema_extra=list_map("id"))
    relayer: RelayerSpec = RelayerSpec()
    miner: MinerSpec = MinerSpec()
    signer: SignerSpec | None = Field(
        default=None, description="Remote signer of the Suppliers whose key is remote. Changes roll the pods."
    )
    monitoring: Monitoring = Monitoring()
    network_policy: NetworkPolicies = NetworkPolicies()
    console: ConsoleSpec | None = Field(default=None, description="Run the console. Applied without restart.")
    deletion: Deletion = Deletion()
    update_strategy: Literal["automatic", "supervised"] = Field(
        default="automatic",
        description="How a release of the operator (images, pod templates) reaches this RelayMiner. automatic: at its "
        "turn. supervised: once the annotation pocket.network/approve-update names the update that status.update "
        "shows. Applied without restart.",
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
        description="Serve tasks, memory and CPU profiles at /debug on localhost of the pods: port 6060 of the miner "
        "and of the first relayer worker, the following ports of the other workers. Rolls the pods.",
    )
    paused: bool = Field(
        default=False, description="The operator leaves all children as they are. Applied without restart."
    )

    @field_validator("services")
    @classmethod
    def _unique(cls, services: tuple[ServiceSpec, ...]) -> tuple[ServiceSpec, ...]:
        if (twice := first_repeated(service.id for service in services)) is not None:
            raise ValueError(f"service id {twice} occurs twice")
        return services

    @model_validator(mode="after")
    def _free_port(self) -> Self:
        debug = range(_DEBUG_PORT, _DEBUG_PORT + self.relayer.workers * self.debug)
        if self.relayer.port == _ADMIN_PORT or self.relayer.port in debug:
            raise ValueError(_TAKEN_PORT)
        return self


class RelayMiner(Model):
    """The RelayMiner resource."""

    api_version: Literal["pocket.network/v1beta1"] = "pocket.network/v1beta1"
    kind: Literal["RelayMiner"] = "RelayMiner"
    metadata: Metadata
    spec: RelayMinerSpec

    @property
    def prefix(self) -> str:
        """Return the Redis key prefix in force."""
        return self.spec.prefix or f"{self.metadata.namespace}-{self.metadata.name}"
