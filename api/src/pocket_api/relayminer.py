"""The RelayMiner resource: one relayer and miner deployment with the services it serves."""

from enum import StrEnum
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from pocket_api.base import Metadata, Model

ServiceId = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,42}$", description="Service id on chain.")]


def _url(text: str, schemes: tuple[str, ...], example: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in schemes or not parts.hostname:
        raise ValueError(f"{text!r} is not a URL of this kind: write {example}")
    if parts.username or parts.password:
        raise ValueError("credentials do not belong in a URL; use auth.secretRef")
    return text


class Validation(StrEnum):
    """When a relay is validated: before the backend is asked, or beside it. Nothing invalid is ever answered."""

    EAGER = "eager"
    OPTIMISTIC = "optimistic"


class ChainNode(Model):
    """A chain node."""

    grpc: str = Field(description="gRPC address: grpc://host:port, grpcs:// with TLS.")
    rpc: str = Field(description="CometBFT RPC: http(s)://host:port.")

    @field_validator("grpc")
    @classmethod
    def _grpc(cls, text: str) -> str:
        return _url(text, ("grpc", "grpcs"), "grpc://host:port or grpcs://host:port")

    @field_validator("rpc")
    @classmethod
    def _rpc(cls, text: str) -> str:
        return _url(text, ("http", "https", "tcp"), "http://host:port or https://host:port")


class Chain(Model):
    """The chain and how to reach it."""

    id: str = Field(
        default="pocket", min_length=1, description="Chain id; immutable. The nodes are checked against it."
    )
    nodes: tuple[ChainNode, ...] = Field(min_length=1, description="Nodes in order of preference.")
    block_seconds: float = Field(default=30.0, gt=0, description="Expected seconds between blocks.")
    gas_price: str = Field(
        default="0.000001upokt", pattern=r"^[0-9]+(\.[0-9]+)?upokt$", description="Price of one gas."
    )
    gas_adjustment: float = Field(default=1.7, ge=1, le=10, description="Factor on simulated gas.")
    query_timeout_seconds: float = Field(default=5.0, gt=0, description="Deadline of one query over all nodes.")


class SecretKeyRef(Model):
    """A key of a Secret in the same namespace."""

    name: str = Field(min_length=1)
    key: str = Field(min_length=1)


class Redis(Model):
    """The Redis that holds the ledger; exactly one source."""

    url: str | None = Field(default=None, description="redis://host:port/db, rediss:// with TLS, without credentials.")
    url_secret_ref: SecretKeyRef | None = Field(default=None, description="A Secret that holds the URL.")

    @field_validator("url")
    @classmethod
    def _checked(cls, text: str | None) -> str | None:
        return None if text is None else _url(text, ("redis", "rediss"), "redis://host:6379/0")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.url is None) == (self.url_secret_ref is None):
            raise ValueError("name exactly one of url and urlSecretRef")
        return self


class Backend(Model):
    """The backends of one transport of a service."""

    urls: tuple[str, ...] = Field(min_length=1, description="Endpoints; http:// or https://.")
    base_path: str = Field(default="", description="Replaces the path of the URLs as prefix of every request.")
    strategy: Literal["first_healthy", "round_robin"] | None = Field(
        default=None, description="Default: first_healthy for one URL, round_robin for several."
    )
    timeout_seconds: float = Field(default=30.0, gt=0, description="Whole request, all attempts.")
    dial_timeout_seconds: float = Field(default=5.0, gt=0)
    max_retries: int = Field(default=1, ge=0, le=3, description="Further attempts on another healthy endpoint.")
    unhealthy_threshold: int = Field(default=5, ge=1, description="Failures in a row that open the breaker.")
    recovery_seconds: float = Field(default=30.0, ge=0, description="Pause before an open endpoint is tried again.")
    max_connections: int = Field(default=500, ge=1, description="Per endpoint.")
    headers: dict[str, str] = Field(default={}, description="Added to every request; they override.")

    @field_validator("urls")
    @classmethod
    def _checked(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(urls)) != len(urls):
            raise ValueError("the same URL stands twice")
        return tuple(_url(url, ("http", "https"), "http://host:port/path") for url in urls)


class Backends(Model):
    """Backends by transport; a request is never served by another transport's backend."""

    json_rpc: Backend | None = None
    rest: Backend | None = None
    comet_bft: Backend | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not (self.json_rpc or self.rest or self.comet_bft):
            raise ValueError("name at least one of jsonRpc, rest and cometBft")
        return self


class Service(Model):
    """A service that is served."""

    id: ServiceId
    validation: Validation = Field(default=Validation.EAGER, description="Hot.")
    default_backend: Literal["jsonRpc", "rest", "cometBft"] = Field(
        default="jsonRpc", description="Transport of requests without Rpc-Type header."
    )
    max_body_bytes: int = Field(default=10 * 1024 * 1024, ge=1, description="Largest request and response body.")
    backends: Backends


class Recording(StrEnum):
    """strict: a relay is answered once it is in the ledger and in the local log. fast: answered before."""

    STRICT = "strict"
    FAST = "fast"


class Relayer(Model):
    """The relayer workload."""

    replicas: int = Field(default=1, ge=0, description="Pods.")
    workers: int = Field(default=2, ge=1, le=64, description="Processes per pod that share the port.")
    port: int = Field(default=8080, ge=1, le=65535)
    recording: Recording = Recording.STRICT
    drain_seconds: float = Field(default=30.0, ge=0, description="Time for running requests after SIGTERM.")


class Miner(Model):
    """The miner workload."""

    replicas: int = Field(default=1, ge=1, description="Pods; at most the number of shards.")
    shards: int = Field(default=16, ge=1, le=1024, description="Units of ownership; immutable.")
    storage: str = Field(default="10Gi", pattern=r"^[0-9]+(Ki|Mi|Gi|Ti)$", description="Volume of the mirror.")
    seal_after_blocks: int = Field(
        default=1, ge=0, description="Blocks after the claim window opens at which a session is sealed."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.replicas > self.shards:
            raise ValueError("more replicas than shards: the surplus would idle")
        return self


class RelayMinerSpec(Model):
    """What a RelayMiner declares."""

    chain: Chain
    redis: Redis
    prefix: str | None = Field(
        default=None, pattern=r"^[a-zA-Z0-9._-]{1,100}$", description="Redis key prefix; <namespace>-<name> by default."
    )
    services: tuple[Service, ...] = Field(min_length=1)
    relayer: Relayer = Relayer()
    miner: Miner = Miner()
    paused: bool = False

    @field_validator("services")
    @classmethod
    def _unique(cls, services: tuple[Service, ...]) -> tuple[Service, ...]:
        ids = [service.id for service in services]
        if len(set(ids)) != len(ids):
            raise ValueError("a service id stands twice")
        return services


class RelayMiner(Model):
    """The custom resource."""

    api_version: Literal["pocket.network/v1alpha1"] = "pocket.network/v1alpha1"
    kind: Literal["RelayMiner"] = "RelayMiner"
    metadata: Metadata
    spec: RelayMinerSpec

    @property
    def prefix(self) -> str:
        """Redis key prefix in force."""
        return self.spec.prefix or f"{self.metadata.namespace}-{self.metadata.name}"
