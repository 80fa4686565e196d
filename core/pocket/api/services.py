"""The services of a RelayMiner: what is served, by which backends, and under which limits."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic.fields import FieldInfo

from pocket.api.base import Model
from pocket.api.kubernetes import Name
from pocket.api.schema import LIST_SET, Cel, matching, rule, rules, text

ServiceId = Annotated[
    str,
    *text(
        "[a-zA-Z0-9_-]{1,42}",
        "must be a service id: at most 42 letters, digits, - or _",
        longest=42,
        description="Service id on chain.",
    ),
]


_PORT = "(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"


def url(schemes: str, example: str, description: str) -> tuple[AfterValidator, Cel, FieldInfo]:
    """A URL with one of the schemes, without credentials: unpack into `Annotated[str, *url(...)]`.

    The API server bounds what a rule may cost, which a long pattern exceeds: that a port is at most 65535 is looked at
    here alone.
    """
    message = f"must be a URL of this kind: {example}, without credentials (those belong in auth.secretRef)"

    def form(port: str) -> str:
        return rf"(?:{schemes})://(?:\[[^/@\s]+\]|[^/?@:\s\[\]]+)(?::{port})?(?:[/?]\S*)?"

    _, rule_, field = text(form("[1-9][0-9]{0,4}"), message, longest=512, description=description)
    return matching(form(_PORT), message), rule_, field


HttpUrl = Annotated[str, *url("https?", "http://host:port/path", "An endpoint.")]
WebSocketUrl = Annotated[str, *url("wss?", "ws://host:port/path or wss://host:port/path", "An endpoint.")]
GrpcBackendUrl = Annotated[
    str, *url("grpcs?", "grpc://host:port or grpcs://host:port", "An endpoint; grpcs:// is TLS.")
]
ApplicationAddress = Annotated[str, *text("pokt1[a-z0-9]{38}", "must be an application address: pokt1...", longest=43)]


class Validation(StrEnum):
    """When a relay is validated: before the backend is asked, or beside it. Nothing invalid is ever answered."""

    EAGER = "eager"
    OPTIMISTIC = "optimistic"


class Replays(StrEnum):
    """What becomes of a signed request that was served before: refused, served but not mined, or a relay as any."""

    REFUSE = "refuse"
    SERVE_UNPAID = "serve-unpaid"
    SERVE = "serve"


RPC_NUMBERS: Final[Mapping[str, int]] = {"grpc": 1, "webSocket": 2, "jsonRpc": 3, "rest": 4, "cometBft": 5}
"""Backends by the numbers with which stakes declare their transports (docs/protocol/messages.md)."""

_SAME_URL = "the same URL stands twice"
_SOME_BACKEND = "name at least one of jsonRpc, rest, cometBft, webSocket and grpc"


class SecretRef(Model):
    """A Secret in the same namespace."""

    name: Name = Field(min_length=1, description="Name of the Secret.")


class Auth(Model):
    """How the relayer proves itself to a backend; the values lie in a Secret and are taken up without restart."""

    type: Literal["basic", "bearer", "header"] = Field(
        description="basic: entries username and password. bearer: entry token. header: entry value, sent as it is."
    )
    secret_ref: SecretRef
    header: str = Field(
        default="Authorization", min_length=1, max_length=100, description="Header that carries it, for type header."
    )


class Freshness(Model):
    """Endpoints that lag behind the others of their pool get no relays."""

    field: str = Field(
        default="result",
        min_length=1,
        max_length=200,
        description="Where the answer holds the block height: names joined by dots; decimal, or hexadecimal after 0x.",
    )
    max_behind_blocks: int = Field(default=5, ge=0, le=1_000_000, description="Blocks behind the highest endpoint.")


class HealthCheck(Model):
    """A probe of every endpoint, besides what relays tell of it."""

    method: Literal["GET", "POST", "HEAD"] = "GET"
    path: str = Field(default="", max_length=512, description="Joined to the endpoint's URL.")
    body: str = Field(default="", max_length=4096, description="Sent as JSON when it begins with { or [.")
    expect_status: tuple[int, ...] = Field(default=(), max_length=16, description="Default: 200 to 299.")
    expect_body: str = Field(default="", max_length=1024, description="Text that the answer must hold.")
    interval_seconds: float = Field(default=10.0, ge=0.1, le=3600)
    timeout_seconds: float = Field(default=5.0, gt=0, le=300)
    unhealthy_threshold: int = Field(default=3, ge=1, le=100, description="Failures in a row that take it out.")
    healthy_threshold: int = Field(default=2, ge=1, le=100, description="Successes in a row that take it back.")
    freshness: Freshness | None = None


class BackendBase(Model):
    """What backends of all transports have in common. Hot."""

    strategy: Literal["first_healthy", "round_robin"] | None = Field(
        default=None, description="Default: first_healthy for one URL, round_robin for several."
    )
    dial_timeout_seconds: float = Field(default=5.0, gt=0, le=300, description="Seconds to connect.")
    unhealthy_threshold: int = Field(default=5, ge=1, le=1000, description="Failures in a row that open the breaker.")
    recovery_seconds: float = Field(
        default=30.0, ge=0, le=3600, description="Seconds before an open endpoint is tried again."
    )
    headers: dict[str, str] = Field(default={}, max_length=32, description="Added to every request; they override.")
    auth: Auth | None = None

    @property
    def endpoints(self) -> tuple[str, ...]:
        """URLs, whatever their scheme."""
        urls: tuple[str, ...] = getattr(self, "urls", ())
        return urls

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.endpoints)) != len(self.endpoints):
            raise ValueError(_SAME_URL)
        return self


class RequestBackend(BackendBase):
    """Backends that are asked one thing at a time."""

    timeout_seconds: float = Field(default=30.0, gt=0, le=3600, description="Whole request, all attempts, seconds.")
    max_retries: int = Field(default=1, ge=0, le=3, description="Further attempts on another healthy endpoint.")


class Backend(RequestBackend):
    """The HTTP backends of one transport of a service. Hot."""

    urls: tuple[HttpUrl, ...] = Field(
        min_length=1, max_length=8, description="Endpoints; http:// or https://.", json_schema_extra=LIST_SET
    )
    base_path: str = Field(
        default="", max_length=512, description="Replaces the path of the URLs as prefix of every request."
    )
    max_connections: int = Field(default=500, ge=1, le=65535, description="Per endpoint.")
    health_check: HealthCheck | None = None


class WebSocketBackend(BackendBase):
    """The WebSocket backends of a service. Hot."""

    urls: tuple[WebSocketUrl, ...] = Field(
        min_length=1, max_length=8, description="Endpoints; ws:// or wss://.", json_schema_extra=LIST_SET
    )


class GrpcBackend(RequestBackend):
    """The gRPC backends of a service. Hot."""

    urls: tuple[GrpcBackendUrl, ...] = Field(
        min_length=1, max_length=8, description="Endpoints; grpc:// or grpcs://.", json_schema_extra=LIST_SET
    )


class Backends(Model):
    """Backends by transport; a request is never served by another transport's backend."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            rule(
                "has(self.jsonRpc) || has(self.rest) || has(self.cometBft) || has(self.webSocket) || has(self.grpc)",
                _SOME_BACKEND,
            )
        )
    }

    json_rpc: Backend | None = None
    rest: Backend | None = None
    comet_bft: Backend | None = None
    web_socket: WebSocketBackend | None = None
    grpc: GrpcBackend | None = None

    def by_type(self) -> dict[str, BackendBase]:
        """Those that are set, by the name that the resource gives them."""
        named = {
            "jsonRpc": self.json_rpc, "rest": self.rest, "cometBft": self.comet_bft,
            "webSocket": self.web_socket, "grpc": self.grpc,
        }  # fmt: skip
        return {name: backend for name, backend in named.items() if backend}

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.by_type():
            raise ValueError(_SOME_BACKEND)
        return self


class Applications(Model):
    """Whose relays are served. Hot."""

    allow: tuple[ApplicationAddress, ...] = Field(
        default=(), max_length=256, description="Only these; empty: all.", json_schema_extra=LIST_SET
    )
    deny: tuple[ApplicationAddress, ...] = Field(
        default=(), max_length=256, description="Never these.", json_schema_extra=LIST_SET
    )

    def refuses(self, address: str) -> bool:
        """Whether the application's relays are refused."""
        return address in self.deny or (bool(self.allow) and address not in self.allow)


class RateLimit(Model):
    """Relays per second of one application, over all replicas; beyond it the relayer answers 429. Hot."""

    relays_per_second: int = Field(ge=1, le=1_000_000)


class ServiceSpec(Model):
    """A service that is served."""

    id: ServiceId
    validation: Validation = Field(default=Validation.EAGER, description="Hot.")
    default_backend: Literal["jsonRpc", "rest", "cometBft"] = Field(
        default="jsonRpc", description="Transport of requests without Rpc-Type header. Hot."
    )
    max_body_bytes: int = Field(
        default=10 * 1024 * 1024, ge=1, le=2**30, description="Largest request and response body, bytes. Hot."
    )
    service_factor: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Share of the application's stake that one supplier serves in a session, instead of what the chain "
        "surely pays. Hot.",
    )
    replays: Replays = Field(default=Replays.REFUSE, description="A signed request that comes again. Hot.")
    applications: Applications = Applications()
    rate_limit: RateLimit | None = None
    backends: Backends
